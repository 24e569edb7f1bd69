"""What stands around a float operator in a Q/DQ model: codes before it, a QuantizeLinear behind it.

The rules are onnxruntime's own, since its fused kernels are the meaning of such a model here: a group that it
would leave in float is refused (sums of floats) or left as it is (operators that are exact in float).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...errors import UnsupportedError
from ..codes import dequantise, quantise
from ..graph import add_initializer, attribute, constant, emit, graph_of, replace_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "MICROSOFT",
    "Quantisation",
    "behind",
    "emit_codes",
    "epilogue",
    "fold_dequantised_constants",
    "fold_quantised_constants",
    "plain_attributes",
    "quantiser_of",
    "refusal",
    "replace_output",
    "to_unsigned",
    "writes",
]

MICROSOFT = "com.microsoft"
UINT8, INT8 = np.dtype(np.uint8), np.dtype(np.int8)
SHIFT = 128


def refusal(node: ir.Node, reason: str) -> UnsupportedError:
    """The error that names node, operator and reason, for the caller to raise."""
    return UnsupportedError(f"node {node.name or node.outputs[0].name!r} ({node.op_type}): {reason}")


@dataclass(frozen=True, eq=False)
class Quantisation:
    """Codes with their scale and zero point, as a DequantizeLinear reads or a QuantizeLinear writes them.

    Attributes:
        node: The QuantizeLinear or DequantizeLinear.
        codes: The codes.
        scale: float32, `()` or one for each index of `axis`.
        zero_point: Of the codes' type and the scale's shape.
        axis: Where scales differ, along which axis.
    """

    node: ir.Node
    codes: ir.Value
    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the codes."""
        return self.zero_point.dtype

    @property
    def whole(self) -> bool:
        """Whether one scale serves the whole tensor."""
        return self.scale.ndim == 0

    @property
    def is_uint8(self) -> bool:
        """Whether these are uint8 codes of one positive scale, which onnxruntime's fused kernels take."""
        return self.whole and self.dtype == UINT8 and float(self.scale) > 0

    def same_as(self, other: Quantisation) -> bool:
        """Whether both mean the same number by the same code."""
        return (
            self.dtype == other.dtype
            and np.array_equal(self.scale, other.scale)
            and np.array_equal(self.zero_point, other.zero_point)
        )

    def parameters(self) -> list[ir.Value | None]:
        """Scale and zero point as values of the graph; a zero point that is left out is added."""
        scale = self.node.inputs[1]
        zero = self.node.inputs[2] if len(self.node.inputs) > 2 else None
        if zero is None:
            zero = add_initializer(graph_of(self.node), f"{self.codes.name}.zero_point", self.zero_point)
        return [scale, zero]


def behind(value: ir.Value | None) -> Quantisation | None:
    """The codes that a DequantizeLinear makes `value` of; None if none does, or not with constants."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or node.inputs[0] is None:
        return None
    return _quantisation(node, node.inputs[0])


def _quantisation(node: ir.Node, codes: ir.Value) -> Quantisation | None:
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    dtype = UINT8 if codes.dtype in {None, ir.DataType.UNDEFINED} else np.dtype(codes.dtype.numpy())
    zero = np.zeros(() if scale is None else scale.shape, dtype) if given is None else constant(given)
    if scale is None or zero is None or scale.dtype != np.float32 or zero.size != scale.size:
        return None
    if scale.ndim > 1 or attribute(node, "block_size", 0):
        return None
    shape = () if scale.size == 1 else scale.shape
    return Quantisation(
        node, codes, scale.reshape(shape), zero.reshape(shape), int(attribute(node, "axis", 1))
    )


def _uses(value: ir.Value) -> int:
    return len(tuple(value.uses())) + value.is_graph_output()


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The node that alone reads `value`, once; None for a graph output."""
    return (
        next(use.node for use in value.uses()) if _uses(value) == 1 and not value.is_graph_output() else None
    )


def epilogue(node: ir.Node) -> Quantisation | None:
    """The QuantizeLinear that alone reads a node, or behind a Relu or Clip that its codes make redundant.

    Raises:
        UnsupportedError: A Relu or Clip stands before it that the limits of the codes do not perform, so that
            onnxruntime computes the node in float.
    """
    reader = _only_reader(node.outputs[0])
    if reader is not None and reader.op_type in ("Relu", "Clip"):
        after = _only_reader(reader.outputs[0])
        found = None if after is None else writes(after)
        if found is None or not _redundant(reader, found):
            raise refusal(
                node,
                f"the limits of {reader.op_type} {reader.name!r} behind it are not those of the codes that follow, "
                "so that onnxruntime computes it in float, in no defined order; quantise so that the lowest code "
                "stands for the lower limit",
            )
        return found
    return None if reader is None else writes(reader)


def writes(node: ir.Node) -> Quantisation | None:
    """What a QuantizeLinear writes, None for any other node."""
    return _quantisation(node, node.outputs[0]) if node.op_type == "QuantizeLinear" else None


def _redundant(clip: ir.Node, codes: Quantisation) -> bool:
    limits = np.iinfo(codes.dtype)
    # One value in a list of length 1 does not count as a scalar there.
    if any(array is not None and array.ndim for array in map(constant, codes.node.inputs[1:])):
        return False
    zero = int(codes.zero_point)
    if clip.op_type == "Relu":
        return zero == limits.min
    bounds = [constant(value) for value in clip.inputs[1:]]
    if len(bounds) != 2 or any(bound is None or bound.size != 1 for bound in bounds):
        return False
    low, high = (np.rint(np.float32(bound) / codes.scale) + zero for bound in bounds if bound is not None)
    return bool(low <= limits.min and high >= limits.max)


def to_unsigned(graph: ir.Graph) -> None:
    """Turn each pair QuantizeLinear -> DequantizeLinear of int8 into uint8, the zero point moved by 128.

    As onnxruntime does on x86 where nothing else reads either of them. It leaves the other int8 codes as they
    are, and computes what reads them in float.
    """
    for node in list(graph):
        first = writes(node)
        reader = None if first is None else _only_reader(first.codes)
        if first is None or reader is None or reader.op_type != "DequantizeLinear":
            continue
        second = behind(reader.outputs[0])
        if second is None or not first.whole or first.dtype != INT8 or not first.same_as(second):
            continue
        if _uses(reader.outputs[0]) != 1 or len(node.inputs) < 3 or len(reader.inputs) < 3:
            continue
        moved = np.asarray(int(first.zero_point) + SHIFT, UINT8)
        zero = add_initializer(graph, f"{first.codes.name}.uint8_zero_point", moved)
        node.replace_input_with(2, zero)
        reader.replace_input_with(2, zero)
        first.codes.type = ir.TensorType(ir.DataType.UINT8)
        # Another name: under its own, an executor that exposes the tensor has int8 codes.
        first.codes.name = f"{first.codes.name}.uint8"


def fold_quantised_constants(graph: ir.Graph) -> None:
    """Run each QuantizeLinear of a constant (weights that are kept as floats)."""
    for node in list(graph):
        found, real = writes(node), constant(node.inputs[0]) if node.inputs else None
        if found is None or real is None or real.dtype != np.float32:
            continue
        if found.zero_point.dtype.kind not in "iu":
            continue  # codes of float8 and of 4 bits are refused with their node
        codes = quantise(
            real, _spread(found, found.scale, real.ndim), _spread(found, found.zero_point, real.ndim)
        )
        _become_constant(found.codes, codes)


def fold_dequantised_constants(graph: ir.Graph) -> None:
    """Run each DequantizeLinear of a constant that no integer operator took."""
    for node in list(graph):
        found = behind(node.outputs[0])
        codes = None if found is None else constant(found.codes)
        if found is None or codes is None:
            continue
        real = dequantise(
            codes, _spread(found, found.scale, codes.ndim), _spread(found, found.zero_point, codes.ndim)
        )
        _become_constant(node.outputs[0], real)


def _spread(found: Quantisation, values: NDArray[Any], axes: int) -> NDArray[Any]:
    shape = [1] * axes
    if not found.whole:
        shape[found.axis] = -1
    return values if found.whole else values.reshape(shape)


def _become_constant(value: ir.Value, array: NDArray[Any]) -> None:
    node = value.producer()
    if node is not None and not value.is_graph_output():
        held = add_initializer(graph_of(node), f"{value.name}.constant", array)
        value.replace_all_uses_with(held, replace_graph_outputs=False)


def quantiser_of(node: ir.Node) -> Quantisation | None:
    """The QuantizeLinear that alone reads a node."""
    readers = tuple(node.outputs[0].uses())
    return writes(readers[0].node) if len(readers) == 1 and not node.outputs[0].is_graph_output() else None


def replace_output(old: ir.Node, new: ir.Value) -> None:
    """Let `new` take the place and the name of a node's output."""
    value = old.outputs[0]
    name, new.shape = value.name, value.shape if new.shape is None else new.shape
    replace_value(value, new)
    value.name = f"{name}.float"
    new.name = name
    new.meta.clear()


def plain_attributes(node: ir.Node) -> dict[str, Any]:
    """The attributes of a node as plain values."""
    return {name: found.value for name, found in node.attributes.items()}


def emit_codes(
    node: ir.Node,
    target: Quantisation,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    *,
    domain: str = MICROSOFT,
) -> None:
    """Put an integer operator in the place of the QuantizeLinear that ends a group; the node's name stays."""
    result = emit(
        target.node, op_type, inputs, attributes, name=node.name or op_type, output=f"{target.codes.name}.codes",
        dtype=target.codes.dtype, domain=domain,
    )  # fmt: skip
    replace_output(target.node, result)
