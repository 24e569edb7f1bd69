"""The radius of an attack, in pixel codes, and the ball of images within it.

A device sees pixel codes; a ball of `epsilon` in [0, 1] is, to it, the ball of `floor(255 epsilon)` codes.
"""

from __future__ import annotations

import math
import numbers
import re
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

__all__ = ["PIXEL_HIGH", "Norm", "distances", "parse_epsilon", "project"]

PIXEL_HIGH = 255
# 76 / 255 * 255 may come out just below 76, and a code must not be lost to that.
_FLOAT_SLACK = 1e-9
_RATIO = re.compile(r"(\d+(?:\.\d*)?)\s*/\s*(\d+(?:\.\d*)?)")

Norm = Literal["inf", "none"]
"""What bounds an attack: the largest change of a pixel, or nothing (noise of a given strength)."""


def parse_epsilon(value: float | str) -> int:
    """Return a radius in pixel codes.

    Args:
        value: An integer is codes (`8`); a float, at most 1.0, is a fraction of the pixel range
            (`0.3` is `floor(255 * 0.3) = 76` codes). Text means the same, and may be a ratio (`"8/255"`).

    Raises:
        RecipeError: The value is negative, over 255 codes, over 1.0 for a float, or not a number.
    """
    number = _number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise _refused(value)
    if isinstance(number, numbers.Integral):
        codes = int(number)
        if not 0 <= codes <= PIXEL_HIGH:
            raise _refused(value)
        return codes
    if not 0.0 <= number <= 1.0:
        raise _refused(value)
    return math.floor(PIXEL_HIGH * float(number) + _FLOAT_SLACK)


def project(
    codes: NDArray[np.integer[Any]], original: NDArray[np.uint8], radius: int, norm: Norm
) -> NDArray[np.uint8]:
    """Return the image nearest to `codes` that is a uint8 image within `radius` of the `original`.

    Args:
        codes: Integers of any range, of the shape of `original`.
        original: The clean images, `(N, ...)`.
        radius: In codes.
        norm: What bounds the change; with "none" only the range of pixels does.
    """
    inside = _PROJECTIONS[norm](codes.astype(np.int64), original.astype(np.int64), radius)
    return np.clip(inside, 0, PIXEL_HIGH).astype(np.uint8)


def distances(images: NDArray[np.uint8], original: NDArray[np.uint8], norm: Norm) -> NDArray[np.int64]:
    """Return each image's distance from its original, int64 `(N,)`; 0 where nothing bounds the change."""
    return _DISTANCES[norm](images.astype(np.int64) - original.astype(np.int64))


def _project_inf(codes: NDArray[np.int64], original: NDArray[np.int64], radius: int) -> NDArray[np.int64]:
    return np.clip(codes, original - radius, original + radius)


def _project_none(codes: NDArray[np.int64], _original: NDArray[np.int64], _radius: int) -> NDArray[np.int64]:
    return codes


def _distance_inf(change: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.asarray(np.abs(change).max(axis=tuple(range(1, change.ndim)), initial=0))


def _distance_none(change: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.zeros(len(change), np.int64)


_PROJECTIONS: Mapping[str, Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.int64]]] = {
    "inf": _project_inf,
    "none": _project_none,
}
_DISTANCES: Mapping[str, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "inf": _distance_inf,
    "none": _distance_none,
}


def _number(text: str) -> int | float:
    ratio = _RATIO.fullmatch(text.strip())
    try:
        if ratio is not None:
            return float(ratio[1]) / float(ratio[2])
        return int(text) if text.strip().lstrip("+-").isdecimal() else float(text)
    except (ValueError, ZeroDivisionError):
        raise _refused(text) from None


def _refused(value: object) -> RecipeError:
    return RecipeError(
        f"epsilon {value!r}: expected an integer number of pixel codes (0 to {PIXEL_HIGH}) "
        "or a fraction of the pixel range (0.0 to 1.0, or a ratio such as 8/255)"
    )
