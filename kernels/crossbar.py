"""The product that a crossbar computes: tiles of rows, digits of the codes, converters that round and clip.

    p(tile, digit, plane, col) = sum over the tile's rows of  digit(q) * cell     [+ read noise]
    code = clip(rint(p / step), low, high)
    sum(col) = sum over tile, digit, plane of  code * step * 2^(digit's bits) * 2^(plane's shift)

Cells are integers in units of 2^-F of a level; so are p, step and the sum, which is rounded once, half to even, to
whole levels. Everything is an integer, and the read noise is drawn from a counter: nothing depends on the order.

Two kernels of `crossbar_read` compute it. `clipped` is for whole levels (F = 0), steps of one and no noise:
rounding does nothing, digits need not be shifted down (limits are scaled instead), and all fits int32. Where no
column of a tile can reach its limits, which is known from the cells, all digits of that tile are read as one: the
exact product. Where that holds of every tile, planes add up to weights, and the matrix product that exact layers use
computes it. `general` is for everything else; ideal converters, which are linear, read all digits as one there too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .conv_maps import ConvMaps
from .counter_random import NORMAL_SCALE
from .crossbar_conversions import Clipped, clipped_conversions, column_sums
from .crossbar_planes import (
    INPUT_BITS,
    INT32_MAX,
    VARIANCE_BITS,
    Reading,
    ReadNoise,
    ReadPlane,
    certificates,
    check_range,
    digits_fit_int32,
    largest_total,
    narrow,
)
from .crossbar_read import clipped, extract_bits, extract_digits, general, mask_digits, sum_squares
from .crossbar_tile import PART_BITS, crossbar_block
from .isa.base import COLUMNS, STEP_BYTES
from .layout import MapLayout
from .packing import aligned_empty
from .tile import Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .isa.base import InstructionSet

__all__ = ["PATHS", "VARIANCE_BITS", "Clipped", "CrossbarProduct", "ReadNoise", "ReadPlane"]

# All digits of everything at once; digit by digit on bits or on bytes (and what cannot clip at once); all else.
PATHS = ("exact product", "bits counted", "digits multiplied", "general")

# What weights that exact layers multiply lie within.
_LARGEST_WEIGHT = 255
# Largest cells that are kept as bit planes.
_BIT_PLANES = 4
# Bytes of digits that are read at a time: they stay in a level-2 cache.
_CACHED_DIGITS = 2**19
# Sums up to which a float32 quotient gives the right code.
_FLOAT32_CODES = 2**23


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


def _converter(plane: ReadPlane) -> tuple[int, int, int, int]:
    """Low, high, step and shift as the kernel takes them: int32, which holds the codes of all sums."""
    lowest, highest = -INT32_MAX - 1, INT32_MAX
    if plane.step == 0:
        return lowest, highest, 1, plane.shift
    return max(plane.low, lowest), min(plane.high, highest), plane.step, plane.shift


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
        path: How it is computed: one of `PATHS`.

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
        self._reading = reading = Reading.of(depth, tile_rows, dac_bits, fraction_bits)
        self.fraction_bits = fraction_bits
        multiple = isa.segment_bytes
        steps = [-(-length // multiple) * (multiple // 4) for length in reading.lengths]
        self._steps = np.cumsum([0, *steps]).astype(np.int64)
        self.stride = 4 * int(self._steps[-1])
        self._panels = -(-self.columns // COLUMNS)
        vectors = crossbar_block(isa, 0)[1]
        self._panels = -(-self._panels // vectors) * vectors
        plain = all(plane.step in (0, 1) for plane in planes) and fraction_bits == 0
        self._noise = noise if any(plane.variance is not None for plane in planes) else None
        check_range(planes, reading)
        self._total_kind = self._kind_of_total()
        self._isa = isa
        self._weights: ConvMaps | None = None
        quiet = plain and self._noise is None
        if quiet and digits_fit_int32(planes, reading) and narrow(planes, isa):
            self._prepare_fast(isa, vectors, certificate=certificate, bits=bits)
        else:
            self._prepare_general(isa, vectors)

    @property
    def positions(self) -> NDArray[np.int64]:
        """Where code k of a row lies in it: every tile begins at a multiple of the instruction set's segments."""
        return np.concatenate(
            [
                4 * int(first) + np.arange(length)
                for first, length in zip(self._steps, self._reading.lengths, strict=False)
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
        if self._weights is not None:
            self._weights(x, out, rows, aligned_empty(self._isa.scratch_bytes // 4, np.int32))
        elif self.path != "general":
            self._run_fast(x, rows, out)
        else:
            # So few rows at a time that their digits stay in the cache while all panels read them.
            chunk = max(1, _CACHED_DIGITS // (self._reads * self.stride * self._block)) * self._block
            for first in range(0, rows, chunk):
                some = slice(first * self.columns, min(first + chunk, rows) * self.columns)
                self._run_general(
                    x[first * self.stride :], min(chunk, rows - first), first_sample + first, out[some]
                )

    def column_sums(self, x: NDArray[np.uint8], rows: int) -> NDArray[np.int64]:
        """What the converters are given, without noise: int64 `(tiles, planes, digits, rows, N)`, for calibration."""
        found = [p for _, _, p in column_sums(self._planes, self._reading, self._codes(x, rows))]
        return np.array(found).reshape(len(self._reading.starts), len(self._planes), *found[0].shape)

    def clipped(self, x: NDArray[np.uint8], rows: int, first_sample: int) -> Clipped:
        """How many of the conversions for `rows` rows are clipped; arguments as in a call. Slow."""
        return clipped_conversions(
            self._planes, self._reading, self._codes(x, rows), self._noise, first_sample
        )

    def _codes(self, x: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
        """Rows of codes `(M, K)` from packed ones."""
        return x[: rows * self.stride].reshape(rows, self.stride)[:, self.positions]

    def _kind_of_total(self) -> np.dtype[Any]:
        """The type that holds the sums of all tiles, digits and planes; they fit int32 in whole levels."""
        total = largest_total(self._planes, self._reading)
        levels = (total + (1 << self.fraction_bits >> 1)) >> self.fraction_bits
        if levels > INT32_MAX:
            raise ValueError(
                f"a column's sum can reach {levels} levels, which passes int32; "
                "use fewer weight bits, or a profile of less noise and smaller steps"
            )
        # A code is shifted left in the type of the sums, by less than its bits.
        shifts = max(plane.step.bit_length() + plane.shift for plane in self._planes) + INPUT_BITS
        return np.dtype(np.int32 if total <= INT32_MAX and shifts < 32 else np.int64)

    def _fits_whole_codes(self) -> bool:
        """Whether a tile's sums of whole codes stay within 2^30."""
        largest = max(plane.largest for plane in self._planes)
        return max(self._reading.lengths) * 255 * largest <= INT32_MAX // 2

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

    def _prepare_fast(self, isa: InstructionSet, vectors: int, *, certificate: bool, bits: bool) -> None:
        self._exact = certificates(self._planes, self._reading, self._panels, given=certificate)
        self.exact_share = float(self._exact[:, :, : -(-self.columns // COLUMNS)].mean())
        planes, everywhere = self._planes, bool(self._exact.all())
        self._weights = self._merged(isa) if everywhere else None
        if self._weights is not None:
            self.path, self._block = "exact product", 1
            return
        largest = max(plane.largest for plane in planes)
        planes_of_bits = max(2, largest.bit_length() + 1)
        self._counts_bits = (
            bits
            and isa.counts_bits
            and self._reading.dac_bits == 1
            and planes_of_bits <= _BIT_PLANES
            and not everywhere
        )
        bytewise = "exact product" if everywhere else "digits multiplied"
        self.path = "bits counted" if self._counts_bits else bytewise
        self._bit_planes = planes_of_bits if self._counts_bits else 0
        self._tile = Tile(isa, vectors, 1, self._bit_planes)
        self._block = crossbar_block(isa, self._bit_planes)[0]
        self._cells = self._layout([plane.cells for plane in planes])
        self._limits = np.array([(plane.low, plane.high) for plane in planes], np.int64)
        self._shifts = np.array([plane.shift for plane in planes], np.int64)
        if self._counts_bits:
            self._prepare_bits()

    def _merged(self, isa: InstructionSet) -> ConvMaps | None:
        """The exact product by the weights that all planes add up to; None where exact layers have no such weights."""
        weight = np.sum([plane.cells.astype(np.int64) << plane.shift for plane in self._planes], axis=0)
        if int(np.abs(weight).max(initial=0)) > _LARGEST_WEIGHT:
            return None
        spread = np.zeros((self.columns, self.stride, 1, 1), np.int16)
        spread[:, self.positions, 0, 0] = weight.T
        maps = MapLayout(self.stride), MapLayout(self.columns)
        return ConvMaps(spread, None, zero_point=0, codes=None, input=maps[0], output=maps[1], isa=isa)

    def _prepare_bits(self) -> None:
        """Cells as bit planes, `[panel][plane][word][bit plane][16]`; tiles at multiples of 32 rows."""
        self._words = np.cumsum([0, *(-(-length // 32) for length in self._reading.lengths)]).astype(np.int64)
        count = int(self._words[-1])
        shape = (len(self._planes), count * 32, self._panels * COLUMNS)
        padded = np.zeros(shape, np.int64)
        for index, plane in enumerate(self._planes):
            for first, start, length in zip(
                self._words, self._reading.starts, self._reading.lengths, strict=False
            ):
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

    def _prepare_general(self, isa: InstructionSet, vectors: int) -> None:
        planes = self._planes
        self.exact_share = 0.0
        self.path = "general"
        self._read_bits, self._reads = self._reading.dac_bits, self._reading.digits
        if self._noise is None and all(plane.step == 0 for plane in planes) and self._fits_whole_codes():
            self.exact_share = 1.0
            self._read_bits, self._reads = INPUT_BITS, 1
        self._tile = Tile(isa, vectors)
        self._block = crossbar_block(isa, 0)[0]
        limits = isa.weight_range
        whole = all(not (plane.cells % (1 << self.fraction_bits)).any() for plane in planes)
        self._cell_shift = self.fraction_bits if whole else 0
        cells = [_byte_parts(plane.cells >> self._cell_shift, limits) for plane in planes]
        self._parts = max(len(parts) for parts in cells)
        self._cells = self._filled(cells, self._parts)
        self._prepare_variances(limits)
        self._converters = np.array([_converter(plane) for plane in planes], np.int64)
        largest = max(self._reading.largest_sum(plane) for plane in planes)
        self._quotient = (np.float32 if largest <= _FLOAT32_CODES else np.float64)(0)
        fours = self._tile.vectors * COLUMNS // 4
        k = np.arange(self._reads * self._block * fours)
        self._counters = (k % fours, k // (fours * self._block), k // fours % self._block)
        keys = np.zeros((len(self._reading.starts), len(self._planes), 2), np.uint32)
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
            bits = aligned_empty(
                self._reading.digits * self.packed_rows(rows) * 4 * int(words[-1]) + STEP_BYTES
            )
            extract_bits(
                x, self.stride, self.packed_rows(rows), self._steps, self._reading.digits, bits, words
            )
        masked, size = None, self.packed_rows(rows) * self.stride
        if self._isa.tile_unit and not self._exact.all():
            masked = aligned_empty(self._reading.digits * size + STEP_BYTES)
            mask_digits(x, size, self._reading.dac_bits, self._reading.digits, masked)
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
            self._reading.dac_bits,
            self._reading.digits,
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
        digits = aligned_empty(self._reads * size + STEP_BYTES)
        squares: tuple[NDArray[np.uint8] | None, NDArray[np.uint8] | None] = (None, None)
        if self._variances is not None and self._read_bits > 1:
            squares = aligned_empty(digits.size), aligned_empty(digits.size)
        _EXTRACT(x, size, self._read_bits, self._reads, digits, *squares)
        if self._variances is not None and self._read_bits == 1:
            squares = digits, digits  # a bit is its own square
        block_rows = self.packed_rows(rows)
        row_squares = np.empty(0, np.int32)
        if self._uniform is not None:
            row_squares = np.empty(len(self._reading.starts) * self._reads * block_rows, np.int32)
            sum_squares(digits, size, self.stride, block_rows, self._steps, self._reads, row_squares)
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
            self._read_bits,
            self._reads,
            self._converters,
            self._quotient,
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
            np.empty(self._reads * sums if self._noise is not None else 0, np.int32),
            self.fraction_bits,
            aligned_empty(sums, np.int32),
            aligned_empty(sums, np.int32),
            aligned_empty(sums, self._total_kind),
            out,
            self.columns,
        )


# Compiled functions, called with tuples of arguments.
_CLIPPED: Any = clipped
_GENERAL: Any = general
_EXTRACT: Any = extract_digits
