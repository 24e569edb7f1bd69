"""Square (Andriushchenko et al. 2020, arXiv:1912.00049), from the package pyautoattack: the judge's logits alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import DataError, RecipeError
from .autoattack import pyautoattack
from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH
from .norms import PYAUTOATTACK
from .protocols import scores_of
from .settings import check_count, check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from .epsilon import Norm
    from .protocols import Judge

__all__ = ["Square"]

# With norm "2" an image is laid out in tiles of a fifth of its height.
_TILES = 5


@dataclass(frozen=True)
class Square(Attack):
    """Random squares of the largest change, kept where the margin falls.

    Attributes:
        budget: How many answers of the judge an image may take, the first one included.
        p_init: Share of pixels of the first squares.
        rescale: Whether squares shrink by the share of the budget that is spent, rather than by the 10,000 answers that
            the schedule was made for.
    """

    name: ClassVar[str] = "square"
    norms: ClassVar[tuple[Norm, ...]] = ("inf", "2")
    needs_gradient: ClassVar[bool] = False

    budget: int = 5000
    p_init: float = 0.8
    rescale: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "budget", self.budget, low=2)
        check_positive(self.name, "p_init", self.p_init)
        if not isinstance(self.rescale, bool):
            raise RecipeError(f"{self.name}: rescale is {self.rescale!r}; expected true or false")

    def check(self, judge: Judge, image_shape: tuple[int, ...], classes: int | None) -> None:  # noqa: ARG002
        """Refuse judges without logits and images without height and width."""
        pyautoattack("square")
        scores_of(judge, self.name)
        lowest = _TILES if self.norm == "2" else 1
        if len(image_shape) != 3 or min(image_shape[1:]) < lowest:
            raise DataError(
                f"{self.name}: found images of shape {image_shape}; expected (C, H, W), height and width at least "
                f"{lowest}"
            )

    def run(self, problem: Problem) -> Found:
        """Return float32 pixels in [0, 1], the ones of least margin, and how many answers each image took."""
        import torch

        from .gradient import rounded, seeded
        from .queries import decided_scores

        scores = decided_scores(problem, self.name)

        def predict(pixels: Tensor) -> Tensor:
            return torch.from_numpy(scores(rounded(pixels)))

        attack = pyautoattack("square").SquareAttack(
            predict,
            norm=PYAUTOATTACK[self.norm],
            n_queries=self.budget - 1,
            eps=problem.radius / PIXEL_HIGH,
            p_init=self.p_init,
            seed=problem.seed,
            resc_schedule=self.rescale,
        )
        pixels = torch.from_numpy(problem.images).float() / PIXEL_HIGH
        with seeded(problem.seed):
            attack.init_hyperparam(pixels)
            # Its `perturb` asks about every image twice more, and does not tell how often it asked.
            asked, found = attack.attack_single_run(pixels, torch.from_numpy(problem.labels))
        return Found(found.numpy(), queries=np.asarray(asked.numpy(), np.int64))
