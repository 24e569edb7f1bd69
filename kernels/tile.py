"""A tile of the matrix product, drained, as functions that Numba code can call, for every instruction set.

A `Tile` is an instruction set, a width and whatever else a kernel is compiled for. Its *type* in Numba carries all
of it, so a kernel that is called with one is compiled for just that, and each version has its own entry in the cache
on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numba import types
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

from .drain import Columns, drain_registers, drain_scratch, emit_bounded_codes, emit_codes
from .emit import I64, Loop, at, broadcast, const, floats, integers, load, pointer, splat, store
from .isa import BY_NAME
from .isa.base import COLUMNS, STEP_BYTES, Operands, four_codes, segment_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from llvmlite import ir

    from .isa.base import InstructionSet

__all__ = [
    "NIBBLE_OFFSET",
    "ROW_PANELS",
    "Tile",
    "begin_tiles",
    "end_tiles",
    "nibble_row",
    "short_tile",
    "tall_tile",
]

# Panels that the one-row product handles at once.
ROW_PANELS = (4, 1)

# What a nibble holds is the weight plus this.
NIBBLE_OFFSET = 8

_SUMS, _FLOATS = integers(32, COLUMNS), floats(COLUMNS)

# Arguments of the functions below, in order, and those of them that are int64.
_ARGUMENTS = (
    "tile", "x", "base", "starts", "row", "segments", "depth", "weight", "panel", "panel_bytes", "burst",
    "bias", "multiplier", "column", "width", "low", "high", "zero", "rows", "out", "target", "out_starts",
    "out_row", "acc",
)  # fmt: skip
_NUMBERS = (
    "base", "row", "depth", "panel", "panel_bytes", "burst", "column", "width", "rows", "target", "out_row",
)  # fmt: skip


class TileType(types.Type):
    """Numba's type of a `Tile`."""

    def __init__(self, isa: str, vectors: int, pool: int, bits: int) -> None:
        self.isa = isa
        self.vectors = vectors
        self.pool = pool
        self.bits = bits
        super().__init__(name=f"Tile({isa}, {vectors}, {pool}, {bits})")


class Tile:
    """An instruction set and what a kernel is compiled for, as an argument of the kernel.

    Attributes:
        isa: The instruction set.
        vectors: Panels of 16 columns.
        pool: Rows of a pooling window.
        bits: Bit planes of a cell (see `crossbar_tile.popcount_sums`).
    """

    def __init__(self, isa: InstructionSet, vectors: int, pool: int = 1, bits: int = 0) -> None:
        self.isa = isa
        self.vectors = vectors
        self.pool = pool
        self.bits = bits
        self._numba_type_ = TileType(isa.name, vectors, pool, bits)


@typeof_impl.register(Tile)
def _type_of_tile(tile: Tile, context: Any) -> TileType:  # noqa: ARG001
    return tile._numba_type_


register_model(TileType)(models.OpaqueModel)


def _unbox_tile(kind: TileType, value: Any, context: Any) -> Any:  # noqa: ARG001
    native: Any = NativeValue
    return native(context.context.get_dummy_value())


_unbox: Any = unbox  # it carries no annotations
_unbox(TileType)(_unbox_tile)


@dataclass(frozen=True)
class _Call:
    """A call of a tile function: LLVM values of its arguments, and their Numba types."""

    context: Any
    builder: ir.IRBuilder
    kinds: dict[str, Any]
    values: dict[str, ir.Value]

    def address(self, name: str, offset: ir.Value | int = 0) -> ir.Value:
        """The address `offset` bytes from the beginning of an array."""
        start = pointer(self.context, self.builder, self.kinds[name], self.values[name])
        return at(self.builder, start, offset)

    def words(self, name: str, size: int) -> ir.Value:
        """A number times `size`: an offset in bytes."""
        return self.builder.mul(self.values[name], const(size))

    def operands(self) -> Operands:
        """What the instruction set needs."""
        values = self.values
        shape = self.context.make_array(self.kinds["segments"])(
            self.context, self.builder, values["segments"]
        ).shape
        return Operands(
            x=self.address("x", values["base"]),
            starts=self.address("starts", self.words("row", 8)),
            segments=self.address("segments"),
            segment_count=self.builder.extract_value(shape, 0),
            depth=values["depth"],
            weight=self.address("weight", values["panel"]),
            panel_bytes=values["panel_bytes"],
            bias=self.address("bias", self.words("column", 4)),
            acc=self.address("acc"),
            burst=values["burst"],
        )

    def finish(self) -> tuple[Callable[[ir.Value, int], ir.Value], int]:
        """What becomes of a vector of sums, and the bytes of an element: see `drain`."""
        builder, values = self.builder, self.values
        if isinstance(self.kinds["multiplier"], types.NoneType):
            return (lambda acc, v: acc), 4  # noqa: ARG005
        multiplier = self.address("multiplier", self.words("column", 4))
        factors = [load(builder, multiplier, 64 * v, _FLOATS, 4) for v in range(self.kinds["tile"].vectors)]
        if self.kinds["out"].dtype == types.float32:
            return (lambda acc, v: builder.fmul(builder.sitofp(acc, _FLOATS), factors[v])), 4
        zero = broadcast(builder, values["zero"], COLUMNS)
        if isinstance(self.kinds["low"], types.NoneType):
            return (lambda acc, v: emit_bounded_codes(builder, acc, factors[v], zero)), 1
        limits = (*(broadcast(builder, values[name], COLUMNS) for name in ("low", "high")), zero)
        return (lambda acc, v: emit_codes(builder, acc, factors[v], limits)), 1

    def places(self, size: int) -> Callable[[ir.Value], ir.Value]:
        """The address of an output row, counted from the tile's first."""
        builder = self.builder
        table = self.address("out_starts", self.words("out_row", 8))
        target = self.address("out", self.words("target", size))

        def place(index: ir.Value) -> ir.Value:
            start = load(builder, table, builder.mul(index, const(8)), I64, 8)
            return at(builder, target, builder.mul(start, const(size)))

        return place


def _emit_tile(call: _Call, height: int) -> None:
    """The tall tile (height 0) or the short one (height 1), and its drain."""
    builder, tile = call.builder, call.kinds["tile"]
    isa = BY_NAME[tile.isa]
    operands = call.operands()
    rows = isa.heights[height]
    sums = isa.tile(builder, operands, rows, tile.vectors)
    finish, size = call.finish()
    place = call.places(size)
    windows = builder.sdiv(call.values["rows"], const(tile.pool))
    columns = Columns(call.values["width"], tile.vectors, size, isa.masked_stores)
    if sums is None:
        drain_scratch(builder, operands.acc, windows, tile.pool, columns, finish, place)
        return
    full = builder.icmp_signed("==", call.values["rows"], const(rows))
    with builder.if_else(full) as (whole, partial):
        with whole:
            drain_registers(builder, sums, tile.pool, columns, finish, place)
        with partial:
            for index, total in enumerate(sums):
                store(builder, total, operands.acc, 64 * index, 64)
            drain_scratch(builder, operands.acc, windows, tile.pool, columns, finish, place)


def _emit_nibble_row(call: _Call) -> None:
    """One row by weights in nibbles, and its drain."""
    builder, tile = call.builder, call.kinds["tile"]
    operands = call.operands()
    isa = BY_NAME[tile.isa]
    totals = _nibble_sums(builder, isa, operands, tile.vectors)
    finish, size = call.finish()
    columns = Columns(call.values["width"], tile.vectors, size, isa.masked_stores)
    drain_registers(builder, totals, 1, columns, finish, call.places(size))


def _nibble_sums(
    builder: ir.IRBuilder, isa: InstructionSet, operands: Operands, vectors: int
) -> list[ir.Value]:
    """The sums of one row; a byte of weights holds those of two steps (see `packing.pack_nibbles`).

    Even weights come with an offset, which the sum of the codes takes away. Odd ones, without the lower half of
    their byte, are 16 times themselves; an instruction set that cannot multiply by so much shifts them down.
    """
    low, high = splat(_SUMS, 0x0F0F0F0F), splat(_SUMS, -0x0F0F0F10)
    offsets = splat(_SUMS, 0x01010101 * NIBBLE_OFFSET)
    whole = isa.weight_range[0] <= -16 * NIBBLE_OFFSET
    start = at(builder, operands.x, load(builder, operands.starts, 0, I64, 8))
    zeros = [splat(_SUMS, 0)] * (2 * vectors + 1)
    pairs = builder.ashr(operands.depth, const(1))
    with Loop(builder, operands.segment_count, [*zeros, operands.weight]) as segment:
        weight = segment.values[-1]
        here = at(builder, start, segment_start(builder, operands, segment.index))
        panels = [at(builder, weight, builder.mul(operands.panel_bytes, const(v))) for v in range(vectors)]
        with Loop(builder, pairs, segment.values[:-1]) as step:
            totals = list(step.values)
            first = builder.mul(step.index, const(8))
            codes = [
                four_codes(builder, here, builder.add(first, const(4 * half)), COLUMNS) for half in (0, 1)
            ]
            totals[-1] = isa.dot(builder, totals[-1], codes[0], offsets)
            if not whole:
                totals[-1] = isa.dot(builder, totals[-1], codes[1], offsets)
            for v in range(vectors):
                both = load(builder, panels[v], builder.mul(step.index, const(STEP_BYTES)), _SUMS, STEP_BYTES)
                even = builder.and_(both, low)
                if whole:
                    odd = builder.and_(both, high)
                else:
                    odd = builder.and_(builder.lshr(both, splat(_SUMS, 4)), low)
                    odd = builder.xor(odd, offsets)
                totals[2 * v] = isa.dot(builder, totals[2 * v], codes[0], even)
                totals[2 * v + 1] = isa.dot(builder, totals[2 * v + 1], codes[1], odd)
            step.carry(totals)
        segment.carry([*step.results, at(builder, weight, builder.mul(pairs, const(STEP_BYTES)))])
    *totals, offset, _ = segment.results
    results = []
    for v in range(vectors):
        bias = load(builder, operands.bias, 64 * v, _SUMS, 4)
        odd = totals[2 * v + 1]
        total = builder.add(totals[2 * v], builder.ashr(odd, splat(_SUMS, 4)) if whole else odd)
        results.append(builder.add(bias, builder.sub(total, offset)))
    return results


def _tile_function(emit: Callable[[_Call], None], name: str, purpose: str) -> Any:
    """A function for Numba code that emits a tile; all have the same arguments."""

    def function(
        typing_context: Any,
        tile: Any,
        x: Any,
        base: Any,
        starts: Any,
        row: Any,
        segments: Any,
        depth: Any,
        weight: Any,
        panel: Any,
        panel_bytes: Any,
        burst: Any,
        bias: Any,
        multiplier: Any,
        column: Any,
        width: Any,
        low: Any,
        high: Any,
        zero: Any,
        rows: Any,
        out: Any,
        target: Any,
        out_starts: Any,
        out_row: Any,
        acc: Any,
    ) -> Any:
        scope = locals()
        kinds = {name: scope[name] for name in _ARGUMENTS}
        numbers = dict.fromkeys(_NUMBERS, types.int64)

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            emit(
                _Call(
                    context,
                    builder,
                    dict(zip(_ARGUMENTS, signature.args, strict=True)),
                    dict(zip(_ARGUMENTS, arguments, strict=True)),
                )
            )
            return context.get_dummy_value()

        return types.void(*{**kinds, **numbers}.values()), generate

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""{purpose}

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: The `Tile`.
        x: uint8, one dimension: the codes.
        base: Byte of `x` that the rows' starts count from.
        starts: int64: where each row starts.
        row: The tile's first row.
        segments: int64: where each segment starts, counted from its row's start.
        depth: Steps of four k in each segment.
        weight: int8 (or uint8 that hold nibbles), one dimension: packed weights.
        panel: Byte of `weight` at which the tile's columns start.
        panel_bytes: Bytes of a panel.
        burst: Steps between two widenings (see `isa.pairs`).
        bias: int32, one dimension.
        multiplier: float32, one dimension; or None: the sums themselves are the output.
        column: Index into both of the tile's first column.
        width: Columns that are left, from the first on.
        low: float32, the lowest code less the zero point; None where `drain.LARGEST_BOUNDED` holds.
        high: float32, the highest; or None likewise.
        zero: int32, the zero point.
        rows: Rows that count; the tile reads as many as it has.
        out: uint8; int32 for sums; float32 for sums times the multiplier. One dimension.
        target: Element of `out` for the first column, that the starts count from.
        out_starts: int64: where each output row starts.
        out_row: The first output row.
        acc: int32, one dimension, aligned to 64 bytes: scratch of the instruction set's size.
    """
    return intrinsic(function)


tall_tile = _tile_function(
    lambda call: _emit_tile(call, 0), "tall_tile", "The tile of most rows, from `row` on, drained to `out`."
)
short_tile = _tile_function(
    lambda call: _emit_tile(call, 1), "short_tile", "As `tall_tile`, for the rows that are left over."
)
nibble_row = _tile_function(
    _emit_nibble_row, "nibble_row", "As `tall_tile` for one row, by weights that hold two steps in a byte."
)


def _around_tiles(name: str) -> Callable[..., ir.Value]:
    """The code of `begin_tiles` and `end_tiles`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        acc = pointer(context, builder, signature.args[1], arguments[1])
        getattr(BY_NAME[signature.args[0].isa], name)(builder, acc)
        return context.get_dummy_value()

    return generate


def _begin_tiles(typing_context: Any, tile: Any, acc: Any) -> Any:  # noqa: ARG001
    """What must come before a thread's first tile."""
    return types.void(tile, acc), _around_tiles("begin")


def _end_tiles(typing_context: Any, tile: Any, acc: Any) -> Any:  # noqa: ARG001
    """What must come after its last one."""
    return types.void(tile, acc), _around_tiles("end")


begin_tiles: Any = intrinsic(_begin_tiles)
end_tiles: Any = intrinsic(_end_tiles)
