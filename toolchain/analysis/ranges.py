"""Proved bounds of every accumulator, from the actual weights.

For inputs x - z in [lo, hi] (codes less zero point, with lo <= 0 <= hi) and weights w, any partial sum of a
channel, in any order, lies in

    N = sum(min(w lo, w hi, 0))  <=  partial sum  <=  P = sum(max(w lo, w hi, 0)),

and with the bias b in [N + min(b, 0), P + max(b, 0)]. Below 2**24 every such number is exact in float32, so the
cast, a float32 twin and every order of summation agree; below 2**31 int32 does not overflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program import Conv, Dense, Layer, Program, Requantise, SpatialSum, WeightedSum

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["FLOAT32_EXACT", "INT32_LIMIT", "LayerRange", "accumulator_ranges"]

FLOAT32_EXACT = 1 << 24
INT32_LIMIT = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class LayerRange:
    """Bounds of one layer's accumulator.

    Attributes:
        layer: The layer's name.
        products: Largest magnitude of any partial sum of products, per output channel, int64 `(channels,)`.
        low, high: The least and greatest accumulator with bias, per channel, int64 `(channels,)`.
    """

    layer: str
    products: NDArray[np.int64]
    low: NDArray[np.int64]
    high: NDArray[np.int64]

    @property
    def bound(self) -> int:
        """The largest magnitude over all channels, with and without the bias."""
        return int(max(self.products.max(initial=0), -self.low.min(initial=0), self.high.max(initial=0)))

    @property
    def worst_channel(self) -> int:
        """The channel that reaches `bound`."""
        per_channel = np.maximum(self.products, np.maximum(-self.low, self.high))
        return int(per_channel.argmax()) if per_channel.size else 0

    @property
    def exact_in_float32(self) -> bool:
        """Whether every partial sum is an integer that float32 holds exactly."""
        return self.bound < FLOAT32_EXACT


def _code_range(program: Program, name: str, zero_point: int) -> tuple[int, int]:
    spec = program.tensors.get(name)
    limits = np.iinfo(spec.dtype if spec is not None and spec.dtype.kind in "iu" else np.uint8)
    return min(int(limits.min) - zero_point, 0), max(int(limits.max) - zero_point, 0)


def _product_range(
    rows: NDArray[np.integer[Any]], limits: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (N, P) for weight rows `(channels, K)`."""
    positive = np.maximum(rows, 0).sum(axis=1, dtype=np.int64)
    negative = np.minimum(rows, 0).sum(axis=1, dtype=np.int64)
    lo, hi = limits
    return negative * hi + positive * lo, positive * hi + negative * lo


def _range(
    layer: Layer, least: NDArray[np.int64], most: NDArray[np.int64], bias: NDArray[np.int32] | None
) -> LayerRange:
    b = np.zeros(1, np.int64) if bias is None else bias.reshape(-1).astype(np.int64)
    low, high = least + np.minimum(b, 0), most + np.maximum(b, 0)
    products = np.broadcast_to(np.maximum(-least, most), low.shape)
    return LayerRange(layer.name, products, low, high)


def _conv(program: Program, layer: Conv) -> LayerRange:
    rows = layer.weight.reshape(layer.weight.shape[0], -1)
    return _range(
        layer, *_product_range(rows, _code_range(program, layer.input, layer.input_zero_point)), layer.bias
    )


def _dense(program: Program, layer: Dense) -> LayerRange:
    limits = _code_range(program, layer.input, layer.input_zero_point)
    return _range(layer, *_product_range(layer.weight.T, limits), layer.bias)


def _weighted_sum(program: Program, layer: WeightedSum) -> LayerRange:
    least = most = 0
    for name, multiplier, zero_point in zip(layer.inputs, layer.multipliers, layer.zero_points, strict=True):
        ends = [multiplier * end for end in _code_range(program, name, zero_point)]
        least, most = least + min(*ends, 0), most + max(*ends, 0)
    return _range(layer, np.array([least]), np.array([most]), None)


def _spatial_sum(program: Program, layer: SpatialSum) -> LayerRange:
    spec = program.tensors.get(layer.input)
    shape = () if spec is None or spec.shape is None else spec.shape[2:]
    count = int(np.prod([int(d or 1) for d in shape]))
    low, high = _code_range(program, layer.input, layer.input_zero_point)
    return _range(layer, np.array([count * low]), np.array([count * high]), None)


_RULES: dict[type[Layer], Callable[[Program, Any], LayerRange]] = {
    Conv: _conv,
    Dense: _dense,
    SpatialSum: _spatial_sum,
    WeightedSum: _weighted_sum,
}


def accumulator_ranges(program: Program) -> tuple[LayerRange, ...]:
    """Return the bounds of every accumulator of a program, in layer order."""
    found: list[LayerRange] = []
    by_output: dict[str, LayerRange] = {}
    for layer in program.layers:
        rule = _RULES.get(type(layer))
        if rule is not None:
            by_output[layer.output] = rule(program, layer)
            found.append(by_output[layer.output])
        elif isinstance(layer, Requantise) and layer.bias is not None and layer.input in by_output:
            source = by_output[layer.input]
            found.append(_range(layer, source.low, source.high, layer.bias))
    return tuple(found)
