"""Elementary nodes on integers: what the epilogue of a product, a residual sum or a table is spelt with.

    Cast(int32) [Sub z] [Mul m]                         a `Term`
    Term + Term                                         `WeightedSum`
    ReduceSum over space of Cast [Sub z]                `SpatialSum`
    int32 [Add bias] Cast(float32) Mul M                `Real`, completed by QuantizeLinear or kept as `Scale`
    Cast Gather(table of 256)                           `Table`

Each function completes a pattern where its node ends one, extends an expression where it may be part of
one, and otherwise hands the node to `Lifting.operator`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ..program import Conv, Dense, SpatialSum, Table, WeightedSum
from .finish import channel_bias
from .lifting import Biased, Real, Term, per_sample

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .graph import Node
    from .lifting import Lifting

__all__ = ["add", "cast", "gather", "multiply", "reduce_sum", "subtract"]

ONNX_FLOAT, ONNX_INT32, ONNX_INT64 = 1, 6, 7
TERM_TYPES: Mapping[int, np.dtype[Any]] = {ONNX_INT32: np.dtype(np.int32), ONNX_INT64: np.dtype(np.int64)}
type_uint8 = np.dtype(np.uint8)
CODE_TYPES = (type_uint8, np.dtype(np.int8))
TABLE_LENGTH = 256
MIN_RANK_OF_MAPS = 3


def cast(lifting: Lifting, node: Node) -> None:
    """Codes to int32 or int64 open a `Term`; int32 to float32 opens a `Real`."""
    source, target = str(node.inputs[0]), int(node.attributes["to"])
    if source not in lifting.pending and not lifting.is_constant(source):
        dtype = lifting.spec(source).dtype
        if dtype in CODE_TYPES and target in TERM_TYPES:
            lifting.hold(node.output, Term(source, TERM_TYPES[target]))
            return
    if target == ONNX_FLOAT and (found := lifting.accumulator(source)) is not None:
        lifting.hold(node.output, Real(*found, total=source))
        return
    lifting.operator(node)


def subtract(lifting: Lifting, node: Node) -> None:
    """`term - z` moves the zero point of a term that has no multiplier yet."""
    term, zero = _term(lifting, node.input(0)), _int32_scalar(lifting, node.input(1))
    if term is not None and zero is not None and term.multiplier == 1:
        limits = np.iinfo(lifting.spec(term.codes).dtype)
        if limits.min <= term.zero_point + zero <= limits.max:
            lifting.hold(node.output, replace(term, zero_point=term.zero_point + zero))
            return
    lifting.operator(node)


def multiply(lifting: Lifting, node: Node) -> None:
    """`term * m` sets a term's multiplier, `real * M` a real's."""
    for operand, other in ((node.input(0), node.input(1)), (node.input(1), node.input(0))):
        if operand is None or not lifting.is_constant(other):
            continue
        term, factor = _term(lifting, operand), _int32_scalar(lifting, other)
        if term is not None and factor is not None:
            lifting.hold(node.output, replace(term, multiplier=term.multiplier * factor))
            return
        real = lifting.pending.get(operand)
        constant = lifting.graph.constants[str(other)]
        if isinstance(real, Real) and real.multiplier is None and constant.dtype == np.float32:
            multiplier = per_sample(constant, lifting.shape(real.accumulator))
            if not np.isfinite(constant).all():
                raise ModelError(f"node {node.name!r} ({node.op_type}): its multiplier holds NaN or infinity")
            if multiplier is not None:
                lifting.hold(node.output, replace(real, multiplier=multiplier))
                return
    lifting.operator(node)


def add(lifting: Lifting, node: Node) -> None:
    """Two terms make a `WeightedSum`; an int32 accumulator takes a constant bias."""
    first, second = str(node.inputs[0]), str(node.inputs[1])
    one, two = _term(lifting, first), _term(lifting, second)
    if one is not None and two is not None and _same_shape(lifting, one, two):
        _write_sum(lifting, node, one, two)
        return
    for operand, other in ((first, second), (second, first)):
        if lifting.is_constant(other) and _take_bias(lifting, node, operand, lifting.graph.constants[other]):
            return
    lifting.operator(node)


def reduce_sum(lifting: Lifting, node: Node) -> None:
    """The sum of a term without multiplier over all spatial axes, which are kept -> `SpatialSum`."""
    term = _term(lifting, node.input(0))
    shape = None if term is None else lifting.shape(term.codes)
    axes = node.attributes.get("axes")
    if node.input(1) is not None:
        axes = lifting.constant(node, 1, "axes").reshape(-1)
    if term is None or shape is None or axes is None or len(shape) < MIN_RANK_OF_MAPS:
        lifting.operator(node)
        return
    spatial = set(range(2, len(shape)))
    found = {int(axis) % len(shape) for axis in axes}
    if term.multiplier != 1 or found != spatial or not node.attributes.get("keepdims", 1):
        lifting.operator(node)
        return
    layer = SpatialSum(
        name=node.name, inputs=(term.codes,), outputs=(node.output,), input_zero_point=term.zero_point
    )
    lifting.write(layer, np.int32)


def gather(lifting: Lifting, node: Node) -> None:
    """`Gather(table, Cast(codes))` with a constant uint8 table of 256 entries -> `Table`."""
    table = lifting.graph.constants.get(str(node.inputs[0]))
    index = lifting.pending.get(str(node.inputs[1]))
    if (
        table is None
        or table.dtype != np.uint8
        or table.shape != (TABLE_LENGTH,)
        or not isinstance(index, Term)
        or (index.zero_point, index.multiplier) != (0, 1)
        or lifting.spec(index.codes).dtype != type_uint8
    ):
        lifting.operator(node)
        return
    layer = Table(name=node.name, inputs=(index.codes,), outputs=(node.output,), table=table)
    lifting.write(layer, np.uint8)


def _term(lifting: Lifting, name: str | None) -> Term | None:
    """The int32 term behind a name."""
    found = lifting.pending.get(str(name))
    return found if isinstance(found, Term) and found.dtype == np.int32 else None


def _int32_scalar(lifting: Lifting, name: str | None) -> int | None:
    """A constant int32 of one value (of any rank up to one, so that it cannot add axes)."""
    constant = lifting.graph.constants.get(str(name))
    if constant is None or constant.dtype != np.int32 or constant.size != 1 or constant.ndim > 1:
        return None
    return int(constant.reshape(()))


def _same_shape(lifting: Lifting, first: Term, second: Term) -> bool:
    shape = lifting.shape(first.codes)
    return shape is not None and shape == lifting.shape(second.codes)


def _write_sum(lifting: Lifting, node: Node, first: Term, second: Term) -> None:
    layer = WeightedSum(
        name=node.name,
        inputs=(first.codes, second.codes),
        outputs=(node.output,),
        multipliers=(first.multiplier, second.multiplier),
        zero_points=(first.zero_point, second.zero_point),
    )
    lifting.write(layer, np.int32)


def _take_bias(lifting: Lifting, node: Node, operand: str, constant: NDArray[Any]) -> bool:
    """Add a constant to an int32 accumulator: into the product that alone feeds it, else as a `Biased`."""
    if constant.dtype != np.int32 or isinstance(lifting.pending.get(operand), Biased):
        return False
    found = lifting.accumulator(operand)
    if found is None:
        return False
    name = found[0]
    bias = per_sample(constant, lifting.shape(name))
    if bias is None:
        return False
    index = lifting.producer(name)
    layer = None if index is None else lifting.layers[index]
    if (
        index is not None
        and isinstance(layer, Conv | Dense)
        and layer.bias is None
        and lifting.graph.readers[name] == 1
        and (vector := channel_bias(layer, bias)) is not None
    ):
        lifting.layers[index] = replace(layer, bias=vector, outputs=(node.output,))
        lifting.declare(node.output, np.int32)
    else:
        lifting.hold(node.output, Biased(name, bias))
    return True
