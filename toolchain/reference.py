"""The reference: every formula of `toolchain.program`, slowly and obviously, in int64 NumPy.

It shares no code with `kernels`, so that the two can witness for each other in tests, and it refuses
accumulators that leave int32 instead of wrapping.
"""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RangeError, UnsupportedError
from . import program as p
from .float_ops import FLOAT_OPERATORS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[Any]
    LayerFunction = Callable[[Any, tuple[Array, ...]], tuple[Array, ...]]

__all__ = ["run_reference"]


def run_reference(program: p.Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a program layer by layer.

    Args:
        program: The program.
        inputs: Its inputs by name.

    Returns:
        Every tensor by its name: inputs, what the layers write, and the dense accumulators that have a name.

    Raises:
        RangeError: An accumulator leaves int32.
        UnsupportedError: A layer is of a kind that is not known here.
    """
    tensors: dict[str, Array] = {name: np.asarray(value) for name, value in inputs.items()}
    for layer in program.layers:
        function = _LAYERS.get(type(layer))
        if function is None:
            raise UnsupportedError(f"layer {layer.name!r}: the reference knows no {type(layer).__name__}")
        results = function(layer, tuple(tensors[name] for name in layer.inputs))
        tensors.update(zip(_written(layer), results, strict=True))
    return tensors


def _written(layer: p.Layer) -> tuple[str, ...]:
    """The names of a layer's results, a dense layer's accumulator last."""
    if isinstance(layer, p.Dense) and layer.accumulator is not None:
        return (*layer.outputs, layer.accumulator)
    return layer.outputs


def _int32(layer: p.Layer, acc: NDArray[np.int64]) -> NDArray[np.int32]:
    limits = np.iinfo(np.int32)
    if acc.size and (acc.min() < limits.min or acc.max() > limits.max):
        raise RangeError(f"layer {layer.name!r}: accumulators {acc.min()} to {acc.max()} leave int32")
    checked: NDArray[np.int32] = acc.astype(np.int32)
    return checked


def _codes(acc: NDArray[np.int32], requantisation: p.Requantisation | None) -> Array:
    """`rint(clip(float32(acc) * M, low - z, high - z)) + z`, or the accumulator itself."""
    if requantisation is None:
        return acc
    zero = requantisation.zero_point
    f = acc.astype(np.float32) * requantisation.multiplier
    clipped = np.clip(f, np.float32(requantisation.low - zero), np.float32(requantisation.high - zero))
    codes: Array = (np.rint(clipped).astype(np.int64) + zero).astype(requantisation.dtype)
    return codes


def _windows(
    x: Array,
    fill: float,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    *,
    ceil_mode: bool = False,
) -> Array:
    """Every window of `(N, C, ...)`: `(N, C, outputs..., kernel...)`, padding filled in."""
    axes = len(kernel)
    lengths = x.shape[2:]
    counts = []
    for axis in range(axes):
        room = lengths[axis] + pads[axis] + pads[axes + axis] - dilations[axis] * (kernel[axis] - 1) - 1
        count = room // strides[axis] + 1
        if ceil_mode:
            count += room % strides[axis] > 0
            count -= (count - 1) * strides[axis] >= lengths[axis] + pads[axis]
        counts.append(count)
    result = np.full((*x.shape[:2], *counts, *kernel), fill, x.dtype)
    for place in itertools.product(*map(range, counts)):
        for tap in itertools.product(*map(range, kernel)):
            source = [
                place[axis] * strides[axis] - pads[axis] + tap[axis] * dilations[axis] for axis in range(axes)
            ]
            if all(0 <= source[axis] < lengths[axis] for axis in range(axes)):
                target: tuple[Any, ...] = (slice(None), slice(None), *place, *tap)
                place_in_x: tuple[Any, ...] = (slice(None), slice(None), *source)
                result[target] = x[place_in_x]
    return result


def _conv(layer: p.Conv, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    x = inputs[0].astype(np.int64) - layer.input_zero_point
    weight = layer.weight.astype(np.int64)
    kernel = weight.shape[2:]
    windows = _windows(x, 0, kernel, layer.strides, layer.pads, layer.dilations)
    places = windows.shape[2 : 2 + len(kernel)]
    each = weight.shape[0] // layer.groups
    parts = []
    for group in range(layer.groups):
        channels = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        group_weight = weight[group * each : (group + 1) * each].reshape(each, -1)
        columns = np.moveaxis(windows[:, channels], 1, 1 + len(kernel))
        rows = columns.reshape(*columns.shape[: 1 + len(kernel)], group_weight.shape[1])
        parts.append(np.moveaxis(rows @ group_weight.T, -1, 1))
    acc = np.concatenate(parts, axis=1)
    if layer.bias is not None:
        acc = acc + layer.bias.astype(np.int64).reshape(-1, *(1 for _ in places))
    return (_codes(_int32(layer, acc), layer.requantisation),)


def _dense(layer: p.Dense, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    total = (inputs[0].astype(np.int64) - layer.input_zero_point) @ layer.weight.astype(np.int64)
    if layer.bias is not None:
        total = total + layer.bias.astype(np.int64)
    acc = _int32(layer, total)
    codes = _codes(acc, layer.requantisation)
    return (codes,) if layer.accumulator is None else (codes, acc)


def _weighted_sum(layer: p.WeightedSum, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    terms = zip(layer.multipliers, inputs, layer.zero_points, strict=True)
    total = sum((m * (x.astype(np.int64) - z) for m, x, z in terms), np.int64(0))
    return (_int32(layer, np.asarray(total)),)


def _spatial_sum(layer: p.SpatialSum, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    x = inputs[0].astype(np.int64) - layer.input_zero_point
    return (_int32(layer, x.sum(axis=tuple(range(2, x.ndim)), keepdims=True)),)


def _requantise(layer: p.Requantise, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    acc = inputs[0].astype(np.int64)
    if layer.bias is not None:
        acc = acc + layer.bias.astype(np.int64)
    return (_codes(_int32(layer, acc), layer.requantisation),)


def _scale(layer: p.Scale, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    return (inputs[0].astype(np.float32) * layer.multiplier,)


def _saturated(quotient: Array, zero_point: Array) -> Array:
    """`saturate(rint(quotient) + zero_point)`."""
    limits = np.iinfo(zero_point.dtype)
    shifted = np.rint(quotient.astype(np.float64)) + zero_point
    codes: Array = np.clip(shifted, limits.min, limits.max).astype(zero_point.dtype)
    return codes


def _quantise(layer: p.Quantise, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    quotient = inputs[0].astype(np.float32) / layer.scale.astype(np.float32)
    return (_saturated(quotient, layer.zero_point),)


def _dequantise(layer: p.Dequantise, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    difference = inputs[0].astype(np.int64) - layer.zero_point
    return (difference.astype(np.float32).astype(layer.scale.dtype) * layer.scale,)


def _dynamic_quantise(layer: p.DynamicQuantise, inputs: tuple[Array, ...]) -> tuple[Array, ...]:  # noqa: ARG001
    x = inputs[0]
    values = np.append(x.reshape(-1), np.float32(0))
    low, high = values.min(), values.max()
    scale = np.float32(1) if high == low else np.float32(high - low) / np.float32(255)
    zero_point = _saturated(np.asarray(np.float32(0) - low / scale), np.zeros((), np.uint8))
    return _saturated(x / scale, zero_point), np.asarray(scale), zero_point


def _max_pool(layer: p.MaxPool, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    x = inputs[0]
    lowest = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
    settings = (layer.kernel, layer.strides, layer.pads, layer.dilations)
    windows = _windows(x, lowest, *settings, ceil_mode=layer.ceil_mode)
    return (windows.max(axis=tuple(range(x.ndim, windows.ndim))),)


def _table(layer: p.Table, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    return (layer.table[inputs[0].astype(np.int64) - np.iinfo(inputs[0].dtype).min],)


def _average_pool(layer: p.AveragePool, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    x = inputs[0]
    real = layer.input_scale * (x.astype(np.int64) - layer.input_zero_point).astype(np.float32)
    settings = (layer.kernel, layer.strides, layer.pads, (1,) * len(layer.kernel))
    windows = _windows(real, 0, *settings, ceil_mode=layer.ceil_mode)
    inside = _windows(np.ones_like(real[:1, :1]), 0, *settings, ceil_mode=layer.ceil_mode)
    taps = windows.reshape(*windows.shape[: x.ndim], -1)
    total = np.zeros(taps.shape[:-1], np.float32)
    for tap in range(taps.shape[-1]):
        total = total + taps[..., tap]
    axes = tuple(range(x.ndim, windows.ndim))
    count = np.float32(taps.shape[-1]) if layer.count_include_pad else inside.sum(axis=axes)
    average = total / count / layer.output_scale + np.float32(layer.output_zero_point)
    limits = np.iinfo(layer.dtype)
    return (np.clip(np.rint(average), limits.min, limits.max).astype(layer.dtype),)


def _nearest_float32(number: Fraction) -> np.float32:
    """The float32 nearest to an exact number, ties to the even significand."""
    guess = np.float32(float(number))
    around = (np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf)))
    return min(around, key=lambda x: (abs(Fraction(float(x)) - number), int(x.view(np.int32)) & 1))


def _fused(a: Any, b: Any, c: Any) -> np.float32:
    """`a * b + c`, rounded once."""
    return _nearest_float32(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


def _quantised_add(layer: p.QuantisedAdd, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    (m_a, m_b), (z_a, z_b) = layer.multipliers, layer.zero_points
    fixed = np.float32(layer.output_zero_point) - _fused(m_a, z_a, m_b * np.float32(z_b))
    pairs, places = np.unique(np.stack([x.reshape(-1) for x in inputs]), axis=1, return_inverse=True)
    sums = np.array([_fused(a, m_a, _fused(b, m_b, fixed)) for a, b in pairs.T], np.float32)
    limits = np.iinfo(layer.table.dtype)
    codes = np.clip(np.rint(sums), limits.min, limits.max).astype(layer.table.dtype)
    return (codes[places.reshape(-1)].reshape(inputs[0].shape),)


def _pad(layer: p.Pad, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    x = inputs[0]
    begins, ends = layer.pads[: x.ndim], layer.pads[x.ndim :]
    shape = [length + begin + end for length, begin, end in zip(x.shape, begins, ends, strict=True)]
    result = np.full(shape, layer.value, x.dtype)
    sources, targets = [], []
    for length, begin, size in zip(x.shape, begins, shape, strict=True):
        first, last = max(0, -begin), min(length, size - begin)
        sources.append(slice(first, last))
        targets.append(slice(first + begin, last + begin))
    result[tuple(targets)] = x[tuple(sources)]
    return (result,)


def _concat(layer: p.Concat, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    return (np.concatenate(inputs, axis=layer.axis),)


def _split(layer: p.Split, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    ends = list(itertools.accumulate(layer.sizes))
    pieces = zip(layer.sizes, ends, strict=True)
    return tuple(np.take(inputs[0], range(end - size, end), axis=layer.axis) for size, end in pieces)


def _reshape(layer: p.Reshape, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    x = inputs[0]
    copied = [d == 0 and not layer.allow_zero for d in layer.shape]
    sizes = [x.shape[i] if copy else layer.shape[i] for i, copy in enumerate(copied)]
    if -1 in sizes:  # copied dimensions, which may be 0, cancel
        rest = [d for i, d in enumerate(x.shape) if i >= len(copied) or not copied[i]]
        known = [d for d, copy in zip(layer.shape, copied, strict=True) if not copy and d != -1]
        sizes[sizes.index(-1)] = int(np.prod(rest, dtype=np.int64)) // int(np.prod(known, dtype=np.int64))
    return (x.reshape(sizes),)


def _transpose(layer: p.Transpose, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    return (inputs[0].transpose(layer.permutation),)


def _operator(layer: p.Operator, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    by_name = dict(zip(layer.inputs, inputs, strict=True))
    operands = tuple(by_name[operand] if isinstance(operand, str) else operand for operand in layer.operands)
    return FLOAT_OPERATORS[layer.op_type](operands, layer.attributes, len(layer.outputs))


_LAYERS: dict[type[p.Layer], LayerFunction] = {
    p.AveragePool: _average_pool,
    p.Concat: _concat,
    p.Conv: _conv,
    p.Dense: _dense,
    p.Dequantise: _dequantise,
    p.DynamicQuantise: _dynamic_quantise,
    p.MaxPool: _max_pool,
    p.Operator: _operator,
    p.Pad: _pad,
    p.Quantise: _quantise,
    p.QuantisedAdd: _quantised_add,
    p.Requantise: _requantise,
    p.Reshape: _reshape,
    p.Scale: _scale,
    p.SpatialSum: _spatial_sum,
    p.Split: _split,
    p.Table: _table,
    p.Transpose: _transpose,
    p.WeightedSum: _weighted_sum,
}
