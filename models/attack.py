"""Projected gradient descent for training: small, in PyTorch, on whatever gives logits.

Judging a trained network is not done here: that takes the attacks of the toolchain, on the artifact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from .checks import require_integer, require_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["Pgd"]


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """Search the L-infinity ball around each image for the largest cross-entropy.

        x_0     = x + u,  u uniform in [-epsilon, epsilon]           (or x, without a random start)
        x_(k+1) = clip(x_k + step sgn(grad loss(x_k)), x - epsilon, x + epsilon), and into [0, 1]

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018), Section 2.1.
    One step of 1.25 epsilon from a random start is the fast schedule of Wong, Rice, Kolter, "Fast is better
    than free" (2020).

    Attributes:
        epsilon: Radius of the ball; pixels are in [0, 1].
        step: Length of a step, in the same unit.
        steps: How many.
        random_start: Start anywhere in the ball, not at its centre.

    Raises:
        RecipeError: A setting is out of its range.
    """

    epsilon: float = 0.3
    step: float = 0.01
    steps: int = 40
    random_start: bool = True

    def __post_init__(self) -> None:
        require_number("epsilon", self.epsilon, 0.0, inclusive=False, below=1.0)
        require_number("step", self.step, 0.0, inclusive=False)
        require_integer("steps", self.steps, 1)

    def __call__(
        self, logits_of: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor, share: float = 1.0
    ) -> Tensor:
        """Return the attacked pixels, without a gradient.

        Args:
            logits_of: Maps pixels (N, C, H, W) to float32 logits (N, classes).
            pixels: Float32 in [0, 1].
            labels: (N,) int64.
            share: Epsilon and step are taken times this, for a radius that grows during training.
        """
        epsilon, step = share * self.epsilon, share * self.step
        lowest, highest = (pixels - epsilon).clamp_(min=0.0), (pixels + epsilon).clamp_(max=1.0)
        attacked = pixels
        if self.random_start:
            offset = torch.empty_like(pixels).uniform_(-epsilon, epsilon)
            attacked = torch.clamp(pixels + offset, lowest, highest)
        for _ in range(self.steps):
            attacked = attacked.detach().requires_grad_()
            # The sum, so that an image's gradient does not depend on how many others there are.
            loss = functional.cross_entropy(logits_of(attacked), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, attacked)
            attacked = torch.clamp(attacked.detach() + step * gradient.sign(), lowest, highest)
        return attacked.detach()
