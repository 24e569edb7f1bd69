"""What is settled once all layers are written: fused requantisations, and which tensor holds the logits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..program import Conv, Dense, Dequantise, Operator, Requantise, Reshape, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..program import Layer
    from .lifting import Lifting

__all__ = ["channel_bias", "fuse_requantisations", "logits_and_codes"]

RANK_OF_LOGITS = 2


def channel_bias(layer: Conv | Dense, bias: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """A bias that broadcasts against one sample as `(channels,)`; None where it differs by position."""
    if isinstance(layer, Dense):
        channels = layer.weight.shape[1]
        fits = bias.shape[-1:] == (channels,) and bias.size == channels
    else:
        channels = layer.weight.shape[0]
        fits = bias.shape == (channels,) + (1,) * (layer.weight.ndim - 2)
    if not fits and bias.size != 1:
        return None
    return np.broadcast_to(bias.reshape(-1), (channels,)).copy()


def fuse_requantisations(layers: Sequence[Layer], outputs: Sequence[str]) -> tuple[Layer, ...]:
    """Give each product whose int32 accumulator one `Requantise` alone reads that requantisation."""
    readers = Counter(name for layer in layers for name in layer.inputs)
    readers.update(outputs)
    products = {
        layer.output: index
        for index, layer in enumerate(layers)
        if isinstance(layer, Conv | Dense) and layer.requantisation is None
    }
    fused: list[Layer | None] = list(layers)
    for index, layer in enumerate(layers):
        if not isinstance(layer, Requantise) or readers[layer.input] != 1 or layer.input not in products:
            continue
        product = layers[products[layer.input]]
        if isinstance(product, Conv | Dense) and (whole := _with_epilogue(product, layer)) is not None:
            fused[products[layer.input]], fused[index] = whole, None
    return tuple(layer for layer in fused if layer is not None)


def _with_epilogue(product: Conv | Dense, epilogue: Requantise) -> Conv | Dense | None:
    """The product with the epilogue's bias and requantisation; None where it cannot hold both biases."""
    bias = product.bias
    if epilogue.bias is not None:
        bias = None if bias is not None else channel_bias(product, epilogue.bias)
        if bias is None:
            return None
    whole = replace(product, bias=bias, requantisation=epilogue.requantisation, outputs=epilogue.outputs)
    if isinstance(whole, Dense) and epilogue.bias is None:
        return replace(whole, accumulator=product.output)
    return whole


def logits_and_codes(
    layers: Sequence[Layer], outputs: Sequence[str], lifting: Lifting
) -> tuple[str | None, str | None]:
    """Names of the float32 matrix nearest to the outputs that integers make, and of those integers.

    Walks from the outputs back through float tails (`Operator`, `Reshape`) to `Scale` and `Dequantise`; of
    several the last in the order of layers counts. A tensor of more axes that reshapes alone take to a
    matrix counts with the matrix's name.
    """
    producers = {name: layer for layer in layers for name in layer.outputs}
    order = {name: index for index, layer in enumerate(layers) for name in layer.outputs}
    found: dict[str, str] = {}
    seen: set[str] = set()
    open_paths = [(name, _matrix(lifting, name, None)) for name in outputs]
    while open_paths:
        name, matrix = open_paths.pop()
        layer = producers.get(name)
        if layer is None or name in seen:
            continue
        seen.add(name)
        if isinstance(layer, Scale | Dequantise):
            if matrix is not None:
                found[matrix] = layer.input
        elif isinstance(layer, Reshape):
            open_paths.append((layer.input, _matrix(lifting, layer.input, matrix)))
        elif isinstance(layer, Operator):
            follows = matrix if layer.op_type == "Identity" else None
            open_paths.extend((source, _matrix(lifting, source, follows)) for source in layer.inputs)
    if not found:
        return None, None
    logits = max(found, key=lambda name: order[name])
    return logits, found[logits]


def _matrix(lifting: Lifting, name: str, after: str | None) -> str | None:
    """The tensor itself if it is a float32 matrix, else the matrix that reshapes make of it."""
    spec = lifting.spec(name)
    if spec.dtype == np.float32 and spec.shape is not None and len(spec.shape) == RANK_OF_LOGITS:
        return name
    return after
