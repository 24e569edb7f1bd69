"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear.

A QuantizeLinear of scale 1 behind a pending float32 product completes a requantisation; any other one is
run as the division that it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..program import Dequantise, DynamicQuantise, Quantise, Requantisation, Requantise
from .lifting import Real
from .products import CODE_TYPES, scale_values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .graph import Node
    from .lifting import Lifting

Code = TypeVar("Code", bound=np.generic)

__all__ = ["dequantize_linear", "dynamic_quantize_linear", "quantize_linear"]

# By TensorProto.DataType number; what QuantizeLinear can write, and its names where that is refused.
OUTPUT_TYPES: Mapping[int, np.dtype[Any]] = {
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
}
DEQUANTISED_TYPES = (*OUTPUT_TYPES.values(), np.dtype(np.int32))
ONNX_UNDEFINED, ONNX_FLOAT = 0, 1


def quantize_linear(lifting: Lifting, node: Node) -> None:
    """QuantizeLinear(x, scale[, zero_point]) -> `Requantise` behind a real of scale 1, else `Quantise`."""
    scale, zero = _scale_and_zero(lifting, node, _output_type(node))
    if zero.dtype not in OUTPUT_TYPES.values():
        raise node.refusal(f"it writes {zero.dtype}; uint8, int8, uint16 and int16 are read")
    if node.attributes.get("precision", ONNX_UNDEFINED) not in {ONNX_UNDEFINED, ONNX_FLOAT}:
        raise node.refusal("it divides in another precision than float32")
    real = lifting.pending.get(str(node.inputs[0]))
    if isinstance(real, Real) and zero.dtype in CODE_TYPES and zero.size == 1 and _is_one(scale):
        multiplier = np.ones((), np.float32) if real.multiplier is None else real.multiplier
        layer = Requantise(
            name=node.name,
            inputs=(real.accumulator,),
            outputs=(node.output,),
            bias=real.bias,
            requantisation=Requantisation(multiplier, int(zero.reshape(())), zero.dtype),
        )
        lifting.write(layer, zero.dtype)
        return
    name = lifting.tensor(node, 0)
    if lifting.spec(name).dtype != np.float32:
        raise node.refusal(f"its input is {lifting.spec(name).dtype}; float32 is read")
    scale, zero = _spread(lifting, node, name, scale), _spread(lifting, node, name, zero)
    lifting.write(
        Quantise(name=node.name, inputs=(name,), outputs=(node.output,), scale=scale, zero_point=zero),
        zero.dtype,
    )


def dequantize_linear(lifting: Lifting, node: Node) -> None:
    """DequantizeLinear(x, scale[, zero_point]) -> `Dequantise`."""
    if node.attributes.get("output_dtype", ONNX_UNDEFINED) not in {ONNX_UNDEFINED, ONNX_FLOAT}:
        raise node.refusal("it writes another type than float32")
    source = str(node.inputs[0])
    dtype = lifting.spec(source).dtype
    if dtype not in DEQUANTISED_TYPES:
        raise node.refusal(f"its input is {dtype}; uint8, int8, uint16, int16 and int32 are read")
    scale, zero = _scale_and_zero(lifting, node, dtype)
    if zero.dtype != dtype:
        raise node.refusal(f"its zero point is {zero.dtype}, its input {dtype}; expected the same type")
    if dtype == np.int32 and zero.any():
        raise node.refusal("an int32 input has a zero point other than 0")
    name = lifting.tensor(node, 0)
    scale, zero = _spread(lifting, node, name, scale), _spread(lifting, node, name, zero)
    lifting.write(
        Dequantise(name=node.name, inputs=(name,), outputs=(node.output,), scale=scale, zero_point=zero),
        np.float32,
    )


def dynamic_quantize_linear(lifting: Lifting, node: Node) -> None:
    """DynamicQuantizeLinear(x) -> `DynamicQuantise`, with all three outputs."""
    if len(node.outputs) != 3 or None in node.outputs:
        raise node.refusal("expected its three outputs: codes, scale and zero point")
    name = lifting.tensor(node, 0)
    outputs = tuple(str(output) for output in node.outputs)
    lifting.write(DynamicQuantise(name=node.name, inputs=(name,), outputs=outputs))
    for output, dtype in zip(outputs, (np.uint8, np.float32, np.uint8), strict=True):
        lifting.declare(output, dtype)


def _output_type(node: Node) -> np.dtype[Any]:
    """What QuantizeLinear writes where it has no zero point to say so."""
    number = node.attributes.get("output_dtype", ONNX_UNDEFINED)
    if number == ONNX_UNDEFINED:
        return np.dtype(np.uint8)
    if number not in OUTPUT_TYPES:
        raise node.refusal(f"output_dtype is {number}; uint8, int8, uint16 and int16 are read")
    return OUTPUT_TYPES[number]


def _scale_and_zero(
    lifting: Lifting, node: Node, dtype: np.dtype[Any]
) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
    """Scale and zero point, which is zeros of `dtype` where it is left out."""
    zero = lifting.optional_constant(node, 2, "the zero point")
    if zero is not None and not np.issubdtype(zero.dtype, np.integer):
        raise node.refusal(f"its codes are {zero.dtype}; uint8, int8, uint16, int16 and int32 are read")
    scale = scale_values(lifting, node, 1, "the scale")
    if zero is None:
        zero = np.zeros(scale.shape, dtype)
    if zero.size != scale.size:
        raise node.refusal(f"it has {scale.size} scales and {zero.size} zero points")
    return scale, zero.reshape(scale.shape)


def _is_one(scale: NDArray[np.float32]) -> bool:
    return scale.size == 1 and float(scale.reshape(())) == 1.0


def _spread(lifting: Lifting, node: Node, name: str, values: NDArray[Code]) -> NDArray[Code]:
    """Scales or zero points, shaped to broadcast against the whole tensor `name`.

    One value: (). One per index of `axis`: ones elsewhere. Blocks of `block_size` along `axis`: repeated.
    """
    if values.ndim == 0:
        return values
    shape = lifting.shape(name)
    axis = int(node.attributes.get("axis", 1))
    if shape is None or not -len(shape) <= axis < len(shape):
        raise node.refusal(f"axis {axis} does not fit an input of shape {shape}")
    length = shape[axis]
    block = int(node.attributes.get("block_size", 0))
    if values.ndim == 1 and not block:
        if length is not None and length != values.size:
            raise node.refusal(f"it has {values.size} scales along an axis of length {length}")
        spread = [1] * len(shape)
        spread[axis] = -1
        return values.reshape(spread)
    if not block or values.ndim != len(shape) or length is None:
        raise node.refusal(
            f"its scale has shape {list(values.shape)} and block_size {block}, its input {shape}; "
            "one value, one per index of axis, or blocks along an axis of known length are read"
        )
    repeated = np.repeat(values, block, axis=axis)
    if repeated.shape[axis] - length not in range(block):
        raise node.refusal(f"{values.shape[axis]} blocks of {block} do not cover an axis of length {length}")
    return np.take(repeated, np.arange(length), axis=axis)
