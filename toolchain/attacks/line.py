"""The straight line from an image to an adversarial one, in pixel codes: where on it the judge's label changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .epsilon import PIXEL_HIGH, steps_along, walked
from .protocols import predicted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .base import Problem

__all__ = ["first_success"]


def first_success(
    problem: Problem, targets: NDArray[Any], beyond: float = 0.0
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return for each image the first one that the judge gets wrong on the way to its target, found by bisection.

    The way goes from the clean image to the rounded target in changes of one code of one pixel, in the order in which
    the straight line passes the half-way points between codes. Of several changes of label bisection finds one:
    the image before the one returned is right. What rounding undid is looked for further along the line.

    Args:
        problem: Images, labels and judge.
        targets: Where the lines lead, in codes, `(N, ...)`.
        beyond: How many codes the largest change of an image may grow where the target itself is right.

    Returns:
        uint8 images, clean ones where no success was found, and where it was, bool `(N,)`.
    """
    centres = problem.images.astype(np.int64)
    ends = _extended(targets, centres, beyond)
    ways = [steps_along(end, centre)[0] for end, centre in zip(ends, centres, strict=True)]

    def at(steps: NDArray[np.int64]) -> NDArray[np.uint8]:
        images = [
            walked(end, centre, way, count)
            for end, centre, way, count in zip(ends, centres, ways, steps.tolist(), strict=True)
        ]
        return np.stack(images).astype(np.uint8)

    def wrong(steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        images = at(steps)
        return np.asarray(predicted(problem.judge, images, len(images)) != problem.labels)

    whole = np.array([len(way) for way in ways], np.int64)
    # Where the target itself succeeds, the way ends there.
    target = np.array(
        [len(steps_along(end, centre)[0]) for end, centre in zip(targets, centres, strict=True)], np.int64
    )
    at_target = wrong(target)
    high = np.where(at_target, target, whole)
    found = at_target | wrong(whole) if beyond else at_target
    low = np.zeros_like(high)
    while np.any(found & (high - low > 1)):
        middle = (low + high) // 2
        success = wrong(np.where(found, middle, 0))
        high = np.where(found & success, middle, high)
        low = np.where(found & ~success, middle, low)
    return at(np.where(found, high, 0)), found


def _extended(targets: NDArray[Any], centres: NDArray[np.int64], beyond: float) -> NDArray[np.float64]:
    change = np.clip(targets, 0, PIXEL_HIGH).astype(np.float64) - centres
    largest = np.abs(change).max(axis=tuple(range(1, change.ndim)), keepdims=True)
    return np.asarray(centres + change * (1 + beyond / np.maximum(largest, 1.0)))
