"""The product that a crossbar computes: tiles of rows, digits of the codes, converters that round and clip.

    p(tile, digit, plane, col) = sum over the tile's rows of  digit(q) * cell     [+ read noise]
    code = clip(rint(p / step), low, high)
    sum(col) = sum over tile, digit, plane of  code * step * 2^(digit's bits) * 2^(plane's shift)

Cells are integers in units of 2^-F of a level; so are p, step and the sum, which is rounded once, half to even, to
whole levels. Everything is an integer, and the read noise is drawn from a counter: nothing depends on the order.

Two kernels of `crossbar_read` compute it. `clipped` is for whole levels (F = 0), steps of one and no noise:
rounding does nothing, digits need not be shifted down (limits are scaled instead), and all fits int32. Where no
column of a tile can reach its limits, which is known from the cells, all digits of that tile are read as one: the
exact product. `general` is for everything else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .counter_random import NORMAL_SCALE
from .crossbar_read import PART_BITS, clipped, extract_bits, extract_digits, general, mask_digits, sum_squares
from .crossbar_tile import crossbar_block
from .isa.base import COLUMNS, STEP_BYTES
from .packing import aligned_empty
from .tile import Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .isa.base import InstructionSet

__all__ = ["VARIANCE_BITS", "CrossbarProduct", "ReadNoise", "ReadPlane"]

# Variances of cells are integers in units of 2^-12 of a squared level.
VARIANCE_BITS = 12

_INPUT_BITS = 8
_INT32_MAX = 2**31 - 1
# Largest cells that are kept as bit planes.
_BIT_PLANES = 4
# Sums up to which a float32 quotient gives the right code.
_FLOAT32_CODES = 2**23


@dataclass(frozen=True, eq=False)
class ReadPlane:
    """Cells that are read together, by one conversion for each column, tile and digit.

    Attributes:
        cells: int32 `(K, N)`: effective conductances in units of 2^-F of a level; of a differential pair, the
            difference.
        shift: The codes count 2^shift times.
        low, high: The converter's lowest and highest code.
        step: Units of a code; 0 for an ideal converter, which neither rounds nor clips.
        variance: int32 `(K, N)`: of a cell's conductance at each read, in units of 2^-VARIANCE_BITS of a squared
            level; None without noise.
    """

    cells: NDArray[np.int32]
    shift: int
    low: int = 0
    high: int = 0
    step: int = 0
    variance: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class ReadNoise:
    """Keys of the read noise: two uint32 words for each tile and plane, `keys[tile][plane]`."""

    keys: tuple[tuple[tuple[int, int], ...], ...] = field(repr=False)


def _byte_parts(values: NDArray[np.int32], limits: tuple[int, int]) -> list[NDArray[np.int8]]:
    """Arrays of int8 within the limits (which hold -64..63) with `values = sum over i of parts[i] * 128^i`."""
    parts: list[NDArray[np.int8]] = []
    rest = values.astype(np.int64)
    while not parts or rest.any():
        part = ((rest + 64) & 127) - 64
        if ((rest >= limits[0]) & (rest <= limits[1])).all():
            part = rest
        parts.append(part.astype(np.int8))
        rest = (rest - part) >> PART_BITS
    return parts


class CrossbarProduct:
    """A programmed array, read for rows of codes.

    Args:
        planes: What is read, in order.
        tile_rows: Rows of a tile; the last tile may have fewer.
        dac_bits: Bits of a digit.
        fraction_bits: F.
        isa: The instruction set.
        noise: Keys, where planes have variances.
        certificate: Whether tiles that cannot clip are read at once.
        bits: Whether single bits are counted, where digits and cells allow it.

    Attributes:
        columns: N.
        fraction_bits: F.
        stride: Bytes of a row of packed codes; see `positions`.
        exact_share: Share of (tile, plane, panel) that are read at once.

    Raises:
        ValueError: The planes differ in shape, or a sum could pass int32.
    """

    def __init__(
        self,
        planes: list[ReadPlane],
        *,
        tile_rows: int,
        dac_bits: int,
        fraction_bits: int,
        isa: InstructionSet,
        noise: ReadNoise | None = None,
        certificate: bool = True,
        bits: bool = True,
    ) -> None:
        depth, self.columns = planes[0].cells.shape
        if any(plane.cells.shape != (depth, self.columns) for plane in planes):
            raise ValueError("all planes of an array have one shape")
        self._planes = planes
        self._dac_bits = dac_bits
        self._digits = -(-_INPUT_BITS // dac_bits)
        self.fraction_bits = fraction_bits
        self._starts = list(range(0, depth, tile_rows))
        lengths = [min(tile_rows, depth - start) for start in self._starts]
        self._lengths = lengths
        multiple = isa.segment_bytes
        steps = [-(-length // multiple) * (multiple // 4) for length in lengths]
        self._steps = np.cumsum([0, *steps]).astype(np.int64)
        self.stride = 4 * int(self._steps[-1])
        self._panels = -(-self.columns // COLUMNS)
        vectors = crossbar_block(isa, 0)[1]
        self._panels = -(-self._panels // vectors) * vectors
        plain = all(plane.step in (0, 1) for plane in planes) and fraction_bits == 0
        self._noise = noise if any(plane.variance is not None for plane in planes) else None
        self._check_range(lengths)
        self._check_total()
        self._fast = plain and self._noise is None and self._fits_int32() and self._narrow(isa)
        self._isa = isa
        if self._fast:
            self._prepare_fast(isa, vectors, certificate=certificate, bits=bits)
        else:
            self._prepare_general(isa, vectors)

    @property
    def positions(self) -> NDArray[np.int64]:
        """Where code k of a row lies in it: every tile begins at a multiple of the instruction set's segments."""
        return np.concatenate(
            [
                4 * int(first) + np.arange(length)
                for first, length in zip(self._steps, self._lengths, strict=False)
            ]
        )

    def packed_rows(self, rows: int) -> int:
        """Rows of codes that must be there for `rows` of them: whole blocks."""
        return -(-rows // self._block) * self._block

    def pack(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Rows of codes `(M, K)` as the kernels read them."""
        packed = aligned_empty(self.packed_rows(len(codes)) * self.stride + STEP_BYTES)
        packed[...] = 0
        packed[: len(codes) * self.stride].reshape(len(codes), self.stride)[:, self.positions] = codes
        return packed

    def __call__(self, x: NDArray[np.uint8], rows: int, first_sample: int, out: NDArray[np.int32]) -> None:
        """The sums of `rows` rows.

        Args:
            x: Packed rows, `packed_rows(rows) * stride` bytes.
            rows: Their number.
            first_sample: Global index of the first: rows are samples of the read noise.
            out: int32, `rows * columns`, written.
        """
        if not rows:
            return
        if self._fast:
            self._run_fast(x, rows, out)
        else:
            self._run_general(x, rows, first_sample, out)

    def column_sums(self, x: NDArray[np.uint8], rows: int) -> NDArray[np.int64]:
        """What the converters are given, without noise: int64 `(tiles, planes, digits, rows, N)`, for calibration."""
        codes = x[: rows * self.stride].reshape(rows, self.stride)[:, self.positions]
        digits = np.arange(self._digits)[:, np.newaxis, np.newaxis] * self._dac_bits
        shown = ((codes >> digits) & ((1 << self._dac_bits) - 1)).astype(np.float64)
        found = [
            # float64 holds every sum exactly: none passes int32.
            [
                shown[:, :, start : start + length] @ plane.cells[start : start + length]
                for plane in self._planes
            ]
            for start, length in zip(self._starts, self._lengths, strict=True)
        ]
        return np.array(found).astype(np.int64)

    def _check_range(self, lengths: list[int]) -> None:
        """Refuse what could pass int32 on its way."""
        digit = (1 << self._dac_bits) - 1
        for plane in self._planes:
            largest = int(np.abs(plane.cells.astype(np.int64)).max(initial=0))
            noise = 0 if plane.variance is None else int(plane.variance.max(initial=0))
            if max(lengths) * digit * largest > _INT32_MAX // 2:
                raise ValueError(
                    f"{max(lengths)} rows of cells up to {largest} units, at {digit} a digit, can pass int32; "
                    "use fewer rows, DAC bits or fraction bits"
                )
            if plane.step > _INT32_MAX or max(0, plane.low, -plane.high) * plane.step > _INT32_MAX // 2:
                raise ValueError(
                    f"a converter's code of {plane.step} units, from {plane.low} on, can pass int32"
                )
            if max(lengths) * digit * digit * noise > _INT32_MAX // 2:
                raise ValueError(
                    "the variance of a column's read noise can pass int32; use fewer rows or less noise"
                )

    def _check_total(self) -> None:
        """Refuse sums of all tiles, digits and planes that could pass int32, in whole levels."""
        digits = sum(1 << (self._dac_bits * digit) for digit in range(self._digits))
        total = 0
        for plane in self._planes:
            columns = np.abs(plane.cells.astype(np.int64)).sum(axis=0)
            # What a conversion may add to a sum: half a step, and the way to limits that do not hold zero.
            added = plane.step // 2 + max(0, plane.low, -plane.high) * plane.step + self._largest_noise(plane)
            total += (int(columns.max(initial=0)) * 255 + added * digits * len(self._starts)) << plane.shift
        self._total_kind = np.dtype(np.int32 if total <= _INT32_MAX else np.int64)
        if total >> self.fraction_bits > _INT32_MAX:
            raise ValueError(
                f"a column's sum can reach {total >> self.fraction_bits} levels, which passes int32; "
                "use fewer weight bits, or a profile of less noise and smaller steps"
            )

    def _largest_noise(self, plane: ReadPlane) -> int:
        """The most that read noise adds to a sum: a normal variate of the table is below 8."""
        if plane.variance is None:
            return 0
        digit = (1 << self._dac_bits) - 1
        spread = math.sqrt(max(self._lengths) * float(plane.variance.max(initial=0))) * digit
        return math.ceil(8 * spread * float(2.0 ** (self.fraction_bits - VARIANCE_BITS / 2)))

    def _fits_int32(self) -> bool:
        """Whether sums of digits that are not shifted down, and the whole sum, stay within int32."""
        total = sum(
            int(np.abs(plane.cells.astype(np.int64)).sum(axis=0).max(initial=0)) << plane.shift
            for plane in self._planes
        )
        scale = self._dac_bits * (self._digits - 1)
        # A clipped digit is no further from zero than the limits or the sum itself, whichever is nearer; limits that
        # exclude zero move it away, by at most themselves.
        moved = sum(
            max(0, plane.low, -plane.high) << (plane.shift + self._dac_bits * digit)
            for plane in self._planes
            for digit in range(self._digits)
        ) * len(self._starts)
        limits = max(max(abs(plane.low), abs(plane.high)) for plane in self._planes)
        return bool(total * 255 + moved <= _INT32_MAX and limits << scale <= _INT32_MAX)

    def _narrow(self, isa: InstructionSet) -> bool:
        """Whether every cell is a byte that the instruction set multiplies exactly."""
        low, high = isa.weight_range
        return all(
            plane.cells.size == 0 or (plane.cells.min() >= low and plane.cells.max() <= high)
            for plane in self._planes
        )

    def _layout(self, arrays: list[NDArray[Any]]) -> NDArray[np.int8]:
        """`[panel][array][step][16][4]` of int8 arrays `(K, N)`, tiles where the instruction set wants them."""
        padded = np.zeros((len(arrays), self.stride, self._panels * COLUMNS), np.int8)
        for index, array in enumerate(arrays):
            padded[index, self.positions, : self.columns] = array
        blocks = padded.reshape(len(arrays), self.stride // 4, 4, self._panels, COLUMNS)
        ordered = blocks.transpose(3, 0, 1, 4, 2)
        data = aligned_empty(ordered.size, np.int8)
        data.reshape(ordered.shape)[...] = ordered
        return data

    def _certificates(self, *, certificate: bool) -> NDArray[np.bool_]:
        """Where no input can reach a limit: `[tile][plane][panel]`."""
        exact = np.zeros((len(self._starts), len(self._planes), self._panels), np.bool_)
        digit = (1 << self._dac_bits) - 1
        for index, plane in enumerate(self._planes):
            for t, (start, length) in enumerate(zip(self._starts, self._lengths, strict=True)):
                cells = plane.cells[start : start + length].astype(np.int64)
                most = digit * np.where(cells > 0, cells, 0).sum(axis=0)
                least = digit * np.where(cells < 0, cells, 0).sum(axis=0)
                safe = (most <= plane.high) & (least >= plane.low)
                if plane.step == 0:
                    safe[...] = True
                elif not certificate:
                    safe[...] = False
                padded = np.ones(self._panels * COLUMNS, np.bool_)
                padded[: self.columns] = safe
                exact[t, index] = padded.reshape(-1, COLUMNS).all(axis=1)
        return exact

    def _prepare_fast(self, isa: InstructionSet, vectors: int, *, certificate: bool, bits: bool) -> None:
        self._exact = self._certificates(certificate=certificate)
        self.exact_share = float(self._exact[:, :, : -(-self.columns // COLUMNS)].mean())
        planes = self._planes
        largest = max(int(np.abs(plane.cells).max(initial=0)) for plane in planes)
        planes_of_bits = max(2, largest.bit_length() + 1)
        self._counts_bits = (
            bits
            and isa.counts_bits
            and self._dac_bits == 1
            and planes_of_bits <= _BIT_PLANES
            and not self._exact.all()
        )
        self._bit_planes = planes_of_bits if self._counts_bits else 0
        self._tile = Tile(isa, vectors, 1, self._bit_planes)
        self._block = crossbar_block(isa, self._bit_planes)[0]
        self._cells = self._layout([plane.cells for plane in planes])
        self._limits = np.array([(plane.low, plane.high) for plane in planes], np.int64)
        self._shifts = np.array([plane.shift for plane in planes], np.int64)
        if self._counts_bits:
            self._prepare_bits()

    def _prepare_bits(self) -> None:
        """Cells as bit planes, `[panel][plane][word][bit plane][16]`; tiles at multiples of 32 rows."""
        self._words = np.cumsum([0, *(-(-length // 32) for length in self._lengths)]).astype(np.int64)
        count = int(self._words[-1])
        shape = (len(self._planes), count * 32, self._panels * COLUMNS)
        padded = np.zeros(shape, np.int64)
        for index, plane in enumerate(self._planes):
            for first, start, length in zip(self._words, self._starts, self._lengths, strict=False):
                rows = slice(32 * int(first), 32 * int(first) + length)
                padded[index, rows, : self.columns] = plane.cells[start : start + length]
        bits = np.stack([(padded >> j) & 1 for j in range(self._bit_planes)], axis=1).astype(np.uint8)
        packed = np.packbits(
            bits.reshape(len(self._planes), self._bit_planes, count, 4, 8, -1), axis=4, bitorder="little"
        )[:, :, :, :, 0]
        blocks = packed.reshape(len(self._planes), self._bit_planes, count, 4, self._panels, COLUMNS)
        ordered = blocks.transpose(4, 0, 2, 1, 5, 3)
        self._bit_cells = aligned_empty(ordered.size)
        self._bit_cells.reshape(ordered.shape)[...] = ordered

    def _largest_sum(self) -> int:
        """The largest sum of a tile and digit, with noise, in units of 2^-F of a level."""
        most: int = max(self._lengths) * ((1 << self._dac_bits) - 1)
        reaches: list[int] = [
            most * int(np.abs(plane.cells.astype(np.int64)).max(initial=0)) + self._largest_noise(plane)
            for plane in self._planes
        ]
        return max(reaches)

    def _prepare_general(self, isa: InstructionSet, vectors: int) -> None:
        planes = self._planes
        self.exact_share = 0.0
        self._tile = Tile(isa, vectors)
        self._block = crossbar_block(isa, 0)[0]
        limits = isa.weight_range
        whole = all(not (plane.cells % (1 << self.fraction_bits)).any() for plane in planes)
        self._cell_shift = self.fraction_bits if whole else 0
        cells = [_byte_parts(plane.cells >> self._cell_shift, limits) for plane in planes]
        self._parts = max(len(parts) for parts in cells)
        self._cells = self._filled(cells, self._parts)
        self._prepare_variances(limits)
        self._converters = np.array([(plane.step, plane.shift) for plane in planes], np.int64)
        kind = np.float32 if self._largest_sum() <= _FLOAT32_CODES else np.float64
        self._limits = np.array(
            [(plane.low, plane.high, plane.step, 1 / max(plane.step, 1)) for plane in planes], kind
        )
        fours = self._tile.vectors * COLUMNS // 4
        k = np.arange(self._digits * self._block * fours)
        self._counters = (k % fours, k // (fours * self._block), k // fours % self._block)
        keys = np.zeros((len(self._starts), len(self._planes), 2), np.uint32)
        if self._noise is not None:
            keys[...] = self._noise.keys
        self._keys = keys
        # From the root of a variance in 2^-VARIANCE_BITS to units of 2^-F, and from the table's units.
        scale = 2.0 ** (self.fraction_bits - VARIANCE_BITS / 2) / NORMAL_SCALE
        self._noise_scale = np.float32(scale)

    def _prepare_variances(self, limits: tuple[int, int]) -> None:
        """Variances as cells, unless there are none or each plane has a single one."""
        planes = self._planes
        self._variances: NDArray[np.int8] | None = None
        self._uniform: NDArray[np.int32] | None = None
        self._variance_parts = 0
        if self._noise is None:
            return
        given = [np.zeros_like(plane.cells) if plane.variance is None else plane.variance for plane in planes]
        if all(not variance.size or variance.min() == variance.max() for variance in given):
            self._uniform = np.array([variance.max(initial=0) for variance in given], np.int32)
            return
        variances = [_byte_parts(variance, limits) for variance in given]
        self._variance_parts = max(len(parts) for parts in variances)
        self._variances = self._filled(variances, self._variance_parts)

    def _filled(self, groups: list[list[NDArray[np.int8]]], count: int) -> NDArray[np.int8]:
        """Parts of every plane, `count` of each, as the kernel reads them."""
        nothing = np.zeros(self._planes[0].cells.shape, np.int8)
        return self._layout(
            [part for parts in groups for part in (*parts, *[nothing] * (count - len(parts)))]
        )

    def _run_fast(self, x: NDArray[np.uint8], rows: int, out: NDArray[np.int32]) -> None:
        bits = words = bit_cells = None
        if self._counts_bits:
            words, bit_cells = self._words, self._bit_cells
            bits = aligned_empty(self._digits * self.packed_rows(rows) * 4 * int(words[-1]) + STEP_BYTES)
            extract_bits(x, self.stride, self.packed_rows(rows), self._steps, self._digits, bits, words)
        masked, size = None, self.packed_rows(rows) * self.stride
        if self._isa.tile_unit and not self._exact.all():
            masked = aligned_empty(self._digits * size + STEP_BYTES)
            mask_digits(x, size, self._dac_bits, self._digits, masked)
        sums = self._block * self._tile.vectors * COLUMNS
        _CLIPPED(
            self._tile,
            self._block,
            self._tile.vectors,
            x,
            masked,
            size,
            self.stride,
            rows,
            self._steps,
            self._cells,
            self._panels,
            len(self._planes),
            self._dac_bits,
            self._digits,
            self._limits,
            self._shifts,
            self._exact,
            bits,
            self.packed_rows(rows),
            words,
            bit_cells,
            self._bit_planes,
            aligned_empty(sums, np.int32),
            out,
            self.columns,
        )

    def _run_general(
        self, x: NDArray[np.uint8], rows: int, first_sample: int, out: NDArray[np.int32]
    ) -> None:
        size = self.packed_rows(rows) * self.stride
        digits = aligned_empty(self._digits * size + STEP_BYTES)
        squares: tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None] = (None, None)
        if self._variances is not None and self._dac_bits > 1:
            squares = aligned_empty(digits.size), aligned_empty(digits.size)
        _EXTRACT(x, size, self._dac_bits, self._digits, digits, *squares)
        if self._variances is not None and self._dac_bits == 1:
            squares = digits, digits  # a bit is its own square
        block_rows = self.packed_rows(rows)
        row_squares = np.empty(0, np.int32)
        if self._uniform is not None:
            row_squares = np.empty(len(self._starts) * self._digits * block_rows, np.int32)
            sum_squares(digits, size, self.stride, block_rows, self._steps, self._digits, row_squares)
        sums = self._block * self._tile.vectors * COLUMNS
        _GENERAL(
            self._tile,
            self._block,
            self._tile.vectors,
            digits,
            size,
            self.stride,
            rows,
            self._steps,
            self._cells,
            self._panels,
            len(self._planes),
            self._parts,
            self._cell_shift,
            self._dac_bits,
            self._digits,
            self._converters,
            self._limits,
            self._variances,
            self._variance_parts,
            self._uniform,
            row_squares,
            block_rows,
            *squares,
            self._keys,
            first_sample,
            self._noise_scale,
            *self._counters,
            np.empty(self._digits * sums if self._noise is not None else 0, np.int32),
            self.fraction_bits,
            aligned_empty(sums, np.int32),
            aligned_empty(sums, np.int32),
            np.empty(sums, self._limits.dtype),
            np.empty(sums, self._total_kind),
            out,
            self.columns,
        )


# Compiled functions, called with tuples of arguments.
_CLIPPED: Any = clipped
_GENERAL: Any = general
_EXTRACT: Any = extract_digits
