"""The transfer matrix: a set made on each of several models, judged on all of them.

Row i, column j is the accuracy of model j on the images that were attacked along the gradient of model i. A white-box
attack (the diagonal) that leaves more than another model's set is a sign of masking.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import RecipeError
from .results import Share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ...models.image_data import Dataset
    from .base import Attack, GradientSource
    from .protocols import Judge

__all__ = ["Contender", "TransferMatrix", "transfer_matrix"]


@dataclass(frozen=True, eq=False)
class Contender:
    """A model of the matrix: who judges on it, and its gradient."""

    judge: Judge
    source: GradientSource


@dataclass(frozen=True, eq=False)
class TransferMatrix:
    """What is left of each model under sets made on each.

    Attributes:
        names: Of the models.
        left: For each source's name, for each judged model's name: what is right.
        sets: The adversarial images by source, uint8 `(N, ...)`.
    """

    names: tuple[str, ...]
    left: Mapping[str, Mapping[str, Share]]
    sets: Mapping[str, NDArray[np.uint8]]

    def accuracy(self) -> NDArray[np.float64]:
        """Shares, float64 `(models, models)`: the source's row, the judged model's column."""
        return np.array([[self.left[row][column].accuracy for column in self.names] for row in self.names])


def transfer_matrix(
    models: Mapping[str, Contender],
    data: Dataset,
    attack: Attack,
    radius: float,
    *,
    seed: int = 0,
    batch_size: int = 128,
    progress: Callable[[str, float], None] | None = None,
) -> TransferMatrix:
    """Attack along the gradient of each model, and judge each set on all of them.

    Every image that a source's own judge gets right is attacked, and the same set judges the others. An image that a
    judged model gets wrong without an attack counts as wrong.

    Args:
        models: Two or more, by name.
        data: Images and labels.
        attack: One that follows a gradient.
        radius: In codes.
        seed: Of everything random.
        batch_size: Images attacked at a time.
        progress: Called with the source's name and the share of all that is done.

    Raises:
        RecipeError: There are fewer than two models, or the attack follows no gradient.
        DataError: As `Attack.__call__`.
    """
    if len(models) < 2:
        raise RecipeError(f"found {len(models)} models; a transfer matrix needs at least two")
    if not attack.needs_gradient:
        raise RecipeError(f"the attack {attack.name!r} follows no gradient; expected one that does")
    clean = {name: model.judge.predict(data.images) == data.labels for name, model in models.items()}
    left: dict[str, dict[str, Share]] = {}
    sets = {}
    for place, (name, model) in enumerate(models.items()):

        def tell(done: int, total: int, place: int = place, name: str = name) -> None:
            if progress is not None:
                progress(name, (place + done / max(1, total)) / len(models))

        result = attack(
            model.source, model.judge, data.images, data.labels, radius,
            seed=seed, batch_size=batch_size, progress=tell, source=name,
        )  # fmt: skip
        sets[name] = result.adversarial
        left[name] = {
            other: Share.of((judged.judge.predict(result.adversarial) == data.labels) & clean[other])
            for other, judged in models.items()
        }
    return TransferMatrix(tuple(models), left, sets)
