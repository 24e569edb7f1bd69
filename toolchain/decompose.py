"""QLinearConv written out in elementary operators, for executors whose own QLinearConv has another arithmetic.

ONNX's reference evaluator multiplies the accumulator in float64 and rounds after the zero point is added; ours
and onnxruntime's product is float32, rounded before. They part on ties alone: 3 * float32(1/6) is 0.5 in float32
(code 0) and 0.50000001 in float64 (code 1). Written out, every step is one operator with one meaning:

    ConvInteger -> Add bias -> Cast to float32 -> Mul by float32(float32(s_x s_w) / s_y) -> QuantizeLinear by 1
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["decompose_q_linear_conv"]

_INPUTS = ("x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero", "bias")


def decompose_q_linear_conv(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model with each QLinearConv of constant parameters written out.

    Nodes whose weights have different zero points per channel stay as they are: ConvInteger has none.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for position, node in enumerate(graph.node):
        written = _written_out(node, position, arrays, graph) if node.op_type == "QLinearConv" else None
        nodes.extend([node] if written is None else written)
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def _written_out(
    node: onnx.NodeProto, position: int, arrays: dict[str, np.ndarray], graph: onnx.GraphProto
) -> list[onnx.NodeProto] | None:
    names = dict(zip(_INPUTS, node.input, strict=False))
    constants = {key: arrays.get(name) for key, name in names.items() if key != "x"}
    if any(array is None for array in constants.values()):
        return None
    c = {key: array for key, array in constants.items() if array is not None}
    if (c["w_zero"] != c["w_zero"].flat[0]).any():
        return None
    spatial = c["w"].ndim - 2
    multiplier = (c["x_scale"] * c["w_scale"]).astype(np.float32) / c["y_scale"]
    shape = (1, -1, *(1,) * spatial)
    prefix = f"{node.output[0]}.written_out_{position}"

    def put(what: str, array: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(array, f"{prefix}.{what}"))
        return f"{prefix}.{what}"

    def step(op_type: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(op_type, inputs, [output], **attributes)

    w_zero = put("w_zero", c["w_zero"].reshape(-1)[0])
    product = step("ConvInteger", [names["x"], names["w"], names["x_zero"], w_zero], f"{prefix}.products")
    product.attribute.extend(node.attribute)
    nodes, last = [product], f"{prefix}.products"
    if "bias" in c:
        nodes.append(step("Add", [last, put("bias", c["bias"].reshape(shape))], f"{prefix}.sum"))
        last = f"{prefix}.sum"
    factor = put(
        "multiplier", np.asarray(multiplier, np.float32).reshape(shape if multiplier.size > 1 else ())
    )
    zero = put("y_zero", c["y_zero"].reshape(()))
    return [
        *nodes,
        step("Cast", [last], f"{prefix}.float", to=onnx.TensorProto.FLOAT),
        step("Mul", [f"{prefix}.float", factor], f"{prefix}.scaled"),
        step(
            "QuantizeLinear", [f"{prefix}.scaled", put("one", np.ones((), np.float32)), zero], node.output[0]
        ),
    ]
