"""The paper's twelve models, and six more: each quantised one also as the integer artifact that is deployed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - a NamedTuple evaluates its annotations
from typing import TYPE_CHECKING, NamedTuple

from ...errors import RecipeError
from ...models.registry import ZOO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from .printed import DataName

__all__ = [
    "ANCHORS",
    "BITS",
    "FAMILIES",
    "MU",
    "Checkpoint",
    "Row",
    "find_checkpoint",
    "find_training",
    "mapped_layers",
    "rows",
]

BITS = 3
"""The width of the paper's quantised models."""
MU = 255.0
"""The paper's mu."""
FAMILIES = ("Orig.", "Adv.", "F.L.")
ANCHORS = ("Orig.", "Adv.")
"""Rows that attack strengths are held against."""

_STEMS: Mapping[DataName, str] = {"mnist": "mnist-cnn", "cifar10": "cifar10-wrn32"}
_SUFFIXES = {"Orig.": "", "Adv.": "-adv", "F.L.": "-fl"}
_ARCHITECTURES: Mapping[DataName, str] = {"mnist": "mnist-cnn", "cifar10": "cifar-wrn32-WIDTH"}
_METHODS = {"Orig.": "standard", "Adv.": "adversarial", "F.L.": "feedback"}
# The paper's other attempts, of which no table has a row.
_ATTEMPTS = {"qat": "-qat", "adversarial-qat": "-adv-qat"}


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Attributes:
        family: `Orig.`, `Adv.` or `F.L.`.
        mapped: Whether the last layers' weights go through the mu-law map.
        quantised: Whether weights are rounded to 3 bits; activations stay in float.
        deployed: Whether it is the compiled integer artifact, uint8 activations and all.
    """

    family: str
    mapped: bool = False
    quantised: bool = False
    deployed: bool = False

    @property
    def name(self) -> str:
        """As the paper has it; `F.L.+mu (Q) deployed` for artifacts, which the paper does not have."""
        quantised = " (Q)" if self.quantised else ""
        return f"{self.family}{'+mu' if self.mapped else ''}{quantised}{' deployed' if self.deployed else ''}"


class Checkpoint(NamedTuple):
    """Weights of a family: their zoo name, the file (None where there is none), its SHA-256, how to train them."""

    name: str
    file: Path | None
    sha256: str
    command: str


def rows() -> tuple[Row, ...]:
    """Return the rows of a table in the paper's order, each artifact below the quantised model that it is made of."""
    found = []
    for mapped in (False, True):
        for family in FAMILIES:
            found += [Row(family, mapped), Row(family, mapped, quantised=True)]
            found.append(Row(family, mapped, quantised=True, deployed=True))
    return tuple(found)


def find_checkpoint(data: DataName, family: str, zoo: Path | None) -> Checkpoint:
    """Look for a family's weights in a folder, then among those that come with the package.

    Args:
        data: Which data set.
        family: One of `FAMILIES`.
        zoo: A folder of safetensors files named as in the zoo; None for the package's own alone.

    Raises:
        RecipeError: `zoo` is no folder.
    """
    init = f" --init {_STEMS[data]}.safetensors" if family == "F.L." else ""
    return _checkpoint(data, _SUFFIXES[family], f"{_METHODS[family]}{init}", zoo)


def find_training(data: DataName, method: str, zoo: Path | None) -> Checkpoint:
    """Look for the weights of one of the paper's other attempts, `qat` or `adversarial-qat`, as `find_checkpoint`.

    Raises:
        RecipeError: `zoo` is no folder.
    """
    return _checkpoint(data, _ATTEMPTS[method], method, zoo)


def _checkpoint(data: DataName, suffix: str, recipe: str, zoo: Path | None) -> Checkpoint:
    if zoo is not None and not zoo.is_dir():
        raise RecipeError(f"--zoo {zoo}: no such folder; expected one that holds {_STEMS[data]}.safetensors")
    name = f"{_STEMS[data]}{suffix}"
    places = [folder / f"{name}.safetensors" for folder in (zoo, ZOO) if folder is not None]
    file = next((place for place in places if place.is_file()), None)
    digest = "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    command = (
        f"ohmfold train --model {_ARCHITECTURES[data]} --recipe {recipe} --data {data} "
        f"--out {name}.safetensors"
    )
    return Checkpoint(name, file, digest, command)


def mapped_layers(module: nn.Module, data: DataName) -> dict[str, float]:
    """Return which layers the paper maps, with mu: the last one; on CIFAR-10 also the last block's two convolutions.

    Raises:
        RecipeError: The network for CIFAR-10 has no residual blocks.
    """
    from ...models.resnet import PreActResNet
    from .weight_only import weight_layers

    last = [name for name, _ in weight_layers(module)][-1]
    if data == "mnist":
        return {last: MU}
    if not isinstance(module, PreActResNet):
        raise RecipeError(
            f"the mu-law map of the last residual block: found a {type(module).__name__}, expected a residual network"
        )
    block = f"units.{len(module.units) - 1}"
    return {f"{block}.conv1": MU, f"{block}.conv2": MU, last: MU}
