"""The bench: measures one figure of one model, and keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.checkpoints import weights_sha256
from ..attacks.epsilon import PIXEL_HIGH
from ..attacks.masking import default_plan, gather, judge_evidence
from ..attacks.suite import load_suite
from ..runs import versions
from .subjects import ModuleJudge

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from ...models.image_data import Dataset
    from ..attacks.base import Attack
    from ..attacks.suite import Entry
    from .cells import Cells
    from .strengths import Strength
    from .subjects import Subject

__all__ = ["PROBED", "Bench", "Found"]

PROBED = 200
"""How many images, the first, adaptive attacks, queries and the masking verdict take, unless asked otherwise."""

_BATCH = 128
_SUBSTITUTE = "substitute"


@dataclass(frozen=True)
class Found:
    """How many images a model still classifies correctly."""

    correct: int
    images: int

    @property
    def percent(self) -> float:
        """As a percentage."""
        return 100 * self.correct / self.images


@dataclass(frozen=True, eq=False)
class Bench:
    """Measures models on the same images.

    Attributes:
        data: The images that judge.
        cells: Where figures are kept.
        seed: Of everything random.
        substitute: The model that black-box attacks are made on; None where there are none.
        most_probed: How many images the costly attacks and the masking verdict take at most.
    """

    data: Dataset
    cells: Cells
    seed: int = 0
    substitute: nn.Module | None = None
    most_probed: int = PROBED

    def clean(self, subject: Subject) -> Found:
        """Count what is right without an attack."""

        def find() -> dict[str, Any]:
            return {"correct": _count(subject.judge.predict(self.data.images) == self.data.labels)}

        found = self.cells.figure("clean", self._depends(subject, self.data), find)
        return Found(found["correct"], len(self.data))

    def attacked(self, subject: Subject, strength: Strength) -> Found:
        """Count what is right under an attack.

        An attack of least distance runs once: its distances are kept, and counted at any radius.

        Raises:
            DataError: As `Attack.__call__`.
        """
        depends = {
            **self._depends(subject, self.data),
            "attack": strength.entry.model_dump(mode="json", exclude={"name", "note", "radii"}),
            "radius": strength.radius,
        }
        if strength.entry.gradient == _SUBSTITUTE:
            depends["substitute"] = self._substitute_sha256
        found = self.cells.figure(strength.entry.name, depends, lambda: self._attack(subject, strength))
        if strength.within is None:
            return Found(found["correct"], len(self.data))
        limit = PIXEL_HIGH * strength.within
        return Found(sum(squared > limit**2 for squared in found["squared_distances"]), len(self.data))

    def cascade(self, subject: Subject, name: str, radius: int) -> Found:
        """Count what withstands every attack of a suite, image by image, within a radius in codes.

        Attacks along a gradient that the model does not have are left out: a float model has no parent but itself.
        """
        data = self.probed
        suite = load_suite(name)
        entries = [
            entry
            for entry in suite.file.attacks
            if entry.gradient is None or entry.gradient in subject.sources
        ]
        depends = {**self._depends(subject, data), "suite": suite.sha256, "radius": radius}
        depends["sources"] = sorted(subject.sources)

        def find() -> dict[str, Any]:
            standing = np.asarray(subject.judge.predict(data.images) == data.labels)
            left = {}
            for entry in entries:
                result = self._run(entry.make(), subject, entry, data, radius, standing)
                standing &= ~result
                left[entry.name] = _count(standing)
            return {"correct": _count(standing), "left_after": left}

        return Found(self.cells.figure(name, depends, find)["correct"], len(data))

    def verdict(self, subject: Subject, radius: int) -> dict[str, Any]:
        """Return the masking verdict within a radius in codes: `label`, `because` and the findings."""
        data = self.probed
        depends = {**self._depends(subject, data), "radius": radius, "sources": sorted(subject.sources)}

        def find() -> dict[str, Any]:
            evidence = gather(
                subject.judge,
                subject.sources,
                data.images,
                data.labels,
                radius,
                seed=self.seed,
                batch_size=_BATCH,
                plan=default_plan().model_copy(update={"images": len(data)}),
            )
            verdict = judge_evidence(evidence)
            return {
                "label": verdict.label,
                "because": list(verdict.because),
                "findings": [asdict(finding) for finding in verdict.findings],
            }

        return self.cells.figure("verdict", depends, find)

    @cached_property
    def probed(self) -> Dataset:
        """The first images: what the costly attacks take."""
        return self.data.take(np.arange(min(self.most_probed, len(self.data))))

    def _attack(self, subject: Subject, strength: Strength) -> dict[str, Any]:
        """Attack all images; what is left, and of least distances their squares (0: wrong without an attack)."""
        images, labels = self.data.images, self.data.labels
        clean = subject.judge.predict(images) == labels
        if strength.entry.gradient == _SUBSTITUTE:
            adversarial = self._made_on_substitute(strength)
        else:
            source = subject.sources["twin"] if strength.entry.gradient is not None else None
            adversarial = strength.entry.make()(
                source, subject.judge, images, labels, strength.radius, seed=self.seed, batch_size=_BATCH
            ).adversarial
        right = (subject.judge.predict(adversarial) == labels) & clean
        found: dict[str, Any] = {"correct": _count(right)}
        if strength.within is not None:
            change = adversarial.astype(np.int64) - images
            squared = np.square(change).reshape(len(images), -1).sum(axis=1)
            far = (
                1 + int(PIXEL_HIGH) ** 2 * images[0].size
            )  # beyond every radius: no adversarial image was found
            found["squared_distances"] = [int(x) for x in np.where(right, far, np.where(clean, squared, 0))]
        return found

    def _made_on_substitute(self, strength: Strength) -> NDArray[np.uint8]:
        """The images that an attack makes of the substitute; every model gets the same.

        What the substitute gets wrong without an attack stays as it is.
        """
        module = self._needed_substitute
        depends = {
            "data": self.data.sha256(),
            "seed": self.seed,
            "substitute": self._substitute_sha256,
            "attack": strength.entry.model_dump(mode="json", exclude={"name", "note", "radii"}),
            "radius": strength.radius,
            "versions": versions(),
        }

        def find() -> NDArray[np.uint8]:
            result = strength.entry.make()(
                module, ModuleJudge(module), self.data.images, self.data.labels, strength.radius,
                seed=self.seed, batch_size=_BATCH, source=_SUBSTITUTE,
            )  # fmt: skip
            return result.adversarial

        return self.cells.images("set", depends, find)

    def _run(
        self,
        attack: Attack,
        subject: Subject,
        entry: Entry,
        data: Dataset,
        radius: int,
        standing: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Which images an attack turns, bool `(N,)`, of those that stand."""
        source = None if entry.gradient is None else subject.sources[entry.gradient]
        result = attack(
            source, subject.judge, data.images, data.labels, radius,
            seed=self.seed, batch_size=_BATCH, standing=standing.copy(), source=entry.gradient,
        )  # fmt: skip
        return np.asarray(result.success)

    @property
    def _needed_substitute(self) -> nn.Module:
        if self.substitute is None:
            from ...errors import RecipeError

            raise RecipeError(
                "black-box attacks are made on another model, and none was given (--substitute)"
            )
        return self.substitute

    @cached_property
    def _substitute_sha256(self) -> str:
        return weights_sha256(self._needed_substitute)

    def _depends(self, subject: Subject, data: Dataset) -> dict[str, Any]:
        """What every figure of a model on these images depends on."""
        return {
            "model": dict(subject.identity),
            "data": data.sha256(),
            "seed": self.seed,
            "batch_size": _BATCH,
            "versions": versions(),
        }


def _count(right: NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(right))
