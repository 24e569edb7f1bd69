"""Numbers as the report writes them: grouped digits, percent with as many digits as the images carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..analysis.intervals import wilson

if TYPE_CHECKING:
    from .accuracy import Accuracy

__all__ = [
    "FILTERS",
    "amount",
    "decimal",
    "interval",
    "number",
    "percent",
    "points",
    "points_between",
    "radius",
]

_NARROW_SPACE = "\u202f"
_SPACE = "\u00a0"
_MINUS = "\u2212"
_DASH = "\u2013"
_LARGEST = 1e15
"""From here on numbers keep their exponent."""
_FINE = 1000
"""From this many images on, a percentage has two decimals; below, one."""


def number(value: float) -> str:
    """Return a number with its digits grouped in threes."""
    return f"{value:,}".replace(",", _NARROW_SPACE).replace("-", _MINUS)


def amount(count: float, singular: str, plural: str | None = None) -> str:
    """Return a count with its noun."""
    return f"{number(count)}{_SPACE}{singular if count == 1 else plural or singular + 's'}"


def _digits(images: int) -> int:
    return 2 if images >= _FINE else 1


def percent(correct: int, images: int) -> str:
    """Return a share in percent, or a dash of no images."""
    if not images:
        return _DASH
    return f"{100 * correct / images:.{_digits(images)}f}{_SPACE}%"


def interval(correct: int, images: int) -> str:
    """Return the 95 % Wilson interval in percent."""
    low, high = (f"{100 * end:.{_digits(images)}f}" for end in wilson(correct, images))
    return f"{low}{_DASH}{high}{_SPACE}%"


def share(value: float, images: int) -> str:
    """Return a share of images in percent."""
    return f"{100 * value:.{_digits(images)}f}{_SPACE}%"


def ends(row: Accuracy) -> str:
    """Return the interval of an accuracy in percent."""
    low, high = (f"{100 * end:.{_digits(row.images)}f}" for end in (row.low, row.high))
    return f"{low}{_DASH}{high}{_SPACE}%"


def points(difference: int, images: int) -> str:
    """Return a difference of `difference` out of `images` in percentage points, with its sign."""
    if not images:
        return _DASH
    text = f"{100 * difference / images:+.{_digits(images)}f}"
    return f"{'±0' if not difference else text.replace('-', _MINUS)}{_SPACE}points"


def points_between(difference: float, low: float, high: float, images: int) -> str:
    """Return a difference of shares, and its interval, in percentage points."""
    texts = [f"{100 * value:+.{_digits(images)}f}" for value in (difference, low, high)]
    middle, lowest, highest = (text.replace("-", _MINUS) for text in texts)
    return f"{'±0' if not difference else middle} ({lowest} to {highest}){_SPACE}points"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return `digits` significant digits, or the nearest integer where that has more; a dash for None."""
    if value is None:
        return _DASH
    if 10**digits <= abs(value) < _LARGEST:
        return number(round(value))
    text = f"{value:#.{digits}g}".rstrip(".")
    return text.replace("-", _MINUS)


def radius(codes: float) -> str:
    """Return a radius in codes: a whole number as it is, others with two decimals."""
    return number(int(codes)) if float(codes).is_integer() else number(round(codes, 2))


FILTERS = {
    "amount": amount,
    "decimal": decimal,
    "ends": ends,
    "interval": interval,
    "number": number,
    "percent": percent,
    "points": points,
    "radius": radius,
    "share": share,
}
"""For templates."""
