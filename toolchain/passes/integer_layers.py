"""The integer form of each layer: how a float layer between Q/DQ pairs becomes exact int32 arithmetic.

Every builder emits standard operators and returns `Integers`: the int32 accumulator and the real value of one of
its units. What follows is the same for all layers (`lower_to_integers`): one float32 product and a rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...errors import UnsupportedError
from ..graph import add_initializer, attribute, constant, emit, graph_of, note, real_consumers, static_shape
from ..quantise import power_of_two_at_least

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "BIAS_LIMIT",
    "BUILDERS",
    "Codes",
    "Context",
    "Integers",
    "codes_behind",
    "weight_codes",
    "window_attributes",
]

BIAS_LIMIT = 1 << 22
"""Largest |integer bias| that a small scale may cause before the scale gets a floor."""

_EXACT = 1 << 24
_INT32_BIAS_LIMIT = 1 << 30
_MULTIPLIERS = tuple((1 << bits) - 1 for bits in range(15, 7, -1))
_SINGLE_MULTIPLIERS = tuple(1 << bits for bits in range(14, 3, -1))
_POW2_MULTIPLIER = 1 << 14
_SATURATING = 64
"""Weights above this magnitude can saturate the int16 pairs of u8 x s8 kernels on processors without VNNI."""


@dataclass(frozen=True)
class Codes:
    """uint8 codes and what they mean: `(code - zero_point) * scale`."""

    value: ir.Value
    scale: np.float32
    zero_point: int


@dataclass(frozen=True, eq=False)
class Integers:
    """An int32 value and the real value of its unit, shaped to broadcast against one sample.

    `bound` is the largest magnitude of a sum of codes, for the batch norms that add a bias to it.
    """

    value: ir.Value
    unit: NDArray[np.floating[Any]]
    bound: int = 0


@dataclass(frozen=True, eq=False)
class Context:
    """What the builders need to know besides the node: the model, the mode, and sums that exist already."""

    model: ir.Model
    power_of_two: bool
    sums: dict[ir.Node, Integers]


def codes_behind(value: ir.Value | None) -> Codes | None:
    """Return the codes that a DequantizeLinear turned into `value`."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    scale, zero_point = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or scale.size != 1 or zero_point is None or zero_point.dtype != np.uint8:
        return None
    return Codes(node.inputs[0], np.float32(scale.reshape(())), int(zero_point.reshape(())))


def _operand(node: ir.Node, index: int = 0) -> Codes:
    codes = codes_behind(node.inputs[index])
    if codes is None:
        raise UnsupportedError(
            f"node '{node.name}' ({node.op_type}): operand {index} has no uint8 codes with one scale and zero point"
        )
    return codes


def weight_codes(node: ir.Node) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return (codes, step) of a layer whose weights are dequantised in the graph."""
    source = node.inputs[1].producer() if node.inputs[1] is not None else None
    codes = (
        constant(source.inputs[0]) if source is not None and source.op_type == "DequantizeLinear" else None
    )
    step = constant(source.inputs[1]) if source is not None else None
    if codes is None or step is None or codes.dtype != np.int8:
        raise UnsupportedError(
            f"layer '{node.name}': its weights are not int8 codes behind a DequantizeLinear"
        )
    return codes, step.astype(np.float32)


def window_attributes(node: ir.Node) -> dict[str, Any]:
    """Return kernel_shape, strides, pads, dilations and group of a canonical Conv."""
    windows = {name: list(attribute(node, name)) for name in ("kernel_shape", "strides", "pads", "dilations")}
    return {**windows, "group": int(attribute(node, "group", 1))}


def stored_weights(
    node: ir.Node, codes: NDArray[np.int8], layer: str, shape: tuple[int, ...]
) -> tuple[ir.Value, ir.Value]:
    """Store weight codes so that every ONNX runtime multiplies them exactly; return (weights, zero point).

    int8 where the codes stay within +-64. Wider ones are stored as uint8 with zero point 128: onnxruntime's
    u8 x s8 kernels add int16 pairs that saturate on processors without VNNI, its u8 x u8 kernels do not.
    """
    graph = graph_of(node)
    narrow = np.abs(codes.astype(np.int16)).max(initial=0) <= _SATURATING
    stored = codes if narrow else (codes.astype(np.int16) + 128).astype(np.uint8)
    zero = np.zeros(shape, np.int8) if narrow else np.full(shape, 128, np.uint8)
    return add_initializer(graph, f"{layer}.codes", stored), add_initializer(
        graph, f"{layer}.codes_zero_point", zero
    )


def integer_bias(
    node: ir.Node, codes: NDArray[np.int8], step: NDArray[np.float32], x: Codes, context: Context
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32] | None]:
    """Return codes, step and int32 bias `rint(b / (s_x * step))` of a layer with weights.

    Weights can be so small beside their bias that the bias does not fit: a batch norm with a tiny gamma was
    folded, say. Then the step gets a floor and the weights are rounded again, and the report says so. Per
    channel the floor keeps the bias within `BIAS_LIMIT`; one step for the whole layer is raised only where
    int32 could not hold the bias, since that costs every channel precision.
    """
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return codes, step, None
    real, x_scale = bias.astype(np.float64), np.float64(x.scale)
    limit = BIAS_LIMIT if step.ndim else _INT32_BIAS_LIMIT
    smallest = np.abs(real) / (limit * x_scale)
    smallest = smallest if step.ndim else smallest.max(initial=0.0)
    small = smallest > step
    if small.any():
        if context.power_of_two:
            smallest = power_of_two_at_least(np.maximum(smallest, np.finfo(np.float32).tiny))
        floor = np.where(small, smallest, step).astype(np.float32)
        ratio = step.astype(np.float64) / floor
        if step.ndim and node.op_type == "Conv":
            ratio = ratio.reshape(-1, *(1,) * (codes.ndim - 1))
        codes, step = np.rint(codes * ratio).astype(np.int8), floor
        what = f"{int(small.sum())} channels have" if small.ndim else "the layer has"
        note(
            context.model,
            f"layer '{node.name}': {what} weights so small beside the bias that the step got a floor",
        )
    return codes, step, np.rint(real / (x_scale * step.astype(np.float64))).astype(np.int32)


def _conv(node: ir.Node, context: Context) -> Integers:
    x = _operand(node)
    codes, step, bias = integer_bias(node, *weight_codes(node), x, context)
    layer = node.name or "conv"
    spatial = codes.ndim - 2
    weights, zero = stored_weights(node, codes, layer, ())
    x_zero = add_initializer(graph_of(node), f"{layer}.input_zero_point", np.uint8(x.zero_point).reshape(()))
    acc = emit(
        node, "ConvInteger", [x.value, weights, x_zero, zero], window_attributes(node), name=layer,
        output=f"{layer}.products", dtype=ir.DataType.INT32,
    )  # fmt: skip
    if bias is not None:
        acc = _add_bias(node, acc, bias.reshape(-1, *(1,) * spatial), layer)
    unit = x.scale * step
    return Integers(acc, unit.reshape(-1, *(1,) * spatial) if unit.ndim else unit)


def _gemm(node: ir.Node, context: Context) -> Integers:
    x = _operand(node)
    codes, step, bias = integer_bias(node, *weight_codes(node), x, context)
    layer = node.name or "dense"
    weights, zero = stored_weights(node, codes, layer, ())
    x_zero = add_initializer(graph_of(node), f"{layer}.input_zero_point", np.uint8(x.zero_point).reshape(()))
    acc = emit(
        node, "MatMulInteger", [x.value, weights, x_zero, zero], name=layer, output=f"{layer}.products",
        dtype=ir.DataType.INT32,
    )  # fmt: skip
    if bias is not None:
        acc = _add_bias(node, acc, bias, layer)
    return Integers(acc, x.scale * step)


def _add_bias(node: ir.Node, acc: ir.Value, bias: NDArray[np.int32], layer: str) -> ir.Value:
    value = add_initializer(graph_of(node), f"{layer}.bias_codes", bias)
    return emit(
        node,
        "Add",
        [acc, value],
        name=f"{layer}.bias",
        output=f"{layer}.accumulator",
        dtype=ir.DataType.INT32,
    )


def _term(node: ir.Node, x: Codes, multiplier: int, name: str) -> ir.Value:
    """Emit `multiplier * (int32(x) - zero_point)`."""
    graph = graph_of(node)
    value = emit(
        node, "Cast", [x.value], {"to": int(ir.DataType.INT32)}, name=f"{name}.cast", output=f"{name}.int32",
        dtype=ir.DataType.INT32,
    )  # fmt: skip
    for op_type, number, neutral in (("Sub", x.zero_point, 0), ("Mul", multiplier, 1)):
        if number != neutral:
            operand = add_initializer(graph, f"{name}.{op_type.lower()}_by", np.asarray(number, np.int32))
            value = emit(
                node, op_type, [value, operand], name=f"{name}.{op_type.lower()}",
                output=f"{name}.{op_type.lower()}", dtype=ir.DataType.INT32,
            )  # fmt: skip
    return value


def _largest_shift(node: ir.Node) -> float:
    """Return the largest |beta / gamma| of a canonical batch norm: its bias, in units of its input."""
    gamma, beta = (constant(value) for value in node.inputs[1:3])
    if gamma is None or beta is None:
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(beta.astype(np.float64) / gamma.astype(np.float64))
    return float(np.where(beta == 0, 0.0, ratio).max(initial=0.0))


def _multiplier(candidates: tuple[int, ...], reach: int, shift: float) -> int:
    """Return the largest multiplier with which sum and bias together stay below 2**24, else the smallest.

    A large multiplier keeps the ratio of two scales, a small one leaves room for the bias of a batch norm:
    `shift` is that bias in codes.
    """
    for candidate in candidates:
        if candidate * reach + candidate * shift < _EXACT - 1:
            return candidate
    return candidates[-1]


def _reach(x: Codes) -> int:
    return max(x.zero_point, 255 - x.zero_point)


def _sum(node: ir.Node, context: Context) -> Integers:
    """Residual addition: `m_a (q_a - z_a) + m_b (q_b - z_b)`, computed once however many readers it has."""
    if node in context.sums:
        return context.sums[node]
    a, b = _operand(node, 0), _operand(node, 1)
    layer = node.name or "add"
    scales = np.array([a.scale, b.scale], np.float64)
    if context.power_of_two:
        unit = float(scales.max()) / _POW2_MULTIPLIER
        multipliers = scales / unit
        if (multipliers < 1).any():
            raise UnsupportedError(
                f"node '{layer}' (Add): scales {scales.tolist()} differ by more than {_POW2_MULTIPLIER}; the sum "
                "cannot be exact with scales = 'pow2'"
            )
    else:
        readers = [r for r in real_consumers(node.outputs[0]) if r.op_type == "BatchNormalization"]
        shift = max((_largest_shift(r) for r in readers), default=0.0) / float(scales.max())
        largest = _multiplier(_MULTIPLIERS, _reach(a) + _reach(b), shift)
        unit = float(scales.max()) / largest
        multipliers = np.rint(scales / unit)
    first, second = (
        _term(node, codes, int(m), f"{layer}.{side}")
        for codes, m, side in zip((a, b), multipliers, ("left", "right"), strict=True)
    )
    acc = emit(
        node, "Add", [first, second], name=layer, output=f"{layer}.accumulator", dtype=ir.DataType.INT32
    )
    bound = int(sum(m * _reach(x) for m, x in zip(multipliers, (a, b), strict=True)))
    context.sums[node] = Integers(acc, np.asarray(unit), bound)
    return context.sums[node]


def _batch_norm(node: ir.Node, context: Context) -> Integers:
    """Batch norm on the integers of an addition, or on codes: a multiplier and an int32 bias per channel."""
    layer = node.name or "batch_norm"
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is not None and source.op_type == "Add":
        acc = _sum(source, context)
    else:
        x = _operand(node)
        multiplier = _multiplier(_SINGLE_MULTIPLIERS, _reach(x), _largest_shift(node) / float(x.scale))
        value = _term(node, x, multiplier, layer)
        acc = Integers(value, np.asarray(np.float64(x.scale) / multiplier), multiplier * _reach(x))
    gamma, beta = (constant(value) for value in node.inputs[1:3])
    shape = static_shape(node.outputs[0]) or ()
    if gamma is None or beta is None:
        raise UnsupportedError(f"node '{layer}' (BatchNormalization): its parameters are not constant")
    scale, shift, unit = gamma.astype(np.float64), beta.astype(np.float64), float(acc.unit)
    floor = np.abs(shift) / ((_EXACT - 1 - acc.bound) * unit)
    small = np.abs(scale) < floor
    if small.any():
        scale = np.where(small, np.where(scale < 0, -floor, floor), scale)
        note(
            context.model,
            f"node '{layer}': {int(small.sum())} channels have a gamma so small that their integer bias would pass "
            f"2^24; a floor moves them by at most {acc.bound / (_EXACT - 1 - acc.bound):.2%} of their beta",
        )
    scale = np.where(scale == 0, np.finfo(np.float32).tiny, scale)
    bias = np.rint(shift / (scale * unit)).astype(np.int32)
    per_channel = (-1, *(1,) * (len(shape) - 2))
    shifted = _add_bias(node, acc.value, bias.reshape(per_channel), layer)
    return Integers(shifted, (unit * scale).reshape(per_channel))


def window_counts(node: ir.Node) -> NDArray[np.int64]:
    """Return how many inputs each output position of an AveragePool divides by, `(1, *spatial)`."""
    size = [int(d) for d in (static_shape(node.inputs[0]) or ())[2:]]  # type: ignore[arg-type]
    out = [int(d) for d in (static_shape(node.outputs[0]) or ())[2:]]  # type: ignore[arg-type]
    rank = len(size)
    pads = list(attribute(node, "pads"))
    include = bool(attribute(node, "count_include_pad", 0))
    counts = np.ones((1, *out), np.int64)
    for axis in range(rank):
        kernel = int(attribute(node, "kernel_shape")[axis])
        stride, dilation = int(attribute(node, "strides")[axis]), int(attribute(node, "dilations")[axis])
        begin, end = pads[axis], pads[rank + axis]
        low, high = (-begin, size[axis] + end) if include else (0, size[axis])
        places = (np.arange(out[axis]) * stride - begin)[:, None] + np.arange(kernel) * dilation
        per_position = ((places >= low) & (places < high)).sum(axis=1)
        counts *= per_position.reshape(-1, *(1,) * (rank - 1 - axis))
    return counts


def average_windows(node: ir.Node) -> dict[str, Any]:
    """Return the depthwise convolution attributes of an AveragePool; ceil_mode becomes padding at the end."""
    windows = window_attributes(node)
    shape_in, shape_out = static_shape(node.inputs[0]), static_shape(node.outputs[0])  # type: ignore[arg-type]
    if shape_in is None or shape_out is None:
        raise UnsupportedError(f"node '{node.name}' (AveragePool): its shapes are not known")
    rank = len(shape_in) - 2
    for axis in range(rank):
        n, out = int(shape_in[2 + axis] or 0), int(shape_out[2 + axis] or 0)
        reach = (windows["kernel_shape"][axis] - 1) * windows["dilations"][axis] + 1
        covered = n + windows["pads"][axis] + windows["pads"][rank + axis]
        needed = (out - 1) * windows["strides"][axis] + reach
        windows["pads"][rank + axis] += max(0, needed - covered)
    windows["group"] = int(shape_in[1] or 0)
    return windows


def check_count(node: ir.Node, counts: NDArray[np.int64], context: Context) -> None:
    """In power-of-two mode, refuse averages over anything but a power of two."""
    if context.power_of_two and ((counts & (counts - 1)) != 0).any():
        found = sorted({int(c) for c in counts.reshape(-1)})
        raise UnsupportedError(
            f"node '{node.name}' ({node.op_type}): averages over {found} values; scales = 'pow2' needs windows of a "
            "power of two"
        )


def _average_pool(node: ir.Node, context: Context) -> Integers:
    x = _operand(node)
    counts = window_counts(node)
    check_count(node, counts, context)
    windows = average_windows(node)
    layer, graph = node.name or "average", graph_of(node)
    ones = np.ones((windows["group"], 1, *windows["kernel_shape"]), np.int8)
    weights = add_initializer(graph, f"{layer}.ones", ones)
    x_zero = add_initializer(graph, f"{layer}.input_zero_point", np.uint8(x.zero_point).reshape(()))
    acc = emit(
        node, "ConvInteger", [x.value, weights, x_zero], windows, name=layer, output=f"{layer}.accumulator",
        dtype=ir.DataType.INT32,
    )  # fmt: skip
    return Integers(acc, np.float64(x.scale) / counts)


def _global_average(node: ir.Node, context: Context) -> Integers:
    x = _operand(node)
    shape = static_shape(node.inputs[0]) or ()  # type: ignore[arg-type]
    count = np.array(int(np.prod([int(d or 0) for d in shape[2:]])))
    check_count(node, count, context)
    layer = node.name or "mean"
    axes = add_initializer(graph_of(node), f"{layer}.axes", np.arange(2, len(shape), dtype=np.int64))
    acc = emit(
        node, "ReduceSum", [_term(node, x, 1, layer), axes], {"keepdims": 1}, name=layer,
        output=f"{layer}.accumulator", dtype=ir.DataType.INT32,
    )  # fmt: skip
    return Integers(acc, np.asarray(np.float64(x.scale) / count))


BUILDERS: dict[str, Callable[[ir.Node, Context], Integers]] = {
    "Add": _sum,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_average,
}
