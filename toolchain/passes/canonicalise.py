"""Bring the accepted spellings of each layer to one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ...errors import ModelError, UnsupportedError
from ..graph import (
    add_initializer,
    attribute,
    check_finite,
    constant,
    emit,
    graph_of,
    real_consumers,
    replace_value,
    static_shape,
)
from .affine import affine_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["SUPPORTED_OPS", "TAIL_OPS", "CanonicalisePass", "tail_nodes"]

SUPPORTED_OPS = (
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "Div", "Dropout", "Flatten", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "Identity", "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "ReduceMean",
    "Relu", "Reshape", "Squeeze", "Sub", "Transpose", "Unsqueeze",
)  # fmt: skip
"""What a float model may be made of, constants and shape arithmetic aside."""

TAIL_OPS = ("ArgMax", "Cast", "LogSoftmax", "Sigmoid", "Softmax")
"""What may follow the logits; it stays in float, as it is."""


def tail_nodes(model: ir.Model) -> set[ir.Node]:
    """Return the nodes behind the logits: those from which only `TAIL_OPS` lead to the outputs."""
    tail: set[ir.Node] = set()
    for node in reversed(model.graph):
        if node.domain == "" and node.op_type in TAIL_OPS:
            readers = [reader for output in node.outputs for reader in real_consumers(output)]
            if all(reader in tail for reader in readers):
                tail.add(node)
    return tail


def _refuse(node: ir.Node, reason: str) -> UnsupportedError:
    return UnsupportedError(f"node '{node.name or node.outputs[0].name}' ({node.op_type}): {reason}")


def _spatial_rank(node: ir.Node) -> int:
    value = node.inputs[0]
    shape = static_shape(value) if value is not None else None
    if shape is None:
        raise _refuse(
            node, "the shape of its input is not known; export with fixed dimensions apart from the batch"
        )
    if len(shape) not in (3, 4):
        raise _refuse(
            node, f"its input has {len(shape)} dimensions; 1-D and 2-D layers (3 and 4) are supported"
        )
    if any(d is None for d in shape[1:]):
        raise _refuse(node, f"its input has free dimensions {shape}; only the batch may be free")
    return len(shape) - 2


def _explicit_windows(node: ir.Node) -> bool:
    """Write kernel_shape, strides, dilations and pads out; resolve auto_pad."""
    rank = _spatial_rank(node)
    weights = constant(node.inputs[1]) if node.op_type == "Conv" else None
    kernel = weights.shape[2:] if weights is not None else attribute(node, "kernel_shape")
    if node.op_type == "Conv" and weights is None:
        raise _refuse(node, "its weights are not constant")
    strides = tuple(attribute(node, "strides", (1,) * rank))
    dilations = tuple(attribute(node, "dilations", (1,) * rank))
    pads = tuple(attribute(node, "pads", (0,) * (2 * rank)))
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        size = [int(d) for d in (static_shape(node.inputs[0]) or ())[2:]]  # type: ignore[arg-type]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(size, strides, reach, strict=True)]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        pads = (*small, *large) if auto == "SAME_UPPER" else (*large, *small)
    elif auto == "VALID":
        pads = (0,) * (2 * rank)
    if any(p < 0 for p in pads):
        raise _refuse(node, f"negative pads {pads}")
    wanted = {"kernel_shape": tuple(kernel), "strides": strides, "dilations": dilations, "pads": pads}
    changed = "auto_pad" in node.attributes
    node.attributes.pop("auto_pad", None)
    for name, value in wanted.items():
        changed |= attribute(node, name) != value
        node.attributes[name] = ir.AttrInt64s(name, value)
    return changed


def _dense(node: ir.Node) -> bool:
    """Gemm and MatMul -> Gemm(x, W (K, N), b (N,)) with alpha = beta = 1 and no transposition."""
    x, w = node.inputs[0], node.inputs[1]
    weights = constant(w)
    shape = static_shape(x) if x is not None else None
    if weights is None or x is None:
        raise _refuse(
            node, "its right operand is not constant; products of two activations are not supported"
        )
    if weights.ndim != 2 or (shape is not None and len(shape) != 2):
        raise _refuse(node, f"operands of shapes {shape} and {weights.shape}; expected (N, K) and (K, M)")
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        raise _refuse(node, "transA is set")
    transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    alpha = float(attribute(node, "alpha", 1.0)) if node.op_type == "Gemm" else 1.0
    beta = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if len(node.inputs) > 2 and node.inputs[2] is not None and bias is None:
        raise _refuse(node, "its bias is not constant")
    if (
        node.op_type == "Gemm"
        and not transposed
        and alpha == beta == 1.0
        and (bias is None or bias.ndim == 1)
    ):
        return False
    layer = node.name or ""
    new_weights = (alpha * (weights.T if transposed else weights).astype(np.float64)).astype(np.float32)
    inputs: list[ir.Value | None] = [x, add_initializer(graph_of(node), f"{layer}.weight", new_weights)]
    if bias is not None:
        if bias.size not in (1, new_weights.shape[1]):
            raise _refuse(node, f"a bias of shape {bias.shape} for {new_weights.shape[1]} outputs")
        row = np.broadcast_to(beta * bias.astype(np.float64).reshape(-1), (new_weights.shape[1],))
        inputs.append(add_initializer(graph_of(node), f"{layer}.bias", row.astype(np.float32)))
    _replace(node, "Gemm", inputs, {})
    return True


def _replace(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, object]
) -> None:
    """Put a node in the place of another; the output keeps its name, shape and readers."""
    old = node.outputs[0]
    new = emit(
        node, op_type, inputs, attributes, name=node.name or op_type, output="replacement", dtype=old.dtype
    )
    new.shape = old.shape
    name = old.name
    replace_value(old, new)
    graph_of(node).remove(node, safe=True)
    new.name = name


def _spatial_mean(node: ir.Node) -> bool:
    """ReduceMean over all spatial axes -> GlobalAveragePool (and a Flatten where the axes are dropped)."""
    rank = _spatial_rank(node)
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    found = attribute(node, "axes") if axes is None else axes.reshape(-1).tolist()
    wanted = set(range(2, rank + 2))
    if found is None or {int(a) % (rank + 2) for a in found} != wanted:
        raise _refuse(node, f"a mean over axes {found}; only the mean over all spatial axes is supported")
    if attribute(node, "keepdims", 1):
        _replace(node, "GlobalAveragePool", [node.inputs[0]], {})
        return True
    name = node.outputs[0].name or ""
    pooled = emit(
        node, "GlobalAveragePool", [node.inputs[0]], name=node.name or "mean", output=f"{name}.pooled",
        dtype=ir.DataType.FLOAT,
    )  # fmt: skip
    _replace(node, "Flatten", [pooled], {"axis": 1})
    return True


def _global_max(node: ir.Node) -> bool:
    rank = _spatial_rank(node)
    size = [int(d) for d in (static_shape(node.inputs[0]) or ())[2:]]  # type: ignore[arg-type]
    windows = {"kernel_shape": size, "strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank}
    _replace(node, "MaxPool", [node.inputs[0]], windows)
    return True


def _clip(node: ir.Node) -> bool:
    """Clip with constant limits; Clip(0, infinity) is Relu."""
    limits = []
    for position, default in ((1, -np.inf), (2, np.inf)):
        value = node.inputs[position] if len(node.inputs) > position else None
        limit = constant(value)
        if value is not None and limit is None:
            raise _refuse(node, "its limits are not constant")
        limits.append(default if limit is None else float(limit.reshape(())))
    if limits[0] > limits[1]:
        raise _refuse(node, f"its lower limit {limits[0]:g} is above its upper limit {limits[1]:g}")
    if limits == [0.0, np.inf]:
        _replace(node, "Relu", [node.inputs[0]], {})
        return True
    return False


def _pad(node: ir.Node) -> bool:
    """Constant zero padding of spatial axes; folded into convolutions where only they read it."""
    mode = attribute(node, "mode", "constant")
    if mode != "constant":
        raise _refuse(node, f"{mode} padding has no integer counterpart in the artifact; use zero padding")
    pads = constant(node.inputs[1])
    fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if pads is None or len(node.inputs) > 3:
        raise _refuse(node, "its pads are not constant, or given for chosen axes only")
    if fill is not None and fill.size and float(fill.reshape(())) != 0.0:
        raise _refuse(node, f"padding with {float(fill.reshape(())):g}; only zero padding is supported")
    rank = len(pads) // 2
    if (pads < 0).any():
        raise _refuse(node, f"negative pads {pads.tolist()}")
    readers = real_consumers(node.outputs[0])
    outside = pads[:2].any() or pads[rank : rank + 2].any()
    if node.outputs[0].is_graph_output() or outside or rank < 3:
        return False
    if not readers or any(r.op_type != "Conv" or r.inputs[0] is not node.outputs[0] for r in readers):
        return False
    extra = [*pads[2:rank], *pads[rank + 2 :]]
    for reader in readers:
        _explicit_windows(reader)
        total = [int(a) + int(b) for a, b in zip(attribute(reader, "pads"), extra, strict=True)]
        reader.attributes["pads"] = ir.AttrInt64s("pads", total)
        reader.replace_input_with(0, node.inputs[0])
    graph_of(node).remove(node, safe=True)
    return True


def _elementwise(node: ir.Node) -> bool:
    """Add of two activations of one shape, or arithmetic with a constant per channel."""
    if affine_of(node) is not None:
        return False
    if node.op_type != "Add":
        raise _refuse(node, "expected a constant operand that is a scalar or one value for each channel")
    shapes = [static_shape(value) for value in node.inputs if value is not None]
    if any(constant(value) is not None for value in node.inputs):
        raise _refuse(node, "its constant operand is neither a scalar nor one value for each channel")
    if len(shapes) != 2 or shapes[0] is None or shapes[1] is None or shapes[0][1:] != shapes[1][1:]:
        raise _refuse(node, f"operands of shapes {shapes}; a residual addition needs equal ones")
    return False


def _batch_norm(node: ir.Node) -> bool:
    if affine_of(node) is None:
        raise _refuse(node, "its parameters are not constant")
    return False


def _constant_operand(node: ir.Node) -> bool:
    if any(constant(value) is None for value in node.inputs[1:] if value is not None):
        raise _refuse(node, "its target shape is computed at run time")
    return False


def _reshape(node: ir.Node) -> bool:
    """Reshape of a sample to one axis -> Flatten, which needs no target for the batch."""
    _constant_operand(node)
    shape = static_shape(node.inputs[0]) if node.inputs[0] is not None else None
    target = constant(node.inputs[1])
    if shape is None or target is None or len(target) != 2 or any(d is None for d in shape[1:]):
        return False
    size = int(np.prod([int(d or 0) for d in shape[1:]]))
    if target.tolist() not in ([-1, size], [0, size], [0, -1]):
        return False
    _replace(node, "Flatten", [node.inputs[0]], {"axis": 1})
    return True


def _concat(node: ir.Node) -> bool:
    if any(constant(value) is not None for value in node.inputs):
        raise _refuse(node, "it joins constants to activations")
    if attribute(node, "axis") == 0:
        raise _refuse(node, "it joins along the batch axis")
    return False


def _refuse_empty_windows(node: ir.Node) -> None:
    """With ceil_mode, refuse windows that lie in the padding alone: runtimes and versions disagree on them."""
    if not attribute(node, "ceil_mode", 0):
        return
    size = [int(d or 0) for d in (static_shape(node.inputs[0]) or ())[2:]]  # type: ignore[arg-type]
    names = ("kernel_shape", "strides", "dilations", "pads")
    kernel, strides, dilations, pads = (list(attribute(node, name)) for name in names)
    for axis, n in enumerate(size):
        begin, end = pads[axis], pads[len(size) + axis]
        steps = -(-(n + begin + end - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis])
        if steps * strides[axis] >= n + begin:
            raise _refuse(
                node, f"with ceil_mode its last window on spatial axis {axis} lies in the padding alone"
            )


def _average_pool(node: ir.Node) -> bool:
    if node.inputs[0] is None:
        raise _refuse(node, "it has no input")
    changed = _explicit_windows(node)
    _refuse_empty_windows(node)
    return changed


def _max_pool(node: ir.Node) -> bool:
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise _refuse(node, "its second output (indices) is used")
    changed = _explicit_windows(node)
    _refuse_empty_windows(node)
    return changed


def _conv(node: ir.Node) -> bool:
    if len(node.inputs) > 2 and node.inputs[2] is not None and constant(node.inputs[2]) is None:
        raise _refuse(node, "its bias is not constant")
    return _explicit_windows(node)


def _as_is(_: ir.Node) -> bool:
    return False


_RULES: dict[str, Callable[[ir.Node], bool]] = {
    "Add": _elementwise,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _elementwise,
    "Flatten": _as_is,
    "Gemm": _dense,
    "GlobalAveragePool": _as_is,
    "GlobalMaxPool": _global_max,
    "LeakyRelu": _as_is,
    "MatMul": _dense,
    "MaxPool": _max_pool,
    "Mul": _elementwise,
    "Pad": _pad,
    "ReduceMean": _spatial_mean,
    "Relu": _as_is,
    "Reshape": _reshape,
    "Squeeze": _constant_operand,
    "Sub": _elementwise,
    "Transpose": _as_is,
    "Unsqueeze": _constant_operand,
}


class CanonicalisePass(ir.passes.InPlacePass):
    """Rewrite every layer into the one form that the later passes know, or refuse it.

    1. Gemm and MatMul with constant weights become Gemm(x, W, b) without transposition or factors.
    2. Windows are explicit: kernel, strides, dilations and pads are written out, auto_pad is resolved.
    3. A mean over all spatial axes becomes GlobalAveragePool; GlobalMaxPool becomes MaxPool.
    4. Clip(0, infinity) becomes Relu.
    5. Zero padding read by convolutions alone moves into their pads.

    Refused, naming node, operator and reason: operators outside `SUPPORTED_OPS` (and `TAIL_OPS` behind the
    logits), weights or shapes that are not constant, reflect and replicate padding, products of two
    activations, NaN or infinite weights, several inputs.
    """

    def requires(self, model: ir.Model) -> None:
        """Refuse models that are not single-input float32 classifiers."""
        if len(model.graph.inputs) != 1:
            names = ", ".join(str(v.name) for v in model.graph.inputs)
            raise ModelError(
                f"the model has {len(model.graph.inputs)} inputs ({names}), expected one: the image"
            )
        pixels = model.graph.inputs[0]
        if pixels.dtype != ir.DataType.FLOAT:
            raise ModelError(
                f"input '{pixels.name}' has type {pixels.dtype}, expected float32 pixels in [0, 1]; "
                "integer models are run, not compiled"
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Apply the rule of each operator, in graph order."""
        tail = tail_nodes(model)
        modified = False
        for node in list(model.graph):
            if node in tail:
                continue
            rule = _RULES.get(node.op_type) if node.domain == "" else None
            if rule is None:
                raise _refuse(node, f"not supported; supported are {', '.join(SUPPORTED_OPS)}")
            if node.op_type in ("Conv", "Gemm", "MatMul"):
                for kind, value in zip(("weight", "bias"), node.inputs[1:3], strict=False):
                    array = constant(value)
                    if array is not None:
                        check_finite(node.name or node.op_type, kind, array)
            modified |= rule(node)
        common.RemoveUnusedNodesPass()(model)
        common.ShapeInferencePass()(model)
        return ir.passes.PassResult(model, modified)
