"""What a crossbar's converters make of column sums, on vectors: round to codes, clip, shift, add.

    total += clip(rint(p / step), low, high) * step << shift          half to even

Where the step is a power of two, 2^s, whole numbers need no division:

    rint(p / 2^s) = (p + 2^(s-1) - 1 + (bit s of p)) >> s             s > 0

Else a quotient of floating point rounds to the right code: where p / step is no tie it is further from one than the
format is from it, in float32 while |p| is at most 2^23, in float64 for any int32.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from .crossbar_tile import crossbar_block, emit_parts
from .emit import (
    I32,
    I64,
    Loop,
    at,
    broadcast,
    call,
    const,
    integers,
    load,
    pointer,
    select_limit,
    store,
)
from .isa import BY_NAME
from .isa.base import COLUMNS
from .map_runs import emitted

__all__ = ["convert_sums", "read_sums"]

_SUMS = integers(32, COLUMNS)
_INT32_BITS = 32


class _Converter:
    """Emits conversions; its arguments are those of `convert_sums` from `low` on."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kinds: Any, values: list[ir.Value]) -> None:
        self._builder = builder
        low, high, step, shift, _, total = values
        self._low, self._high, self._step = (
            broadcast(builder, builder.trunc(value, I32), COLUMNS) for value in (low, high, step)
        )
        self._bits = kinds[-1].dtype.bitwidth
        self._total = pointer(context, builder, kinds[-1], total)
        self._single = kinds[-2] == types.float32
        self._power = builder.icmp_signed("==", builder.and_(step, builder.sub(step, const(1))), const(0))
        s = call(builder, "llvm.cttz.i64", I64, [step, ir.IntType(1)(0)])
        rounds = builder.zext(builder.icmp_signed("!=", s, const(0)), I64)
        half = builder.sub(builder.lshr(step, const(1)), rounds)
        self._by, self._odd, self._half = (
            broadcast(builder, builder.trunc(value, I32), COLUMNS) for value in (s, rounds, half)
        )
        wide = ir.IntType(self._bits)
        self._shift, self._up = (
            broadcast(builder, builder.trunc(amount, wide) if wide.width < I64.width else amount, COLUMNS)
            for amount in (shift, builder.add(shift, s))
        )

    def add(self, sums: list[ir.Value], up: ir.Value, offset: ir.Value, spare: ir.Value) -> None:
        """Convert sums, shifted left by `up`, and add them to the total from byte `offset` of int32 on.

        `spare` is memory of their size, where those wait that are not converted at once in registers.
        """
        builder = self._builder
        shifted = builder.icmp_signed("!=", up, I32(0))
        with builder.if_else(builder.or_(shifted, builder.not_(self._power))) as (later, now):
            with later:
                amount = broadcast(builder, up, COLUMNS)
                for index, value in enumerate(sums):
                    store(builder, builder.shl(value, amount), spare, 64 * index, 64)
                self.add_stored(spare, len(sums), offset)
            with now:
                for index, value in enumerate(sums):
                    self._count(self._by_shift(value), self._up, builder.add(offset, const(64 * index)))

    def add_stored(self, sums: ir.Value, count: int, offset: ir.Value) -> None:
        """As `add`, for vectors in memory that are not shifted."""
        builder = self._builder
        with builder.if_else(self._power) as (shifts, divides):
            for block, convert, amount in (
                (shifts, self._by_shift, self._up),
                (divides, self._by_quotient, self._shift),
            ):
                with block, Loop(builder, const(count)) as vector:
                    here = builder.mul(vector.index, const(64))
                    found = convert(load(builder, sums, here, _SUMS, 64))
                    self._count(found, amount, builder.add(offset, here))

    def _count(self, value: ir.Value, amount: ir.Value, offset: ir.Value) -> None:
        """Add a value, shifted left, to the total."""
        builder = self._builder
        if self._bits > _INT32_BITS:
            value = builder.sext(value, amount.type)
        place = at(builder, self._total, builder.mul(offset, const(self._bits // _INT32_BITS)))
        before = load(builder, place, 0, amount.type, 64)
        store(builder, builder.add(before, builder.shl(value, amount)), place, 0, 64)

    def _clip(self, code: ir.Value) -> ir.Value:
        low = select_limit(self._builder, code, self._low, "<")
        return select_limit(self._builder, low, self._high, ">")

    def _by_shift(self, p: ir.Value) -> ir.Value:
        """Codes, where the step is a power of two."""
        builder = self._builder
        up = builder.add(self._half, builder.and_(builder.ashr(p, self._by), self._odd))
        return self._clip(builder.ashr(builder.add(p, up), self._by))

    def _by_quotient(self, p: ir.Value) -> ir.Value:
        """Codes times the step, whatever it is."""
        builder = self._builder
        kind = ir.VectorType(ir.FloatType() if self._single else ir.DoubleType(), COLUMNS)
        quotient = builder.fdiv(builder.sitofp(p, kind), builder.sitofp(self._step, kind))
        rint = f"llvm.rint.v{COLUMNS}f{32 if self._single else 64}"
        code = builder.fptosi(call(builder, rint, kind, [quotient]), _SUMS)
        return builder.mul(self._clip(code), self._step)


@emitted
def convert_sums(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    acc: Any,
    low: Any,  # noqa: ARG001
    high: Any,  # noqa: ARG001
    step: Any,  # noqa: ARG001
    shift: Any,  # noqa: ARG001
    quotient: Any,
    total: Any,
) -> Any:
    """Add to `total` what a converter makes of a block of sums.

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: A `tile.Tile`.
        acc: int32 `[row][panel][16]`, aligned to 64 bytes: the sums.
        low: The lowest code, an int32
        high: and the highest; an ideal converter has those of int32, and a step of 1.
        step: Units of a code, an int32, at least 1. Sums are at most 2^30.
        shift: Codes are shifted left by so much.
        quotient: A float32 or float64: in which format a step that is no power of two divides.
        total: int32 or int64, laid out and aligned as `acc`.
    """
    number = types.int64
    signature = types.void(tile, acc, number, number, number, number, quotient, total)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kinds = signature.args
        rows, vectors = crossbar_block(BY_NAME[kinds[0].isa], kinds[0].bits)
        converter = _Converter(context, builder, kinds[2:], arguments[2:])
        sums = pointer(context, builder, kinds[1], arguments[1])
        converter.add_stored(sums, rows * vectors, const(0))
        return context.get_dummy_value()

    return signature, generate


@emitted
def read_sums(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    x: Any,
    start: Any,  # noqa: ARG001
    stride: Any,  # noqa: ARG001
    steps: Any,  # noqa: ARG001
    cells: Any,
    place: Any,  # noqa: ARG001
    part_bytes: Any,  # noqa: ARG001
    panel_bytes: Any,  # noqa: ARG001
    parts: Any,  # noqa: ARG001
    cell_shift: Any,  # noqa: ARG001
    acc: Any,
    low: Any,  # noqa: ARG001
    high: Any,  # noqa: ARG001
    step: Any,  # noqa: ARG001
    shift: Any,  # noqa: ARG001
    quotient: Any,
    total: Any,
) -> Any:
    """`part_sums` and `convert_sums` in one: the sums are converted where they are, in registers.

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: See `crossbar_tile.part_sums`, as all up to `parts`.
        x: See `tile`.
        start: See `tile`.
        stride: See `tile`.
        steps: See `tile`.
        cells: See `tile`.
        place: See `tile`.
        part_bytes: See `tile`.
        panel_bytes: See `tile`.
        parts: See `tile`.
        cell_shift: The sums are shifted left by so much before they are converted.
        acc: int32 `[row][panel][16]`, aligned to 64 bytes: scratch.
        low: See `convert_sums`, as all from here on.
        high: See `low`.
        step: See `low`.
        shift: See `low`.
        quotient: See `low`.
        total: See `low`.
    """
    number = types.int64
    signature = types.void(
        tile, x, number, number, number, cells, number, number, number, number, number, acc,
        number, number, number, number, quotient, total,
    )  # fmt: skip

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kinds = signature.args
        converter = _Converter(context, builder, kinds[12:], arguments[12:])
        spare = pointer(context, builder, kinds[11], arguments[11])
        up = builder.trunc(arguments[10], I32)

        def finish(sums: list[ir.Value], offset: ir.Value) -> None:
            converter.add(sums, up, offset, spare)

        emit_parts(context, builder, kinds, arguments[:10], finish)
        return context.get_dummy_value()

    return signature, generate
