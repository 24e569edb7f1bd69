"""What every attack shares: how its input is checked, and how its images are judged.

An attack is two small things, after foolbox's pattern: a final `__call__` that checks the input, rounds and
projects what the algorithm returns, and judges *that*; and a `run` that holds the algorithm alone. So the
images of every attack are what a device would see: uint8 pixel codes, inside the ball, judged by the
emulator (or whatever else predicts labels from codes). The criterion is misclassification.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, final, runtime_checkable

import numpy as np

from ...errors import DataError, ExactnessError
from .epsilon import PIXEL_HIGH, Norm, distances, project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    GradientSource = Callable[[Tensor], Tensor]
    Progress = Callable[[int, int], None]

__all__ = ["Attack", "AttackResult", "Judge", "Problem", "worst_case"]


@runtime_checkable
class Judge(Protocol):
    """What decides whether an attack succeeded: the emulator, or another target of the same artifact."""

    def predict(self, images: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """Return the labels, int64 `(N,)`, of uint8 images."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """One batch to attack: images that the judge still classifies correctly.

    Attributes:
        gradient_source: From float32 pixels in [0, 1] to logits, differentiable; None for attacks without.
        judge: For attacks that query it.
        images: uint8 `(N, ...)`.
        labels: int64 `(N,)`.
        epsilon_codes: The radius, 1 to 255 codes.
        seed: Of this batch.
    """

    gradient_source: GradientSource | None
    judge: Judge
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    epsilon_codes: int
    seed: int


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What an attack achieved, image by image.

    Attributes:
        name: The attack's name.
        norm: What bounds the change: "inf" for the largest change of a pixel, "none" for nothing.
        epsilon_codes: The radius (with norm "none": the strength that the attack made of it), in codes.
        seed: What the attack was called with.
        parameters: The attack's settings as they were used.
        original: The clean images, uint8 `(N, ...)`.
        adversarial: The attacked images, uint8. Images that the judge had already got wrong are untouched.
        labels: int64 `(N,)`.
        clean_predictions: The judge's labels of `original`, int64 `(N,)`.
        predictions: The judge's labels of `adversarial`, int64 `(N,)`.
    """

    name: str
    norm: Norm
    epsilon_codes: int
    seed: int
    parameters: Mapping[str, Any]
    original: NDArray[np.uint8]
    adversarial: NDArray[np.uint8]
    labels: NDArray[np.int64]
    clean_predictions: NDArray[np.int64]
    predictions: NDArray[np.int64]

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


@dataclass(frozen=True)
class Attack(ABC):
    """An attack. Subclasses are frozen dataclasses whose fields are the attack's settings.

    Attributes:
        name: How reports and the command line call it.
        norm: What bounds it.
        needs_gradient: Whether it uses the gradient source.
    """

    name: ClassVar[str]
    norm: ClassVar[Norm] = "inf"
    needs_gradient: ClassVar[bool] = True

    @abstractmethod
    def run(self, problem: Problem) -> NDArray[Any]:
        """Return attacked images: float pixels in [0, 1], or uint8 codes, of the shape of the images.

        They need not lie on pixel codes, nor quite inside the ball: `__call__` sees to both.
        """

    def parameters(self, epsilon_codes: int) -> dict[str, Any]:  # noqa: ARG002 (for those whose settings depend on it)
        """The settings as they are used at this radius, as JSON values."""
        return asdict(self)

    @final
    def __call__(
        self,
        gradient_source: GradientSource | None,
        judge: Judge,
        images: NDArray[np.uint8],
        labels: NDArray[np.integer[Any]],
        epsilon_codes: int,
        *,
        seed: int,
        batch_size: int = 128,
        progress: Progress | None = None,
    ) -> AttackResult:
        """Attack every image that the judge classifies correctly, and judge the result.

        Args:
            gradient_source: From float32 pixels in [0, 1] `(N, ...)` to logits `(N, classes)`: the twin,
                another model, or None for attacks that need none.
            judge: Its predictions on codes decide.
            images: uint8 `(N, ...)`.
            labels: Integers `(N,)`.
            epsilon_codes: Radius in pixel codes, 0 to 255; 0 leaves the images alone.
            seed: Of everything random, 0 or more. The same arguments, batch size included, give the same
                result; no global random state changes.
            batch_size: Images attacked at a time.
            progress: Called with the images done and to be done.

        Raises:
            DataError: The images, labels, radius, seed or predictions are not as described above.
        """
        labels = _checked(images, labels, epsilon_codes, seed, batch_size)
        if self.needs_gradient and gradient_source is None:
            raise DataError(
                f"the attack {self.name!r} needs a gradient: give it a twin or another torch model"
            )
        clean = _predicted(judge, images, batch_size)
        standing = np.flatnonzero(clean == labels)
        adversarial = images.copy()
        # A label that the model cannot predict would never stand; so those that stand are classes.
        for start in range(0, len(standing) if epsilon_codes else 0, batch_size):
            chosen = standing[start : start + batch_size]
            batch_seed = int(np.random.SeedSequence([seed, start]).generate_state(1)[0])
            problem = Problem(
                gradient_source, judge, images[chosen], labels[chosen], int(epsilon_codes), batch_seed
            )
            codes = _rounded(self.run(problem), problem.images, self.name)
            adversarial[chosen] = project(codes, problem.images, problem.epsilon_codes, self.norm)
            if progress is not None:
                progress(start + len(chosen), len(standing))
        if np.any(distances(adversarial, images, self.norm) > epsilon_codes):
            raise ExactnessError(f"the attack {self.name!r} left its ball of {epsilon_codes} codes")
        predictions = clean.copy()
        if len(standing):
            predictions[standing] = _predicted(judge, adversarial[standing], batch_size)
        return AttackResult(
            name=self.name,
            norm=self.norm,
            epsilon_codes=int(epsilon_codes),
            seed=seed,
            parameters=self.parameters(int(epsilon_codes)),
            original=images.copy(),
            adversarial=adversarial,
            labels=labels,
            clean_predictions=clean,
            predictions=predictions,
        )


def worst_case(results: Sequence[AttackResult]) -> NDArray[np.bool_]:
    """Return, for each image, whether it withstood every one of the attacks, bool `(N,)`.

    The robust accuracy of a set of attacks is the mean of this, never the least of their accuracies.
    Results that nothing bounds (norm "none") do not count: they left the ball.

    Raises:
        DataError: There is no result, or they are not of the same images, labels and radius.
    """
    if not results:
        raise DataError("no attack results; expected at least one")
    first = results[0]
    robust: NDArray[np.bool_] = np.asarray(first.clean_predictions == first.labels)
    for result in results:
        same = np.array_equal(result.labels, first.labels) and np.array_equal(result.original, first.original)
        if not same or result.epsilon_codes != first.epsilon_codes:
            raise DataError(f"{result.name} and {first.name} attacked different images or at different radii")
        if result.norm != "none":
            robust = robust & ~result.success
    return robust


def _checked(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    epsilon_codes: int,
    seed: int,
    batch_size: int,
) -> NDArray[np.int64]:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim < 2 or not images.size:
        raise DataError(f"images: found {_described(images)}; expected a non-empty uint8 array (N, C, H, W)")
    labels = np.asarray(labels)
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels: found {_described(labels)}; expected {len(images)} integers, one per image")
    if labels.min() < 0:
        raise DataError(f"labels: found {labels.min()}; expected classes from 0 on")
    integers = {
        "epsilon_codes": (epsilon_codes, 0, PIXEL_HIGH),
        "seed": (seed, 0, 2**63 - 1),
        "batch_size": (batch_size, 1, 2**31),
    }
    for name, (value, low, high) in integers.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
            raise DataError(f"{name}: found {value!r}; expected an integer from {low} to {high}")
    return labels.astype(np.int64)


def _described(value: object) -> str:
    return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _predicted(judge: Judge, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.int64]:
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        labels = np.asarray(judge.predict(batch))
        if labels.shape != (len(batch),) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"the judge predicted {_described(labels)}; expected {len(batch)} integers")
        parts.append(labels.astype(np.int64))
    return np.concatenate(parts)


def _rounded(images: NDArray[Any], original: NDArray[np.uint8], name: str) -> NDArray[np.int64]:
    if images.shape != original.shape:
        raise DataError(f"the attack {name!r} returned shape {images.shape}; expected {original.shape}")
    if np.issubdtype(images.dtype, np.integer):
        return images.astype(np.int64)
    if not np.all(np.isfinite(images)):
        raise DataError(
            f"the attack {name!r} returned pixels that are not finite; are the model's gradients?"
        )
    # In the pixels' own type, so that float32 pixels round to the codes that the twin made of them.
    return np.asarray(np.rint(images * images.dtype.type(PIXEL_HIGH)).astype(np.int64))
