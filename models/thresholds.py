"""A first layer that starts as thresholds, which adversarial training on MNIST arrives at anyway.

Madry et al. (2018), Appendix C, looked into their robust MNIST network: its first layer had turned into
thresholding filters, which lose what a perturbation of less than the threshold's distance adds. Random filters
need many epochs to get there (the loss stands still at ln 10 meanwhile); these start there:

    channel c, at the kernel's centre:   y = s g (x - t),   (t, s) in turn
        (epsilon, 1), (1 - epsilon, 1), (1 - epsilon, -1), ((1 + epsilon) / 3, 1)

so that a black pixel, at most epsilon under attack, gives exactly 0 after ReLU in the first kind, a white one,
at least 1 - epsilon, exactly 0 in the third, and the difference of the first two is a step with flat ends.
Everything is trained afterwards like any other weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["start_with_thresholds"]

# The random filters stay beside the thresholds, small, so that the channels of one kind are not alike.
_KEPT = 0.1


def start_with_thresholds(model: nn.Module, gain: float, epsilon: float) -> None:
    """Let the first convolution of a model start as thresholds, in place.

    Args:
        model: Its first convolution takes pixels of one channel and has a bias.
        gain: The slope g, above 0.
        epsilon: Radius of the attack, of pixels in [0, 1].

    Raises:
        RecipeError: The model has no such convolution.
    """
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.in_channels != 1 or first.bias is None:
        found = "none" if first is None else str(first)
        raise RecipeError(
            f"threshold_gain: the first convolution is {found}, expected one of grey pixels with a bias; set it to 0"
        )
    kinds = ((epsilon, 1.0), (1 - epsilon, 1.0), (1 - epsilon, -1.0), ((1 + epsilon) / 3, 1.0))
    with torch.no_grad():
        first.weight.mul_(_KEPT)
        _write(first.weight, first.bias, gain, kinds)


def _write(weight: Tensor, bias: Tensor, gain: float, kinds: tuple[tuple[float, float], ...]) -> None:
    row, column = weight.shape[2] // 2, weight.shape[3] // 2
    for channel in range(len(weight)):
        threshold, sign = kinds[channel % len(kinds)]
        weight[channel, 0, row, column] = sign * gain
        bias[channel] = -sign * gain * threshold
