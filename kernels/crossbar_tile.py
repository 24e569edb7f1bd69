"""Column sums of a crossbar: one digit of the input codes against one plane of cells, in int32.

    p[r, c] = sum over k in the tile of  (x[r, k] & mask) * cell[k, c]

The digit is not shifted down: with `mask = (2^b - 1) << s` the sum carries 2^s, which the caller takes away
exactly, by a shift, or scales the converter's limits by. So a digit costs one AND with a broadcast code.

Where digits are single bits and cells are small, `popcount_sums` does the same on bits: 32 rows at once,

    p = sum over bit planes j of  coefficient[j] * popcount(x bits & cell bits[j])

Cells wider than a byte are several: `part_sums` multiplies the highest, shifts the sums left and multiplies the next
on top of them (Horner), so that they stay in registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types

from .emit import (
    I8,
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
    splat,
    store,
)
from .isa import BY_NAME
from .isa.base import COLUMNS, STEP_BYTES, four_codes
from .map_runs import emitted

if TYPE_CHECKING:
    from collections.abc import Callable

    from .isa.base import InstructionSet

__all__ = [
    "PART_BITS",
    "bits_of_eight",
    "cell_sums",
    "crossbar_block",
    "emit_parts",
    "part_sums",
    "popcount_sums",
]

# A cell wider than a byte is a sum of bytes of this weight.
PART_BITS = 7

_SUMS, _BYTES = integers(32, COLUMNS), integers(8, STEP_BYTES)


def crossbar_block(isa: InstructionSet, bits: int) -> tuple[int, int]:
    """Rows and panels of a block: as many sums as registers hold, beside the bit planes of a cell."""
    if isa.tile_unit:
        return isa.heights[0], 2
    if not isa.masked_stores:
        return 4, 1
    return (8 if bits else 12), 2


def _four(value: int) -> int:
    """A signed byte, four times in an int32."""
    return int.from_bytes(value.to_bytes(1, "little", signed=True) * 4, "little", signed=True)


def _store_sums(
    builder: ir.IRBuilder,
    totals: list[ir.Value],
    limits: tuple[ir.Value, ir.Value] | None,
    shift: ir.Value,
    add: ir.Value,
    acc: ir.Value,
) -> None:
    """Write `clip(total) << shift`, or add it to what is there; without limits nothing is clipped."""
    amount = broadcast(builder, builder.trunc(shift, I32), COLUMNS)
    if limits is not None:
        low, high = (broadcast(builder, builder.trunc(limit, I32), COLUMNS) for limit in limits)
        totals = [
            select_limit(builder, select_limit(builder, total, low, "<"), high, ">") for total in totals
        ]
    clipped = [builder.shl(total, amount) for total in totals]
    with builder.if_else(builder.icmp_signed("!=", add, const(0))) as (more, first):
        with more:
            for index, value in enumerate(clipped):
                before = load(builder, acc, 64 * index, _SUMS, 64)
                store(builder, builder.add(before, value), acc, 64 * index, 64)
        with first:
            for index, value in enumerate(clipped):
                store(builder, value, acc, 64 * index, 64)


def _scratch(builder: ir.IRBuilder, size: int) -> ir.Value:
    """Room on the stack, aligned to 64 bytes."""
    with builder.goto_entry_block():
        room = builder.alloca(ir.ArrayType(I8, size))
        room.align = 64
    return builder.bitcast(room, I8.as_pointer())


@emitted
def cell_sums(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    x: Any,
    start: Any,  # noqa: ARG001
    stride: Any,  # noqa: ARG001
    mask: Any,  # noqa: ARG001
    steps: Any,  # noqa: ARG001
    cells: Any,
    place: Any,  # noqa: ARG001
    panel_bytes: Any,  # noqa: ARG001
    low: Any,  # noqa: ARG001
    high: Any,  # noqa: ARG001
    shift: Any,  # noqa: ARG001
    add: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """Sums of a block of rows and panels.

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: A `tile.Tile`: the instruction set, and the panels of a block.
        x: uint8, one dimension: the codes.
        start: Byte of `x` of the block's first row and the tile's first k.
        stride: Bytes between two rows.
        mask: The digit's bits of a code; 255 for a tile unit, which cannot take some of them.
        steps: Steps of four k; a multiple of 16 for a tile unit.
        cells: int8, one dimension: `[panel]...[k / 4][16][4]`.
        place: Byte of `cells` at which the block's first panel and the tile's first k are.
        panel_bytes: Bytes between two panels.
        low: The sums are clipped to this
        high: and this,
        shift: shifted left by so much,
        add: and added to `acc` if this is not 0, else written.
        acc: int32 `[row][panel][16]`, aligned to 64 bytes.
    """
    number = types.int64
    signature = types.void(
        tile, x, number, number, number, number, cells, number, number, number, number, number, number, acc
    )

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, x, start, stride, mask, steps, cells, place, panel_bytes, low, high, shift, add, acc = arguments
        kinds = signature.args
        isa = BY_NAME[kinds[0].isa]
        rows, vectors = crossbar_block(isa, kinds[0].bits)
        first = at(builder, pointer(context, builder, kinds[1], x), start)
        base = at(builder, pointer(context, builder, kinds[6], cells), place)
        target = pointer(context, builder, kinds[13], acc)
        if isa.tile_unit:
            scratch = _scratch(builder, isa.scratch_bytes)
            isa.strided_tile(builder, (first, stride), (base, panel_bytes), steps, scratch)
            with Loop(builder, const(rows)) as row:
                place_of = builder.mul(row.index, const(64 * vectors))
                here = at(builder, scratch, place_of)
                sums = [load(builder, here, 64 * v, _SUMS, 64) for v in range(vectors)]
                _store_sums(builder, sums, (low, high), shift, add, at(builder, target, place_of))
            return context.get_dummy_value()
        codes = [at(builder, first, builder.mul(stride, const(r))) for r in range(rows)]
        panels = [at(builder, base, builder.mul(panel_bytes, const(v))) for v in range(vectors)]
        word = builder.mul(builder.trunc(mask, I32), I32(0x01010101))
        digit = broadcast(builder, word, COLUMNS)
        totals = [splat(_SUMS, 0)] * (rows * vectors)
        totals = _multiply(builder, isa, codes, panels, steps, totals, digit)
        _store_sums(builder, totals, (low, high), shift, add, target)
        return context.get_dummy_value()

    return signature, generate


@emitted
def part_sums(
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
    shift: Any,  # noqa: ARG001
    add: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """Sums of a block of rows and panels, over cells of several bytes: `sum over i of 2^(PART_BITS i) part[i]`.

    They are modulo 2^32 on their way; that they do not pass it in the end is the caller's range proof.

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: See `cell_sums`, as `x`, `start`, `stride`, `steps`, `cells` and `panel_bytes`.
        x: The digits, already by themselves.
        start: See `tile`.
        stride: See `tile`.
        steps: See `tile`.
        cells: See `tile`.
        place: Byte of `cells` of the lowest part.
        part_bytes: Bytes between two parts.
        panel_bytes: See `tile`.
        parts: Their number.
        shift: The sums are shifted left by so much,
        add: and added to `acc` if this is not 0, else written.
        acc: int32 `[row][panel][16]`, aligned to 64 bytes.
    """
    number = types.int64
    signature = types.void(
        tile, x, number, number, number, cells, number, number, number, number, number, number, acc
    )

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        *given, shift, add, acc = arguments
        target = pointer(context, builder, signature.args[12], acc)

        def finish(sums: list[ir.Value], offset: ir.Value) -> None:
            _store_sums(builder, sums, None, shift, add, at(builder, target, offset))

        emit_parts(context, builder, signature.args, given, finish)
        return context.get_dummy_value()

    return signature, generate


def emit_parts(
    context: Any,
    builder: ir.IRBuilder,
    kinds: Any,
    values: list[ir.Value],
    finish: Callable[[list[ir.Value], ir.Value], None],
) -> None:
    """Emit the sums of `part_sums`, whose first ten arguments are given by their Numba types and their values.

    `finish` gets sums and the byte at which they begin in `[row][panel][16]`: all of them, in registers; from a tile
    unit one vector after another, in a loop.
    """
    _, x, start, stride, steps, cells, place, part_bytes, panel_bytes, parts = values
    isa = BY_NAME[kinds[0].isa]
    rows, vectors = crossbar_block(isa, kinds[0].bits)
    count = rows * vectors
    first = at(builder, pointer(context, builder, kinds[1], x), start)
    base = at(builder, pointer(context, builder, kinds[5], cells), place)
    zero, bits = splat(_SUMS, 0), splat(_SUMS, PART_BITS)

    def part(index: ir.Value) -> ir.Value:
        below = builder.sub(builder.sub(parts, index), const(1))
        return at(builder, base, builder.mul(below, part_bytes))

    if isa.tile_unit:
        scratch, sums = _scratch(builder, isa.scratch_bytes), _scratch(builder, 64 * count)
        with Loop(builder, const(count)) as vector:
            store(builder, zero, sums, builder.mul(vector.index, const(64)), 64)
        with Loop(builder, parts) as turn:
            isa.strided_tile(builder, (first, stride), (part(turn.index), panel_bytes), steps, scratch)
            with Loop(builder, const(count)) as vector:
                offset = builder.mul(vector.index, const(64))
                before = builder.shl(load(builder, sums, offset, _SUMS, 64), bits)
                found = builder.add(before, load(builder, scratch, offset, _SUMS, 64))
                store(builder, found, sums, offset, 64)
        with Loop(builder, const(count)) as vector:
            offset = builder.mul(vector.index, const(64))
            finish([load(builder, sums, offset, _SUMS, 64)], offset)
        return
    codes = [at(builder, first, builder.mul(stride, const(r))) for r in range(rows)]
    with Loop(builder, parts, [zero] * count, unrolled=False) as turn:
        here = part(turn.index)
        panels = [at(builder, here, builder.mul(panel_bytes, const(v))) for v in range(vectors)]
        totals = [builder.shl(total, bits) for total in turn.values]
        turn.carry(_multiply(builder, isa, codes, panels, steps, totals))
    finish(turn.results, const(0))


def _multiply(
    builder: ir.IRBuilder,
    isa: InstructionSet,
    codes: list[ir.Value],
    panels: list[ir.Value],
    steps: ir.Value,
    totals: list[ir.Value],
    digit: ir.Value | None = None,
) -> list[ir.Value]:
    """Add to `totals`, `[row][panel]`, the products of codes (their bits in `digit`) and cells, all in registers."""
    vectors = len(panels)
    with Loop(builder, steps, totals, unrolled=False) as step:
        sums = list(step.values)
        offset = builder.mul(step.index, const(STEP_BYTES))
        weights = [load(builder, panel, offset, _SUMS, STEP_BYTES) for panel in panels]
        for r, row in enumerate(codes):
            four = four_codes(builder, row, builder.mul(step.index, const(4)), COLUMNS)
            if digit is not None:
                four = builder.and_(four, digit)
            for v in range(vectors):
                sums[r * vectors + v] = isa.dot(builder, sums[r * vectors + v], four, weights[v])
        step.carry(sums)
    return step.results


@emitted
def popcount_sums(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    bits: Any,
    start: Any,  # noqa: ARG001
    stride: Any,  # noqa: ARG001
    words: Any,  # noqa: ARG001
    cells: Any,
    place: Any,  # noqa: ARG001
    panel_bytes: Any,  # noqa: ARG001
    low: Any,  # noqa: ARG001
    high: Any,  # noqa: ARG001
    shift: Any,  # noqa: ARG001
    add: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """Sums of a block of rows and panels, for single bits of the codes; two's complement cells.

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: A `tile.Tile`, with the bits of a cell; the highest one is negative.
        bits: uint8, one dimension: bits of one digit, 32 rows of the array in four bytes.
        start: Byte of `bits` of the block's first row and the tile's first word.
        stride: Bytes between two rows.
        words: Words of 32 rows in the tile.
        cells: uint8, one dimension: `[panel]...[word][bit plane][16]`, four bytes each.
        place: Byte of `cells` at which the block's first panel and the tile's first word are.
        panel_bytes: Bytes between two panels.
        low: Limits, shift and addition as for `cell_sums`.
        high: See `low`.
        shift: See `low`.
        add: See `low`.
        acc: int32 `[row][panel][16]`, aligned to 64 bytes.
    """
    number = types.int64
    signature = types.void(
        tile, bits, number, number, number, cells, number, number, number, number, number, number, acc
    )

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, bits, start, stride, words, cells, place, panel_bytes, low, high, shift, add, acc = arguments
        kinds = signature.args
        isa = BY_NAME[kinds[0].isa]
        rows, vectors = crossbar_block(isa, kinds[0].bits)
        first = at(builder, pointer(context, builder, kinds[1], bits), start)
        codes = [at(builder, first, builder.mul(stride, const(r))) for r in range(rows)]
        base = at(builder, pointer(context, builder, kinds[5], cells), place)
        panels = [at(builder, base, builder.mul(panel_bytes, const(v))) for v in range(vectors)]
        planes = kinds[0].bits
        signs = [*(1 << j for j in range(planes - 1)), -(1 << (planes - 1))]
        coefficients = [splat(_SUMS, _four(sign)) for sign in signs]
        with Loop(builder, words, [splat(_SUMS, 0)] * (rows * vectors), unrolled=False) as word:
            totals = list(word.values)
            offset = builder.mul(word.index, const(4))
            place = builder.mul(word.index, const(planes * STEP_BYTES))
            cell_bits = [
                [
                    load(builder, at(builder, panel, place), STEP_BYTES * plane, _SUMS, STEP_BYTES)
                    for panel in panels
                ]
                for plane in range(planes)
            ]
            for r in range(rows):
                row_bits = four_codes(builder, codes[r], offset, COLUMNS)
                for v in range(vectors):
                    for plane in range(planes):
                        both = builder.bitcast(builder.and_(row_bits, cell_bits[plane][v]), _BYTES)
                        counts = builder.bitcast(call(builder, "llvm.ctpop.v64i8", _BYTES, [both]), _SUMS)
                        total = totals[r * vectors + v]
                        totals[r * vectors + v] = isa.dot(builder, total, counts, coefficients[plane])
            word.carry(totals)
        target = pointer(context, builder, kinds[12], acc)
        _store_sums(builder, word.results, (low, high), shift, add, target)
        return context.get_dummy_value()

    return signature, generate


@emitted
def bits_of_eight(typing_context: Any, x: Any, start: Any, digit: Any) -> Any:  # noqa: ARG001
    """Bit `digit` of the eight bytes from `start` on, side by side in an int64, the first one lowest.

    With v the bytes as one number, `((v >> d) & 0x0101010101010101) * 0x0102040810204080 >> 56`: the product brings
    the lowest bit of byte i to bit 56 + i, and no two of its terms meet.
    """
    signature = types.int64(x, types.int64, types.int64)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, start, digit = arguments
        word = load(builder, pointer(context, builder, signature.args[0], x), start, I64)
        ones = builder.and_(builder.lshr(word, digit), const(0x0101010101010101))
        return builder.lshr(builder.mul(ones, const(0x0102040810204080)), const(56))

    return signature, generate
