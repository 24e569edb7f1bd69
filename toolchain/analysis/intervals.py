"""Confidence intervals of a share of images: an accuracy over a few hundred images is an estimate."""

from __future__ import annotations

import math
from statistics import NormalDist

from ...errors import DataError

__all__ = ["wilson"]


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share (Wilson 1927, J. Amer. Statist. Assoc. 22, 209-212).

    With p = correct / n and z the normal quantile of (1 + confidence) / 2, its ends are

        (p + z**2 / 2n  -+  z sqrt(p (1 - p) / n + z**2 / 4n**2)) / (1 + z**2 / n).

    Unlike the interval p -+ z sqrt(p (1 - p) / n) it does not shrink to a point at 0 % and 100 %.

    Args:
        correct: How many of the images were right.
        n: How many images there were. Of none, nothing is known: the interval is (0, 1).
        confidence: In (0, 1).

    Returns:
        The lower and upper end, as shares in [0, 1].

    Raises:
        DataError: `correct` is not in 0..n, or the confidence is not between 0 and 1.
    """
    if not 0 <= correct <= n:
        raise DataError(f"found {correct} correct of {n} images; expected a count from 0 to {n}")
    if not 0 < confidence < 1:
        raise DataError(
            f"found a confidence of {confidence}; expected a number between 0 and 1, such as 0.95"
        )
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends of the range the formula gives 0 and 1 exactly, floating point a hair beside them.
    low = 0.0 if correct == 0 else (centre - half) / scale
    high = 1.0 if correct == n else (centre + half) / scale
    return low, high
