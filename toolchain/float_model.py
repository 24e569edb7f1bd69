"""Float models made by others, brought to the form that the passes expect."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnx_ir.passes import common

from ..errors import ModelError
from .graph import add_initializer, attribute, constant

__all__ = ["IR_VERSION", "OPSET", "prepare_float_model"]

OPSET = 21
IR_VERSION = 10
_OLDEST_OPSET = 7
_LONGEST_REASON = 200
# For one image; the largest tensor of a network for ImageNet has a twentieth of it.
_MOST_VALUES = 1 << 26


def prepare_float_model(model: ir.Model) -> None:
    """Bring a float model made by others to opset 21 and IR 10, with a free batch dimension, in place.

    Raises:
        ModelError: The model's opset is too old, or onnx cannot convert it.
    """
    import onnx

    version = model.opset_imports.get("")
    if version is None or version < _OLDEST_OPSET:
        raise ModelError(f"the model uses opset {version} of ai.onnx, expected 7 or newer")
    if version != OPSET:
        common.RemoveInitializersFromInputsPass()(model)
        try:
            converted = onnx.version_converter.convert_version(ir.to_proto(model), OPSET)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines() or ["unknown"]
            raise ModelError(
                f"onnx cannot convert the model from opset {version} to {OPSET}: {reason[0]}"
            ) from None
        model.graph = ir.from_proto(converted).graph
    common.RemoveInitializersFromInputsPass()(model)
    model.ir_version = IR_VERSION
    for key in [key for key in model.metadata_props if key.startswith("ohmfold.")]:
        del model.metadata_props[key]
    _free_batch(model)
    _check_shapes(model)


def _check_shapes(model: ir.Model) -> None:
    """Refuse operands that do not fit together, which the passes rely on, and tensors past all measure.

    Raises:
        ModelError: ONNX's shape inference finds a contradiction, or a tensor has too many values for one image.
    """
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(ir.to_proto(model), check_type=True, strict_mode=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ModelError(f"the model contradicts itself: {reason}; check it with onnx.checker") from None
    for node in model.graph:  # which shape inference does not look at
        bias = constant(node.inputs[2]) if node.op_type == "Conv" and len(node.inputs) > 2 else None
        weights = constant(node.inputs[1]) if bias is not None else None
        if bias is not None and weights is not None and bias.shape != weights.shape[:1]:
            raise ModelError(
                f"node {node.name!r:.99} (Conv): its bias is of shape {bias.shape}, its weights of {weights.shape}; "
                "expected one bias for each output channel"
            )
    for value in inferred.graph.value_info:
        dims = value.type.tensor_type.shape.dim
        count = math.prod(dim.dim_value for dim in dims if dim.HasField("dim_value"))
        if count > _MOST_VALUES:
            raise ModelError(
                f"tensor {value.name!r:.99} has {count} values for one image, expected at most {_MOST_VALUES}"
            )


def _free_batch(model: ir.Model) -> None:
    """Make the batch dimension of a model that was exported for one batch size free."""
    graph = model.graph
    if len(graph.inputs) != 1 or graph.inputs[0].shape is None or len(graph.inputs[0].shape) < 2:
        return
    fixed = graph.inputs[0].shape[0]
    graph.inputs[0].shape = ir.Shape(["N", *list(graph.inputs[0].shape)[1:]])
    if not isinstance(fixed, int):
        return
    for node in graph:
        for value in node.outputs:
            value.shape = None
        target = node.inputs[1] if node.op_type == "Reshape" else None
        if target is not None and target.const_value is not None:
            sizes = target.const_value.numpy().copy()
            if sizes.size and sizes[0] == fixed and not attribute(node, "allowzero", 0):
                sizes[0] = 0  # "as in the input"
                node.replace_input_with(1, add_initializer(graph, f"{target.name}.free_batch", sizes))
    for value in graph.outputs:
        value.shape = None
