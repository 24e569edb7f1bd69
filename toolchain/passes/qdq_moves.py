"""Q/DQ models: operators that move codes, and functions of one code.

Moving and looking up are exact in float and on codes alike, so that none of these rules changes a bit; they
bring the codes to where the integer products can take them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ..codes import dequantise, quantise
from ..float_ops import FLOAT_OPERATORS
from ..graph import add_initializer, constant, emit, graph_of, replace_value
from .qdq_groups import (
    Quantisation,
    behind,
    emit_codes,
    plain_attributes,
    quantiser_of,
    refusal,
    replace_output,
    writes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["DROPPED", "lower_function", "lower_movement", "lower_requantisation", "quantise_earlier"]

PROPAGATED = frozenset({"MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Movements across which onnxruntime carries a QuantizeLinear backwards and a DequantizeLinear forwards."""
DROPPED = PROPAGATED | {"Flatten"}
"""Movements that it runs on codes where these are the same on both sides."""


def quantise_earlier(graph: ir.Graph) -> None:
    """Movement -> QuantizeLinear becomes QuantizeLinear -> movement, where nothing else reads the movement."""
    for quantiser in reversed(list(graph)):
        while (found := writes(quantiser)) is not None and found.whole and quantiser.inputs[0] is not None:
            mover = quantiser.inputs[0].producer()
            alone = len(tuple(quantiser.inputs[0].uses())) == 1 and not quantiser.inputs[0].is_graph_output()
            if mover is None or mover.op_type not in PROPAGATED or not alone or mover.inputs[0] is None:
                break
            if behind(mover.inputs[0]) is not None or len(mover.outputs) > 1:
                break
            source = mover.inputs[0]
            early = emit(
                mover, "QuantizeLinear", [source, *found.parameters()],
                name=f"{quantiser.name}.early", output=f"{source.name}.codes", dtype=found.codes.dtype,
            )  # fmt: skip
            early.shape = source.shape
            replace_output(quantiser, _moved(mover, early))
            producer = early.producer()
            if producer is None:
                break
            quantiser = producer


def _moved(mover: ir.Node, codes: ir.Value) -> ir.Value:
    """The same movement of codes instead of floats."""
    attributes = {name: found.value for name, found in mover.attributes.items()}
    result = emit(
        mover, mover.op_type, [codes, *mover.inputs[1:]], attributes,
        name=f"{mover.name}.codes", output=f"{mover.outputs[0].name}.codes", dtype=codes.dtype,
    )  # fmt: skip
    result.shape = mover.outputs[0].shape
    return result


def lower_movement(node: ir.Node) -> None:
    """DequantizeLinear -> movement becomes movement -> DequantizeLinear."""
    source = behind(node.inputs[0])
    if source is None or not source.whole or not float(source.scale) > 0 or len(node.outputs) > 1:
        return
    target = quantiser_of(node)
    if node.op_type not in PROPAGATED and target is None:
        return
    held = constant(source.codes)
    if held is not None:
        return
    moved = _moved(node, source.codes)
    if target is not None and target.same_as(source):
        replace_output(target.node, moved)
        return
    real = emit(
        node, "DequantizeLinear", [moved, *source.parameters()],
        name=f"{node.name}.real", output=f"{node.outputs[0].name}.real", dtype=ir.DataType.FLOAT,
    )  # fmt: skip
    replace_output(node, real)


def lower_function(node: ir.Node) -> None:
    """DequantizeLinear -> Relu, Clip or LeakyRelu -> QuantizeLinear becomes a table of 256 codes."""
    source, target = behind(node.inputs[0]), quantiser_of(node)
    others = [constant(value) for value in node.inputs[1:]]
    given = [value is not None for value in node.inputs[1:]]
    if source is None or target is None or not source.is_uint8 or not target.is_uint8:
        return
    if any(there and other is None for there, other in zip(given, others, strict=True)):
        return
    attributes = plain_attributes(node)

    def apply(real: NDArray[np.float32]) -> NDArray[Any]:
        return FLOAT_OPERATORS[node.op_type]((real, *others), attributes, 1)[0]

    _write_table(node, source, target, apply)


def lower_requantisation(node: ir.Node) -> None:
    """DequantizeLinear -> QuantizeLinear: nothing where both are the same, else a table."""
    source, target = behind(node.inputs[0]), writes(node)
    if source is None or target is None or constant(source.codes) is not None:
        return
    if target.same_as(source) and source.whole:
        replace_value(target.codes, source.codes)
        return
    maker = source.codes.producer()
    if maker is not None and maker.op_type == "QuantizeLinear":
        raise refusal(
            node, "it requantises codes that were quantised with another scale just before; onnxruntime merges the "
            "two into a third scale; remove one of them from the model",
        )  # fmt: skip
    if source.is_uint8 and target.is_uint8:
        _write_table(node, source, target, lambda real: real)


def _write_table(
    node: ir.Node,
    source: Quantisation,
    target: Quantisation,
    function: Callable[[NDArray[np.float32]], NDArray[Any]],
) -> None:
    codes = np.arange(256).astype(np.uint8)
    real = function(dequantise(codes, source.scale, source.zero_point))
    table = quantise(real, target.scale, target.zero_point)
    name = node.name or str(target.codes.name)
    index = emit(
        target.node, "Cast", [source.codes], {"to": int(ir.DataType.INT32)},
        name=f"{name}.index", output=f"{name}.index", dtype=ir.DataType.INT32,
    )  # fmt: skip
    held = add_initializer(graph_of(node), f"{name}.table", table)
    emit_codes(node, target, "Gather", [held, index], {}, domain="")
