"""How a tile's sums leave it: the maximum over a pooling window, the bias, one float32 product, the code.

    acc  = max over the window's rows of  sum[row, c]        then  + bias[c]
    f    = float32(acc) * M[c]
    code = rint(clip(f, low - z, high - z)) + z              half to even

A clamped f lies within -255..255, where adding 1.5 * 2^23 leaves the nearest integer, half to even, in the low
bits of the float32: the same as `rint` on every target, in one addition. The maximum is taken before the
requantisation, which does not fall where no multiplier is negative; so it is the maximum of the codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import types
from numba.extending import intrinsic

from .emit import (
    I8,
    I64,
    Loop,
    at,
    broadcast,
    const,
    floats,
    integers,
    load,
    pointer,
    select_limit,
    splat,
    store,
)
from .isa.base import COLUMNS
from .requantise import ROUNDER

if TYPE_CHECKING:
    from collections.abc import Callable

    from llvmlite import ir

__all__ = ["drain_codes", "drain_sums", "emit_codes"]

_SUMS, _FLOATS, _CODES = integers(32, COLUMNS), floats(COLUMNS), integers(8, COLUMNS)


def emit_codes(
    builder: ir.IRBuilder,
    acc: ir.Value,
    multiplier: ir.Value,
    limits: tuple[ir.Value, ir.Value, ir.Value],
) -> ir.Value:
    """Requantise a vector of accumulators; `limits` are `low - z`, `high - z` (float32) and `z` (int32), vectors."""
    low, high, zero = limits
    lanes = acc.type.count
    f = builder.fmul(builder.sitofp(acc, floats(lanes)), multiplier)
    f = select_limit(builder, select_limit(builder, f, low, "<"), high, ">")
    rounded = builder.bitcast(builder.fadd(f, splat(floats(lanes), float(ROUNDER))), integers(32, lanes))
    return builder.trunc(builder.add(rounded, zero), integers(8, lanes))


def _store_some(
    builder: ir.IRBuilder, vector: ir.Value, target: ir.Value, count: ir.Value, spare: ir.Value, size: int
) -> None:
    """Store the first `count` elements, of `size` bytes each; `spare` is scratch for one vector."""
    store(builder, vector, spare, 0)
    with Loop(builder, builder.mul(count, const(size))) as byte:
        store(builder, load(builder, spare, byte.index, I8), target, byte.index)


def _drain(
    builder: ir.IRBuilder,
    vectors: int,
    acc: ir.Value,
    windows: ir.Value,
    pool: ir.Value,
    bias: ir.Value,
    width: ir.Value,
    target: Callable[[ir.Value], ir.Value],
    size: int,
    finish: Callable[[ir.Value, int], ir.Value],
    spare: ir.Value,
) -> None:
    """Loop over windows and panels: maximum, bias, what `finish` makes of it, and the store."""
    biases = [load(builder, bias, 64 * v, _SUMS, 4) for v in range(vectors)]
    more = builder.sub(pool, const(1))
    whole = builder.icmp_signed(">=", width, const(vectors * COLUMNS))
    with Loop(builder, windows) as window:
        first = at(builder, acc, builder.mul(builder.mul(window.index, pool), const(64 * vectors)))
        sums = [load(builder, first, 64 * v, _SUMS, 64) for v in range(vectors)]
        with Loop(builder, more, sums) as other:
            offset = builder.mul(builder.add(other.index, const(1)), const(64 * vectors))
            row = at(builder, first, offset)
            other.carry(
                [
                    select_limit(builder, load(builder, row, 64 * v, _SUMS, 64), value, "<")
                    for v, value in enumerate(other.values)
                ]
            )
        results = [finish(builder.add(value, biases[v]), v) for v, value in enumerate(other.results)]
        place = target(window.index)
        with builder.if_else(whole) as (complete, partial):
            with complete:
                for v, result in enumerate(results):
                    store(builder, result, place, COLUMNS * size * v)
            with partial:
                for v, result in enumerate(results):
                    left = builder.sub(width, const(COLUMNS * v))
                    fits = builder.icmp_signed("<", left, const(COLUMNS))
                    count = builder.select(fits, left, const(COLUMNS))
                    _store_some(builder, result, at(builder, place, COLUMNS * size * v), count, spare, size)


def _spare(builder: ir.IRBuilder) -> ir.Value:
    """64 bytes on the stack."""
    with builder.goto_entry_block():
        room = builder.alloca(integers(8, 64))
        room.align = 64
    return builder.bitcast(room, I8.as_pointer())


@intrinsic
def drain_codes(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    acc: Any,
    windows: Any,  # noqa: ARG001
    pool: Any,  # noqa: ARG001
    bias: Any,
    multiplier: Any,
    column: Any,  # noqa: ARG001
    width: Any,  # noqa: ARG001
    low: Any,
    high: Any,
    zero: Any,
    out: Any,
    base: Any,  # noqa: ARG001
    starts: Any,
    row: Any,  # noqa: ARG001
) -> Any:
    """Write a tile's codes.

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: The `Tile`.
        acc: int32 `[row][panel][16]`, aligned to 64 bytes.
        windows: Output rows of the tile.
        pool: Rows of a window.
        bias: int32, one dimension.
        multiplier: float32, one dimension.
        column: Index into both of the tile's first column.
        width: Columns that are left, from the first on.
        low: float32, the lowest code less the zero point.
        high: float32, the highest.
        zero: int32, the zero point.
        out: uint8, one dimension.
        base: Byte of `out` for the first column, that the starts count from.
        starts: int64: where each output row starts.
        row: The first output row.
    """
    number = types.int64
    signature = types.void(
        tile,
        acc,
        number,
        number,
        bias,
        multiplier,
        number,
        number,
        low,
        high,
        zero,
        out,
        number,
        starts,
        number,
    )

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, acc, windows, pool, bias, multiplier, column, width, low, high, zero, out, base, starts, row = (
            arguments
        )
        kinds = signature.args

        def address(position: int, value: ir.Value, offset: ir.Value) -> ir.Value:
            return at(builder, pointer(context, builder, kinds[position], value), offset)

        vectors = kinds[0].vectors
        words = builder.mul(column, const(4))
        factors = [
            load(builder, address(5, multiplier, words), 64 * v, _FLOATS, 4) for v in range(vectors)
        ]
        limits = tuple(broadcast(builder, value, COLUMNS) for value in (low, high, zero))
        table = address(13, starts, builder.mul(row, const(8)))
        target = address(11, out, base)
        _drain(
            builder,
            vectors,
            address(1, acc, const(0)),
            windows,
            pool,
            address(4, bias, words),
            width,
            lambda index: at(builder, target, load(builder, table, builder.mul(index, const(8)), I64, 8)),
            1,
            lambda value, v: emit_codes(builder, value, factors[v], limits),
            _spare(builder),
        )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def drain_sums(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    acc: Any,
    windows: Any,  # noqa: ARG001
    bias: Any,
    column: Any,  # noqa: ARG001
    width: Any,  # noqa: ARG001
    out: Any,
    base: Any,  # noqa: ARG001
    starts: Any,
    row: Any,  # noqa: ARG001
) -> Any:
    """Write a tile's accumulators, bias added; as `drain_codes`, with `out` int32 and starts in elements."""
    number = types.int64
    signature = types.void(tile, acc, number, bias, number, number, out, number, starts, number)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, acc, windows, bias, column, width, out, base, starts, row = arguments
        kinds = signature.args

        def address(position: int, value: ir.Value, offset: ir.Value) -> ir.Value:
            return at(builder, pointer(context, builder, kinds[position], value), offset)

        table = address(8, starts, builder.mul(row, const(8)))
        target = address(6, out, builder.mul(base, const(4)))

        def place(index: ir.Value) -> ir.Value:
            start = load(builder, table, builder.mul(index, const(8)), I64, 8)
            return at(builder, target, builder.mul(start, const(4)))

        _drain(
            builder,
            kinds[0].vectors,
            address(1, acc, const(0)),
            windows,
            const(1),
            address(3, bias, builder.mul(column, const(4))),
            width,
            place,
            4,
            lambda value, _: value,
            _spare(builder),
        )
        return context.get_dummy_value()

    return signature, generate
