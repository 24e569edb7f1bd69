"""Types and shapes behind operators of `com.microsoft`, which ONNX's shape inference does not know.

Inference stops at an operator without a schema, and all tensors after it stay without a shape. So it is run on
a stand-in of the graph in which each such node is the `ai.onnx` operator with the same rule for shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import helper

from .contrib import DOMAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from onnx import NodeProto

__all__ = ["infer_types"]


def infer_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the types and shapes of all tensors that can be inferred, as its `value_info`.

    Raises:
        InferenceError: The model contradicts itself.
    """
    if all(node.domain != DOMAIN for node in model.graph.node):
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    stand_in = onnx.ModelProto()
    stand_in.CopyFrom(model)
    del stand_in.graph.node[:]
    for node in model.graph.node:
        rule = _STAND_INS.get(node.op_type) if node.domain == DOMAIN else None
        stand_in.graph.node.append(node if rule is None else rule(node))
    inferred = onnx.shape_inference.infer_shapes(stand_in, data_prop=True)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.value_info[:]
    result.graph.value_info.extend(inferred.graph.value_info)
    return result


def _same(op_type: str, data: tuple[int, ...], *attributes: str) -> Callable[[NodeProto], NodeProto]:
    """A node of `op_type` on the inputs at `data`, with those of the named attributes that are there."""

    def rule(node: NodeProto) -> NodeProto:
        if len(node.input) <= max(data, default=0):
            return node
        found = helper.make_node(op_type, [node.input[index] for index in data], list(node.output[:1]))
        found.attribute.extend(attribute for attribute in node.attribute if attribute.name in attributes)
        return found

    return rule


def _concat(node: NodeProto) -> NodeProto:
    return _same("Concat", tuple(range(2, len(node.input), 3)), "axis")(node)


_WINDOW = ("auto_pad", "ceil_mode", "kernel_shape", "pads", "strides")
_STAND_INS: Mapping[str, Callable[[NodeProto], NodeProto]] = {
    "QGemm": _same("Gemm", (0, 3), "transA", "transB"),
    "QLinearAdd": _same("Add", (0, 3)),
    "QLinearAveragePool": _same("MaxPool", (0,), *_WINDOW),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _same("GlobalAveragePool", (0,)),
    "QLinearLeakyRelu": _same("Identity", (0,)),
}
