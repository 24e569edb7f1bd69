"""Operators of `com.microsoft` that onnxruntime's quantiser writes, as far as they can be run exactly.

Each formula was found by running onnxruntime's CPU kernels on x86-64 with AVX2 (0 differences in 10^6 results
and more, ties included):

- QGemm: `M = float32(float32(alpha * a_scale) * b_scale) / y_scale`, otherwise as QLinearMatMul; without
  `y_scale` it returns `float32(acc) * M`.
- QLinearGlobalAveragePool: an int32 sum and one `M = x_scale / float32(y_scale * float32(positions))`.
- QLinearAveragePool: `program.AveragePool`, or the global one where the window is the whole map.
- QLinearAdd: `program.QuantisedAdd`.
- QLinearLeakyRelu, QLinearConcat: dequantise, compute, quantise, for each of 256 codes.

The others (QLinearSigmoid, QLinearSoftmax and their kind) go through approximations of transcendental functions
that differ between processors, or have not been modelled; they are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ..codes import dequantise, quantise
from ..float_ops import FLOAT_OPERATORS
from ..program import (
    AveragePool,
    Concat,
    Dense,
    QuantisedAdd,
    Requantisation,
    Requantise,
    Scale,
    SpatialSum,
    Table,
)
from .products import CODE_TYPES, check_channels, scalar_code, scale_values, weight_codes
from .windows import read_window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from .graph import Node
    from .lifting import Lifting

__all__ = ["CONTRIB_LIFTERS", "DOMAIN", "sums_of_pairs"]

DOMAIN = "com.microsoft"
CODES = 256


def q_gemm(lifting: Lifting, node: Node) -> None:
    """QGemm(a, a_scale, a_zero, b, b_scale, b_zero[, c, y_scale, y_zero]) -> `Dense` (and `Scale`)."""
    if node.attributes.get("transA", 0):
        raise node.refusal("transA is set; only the second operand may be transposed")
    transposed = bool(node.attributes.get("transB", 0))
    weight = weight_codes(lifting, node, 3, 5, channel_axis=0 if transposed else 1, rank=2)
    weight = np.ascontiguousarray(weight.T) if transposed else weight
    channels = weight.shape[1]
    scale_a, _ = _scale_and_zero(lifting, node, 1, 2)
    scale_b = scale_values(lifting, node, 4, "the weight's scale")
    alpha = np.float32(node.attributes.get("alpha", 1.0))
    multiplier = np.asarray((alpha * scale_a) * scale_b, np.float32)
    check_channels(node, multiplier, channels)
    name = lifting.tensor(node, 0)
    dtype = lifting.spec(name).dtype
    input_zero_point = _code(lifting, node, 2, dtype)
    requantisation = None
    if node.input(7) is not None:
        scale_y, zero_y = _scale_and_zero(lifting, node, 7, 8)
        requantisation = Requantisation(np.asarray(multiplier / scale_y, np.float32), zero_y, dtype)
    shape = lifting.shape(name)
    if shape is not None and (len(shape) != 2 or shape[1] not in (None, weight.shape[0])):
        raise node.refusal(f"its first operand has shape {shape}, its second {weight.shape}")
    accumulator = node.output if requantisation is not None else f"{node.output}.accumulator"
    rows = (None if shape is None else shape[0], channels)
    layer = Dense(
        name=node.name,
        inputs=(name,),
        outputs=(accumulator,),
        weight=weight,
        bias=_row_bias(lifting, node, channels),
        input_zero_point=input_zero_point,
        requantisation=requantisation,
        weight_scale=scale_b,
    )
    lifting.write(layer)
    if requantisation is not None:
        lifting.declare(accumulator, dtype, rows)
        return
    lifting.declare(accumulator, np.int32, rows)
    lifting.write(
        Scale(name=f"{node.name}.scale", inputs=(accumulator,), outputs=(node.output,), multiplier=multiplier)
    )
    lifting.declare(node.output, np.float32, rows)


def q_linear_add(lifting: Lifting, node: Node) -> None:
    """QLinearAdd(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero) -> `QuantisedAdd`."""
    if any(lifting.is_constant(node.input(index)) for index in (0, 3)):
        raise node.refusal("an operand is a constant; only sums of two activations of one shape are read")
    names = lifting.tensor(node, 0), lifting.tensor(node, 3)
    shapes = [lifting.shape(name) for name in names]
    if shapes[0] is None or shapes[0] != shapes[1]:
        raise node.refusal(f"its operands have shapes {shapes[0]} and {shapes[1]}; equal ones are read")
    if all(length == 1 for length in shapes[0][1:]):
        raise node.refusal("a sample has one element, for which onnxruntime adds in another order")
    dtype = lifting.spec(names[0]).dtype
    (scale_a, zero_a), (scale_b, zero_b), (scale_y, zero_y) = (
        (_scale(lifting, node, index), _code(lifting, node, index + 1, dtype)) for index in (1, 4, 6)
    )
    m_a, m_b = np.float32(scale_a / scale_y), np.float32(scale_b / scale_y)
    layer = QuantisedAdd(
        name=node.name,
        inputs=names,
        outputs=(node.output,),
        multipliers=(m_a, m_b),
        zero_points=(zero_a, zero_b),
        output_zero_point=zero_y,
        table=sums_of_pairs(m_a, zero_a, m_b, zero_b, zero_y, dtype),
    )
    lifting.write(layer)
    lifting.declare(node.output, dtype, shapes[0])


def sums_of_pairs(
    m_a: np.float32, zero_a: int, m_b: np.float32, zero_b: int, zero_y: int, dtype: np.dtype[Any]
) -> NDArray[np.integer[Any]]:
    """Sums of all pairs of codes: `rint(fma(a, m_a, fma(b, m_b, fixed)))`, clamped."""
    limits = np.iinfo(dtype)
    codes = np.arange(limits.min, limits.max + 1).astype(np.float32)
    fixed = np.float32(zero_y) - _fused(np.float32(zero_a), m_a, np.float32(m_b * np.float32(zero_b)))
    sums = _fused(codes[:, np.newaxis], m_a, _fused(codes, m_b, fixed)[np.newaxis, :])
    return np.clip(np.rint(sums), limits.min, limits.max).astype(dtype)


def _fused(a: Any, b: Any, c: Any) -> NDArray[np.float32]:
    """float32 `a * b + c` rounded once.

    The product is exact in float64. The sum is rounded there to odd (the last bit set where it is not exact),
    after which rounding to float32 is as if nothing had been rounded before (Boldo and Melquiond, 2008).
    """
    product, addend = np.broadcast_arrays(np.float64(a) * np.float64(b), np.float64(c))
    total = product + addend
    other = total - product
    error = (product - (total - other)) + (addend - other)
    bits = total.reshape(-1).view(np.int64).copy()
    inexact = (error.reshape(-1) != 0) & (bits & 1 == 0)
    away = (error.reshape(-1) > 0) == (total.reshape(-1) > 0)
    bits[inexact] += np.where(away[inexact], 1, -1)
    result: NDArray[np.float32] = bits.view(np.float64).reshape(total.shape).astype(np.float32)
    return result


def q_linear_global_average_pool(lifting: Lifting, node: Node) -> None:
    """QLinearGlobalAveragePool(x, x_scale, x_zero, y_scale, y_zero) -> `SpatialSum`, `Requantise`."""
    _refuse_channels_last(node)
    name = lifting.tensor(node, 0)
    _write_global_average(lifting, node, name)


def q_linear_average_pool(lifting: Lifting, node: Node) -> None:
    """QLinearAveragePool(x, x_scale, x_zero, y_scale, y_zero) -> `AveragePool`, or the global one."""
    _refuse_channels_last(node)
    name = lifting.tensor(node, 0)
    shape, dtype = lifting.shape(name), lifting.spec(name).dtype
    window = read_window(node, _attribute(node, "kernel_shape"), shape)
    if any(dilation != 1 for dilation in window.dilations):
        raise node.refusal(f"dilations are {window.dilations}; only 1 is read")
    if shape is None or None in shape[2:]:
        raise node.refusal(f"its input has shape {shape}; its spatial lengths have to be known")
    if node.attributes.get("ceil_mode", 0) and node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.refusal("ceil_mode together with auto_pad is not read; give explicit pads")
    if tuple(shape[2:]) == window.kernel and not any(window.pads):
        _write_global_average(lifting, node, name)
        return
    (scale_x, zero_x), (scale_y, zero_y) = (
        (_scale(lifting, node, index), _code(lifting, node, index + 1, dtype)) for index in (1, 3)
    )
    layer = AveragePool(
        name=node.name,
        inputs=(name,),
        outputs=(node.output,),
        kernel=window.kernel,
        strides=window.strides,
        pads=window.pads,
        ceil_mode=bool(node.attributes.get("ceil_mode", 0)),
        count_include_pad=bool(node.attributes.get("count_include_pad", 0)),
        input_scale=scale_x,
        input_zero_point=zero_x,
        output_scale=scale_y,
        output_zero_point=zero_y,
        dtype=dtype,
    )
    lifting.write(layer, dtype)


def _write_global_average(lifting: Lifting, node: Node, name: str) -> None:
    shape, dtype = lifting.shape(name), lifting.spec(name).dtype
    if shape is None or None in shape[2:]:
        raise node.refusal(f"its input has shape {shape}; its spatial lengths have to be known")
    (scale_x, zero_x), (scale_y, zero_y) = (
        (_scale(lifting, node, index), _code(lifting, node, index + 1, dtype)) for index in (1, 3)
    )
    positions = np.float32(np.prod([int(length or 0) for length in shape[2:]], dtype=np.int64))
    multiplier = np.asarray(scale_x / (scale_y * positions), np.float32)
    total = f"{node.output}.sum"
    pooled = (*shape[:2], *(1 for _ in shape[2:]))
    lifting.write(
        SpatialSum(name=node.name, inputs=(name,), outputs=(total,), input_zero_point=zero_x),
    )
    lifting.declare(total, np.int32, pooled)
    layer = Requantise(
        name=f"{node.name}.requantise",
        inputs=(total,),
        outputs=(node.output,),
        bias=None,
        requantisation=Requantisation(multiplier, zero_y, dtype),
    )
    lifting.write(layer)
    lifting.declare(node.output, dtype, pooled)


def q_linear_leaky_relu(lifting: Lifting, node: Node) -> None:
    """QLinearLeakyRelu(x, x_scale, x_zero, y_scale, y_zero) -> `Table`."""
    name = lifting.tensor(node, 0)
    dtype = lifting.spec(name).dtype

    def leaky(real: NDArray[np.float32]) -> NDArray[np.float32]:
        return FLOAT_OPERATORS["LeakyRelu"]((real,), node.attributes, 1)[0]

    _write_table(lifting, node, name, node.output, _table(lifting, node, (1, 3), dtype, leaky))


def q_linear_concat(lifting: Lifting, node: Node) -> None:
    """QLinearConcat(y_scale, y_zero, (x, x_scale, x_zero)...) -> a `Table` for each other scale, `Concat`."""
    names = []
    for position, index in enumerate(range(2, len(node.inputs), 3)):
        name = lifting.tensor(node, index)
        dtype = lifting.spec(name).dtype
        table = _table(lifting, node, (index + 1, 0), dtype, lambda real: real)
        if not np.array_equal(table, np.arange(CODES) + np.iinfo(dtype).min):
            rescaled = f"{node.output}.input{position}"
            _write_table(lifting, node, name, rescaled, table)
            name = rescaled
        names.append(name)
    shape = lifting.shape(names[0])
    if shape is None or len({lifting.spec(name).dtype for name in names}) != 1:
        raise node.refusal("its operands are of different types, or the rank of the first is unknown")
    axis = int(_attribute(node, "axis"))
    if not -len(shape) <= axis < len(shape):
        raise node.refusal(f"axis {axis} does not fit a tensor of {len(shape)} axes")
    layer = Concat(name=node.name, inputs=tuple(names), outputs=(node.output,), axis=axis % len(shape))
    lifting.write(layer, lifting.spec(names[0]).dtype)


def _table(
    lifting: Lifting,
    node: Node,
    scales: tuple[int, int],
    dtype: np.dtype[Any],
    function: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> NDArray[Any]:
    """`function` on codes; `scales` are the inputs that hold the two scales, zero points behind them."""
    _check_codes(node, dtype)
    before, after = (
        (np.asarray(_scale(lifting, node, index)), np.asarray(_code(lifting, node, index + 1, dtype), dtype))
        for index in scales
    )
    codes = (np.arange(CODES) + np.iinfo(dtype).min).astype(dtype)
    return quantise(function(dequantise(codes, *before)), *after)


def _write_table(lifting: Lifting, node: Node, name: str, output: str, table: NDArray[Any]) -> None:
    layer_name = node.name if output == node.output else output
    lifting.write(Table(name=layer_name, inputs=(name,), outputs=(output,), table=table))
    lifting.declare(output, table.dtype, lifting.shape(name))


def _row_bias(lifting: Lifting, node: Node, channels: int) -> NDArray[np.int32] | None:
    bias = lifting.optional_constant(node, 6, "the bias")
    if bias is None:
        return None
    if (
        bias.dtype != np.int32
        or bias.size not in (1, channels)
        or bias.shape[-1:] not in ((), (1,), (channels,))
    ):
        raise node.refusal(f"its bias is {bias.dtype}{list(bias.shape)}; expected int32[{channels}]")
    return np.broadcast_to(bias.reshape(-1), (channels,)).copy()


def _scale(lifting: Lifting, node: Node, index: int) -> np.float32:
    found = scale_values(lifting, node, index, f"the scale at input {index}")
    if found.ndim:
        raise node.refusal(f"the scale at input {index} has {found.size} values; one for the tensor is read")
    if not float(found) > 0:
        raise node.refusal(f"the scale at input {index} is {float(found):g}; expected a positive number")
    return np.float32(found)


def _code(lifting: Lifting, node: Node, index: int, dtype: np.dtype[Any]) -> int:
    """A zero point of the given type; left out, it is 0."""
    _check_codes(node, dtype)
    value, found = scalar_code(lifting, node, index, f"the zero point at input {index}")
    if node.input(index) is not None and found != dtype:
        raise node.refusal(f"the zero point at input {index} is {found}, the tensor {dtype}")
    return value


def _scale_and_zero(lifting: Lifting, node: Node, scale: int, zero: int) -> tuple[np.float32, int]:
    return _scale(lifting, node, scale), scalar_code(lifting, node, zero, f"the zero point at input {zero}")[
        0
    ]


def _check_codes(node: Node, dtype: np.dtype[Any]) -> None:
    if dtype not in CODE_TYPES:
        raise node.refusal(f"its operands are {dtype}; uint8 and int8 are read")


def _attribute(node: Node, name: str) -> Any:
    if name not in node.attributes:
        raise ModelError(f"node {node.name!r} ({node.op_type}): attribute {name!r} is missing")
    return node.attributes[name]


def _refuse_channels_last(node: Node) -> None:
    if node.attributes.get("channels_last", 0):
        raise node.refusal("channels_last is set; only (N, C, ...) is read")


CONTRIB_LIFTERS: Mapping[str, Callable[[Lifting, Node], None]] = {
    f"{DOMAIN}.{name}": lifter
    for name, lifter in {
        "QGemm": q_gemm,
        "QLinearAdd": q_linear_add,
        "QLinearAveragePool": q_linear_average_pool,
        "QLinearConcat": q_linear_concat,
        "QLinearGlobalAveragePool": q_linear_global_average_pool,
        "QLinearLeakyRelu": q_linear_leaky_relu,
    }.items()
}
