"""A model of a table, ready to be attacked: who judges, whose gradients there are, and what it is by its hash."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import DataError
from ...models.checkpoints import load_model, weights_sha256
from ...models.mu_law import apply_mu_law
from .twelve import BITS, mapped_layers
from .weight_only import weight_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from ..attacks.base import GradientSource
    from ..attacks.protocols import ScoreJudge
    from .printed import DataName
    from .twelve import Row

__all__ = ["ModuleJudge", "Subject", "make_subject"]

_BATCH = 250


class ModuleJudge:
    """A float network as the judge of pixel codes.

    Args:
        module: From float32 pixels in [0, 1] to logits.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module.eval()

    def logits(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Return the logits, float32 `(N, classes)`, of uint8 images `(N, ...)`."""
        parts = []
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                pixels = torch.from_numpy(images[start : start + _BATCH]).float() / 255
                parts.append(self._module(pixels).numpy())
        return np.concatenate(parts)

    def predict(self, images: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """Return the labels, int64 `(N,)`: the largest logit, ties to the lowest class."""
        classes: NDArray[np.int64] = np.argmax(self.logits(images), axis=1).astype(np.int64)
        return classes


@dataclass(frozen=True, eq=False)
class Subject:
    """What is attacked.

    Attributes:
        row: Which model of the table.
        judge: Decides.
        sources: Gradients: `twin` its own, `parent` that of the float model that it was made from, `unmapped` that of
            the same model without its mu-law map.
        identity: What its figures depend on.
    """

    row: Row
    judge: ScoreJudge
    sources: Mapping[str, GradientSource]
    identity: Mapping[str, Any]


def make_subject(row: Row, data: DataName, file: Path, calibration: NDArray[np.uint8]) -> Subject:
    """Make a model of a table from its family's weights.

    Args:
        row: Which model.
        data: Which data set.
        file: The weights.
        calibration: uint8 images that set the ranges of an artifact's activations.

    Raises:
        CheckpointError: The weights cannot be loaded.
        RecipeError: The literal mu-law map does not fit the weights (|w| > 1); nothing is changed to make it fit.
        DataError: The network takes other images.
    """
    plain = load_model(file)
    _check_images(plain, calibration, file)
    float_model = apply_mu_law(deepcopy(plain), mapped_layers(plain, data)) if row.mapped else plain
    if row.deployed:
        return _deployed(row, plain, float_model, calibration)
    model = float_model.eval()
    if row.quantised:
        model = weight_only(plain, BITS, float_model if row.mapped else None)
    sources: dict[str, GradientSource] = {"twin": model}
    if row.quantised:
        sources["parent"] = float_model.eval()
    if row.mapped:
        sources["unmapped"] = weight_only(plain, BITS) if row.quantised else plain
    # Two networks may hold the same tensors and compute something else, one of them with the map.
    identity = {"weights": weights_sha256(model), "mapped": row.mapped}
    return Subject(row, ModuleJudge(model), sources, identity)


def _deployed(row: Row, plain: nn.Module, float_model: nn.Module, calibration: NDArray[np.uint8]) -> Subject:
    from ..attacks.judges import ArtifactJudge
    from ..compiler import compile as compile_model
    from ..recipe import Recipe
    from ..twin import Twin

    recipe = Recipe(weight_bits=BITS)
    artifact = compile_model(float_model, calibration, recipe)
    makers: dict[str, Callable[[], GradientSource]] = {
        "twin": lambda: Twin(artifact),
        "parent": float_model.eval,
    }
    if row.mapped:
        makers["unmapped"] = lambda: Twin(compile_model(plain, calibration, recipe))
    identity = {"artifact": artifact.sha256, "mapped": row.mapped}
    return Subject(row, ArtifactJudge(artifact), _Made(makers), identity)


class _Made(Mapping[str, "GradientSource"]):
    """Gradient sources, each made when it is first asked for: one of them is another compilation."""

    def __init__(self, makers: Mapping[str, Callable[[], GradientSource]]) -> None:
        self._makers = makers
        self._made: dict[str, GradientSource] = {}

    def __getitem__(self, name: str) -> GradientSource:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def __contains__(self, name: object) -> bool:
        return name in self._makers


def _check_images(module: nn.Module, images: NDArray[np.uint8], file: Path) -> None:
    try:
        with torch.inference_mode():
            module(torch.from_numpy(images[:1]).float() / 255)
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{file.name} does not take images of shape {images.shape[1:]}: {str(error).splitlines()[0]}"
        ) from None
