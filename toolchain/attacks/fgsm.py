"""The fast gradient sign method (Goodfellow et al. 2015, arXiv:1412.6572), from cleverhans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import Attack, Problem
from .epsilon import PIXEL_HIGH

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .base import GradientSource

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(Attack):
    """One step of the whole radius: `x + epsilon * sign(gradient of the cross-entropy)`, L-infinity."""

    name: ClassVar[str] = "fgsm"

    def run(self, problem: Problem) -> NDArray[Any]:
        """Return float32 pixels in [0, 1]."""
        from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method

        from .gradient import attack_with

        def algorithm(model: GradientSource, pixels: Tensor, labels: Tensor) -> Tensor:
            attacked: Tensor = fast_gradient_method(
                model,
                pixels,
                problem.epsilon_codes / PIXEL_HIGH,
                np.inf,
                clip_min=0.0,
                clip_max=1.0,
                y=labels,
            )
            return attacked

        return attack_with(problem, algorithm)
