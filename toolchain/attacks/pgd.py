"""Projected gradient descent (Madry et al. 2018, arXiv:1706.06083), from cleverhans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH, Norm
from .norms import ORDER
from .settings import check_count, check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from .gradient import Posed

__all__ = ["PGD", "Descent", "ProjectedDescent"]

# The descent can cross the ball 1.25 times over, wherever it starts (Madry et al.'s rule: 2.5 eps / steps).
_REACH = 2.5


@dataclass(frozen=True)
class Descent(Attack):
    """Gradient steps, each projected into the ball: what PGD, BIM and MIM share.

    Attributes:
        steps: Number of steps.
        step_codes: Length of a step in pixel codes (fractions allowed); `2.5 * epsilon / steps` where None.
            A step longer than the radius is cut to it.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("inf", "2")
    random_start: ClassVar[bool]

    steps: int = 40
    step_codes: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "steps", self.steps)
        if self.step_codes is not None:
            check_positive(self.name, "step_codes", self.step_codes, "number of pixel codes")

    def used_step(self, radius: float) -> float:
        """The length of a step at this radius, in codes."""
        step = _REACH * radius / self.steps if self.step_codes is None else self.step_codes
        return min(float(step), float(radius))

    def parameters(self, radius: float) -> dict[str, Any]:
        """The settings, with the step that is used at this radius."""
        return {
            **super().parameters(radius),
            "step_codes": self.used_step(radius),
            "random_start": self.random_start,
        }


@dataclass(frozen=True)
class ProjectedDescent(Descent):
    """cleverhans's loop: signed steps, or with norm "2" steps along the gradient, projected into the ball."""

    def run(self, problem: Problem) -> Found:
        """Return float32 pixels in [0, 1]."""
        from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

        from .gradient import attack_with

        def algorithm(task: Posed) -> Tensor:
            attacked: Tensor = projected_gradient_descent(
                task.model,
                task.pixels,
                problem.radius / PIXEL_HIGH,
                self.used_step(problem.radius) / PIXEL_HIGH,
                self.steps,
                ORDER[self.norm],
                clip_min=0.0,
                clip_max=1.0,
                y=task.labels,
                rand_init=self.random_start,
                sanity_checks=False,
            )
            return attacked

        return attack_with(problem, algorithm)


@dataclass(frozen=True)
class PGD(ProjectedDescent):
    """Projected gradient descent from a random point of the ball."""

    name: ClassVar[str] = "pgd"
    random_start: ClassVar[bool] = True
