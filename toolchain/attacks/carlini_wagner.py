"""The L2 attack of Carlini and Wagner (2017, arXiv:1608.04644), from cleverhans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import RecipeError
from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH, distances
from .line import first_success
from .settings import check_count, check_positive

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .base import GradientSource
    from .epsilon import Norm
    from .gradient import Posed

__all__ = ["CarliniWagnerL2"]

_UNBOUNDED = 1e9
# What rounding to codes undoes, one or two codes more of the largest change bring back.
_NUDGE = 2.0


@dataclass(frozen=True)
class CarliniWagnerL2(Attack):
    """The nearest adversarial image that Adam finds, the constant between distance and success found by a search.

    With the clean image `x`, the label `y`, the logits `Z` and the confidence `k`, for each sample:

        minimise over w:  |x' - x|^2 + c max(Z(x')[y] - max over i != y of Z(x')[i] + k, 0)
        x' = (tanh(w) + 1) / 2

    `c` starts at `initial_const`; it grows tenfold until there is a success, and is bisected from then on.

    cleverhans weights every sample's loss by the *sum* of the batch's constants, and goes on from one search step to
    the next with Adam's moments and with the image it had. With `reset`, the default, each search step is a call of
    its own from the clean image, and each sample's logits are scaled by its own constant, which is the same as to
    weight its loss.

    Distances count after rounding. Of all iterates that the source gets wrong, the one whose codes lie nearest is
    taken, then moved back along the line to the clean image as far as the judge stays wrong; one that rounding brought
    back to the right side moves on by up to two codes. So is the foot of the perpendicular from the clean image on the
    boundary as it runs there (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599), and the nearer of the two is kept.

    Attributes:
        norm: "none" for the nearest image wherever it lies (see `AttackResult.accuracy_within`), "2" for those within
            the radius alone.
        steps: Adam's, for each constant.
        search_steps: How many constants are tried.
        learning_rate: Adam's.
        initial_const: The first constant.
        confidence: By how much another logit has to lead.
        reset: Whether each search step starts anew; without, it is cleverhans's loop as it is.
    """

    name: ClassVar[str] = "cw-l2"
    norms: ClassVar[tuple[Norm, ...]] = ("none", "2")

    norm: Norm = field(default="none", kw_only=True)
    steps: int = 1000
    search_steps: int = 5
    learning_rate: float = 5e-3
    initial_const: float = 1e-2
    confidence: float = 0.0
    reset: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "steps", self.steps)
        check_count(self.name, "search_steps", self.search_steps)
        check_positive(self.name, "learning_rate", self.learning_rate)
        check_positive(self.name, "initial_const", self.initial_const)
        check_positive(self.name, "confidence", self.confidence, zero=True)
        if not isinstance(self.reset, bool):
            raise RecipeError(f"{self.name}: reset is {self.reset!r}; expected true or false")

    def run(self, problem: Problem) -> Found:
        """Return codes: the nearest images that the judge gets wrong."""
        from .gradient import Posed, posed
        from .nearest import NearestRecorder

        with posed(problem) as task:
            nearest = NearestRecorder(task.model, problem.images, task.labels)
            last = self.search(Posed(nearest, task.pixels, task.labels, task.classes)).cpu().numpy()
            images, found = first_success(problem, nearest.targets())
            # Of those that the source got wrong and the judge, once rounded, does not.
            others, also = first_success(problem, last * np.float32(PIXEL_HIGH), _NUDGE)
            images[~found], found = others[~found], found | also
            straight, reached = first_success(problem, _feet(task, problem, images), _NUDGE)
        shorter = found & reached & (_lengths(straight, problem) < _lengths(images, problem))
        images[shorter] = straight[shorter]
        return Found(images)

    def search(self, task: Posed) -> Tensor:
        """Return cleverhans's pixels, before rounding; the clean ones where it finds none."""
        if not self.reset:
            return self._call(task, task.model, self.initial_const, self.confidence, self.search_steps)
        import torch

        count = len(task.pixels)
        lower, upper = np.zeros(count), np.full(count, np.inf)
        const = np.full(count, self.initial_const)
        best, least = task.pixels.clone(), np.full(count, np.inf)
        for _ in range(self.search_steps):
            found = self._with_constants(task, const)
            shift = self.confidence * torch.nn.functional.one_hot(task.labels, task.classes)
            with torch.no_grad():
                success = ((task.model(found) + shift).argmax(1) != task.labels).cpu().numpy()
                length = ((found - task.pixels) ** 2).flatten(1).sum(1).cpu().numpy()
            better = success & (length < least)
            least = np.where(better, length, least)
            chosen = torch.from_numpy(better).to(found.device)
            best[chosen] = found[chosen]
            upper = np.where(success, np.minimum(upper, const), upper)
            lower = np.where(success, lower, np.maximum(lower, const))
            bounded = upper < _UNBOUNDED
            const = np.where(bounded, (lower + np.where(bounded, upper, 0.0)) / 2, const * 10)
        return best

    def _with_constants(self, task: Posed, const: NDArray[np.float64]) -> Tensor:
        if np.all(const == const[0]):
            return self._call(task, task.model, float(const[0]), self.confidence, 1)
        return self._call(task, self._weighted(task, const), 1.0, 0.0, 1)

    def _weighted(self, task: Posed, const: NDArray[np.float64]) -> GradientSource:
        """The model whose hinge at confidence 0 is `c` times the model's own at this confidence.

        The largest other logit becomes 0: cleverhans takes the label's own for -10,000.
        """
        import torch

        factor = torch.from_numpy(const.astype(np.float32)).to(task.pixels.device)[:, None]
        shift = self.confidence * torch.nn.functional.one_hot(task.labels, task.classes)

        def model(pixels: Tensor) -> Tensor:
            logits = task.model(pixels)
            others = logits.detach().scatter(1, task.labels[:, None], -torch.inf)
            return factor * (logits - others.amax(1, keepdim=True) + shift)

        return model

    def _call(
        self, task: Posed, model: GradientSource, const: float, confidence: float, search_steps: int
    ) -> Tensor:
        from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2

        found: Tensor = carlini_wagner_l2(
            model,
            task.pixels,
            task.classes,
            y=task.labels,
            lr=self.learning_rate,
            confidence=confidence,
            initial_const=const,
            binary_search_steps=search_steps,
            max_iterations=self.steps,
        )
        return found.detach()


def _feet(task: Posed, problem: Problem, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Where the perpendicular from each clean image meets the margin's level at `images`, in codes."""
    import torch

    from .gradient import margins_of

    entry = (torch.from_numpy(images).to(task.pixels.device).float() / PIXEL_HIGH).requires_grad_()
    (gradient,) = torch.autograd.grad(margins_of(task.model(entry), task.labels).sum(), entry)
    normal = gradient.double().cpu().numpy().reshape(len(images), -1)
    normal /= np.maximum(np.abs(normal).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    clean = problem.images.reshape(len(images), -1).astype(np.float64)
    change = images.reshape(len(images), -1) - clean
    along = (normal * change).sum(axis=1, keepdims=True) / np.maximum(
        (normal**2).sum(axis=1, keepdims=True), 1e-12
    )
    return np.asarray((clean + along * normal).reshape(images.shape))


def _lengths(images: NDArray[np.uint8], problem: Problem) -> NDArray[np.float64]:
    return distances(images, problem.images, "2")
