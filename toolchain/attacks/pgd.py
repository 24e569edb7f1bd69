"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083), from cleverhans."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import RecipeError
from .base import Attack, Problem
from .epsilon import PIXEL_HIGH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .base import GradientSource

__all__ = ["PGD", "Descent"]

# The descent can cross the ball 1.25 times over, wherever it starts (Madry et al.'s rule: 2.5 eps / steps).
_REACH = 2.5


@dataclass(frozen=True)
class Descent(Attack):
    """Signed gradient steps, each projected into the L-infinity ball: what PGD and BIM share.

    Attributes:
        steps: Number of steps.
        step_codes: Length of a step in pixel codes (fractions allowed); `2.5 * epsilon / steps` where None.
            A step longer than the radius is cut to it.
    """

    random_start: ClassVar[bool]

    steps: int = 40
    step_codes: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise RecipeError(f"{self.name}: steps is {self.steps!r}; expected an integer of at least 1")
        step = self.step_codes
        if step is None:
            return
        if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < math.inf:
            raise RecipeError(
                f"{self.name}: step_codes is {step!r}; expected a positive number of pixel codes"
            )

    def used_step(self, epsilon_codes: int) -> float:
        """The length of a step at this radius, in codes."""
        step = _REACH * epsilon_codes / self.steps if self.step_codes is None else self.step_codes
        return min(float(step), float(epsilon_codes))

    def parameters(self, epsilon_codes: int) -> dict[str, Any]:
        """The settings, with the step that is used at this radius."""
        return {
            "steps": self.steps,
            "step_codes": self.used_step(epsilon_codes),
            "random_start": self.random_start,
        }

    def run(self, problem: Problem) -> NDArray[Any]:
        """Return float32 pixels in [0, 1]."""
        from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

        from .gradient import attack_with

        def algorithm(model: GradientSource, pixels: Tensor, labels: Tensor) -> Tensor:
            attacked: Tensor = projected_gradient_descent(
                model,
                pixels,
                problem.epsilon_codes / PIXEL_HIGH,
                self.used_step(problem.epsilon_codes) / PIXEL_HIGH,
                self.steps,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=labels,
                rand_init=self.random_start,
                sanity_checks=False,
            )
            return attacked

        return attack_with(problem, algorithm)


@dataclass(frozen=True)
class PGD(Descent):
    """Projected gradient descent from a random point of the ball."""

    name: ClassVar[str] = "pgd"
    random_start: ClassVar[bool] = True
