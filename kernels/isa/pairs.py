"""Products by pairs: what AVX2 and the portable kernels share.

Two neighbouring products are added in int16:

    pair[c] = x[k] * w[k, c] + x[k + 1] * w[k + 1, c]

With x <= 255 and |w| <= 64 a pair is at most 32,640 and fits. So do the sums of `burst` steps, where
`burst * 2 * 255 * max|w| <= 32767`: 21 steps for levels -3..3. After a burst the int16 sums are added up into
int32. Larger weights are split into addends within -64..64 by the packing (see `packing`), so that the same
kernel multiplies any of them exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ..emit import I64, Loop, at, const, integers, load, splat, store
from .base import COLUMNS, STEP_BYTES, first_sums, four_codes, row_pointers, segment_start

if TYPE_CHECKING:
    from llvmlite import ir

    from .base import Operands

__all__ = ["PairProducts"]


class PairProducts(ABC):
    """A tile by pairs, for vectors of `lanes` int32.

    Attributes:
        lanes: int32 lanes of one vector; 16 columns are 16 / lanes vectors.
    """

    heights: tuple[int, int] = (4, 2)
    widths: tuple[int, ...] = (1,)
    segment_bytes = 4
    weight_range = (-64, 64)
    masked_stores = False
    counts_bits = False
    tile_unit = False
    scratch_bytes = 4 * 64
    lanes: int

    @abstractmethod
    def pairs(self, builder: ir.IRBuilder, x: ir.Value, w: ir.Value) -> ir.Value:
        """Emit the pair sums, `<2 lanes x i16>`, of codes and weights, both `<lanes x i32>` of four bytes."""

    @abstractmethod
    def widen(self, builder: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
        """Emit the sums of neighbouring int16, `<lanes x i32>`."""

    def dot(self, builder: ir.IRBuilder, total: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
        """`total` plus the dot products of four codes and four small weights in each of sixteen lanes."""
        if self.lanes == COLUMNS:
            return builder.add(total, self.widen(builder, self.pairs(builder, x, w)))
        half = integers(32, COLUMNS)
        parts = []
        for first in range(0, COLUMNS, self.lanes):
            mask = integers(32, self.lanes)([*range(first, first + self.lanes)])
            piece = [builder.shuffle_vector(value, half(None), mask) for value in (x, w)]
            parts.append(self.widen(builder, self.pairs(builder, *piece)))
        joined = builder.shuffle_vector(*parts, half([*range(COLUMNS)]))
        return builder.add(total, joined)

    def tile(
        self, builder: ir.IRBuilder, operands: Operands, rows: int, vectors: int
    ) -> list[ir.Value] | None:
        """Bursts of int16 sums inside, int32 sums outside."""
        sums_type, pairs_type = integers(32, self.lanes), integers(16, 2 * self.lanes)
        pieces = vectors * COLUMNS // self.lanes
        starts = row_pointers(builder, operands, rows)
        first = first_sums(builder, operands, rows, pieces, self.lanes)
        no_pairs = [splat(pairs_type, 0)] * (rows * pieces)
        bursts = builder.sdiv(
            builder.sub(builder.add(operands.depth, operands.burst), const(1)), operands.burst
        )
        with Loop(builder, operands.segment_count, [*first, operands.weight]) as segment:
            *outer, weight = segment.values
            shift = segment_start(builder, operands, segment.index)
            here = [at(builder, start, shift) for start in starts]
            with Loop(builder, bursts, outer) as burst:
                done = builder.mul(burst.index, operands.burst)
                left = builder.sub(operands.depth, done)
                fits = builder.icmp_signed("<", left, operands.burst)
                with Loop(builder, builder.select(fits, left, operands.burst), no_pairs) as step:
                    totals = list(step.values)
                    k = builder.add(done, step.index)
                    x_offset, w_offset = (builder.mul(k, const(size)) for size in (4, STEP_BYTES))
                    weights = [
                        load(builder, self._piece(builder, operands, weight, piece), w_offset, sums_type, 4)
                        for piece in range(pieces)
                    ]
                    for r in range(rows):
                        codes = four_codes(builder, here[r], x_offset, self.lanes)
                        for piece in range(pieces):
                            index = r * pieces + piece
                            product = self.pairs(builder, codes, weights[piece])
                            totals[index] = builder.add(totals[index], product)
                    step.carry(totals)
                burst.carry(
                    [
                        builder.add(total, self.widen(builder, pair))
                        for total, pair in zip(burst.values, step.results, strict=True)
                    ]
                )
            length = builder.mul(operands.depth, const(STEP_BYTES))
            segment.carry([*burst.results, at(builder, weight, length)])
        for index, total in enumerate(segment.results[:-1]):
            store(builder, total, operands.acc, 4 * self.lanes * index, 4 * self.lanes)
        return None

    def strided_tile(
        self,
        builder: ir.IRBuilder,
        codes: tuple[ir.Value, ir.Value],
        weight: tuple[ir.Value, ir.Value],
        steps: ir.Value,
        acc: ir.Value,
    ) -> None:
        """There is no tile unit."""
        raise NotImplementedError

    def begin(self, builder: ir.IRBuilder, acc: ir.Value) -> None:  # noqa: B027 - nothing is right
        """Nothing."""

    def end(self, builder: ir.IRBuilder, acc: ir.Value) -> None:  # noqa: B027 - nothing is right
        """Nothing."""

    def _piece(self, builder: ir.IRBuilder, operands: Operands, weight: ir.Value, piece: int) -> ir.Value:
        """Where the weights of a piece of the tile's columns start."""
        panel, part = divmod(piece, COLUMNS // self.lanes)
        start = at(builder, weight, builder.mul(operands.panel_bytes, I64(panel)))
        return at(builder, start, 4 * self.lanes * part)
