"""Q/DQ models: the float operators between QuantizeLinear and DequantizeLinear become integer ones.

A Q/DQ model states integers in float: `DequantizeLinear -> Conv -> QuantizeLinear` stands for QLinearConv. What
runs on hardware, and in onnxruntime from its level `extended` on, is the integer operator; the float operator
differs from it on ties, and its sums have no defined order. This pass puts the integer operators there, by the
rules by which onnxruntime fuses on x86, so that the bits are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ...errors import UnsupportedError
from ..graph import add_initializer, attribute, constant, emit, graph_of, settle_names
from .fold_constants import FoldConstantsPass
from .qdq_groups import (
    MICROSOFT,
    Quantisation,
    behind,
    emit_codes,
    epilogue,
    fold_dequantised_constants,
    fold_quantised_constants,
    plain_attributes,
    refusal,
    replace_output,
    to_unsigned,
)
from .qdq_moves import DROPPED, lower_function, lower_movement, lower_requantisation, quantise_earlier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["LowerQdqPass", "is_qdq"]

BIAS_TOLERANCE = 1e-4
"""How far a bias's scale may lie from s_x s_w, relatively: float32 rounding, not another number."""

PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
TABLES = frozenset({"Clip", "LeakyRelu", "Relu"})
OLDEST_OPSET = 13
LARGEST_INT32 = 2**31 - 1


def is_qdq(model: ir.Model) -> bool:
    """Whether a float operator that this pass lowers reads what a DequantizeLinear writes."""
    readers = {
        use.node.op_type
        for node in model.graph
        if node.op_type == "DequantizeLinear"
        for use in node.outputs[0].uses()
    }
    return not readers.isdisjoint(_RULES)


class LowerQdqPass(ir.passes.InPlacePass):
    """Replace the float operators of a Q/DQ model by integer ones.

    1. int8 pairs become uint8; constants, and weights kept as floats, are folded.
    2. MaxPool, Reshape, Transpose and the like move codes.
    3. Conv, Gemm, MatMul, Add, pools and Concat between codes become QLinearConv, QLinearMatMul and their like
       of `com.microsoft`; Relu, Clip and LeakyRelu between codes become a table.

    Products that onnxruntime would leave in float are refused, naming node, operator and reason.
    """

    def requires(self, model: ir.Model) -> None:
        """Refuse opsets whose MaxPool onnxruntime does not run on codes."""
        opset = model.opset_imports.get("", 0)
        if opset < OLDEST_OPSET:
            raise UnsupportedError(
                f"Q/DQ models are read from opset {OLDEST_OPSET} on, and this one is of opset {opset}; convert it "
                "with onnx.version_converter"
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Apply the rules in graph order."""
        common.RemoveUnusedNodesPass()(model)
        to_unsigned(model.graph)
        FoldConstantsPass()(model)
        graph = model.graph
        fold_quantised_constants(graph)
        quantise_earlier(graph)
        common.RemoveUnusedNodesPass()(model)
        for node in list(graph):
            rule = _RULES.get(node.op_type) if node.domain == "" else None
            if rule is not None:
                rule(node)
        common.RemoveUnusedNodesPass()(model)
        for node in graph:
            if node.op_type in PRODUCTS and node.domain == "":
                raise refusal(node, _why_float(node))
        fold_dequantised_constants(graph)
        common.RemoveUnusedNodesPass()(model)
        settle_names(graph)
        if any(node.domain == MICROSOFT for node in graph):
            model.opset_imports[MICROSOFT] = 1
        return ir.passes.PassResult(model, modified=True)


def _why_float(node: ir.Node) -> str:
    """Why a product is computed in float."""
    for name, value in zip(("input", "weight"), node.inputs, strict=False):
        found = behind(value)
        if value is not None and found is None:
            return (
                f"its {name} {value.name!r} is float, not codes behind a DequantizeLinear with constant scales, "
                f"and {_IN_FLOAT}; quantise it, or compile the float model"
            )
        if name == "input" and found is not None and not found.is_uint8:
            return f"its input {found.codes.name!r} is {_SHARED_INT8}, and {_IN_FLOAT}; {_ADVICE}"
    y = epilogue(node)
    if y is not None and not y.is_uint8:
        return f"its result {y.codes.name!r} is {_SHARED_INT8}, and {_IN_FLOAT}; {_ADVICE}"
    return (
        "its weight, its bias or its attributes are none that an integer operator takes, or its result is read "
        f"by more than one QuantizeLinear, and {_IN_FLOAT}; {_ADVICE}"
    )


_IN_FLOAT = "onnxruntime on x86 computes it in float, in no defined order"
_SHARED_INT8 = "not uint8 with one scale (int8 codes become uint8 only where a single node reads them)"
_ADVICE = "quantise activations to uint8 with one scale, weights by output channel or whole, biases to int32"


def _weight(node: ir.Node, axis: int) -> Quantisation | None:
    """Codes of a constant weight: uint8 or int8, one scale or one along `axis`."""
    found = behind(node.inputs[1])
    if found is None:
        return None
    codes = constant(found.codes)
    if codes is None or codes.dtype not in (np.uint8, np.int8):
        return None
    return found if found.whole or found.axis % codes.ndim == axis else None


def _bias(node: ir.Node, scale: NDArray[np.float32]) -> tuple[ir.Value | None, bool]:
    """The int32 bias (None for no bias) and whether it could be had.

    A float one is rounded to multiples of `scale`, as onnxruntime does.
    """
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None:
        return None, True
    real, found = constant(value), behind(value)
    if real is not None and real.dtype == np.float32 and real.ndim == 1:
        steps = np.rint(real / scale)
        if not (np.abs(steps.astype(np.float64)) <= LARGEST_INT32).all():
            raise refusal(node, "its float bias passes int32 in steps of s_x s_w")
        name = f"{node.name}.bias_codes"
        return add_initializer(graph_of(node), name, steps.astype(np.int32)), True
    codes = None if found is None else constant(found.codes)
    if found is None or codes is None or codes.dtype != np.int32 or found.zero_point.any():
        return None, False
    if not np.allclose(found.scale.reshape(-1), scale.reshape(-1), rtol=BIAS_TOLERANCE, atol=0):
        raise refusal(node, "the scale of its bias is not s_x s_w; onnxruntime takes its codes as if it were")
    return found.codes, True


def _product(node: ir.Node, axis: int) -> tuple[Quantisation, Quantisation] | None:
    """Codes of the input and of the weight, where both are what the integer operators take."""
    x, w = behind(node.inputs[0]), _weight(node, axis)
    return None if x is None or w is None or not x.is_uint8 else (x, w)


def _conv(node: ir.Node) -> None:
    """DequantizeLinear -> Conv -> QuantizeLinear becomes QLinearConv."""
    operands = _product(node, 0)
    if operands is None:
        return
    x, w = operands
    y = epilogue(node)
    if y is None or not y.is_uint8:
        return
    bias, known = _bias(node, x.scale * w.scale)
    if known:
        inputs = [x.codes, *x.parameters(), w.codes, *w.parameters(), *y.parameters(), bias]
        emit_codes(node, y, "QLinearConv", inputs, plain_attributes(node), domain="")


def _gemm(node: ir.Node) -> None:
    """DequantizeLinear -> Gemm [-> QuantizeLinear] becomes QGemm, with a float result where none follows."""
    operands = _product(node, 0 if attribute(node, "transB", 0) else 1)
    with_bias = len(node.inputs) > 2 and node.inputs[2] is not None
    factors = (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0) if with_bias else 1.0)
    if operands is None or attribute(node, "transA", 0) or factors != (1.0, 1.0):
        return
    x, w = operands
    y = epilogue(node)
    quantised_bias = not with_bias or constant(node.inputs[2]) is None
    if (y is None and not (_stays_float(node) and quantised_bias)) or (y is not None and not y.is_uint8):
        return
    bias, known = _bias(node, x.scale * w.scale)
    if not known:
        return
    inputs = [x.codes, *x.parameters(), w.codes, *w.parameters(), bias]
    attributes = {name: value for name, value in plain_attributes(node).items() if name == "transB"}
    if y is not None:
        emit_codes(node, y, "QGemm", [*inputs, *y.parameters()], attributes)
        return
    name = str(node.name)
    replace_output(node, emit(
        node, "QGemm", inputs, attributes, name=name, output=f"{name}.real", dtype=ir.DataType.FLOAT, domain=MICROSOFT,
    ))  # fmt: skip


def _stays_float(node: ir.Node) -> bool:
    """Whether no QuantizeLinear reads a product, which then returns float32 `acc * M`."""
    return all(use.node.op_type != "QuantizeLinear" for use in node.outputs[0].uses())


def _mat_mul(node: ir.Node) -> None:
    """DequantizeLinear -> MatMul -> QuantizeLinear becomes QLinearMatMul; without the last, `acc * M`."""
    operands = _product(node, 1)
    if operands is None:
        return
    x, w = operands
    y = epilogue(node)
    if y is not None and y.is_uint8:
        inputs = [x.codes, *x.parameters(), w.codes, *w.parameters(), *y.parameters()]
        emit_codes(node, y, "QLinearMatMul", inputs, {}, domain="")
    elif y is None and _stays_float(node):
        name, zeros = str(node.name), [x.parameters()[1], w.parameters()[1]]
        total = emit(
            node, "MatMulInteger", [x.codes, w.codes, *zeros], name=name, output=f"{name}.accumulator",
            dtype=ir.DataType.INT32,
        )  # fmt: skip
        total.shape = node.outputs[0].shape
        real = emit(
            node, "Cast", [total], {"to": int(ir.DataType.FLOAT)}, name=f"{name}.cast",
            output=f"{name}.float_accumulator", dtype=ir.DataType.FLOAT,
        )  # fmt: skip
        multiplier = add_initializer(
            graph_of(node), f"{name}.multiplier", np.asarray(x.scale * w.scale, np.float32)
        )
        replace_output(node, emit(
            node, "Mul", [real, multiplier], name=f"{name}.scale", output=f"{name}.real", dtype=ir.DataType.FLOAT,
        ))  # fmt: skip


def _add(node: ir.Node) -> None:
    """DequantizeLinear, DequantizeLinear -> Add -> QuantizeLinear becomes QLinearAdd."""
    group = _group(node, node.inputs)
    if group is not None:
        (a, b), y = group
        inputs = [a.codes, *a.parameters(), b.codes, *b.parameters(), *y.parameters()]
        emit_codes(node, y, "QLinearAdd", inputs, {})


def _multiply(node: ir.Node) -> None:
    if _group(node, node.inputs) is not None:
        raise refusal(
            node,
            "onnxruntime computes a product of two quantised activations in QLinearMul, which is not modelled",
        )


def _pool(node: ir.Node) -> None:
    """DequantizeLinear -> AveragePool -> QuantizeLinear becomes QLinearAveragePool; so the global one."""
    group = _group(node, node.inputs)
    if group is None:
        raise refusal(
            node, "it does not stand between uint8 codes of one scale that it alone reads: sums of floats have "
            "no defined order; quantise its input and its result to uint8",
        )  # fmt: skip
    (x,), y = group
    inputs = [x.codes, *x.parameters(), *y.parameters()]
    emit_codes(node, y, f"QLinear{node.op_type}", inputs, plain_attributes(node))


def _concat(node: ir.Node) -> None:
    """DequantizeLinear... -> Concat -> QuantizeLinear becomes QLinearConcat."""
    group = _group(node, node.inputs)
    if group is not None:
        sources, y = group
        inputs = [*y.parameters(), *(v for x in sources for v in (x.codes, *x.parameters()))]
        emit_codes(node, y, "QLinearConcat", inputs, plain_attributes(node))


def _group(
    node: ir.Node, values: Sequence[ir.Value | None]
) -> tuple[tuple[Quantisation, ...], Quantisation] | None:
    """uint8 codes behind all `values` and the uint8 codes that alone are made of the result."""
    sources = tuple(found for value in values if (found := behind(value)) is not None and found.is_uint8)
    readers = {use.node.op_type for use in node.outputs[0].uses()}
    if len(sources) != len(values) or readers.isdisjoint({"QuantizeLinear", "Relu", "Clip"}):
        return None
    y = epilogue(node)
    return None if y is None or not y.is_uint8 else (sources, y)


_RULES: Mapping[str, Callable[[ir.Node], None]] = {
    "Add": _add,
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "MatMul": _mat_mul,
    "Mul": _multiply,
    "QuantizeLinear": lower_requantisation,
    **dict.fromkeys(DROPPED, lower_movement),
    **dict.fromkeys(TABLES, lower_function),
}
