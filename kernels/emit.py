"""LLVM IR for the kernels: vectors, loads, stores, and loops that carry values in registers.

Numba compiles what it is given; where a kernel must say which vector instructions run, an intrinsic emits
them with these helpers. Offsets are in bytes, and nothing here checks bounds: callers do, in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from llvmlite import ir
from numba.core import cgutils as numba_cgutils

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = [
    "F32",
    "I8",
    "I16",
    "I32",
    "I64",
    "Loop",
    "at",
    "broadcast",
    "call",
    "const",
    "floats",
    "integers",
    "load",
    "pointer",
    "select_limit",
    "splat",
    "store",
]

cgutils: Any = numba_cgutils  # its functions carry no annotations

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32 = ir.FloatType()
BYTES = ir.PointerType(I8)


def integers(bits: int, lanes: int) -> ir.VectorType:
    """The type of a vector of integers."""
    return ir.VectorType(ir.IntType(bits), lanes)


def floats(lanes: int) -> ir.VectorType:
    """The type of a vector of float32."""
    return ir.VectorType(F32, lanes)


def const(value: int) -> ir.Constant:
    """An int64 constant: offsets and counts."""
    return ir.Constant(I64, value)


def splat(kind: ir.VectorType, value: float) -> ir.Constant:
    """A vector constant of one value in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def pointer(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value) -> ir.Value:
    """The address of a Numba array's first element."""
    return builder.bitcast(context.make_array(kind)(context, builder, array).data, BYTES)


def at(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value | int) -> ir.Value:
    """The address `offset` bytes from `base`."""
    return builder.gep(base, [const(offset) if isinstance(offset, int) else offset])


def load(builder: ir.IRBuilder, base: ir.Value, offset: ir.Value | int, kind: ir.Type, align: int = 1) -> Any:
    """Load a value of type `kind`, `offset` bytes from `base`."""
    return builder.load(builder.bitcast(at(builder, base, offset), kind.as_pointer()), align=align)


def store(
    builder: ir.IRBuilder, value: ir.Value, base: ir.Value, offset: ir.Value | int, align: int = 1
) -> None:
    """Store a value `offset` bytes from `base`."""
    builder.store(value, builder.bitcast(at(builder, base, offset), value.type.as_pointer()), align=align)


def broadcast(builder: ir.IRBuilder, value: ir.Value, lanes: int) -> ir.Value:
    """A scalar in every lane of a vector."""
    kind = ir.VectorType(value.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(integers(32, lanes), [0] * lanes))


def select_limit(builder: ir.IRBuilder, value: ir.Value, limit: ir.Value, order: str) -> ir.Value:
    """`limit` where `value` is beyond it (`order` is "<" for a lower limit, ">" for an upper one)."""
    if isinstance(value.type.element, ir.FloatType):
        beyond = builder.fcmp_ordered(order, value, limit)
    else:
        beyond = builder.icmp_signed(order, value, limit)
    return builder.select(beyond, limit, value)


def call(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: Sequence[ir.Value]) -> Any:
    """Call an LLVM intrinsic, declared on first use."""
    kind = ir.FunctionType(result, [value.type for value in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _as_written(module: ir.Module) -> ir.MDValue:
    """Metadata of a loop that is not to be unrolled: a node that is its own first operand."""
    flag = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    node = ir.MDValue(module, [flag], name=str(len(module.metadata)))
    node.operands = (node, flag)
    return node


class Loop:
    """`for index in range(count)`, with values that are carried from turn to turn in registers.

        with Loop(builder, count, [zero]) as loop:
            loop.carry([builder.add(loop.values[0], something)])
        total = loop.results[0]

    `unrolled=False` keeps LLVM from unrolling it, which may cost registers that the carried values need.

    Attributes:
        index: int64, the turn.
        values: The carried values at the beginning of the turn.
        results: The carried values after the last turn (those given, if there is none).
    """

    index: ir.Value
    values: list[ir.Value]
    results: list[ir.Value]

    def __init__(
        self,
        builder: ir.IRBuilder,
        count: ir.Value,
        values: Sequence[ir.Value] = (),
        *,
        unrolled: bool = True,
    ) -> None:
        self._unrolled = unrolled
        self._builder = builder
        self._count = count
        self._initial = list(values)

    def __enter__(self) -> Self:
        builder = self._builder
        self._before = builder.block
        body = builder.append_basic_block("loop")
        self._body, self._end = body, builder.append_basic_block("loop.end")
        builder.cbranch(builder.icmp_signed(">", self._count, const(0)), body, self._end)
        builder.position_at_end(body)
        self.index = builder.phi(I64)
        self.index.add_incoming(const(0), self._before)
        self.values = []
        for value in self._initial:
            carried = builder.phi(value.type)
            carried.add_incoming(value, self._before)
            self.values.append(carried)
        self._next = list(self.values)
        return self

    def carry(self, values: Sequence[ir.Value]) -> None:
        """Say what the carried values are in the next turn."""
        self._next = list(values)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        builder = self._builder
        turn = builder.add(self.index, const(1))
        last = builder.block
        self.index.add_incoming(turn, last)
        for carried, value in zip(self.values, self._next, strict=True):
            carried.add_incoming(value, last)
        branch = builder.cbranch(builder.icmp_signed("<", turn, self._count), self._body, self._end)
        if not self._unrolled:
            branch.set_metadata("llvm.loop", _as_written(builder.module))
        builder.position_at_end(self._end)
        self.results = []
        for initial, value in zip(self._initial, self._next, strict=True):
            result = builder.phi(initial.type)
            result.add_incoming(initial, self._before)
            result.add_incoming(value, last)
            self.results.append(result)
