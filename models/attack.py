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
        stripes: Share of the images that start at a corner of the ball instead, the same in each column:
            x + epsilon or x - epsilon by chance, where Square starts (Andriushchenko et al., 2020, Section
            3.3). From there whole regions saturate that a uniform start leaves active.

    Raises:
        RecipeError: A setting is out of its range.
    """

    epsilon: float = 0.3
    step: float = 0.01
    steps: int = 40
    random_start: bool = True
    stripes: float = 0.0

    def __post_init__(self) -> None:
        require_number("epsilon", self.epsilon, 0.0, inclusive=False, below=1.0)
        require_number("step", self.step, 0.0, inclusive=False)
        require_integer("steps", self.steps, 1)
        require_number("stripes", self.stripes, 0.0, below=1.0)

    def __call__(
        self, logits_of: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor, share: float = 1.0
    ) -> Tensor:
        """Return the attacked pixels, without a gradient.

        Args:
            logits_of: Maps pixels (N, C, H, W) to float32 logits (N, classes).
            pixels: Float32 in [0, 1].
            labels: (N,) int64, or (N, classes) float32 probabilities, from which the attack leads away.
            share: Epsilon and step are taken times this, for a radius that grows during training.
        """
        epsilon, step = share * self.epsilon, share * self.step
        lowest, highest = (pixels - epsilon).clamp_(min=0.0), (pixels + epsilon).clamp_(max=1.0)
        attacked = pixels
        if self.random_start:
            offset = torch.empty_like(pixels).uniform_(-epsilon, epsilon)
            if self.stripes:
                offset = torch.where(self._striped(len(pixels)), _columns(pixels) * epsilon, offset)
            attacked = torch.clamp(pixels + offset, lowest, highest)
        for _ in range(self.steps):
            attacked = attacked.detach().requires_grad_()
            # The sum, so that an image's gradient does not depend on how many others there are.
            loss = functional.cross_entropy(logits_of(attacked), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, attacked)
            attacked = torch.clamp(attacked.detach() + step * gradient.sign(), lowest, highest)
        return attacked.detach()

    def _striped(self, count: int) -> Tensor:
        return (torch.rand(count) < self.stripes)[:, None, None, None]


def _columns(pixels: Tensor) -> Tensor:
    """Return -1 or 1 for each image, channel and column, (N, C, 1, W)."""
    n, channels, _, width = pixels.shape
    return 2.0 * torch.randint(0, 2, (n, channels, 1, width)) - 1.0
