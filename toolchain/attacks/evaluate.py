"""Several attacks on one artifact, and what is left standing after all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RecipeError
from .outcome import AttackResult, worst_case
from .protocols import Judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..program import Program
    from ..source import HasProgram
    from .base import Attack, GradientSource

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of several attacks on the same images, in the order in which they ran."""

    results: tuple[AttackResult, ...]

    @cached_property
    def robust(self) -> NDArray[np.bool_]:
        """Which images withstood every attack within the ball, bool `(N,)`."""
        return worst_case(self.results)

    @property
    def robust_accuracy(self) -> float:
        """Share of the images that withstood every attack: the worst attack for each image, then the mean."""
        return float(np.mean(self.robust))

    @property
    def clean_accuracy(self) -> float:
        """Share of the clean images that are classified correctly."""
        return self.results[0].clean_accuracy


def evaluate(
    target: Judge | Program | HasProgram | str | Path,
    twin: GradientSource | None,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    attacks: Sequence[Attack],
    radius: float,
    *,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[str, int, int], None] | None = None,
    source: str | None = None,
) -> Evaluation:
    """Run each attack on all images.

    Args:
        target: The judge: an emulator or anything with `predict`; or an artifact, a program or a path, from
            which an emulator is made.
        twin: The gradient source; where None and an attack needs one, the twin of `target`.
        images: uint8 `(N, C, H, W)`.
        labels: Integers `(N,)`.
        attacks: At least one.
        radius: In pixel codes, the same for all.
        seed: Every attack starts from it.
        batch_size: Images attacked at a time.
        progress: Called with the attack's name, the images done and to be done.
        source: Who gives the gradient, where it is not the twin of `target` (see `Attack.__call__`).

    Raises:
        RecipeError: No attack was given, or an attack needs a gradient and there is nothing to make it from.
        DataError: As `Attack.__call__`.
        UnsupportedError: The target has no twin.
    """
    if not attacks:
        raise RecipeError("no attack given; expected at least one")
    judge = target if isinstance(target, Judge) else _emulator(target)
    if twin is None and any(attack.needs_gradient for attack in attacks):
        twin = _twin(target)
    return Evaluation(
        tuple(
            attack(
                twin,
                judge,
                images,
                labels,
                radius,
                seed=seed,
                batch_size=batch_size,
                progress=None if progress is None else partial(progress, attack.name),
                source=source if attack.needs_gradient else None,
            )
            for attack in attacks
        )
    )


def _emulator(source: Program | HasProgram | str | Path) -> Judge:
    from ..emulator import Emulator

    return Emulator(source)


def _twin(source: Any) -> GradientSource:
    if isinstance(source, Judge) and not hasattr(source, "program"):
        raise RecipeError(
            f"gradient attacks on a {type(source).__name__}, which holds no program: give a twin, or another "
            "torch model whose gradients to use"
        )
    from ..twin import Twin

    return Twin(source)
