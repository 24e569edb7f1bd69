"""Convolutions and matrix products on codes: QLinearConv, ConvInteger, QLinearMatMul, MatMulInteger.

Their multiplier is onnxruntime's: `M = float32(float32(x_scale * w_scale) / y_scale)`, element-wise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ..program import Conv, Dense, Requantisation
from .windows import read_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .graph import Node
    from .lifting import Lifting

__all__ = [
    "CODE_TYPES",
    "check_channels",
    "conv_integer",
    "mat_mul_integer",
    "q_linear_conv",
    "q_linear_mat_mul",
    "scalar_code",
    "scale_values",
    "weight_codes",
]

CODE_TYPES = (np.dtype(np.uint8), np.dtype(np.int8))
CONV_RANKS = (3, 4)


def q_linear_conv(lifting: Lifting, node: Node) -> None:
    """QLinearConv(x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero[, bias]) -> `Conv`."""
    weight = weight_codes(lifting, node, 3, 5, channel_axis=0)
    multiplier, weight_scale = _multiplier(lifting, node, (1, 4, 6))
    check_channels(node, multiplier, weight.shape[0])
    per_channel = (-1,) + (1,) * (weight.ndim - 2)
    zero_point, dtype = scalar_code(lifting, node, 7, "output zero point")
    requantisation = Requantisation(
        multiplier if multiplier.ndim == 0 else multiplier.reshape(per_channel), zero_point, dtype
    )
    bias = lifting.optional_constant(node, 8, "bias")
    if bias is not None and (bias.dtype != np.int32 or bias.shape != weight.shape[:1]):
        raise node.refusal(f"bias is {bias.dtype}{list(bias.shape)}; expected int32[{weight.shape[0]}]")
    input_zero_point = _input_zero_point(lifting, node)
    _write_conv(lifting, node, weight, bias, input_zero_point, requantisation, weight_scale)


def conv_integer(lifting: Lifting, node: Node) -> None:
    """ConvInteger(x, w[, x_zero, w_zero]) -> `Conv` whose output is the int32 accumulator."""
    weight = weight_codes(lifting, node, 1, 3, channel_axis=0)
    input_zero_point = _input_zero_point(lifting, node)
    _write_conv(lifting, node, weight, None, input_zero_point, None, None)


def mat_mul_integer(lifting: Lifting, node: Node) -> None:
    """MatMulInteger(a, b[, a_zero, b_zero]) with a constant 2-D `b` -> `Dense` with an int32 output."""
    weight = weight_codes(lifting, node, 1, 3, channel_axis=1, rank=2)
    input_zero_point = _input_zero_point(lifting, node)
    _write_dense(lifting, node, weight, input_zero_point, None, None)


def q_linear_mat_mul(lifting: Lifting, node: Node) -> None:
    """QLinearMatMul(a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero), constant 2-D `b` -> `Dense`."""
    weight = weight_codes(lifting, node, 3, 5, channel_axis=1, rank=2)
    multiplier, weight_scale = _multiplier(lifting, node, (1, 4, 6))
    check_channels(node, multiplier, weight.shape[1])
    zero_point, dtype = scalar_code(lifting, node, 7, "output zero point")
    input_zero_point = _input_zero_point(lifting, node)
    requantisation = Requantisation(multiplier, zero_point, dtype)
    _write_dense(lifting, node, weight, input_zero_point, requantisation, weight_scale)


def scalar_code(lifting: Lifting, node: Node, index: int, what: str) -> tuple[int, np.dtype[Any]]:
    """A zero point of one uint8 or int8 value and its type; left out, it is uint8 0."""
    array = lifting.optional_constant(node, index, what)
    if array is None:
        return 0, np.dtype(np.uint8)
    if array.dtype not in CODE_TYPES:
        raise node.refusal(f"{what} is {array.dtype}; uint8 and int8 are read")
    if array.size != 1:
        raise node.refusal(f"{what} has {array.size} values; one for the whole tensor is read")
    return int(array.reshape(())), array.dtype


def _input_zero_point(lifting: Lifting, node: Node) -> int:
    value, dtype = scalar_code(lifting, node, 2, "input zero point")
    found = lifting.spec(str(node.inputs[0])).dtype
    if node.input(2) is not None and dtype != found:
        raise node.refusal(f"input zero point is {dtype}, the input {found}; expected the same type")
    return value


def scale_values(lifting: Lifting, node: Node, index: int, what: str) -> NDArray[np.float32]:
    """A float32 scale, checked to be finite; of shape () where it holds one value."""
    array = lifting.constant(node, index, what)
    if array.dtype != np.float32:
        raise node.refusal(f"{what} is {array.dtype}; float32 is read")
    if not np.isfinite(array).all():
        raise ModelError(f"node {node.name!r} ({node.op_type}): {what} holds NaN or infinity")
    return array.reshape(()) if array.size == 1 else array


def _multiplier(
    lifting: Lifting, node: Node, indices: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`M` and the weights' scale, both `()` or `(channels,)`."""
    names = ("input scale", "weight scale", "output scale")
    scale_x, scale_w, scale_y = (
        scale_values(lifting, node, index, what) for index, what in zip(indices, names, strict=True)
    )
    if scale_x.ndim or scale_y.ndim:
        raise node.refusal(
            "the input or output scale has more than one value; one for the whole tensor is read"
        )
    if scale_w.ndim > 1:
        raise node.refusal(
            f"the weight scale has shape {list(scale_w.shape)}; one or one per channel is read"
        )
    with np.errstate(all="ignore"):
        multiplier = np.asarray((scale_x * scale_w) / scale_y, dtype=np.float32)
    if not np.isfinite(multiplier).all():
        raise ModelError(
            f"node {node.name!r} ({node.op_type}): x_scale * w_scale / y_scale is not a finite float32 number"
        )
    return multiplier, scale_w


def check_channels(node: Node, multiplier: NDArray[np.float32], channels: int) -> None:
    """Refuse a multiplier that is neither one value nor one for each channel."""
    if multiplier.ndim and multiplier.shape != (channels,):
        raise node.refusal(f"the weight scale has {multiplier.size} values; expected 1 or {channels}")


def weight_codes(
    lifting: Lifting, node: Node, index: int, zero_index: int, channel_axis: int, rank: int | None = None
) -> NDArray[np.integer[Any]]:
    """Weight codes less their zero point: int8 where they fit, else int16.

    `rank` is the number of axes that they need to have; None for a convolution's.
    """
    codes = lifting.constant(node, index, "the weight")
    if codes.dtype not in CODE_TYPES:
        raise node.refusal(f"the weight is {codes.dtype}; uint8 and int8 are read")
    if rank is None and codes.ndim not in CONV_RANKS:
        raise node.refusal(
            f"the weight has {codes.ndim} axes; convolutions over 1 and 2 spatial axes are read"
        )
    if rank is not None and codes.ndim != rank:
        raise node.refusal(f"the second operand has {codes.ndim} axes; a constant matrix is read")
    zero = lifting.optional_constant(node, zero_index, "the weight's zero point")
    if zero is None:
        zero = np.zeros((), codes.dtype)
    channels = codes.shape[channel_axis]
    if zero.dtype != codes.dtype or (zero.size != 1 and zero.shape != (channels,)):
        raise node.refusal(
            f"the weight's zero point is {zero.dtype}{list(zero.shape)}; expected {codes.dtype}, "
            f"one value or {channels}"
        )
    shape = [1] * codes.ndim
    shape[channel_axis] = -1
    weight = codes.astype(np.int16) - zero.astype(np.int16).reshape(shape)
    low, high = np.iinfo(np.int8).min, np.iinfo(np.int8).max
    fits = weight.size == 0 or (int(weight.min()) >= low and int(weight.max()) <= high)
    return weight.astype(np.int8) if fits else weight


def _check_codes(lifting: Lifting, node: Node, name: str) -> None:
    dtype = lifting.spec(name).dtype
    if dtype not in CODE_TYPES:
        raise node.refusal(f"its input {name!r} is {dtype}; uint8 and int8 are read")


def _write_conv(
    lifting: Lifting,
    node: Node,
    weight: NDArray[np.integer[Any]],
    bias: NDArray[np.int32] | None,
    input_zero_point: int,
    requantisation: Requantisation | None,
    weight_scale: NDArray[np.float32] | None,
) -> None:
    name = lifting.tensor(node, 0)
    _check_codes(lifting, node, name)
    shape = lifting.shape(name)
    groups = int(node.attributes.get("group", 1))
    expected = weight.shape[1] * groups
    if shape is not None and (len(shape) != weight.ndim or shape[1] not in (None, expected)):
        raise node.refusal(f"its input has shape {shape}, its weight {weight.shape} with {groups} groups")
    if groups < 1 or weight.shape[0] % groups:
        raise node.refusal(f"{weight.shape[0]} channels do not divide into {groups} groups")
    window = read_window(node, weight.shape[2:], shape)
    layer = Conv(
        name=node.name,
        inputs=(name,),
        outputs=(node.output,),
        weight=weight,
        bias=bias,
        input_zero_point=input_zero_point,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        groups=groups,
        requantisation=requantisation,
        weight_scale=weight_scale,
    )
    lifting.write(layer, np.int32 if requantisation is None else requantisation.dtype)


def _write_dense(
    lifting: Lifting,
    node: Node,
    weight: NDArray[np.integer[Any]],
    input_zero_point: int,
    requantisation: Requantisation | None,
    weight_scale: NDArray[np.float32] | None,
) -> None:
    name = lifting.tensor(node, 0)
    _check_codes(lifting, node, name)
    shape = lifting.shape(name)
    if shape is not None and (not shape or shape[-1] not in (None, weight.shape[0])):
        raise node.refusal(f"its first operand has shape {shape}, its second {weight.shape}")
    layer = Dense(
        name=node.name,
        inputs=(name,),
        outputs=(node.output,),
        weight=weight,
        bias=None,
        input_zero_point=input_zero_point,
        requantisation=requantisation,
        weight_scale=weight_scale,
    )
    lifting.write(layer, np.int32 if requantisation is None else requantisation.dtype)
