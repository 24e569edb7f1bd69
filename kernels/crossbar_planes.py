"""What a crossbar reads, and the bounds of its sums: what can pass int32, and where no input reaches a limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .isa.base import COLUMNS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .isa.base import InstructionSet

__all__ = [
    "INPUT_BITS",
    "INT32_MAX",
    "VARIANCE_BITS",
    "ReadNoise",
    "ReadPlane",
    "Reading",
    "certificates",
    "check_range",
    "digits_fit_int32",
    "largest_total",
    "narrow",
    "rounded_codes",
]

# Variances of cells are integers in units of 2^-12 of a squared level.
VARIANCE_BITS = 12

INPUT_BITS = 8
INT32_MAX = 2**31 - 1


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

    @property
    def largest(self) -> int:
        """The largest cell, without its sign."""
        return int(np.abs(self.cells.astype(np.int64)).max(initial=0))


@dataclass(frozen=True)
class ReadNoise:
    """Keys of the read noise: two uint32 words for each tile and plane, `keys[tile][plane]`."""

    keys: tuple[tuple[tuple[int, int], ...], ...] = field(repr=False)


@dataclass(frozen=True)
class Reading:
    """How planes are read.

    Attributes:
        starts: First row of every tile.
        lengths: Its rows.
        dac_bits: Bits of a digit.
        fraction_bits: F.
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]
    dac_bits: int
    fraction_bits: int

    @classmethod
    def of(cls, depth: int, tile_rows: int, dac_bits: int, fraction_bits: int) -> Reading:
        """Tiles of `tile_rows` rows, the last with what is left."""
        starts = tuple(range(0, depth, tile_rows))
        return cls(starts, tuple(min(tile_rows, depth - start) for start in starts), dac_bits, fraction_bits)

    @property
    def digits(self) -> int:
        """Digits of a code."""
        return -(-INPUT_BITS // self.dac_bits)

    @property
    def largest_digit(self) -> int:
        """The largest of one."""
        return (1 << self.dac_bits) - 1

    def noise(self, plane: ReadPlane) -> int:
        """The most that read noise adds to a sum: a normal variate of the table is below 8."""
        if plane.variance is None:
            return 0
        spread = math.sqrt(max(self.lengths) * float(plane.variance.max(initial=0))) * self.largest_digit
        return math.ceil(8 * spread * float(2.0 ** (self.fraction_bits - VARIANCE_BITS / 2)))

    def largest_sum(self, plane: ReadPlane) -> int:
        """What no sum of a tile and digit passes, with noise, in units of 2^-F of a level."""
        return max(self.lengths) * self.largest_digit * plane.largest + self.noise(plane)


def check_range(planes: list[ReadPlane], reading: Reading) -> None:
    """Refuse sums of a tile and digit, codes and variances that could pass int32.

    Raises:
        ValueError: One could.
    """
    digit, rows = reading.largest_digit, max(reading.lengths)
    for plane in planes:
        noise = 0 if plane.variance is None else int(plane.variance.max(initial=0))
        if rows * digit * plane.largest > INT32_MAX // 2:
            raise ValueError(
                f"{rows} rows of cells up to {plane.largest} units, at {digit} a digit, can pass int32; "
                "use fewer rows, DAC bits or fraction bits"
            )
        if plane.step > INT32_MAX or max(0, plane.low, -plane.high) * plane.step > INT32_MAX // 2:
            raise ValueError(f"a converter's code of {plane.step} units, from {plane.low} on, can pass int32")
        if rows * digit * digit * noise > INT32_MAX // 2:
            raise ValueError(
                "the variance of a column's read noise can pass int32; use fewer rows or less noise"
            )


def largest_total(planes: list[ReadPlane], reading: Reading) -> int:
    """What no column's sum over all tiles, digits and planes passes, in units of 2^-F of a level.

    A conversion never falls as its sum rises, so a column's total is largest where every digit drives its positive
    cells alone, and least where every digit drives the negative ones. With one plane and without noise both are
    reached: rounding to codes and limits add what they really can, and a step above all sums adds nothing.
    """
    most = np.zeros(planes[0].cells.shape[1], np.int64)
    least = most.copy()
    for plane in planes:
        noise = reading.noise(plane)
        for start, length in zip(reading.starts, reading.lengths, strict=True):
            cells = plane.cells[start : start + length].astype(np.int64)
            above, below = np.maximum(cells, 0).sum(axis=0), np.minimum(cells, 0).sum(axis=0)
            for first in range(0, INPUT_BITS, reading.dac_bits):
                digit = min(reading.largest_digit, 255 >> first)
                most += _converted(digit * above + noise, plane) << (first + plane.shift)
                least += _converted(digit * below - noise, plane) << (first + plane.shift)
    return max(int(most.max(initial=0)), -int(least.min(initial=0)))


def rounded_codes(p: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """`rint(p / step)`, half to even, in whole numbers."""
    code = p // step
    twice = 2 * (p - code * step)
    rounded: NDArray[np.int64] = code + ((twice > step) | ((twice == step) & (code & 1 == 1)))
    return rounded


def _converted(p: NDArray[np.int64], plane: ReadPlane) -> NDArray[np.int64]:
    """What a plane's converter makes of sums."""
    if plane.step == 0:
        return p
    return np.clip(rounded_codes(p, plane.step), plane.low, plane.high) * plane.step


def digits_fit_int32(planes: list[ReadPlane], reading: Reading) -> bool:
    """Whether sums of digits that are not shifted down, and the whole sum, stay within int32."""
    total = sum(
        int(np.abs(plane.cells.astype(np.int64)).sum(axis=0).max(initial=0)) << plane.shift
        for plane in planes
    )
    scale = reading.dac_bits * (reading.digits - 1)
    # A clipped digit is no further from zero than the limits or the sum itself, whichever is nearer; limits that
    # exclude zero move it away, by at most themselves.
    moved = sum(
        max(0, plane.low, -plane.high) << (plane.shift + reading.dac_bits * digit)
        for plane in planes
        for digit in range(reading.digits)
    ) * len(reading.starts)
    limits = max(max(abs(plane.low), abs(plane.high)) for plane in planes)
    return bool(total * 255 + moved <= INT32_MAX and limits << scale <= INT32_MAX)


def narrow(planes: list[ReadPlane], isa: InstructionSet) -> bool:
    """Whether every cell is a byte that the instruction set multiplies exactly."""
    low, high = isa.weight_range
    return all(
        plane.cells.size == 0 or (plane.cells.min() >= low and plane.cells.max() <= high) for plane in planes
    )


def certificates(
    planes: list[ReadPlane], reading: Reading, panels: int, *, given: bool = True
) -> NDArray[np.bool_]:
    """Where no input can reach a limit: `[tile][plane][panel]`.

    Unless `given`, only where there is no limit.
    """
    exact = np.zeros((len(reading.starts), len(planes), panels), np.bool_)
    digit = reading.largest_digit
    for index, plane in enumerate(planes):
        for t, (start, length) in enumerate(zip(reading.starts, reading.lengths, strict=True)):
            cells = plane.cells[start : start + length].astype(np.int64)
            most = digit * np.where(cells > 0, cells, 0).sum(axis=0)
            least = digit * np.where(cells < 0, cells, 0).sum(axis=0)
            safe = (most <= plane.high) & (least >= plane.low)
            if plane.step == 0:
                safe[...] = True
            elif not given:
                safe[...] = False
            padded = np.ones(panels * COLUMNS, np.bool_)
            padded[: cells.shape[1]] = safe
            exact[t, index] = padded.reshape(-1, COLUMNS).all(axis=1)
    return exact
