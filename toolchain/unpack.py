"""Packed weights made whole: the operators on constants that unpack bits are computed once, in NumPy.

A reader of models needs weights, not the way to them (see `targets.packed` for that). Only the operators of such
unpacking are computed, and only where all of their inputs are constant; everything else stays as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from .graph import constant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    Arrays = list[NDArray[Any]]

__all__ = ["BIT_OPERATORS", "unpack_weights"]

BIT_OPERATORS = frozenset({"BitShift", "BitwiseAnd", "BitwiseOr"})
"""What a model that unpacks weights has, and no other that is read here."""

_MOST_VALUES = 1 << 31


def unpack_weights(model: ir.Model) -> None:
    """Replace the unpacking of weights by the weights, in place.

    Raises:
        ModelError: A node's operands do not fit together.
    """
    graph = model.graph
    for node in list(graph):
        compute = _OPERATORS.get(node.op_type) if node.domain == "" and len(node.outputs) == 1 else None
        found = [constant(value) for value in node.inputs]
        operands = [array for array in found if array is not None]
        if compute is None or len(operands) < len(found):
            continue
        attributes = {key: attribute.value for key, attribute in node.attributes.items()}
        try:
            _check_size(node, operands)
            result = np.ascontiguousarray(compute(operands, attributes))
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise ModelError(
                f"node '{node.name}' ({node.op_type}): its constant operands do not fit: {error}"
            ) from error
        _replace(graph, node, result)


def _check_size(node: ir.Node, operands: Arrays) -> None:
    """Refuse operands that would be broadcast to more than a model can hold."""
    if node.op_type in BIT_OPERATORS:
        shape = np.broadcast_shapes(*(array.shape for array in operands))
    elif node.op_type == "Gather":
        shape = (*operands[1].shape, *operands[0].shape[1:])
    else:
        shape = operands[0].shape
    if math.prod(shape) >= _MOST_VALUES:
        raise ValueError(f"the result would have {math.prod(shape)} values")


def _replace(graph: ir.Graph, node: ir.Node, result: NDArray[Any]) -> None:
    """Let an initialiser of the same name stand for a node's output."""
    import onnx_ir as ir

    old = node.outputs[0]
    tensor = ir.tensor(result, name=old.name)
    value = ir.Value(
        name=old.name, shape=ir.Shape(result.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    sources = [source for source in node.inputs if source is not None]
    graph.remove(node, safe=True)
    graph.register_initializer(value)
    for source in sources:
        unused = not source.uses() and not source.is_graph_output() and not source.is_graph_input()
        if unused:
            graph.initializers.pop(str(source.name), None)


def _bit_shift(operands: Arrays, attributes: Mapping[str, Any]) -> NDArray[Any]:
    values, places = operands
    if values.dtype.kind != "u" or values.dtype != places.dtype or (places >= 8 * values.itemsize).any():
        raise ValueError(f"a shift of {values.dtype} by {places.dtype}, or by more bits than there are")
    shift = {"LEFT": np.left_shift, "RIGHT": np.right_shift}[str(attributes["direction"])]
    result: NDArray[Any] = shift(values, places)
    return result


def _cast(operands: Arrays, attributes: Mapping[str, Any]) -> NDArray[Any]:
    import onnx_ir as ir

    target = ir.DataType(int(attributes["to"])).numpy()
    if operands[0].dtype.kind not in "iu" or target.kind not in "iu":
        raise ValueError(f"a cast of {operands[0].dtype} to {target}, expected integers")
    return operands[0].astype(target)


def _gather(operands: Arrays, attributes: Mapping[str, Any]) -> NDArray[Any]:
    if int(attributes.get("axis", 0)) != 0 or not operands[0].ndim:
        raise ValueError("it gathers along another axis than the first")
    return operands[0][operands[1]]


def _reshape(operands: Arrays, attributes: Mapping[str, Any]) -> NDArray[Any]:
    values, shape = operands
    sizes = [int(size) for size in shape]
    if not int(attributes.get("allowzero", 0)):
        sizes = [values.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return values.reshape(sizes)


def _slice(operands: Arrays, attributes: Mapping[str, Any]) -> NDArray[Any]:
    del attributes
    values, starts, ends = operands
    if starts.size != 1 or ends.size != 1:
        raise ValueError("it cuts several axes")
    return values[int(starts.reshape(-1)[0]) : int(ends.reshape(-1)[0])]


def _bitwise(function: Callable[..., Any]) -> Callable[[Arrays, Mapping[str, Any]], NDArray[Any]]:
    def compute(operands: Arrays, attributes: Mapping[str, Any]) -> NDArray[Any]:
        del attributes
        first, second = operands
        if first.dtype != second.dtype:
            raise ValueError(f"operands of {first.dtype} and {second.dtype}")
        result: NDArray[Any] = function(first, second)
        return result

    return compute


_OPERATORS: Mapping[str, Callable[[Arrays, Mapping[str, Any]], NDArray[Any]]] = {
    "BitShift": _bit_shift,
    "BitwiseAnd": _bitwise(np.bitwise_and),
    "BitwiseOr": _bitwise(np.bitwise_or),
    "Cast": _cast,
    "Gather": _gather,
    "Reshape": _reshape,
    "Slice": _slice,
}
