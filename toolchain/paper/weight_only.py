"""The paper's quantisation: weights on few levels, activations in float, nothing else changed."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from ...errors import RecipeError
from ..quantise import quantise_weights
from ..recipe import WeightOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["weight_layers", "weight_only"]


def weight_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names of the convolutions and dense layers, and the layers, in the module's order."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            yield name, layer


def weight_only(module: nn.Module, bits: int = 3, mapped: nn.Module | None = None) -> nn.Module:
    """Return a copy of a classifier whose weights are `step * q`, as the compiler rounds them, in float32.

    Every convolution and dense layer gets linear levels with one step for its tensor, `step = max|W| / L` and
    `L = 2**(bits-1) - 1`; at 1 bit the signs times `mean|W|`. Biases and batch norms stay as they are, and no
    batch norm is folded: the weights are rounded as they were trained, where the integer artifact folds first.

    Args:
        module: The classifier, its weights not parametrised; it is not changed.
        bits: 1 to 8.
        mapped: The same classifier with mu-law maps on its weights: they are mapped first, then rounded.

    Raises:
        RecipeError: There is no such width, or weights of `module` are parametrised.
    """
    options = WeightOptions(weight_bits=bits)
    # A copy of a parametrised layer shares its class, and to take the parametrisation off one breaks the other.
    if any(parametrize.is_parametrized(layer) for layer in module.modules()):
        raise RecipeError("weights to round are parametrised; expected plain ones, and the maps in `mapped`")
    rounded = deepcopy(module).eval()
    for name, layer in weight_layers(rounded):
        real = (module if mapped is None else mapped).get_submodule(name).weight
        weight = layer.weight
        if not isinstance(weight, torch.Tensor) or not isinstance(
            real, torch.Tensor
        ):  # every such layer has weights
            raise RecipeError(f"layer {name!r} has no weights to round")
        values = quantise_weights(real.detach().numpy(), options, channel_axis=0).dequantised()
        with torch.no_grad():
            weight.copy_(torch.from_numpy(values))
    return rounded
