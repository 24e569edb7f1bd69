"""Quantisation-aware training: the loss of the network with rounded weights, gradients straight through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch.nn.utils import parametrize

from ..quantisers import outermost_code, quantise_layers
from .adversarial import Adversarial
from .base import Method

if TYPE_CHECKING:
    from torch import nn

    from ..image_data import Dataset

__all__ = ["AdversarialQat", "Qat"]


def _without_quantisers(model: nn.Module) -> nn.Module:
    """Leave the real weights, which round to what was trained."""
    for layer in model.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    return model


@dataclass(frozen=True, kw_only=True)
class Qat(Method):
    """Cross-entropy through weights of `bits` bits, step = max|W| / L: the paper's "other attempt".

    Activations stay in float, as in the paper. What is kept are the real weights behind the rounded ones.
    Source: Jacob et al., "Quantization and Training of Neural Networks" (2018); straight-through gradients:
    Bengio, Leonard, Courville (2013).

    Attributes:
        bits: Width of the weight codes, 2 to 8.

    Raises:
        RecipeError: `bits` is another number.
    """

    name: ClassVar[str] = "qat"

    bits: int = 3

    def __post_init__(self) -> None:
        outermost_code(self.bits)

    def prepare(self, model: nn.Module, data: Dataset) -> nn.Module:
        """Put the quantisers on the weights."""
        del data
        return quantise_layers(model, self.bits)

    def finish(self, model: nn.Module) -> nn.Module:
        """Take the quantisers off."""
        return _without_quantisers(model)


@dataclass(frozen=True, kw_only=True)
class AdversarialQat(Adversarial):
    """Adversarial training through rounded weights, which the paper found worse than without rounding.

    Attributes:
        bits: Width of the weight codes, 2 to 8.

    Raises:
        RecipeError: A setting is out of its range.
    """

    name: ClassVar[str] = "adversarial-qat"

    bits: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        outermost_code(self.bits)

    def prepare(self, model: nn.Module, data: Dataset) -> nn.Module:
        """Put the quantisers on the weights."""
        return quantise_layers(super().prepare(model, data), self.bits)

    def finish(self, model: nn.Module) -> nn.Module:
        """Take the quantisers off."""
        return _without_quantisers(model)
