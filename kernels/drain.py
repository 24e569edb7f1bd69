"""How a tile's sums leave it: the maximum over a pooling window, one float32 product, the code.

    acc  = max over the window's rows of  sum[row, c]
    f    = float32(acc) * M[c]
    code = rint(clip(f, low - z, high - z)) + z              half to even

A clamped f lies within -255..255, where adding 1.5 * 2^23 leaves the nearest integer, half to even, in the low
bits of the float32: the same as `rint` on every target, in one addition. Where |f| < 2^22 for every input, which
the caller proves from the weights, the same holds before the clamp, which then is a saturation of integers; that
is one instruction with the narrowing on many targets.

The maximum is taken before the requantisation, which does not fall where no multiplier is negative; so it is the
maximum of the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from llvmlite import ir

from .emit import (
    I8,
    Loop,
    at,
    broadcast,
    call,
    const,
    floats,
    integers,
    load,
    select_limit,
    splat,
    store,
)
from .isa.base import COLUMNS
from .requantise import ROUNDER

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "LARGEST_BOUNDED",
    "Columns",
    "drain_registers",
    "drain_scratch",
    "emit_bounded_codes",
    "emit_codes",
]

# |f| below which 1.5 * 2^23 + f keeps its exponent.
LARGEST_BOUNDED = 2**22 - 1

_SUMS = integers(32, COLUMNS)
_ROUNDER_BITS = int(np.float32(ROUNDER).view(np.int32))
_SIGN = 128


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


def emit_bounded_codes(
    builder: ir.IRBuilder, acc: ir.Value, multiplier: ir.Value, zero: ir.Value
) -> ir.Value:
    """As `emit_codes` for limits 0..255, where |f| is at most `LARGEST_BOUNDED`; `zero` is z, an int32 vector."""
    lanes = acc.type.count
    wide = integers(32, lanes)
    f = builder.fmul(builder.sitofp(acc, floats(lanes)), multiplier)
    bits = builder.bitcast(builder.fadd(f, splat(floats(lanes), float(ROUNDER))), wide)
    # The signed code: its saturation is the clamp.
    signed = builder.add(bits, builder.sub(zero, splat(wide, _ROUNDER_BITS + _SIGN)))
    signed = select_limit(builder, signed, splat(wide, -_SIGN), "<")
    signed = select_limit(builder, signed, splat(wide, _SIGN - 1), ">")
    narrow = builder.trunc(signed, integers(8, lanes))
    return builder.xor(narrow, splat(integers(8, lanes), -_SIGN))


@dataclass(frozen=True)
class Columns:
    """How vectors of an output row are stored.

    Attributes:
        left: Columns that are left, from the tile's first on.
        vectors: Panels of the tile.
        size: Bytes of an element.
        masked: Whether some lanes of a vector are stored in one instruction.
    """

    left: ir.Value
    vectors: int
    size: int
    masked: bool

    def whole(self, builder: ir.IRBuilder) -> ir.Value:
        """Whether every panel of the tile is."""
        return builder.icmp_signed(">=", self.left, const(self.vectors * COLUMNS))

    def store(self, builder: ir.IRBuilder, rows: list[tuple[list[ir.Value], ir.Value]]) -> None:
        """Store output rows, each the vectors of its panels and its address."""
        with builder.if_else(self.whole(builder)) as (complete, partial):
            with complete:
                for vectors, target in rows:
                    for v, vector in enumerate(vectors):
                        store(builder, vector, target, COLUMNS * self.size * v)
            with partial:
                for v in range(self.vectors):
                    count = builder.sub(self.left, const(COLUMNS * v))
                    store_some = self._masked(builder, count) if self.masked else self._bytes(builder, count)
                    for vectors, target in rows:
                        store_some(vectors[v], at(builder, target, COLUMNS * self.size * v))

    def _masked(self, builder: ir.IRBuilder, count: ir.Value) -> Callable[[ir.Value, ir.Value], None]:
        """A function that stores the first `count` lanes (which may be none, or all)."""
        wide = integers(64, COLUMNS)
        mask = builder.icmp_signed(
            "<", ir.Constant(wide, [*range(COLUMNS)]), broadcast(builder, count, COLUMNS)
        )

        def store_lanes(vector: ir.Value, target: ir.Value) -> None:
            kind = vector.type
            address = builder.bitcast(target, kind.as_pointer())
            name = f"llvm.masked.store.v{COLUMNS}{kind.element.intrinsic_name}.p0"
            call(builder, name, ir.VoidType(), [vector, address, ir.IntType(32)(1), mask])

        return store_lanes

    def _bytes(self, builder: ir.IRBuilder, count: ir.Value) -> Callable[[ir.Value, ir.Value], None]:
        """The same, byte by byte from the stack."""
        spare = _spare(builder)
        fits = builder.icmp_signed("<", count, const(COLUMNS))
        size = builder.mul(builder.select(fits, count, const(COLUMNS)), const(self.size))

        def store_bytes(vector: ir.Value, target: ir.Value) -> None:
            store(builder, vector, spare, 0)
            with Loop(builder, size) as byte:
                store(builder, load(builder, spare, byte.index, I8), target, byte.index)

        return store_bytes


def _spare(builder: ir.IRBuilder) -> ir.Value:
    """64 bytes on the stack."""
    with builder.goto_entry_block():
        room = builder.alloca(integers(8, 64))
        room.align = 64
    return builder.bitcast(room, I8.as_pointer())


def drain_registers(
    builder: ir.IRBuilder,
    sums: list[ir.Value],
    pool: int,
    columns: Columns,
    finish: Callable[[ir.Value, int], ir.Value],
    place: Callable[[ir.Value], ir.Value],
) -> None:
    """Drain all rows of a tile from registers.

    Args:
        builder: Where to emit.
        sums: `[row][panel]`.
        pool: Rows of a window.
        columns: How to store.
        finish: What becomes of a window's sums in a panel.
        place: The address of an output row.
    """
    vectors = columns.vectors
    rows = []
    for window in range(len(sums) // vectors // pool):
        results = []
        for v in range(vectors):
            best = sums[window * pool * vectors + v]
            for row in range(window * pool + 1, (window + 1) * pool):
                best = select_limit(builder, sums[row * vectors + v], best, "<")
            results.append(finish(best, v))
        rows.append((results, place(const(window))))
    columns.store(builder, rows)


def drain_scratch(
    builder: ir.IRBuilder,
    acc: ir.Value,
    windows: ir.Value,
    pool: int,
    columns: Columns,
    finish: Callable[[ir.Value, int], ir.Value],
    place: Callable[[ir.Value], ir.Value],
) -> None:
    """Drain the first `windows` output rows of a tile from `acc`, int32 `[row][panel][16]`, aligned to 64 bytes.

    The other arguments are those of `drain_registers`.
    """
    vectors = columns.vectors
    with Loop(builder, windows) as window:
        first = at(builder, acc, builder.mul(window.index, const(64 * vectors * pool)))
        results = []
        for v in range(vectors):
            best = load(builder, first, 64 * v, _SUMS, 64)
            for row in range(1, pool):
                other = load(builder, first, 64 * (row * vectors + v), _SUMS, 64)
                best = select_limit(builder, other, best, "<")
            results.append(finish(best, v))
        columns.store(builder, [(results, place(window.index))])
