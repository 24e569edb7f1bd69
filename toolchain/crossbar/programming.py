"""Programming a tile: from the levels that its cells are meant to have to what they conduct, in fixed point.

Conductances are counted in levels. In this order, for each cell of a tile of highest level L:

1. The on/off ratio: level l is meant to conduct `off + l (L - off) / L` with `off = L / ratio`. Level 0 conducts
   too, which shifts every column's sum by `off` times the sum of its inputs, and a level counts `1 - 1 / ratio`.
   A differential pair cancels the shift; whoever lays weights on a single column has to subtract it.
2. The programming error, with n a standard normal variate for each cell:
       relative    g (1 + sigma n)        in proportion to the state (Xiao et al.)
       absolute    g + sigma n            independent of the state, sigma in levels (the same)
       lognormal   g exp(sigma n)         Liu et al.
   clipped to 0 .. 2 L. A conductance is not negative; twice the highest level is a bound that range proofs can
   take whatever sigma is. Where sigma is large, clipping shifts the mean: an absolute error of sigma raises cells
   that conduct nothing by 0.4 sigma on average.
3. Drift, the power law of phase-change memory (Joshi et al.): `g (t / t0) ** -exponent`.
4. Stuck cells (Chen et al.): at L (on) or at `off` (off), drawn for each cell. They are at the end of the list
   because what holds a cell there is no programmed state: it has no programming error and it does not drift.

T. P. Xiao et al., "On the accuracy of analog neural network inference accelerators", IEEE Circuits and Systems
Magazine 22(4), 2022. B. Liu et al., "Vortex: variation-aware training for memristor X-bar", DAC 2015. V. Joshi et
al., "Accurate deep neural network inference using computational phase-change memory", Nature Communications 11,
2473, 2020. C.-Y. Chen et al., "RRAM defect modeling and failure analysis based on March test and a novel
squeeze-search scheme", IEEE Transactions on Computers 64(1), 2015.

Randomness is by counter: the key holds (seed, layer, tile, slice, polarity), the counter (row, column), so that a
cell is the same whatever else is programmed, in whatever order, on whatever machine: all arithmetic is additions
and products of float64, one by one. A seed is a chip. With the same seed, errors scale with sigma, and a higher
rate of cells that are stuck on keeps those that were stuck at a lower one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...kernels.counter_random import NORMAL_BITS, normal_arrays, philox_arrays, stream_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "CellModel",
    "FixedPointError",
    "cell_key",
    "fixed_point_error",
    "program_cells",
    "to_fixed",
]

ProgrammingKind = Literal["none", "relative", "absolute", "lognormal"]

# The first part of the keys of cells, so that no stream for another purpose shares them.
_PURPOSE = 1


@dataclass(frozen=True)
class CellModel:
    """What a device does to the conductance that was meant; the defaults are an ideal cell.

    Attributes:
        on_off_ratio: Conductance of the highest level over that of level 0, more than 1; None: infinite.
        programming_kind: What the programming error is: none, relative, absolute or lognormal.
        programming_sigma: Its standard deviation: a share, levels, or a share of e.
        stuck_on_rate: Share of cells that stay at the highest level.
        stuck_off_rate: Share of cells that stay at the conductance of level 0.
        drift_time_s: t, seconds from programming to use.
        drift_reference_time_s: t0, seconds from programming to the nominal conductance.
        drift_exponent: Exponent of the power law; 0: no drift.

    Raises:
        ValueError: A number is out of range.
    """

    on_off_ratio: float | None = None
    programming_kind: ProgrammingKind = "none"
    programming_sigma: float = 0.0
    stuck_on_rate: float = 0.0
    stuck_off_rate: float = 0.0
    drift_time_s: float = 1.0
    drift_reference_time_s: float = 1.0
    drift_exponent: float = 0.0

    def __post_init__(self) -> None:
        if self.on_off_ratio is not None and not self.on_off_ratio > 1:
            raise ValueError(f"an on/off ratio is more than 1, not {self.on_off_ratio}")
        if self.programming_kind not in _ERRORS:
            raise ValueError(f"programming errors are {', '.join(_ERRORS)}, not {self.programming_kind!r}")
        if not 0 <= self.programming_sigma < math.inf:
            raise ValueError(f"sigma is a finite number from 0, not {self.programming_sigma}")
        rates = self.stuck_on_rate, self.stuck_off_rate
        if not (min(rates) >= 0 and sum(rates) <= 1):
            raise ValueError(f"shares of stuck cells are not negative and at most 1 together, not {rates}")
        if not 0 < self.drift_reference_time_s <= self.drift_time_s < math.inf:
            raise ValueError(
                f"drift is from {self.drift_reference_time_s} s on, more than 0, not {self.drift_time_s} s"
            )
        if not 0 <= self.drift_exponent < math.inf:
            raise ValueError(f"the exponent of drift is a finite number from 0, not {self.drift_exponent}")

    def off_conductance(self, top_level: int) -> float:
        """What level 0 conducts, in levels."""
        return 0.0 if self.on_off_ratio is None else top_level / self.on_off_ratio

    @property
    def drift_factor(self) -> float:
        """G(t) / G(t0), from 0 to 1; by decimal arithmetic, the same on every machine."""
        with localcontext(prec=40):
            elapsed = Decimal(self.drift_time_s) / Decimal(self.drift_reference_time_s)
            return float(elapsed ** -Decimal(self.drift_exponent))


@dataclass(frozen=True)
class FixedPointError:
    """How far conductances in fixed point are from those in float64, in levels.

    Attributes:
        maximum: The largest difference.
        rms: The root mean square of the differences.
    """

    maximum: float
    rms: float


def cell_key(seed: int, layer: int, tile: int, slice_index: int, polarity: int) -> tuple[int, int]:
    """The key of the random numbers of one tile's cells.

    Args:
        seed: The chip.
        layer: Number of the layer in the program.
        tile: Number of the tile in the layer.
        slice_index: Which digits of the weights its cells hold.
        polarity: Which column of a differential pair: 0 or 1.
    """
    return stream_key(seed, _PURPOSE, layer, tile, slice_index, polarity)


def program_cells(
    levels: NDArray[np.uint8], top_level: int, cell: CellModel, key: tuple[int, int]
) -> NDArray[np.float64]:
    """What the cells of a tile conduct once they are programmed.

    Args:
        levels: uint8 `(R, C)`: the levels they are meant to have.
        top_level: The highest level, 1 to 255.
        cell: What the device does.
        key: The key of `cell_key`. Cell (r, c) takes the block of the counter `(r, c, 0, 0)`: its first word is
            for the programming error, its second for being stuck.

    Returns:
        float64 `(R, C)`, in levels, from 0 to `2 * top_level`.

    Raises:
        TypeError: The levels are not uint8.
        ValueError: They are not an array of two axes, or not levels of such a cell.
    """
    _check_levels(levels, top_level)
    off = cell.off_conductance(top_level)
    rows, columns = (np.arange(length, dtype=np.uint32) for length in levels.shape)
    error_words, stuck_words, _, _ = philox_arrays(rows[:, np.newaxis], columns, 0, 0, key)

    target = off + levels.astype(np.float64) * ((top_level - off) / top_level)
    n = normal_arrays(error_words).astype(np.float64) * 2.0**-NORMAL_BITS
    programmed = _ERRORS[cell.programming_kind](target, cell.programming_sigma, n)
    drifted = np.clip(programmed, 0.0, 2.0 * top_level) * cell.drift_factor

    stuck_on = stuck_words < _threshold(cell.stuck_on_rate)
    stuck = stuck_words < _threshold(cell.stuck_on_rate + cell.stuck_off_rate)
    return np.where(stuck, np.where(stuck_on, float(top_level), off), drifted)


def to_fixed(conductances: NDArray[np.float64], fraction_bits: int) -> NDArray[np.int32]:
    """Conductances in units of `2 ** -fraction_bits` of a level, rounded half to even.

    Raises:
        ValueError: One is not finite or does not fit 32 bits, or the number of bits is negative.
    """
    if fraction_bits < 0:
        raise ValueError(f"conductances have 0 fraction bits or more, not {fraction_bits}")
    units = np.rint(conductances * 2.0**fraction_bits)
    if not (np.abs(units) < 2.0**31).all():  # not of NaN either
        raise ValueError(f"a conductance with {fraction_bits} fraction bits does not fit 32 bits")
    return units.astype(np.int32)


def fixed_point_error(
    conductances: NDArray[np.float64], fixed: NDArray[np.int32], fraction_bits: int
) -> FixedPointError:
    """What rounding to fixed point changed."""
    if not conductances.size:
        return FixedPointError(0.0, 0.0)
    difference = fixed * 2.0**-fraction_bits - conductances
    return FixedPointError(float(np.abs(difference).max()), math.sqrt(float(np.mean(difference**2))))


def _check_levels(levels: NDArray[np.uint8], top_level: int) -> None:
    if levels.dtype != np.uint8:
        raise TypeError(f"levels are uint8, not {levels.dtype}")
    if levels.ndim != 2:
        raise ValueError(f"the levels of a tile have two axes, not {levels.ndim}")
    if not 1 <= top_level <= 255:
        raise ValueError(f"the highest level of a cell is 1 to 255, not {top_level}")
    if levels.size and levels.max() > top_level:
        raise ValueError(f"found level {levels.max()}; the highest is {top_level}")


def _threshold(rate: float) -> int:
    """Below how many of the 2^32 values of a word a cell is one of a share."""
    return math.floor(min(rate, 1.0) * 2.0**32)


def _none(g: NDArray[np.float64], sigma: float, n: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: ARG001
    return g


def _relative(g: NDArray[np.float64], sigma: float, n: NDArray[np.float64]) -> NDArray[np.float64]:
    return g * (1.0 + sigma * n)


def _absolute(g: NDArray[np.float64], sigma: float, n: NDArray[np.float64]) -> NDArray[np.float64]:
    return g + sigma * n


def _lognormal(g: NDArray[np.float64], sigma: float, n: NDArray[np.float64]) -> NDArray[np.float64]:
    return g * _exponential(sigma * n)


_ERRORS: dict[str, Callable[[NDArray[np.float64], float, NDArray[np.float64]], NDArray[np.float64]]] = {
    "none": _none,
    "relative": _relative,
    "absolute": _absolute,
    "lognormal": _lognormal,
}

_LOG2_E = 1.4426950408889634
# ln 2 in two parts; the first has 32 bits, so that its products with whole exponents are exact.
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_TERMS = 14


def _exponential(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural exponential within 2 units in the last place, by float64 products and additions alone.

    NumPy's own differs in the last place between instruction sets. x is limited to -700 .. 700.

        x = k ln 2 + r, |r| <= ln 2 / 2;   e^x = 2^k (1 + r (1 + r / 2 (1 + r / 3 (...))))
    """
    x = np.clip(x, -700.0, 700.0)
    k = np.rint(x * _LOG2_E)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.ones_like(r)
    for term in range(_TERMS, 0, -1):
        total = 1.0 + total * r / term
    return np.ldexp(total, k.astype(np.int32))
