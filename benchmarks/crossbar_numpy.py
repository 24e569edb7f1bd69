"""What a crossbar reads, simulated by NumPy: in float32 at its best, and with read noise for comparison only.

The simulation makes one BLAS product for each tile, digit and plane of cells, then rounds where there is something to
round, clips and adds, in place and in memory that is there before it starts. Bits of the codes are extracted once.
Where cells are whole levels, a bit keeps its weight (it is 0 or 2^d, and the limits are 2^d times theirs), so that
nothing is rounded or shifted. Sums stay below 2^24, where float32 is exact.

Small figures are timed on one thread of BLAS: see `one_blas_thread`.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ohmfold.kernels.counter_random import NORMAL_SCALE, normal_arrays, philox_arrays
from ohmfold.kernels.crossbar import VARIANCE_BITS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ohmfold.kernels.crossbar import ReadNoise, ReadPlane

__all__ = ["DIGITS", "Blas", "NumpyCrossbar", "noisy_sums", "one_blas_thread"]

# Passes of one bit that apply an 8-bit code.
DIGITS = 8

# What says how many threads BLAS has, where threadpoolctl is not installed.
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Blas:
    """What multiplies for NumPy.

    Attributes:
        library: Its name and version.
        kernel: The processor that it takes this one for, which decides what code runs.
        threads: How many it has while figures are measured.
        variables: What the environment says to it.
    """

    library: str
    kernel: str
    threads: int
    variables: dict[str, str]


@contextmanager
def one_blas_thread() -> Iterator[Blas]:
    """Limit NumPy's BLAS to one thread, and say what it is.

    Raises:
        SystemExit: threadpoolctl is not installed, and the environment does not limit it either.
    """
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith("OPENBLAS_") or name in THREAD_VARIABLES
    }
    try:
        import threadpoolctl
    except ImportError:
        if not any(variables.get(name) == "1" for name in THREAD_VARIABLES):
            raise SystemExit(
                "error: NumPy's BLAS must run on one thread: install threadpoolctl, or start Python with "
                f"the one of these that it listens to set to 1: {', '.join(THREAD_VARIABLES)}"
            ) from None
        yield Blas("unknown, without threadpoolctl", "unknown", 1, variables)
        return
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        found = [one for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]
        (about,) = [one for one in found if "numpy" in one["filepath"]][:1] or found[:1] or [{}]
        yield Blas(
            f"{about.get('internal_api', 'unknown')} {about.get('version') or ''}".strip(),
            str(about.get("architecture", "unknown")),
            int(about.get("num_threads", 1)),
            variables,
        )


class NumpyCrossbar:
    """A crossbar read for rows of codes, bit by bit, in float32.

    Args:
        codes: uint8 `(M, K)`.
        planes: What is read. A code of the converter is one level.
        tile_rows: Rows of a tile.
        tile_columns: Columns of the weight matrix that a tile holds.
        fraction_bits: F: cells are in units of 2^-F of a level.

    Raises:
        ValueError: A converter's step is not one level, or a sum could pass 2^24.
    """

    def __init__(
        self,
        codes: NDArray[np.uint8],
        planes: Sequence[ReadPlane],
        *,
        tile_rows: int,
        tile_columns: int,
        fraction_bits: int = 0,
    ) -> None:
        depth, columns = planes[0].cells.shape
        unit = 1 << fraction_bits
        if any(plane.step != unit for plane in planes):
            raise ValueError("the simulation's converters have steps of one level")
        self._codes, self._planes = codes, tuple(planes)
        self._whole = all((plane.cells % unit == 0).all() for plane in planes)
        self._rows = [slice(start, start + tile_rows) for start in range(0, depth, tile_rows)]
        self._check_range()
        self._columns = [slice(start, start + tile_columns) for start in range(0, columns, tile_columns)]
        self._cells = [
            [
                [
                    np.ascontiguousarray(plane.cells[rows, across], np.float32)
                    * np.float32(2.0 ** (plane.shift * self._whole - fraction_bits))
                    for plane in planes
                ]
                for across in self._columns
            ]
            for rows in self._rows
        ]
        count = len(codes)
        self._masked = np.empty_like(codes)
        self._bits = [np.empty((DIGITS, count, codes[:, rows].shape[1]), np.float32) for rows in self._rows]
        widths = [len(range(*across.indices(columns))) for across in self._columns]
        self._products = {width: np.empty((count, width), np.float32) for width in widths}
        self._totals = [np.empty((count, width), np.float32) for width in widths]

    def __call__(self) -> list[NDArray[np.float32]]:
        """Read it: the sums `(M, columns of a tile)`, tile by tile across."""
        self._extract_bits()
        for total in self._totals:
            total.fill(0)
        for bits, tiles in zip(self._bits, self._cells, strict=True):
            for planes, total in zip(tiles, self._totals, strict=True):
                product = self._products[total.shape[1]]
                for cells, plane in zip(planes, self._planes, strict=True):
                    for digit in range(DIGITS):
                        np.matmul(bits[digit], cells, out=product)
                        self._convert(product, plane, digit)
                        np.add(total, product, out=total)
        return self._totals

    def products_alone(self) -> None:
        """The same BLAS products, and nothing else."""
        for bits, tiles in zip(self._bits, self._cells, strict=True):
            for planes, total in zip(tiles, self._totals, strict=True):
                product = self._products[total.shape[1]]
                for cells in planes:
                    for digit in range(DIGITS):
                        np.matmul(bits[digit], cells, out=product)

    def sums(self) -> NDArray[np.int64]:
        """Read it: int64 `(M, N)`."""
        return np.concatenate(self(), axis=1).astype(np.int64)

    def clipped_share(self) -> float:
        """Share of the conversions that clip."""
        self._extract_bits()
        clipped = reads = 0
        for bits, tiles in zip(self._bits, self._cells, strict=True):
            for planes in tiles:
                for cells, plane in zip(planes, self._planes, strict=True):
                    for digit in range(DIGITS):
                        product = bits[digit] @ cells
                        scale = self._scale(plane, digit) if self._whole else 1
                        product = np.rint(product / scale)
                        clipped += int(((product < plane.low) | (product > plane.high)).sum())
                        reads += product.size
        return clipped / reads

    def _check_range(self) -> None:
        """Refuse sums that float32 does not hold exactly; powers of two that all of them have do not count."""
        columns = [
            int(np.abs(plane.cells[rows].astype(np.int64)).sum(axis=0).max(initial=0))
            for plane in self._planes
            for rows in self._rows
        ]
        codes = sum(max(abs(plane.low), abs(plane.high)) << plane.shift for plane in self._planes)
        if max(*columns, 255 * len(self._rows) * codes) >= 2**24:
            raise ValueError("a sum can pass 2^24, up to which float32 is exact")

    def _extract_bits(self) -> None:
        """Bits of the codes, as the products read them; where cells are whole, with their weight."""
        for digit in range(DIGITS):
            np.bitwise_and(self._codes, np.uint8(1 << digit), out=self._masked)
            if not self._whole:
                np.right_shift(self._masked, np.uint8(digit), out=self._masked)
            for rows, bits in zip(self._rows, self._bits, strict=True):
                bits[digit] = self._masked[:, rows]

    def _scale(self, plane: ReadPlane, digit: int) -> int:
        return 1 << (plane.shift + digit)

    def _convert(self, product: NDArray[np.float32], plane: ReadPlane, digit: int) -> None:
        """What a converter makes of sums, in place, and its weight."""
        scale = self._scale(plane, digit)
        if self._whole:
            np.clip(product, np.float32(plane.low * scale), np.float32(plane.high * scale), out=product)
            return
        np.rint(product, out=product)
        np.clip(product, np.float32(plane.low), np.float32(plane.high), out=product)
        np.multiply(product, np.float32(scale), out=product)


def noisy_sums(
    codes: NDArray[np.uint8],
    planes: Sequence[ReadPlane],
    noise: ReadNoise,
    *,
    tile_rows: int,
    fraction_bits: int,
) -> NDArray[np.int64]:
    """The sums with read noise, int64 `(M, N)`, drawn with NumPy alone. Slow: to compare with, not to be timed.

    The noise of a sample is `rint(sqrt(variance) * z)` in units of 2^-F, each step one float32 operation.
    """
    count, columns = len(codes), planes[0].cells.shape[1]
    total = np.zeros((count, columns), np.int64)
    scale = np.float32(2.0 ** (fraction_bits - VARIANCE_BITS / 2) / NORMAL_SCALE)
    samples, fours = np.arange(count)[:, np.newaxis], np.arange(-(-columns // 4))
    for tile, start in enumerate(range(0, len(planes[0].cells), tile_rows)):
        rows = slice(start, start + tile_rows)
        for number, plane in enumerate(planes):
            for digit in range(DIGITS):
                bits = ((codes[:, rows] >> digit) & 1).astype(np.float64)
                value = (bits @ plane.cells[rows]).astype(np.int64)
                if plane.variance is not None:
                    words = np.stack(
                        philox_arrays(fours, digit, samples, 0, noise.keys[tile][number]), axis=-1
                    )
                    z = normal_arrays(words.reshape(count, -1)[:, :columns]).astype(np.float32)
                    variance = (bits @ plane.variance[rows]).astype(np.float32)
                    value += np.rint(np.sqrt(variance) * scale * z).astype(np.int64)
                total += _read(value, plane) << (plane.shift + digit)
    return np.rint(total / (1 << fraction_bits)).astype(np.int64)


def _read(value: NDArray[np.int64], plane: ReadPlane) -> NDArray[np.int64]:
    """What a converter makes of sums; step 0 is an ideal one."""
    if not plane.step:
        return value
    return np.clip(np.rint(value / plane.step), plane.low, plane.high).astype(np.int64) * plane.step
