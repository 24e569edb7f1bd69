"""Random noise: what an image withstands when nobody means it harm. The baseline beside every attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import Attack, Found, Problem

if TYPE_CHECKING:
    from .epsilon import Norm

__all__ = ["GaussianNoise", "UniformNoise"]


@dataclass(frozen=True)
class UniformNoise(Attack):
    """Each pixel moves by an integer drawn evenly from `-epsilon..epsilon` codes, clipped to [0, 255]."""

    name: ClassVar[str] = "uniform-noise"
    needs_gradient: ClassVar[bool] = False

    def run(self, problem: Problem) -> Found:
        """Return codes, not yet clipped."""
        generator = np.random.default_rng(problem.seed)
        radius = int(problem.radius)
        noise = generator.integers(-radius, radius, size=problem.images.shape, endpoint=True)
        return Found(problem.images + noise)


@dataclass(frozen=True)
class GaussianNoise(Attack):
    """Normal noise with a standard deviation of `epsilon` codes, rounded and clipped to [0, 255].

    A normal variate has no bound, so the images leave the ball of `epsilon` codes: the result's norm is
    "none", and it does not count towards a worst case over the ball.
    """

    name: ClassVar[str] = "gaussian-noise"
    norms: ClassVar[tuple[Norm, ...]] = ("none",)
    needs_gradient: ClassVar[bool] = False

    norm: Norm = field(default="none", kw_only=True)

    def parameters(self, radius: float) -> dict[str, Any]:
        """The standard deviation, in codes."""
        return {"std_codes": radius}

    def run(self, problem: Problem) -> Found:
        """Return codes, not yet clipped."""
        generator = np.random.default_rng(problem.seed)
        noise = generator.normal(0.0, problem.radius, size=problem.images.shape)
        return Found(problem.images + np.rint(noise).astype(np.int64))
