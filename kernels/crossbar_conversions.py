"""Every conversion of a crossbar by itself, in NumPy: what converters are given, and how often they clip.

The kernels add codes up and keep none. This is slow and looks at each of them, with the same bits:

    p(tile, plane, digit, row, col) = sum over the tile's rows of  digit(q) * cell  +  read noise

Where the noise cannot decide whether a sum clips (a variate of the table is below 8) it is not drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .counter_random import NORMAL_SCALE, normal_arrays, philox_arrays
from .crossbar_planes import VARIANCE_BITS, rounded_codes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from .crossbar_planes import Reading, ReadNoise, ReadPlane

__all__ = ["Clipped", "clipped_conversions", "column_sums"]

_LARGEST_VARIATE = 8


class Clipped(NamedTuple):
    """Conversions, and how many of them were clipped.

    Attributes:
        reads: All of them.
        low: Those below the lowest code.
        high: Those above the highest.
    """

    reads: int
    low: int
    high: int


def column_sums(
    planes: Sequence[ReadPlane], reading: Reading, codes: NDArray[np.uint8]
) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """What converters are given without noise, for rows of codes `(M, K)`: tile, plane, int64 `(digits, M, N)`."""
    shown = _digits(reading, codes)
    for t, (start, length) in enumerate(zip(reading.starts, reading.lengths, strict=True)):
        rows = slice(start, start + length)
        for index, plane in enumerate(planes):
            # float64 holds every sum exactly: none passes int32.
            yield t, index, (shown[:, :, rows] @ plane.cells[rows].astype(np.float64)).astype(np.int64)


def clipped_conversions(
    planes: Sequence[ReadPlane],
    reading: Reading,
    codes: NDArray[np.uint8],
    noise: ReadNoise | None,
    first_sample: int,
) -> Clipped:
    """Count the conversions for rows of codes `(M, K)`, of which the first is sample `first_sample`."""
    reads = low = high = 0
    squares = None if noise is None else _digits(reading, codes) ** 2
    for t, index, p in column_sums(planes, reading, codes):
        plane = planes[index]
        reads += p.size
        if plane.step == 0:
            continue
        if noise is not None and plane.variance is not None and squares is not None:
            start = reading.starts[t]
            rows = slice(start, start + reading.lengths[t])
            variance = squares[:, :, rows] @ plane.variance[rows].astype(np.float64)
            _disturb(p, variance, plane, reading, noise.keys[t][index], first_sample)
        found = rounded_codes(p, plane.step)
        low += int((found < plane.low).sum())
        high += int((found > plane.high).sum())
    return Clipped(reads, low, high)


def _digits(reading: Reading, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Every digit by itself, `(digits, M, K)`."""
    first = np.arange(reading.digits)[:, np.newaxis, np.newaxis] * reading.dac_bits
    return ((codes >> first) & reading.largest_digit).astype(np.float64)


def _disturb(
    p: NDArray[np.int64],
    variance: NDArray[np.float64],
    plane: ReadPlane,
    reading: Reading,
    key: tuple[int, int],
    first_sample: int,
) -> None:
    """Add the read noise to sums `(digits, M, N)` where it decides: `rint(sqrt(variance) * scale * z)`, in float32."""
    scale = np.float32(2.0 ** (reading.fraction_bits - VARIANCE_BITS / 2) / NORMAL_SCALE)
    spread = np.sqrt(variance.astype(np.float32)) * scale
    most = np.ceil(spread * np.float32(_LARGEST_VARIATE * NORMAL_SCALE)).astype(np.int64)
    below, above = rounded_codes(p - most, plane.step), rounded_codes(p + most, plane.step)
    open_ = ((below < plane.low) & (above >= plane.low)) | ((below <= plane.high) & (above > plane.high))
    digit, row, column = np.nonzero(open_)
    sample = first_sample + row
    words = np.stack(philox_arrays(column // 4, digit, sample & 0xFFFFFFFF, sample >> 32, key))
    z = normal_arrays(words[column % 4, np.arange(column.size)]).astype(np.float32)
    p[open_] += np.rint(spread[open_] * z).astype(np.int64)
