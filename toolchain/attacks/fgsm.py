"""The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572), from cleverhans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH, Norm
from .norms import ORDER

if TYPE_CHECKING:
    from torch import Tensor

    from .gradient import Posed

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of the whole radius along the cross-entropy's gradient: its sign, or with norm "2" its direction."""

    name: ClassVar[str] = "fgsm"
    norms: ClassVar[tuple[Norm, ...]] = ("inf", "2")

    def run(self, problem: Problem) -> Found:
        """Return float32 pixels in [0, 1]."""
        from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

        from .gradient import attack_with

        def algorithm(task: Posed) -> Tensor:
            attacked: Tensor = fast_gradient_method(
                task.model,
                task.pixels,
                problem.radius / PIXEL_HIGH,
                ORDER[self.norm],
                clip_min=0.0,
                clip_max=1.0,
                y=task.labels,
            )
            return attacked

        return attack_with(problem, algorithm)
