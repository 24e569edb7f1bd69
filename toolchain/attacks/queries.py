"""The judge as an attack by queries sees it: one image at a time, answers counted, within a budget.

What an attack asks about is what a device can be shown: pixels are rounded to codes before the judge sees them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .epsilon import distances, inside
from .gradient import rounded
from .protocols import predicted, scores_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from .base import Problem
    from .epsilon import Norm

__all__ = ["Interview", "InterviewOver", "decided_scores", "image_seed"]


class InterviewOver(Exception):  # noqa: N818 - it ends an algorithm that has no other end, and is no error
    """The budget is spent, or there is nothing left to ask."""


class Interview:
    """Queries about one image of a problem.

    Args:
        problem: Images, labels and judge.
        index: Which image.
        budget: How many answers the judge gives.
        norm: What measures distances.

    Attributes:
        asked: How many answers were given.
        best: The best image so far, uint8: for labels the nearest that the judge gets wrong, for logits the one of
            the ball with the least margin; the clean one at first.
    """

    def __init__(self, problem: Problem, index: int, budget: int, norm: Norm) -> None:
        self._judge = problem.judge
        self._original = problem.images[index : index + 1]
        self._label = int(problem.labels[index])
        self._radius = problem.radius
        self._norm: Norm = norm
        self._budget = budget
        self._least = np.inf
        self.asked = 0
        self.best = self._original[0]

    def wrong(self, pixels: Tensor) -> NDArray[np.bool_]:
        """Return which of `pixels`, `(n, ...)` in [0, 1], the judge gets wrong; it tells labels alone.

        Raises:
            InterviewOver: The budget does not suffice for all of them; those within it were asked about.
        """
        codes = self._allowed(pixels)
        wrong = np.asarray(predicted(self._judge, codes, len(codes)) != self._label)
        if wrong.any():
            far = np.where(wrong, distances(codes, self._original, self._norm), np.inf)
            self._keep(codes, far)
        self._end(pixels, codes)
        return wrong

    def logits(
        self, pixels: Tensor, scores: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    ) -> NDArray[Any]:
        """Return the judge's logits of `pixels`, as `decided_scores` gives them.

        Raises:
            InterviewOver: An image of the ball is wrong, or the budget does not suffice.
        """
        codes = self._allowed(pixels)
        logits = scores(codes)
        others = np.delete(logits, self._label, axis=1).max(axis=1)
        margins = (logits[:, self._label] - others).astype(np.float64)
        margins[~inside(codes, self._original, self._radius, self._norm)] = np.inf
        self._keep(codes, margins)
        self._end(pixels, codes)
        if self._least < 0:
            raise InterviewOver
        return logits

    def _allowed(self, pixels: Tensor) -> NDArray[np.uint8]:
        left = self._budget - self.asked
        if left <= 0:
            raise InterviewOver
        codes = rounded(pixels[:left])
        self.asked += len(codes)
        return codes

    def _end(self, pixels: Tensor, codes: NDArray[np.uint8]) -> None:
        if len(codes) < len(pixels):
            raise InterviewOver

    def _keep(self, codes: NDArray[np.uint8], value: NDArray[np.float64]) -> None:
        first = int(np.argmin(value))
        if value[first] < self._least:
            self._least, self.best = float(value[first]), codes[first]


def decided_scores(problem: Problem, attack: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return what gives a judge's logits, ties decided: the label's is the one largest, by one unit in the last place.

    Attacks call a margin of 0 a success; a device that breaks ties by the lowest class may not.

    Raises:
        DataError: The judge tells labels alone.
    """
    scores = scores_of(problem.judge, attack)

    def decided(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = np.array(scores(codes), np.float32)
        rows, label = np.arange(len(logits)), logits.argmax(axis=1)
        logits[rows, label] = np.nextafter(logits[rows, label], np.float32(np.inf))
        return logits

    return decided


def image_seed(problem: Problem, index: int) -> int:
    """The seed of one image of a problem."""
    return int(np.random.SeedSequence([problem.seed, index]).generate_state(1)[0])
