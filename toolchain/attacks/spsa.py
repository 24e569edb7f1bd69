"""SPSA (Uesato et al. 2018, arXiv:1802.05666), from cleverhans: gradients estimated from the judge's logits."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH
from .norms import ORDER
from .protocols import scores_of
from .settings import check_count, check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from .epsilon import Norm
    from .protocols import Judge

__all__ = ["SPSA"]


@dataclass(frozen=True)
class SPSA(Attack):
    """Adam along estimates of the margin's gradient, from differences of the judge's logits at random points.

    Each image is attacked alone: an estimate summed over a batch is of no image's gradient. It ends at the first image
    of the ball that the judge gets wrong; where there is none, the one with the least margin is returned.

    Attributes:
        steps: Adam's.
        samples: Pairs of points for an estimate: a step takes `2 samples + 1` answers.
        learning_rate: Adam's.
        delta: How far the points lie, in unit pixels, each pixel alone.
        budget: How many answers of the judge an image may take.
    """

    name: ClassVar[str] = "spsa"
    norms: ClassVar[tuple[Norm, ...]] = ("inf", "2")
    needs_gradient: ClassVar[bool] = False

    steps: int = 100
    samples: int = 128
    learning_rate: float = 0.01
    delta: float = 0.01
    budget: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("steps", "samples", "budget"):
            check_count(self.name, setting, getattr(self, setting))
        check_positive(self.name, "learning_rate", self.learning_rate)
        check_positive(self.name, "delta", self.delta)

    def check(self, judge: Judge, image_shape: tuple[int, ...], classes: int | None) -> None:  # noqa: ARG002
        """Refuse judges without logits."""
        scores_of(judge, self.name)

    def run(self, problem: Problem) -> Found:
        """Return codes of the ball, and how many answers each image took."""
        import torch
        from cleverhans.torch.attacks.spsa import spsa

        from .gradient import seeded
        from .queries import Interview, InterviewOver, decided_scores, image_seed

        scores = decided_scores(problem, self.name)
        pixels = torch.from_numpy(problem.images).float() / PIXEL_HIGH
        labels = torch.from_numpy(problem.labels)
        interviews = [
            Interview(problem, index, self.budget, self.norm) for index in range(len(problem.images))
        ]
        for index, interview in enumerate(interviews):

            def model(points: Tensor, interview: Interview = interview) -> Tensor:
                return torch.from_numpy(interview.logits(points, scores))

            with seeded(image_seed(problem, index)), suppress(InterviewOver):
                spsa(
                    model,
                    pixels[index : index + 1],
                    problem.radius / PIXEL_HIGH,
                    self.steps,
                    ORDER[self.norm],
                    0.0,
                    1.0,
                    y=labels[index : index + 1],
                    learning_rate=self.learning_rate,
                    delta=self.delta,
                    spsa_samples=self.samples,
                    sanity_checks=False,
                )
        best = np.stack([interview.best for interview in interviews])
        return Found(best, queries=np.array([interview.asked for interview in interviews], np.int64))
