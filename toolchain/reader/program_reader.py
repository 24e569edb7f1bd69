"""The walk over the graph: a table from operators to the functions that lift them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import UnsupportedError
from ..float_ops import FLOAT_OPERATORS
from ..program import Operator, Program
from . import products, quantisers, rearrange, sums
from .contrib import CONTRIB_LIFTERS
from .finish import fuse_requantisations, logits_and_codes
from .graph import plain_graph
from .lifting import Lifting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from .graph import Node

__all__ = ["SUPPORTED_OPERATORS", "read_program"]

LIFTERS: Mapping[str, Callable[[Lifting, Node], None]] = {
    "Add": sums.add,
    "Cast": sums.cast,
    "Concat": rearrange.concat,
    "ConvInteger": products.conv_integer,
    "DequantizeLinear": quantisers.dequantize_linear,
    "DynamicQuantizeLinear": quantisers.dynamic_quantize_linear,
    "Flatten": rearrange.flatten,
    "Gather": sums.gather,
    "MatMulInteger": products.mat_mul_integer,
    "MaxPool": rearrange.max_pool,
    "Mul": sums.multiply,
    "Pad": rearrange.pad,
    "QLinearConv": products.q_linear_conv,
    "QLinearMatMul": products.q_linear_mat_mul,
    "QuantizeLinear": quantisers.quantize_linear,
    "ReduceSum": sums.reduce_sum,
    "Reshape": rearrange.reshape,
    "Split": rearrange.split,
    "Squeeze": rearrange.squeeze,
    "Sub": sums.subtract,
    "Transpose": rearrange.transpose,
    "Unsqueeze": rearrange.unsqueeze,
    **CONTRIB_LIFTERS,
}

FLOAT_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})

# Operators whose meaning was another one before the given version of ai.onnx.
OLDEST_OPSETS: Mapping[str, int] = {
    "Clip": 11,
    "Dropout": 7,
    "Hardmax": 13,
    "LogSoftmax": 13,
    "Pad": 11,
    "Softmax": 13,
}
OLDEST_OPSET = 7

SUPPORTED_OPERATORS = frozenset(LIFTERS) | frozenset(FLOAT_OPERATORS) | {"Constant", "Dropout", "Identity"}


def read_program(model: ir.Model) -> Program:
    """Read an integer model as a `Program`; the model stays as it is.

    A Q/DQ model means the integer operators that onnxruntime fuses it to from its level `extended` on.
    Graph inputs that have an initializer are constants: an artifact's weights cannot be fed.

    `Program.logits` is the float32 matrix `(N, classes)` that `Scale` or `Dequantise` makes nearest to the
    graph's outputs, before any float tail; where the float tensor is reshaped to that matrix, the reshaped
    one. `Program.codes` is the tensor of integers that it was made from: the same numbers in the same
    order, in the shape from before the reshape.

    Raises:
        UnsupportedError: A node cannot be run exactly; names node, operator and reason, and for an unknown
            operator what is supported.
        ModelError: The model is broken: inconsistent types, missing data, a multiplier that is not finite.
    """
    graph = plain_graph(model)
    lifting = Lifting(graph)
    for node in graph.nodes:
        _lift(lifting, node)
    for name in graph.outputs:
        lifting.write_output(name)
    layers = fuse_requantisations(lifting.layers, graph.outputs)
    logits, codes = logits_and_codes(layers, graph.outputs, lifting)
    names = {spec.name for spec in graph.inputs} | {name for x in layers for name in (*x.inputs, *x.outputs)}
    program = Program(
        inputs=graph.inputs,
        outputs=tuple(lifting.spec(name) for name in graph.outputs),
        layers=layers,
        tensors={name: lifting.spec(name) for name in sorted(names)},
        logits=logits,
        codes=codes,
    )
    _check_sources(program)
    return program


def _check_sources(program: Program) -> None:
    """Integer products of what is defined only up to rounding are not exact either."""
    for layer in program.weighted_layers():
        if layer.input in program.rounded:
            first = next(x for x in program.layers if isinstance(x, Operator) and not x.exact)
            raise UnsupportedError(
                f"node {first.name!r} ({first.op_type}): layer {layer.name!r} computes with its result, which is "
                "defined only up to rounding; such an operator may only follow the logits"
            )


def _lift(lifting: Lifting, node: Node) -> None:
    oldest = OLDEST_OPSETS.get(node.op_type, OLDEST_OPSET)
    if node.opset < oldest:
        raise node.refusal(
            f"its meaning in opset {node.opset} is not read; convert the model to opset {oldest} or newer "
            "with onnx.version_converter"
        )
    if node.op_type in LIFTERS:
        LIFTERS[node.op_type](lifting, node)
    elif node.op_type in FLOAT_OPERATORS:
        lifting.operator(node)
    elif node.op_type in FLOAT_PRODUCTS:
        raise node.refusal(
            "a product of floats depends on the order of its sums and cannot be run exactly; "
            "compile the model first"
        )
    else:
        raise UnsupportedError(
            f"node {node.name!r} ({node.op_type}): the operator is not supported; supported are "
            f"{', '.join(sorted(SUPPORTED_OPERATORS))}"
        )
