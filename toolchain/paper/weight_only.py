"""The paper's quantisation: weights on few levels, activations in float, nothing else changed."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from ...errors import RecipeError
from ..quantise import quantise_weights
from ..recipe import WeightOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..quantise import QuantisedWeights

__all__ = ["round_weight", "weight_layers", "weight_of", "weight_only"]


def weight_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the names of the convolutions and dense layers, and the layers, in the module's order."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear):
            yield name, layer


def round_weight(name: str, layer: nn.Module, bits: int) -> QuantisedWeights:
    """Return a layer's weights as codes and one step, as the compiler rounds them.

    Every convolution and dense layer gets linear levels with one step for its tensor, `step = max|W| / L` and
    `L = 2**(bits-1) - 1`; at 1 bit the signs times `mean|W|`.

    Args:
        name: The layer's, for messages.
        layer: Its weights are the mapped ones where a mu-law map is on them.
        bits: 1 to 8.

    Raises:
        RecipeError: There is no such width, or the layer has no weights.
    """
    return quantise_weights(weight_of(name, layer), WeightOptions(weight_bits=bits), channel_axis=0)


def weight_of(name: str, layer: nn.Module) -> NDArray[np.float32]:
    """Return a layer's weights, mapped where a map is on them; `name` is for messages.

    Raises:
        RecipeError: It has none.
    """
    if not isinstance(layer.weight, torch.Tensor):
        raise RecipeError(f"layer {name!r} has no weights to round")
    return np.asarray(layer.weight.detach().numpy())


def weight_only(module: nn.Module, bits: int = 3, mapped: nn.Module | None = None) -> nn.Module:
    """Return a copy of a classifier whose weights are `step * q`, as the compiler rounds them, in float32.

    Each layer is rounded as by `round_weight`. Biases and batch norms stay as they are, and no batch norm is
    folded: the weights are rounded as they were trained, where the integer artifact folds first.

    Args:
        module: The classifier, its weights not parametrised; it is not changed.
        bits: 1 to 8.
        mapped: The same classifier with mu-law maps on its weights: they are mapped first, then rounded.

    Raises:
        RecipeError: There is no such width, or weights of `module` are parametrised.
    """
    # A copy of a parametrised layer shares its class, and to take the parametrisation off one breaks the other.
    if any(parametrize.is_parametrized(layer) for layer in module.modules()):
        raise RecipeError("weights to round are parametrised; expected plain ones, and the maps in `mapped`")
    rounded = deepcopy(module).eval()
    for name, layer in weight_layers(rounded):
        real = (module if mapped is None else mapped).get_submodule(name)
        values = round_weight(name, real, bits).dequantised()
        with torch.no_grad():
            layer.get_parameter("weight").copy_(torch.from_numpy(values))
    return rounded
