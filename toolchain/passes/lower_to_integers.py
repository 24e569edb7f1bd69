"""Lower the Q/DQ graph to integers: what is left computes in codes, int32 and one float32 product a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ...errors import UnsupportedError
from ..graph import add_initializer, constant, emit, graph_of, note, replace_value, settle_names
from .canonicalise import tail_nodes
from .dataflow import ACTIVATIONS, CORE_OPS, MOVES, Dataflow, activation_limits
from .integer_layers import (
    BUILDERS,
    Codes,
    Context,
    Integers,
    average_windows,
    check_count,
    codes_behind,
    integer_bias,
    stored_weights,
    weight_codes,
    window_attributes,
    window_counts,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["LowerToIntegersPass"]

_KEPT_ATTRIBUTES = {
    "MaxPool": ("kernel_shape", "strides", "pads", "dilations", "ceil_mode"),
    "Concat": ("axis",),
    "Flatten": ("axis",),
    "Reshape": ("allowzero",),
    "Split": ("axis", "num_outputs"),
    "Transpose": ("perm",),
    "Pad": ("mode",),
}


def _check_pow2(node: ir.Node, multiplier: NDArray[np.float32], context: Context) -> None:
    if context.power_of_two and (np.frexp(np.abs(multiplier))[0] != 0.5).any():
        raise UnsupportedError(
            f"node '{node.name}' ({node.op_type}): its multipliers are not powers of two, so scales = 'pow2' cannot "
            "hold; a batch norm must follow a convolution or dense layer, whose weights can take it"
        )


def _scaled(
    anchor: ir.Node, integers: Integers, multiplier: NDArray[np.float32], name: str, output: str
) -> ir.Value:
    """Emit `float32(acc) * multiplier`."""
    real = emit(
        anchor, "Cast", [integers.value], {"to": int(ir.DataType.FLOAT)}, name=f"{name}.to_float",
        output=f"{name}.float", dtype=ir.DataType.FLOAT,
    )  # fmt: skip
    factor = add_initializer(graph_of(anchor), f"{name}.multiplier", multiplier)
    return emit(anchor, "Mul", [real, factor], name=f"{name}.rescale", output=output, dtype=ir.DataType.FLOAT)


def _requantised(
    anchor: ir.Node, core: ir.Node, integers: Integers, target: Codes, name: str, context: Context
) -> ir.Value:
    """Emit the requantisation of int32 integers to the target's codes: Cast, Mul, QuantizeLinear by 1."""
    multiplier = (integers.unit.astype(np.float64) / np.float64(target.scale)).astype(np.float32)
    _check_pow2(core, multiplier, context)
    layer = core.name or core.op_type
    scaled = _scaled(anchor, integers, multiplier, layer, f"{layer}.scaled")
    graph = graph_of(anchor)
    one = add_initializer(graph, f"{layer}.one", np.ones((), np.float32))
    zero = add_initializer(graph, f"{layer}.output_zero_point", np.asarray(target.zero_point, np.uint8))
    return emit(
        anchor, "QuantizeLinear", [scaled, one, zero], name=f"{layer}.requantise", output=name,
        dtype=ir.DataType.UINT8,
    )  # fmt: skip


def _fused_conv(
    anchor: ir.Node,
    core: ir.Node,
    x: Codes,
    target: Codes,
    name: str,
    codes: NDArray[np.int8],
    step: NDArray[np.float32],
    bias: NDArray[np.int32] | None,
    windows: dict[str, Any],
) -> ir.Value:
    """Emit QLinearConv."""
    graph, layer = graph_of(anchor), core.name or "conv"
    weights, weights_zero = stored_weights(core, codes, layer, step.shape)

    def put(what: str, array: Any) -> ir.Value:
        return add_initializer(graph, f"{layer}.{what}", np.asarray(array))

    operands = [
        x.value, put("input_scale", x.scale), put("input_zero_point", np.uint8(x.zero_point)),
        weights, put("weight_scale", step), weights_zero,
        put("output_scale", target.scale), put("output_zero_point", np.uint8(target.zero_point)),
    ]  # fmt: skip
    if bias is not None:
        operands.append(put("bias_codes", bias))
    return emit(anchor, "QLinearConv", operands, windows, name=layer, output=name, dtype=ir.DataType.UINT8)


def _lower_conv(anchor: ir.Node, core: ir.Node, target: Codes, name: str, context: Context) -> ir.Value:
    x = codes_behind(core.inputs[0])
    if x is None:
        raise UnsupportedError(f"layer '{core.name}' (Conv): its input has no uint8 codes with one scale")
    codes, step, bias = integer_bias(core, *weight_codes(core), x, context)
    return _fused_conv(anchor, core, x, target, name, codes, step, bias, window_attributes(core))


def _lower_average(anchor: ir.Node, core: ir.Node, target: Codes, name: str, context: Context) -> ir.Value:
    """A window of one count everywhere is a depthwise QLinearConv with weights 1 and step 1/count."""
    counts = window_counts(core)
    x = codes_behind(core.inputs[0])
    if x is None or (counts != counts.flat[0]).any():
        return _lower_core(anchor, core, target, name, context)
    check_count(core, counts, context)
    windows = average_windows(core)
    ones = np.ones((windows["group"], 1, *windows["kernel_shape"]), np.int8)
    step = np.asarray(1 / counts.flat[0], np.float32)
    return _fused_conv(anchor, core, x, target, name, ones, step, None, windows)


def _lower_core(anchor: ir.Node, core: ir.Node, target: Codes, name: str, context: Context) -> ir.Value:
    return _requantised(anchor, core, BUILDERS[core.op_type](core, context), target, name, context)


_FUSED: dict[str, Callable[[ir.Node, ir.Node, Codes, str, Context], ir.Value]] = {
    "AveragePool": _lower_average,
    "Conv": _lower_conv,
}


def _function(node: ir.Node | None) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return the element-wise function of an activation; the identity for none."""
    if node is None:
        return lambda x: x
    if node.op_type == "LeakyRelu":
        alpha = float(node.attributes["alpha"].value) if "alpha" in node.attributes else 0.01
        return lambda x: np.where(x < 0, alpha * x, x)
    lower, upper = activation_limits(node)
    return lambda x: np.clip(x, lower, upper)


def _lower_table(anchor: ir.Node, activation: ir.Node | None, x: Codes, target: Codes, name: str) -> ir.Value:
    """Emit a table of 256 codes: Cast, Gather."""
    real = (np.arange(256) - x.zero_point) * np.float64(x.scale)
    result = np.rint(_function(activation)(real) / np.float64(target.scale)) + target.zero_point
    layer = (activation.name if activation is not None else anchor.name) or name
    table = add_initializer(graph_of(anchor), f"{layer}.table", np.clip(result, 0, 255).astype(np.uint8))
    index = emit(
        anchor, "Cast", [x.value], {"to": int(ir.DataType.INT32)}, name=f"{layer}.index",
        output=f"{layer}.index", dtype=ir.DataType.INT32,
    )  # fmt: skip
    return emit(
        anchor, "Gather", [table, index], {"axis": 0}, name=layer, output=name, dtype=ir.DataType.UINT8
    )


def _lower_move(anchor: ir.Node, node: ir.Node, target: Codes, name: str) -> list[ir.Value]:
    """Emit the same operator on codes; return its outputs."""
    operands: list[ir.Value | None] = []
    for operand in node.inputs:
        codes = codes_behind(operand)
        operands.append(operand if codes is None else codes.value)
    if node.op_type == "Pad":
        fill = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        real = 0.0 if fill is None or fill.size == 0 else float(fill.reshape(()))
        code = np.clip(np.rint(real / np.float64(target.scale)) + target.zero_point, 0, 255).astype(np.uint8)
        value = add_initializer(graph_of(anchor), f"{node.name}.code", np.asarray(code))
        operands = [*operands[:2], value]
    wanted = _KEPT_ATTRIBUTES.get(node.op_type, ())
    attributes = {key: node.attributes[key].value for key in wanted if key in node.attributes}
    names = [name] if len(node.outputs) == 1 else [f"{output.name}.codes" for output in node.outputs]
    first = emit(
        anchor, node.op_type, operands, attributes, name=node.name or name, output=names,
        dtype=ir.DataType.UINT8,
    )  # fmt: skip
    return list(first.producer().outputs)  # type: ignore[union-attr]


class LowerToIntegersPass(ir.passes.InPlacePass):
    """Replace float layers between Q/DQ pairs by integer ones, in the arithmetic of the contract.

    1. Conv -> QLinearConv; Gemm -> MatMulInteger, Add, Cast, Mul, QuantizeLinear by 1.
    2. Add -> an int32 sum with integer multipliers, requantised for each reader: for the skip path, and with
       a multiplier and an int32 bias per channel for a batch norm.
    3. AveragePool -> depthwise QLinearConv of ones, or an integer sum with a multiplier per position where
       windows differ; GlobalAveragePool -> ReduceSum in int32.
    4. Relu and Clip disappear into the clamp where they can; other activations become tables of 256 codes.
    5. Pooling by maximum, concatenation, padding and reshaping work on the codes.
    6. The last layer's int32 accumulator becomes logits by one float32 product; a float tail stays.
    7. The input becomes the sensor's uint8 codes (or keeps a QuantizeLinear for `input="float32"`).
    """

    def __init__(self, *, power_of_two: bool = False, float_input: bool = False) -> None:
        super().__init__()
        self.power_of_two = power_of_two
        self.float_input = float_input

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower pair by pair, then the logits."""
        context = Context(model, self.power_of_two, {})
        logits = Dataflow(model).logits
        moved: dict[ir.Node, list[ir.Value]] = {}
        for node in list(model.graph):
            if node.op_type == "QuantizeLinear":
                self._lower_pair(model, node, context, moved)
        if logits:
            _lower_logits(logits, context)
        else:
            note(model, "the last layer's codes are dequantised: there is no accumulator behind the logits")
        common.RemoveUnusedNodesPass()(model)
        self._check(model)
        settle_names(model.graph)
        for value in (v for node in model.graph for v in node.outputs if not v.is_graph_output()):
            value.shape = None
        common.ShapeInferencePass()(model)
        return ir.passes.PassResult(model, modified=True)

    def _lower_pair(
        self, model: ir.Model, quantise: ir.Node, context: Context, moved: dict[ir.Node, list[ir.Value]]
    ) -> None:
        source, old = quantise.inputs[0], quantise.outputs[0]
        scale, zero_point = constant(quantise.inputs[1]), constant(quantise.inputs[2])
        if source is None or scale is None or zero_point is None:
            raise UnsupportedError(
                f"node '{quantise.name}' (QuantizeLinear): its scale or zero point is not constant"
            )
        target = Codes(old, np.float32(scale.reshape(())), int(zero_point.reshape(())))
        producer = source.producer()
        if producer is None:
            if not self.float_input:
                _take_codes(model, source, old)
            return
        name = str(old.name)
        old.name = f"{name}.replaced"
        replace_value(old, self._codes(quantise, producer, source, target, name, context, moved))

    def _codes(
        self,
        anchor: ir.Node,
        producer: ir.Node,
        source: ir.Value,
        target: Codes,
        name: str,
        context: Context,
        moved: dict[ir.Node, list[ir.Value]],
    ) -> ir.Value:
        """Return the codes of what `producer` computes."""
        rescaled = codes_behind(source)
        if rescaled is not None:
            return _lower_table(anchor, None, rescaled, target, name)
        if producer.op_type in MOVES:
            if producer not in moved:
                moved[producer] = _lower_move(anchor, producer, target, name)
            return moved[producer][source.index() or 0]
        core = producer
        if producer.op_type in ACTIVATIONS:
            x = codes_behind(producer.inputs[0])
            if x is not None:
                return _lower_table(anchor, producer, x, target, name)
            core = producer.inputs[0].producer() or producer  # type: ignore[union-attr]
        if core.op_type not in CORE_OPS:
            raise UnsupportedError(f"node '{core.name}' ({core.op_type}): has no integer form")
        return _FUSED.get(core.op_type, _lower_core)(anchor, core, target, name, context)

    def _check(self, model: ir.Model) -> None:
        """Raise if a float layer was left behind."""
        tail = tail_nodes(model)
        for node in model.graph:
            if node not in tail and node.op_type in (
                "Conv",
                "Gemm",
                "MatMul",
                "AveragePool",
                "BatchNormalization",
            ):
                raise UnsupportedError(
                    f"node '{node.name}' ({node.op_type}): could not be lowered to integers"
                )


def _take_codes(model: ir.Model, pixels: ir.Value, codes: ir.Value) -> None:
    """Let the graph's input be the codes themselves."""
    name = pixels.name
    pixels.name = f"{name}.float"
    taken = ir.Value(name=name, type=ir.TensorType(ir.DataType.UINT8), shape=pixels.shape)
    replace_value(codes, taken)
    model.graph.inputs[0] = taken
    for use in list(pixels.uses()):
        model.graph.remove(use.node, safe=True)


def _lower_logits(chain: list[ir.Value], context: Context) -> None:
    """Lower the last layer and its reshapings.

    With one unit for all logits the reshapings work on the integers and one float32 product follows; units
    that differ are multiplied where their axes still are the layer's own.
    """
    core, last = chain[0].producer(), chain[-1]
    end = last.producer()
    if core is None or end is None:
        raise UnsupportedError("the logits are made by no layer")
    integers = BUILDERS[core.op_type](core, context)
    unit = integers.unit.reshape(()) if integers.unit.size == 1 else integers.unit
    multiplier = unit.astype(np.float32)
    _check_pow2(core, multiplier, context)
    name, scope = str(last.name), f"{core.name}.logits"
    last.name = f"{name}.replaced"
    if unit.ndim == 0:
        names = [f"{value.name}.accumulator" for value in chain[1:]]
        value = _reshaped(integers.value, chain[1:], names, ir.DataType.INT32)
        result = _scaled(end, Integers(value, unit, integers.bound), multiplier, scope, name)
    else:
        names = [f"{core.name}.real", *(str(value.name) for value in chain[1:-1]), name][-len(chain) :]
        real = _scaled(core, integers, multiplier, scope, names[0])
        result = _reshaped(real, chain[1:], names[1:], ir.DataType.FLOAT)
    result.shape = last.shape
    replace_value(last, result)


def _reshaped(value: ir.Value, steps: list[ir.Value], names: list[str], dtype: ir.DataType) -> ir.Value:
    """Emit the reshapings that make each of `steps`, on another value."""
    for step, name in zip(steps, names, strict=True):
        node = step.producer()
        if node is None:
            raise UnsupportedError(f"value '{step.name}' is made by no layer")
        attributes = {key: attr.value for key, attr in node.attributes.items()}
        value = emit(
            node,
            node.op_type,
            [value, *node.inputs[1:]],
            attributes,
            name=node.name or name,
            output=name,
            dtype=dtype,
        )
        value.shape = step.shape
    return value
