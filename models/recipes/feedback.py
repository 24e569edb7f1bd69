"""Feedback learning: retraining on samples placed at the decision boundary, more of them where margins are small."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from ...errors import RecipeError
from ..checks import require_integer, require_number
from ..image_data import Dataset
from ..margins import (
    Crossings,
    class_directions,
    crossings,
    pair_margins,
    quotas,
    random_directions,
)
from ..network import Network, pixels_of
from .base import Method

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from ..training import TrainingResult
    from .base import Run

__all__ = ["Feedback"]

_log = logging.getLogger(__name__)
_BATCH = 500
_JUDGED = 500


@dataclass(frozen=True, kw_only=True)
class Feedback(Method):
    """Boundary-based retraining, the paper's F.L.

    Its source, Song, Wang, Li, "Feedback Learning for Improving the Robustness of Neural Networks" (ICMLA 2019),
    is known here by its idea alone: measure distances to the decision boundary, generate examples from them,
    more for classes with smaller margins, retrain. This is our reading of it. In each round:

    1. For correctly classified training images, the distance to the boundary is found by bisection along the
       steepest directions toward the nearest other classes and along random ones (`models.margins`).
    2. The mean distance of each pair (class, class beyond) is its margin; the pair's quota of new samples is in
       inverse proportion to it.
    3. A new sample lies on such a segment at t r, r the distance and t uniform in [`nearest`, 1 + `overshoot`]:
       before the boundary and slightly past it, with the true label. Where no boundary was met, t is at most 1.
    4. The original network is trained again, on the data and all new samples so far.

    Attributes:
        rounds: How often; the settings of the loop (epochs, learning rate) are those of each round.
        measured: How many images are measured in a round.
        share: New samples of a round, as a share of the data.
        bound: Largest distance that is searched, max norm, of pixels in [0, 1].
        bisections: Halvings.
        toward: How many of the nearest other classes each image is led toward.
        random: How many random directions each image has.
        nearest: Least t.
        overshoot: How far past the boundary, as a share of the distance.

    Raises:
        RecipeError: A setting is out of its range.
    """

    name: ClassVar[str] = "feedback"

    rounds: int = 3
    measured: int = 10000
    share: float = 0.5
    bound: float = 0.3
    bisections: int = 8
    toward: int = 2
    random: int = 1
    nearest: float = 0.5
    overshoot: float = 0.2

    def __post_init__(self) -> None:
        for field, least in (("rounds", 1), ("measured", 1), ("bisections", 1), ("toward", 1), ("random", 0)):
            require_integer(field, getattr(self, field), least)
        require_number("share", self.share, 0.0, inclusive=False)
        require_number("bound", self.bound, 0.0, inclusive=False, below=1.0)
        require_number("nearest", self.nearest, 0.0, below=1.0)
        require_number("overshoot", self.overshoot, 0.0)

    def fit(self, model: nn.Module, data: Dataset, seed: int, run: Run) -> TrainingResult:
        """Measure, generate, retrain from the original; `rounds` times."""
        original = copy.deepcopy(model.state_dict())
        generator = torch.Generator().manual_seed(seed)
        grown, results = data, []
        for number in range(1, self.rounds + 1):
            grown = _joined(grown, self.samples(model, data, generator))
            model.load_state_dict(original)
            results.append(run(model, grown, _Round(feedback=self), f"round-{number}"))
        return results[-1]

    def samples(self, model: nn.Module, data: Dataset, generator: Generator) -> Dataset:
        """Return the new samples of one round for the network as it is.

        Args:
            model: What is measured, in evaluation mode and float32.
            data: The images that are measured, and of whose number `share` is taken.
            generator: Of the images, directions and places.
        """
        chosen = torch.randperm(len(data), generator=generator)[: self.measured].numpy()
        measured = data.take(chosen)
        found = self.measure(Network(model), measured, generator)
        # The network may have outputs for classes of which there are no images.
        classes = max(data.classes, int(found.other.max()) + 1)
        margins = pair_margins(found, classes, self.bound)
        segments = torch.zeros(classes, classes, dtype=torch.bool)
        segments[found.label, found.other] = True
        quota = quotas(margins, segments, round(self.share * len(data)))
        _log.info("mean distance %.4f over %d segments", float(found.distance.mean()), len(found))
        return self._placed(measured, found, quota, generator)

    def measure(self, network: Network, data: Dataset, generator: Generator) -> Crossings:
        """Return the segments of the correctly classified images of a data set, to the boundary."""
        parts = []
        with network.evaluating():
            for first in range(0, len(data), _BATCH):
                pixels = pixels_of(torch.from_numpy(data.images[first : first + _BATCH]))
                labels = torch.from_numpy(data.labels[first : first + _BATCH])
                with torch.no_grad():
                    kept = torch.nonzero(network(pixels).argmax(1) == labels)[:, 0]
                if len(kept):
                    for part in self._segments(network, pixels[kept], labels[kept], generator):
                        start = kept[part.start] + first
                        parts.append(
                            Crossings(
                                start, part.label, part.other, part.distance, part.crossed, part.direction
                            )
                        )
        if not parts:
            raise RecipeError(
                f"feedback: the network classifies none of {len(data)} images correctly, so there is no boundary to "
                "measure; start from a trained one (--init)"
            )
        return Crossings.joined(parts)

    def _segments(
        self, network: Network, pixels: Tensor, labels: Tensor, generator: Generator
    ) -> list[Crossings]:
        directions: list[tuple[Tensor, Tensor | None]] = [
            *class_directions(network, pixels, labels, self.toward)
        ]
        directions += [(random_directions(tuple(pixels.shape), generator), None) for _ in range(self.random)]
        return [
            crossings(network, pixels, labels, direction, aims, bound=self.bound, bisections=self.bisections)
            for direction, aims in directions
        ]

    def _placed(self, data: Dataset, found: Crossings, quota: Tensor, generator: Generator) -> Dataset:
        """Put each pair's quota of samples on its segments, drawn evenly, with replacement where there are few."""
        chosen = []
        for label, other in torch.nonzero(quota).tolist():
            segments = torch.nonzero((found.label == label) & (found.other == other))[:, 0]
            count = int(quota[label, other])
            order = torch.randperm(len(segments), generator=generator)
            chosen.append(segments[order.repeat(-(-count // len(segments)))[:count]])
        picked = torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)
        highest = torch.where(found.crossed[picked], 1 + self.overshoot, 1.0)
        t = self.nearest + (highest - self.nearest) * torch.rand(len(picked), generator=generator)
        start = found.start[picked].numpy()
        codes = torch.from_numpy(data.images[start]).float()
        distance = (255 * t * found.distance[picked])[:, None, None, None]
        moved = (codes + distance * found.direction[picked]).round().clamp(0, 255)
        return Dataset(
            "boundary samples", moved.to(torch.uint8).numpy(), data.labels[start], data.class_names
        )


@dataclass(frozen=True, kw_only=True)
class _Round(Method):
    """Retraining on data and boundary samples; after each epoch the mean distance on test images is measured."""

    name: ClassVar[str] = "feedback-round"

    feedback: Feedback

    def figures(self, network: Network, test: Dataset) -> dict[str, float]:
        """Return the mean distance to the boundary over the first test images."""
        first = test.take(np.arange(min(_JUDGED, len(test))))
        found = self.feedback.measure(network, first, torch.Generator().manual_seed(0))
        return {"mean_distance": float(found.distance.mean())}


def _joined(data: Dataset, more: Dataset) -> Dataset:
    images = np.concatenate([data.images, more.images])
    return Dataset(data.name, images, np.concatenate([data.labels, more.labels]), data.class_names)
