"""Every check of the masking verdict, and which of them a verdict needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .comparisons import (
    adaptive_beats_white_box,
    black_box_beats_white_box,
    more_effort_gains,
    noise_beats_gradient,
    not_monotone_in_radius,
    parent_beats_white_box,
    single_step_beats_iterative,
    unbounded_attack_fails,
)
from .optimiser import (
    earlier_iterate_is_better,
    gradients_vanish,
    loss_not_converged,
    outputs_are_probabilities,
    randomness,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .evidence import Evidence
    from .finding import Finding

__all__ = ["CHECKS", "NEEDED"]

CHECKS: tuple[Callable[[Evidence], Finding], ...] = (
    single_step_beats_iterative,
    black_box_beats_white_box,
    not_monotone_in_radius,
    unbounded_attack_fails,
    noise_beats_gradient,
    gradients_vanish,
    more_effort_gains,
    loss_not_converged,
    earlier_iterate_is_better,
    randomness,
    outputs_are_probabilities,
    adaptive_beats_white_box,
    parent_beats_white_box,
)
"""In the order in which they are reported."""

NEEDED: tuple[Callable[[Evidence], Finding], ...] = (
    black_box_beats_white_box,
    unbounded_attack_fails,
    gradients_vanish,
    more_effort_gains,
    loss_not_converged,
    randomness,
    outputs_are_probabilities,
    adaptive_beats_white_box,
)
"""Those without which nothing is trustworthy. One of the others that has no data (no float parent is known, no noise is
defined for the norm) does not stand in the way."""
