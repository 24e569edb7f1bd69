"""Fold batch norms, and other maps y = a x + b per channel, into the layer before them.

    W'[o, ...] = a[o] W[o, ...]          b'[o] = a[o] b[o] + s[o]

with a = gamma / sqrt(var + epsilon) and s = beta - a mean, computed in float64 and rounded once to float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ...errors import ModelError
from ..graph import add_initializer, constant, emit, graph_of, note, replace_value
from .affine import Affine, affine_chain, affine_of
from .canonicalise import tail_nodes

__all__ = ["FoldBatchNormPass", "set_weights"]


def set_weights(node: ir.Node, weights: np.ndarray, bias: np.ndarray | None) -> None:
    """Give a Conv or Gemm new weights and bias, rounded to float32.

    Raises:
        ModelError: A folded value is beyond float32.
    """
    layer, graph = node.name or node.op_type, graph_of(node)
    with np.errstate(over="ignore"):
        rounded = weights.astype(np.float32)
        rounded_bias = None if bias is None else bias.astype(np.float32)
    if not np.isfinite(rounded).all() or (rounded_bias is not None and not np.isfinite(rounded_bias).all()):
        raise ModelError(f"layer '{layer}': its weights pass the float32 range once batch norms are folded")
    node.replace_input_with(1, add_initializer(graph, f"{layer}.weight", rounded))
    if rounded_bias is not None:
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, add_initializer(graph, f"{layer}.bias", rounded_bias))


class FoldBatchNormPass(ir.passes.InPlacePass):
    """Fold affine maps per channel.

    1. A chain of batch norms and arithmetic with constants that alone reads a convolution or dense layer is
       folded into that layer's weights and bias.
    2. Any other chain becomes one BatchNormalization with mean 0, variance 1 and epsilon 0, which the
       lowering turns into a multiplier and an integer bias for each channel.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Apply rule 1 to every layer with weights, then rule 2 to what is left."""
        modified = False
        for node in list(model.graph):
            if node.op_type in ("Conv", "Gemm") and node.domain == "":
                modified |= _fold_into(model, node)
        tail = tail_nodes(model)
        for node in list(model.graph):
            if node.graph is not None and node not in tail:
                modified |= _merge_chain(model, node)
        common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified)


def _fold_into(model: ir.Model, node: ir.Node) -> bool:
    chain, affine = affine_chain(node.outputs[0])
    weights = constant(node.inputs[1])
    if affine is None or weights is None:
        return False
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    channel_axis = 0 if node.op_type == "Conv" else 1
    shape = [1] * weights.ndim
    shape[channel_axis] = -1
    old_bias = 0.0 if bias is None else bias.astype(np.float64)
    set_weights(
        node,
        weights.astype(np.float64) * affine.scale.reshape(shape),
        affine.scale * old_bias + affine.shift,
    )
    last = chain[-1].outputs[0]
    name, shape_of_last = last.name, last.shape
    replace_value(last, node.outputs[0])
    for folded in reversed(chain):
        model.graph.remove(folded, safe=True)
    node.outputs[0].name, node.outputs[0].shape = name, shape_of_last
    note(model, f"layer '{node.name}': folded {', '.join(n.op_type for n in chain)} into its weights")
    return True


def _merge_chain(model: ir.Model, first: ir.Node) -> bool:
    found = affine_of(first)
    if found is None:
        return False
    value, affine = found
    rest, more = affine_chain(first.outputs[0])
    total = affine if more is None else affine.then(more)
    if not rest and first.op_type == "BatchNormalization" and constant(first.inputs[3]) is not None:
        mean, variance = constant(first.inputs[3]), constant(first.inputs[4])
        if mean is not None and variance is not None and not mean.any() and (variance == 1).all():
            return False
    last = (rest or [first])[-1].outputs[0]
    merged = _batch_norm_node(first, value, total)
    name, shape = last.name, last.shape
    replace_value(last, merged)
    for node in (*reversed(rest), first):
        model.graph.remove(node, safe=True)
    merged.name, merged.shape = name, shape
    return True


def _batch_norm_node(anchor: ir.Node, value: ir.Value, affine: Affine) -> ir.Value:
    graph, layer = graph_of(anchor), anchor.name or "batch_norm"
    zeros = np.zeros(len(affine.scale), np.float32)
    parameters = {
        "scale": affine.scale.astype(np.float32),
        "shift": affine.shift.astype(np.float32),
        "zero": zeros,
        "one": zeros + 1,
    }
    inputs = [
        value,
        *(add_initializer(graph, f"{layer}.{name}", array) for name, array in parameters.items()),
    ]
    return emit(
        anchor, "BatchNormalization", inputs, {"epsilon": 0.0}, name=layer, output=f"{layer}.merged",
        dtype=ir.DataType.FLOAT,
    )  # fmt: skip
