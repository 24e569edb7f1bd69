"""AMX int8: `tdpbusd` multiplies a tile of 16 rows x 64 codes by one of 64 codes x 16 columns.

Of the eight tile registers four hold sums (32 rows by two panels), two codes and two weights: four
multiplications for every four loads. A tile is loaded from memory with one stride. Where the sixteen rows of
the row table are equally far apart (rows of a dense layer, positions along one row of a map) they are loaded
from where they are; else their next 64 codes are first copied side by side into the scratch.

What a tile instruction does is behind `TileUnit`: `TileInstructions` emits the real ones, `TileModel` a model
of them in plain IR, with the tiles in memory. With the model the kernel runs, and is tested, on any processor.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from functools import cache
from typing import TYPE_CHECKING, Protocol

from llvmlite import ir

from ..emit import I8, I64, Loop, at, broadcast, call, const, integers, load, splat, store
from .base import COLUMNS, STEP_BYTES, row_pointers, segment_start
from .vnni import Vnni

if TYPE_CHECKING:
    from .base import Operands

__all__ = ["Amx", "TileInstructions", "TileModel", "permit_tiles"]

TILE_ROWS = 16
TILE_BYTES = TILE_ROWS * STEP_BYTES
_CODES, _SUMS, _STARTS = integers(8, STEP_BYTES), integers(32, COLUMNS), integers(64, TILE_ROWS)

# Tile registers: sums of (row block, panel), then codes, then weights.
_SUM = ((0, 1), (2, 3))
_ROWS = (4, 5)
_PANEL = (6, 7)

# Of the scratch: four tiles of sums, two of gathered codes.
_SCRATCH_TILES = 6

# Palette 1: eight tiles of 16 rows of 64 bytes (Intel SDM, volume 1, table 18-3: TILECFG).
_CONFIGURATION = bytes([1] + [0] * 15 + [STEP_BYTES, 0] * 8 + [0] * 16 + [TILE_ROWS] * 8 + [0] * 8)

_ARCH_PRCTL = 158  # x86-64 Linux
_ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 0x1023, 18


@cache
def permit_tiles() -> bool:
    """Ask the kernel for tile state; it holds for threads made later and for forked children."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


class TileUnit(Protocol):
    """The tile instructions; `acc` is the scratch of `Operands.acc`.

    Attributes:
        in_memory: Tiles that it keeps at the end of the scratch.
    """

    in_memory: int

    def configure(self, builder: ir.IRBuilder) -> None:
        """Eight tiles of 16 x 64 bytes."""

    def release(self, builder: ir.IRBuilder) -> None:
        """Back to the initial state."""

    def zero(self, builder: ir.IRBuilder, acc: ir.Value, tile: int) -> None:
        """`tile = 0`."""

    def load(
        self, builder: ir.IRBuilder, acc: ir.Value, tile: int, address: ir.Value, stride: ir.Value
    ) -> None:
        """Load 16 rows of 64 bytes."""

    def store(
        self, builder: ir.IRBuilder, acc: ir.Value, tile: int, address: ir.Value, stride: ir.Value
    ) -> None:
        """Store 16 rows of 64 bytes."""

    def multiply(self, builder: ir.IRBuilder, acc: ir.Value, total: int, codes: int, weights: int) -> None:
        """`total[m, n] += sum over k, j of codes[m, 4k + j] * weights[k, 4n + j]`."""


class TileInstructions:
    """The real instructions."""

    in_memory = 0

    def configure(self, builder: ir.IRBuilder) -> None:
        """`ldtilecfg`."""
        kind = ir.ArrayType(I8, len(_CONFIGURATION))
        name = "ohmfold.tile.configuration"
        if name not in builder.module.globals:
            variable = ir.GlobalVariable(builder.module, kind, name)
            variable.initializer = ir.Constant(kind, bytearray(_CONFIGURATION))
            variable.global_constant, variable.linkage = True, "private"
        address = builder.bitcast(builder.module.globals[name], I8.as_pointer())
        call(builder, "llvm.x86.ldtilecfg", ir.VoidType(), [address])

    def release(self, builder: ir.IRBuilder) -> None:
        """`tilerelease`."""
        call(builder, "llvm.x86.tilerelease", ir.VoidType(), [])

    def zero(self, builder: ir.IRBuilder, acc: ir.Value, tile: int) -> None:  # noqa: ARG002
        """`tilezero`."""
        call(builder, "llvm.x86.tilezero", ir.VoidType(), [I8(tile)])

    def load(
        self,
        builder: ir.IRBuilder,
        acc: ir.Value,  # noqa: ARG002
        tile: int,
        address: ir.Value,
        stride: ir.Value,
    ) -> None:
        """`tileloadd`."""
        call(builder, "llvm.x86.tileloadd64", ir.VoidType(), [I8(tile), address, stride])

    def store(
        self,
        builder: ir.IRBuilder,
        acc: ir.Value,  # noqa: ARG002
        tile: int,
        address: ir.Value,
        stride: ir.Value,
    ) -> None:
        """`tilestored`."""
        call(builder, "llvm.x86.tilestored64", ir.VoidType(), [I8(tile), address, stride])

    def multiply(
        self,
        builder: ir.IRBuilder,
        acc: ir.Value,  # noqa: ARG002
        total: int,
        codes: int,
        weights: int,
    ) -> None:
        """`tdpbusd`."""
        call(builder, "llvm.x86.tdpbusd", ir.VoidType(), [I8(total), I8(codes), I8(weights)])


class TileModel:
    """A model of the instructions, with the tiles at the end of the scratch."""

    in_memory = 8

    def configure(self, builder: ir.IRBuilder) -> None:
        """Nothing: the shapes are fixed."""

    def release(self, builder: ir.IRBuilder) -> None:
        """Nothing."""

    def zero(self, builder: ir.IRBuilder, acc: ir.Value, tile: int) -> None:
        """Sixteen rows of zeros."""
        with Loop(builder, const(TILE_ROWS)) as row:
            offset = builder.mul(row.index, const(STEP_BYTES))
            store(builder, splat(_CODES, 0), self._tile(builder, acc, tile), offset)

    def load(
        self, builder: ir.IRBuilder, acc: ir.Value, tile: int, address: ir.Value, stride: ir.Value
    ) -> None:
        """Copy rows into the tile."""
        with Loop(builder, const(TILE_ROWS)) as row:
            codes = load(builder, address, builder.mul(row.index, stride), _CODES)
            offset = builder.mul(row.index, const(STEP_BYTES))
            store(builder, codes, self._tile(builder, acc, tile), offset)

    def store(
        self, builder: ir.IRBuilder, acc: ir.Value, tile: int, address: ir.Value, stride: ir.Value
    ) -> None:
        """Copy rows out of the tile."""
        with Loop(builder, const(TILE_ROWS)) as row:
            offset = builder.mul(row.index, const(STEP_BYTES))
            codes = load(builder, self._tile(builder, acc, tile), offset, _CODES)
            store(builder, codes, address, builder.mul(row.index, stride))

    def multiply(self, builder: ir.IRBuilder, acc: ir.Value, total: int, codes: int, weights: int) -> None:
        """Row by row, four codes at a time, all columns at once."""
        sums, left, right = (self._tile(builder, acc, tile) for tile in (total, codes, weights))
        with Loop(builder, const(TILE_ROWS)) as row:
            here = builder.mul(row.index, const(STEP_BYTES))
            with Loop(builder, const(TILE_ROWS), [load(builder, sums, here, _SUMS)]) as step:
                result = step.values[0]
                column = load(builder, right, builder.mul(step.index, const(STEP_BYTES)), _SUMS)
                for j in range(4):
                    offset = builder.add(here, builder.add(builder.mul(step.index, const(4)), const(j)))
                    code = builder.zext(load(builder, left, offset, I8), _SUMS.element)
                    raised = builder.shl(column, splat(_SUMS, 24 - 8 * j))
                    weight = builder.ashr(raised, splat(_SUMS, 24))
                    product = builder.mul(broadcast(builder, code, COLUMNS), weight)
                    result = builder.add(result, product)
                step.carry([result])
            store(builder, step.results[0], sums, here)

    def _tile(self, builder: ir.IRBuilder, acc: ir.Value, tile: int) -> ir.Value:
        return at(builder, acc, (_SCRATCH_TILES + tile) * TILE_BYTES)


class Amx(Vnni):
    """See the module. Dot products of a single row are those of AVX512-VNNI, which every such processor has.

    Args:
        name: Under which name it is known.
        unit: The instructions.
        features: LLVM target features that the code needs beside those of AVX512-VNNI.
    """

    heights = (2 * TILE_ROWS, TILE_ROWS)
    segment_bytes = STEP_BYTES
    counts_bits = False
    tile_unit = True

    def __init__(self, name: str, unit: TileUnit, features: tuple[str, ...]) -> None:
        self.name = name
        self.features = (*features, *Vnni.features)
        self.scratch_bytes = (_SCRATCH_TILES + unit.in_memory) * TILE_BYTES
        self._unit = unit

    def tile(
        self, builder: ir.IRBuilder, operands: Operands, rows: int, vectors: int
    ) -> list[ir.Value] | None:
        """One or two blocks of sixteen rows by one or two panels; sums begin with the bias in every row."""
        unit, acc = self._unit, operands.acc
        blocks = range(rows // TILE_ROWS)
        for v in range(vectors):
            bias = at(builder, operands.bias, STEP_BYTES * v)
            for block in blocks:
                unit.load(builder, acc, _SUM[block][v], bias, const(0))
        uniform, strides = self._strides(builder, operands, rows)
        with builder.if_else(uniform) as (direct, gathered):
            with direct:
                firsts = [
                    at(builder, operands.x, load(builder, operands.starts, 8 * TILE_ROWS * block, I64, 8))
                    for block in blocks
                ]
                with Loop(builder, operands.segment_count) as segment:
                    shift = segment_start(builder, operands, segment.index)
                    with Loop(builder, self._steps(builder, operands)) as step:
                        offset = builder.add(shift, builder.mul(step.index, const(STEP_BYTES)))
                        for block in blocks:
                            here = at(builder, firsts[block], offset)
                            unit.load(builder, acc, _ROWS[block], here, strides[block])
                        self._multiply(builder, operands, segment.index, step.index, rows, vectors)
            with gathered:
                starts = row_pointers(builder, operands, rows)
                with Loop(builder, operands.segment_count) as segment:
                    shift = segment_start(builder, operands, segment.index)
                    with Loop(builder, self._steps(builder, operands)) as step:
                        offset = builder.add(shift, builder.mul(step.index, const(STEP_BYTES)))
                        for row in range(rows):
                            codes = load(builder, starts[row], offset, _CODES)
                            store(builder, codes, acc, 4 * TILE_BYTES + STEP_BYTES * row, STEP_BYTES)
                        for block in blocks:
                            copy = at(builder, acc, (4 + block) * TILE_BYTES)
                            unit.load(builder, acc, _ROWS[block], copy, const(STEP_BYTES))
                        self._multiply(builder, operands, segment.index, step.index, rows, vectors)
        for block in blocks:
            for v in range(vectors):
                target = at(builder, acc, block * TILE_BYTES * vectors + v * STEP_BYTES)
                unit.store(builder, acc, _SUM[block][v], target, const(STEP_BYTES * vectors))
        return None

    def strided_tile(
        self,
        builder: ir.IRBuilder,
        codes: tuple[ir.Value, ir.Value],
        weight: tuple[ir.Value, ir.Value],
        steps: ir.Value,
        acc: ir.Value,
    ) -> None:
        """Two blocks of sixteen rows by two panels, each tile of codes loaded from where it lies."""
        unit, (first, stride), (panel, panel_bytes) = self._unit, codes, weight
        for block in range(2):
            for v in range(2):
                unit.zero(builder, acc, _SUM[block][v])
        with Loop(builder, builder.ashr(steps, const(4))) as step:
            shift = builder.mul(step.index, const(STEP_BYTES))
            for block in range(2):
                rows = at(builder, at(builder, first, builder.mul(stride, const(TILE_ROWS * block))), shift)
                unit.load(builder, acc, _ROWS[block], rows, stride)
            here = at(builder, panel, builder.mul(step.index, const(TILE_BYTES)))
            for v in range(2):
                there = at(builder, here, builder.mul(panel_bytes, const(v)))
                unit.load(builder, acc, _PANEL[v], there, const(STEP_BYTES))
                for block in range(2):
                    unit.multiply(builder, acc, _SUM[block][v], _ROWS[block], _PANEL[v])
        for block in range(2):
            for v in range(2):
                target = at(builder, acc, block * TILE_BYTES * 2 + v * STEP_BYTES)
                unit.store(builder, acc, _SUM[block][v], target, const(STEP_BYTES * 2))

    def begin(self, builder: ir.IRBuilder, acc: ir.Value) -> None:  # noqa: ARG002
        """Configure the tiles."""
        self._unit.configure(builder)

    def end(self, builder: ir.IRBuilder, acc: ir.Value) -> None:  # noqa: ARG002
        """Release them: a thread that keeps tile state slows every switch to another."""
        self._unit.release(builder)

    def _steps(self, builder: ir.IRBuilder, operands: Operands) -> ir.Value:
        """Tiles of weights in a segment."""
        return builder.ashr(operands.depth, const(4))

    def _strides(
        self, builder: ir.IRBuilder, operands: Operands, rows: int
    ) -> tuple[ir.Value, list[ir.Value]]:
        """Whether the rows of each block are equally far apart, and how far."""
        uniform: ir.Value = ir.IntType(1)(1)
        strides = []
        for block in range(rows // TILE_ROWS):
            first = 8 * TILE_ROWS * block
            starts = load(builder, operands.starts, first, _STARTS, 8)
            base = load(builder, operands.starts, first, I64, 8)
            stride = builder.sub(load(builder, operands.starts, first + 8, I64, 8), base)
            steps = builder.mul(broadcast(builder, stride, TILE_ROWS), _STARTS([*range(TILE_ROWS)]))
            expected = builder.add(broadcast(builder, base, TILE_ROWS), steps)
            equal = builder.icmp_signed("==", starts, expected)
            bits = builder.bitcast(equal, ir.IntType(TILE_ROWS))
            uniform = builder.and_(uniform, builder.icmp_signed("==", bits, bits.type(-1)))
            strides.append(stride)
        return uniform, strides

    def _multiply(
        self,
        builder: ir.IRBuilder,
        operands: Operands,
        segment: ir.Value,
        step: ir.Value,
        rows: int,
        vectors: int,
    ) -> None:
        """Load the weights of one step and multiply every block of rows by them."""
        index = builder.add(builder.mul(segment, self._steps(builder, operands)), step)
        weight = at(builder, operands.weight, builder.mul(index, const(TILE_BYTES)))
        for v in range(vectors):
            panel = at(builder, weight, builder.mul(operands.panel_bytes, const(v)))
            self._unit.load(builder, operands.acc, _PANEL[v], panel, const(STEP_BYTES))
            for block in range(rows // TILE_ROWS):
                self._unit.multiply(builder, operands.acc, _SUM[block][v], _ROWS[block], _PANEL[v])
