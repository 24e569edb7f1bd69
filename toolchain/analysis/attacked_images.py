"""Clean images and what an attack made of them: of a saved set, or by PGD on the float model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError
from ..attacks.pgd import PGD
from ..attacks.storage import load_adversarial
from ..judged import float_predictor

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from ...models.image_data import Dataset
    from ..attacks.base import Progress
    from ..attacks.outcome import AttackResult

__all__ = ["AttackedImages", "attack_float_model", "read_attacked"]

STEPS = 40
"""Of the PGD on the float model: Madry et al.'s number for MNIST."""


@dataclass(frozen=True, eq=False)
class AttackedImages:
    """Images that an attack changed, before and after.

    Attributes:
        clean: uint8 `(N, ...)`.
        attacked: The same images attacked.
        name: The attack.
        norm: What bounds it.
        radius: In pixel codes.
        source: Whose gradients it followed.
        unchanged: How many more images it left as they are; these say nothing about an attack.
        artifact_sha256: Of the artifact that a set claims to attack; None where the float model was attacked.
    """

    clean: NDArray[np.uint8]
    attacked: NDArray[np.uint8]
    name: str
    norm: str
    radius: float
    source: str
    unchanged: int
    artifact_sha256: str | None = None

    def first(self, count: int) -> AttackedImages:
        """Return at most `count` of the images."""
        return replace(self, clean=self.clean[:count], attacked=self.attacked[:count])

    def description(self) -> dict[str, Any]:
        """What was attacked how, as JSON values."""
        found = asdict(replace(self, clean=self.clean[:0], attacked=self.attacked[:0]))
        return {"images": len(self.clean)} | {
            name: value for name, value in found.items() if name not in ("clean", "attacked")
        }


def read_attacked(path: str | Path) -> AttackedImages:
    """Read a set that `ohmfold attack --out` wrote.

    Raises:
        DataError: It is no such set, it is not what was written, or no image in it was changed.
    """
    saved = load_adversarial(path)
    if not saved.intact:
        raise DataError(f"{path}: it is not what was written, its hash differs; expected an unchanged set")
    return replace(_changed(saved.result, str(path)), artifact_sha256=saved.artifact_sha256)


def attack_float_model(
    module: nn.Module, data: Dataset, radius: float, *, seed: int, progress: Progress | None = None
) -> AttackedImages:
    """Attack the images that a float model classifies correctly, by PGD within an L-infinity ball.

    Args:
        module: From float32 pixels in [0, 1] to logits.
        data: Images and labels.
        radius: In pixel codes.
        seed: Of the random starts.
        progress: Told the images done and to be done.

    Raises:
        DataError: The images do not fit the model, or none was changed.
    """
    judge = _FloatJudge(module)
    try:
        judge.predict(data.images[:1])
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"the float model does not take images of shape {data.images.shape[1:]}: {str(error).splitlines()[0]}"
        ) from None
    attack = PGD(steps=STEPS)
    result = attack(
        module, judge, data.images, data.labels, radius, seed=seed, progress=progress, source="parent"
    )
    return _changed(result, data.name)


class _FloatJudge:
    """A float model as the judge of an attack."""

    def __init__(self, module: nn.Module) -> None:
        self._predict = float_predictor(module)

    def predict(self, images: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """Return the model's labels."""
        return self._predict(images)


def _changed(result: AttackResult, origin: str) -> AttackedImages:
    """Keep the images that the attack changed."""
    differs = result.adversarial != result.original
    changed = np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))
    if not len(changed):
        raise DataError(
            f"{origin}: the attack {result.name} changed none of {len(differs)} images (it leaves alone what is "
            "classified wrongly); expected at least one that it changed"
        )
    return AttackedImages(
        clean=result.original[changed],
        attacked=result.adversarial[changed],
        name=result.name,
        norm=result.norm,
        radius=result.radius,
        source=result.source,
        unchanged=len(differs) - len(changed),
    )
