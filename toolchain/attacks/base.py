"""What every attack shares: how its input is checked, and how its images are judged.

An attack is two small things, after foolbox's pattern: a final `__call__` that checks the input, rounds and
projects what the algorithm returns, and judges *that*; and a `run` that holds the algorithm alone. So the
images of every attack are what a device would see: uint8 pixel codes, inside the ball, judged by the
emulator (or whatever else predicts labels from codes). The criterion is misclassification.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from ...errors import DataError, ExactnessError, RecipeError
from .epsilon import PIXEL_HIGH, Norm, inside, project
from .outcome import AttackResult, worst_case
from .protocols import Judge, ScoreJudge, described, predicted

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    GradientSource = Callable[[Tensor], Tensor]
    Progress = Callable[[int, int], None]

__all__ = ["Attack", "AttackResult", "Found", "Judge", "Problem", "ScoreJudge", "worst_case"]


@dataclass(frozen=True, eq=False)
class Problem:
    """One batch to attack: images that the judge still classifies correctly.

    Attributes:
        gradient_source: From float32 pixels in [0, 1] to logits, differentiable; None for attacks without.
        judge: For attacks that query it.
        images: uint8 `(N, ...)`.
        labels: int64 `(N,)`.
        radius: In codes, above 0; a whole number from 1 to 255 but for the L2 norm.
        seed: Of this batch.
    """

    gradient_source: GradientSource | None
    judge: Judge
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    radius: float
    seed: int


@dataclass(frozen=True, eq=False)
class Found:
    """What an algorithm found for the images of a problem.

    Attributes:
        images: Float pixels in [0, 1] or integer codes, of the shape of the images. They need not lie on pixel
            codes, nor quite inside the ball: `Attack.__call__` sees to both.
        earlier: uint8 codes of each image's best earlier iterate, taken where the last one fails and it does not.
        margins: What the gradient source made of each iterate, `label's logit - largest other`, float32
            `(iterates, N)`; the last row is the last iterate's.
        queries: How many answers of the judge each image took, int64 `(N,)`.
    """

    images: NDArray[Any]
    earlier: NDArray[np.uint8] | None = None
    margins: NDArray[np.float32] | None = None
    queries: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Attack(ABC):
    """An attack. Subclasses are frozen dataclasses whose fields are the attack's settings.

    Attributes:
        name: How reports and the command line call it.
        norms: What may bound it.
        needs_gradient: Whether it uses the gradient source.
        norm: What bounds it.
    """

    name: ClassVar[str]
    norms: ClassVar[tuple[Norm, ...]] = ("inf",)
    needs_gradient: ClassVar[bool] = True

    norm: Norm = field(default="inf", kw_only=True)

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            raise RecipeError(
                f"{self.name}: norm is {self.norm!r}; expected {' or '.join(repr(norm) for norm in self.norms)}"
            )

    @abstractmethod
    def run(self, problem: Problem) -> Found:
        """Attack the images of a problem."""

    def check(self, judge: Judge, image_shape: tuple[int, ...], classes: int | None) -> None:  # noqa: B027 - most ask nothing
        """Refuse, before any work, a judge, images `(C, H, W)` or a number of classes that the attack cannot do with.

        Args:
            judge: Who will judge.
            image_shape: Of one image.
            classes: How many the gradient source or the judge knows; None where neither tells.

        Raises:
            DataError: The attack cannot run.
            MissingDependencyError: A package is missing.
        """

    def parameters(self, radius: float) -> dict[str, Any]:  # noqa: ARG002 (for those whose settings depend on it)
        """The settings as they are used at this radius, as JSON values; the norm is not among them."""
        return {name: value for name, value in asdict(self).items() if name != "norm"}

    @final
    def __call__(
        self,
        gradient_source: GradientSource | None,
        judge: Judge,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer[Any]],
        radius: float,
        *,
        seed: int,
        batch_size: int = 128,
        progress: Progress | None = None,
        standing: NDArray[np.bool_] | None = None,
        source: str | None = None,
    ) -> AttackResult:
        """Attack every image that the judge classifies correctly, and judge the result.

        Args:
            gradient_source: From float32 pixels in [0, 1] `(N, ...)` to logits `(N, classes)`: the twin,
                another model, or None for attacks that need none.
            judge: Its predictions on codes decide.
            images: uint8 `(N, ...)`.
            labels: Integers `(N,)`.
            radius: In pixel codes: a whole number from 0 to 255, with norm "2" any number from 0 on; 0 leaves the
                images alone.
            seed: Of everything random, 0 or more. The same arguments, batch size included, give the same
                result; no global random state changes.
            batch_size: Images attacked at a time.
            progress: Called with the images done and to be done.
            standing: Which images to attack, bool `(N,)`; the others are returned untouched. None: all.
            source: Who gives the gradient, for the record ("twin", "parent", "substitute:NAME"); None: the twin,
                or, for an attack that needs no gradient, the judge's answers or nothing.

        Raises:
            DataError: The images, labels, radius, seed or predictions are not as described above, or `check` says so.
            MissingDependencyError: As `check`.
        """
        labels = _checked(images, labels, seed, batch_size, standing)
        radius = self._checked_radius(radius)
        if self.needs_gradient and gradient_source is None:
            raise DataError(
                f"the attack {self.name!r} needs a gradient: give it a twin or another torch model"
            )
        classes = _classes(gradient_source if self.needs_gradient else None, judge, images)
        if classes is not None and labels.max() >= classes:
            raise DataError(f"labels: found {labels.max()}; the model knows the classes 0 to {classes - 1}")
        self.check(judge, images.shape[1:], classes)
        clean = predicted(judge, images, batch_size)
        attacked = np.asarray(clean == labels)
        if standing is not None:
            attacked &= standing
        if not radius:
            attacked = np.zeros_like(attacked)
        adversarial, predictions = images.copy(), clean.copy()
        kept = np.zeros(len(images), np.bool_)
        traces: list[tuple[NDArray[np.intp], Found]] = []
        todo = np.flatnonzero(attacked)
        for start in range(0, len(todo), batch_size):
            chosen = todo[start : start + batch_size]
            batch_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
            problem = Problem(gradient_source, judge, images[chosen], labels[chosen], radius, batch_seed)
            found = self.run(problem)
            adversarial[chosen], predictions[chosen], kept[chosen] = self._judged(found, problem)
            traces.append((chosen, found))
            if progress is not None:
                progress(start + len(chosen), len(todo))
        if not np.all(inside(adversarial, images, radius, self.norm)):
            raise ExactnessError(f"the attack {self.name!r} left its ball of {radius} codes")
        queried = any(found.queries is not None for _, found in traces)
        return AttackResult(
            name=self.name,
            norm=self.norm,
            radius=radius,
            seed=seed,
            parameters=self.parameters(radius),
            original=images.copy(),
            adversarial=adversarial,
            labels=labels,
            clean_predictions=clean,
            predictions=predictions,
            source=source or ("twin" if self.needs_gradient else "queries" if queried else "none"),
            attacked=attacked,
            kept_earlier=kept,
            margins=_joined_margins(traces, len(images)),
            queries=_joined_queries(traces, len(images)) if queried else None,
        )

    def _judged(
        self, found: Found, problem: Problem
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
        """The images as the device sees them, its labels of them, and which of them are earlier iterates."""
        codes = _codes(found.images, problem.images, self.name)
        images = project(codes, problem.images, problem.radius, self.norm)
        labels = predicted(problem.judge, images, len(images))
        kept = np.zeros(len(images), np.bool_)
        failed = np.flatnonzero(labels == problem.labels)
        if found.earlier is None or not len(failed):
            return images, labels, kept
        earlier = project(found.earlier[failed], problem.images[failed], problem.radius, self.norm)
        answers = predicted(problem.judge, earlier, len(earlier))
        better = answers != problem.labels[failed]
        taken = failed[better]
        images[taken], labels[taken], kept[taken] = earlier[better], answers[better], True
        return images, labels, kept

    def _checked_radius(self, radius: float) -> float:
        number = isinstance(radius, int | float | np.integer | np.floating) and not isinstance(radius, bool)
        if self.norm == "2":
            if not number or not 0 <= radius < math.inf:
                raise DataError(f"radius: found {radius!r}; expected a number of codes from 0 on")
            return float(radius)
        if not number or isinstance(radius, float | np.floating) or not 0 <= radius <= PIXEL_HIGH:
            raise DataError(f"radius: found {radius!r}; expected an integer from 0 to {PIXEL_HIGH}")
        return int(radius)


def _classes(source: GradientSource | None, judge: Judge, images: NDArray[np.uint8]) -> int | None:
    """How many classes the gradient source, or else the judge, knows."""
    if source is not None:
        from .gradient import known_classes

        return known_classes(source, images[:1])
    program = getattr(judge, "program", None)
    if program is not None and program.logits is not None:
        shape = program.tensors[program.logits].shape
        return shape[-1] if shape else None
    return judge.logits(images[:1]).shape[1] if isinstance(judge, ScoreJudge) else None


def _joined_margins(traces: list[tuple[NDArray[np.intp], Found]], count: int) -> NDArray[np.float32] | None:
    recorded = [(chosen, found.margins) for chosen, found in traces if found.margins is not None]
    if not recorded:
        return None
    rows = max(len(margins) for _, margins in recorded)
    joined = np.full((rows, count), np.nan, np.float32)
    for chosen, margins in recorded:
        # A batch that took fewer iterates stays where it ended.
        joined[:, chosen] = margins[np.minimum(np.arange(rows), len(margins) - 1)]
    return joined


def _joined_queries(traces: list[tuple[NDArray[np.intp], Found]], count: int) -> NDArray[np.int64]:
    joined = np.zeros(count, np.int64)
    for chosen, found in traces:
        if found.queries is not None:
            joined[chosen] = found.queries
    return joined


def _checked(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    seed: int,
    batch_size: int,
    standing: NDArray[np.bool_] | None,
) -> NDArray[np.int64]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim < 2 or not images.size:
        raise DataError(f"images: found {described(images)}; expected a non-empty uint8 array (N, C, H, W)")
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels: found {described(labels)}; expected {len(images)} integers, one per image")
    if labels.min() < 0:
        raise DataError(f"labels: found {labels.min()}; expected classes from 0 on")
    if standing is not None and (
        not isinstance(standing, np.ndarray)
        or standing.dtype != np.bool_
        or standing.shape != images.shape[:1]
    ):
        raise DataError(f"standing: found {described(standing)}; expected bool({len(images)},)")
    integers = {"seed": (seed, 0, 2**63 - 1), "batch_size": (batch_size, 1, 2**31)}
    for name, (value, low, high) in integers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise DataError(f"{name}: found {value!r}; expected an integer from {low} to {high}")
    return labels.astype(np.int64)


def _codes(images: NDArray[Any], original: NDArray[np.uint8], name: str) -> NDArray[Any]:
    """The images in codes, not yet rounded."""
    if images.shape != original.shape:
        raise DataError(f"the attack {name!r} returned shape {images.shape}; expected {original.shape}")
    if np.issubdtype(images.dtype, np.integer):
        return images
    if not np.all(np.isfinite(images)):
        raise DataError(
            f"the attack {name!r} returned pixels that are not finite; are the model's gradients?"
        )
    # In the pixels' own type, so that float32 pixels round to the codes that the twin made of them.
    return np.asarray(images * images.dtype.type(PIXEL_HIGH))
