"""Reduce the exporter's glue to constants and fixed shapes."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer
from onnxscript.rewriter import RewriteRuleSet, rewrite
from onnxscript.rewriter.rules.common import materialize_reshape_shape_rule

from ...errors import ModelError
from ..graph import replace_value

__all__ = ["FoldConstantsPass"]

_NO_LIMIT = 1 << 31
_KEPT = frozenset({"QuantizeLinear", "DequantizeLinear"})
# What makes large tensors of small ones; folded only where its shape is known beforehand.
_GROWING = frozenset(
    {
        "CenterCropPad",
        "ConstantOfShape",
        "Expand",
        "EyeLike",
        "OneHot",
        "Pad",
        "Range",
        "Resize",
        "Tile",
        "Upsample",
    }
)
_MOST_VALUES = 1 << 24
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


def _is_folded(node: ir.Node) -> bool:
    """Whether a node of constants is computed: not where a few numbers promise a tensor that no model holds."""
    if node.op_type in _KEPT:
        return False
    shapes = [value.shape for value in node.outputs]
    if any(shape is None or not shape.is_static() for shape in shapes):
        return node.op_type not in _GROWING
    return all(math.prod(shape.numpy()) <= _MOST_VALUES for shape in shapes if shape is not None)


def _fold(model: ir.Model) -> None:
    """Compute what is constant.

    Raises:
        ModelError: The operands of a node do not fit it.
    """
    try:
        optimizer.fold_constants_ir(
            model,
            onnx_shape_inference=True,
            input_size_limit=_NO_LIMIT,
            output_size_limit=_NO_LIMIT,
            should_fold=_is_folded,
        )
    except (RuntimeError, ValueError, TypeError) as error:  # as NumPy and the reference evaluator have it
        reason = " ".join(str(error).split())
        raise ModelError(f"the model's constants cannot be computed: {reason}") from None


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
        try:
            common.InlinePass()(model)
        except ValueError as error:
            raise ModelError(
                f"the model's functions cannot be put in place of their calls: {error}"
            ) from None
        common.ShapeInferencePass()(model)
        _fold(model)
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        modified = _drop_inference_identities(model)
        common.ShapeInferencePass()(model)
        rewrite(model, pattern_rewrite_rules=RewriteRuleSet([materialize_reshape_shape_rule]))
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        common.RemoveUnusedNodesPass()(model)
        common.ShapeInferencePass()(model)
        return ir.passes.PassResult(model, modified or len(model.graph) != before)
