"""Reduce the exporter's glue to constants and fixed shapes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer
from onnxscript.rewriter import RewriteRuleSet, rewrite
from onnxscript.rewriter.rules.common import materialize_reshape_shape_rule

from ..graph import replace_value

__all__ = ["FoldConstantsPass"]

_NO_LIMIT = 1 << 31
_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear"})
_DROPPED_AT_INFERENCE = ("Dropout", "Identity")


def _drop_inference_identities(model: ir.Model) -> bool:
    """Let the readers of Dropout and Identity read their input; an output keeps its name through its producer."""
    modified = False
    for node in list(model.graph):
        if node.domain == "" and node.op_type in _DROPPED_AT_INFERENCE and node.inputs[0] is not None:
            source, result = node.inputs[0], node.outputs[0]
            if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
                continue
            if result.is_graph_output() and (source.producer() is None or source.is_graph_output()):
                continue
            name = result.name if result.is_graph_output() else None
            replace_value(result, source)
            model.graph.remove(node, safe=True)
            if name is not None:
                source.name = name
            modified = True
    return modified


class FoldConstantsPass(ir.passes.InPlacePass):
    """Fold constants, lift them to initializers and fix what shapes are known.

    1. Functions are inlined; nodes whose inputs are all constant become constants, of any size.
    2. Constants become initializers; Dropout and Identity disappear.
    3. A Reshape whose target is computed from the batch size gets a constant target with -1 for the batch.
    4. Nodes and initializers that nothing reads are removed; shapes are inferred.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Apply the rules in order."""
        before = len(model.graph)
        common.InlinePass()(model)
        common.ShapeInferencePass()(model)
        optimizer.fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=_NO_LIMIT,
            output_size_limit=_NO_LIMIT,
            should_fold=lambda node: node.op_type not in _KEPT,
        )
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        modified = _drop_inference_identities(model)
        common.ShapeInferencePass()(model)
        rewrite(model, pattern_rewrite_rules=RewriteRuleSet([materialize_reshape_shape_rule]))
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.RemoveUnusedNodesPass()(model)
        common.ShapeInferencePass()(model)
        return ir.passes.PassResult(model, modified or len(model.graph) != before)
