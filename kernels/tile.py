"""The tile of the matrix product as a function that Numba code can call, for every instruction set.

A `Tile` is an instruction set and a width. Its *type* in Numba carries both, so a kernel that is called with one
is compiled for just that, and each version has its own entry in the cache on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import types
from numba.core import cgutils as numba_cgutils
from numba.extending import (
    NativeValue,
    intrinsic,
    models,
    register_model,
    typeof_impl,
    unbox,
)

from .emit import Loop, at, call, const, integers, load, pointer, splat, store
from .isa import BY_NAME
from .isa.base import COLUMNS, STEP_BYTES, Operands, segment_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from llvmlite import ir

    from .isa.base import InstructionSet

__all__ = ["ROW_PANELS", "Tile", "begin_tiles", "end_tiles", "nibble_row", "short_tile", "tall_tile"]

cgutils: Any = numba_cgutils  # its functions carry no annotations

# Panels that the one-row product handles at once.
ROW_PANELS = (4, 1)

# What a nibble holds is the weight plus this.
NIBBLE_OFFSET = 8


class TileType(types.Type):  # type: ignore[misc]
    """Numba's type of a `Tile`."""

    def __init__(self, isa: str, vectors: int) -> None:
        self.isa = isa
        self.vectors = vectors
        super().__init__(name=f"Tile({isa}, {vectors})")


class Tile:
    """An instruction set and a number of panels, as an argument of a kernel.

    Attributes:
        isa: The instruction set.
        vectors: Panels of 16 columns.
    """

    def __init__(self, isa: InstructionSet, vectors: int) -> None:
        self.isa = isa
        self.vectors = vectors
        self._numba_type_ = TileType(isa.name, vectors)


@typeof_impl.register(Tile)
def _type_of_tile(tile: Tile, context: Any) -> TileType:  # noqa: ARG001
    return tile._numba_type_  # noqa: SLF001 - Numba's protocol


register_model(TileType)(models.OpaqueModel)


@unbox(TileType)
def _unbox_tile(kind: TileType, value: Any, context: Any) -> NativeValue:  # noqa: ARG001
    return NativeValue(context.context.get_dummy_value())


def _tile_generator(height: int) -> Callable[..., Any]:
    """The code of `tall_tile` (height 0) and `short_tile` (height 1)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        tile = signature.args[0]
        isa = BY_NAME[tile.isa]
        operands = _operands(context, builder, signature, arguments)
        isa.tile(builder, operands, isa.heights[height], tile.vectors)
        return context.get_dummy_value()

    return generate


def _operands(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Operands:
    _, x, base, starts, row, segments, depth, weight, panel, panel_bytes, burst, acc = arguments

    def address(position: int, value: ir.Value) -> ir.Value:
        return pointer(context, builder, signature.args[position], value)

    shape = context.make_array(signature.args[5])(context, builder, segments).shape
    return Operands(
        x=at(builder, address(1, x), base),
        starts=at(builder, address(3, starts), builder.mul(row, const(8))),
        segments=address(5, segments),
        segment_count=builder.extract_value(shape, 0),
        depth=depth,
        weight=at(builder, address(7, weight), panel),
        panel_bytes=panel_bytes,
        acc=address(11, acc),
        burst=burst,
    )


def _signature(tile: Any, x: Any, starts: Any, segments: Any, weight: Any, acc: Any) -> Any:
    number = types.int64
    return types.void(
        tile, x, number, starts, number, segments, number, weight, number, number, number, acc
    )


@intrinsic
def tall_tile(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    x: Any,
    base: Any,  # noqa: ARG001
    starts: Any,
    row: Any,  # noqa: ARG001
    segments: Any,
    depth: Any,  # noqa: ARG001
    weight: Any,
    panel: Any,  # noqa: ARG001
    panel_bytes: Any,  # noqa: ARG001
    burst: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """Sums of the tile's rows from `row` on: see `isa.base`.

    Args:
        typing_context: Numba's; not an argument of the call.
        tile: The `Tile`.
        x: uint8, one dimension: the codes.
        base: Byte of `x` that the rows' starts count from.
        starts: int64: where each row starts.
        row: The first row.
        segments: int64: where each segment starts, counted from its row's start.
        depth: Steps of four k in each segment.
        weight: int8, one dimension: packed weights.
        panel: Byte of `weight` at which the tile's columns start.
        panel_bytes: Bytes of a panel.
        burst: Steps between two widenings (see `isa.pairs`).
        acc: int32, one dimension, aligned to 64 bytes: scratch of the instruction set's size; the sums are
            written to its beginning.
    """
    return _signature(tile, x, starts, segments, weight, acc), _tile_generator(0)


@intrinsic
def short_tile(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    x: Any,
    base: Any,  # noqa: ARG001
    starts: Any,
    row: Any,  # noqa: ARG001
    segments: Any,
    depth: Any,  # noqa: ARG001
    weight: Any,
    panel: Any,  # noqa: ARG001
    panel_bytes: Any,  # noqa: ARG001
    burst: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """As `tall_tile`, for the rows that are left over."""
    return _signature(tile, x, starts, segments, weight, acc), _tile_generator(1)


@intrinsic
def nibble_row(
    typing_context: Any,  # noqa: ARG001
    tile: Any,
    x: Any,
    base: Any,  # noqa: ARG001
    starts: Any,
    row: Any,  # noqa: ARG001
    segments: Any,
    depth: Any,  # noqa: ARG001
    weight: Any,
    panel: Any,  # noqa: ARG001
    panel_bytes: Any,  # noqa: ARG001
    burst: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """Sums of one row; arguments as for `tall_tile`.

    `weight` is uint8: a byte holds the weight of step 2i in its lower half and that of step 2i + 1 in its upper,
    each plus 8, which is taken away by the sum of the codes. `depth` counts single steps and is even.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kind = signature.args[0]
        operands = _operands(context, builder, signature, arguments)
        _emit_nibble_row(builder, BY_NAME[kind.isa], operands, kind.vectors)
        return context.get_dummy_value()

    return _signature(tile, x, starts, segments, weight, acc), generate


def _emit_nibble_row(builder: ir.IRBuilder, isa: InstructionSet, operands: Operands, vectors: int) -> None:
    sums = integers(32, COLUMNS)
    low, offsets = splat(sums, 0x0F0F0F0F), splat(sums, 0x01010101 * NIBBLE_OFFSET)
    start = at(builder, operands.x, load(builder, operands.starts, 0, integers(64, 1).element, 8))
    zeros = [splat(sums, 0)] * (2 * vectors + 1)
    pairs = builder.ashr(operands.depth, const(1))
    with Loop(builder, operands.segment_count, [*zeros, operands.weight]) as segment:
        weight = segment.values[-1]
        here = at(builder, start, segment_start(builder, operands, segment.index))
        panels = [at(builder, weight, builder.mul(operands.panel_bytes, const(v))) for v in range(vectors)]
        with Loop(builder, pairs, segment.values[:-1]) as step:
            totals = list(step.values)
            codes = [
                _broadcast_codes(builder, here, builder.add(builder.mul(step.index, const(8)), const(4 * half)))
                for half in (0, 1)
            ]
            for half in (0, 1):
                totals[-1] = isa.dot(builder, totals[-1], codes[half], offsets)
            for v in range(vectors):
                both = load(builder, panels[v], builder.mul(step.index, const(STEP_BYTES)), sums, STEP_BYTES)
                first = builder.and_(both, low)
                second = builder.and_(builder.lshr(both, splat(sums, 4)), low)
                totals[2 * v] = isa.dot(builder, totals[2 * v], codes[0], first)
                totals[2 * v + 1] = isa.dot(builder, totals[2 * v + 1], codes[1], second)
            step.carry(totals)
        segment.carry([*step.results, at(builder, weight, builder.mul(pairs, const(STEP_BYTES)))])
    *totals, offset, _ = segment.results
    for v in range(vectors):
        total = builder.sub(builder.add(totals[2 * v], totals[2 * v + 1]), offset)
        store(builder, total, operands.acc, 64 * v, 64)


def _broadcast_codes(builder: ir.IRBuilder, row: ir.Value, offset: ir.Value) -> ir.Value:
    from .isa.base import four_codes

    return four_codes(builder, row, offset, COLUMNS)


def _around_tiles(name: str) -> Any:
    """The code of `begin_tiles` and `end_tiles`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        acc = pointer(context, builder, signature.args[1], arguments[1])
        getattr(BY_NAME[signature.args[0].isa], name)(builder, acc)
        return context.get_dummy_value()

    return generate


@intrinsic
def begin_tiles(typing_context: Any, tile: Any, acc: Any) -> Any:  # noqa: ARG001
    """What must come before a thread's first tile."""
    return types.void(tile, acc), _around_tiles("begin")


@intrinsic
def end_tiles(typing_context: Any, tile: Any, acc: Any) -> Any:  # noqa: ARG001
    """What must come after its last one."""
    return types.void(tile, acc), _around_tiles("end")
