"""Limits and step of an ADC as integers, so that a conversion is integer arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import NamedTuple

__all__ = ["AdcLimits", "codes", "full_range", "window"]


class AdcLimits(NamedTuple):
    """A conversion: `code = clip(rint(p / step), low, high)`, half to even, read as `code * step`.

    Attributes:
        low: Lowest code.
        high: Highest code.
        step: Units of a code, at least 1. A column sum p and the step are counted in units of `2**-F` of a level
            (`cell.fraction_bits`); a step of `2**F` units is one level.
    """

    low: int
    high: int
    step: int


def codes(bits: int, *, signed: bool) -> tuple[int, int]:
    """Return the lowest and highest code: `-2**(b-1)..2**(b-1) - 1` signed, `0..2**b - 1` unsigned."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def full_range(bits: int, *, signed: bool, largest: int) -> AdcLimits:
    """Return the smallest step, a power of two units, at which no sum of at most `largest` units is clipped."""
    low, high = codes(bits, signed=signed)
    step = 1
    while round(Fraction(largest, step)) > high:
        step *= 2
    return AdcLimits(low, high, step)


def window(bits: int, low: Fraction, high: Fraction, step: int | None = None) -> AdcLimits:
    """Return the codes nearest to the limits of a range, and those between: what it holds is clipped, then rounded.

    Args:
        bits: Resolution of the ADC: the step that follows from it makes at most `2**bits` codes.
        low: Lower limit, in units.
        high: Upper limit, in units; not below `low`.
        step: Units of a code; None: `(high - low) / (2**bits - 1)`, rounded up to a whole unit.
    """
    if step is not None:
        return AdcLimits(round(low / step), round(high / step), step)
    step = max(1, ceil((high - low) / (2**bits - 1)))
    lowest = round(low / step)
    return AdcLimits(lowest, min(round(high / step), lowest + 2**bits - 1), step)
