"""The radius of an attack, in pixel codes, and the ball of images within it.

A device sees pixel codes; an L-infinity ball of `epsilon` in [0, 1] is, to it, the ball of `floor(255 epsilon)`
codes. An L2 radius is a real number of codes (2.0 in unit pixels is 510 codes): whether an image lies within it is
decided on the integers, `sum(change^2) <= radius^2`.
"""

from __future__ import annotations

import math
import numbers
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PIXEL_HIGH", "Norm", "distances", "inside", "parse_epsilon", "project"]

PIXEL_HIGH = 255
# 76 / 255 * 255 may come out just below 76, and a code must not be lost to that.
_FLOAT_SLACK = 1e-9
_RATIO = re.compile(r"(\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)")

Norm = Literal["inf", "2", "none"]
"""What bounds an attack: the largest change of a pixel, the Euclidean length of the change, or nothing."""


def parse_epsilon(value: float | str, norm: Norm = "inf") -> float:
    """Return a radius in pixel codes: an integer, but for norm "2".

    Args:
        value: An integer is codes (`8`); a float is a part of the pixel range (`0.3` is `floor(255 * 0.3) = 76`
            codes). Text means the same, and may be a ratio (`"8/255"`).
        norm: With "2" a float may pass 1.0 and is not rounded down (`2.0` is 510 codes), and an integer may
            pass 255.

    Raises:
        RecipeError: The value is negative, not a number, or, but for norm "2", over 255 codes or 1.0 for a float.
    """
    number = _number(value, norm) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise _refused(value, norm)
    integral = isinstance(number, numbers.Integral)
    highest = math.inf if norm == "2" else PIXEL_HIGH if integral else 1.0
    if not (0 <= number <= highest and math.isfinite(number)):
        raise _refused(value, norm)
    if integral:
        return int(number)
    codes = PIXEL_HIGH * float(number)
    if norm == "2":
        return float(round(codes)) if abs(codes - round(codes)) < _FLOAT_SLACK else codes
    return math.floor(codes + _FLOAT_SLACK)


def project(codes: NDArray[Any], original: NDArray[np.uint8], radius: float, norm: Norm) -> NDArray[np.uint8]:
    """Return a uint8 image within `radius` of the `original`, near `codes`.

    With "inf" and "none" it is the nearest one. With "2", where the rounded image lies outside, the change is made
    along the straight line from the original, pixel code by pixel code in the order in which the line passes the
    half-way points between codes, until the next code would leave the ball.

    Args:
        codes: Codes of any range, integers or floats (which say more where radii are small), of the shape of
            `original`.
        original: The clean images, `(N, ...)`.
        radius: In codes.
        norm: What bounds the change; with "none" only the range of pixels does.
    """
    rounded = np.clip(np.rint(codes), 0, PIXEL_HIGH).astype(np.int64)
    centre = original.astype(np.int64)
    if norm == "inf":
        # An interval between integers: the order of rounding and clipping does not matter.
        nearest = np.clip(rounded, centre - int(radius), centre + int(radius))
        return np.asarray(nearest.astype(np.uint8))
    if norm == "2":
        limit = _squared(radius)
        for index in np.flatnonzero(_squares(rounded - centre) > limit):
            rounded[index] = _along_line(codes[index], centre[index], limit)
    return np.asarray(rounded.astype(np.uint8))


def distances(images: NDArray[np.uint8], original: NDArray[np.uint8], norm: Norm) -> NDArray[np.float64]:
    """Return each image's distance from its original in codes, float64 `(N,)`; 0 where nothing bounds it."""
    change = images.astype(np.int64) - original.astype(np.int64)
    if norm == "inf":
        return _largest(change).astype(np.float64)
    if norm == "2":
        return np.asarray(np.sqrt(_squares(change).astype(np.float64)))
    return np.zeros(len(change))


def inside(
    images: NDArray[np.uint8], original: NDArray[np.uint8], radius: float, norm: Norm
) -> NDArray[np.bool_]:
    """Return which images lie within `radius` codes of their originals, bool `(N,)`, decided on integers."""
    change = images.astype(np.int64) - original.astype(np.int64)
    if norm == "inf":
        return np.asarray(_largest(change) <= radius)
    if norm == "2":
        return np.asarray(_squares(change) <= _squared(radius))
    return np.ones(len(change), np.bool_)


def steps_along(
    target: NDArray[Any], centre: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the way from an image to `rint(target)`, one code of one pixel at a time.

    Args:
        target: Where the straight line ends, in codes, clipped to [0, 255].
        centre: Where it starts, int64, of the same shape.

    Returns:
        For each step the flat index of its pixel and the square that it adds to the squared distance (`2 j - 1` for
        the j-th code of a pixel), in the order in which the line passes the half-way points between codes; steps
        passed at once are ordered by pixel.
    """
    change = np.clip(target, 0, PIXEL_HIGH).astype(np.float64).ravel() - centre.ravel()
    length = np.abs(change)
    counts = np.abs(np.clip(np.rint(target), 0, PIXEL_HIGH).ravel() - centre.ravel()).astype(np.int64)
    pixels = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(pixels)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    order = np.argsort((number - 0.5) / length[pixels], kind="stable")
    return pixels[order], (2 * number - 1)[order]


def walked(
    target: NDArray[Any], centre: NDArray[np.int64], pixels: NDArray[np.int64], steps: int
) -> NDArray[np.int64]:
    """Return the image after the first `steps` of `steps_along(target, centre)`, int64."""
    taken = np.bincount(pixels[:steps], minlength=centre.size)
    direction = np.sign(np.asarray(target, np.float64).ravel() - centre.ravel()).astype(np.int64)
    return (centre.ravel() + direction * taken).reshape(centre.shape)


def _along_line(target: NDArray[Any], centre: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    pixels, squares = steps_along(target, centre)
    # Squared lengths are whole numbers below 2^53, so that their running sum is exact.
    within = int(np.searchsorted(np.cumsum(squares), limit, side="right"))
    return walked(target, centre, pixels, within)


def _squared(radius: float) -> int:
    """The largest integer that is at most the square of the radius, exactly."""
    return math.floor(Fraction(radius) ** 2)


def _squares(change: NDArray[np.int64]) -> NDArray[np.int64]:
    flat = change.reshape(len(change), -1)
    return np.asarray(np.einsum("ni,ni->n", flat, flat))


def _largest(change: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.abs(change).max(axis=tuple(range(1, change.ndim)), initial=0))


def _number(text: str, norm: Norm) -> int | float:
    ratio = _RATIO.fullmatch(text.strip())
    try:
        if ratio is not None:
            return float(ratio[1]) / float(ratio[2])
        return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except (ValueError, ZeroDivisionError):
        raise _refused(text, norm) from None


def _refused(value: object, norm: Norm) -> RecipeError:
    if norm == "2":
        expected = "a number of pixel codes, or, as a float, of pixel ranges, from 0 on"
    else:
        expected = (
            f"an integer number of pixel codes (0 to {PIXEL_HIGH}) "
            "or a fraction of the pixel range (0.0 to 1.0, or a ratio such as 8/255)"
        )
    return RecipeError(f"epsilon {value!r}: expected {expected}")
