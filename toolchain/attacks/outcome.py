"""What an attack achieved, image by image, and what is left standing after several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from .epsilon import Norm, distances, inside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["AttackResult", "worst_case"]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack achieved, image by image.

    Attributes:
        name: The attack's name.
        norm: What bounds the change: "inf" for the largest change of a pixel, "2" for the change's Euclidean
            length, "none" for nothing.
        radius: In codes (with norm "none": the strength that the attack made of it); a whole number but for norm "2".
        seed: What the attack was called with.
        parameters: The attack's settings as they were used.
        original: The clean images, uint8 `(N, ...)`.
        adversarial: The attacked images, uint8. Images that were not attacked are untouched.
        labels: int64 `(N,)`.
        clean_predictions: The judge's labels of `original`, int64 `(N,)`.
        predictions: The judge's labels of `adversarial`, int64 `(N,)`.
        source: Who gave the gradient: "twin", "parent", "unmapped", "substitute:NAME"; "queries" for the judge's own
            answers, "none" for noise.
        attacked: Which images were attacked, bool `(N,)`: not those that the judge had already got wrong, nor those
            that the caller left out.
        kept_earlier: Which adversarial images are an earlier iterate, since the last one failed, bool `(N,)`.
        margins: `label's logit - largest other` on the gradient source, float32 `(iterates, N)`, NaN where not
            attacked; the last row is the last iterate's. None for attacks whose iterates are not whole batches.
        queries: How many answers of the judge each image took, int64 `(N,)`; None for attacks that do not query.
    """

    name: str
    norm: Norm
    radius: float
    seed: int
    parameters: Mapping[str, Any]
    original: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    labels: NDArray[np.int64]
    clean_predictions: NDArray[np.int64]
    predictions: NDArray[np.int64]
    source: str
    attacked: NDArray[np.bool_]
    kept_earlier: NDArray[np.bool_]
    margins: NDArray[np.float32] | None = None
    queries: NDArray[np.int64] | None = None

    @property
    def epsilon_codes(self) -> float:
        """The radius in codes."""
        return self.radius

    @cached_property
    def success(self) -> NDArray[np.bool_]:
        """Which images are misclassified, those that were so before the attack included."""
        return np.asarray(self.predictions != self.labels)

    @property
    def accuracy(self) -> float:
        """Share of all images that the judge still classifies correctly."""
        return float(np.mean(~self.success))

    @property
    def clean_accuracy(self) -> float:
        """Share of the clean images that the judge classifies correctly."""
        return float(np.mean(self.clean_predictions == self.labels))

    def distances(self, norm: Norm = "2") -> NDArray[np.float64]:
        """Return how far each adversarial image lies from its original, in codes, after rounding, `(N,)`.

        Infinite where the attack failed; 0 where the judge had already got the clean image wrong.
        """
        far = distances(self.adversarial, self.original, norm)
        return np.where(self.success, far, math.inf)

    def accuracy_within(self, radius: float, norm: Norm = "2") -> float:
        """Return the share of images without an adversarial one within `radius` codes, decided on integers."""
        within = inside(self.adversarial, self.original, radius, norm)
        return float(np.mean(~(self.success & within)))


def worst_case(results: Sequence[AttackResult]) -> NDArray[np.bool_]:
    """Return, for each image, whether it withstood every one of the attacks, bool `(N,)`.

    The robust accuracy of a set of attacks is the mean of this, never the least of their accuracies.
    Results that nothing bounds (norm "none") do not count: they left the ball.

    Raises:
        DataError: There is no result, or they are not of the same images, labels, norm and radius.
    """
    if not results:
        raise DataError("no attack results; expected at least one")
    first = results[0]
    robust: NDArray[np.bool_] = np.asarray(first.clean_predictions == first.labels)
    balls = [(result.norm, result.radius) for result in results if result.norm != "none"]
    for result in results:
        same = np.array_equal(result.labels, first.labels) and np.array_equal(result.original, first.original)
        if not same or (result.norm != "none" and (result.norm, result.radius) != balls[0]):
            raise DataError(
                f"{result.name} and {first.name} attacked different images or at different radii or norms"
            )
        if result.norm != "none":
            robust = robust & ~result.success
    return robust
