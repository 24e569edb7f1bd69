"""What an instruction set must offer: one tile of the exact matrix product, and one step of a dot product.

A tile is a block of int32 sums, `rows` rows by `vectors` panels of 16 columns:

    acc[r, c] = bias[c] + sum over segments s, k of  x[start[r] + segment[s] + k] * w[s, k, c]

with x uint8 and w int8. Weights lie as `[panel of 16 columns][segment][k / 4][16][4]`: 64 bytes hold four k of
sixteen columns, which is one AVX-512 register, two of AVX2, one row of an AMX tile. A segment whose length is
no multiple of `segment_bytes` is padded with zero weights; the bytes of x read beyond it are multiplied by zero.

Signed codes need nothing more: q + 128 is an unsigned code with its zero point 128 higher (see `codes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ..emit import I64, at, broadcast, const, integers, load

if TYPE_CHECKING:
    from llvmlite import ir

__all__ = ["COLUMNS", "STEP_BYTES", "InstructionSet", "Operands", "row_pointers"]

COLUMNS = 16  # of a panel
STEP_BYTES = 64  # weights of a panel for four k


@dataclass(frozen=True)
class Operands:
    """LLVM values that describe one tile; addresses are `i8*`, numbers int64.

    Attributes:
        x: Address that the rows' starts count from.
        starts: Address of the tile's first row start, int64 each, in bytes.
        segments: Address of the segments' starts, int64 each, counted in bytes from a row's start.
        segment_count: Number of segments.
        depth: Steps of four k in every segment.
        weight: Address of the first panel.
        panel_bytes: Distance of two panels.
        bias: Address of what the sums begin with, int32 `[panel][16]`.
        acc: Address of scratch of the instruction set's `scratch_bytes`, aligned to 64 bytes.
        burst: Steps whose int16 pair sums cannot overflow (see `pairs`).
    """

    x: ir.Value
    starts: ir.Value
    segments: ir.Value
    segment_count: ir.Value
    depth: ir.Value
    weight: ir.Value
    panel_bytes: ir.Value
    bias: ir.Value
    acc: ir.Value
    burst: ir.Value


class InstructionSet(Protocol):
    """One way to multiply. Implementations are stateless; `isa.BY_NAME` holds one of each.

    Attributes:
        name: As `OHMFOLD_ISA` says it.
        features: Names of the LLVM target features that the emitted code needs.
        heights: Rows of the tall and of the short tile.
        widths: Panels that one tile may have, largest first.
        segment_bytes: What a segment's length is padded to.
        weight_range: The lowest and the highest weight for which the product is exact; the packing splits others.
        masked_stores: Whether the processor stores some lanes of a vector in one instruction.
        counts_bits: Whether it may be faster to count the bits of digits than to multiply them.
        tile_unit: Whether products are those of a tile unit, which reads codes from memory as they are.
        scratch_bytes: Size of the scratch behind `Operands.acc`; at least all sums of the tall tile.
    """

    name: str
    features: tuple[str, ...]
    heights: tuple[int, int]
    widths: tuple[int, ...]
    segment_bytes: int
    weight_range: tuple[int, int]
    masked_stores: bool
    counts_bits: bool
    tile_unit: bool
    scratch_bytes: int

    def tile(
        self, builder: ir.IRBuilder, operands: Operands, rows: int, vectors: int
    ) -> list[ir.Value] | None:
        """Emit one tile.

        Returns:
            Its sums `[row][panel]`, `<16 x i32>` each, where they are in registers; None where they were stored
            to `operands.acc` in the same order.
        """

    def strided_tile(
        self,
        builder: ir.IRBuilder,
        codes: tuple[ir.Value, ir.Value],
        weight: tuple[ir.Value, ir.Value],
        steps: ir.Value,
        acc: ir.Value,
    ) -> None:
        """Emit the tall tile of two panels, from zero, for rows at one distance (`tile_unit` alone).

        Args:
            builder: Where to emit.
            codes: Address of the first row, and the distance of two rows.
            weight: Address of the first panel, and the distance of two panels.
            steps: Steps of four k, a multiple of 16.
            acc: As `Operands.acc`; takes the sums, `[row][panel][16]`.
        """

    def dot(self, builder: ir.IRBuilder, total: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
        """Emit `total + sum over j of x[4 lane + j] * w[4 lane + j]`, for w within `weight_range`.

        Args:
            builder: Where to emit.
            total: `<16 x i32>`.
            x: `<16 x i32>` that hold four uint8 each.
            w: `<16 x i32>` that hold four int8 weights each.
        """

    def begin(self, builder: ir.IRBuilder, acc: ir.Value) -> None:
        """Emit what must come before the first tile on a thread."""

    def end(self, builder: ir.IRBuilder, acc: ir.Value) -> None:
        """Emit what must come after the last one."""


def row_pointers(builder: ir.IRBuilder, operands: Operands, rows: int) -> list[ir.Value]:
    """The addresses at which the tile's rows start."""
    return [at(builder, operands.x, load(builder, operands.starts, 8 * r, I64, 8)) for r in range(rows)]


def first_sums(
    builder: ir.IRBuilder, operands: Operands, rows: int, pieces: int, lanes: int
) -> list[ir.Value]:
    """What the sums begin with, `[row][piece]`, in vectors of `lanes` columns."""
    kind = integers(32, lanes)
    biases = [load(builder, operands.bias, 4 * lanes * piece, kind, 4) for piece in range(pieces)]
    return biases * rows


def four_codes(builder: ir.IRBuilder, row: ir.Value, offset: ir.Value, lanes: int) -> ir.Value:
    """Four neighbouring codes of a row, in every lane of a vector of int32."""
    return broadcast(builder, load(builder, row, offset, integers(32, 1).element), lanes)


def segment_start(builder: ir.IRBuilder, operands: Operands, index: ir.Value) -> ir.Value:
    """Where segment `index` starts, counted from a row's start."""
    return load(builder, operands.segments, builder.mul(index, const(8)), I64, 8)
