"""HopSkipJump (Chen, Jordan, Wainwright 2020, arXiv:1904.02144), from cleverhans: the judge's labels alone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH, distances
from .norms import ORDER
from .settings import check_count, check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from .epsilon import Norm
    from .queries import Interview

__all__ = ["HopSkipJump"]

# Random images that are tried as a start; what a network makes of noise, it makes of most noise.
_STARTS = 10


@dataclass(frozen=True)
class HopSkipJump(Attack):
    """Walks along the boundary of the judge's labels, ever nearer to the clean image.

    It starts at random pixels that the judge gets wrong, or at the nearest image of the batch with another label. Of
    everything that was asked about, the nearest image that the judge got wrong is returned. The budget ends what
    cleverhans would not: its search for a step halves for ever where an estimated gradient is 0.

    Attributes:
        steps: Of the walk.
        initial_evaluations: Points for the first estimate of a gradient; the `j`-th takes `sqrt(j)` times as many.
        max_evaluations: The most points for an estimate.
        gamma: Sets how closely the boundary is searched for, and how far the points of an estimate lie.
        budget: How many answers of the judge an image may take.
    """

    name: ClassVar[str] = "hop-skip-jump"
    norms: ClassVar[tuple[Norm, ...]] = ("inf", "2")
    needs_gradient: ClassVar[bool] = False

    steps: int = 64
    initial_evaluations: int = 100
    max_evaluations: int = 10_000
    gamma: float = 1.0
    budget: int = 5000

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("steps", "initial_evaluations", "max_evaluations", "budget"):
            check_count(self.name, setting, getattr(self, setting))
        check_positive(self.name, "gamma", self.gamma)

    def run(self, problem: Problem) -> Found:
        """Return codes, which need not lie in the ball, and how many answers each image took."""
        from .gradient import seeded
        from .queries import Interview, InterviewOver, image_seed

        interviews = [
            Interview(problem, index, self.budget, self.norm) for index in range(len(problem.images))
        ]
        for index, interview in enumerate(interviews):
            with seeded(image_seed(problem, index)), suppress(InterviewOver):
                self._walk(problem, index, interview)
        nearest = np.stack([interview.best for interview in interviews])
        return Found(nearest, queries=np.array([interview.asked for interview in interviews], np.int64))

    def _walk(self, problem: Problem, index: int, interview: Interview) -> None:
        import torch
        from cleverhans.torch.attacks.hop_skip_jump_attack import hop_skip_jump_attack

        def model(pixels: Tensor) -> Tensor:
            # Two classes, right and wrong.
            return torch.nn.functional.one_hot(torch.from_numpy(interview.wrong(pixels)).long(), 2)

        start = self._start(problem, index, interview)
        if start is None:
            return
        hop_skip_jump_attack(
            model,
            torch.from_numpy(problem.images[index : index + 1]).float() / PIXEL_HIGH,
            ORDER[self.norm],
            image_target=start[None],
            initial_num_evals=self.initial_evaluations,
            max_num_evals=self.max_evaluations,
            num_iterations=self.steps,
            # For L-infinity cleverhans takes the least of a tensor and this.
            gamma=torch.tensor(self.gamma) if self.norm == "inf" else self.gamma,
            # It reads the norm here and not where it is named so.
            constraint=ORDER[self.norm],
            verbose=False,
        )

    def _start(self, problem: Problem, index: int, interview: Interview) -> Tensor | None:
        """Pixels `(1, ...)` that the judge gets wrong, if there are any at hand."""
        import torch

        original = problem.images[index : index + 1]
        for _ in range(_STARTS):
            noise = torch.rand(original.shape)
            if interview.wrong(noise)[0]:
                return noise
        others = problem.images[problem.labels != problem.labels[index]]
        if not len(others):
            return None
        nearest = int(np.argmin(distances(others, np.broadcast_to(original, others.shape), self.norm)))
        return torch.from_numpy(others[nearest : nearest + 1]).float() / PIXEL_HIGH
