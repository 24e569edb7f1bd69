"""Adversarial images side by side with their originals, as PNG data inside the page.

The files are checked before anything of them is shown: they must attack the artifact that the record names,
and hold what the record says of them.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...errors import DataError
from ..attacks import load_adversarial

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from ..attacks import AttackResult
    from ..run_record import AttackRow, RunRecord

__all__ = ["Example", "Gallery", "chosen_examples", "galleries", "shown_difference"]

_EXAMPLES = 8
_GREY = 128
_REACH = 127


@dataclass(frozen=True)
class Example:
    """One image that an attack turned: three pictures as data URIs, and what was seen in them.

    Attributes:
        index: Its place among the attacked images.
        original, adversarial, difference: `data:image/png` addresses.
        label: The true class.
        before, after: What the artifact said of the original and of the adversarial image.
    """

    index: int
    original: str
    adversarial: str
    difference: str
    label: int
    before: int
    after: int


@dataclass(frozen=True)
class Gallery:
    """What one attack did to a few images.

    Attributes:
        row: The attack.
        turned: How many images it turned from right to wrong.
        largest: The largest change among the images shown, in codes; shown as black or white.
        gain: By how much differences are magnified.
        examples: The first image of each true class that was turned, then further ones.
    """

    row: AttackRow
    turned: int
    largest: int
    gain: float
    examples: tuple[Example, ...]


def galleries(record: RunRecord, folder: Path) -> tuple[Gallery, ...]:
    """Read the adversarial sets that a record names and choose what to show.

    Raises:
        DataError: A file is missing, outside the run's folder, damaged, of another artifact, or does not hold
            what the record says.
    """
    return tuple(_gallery(record, row, folder) for row in record.attacks if row.adversarial is not None)


def _gallery(record: RunRecord, row: AttackRow, folder: Path) -> Gallery:
    result = _checked(record, row, folder)
    turned = np.flatnonzero(result.success & (result.clean_predictions == result.labels))
    chosen = chosen_examples(result)
    difference, largest = shown_difference(result.adversarial[chosen], result.original[chosen])
    gain = _REACH / largest if largest else 1.0
    examples = tuple(
        Example(
            index=int(index),
            original=_png(result.original[index]),
            adversarial=_png(result.adversarial[index]),
            difference=_png(moved),
            label=int(result.labels[index]),
            before=int(result.clean_predictions[index]),
            after=int(result.predictions[index]),
        )
        for index, moved in zip(chosen, difference, strict=True)
    )
    return Gallery(row, len(turned), largest, gain, examples)


def _checked(record: RunRecord, row: AttackRow, folder: Path) -> AttackResult:
    name = row.adversarial or ""
    path = folder / name
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.anchor or ".." in windows.parts:
        raise DataError(
            f"{name}: the adversarial set lies outside the run's folder; expected a file inside {folder}"
        )
    try:
        saved = load_adversarial(path)
    except DataError as error:
        raise DataError(" ".join(str(error).split())) from None
    known = {artifact.variant: artifact.sha256 for artifact in record.artifacts}
    wanted = known.get(row.variant, saved.artifact_sha256)
    result = saved.result
    if saved.artifact_sha256 != wanted:
        raise DataError(
            f"{path}: attacks the artifact {saved.artifact_sha256[:12]}, but variant {row.variant!r} is "
            f"{wanted[:12]}; run the attack again"
        )
    right = int((~result.success).sum())
    stated = (row.attack, row.norm, row.epsilon_codes, row.images, row.correct)
    # Of a cascade, the record counts what the attacks before it took, too.
    alone = np.array_equal(result.attacked, result.clean_predictions == result.labels)
    found = (
        result.name,
        result.norm,
        result.epsilon_codes,
        len(result.labels),
        right if alone else min(right, row.correct),
    )
    if found != stated:
        raise DataError(
            f"{path}: holds (attack, norm, codes, images, correct) {found}, but the record says {stated}; "
            "the run's files do not belong together"
        )
    if result.original.ndim not in (3, 4):
        raise DataError(
            f"{path}: images of shape {result.original.shape}; expected (N, C, H, W) or (N, C, L)"
        )
    return result


def shown_difference(
    adversarial: NDArray[np.uint8], original: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], int]:
    """Return what was changed as pictures, grey for no change, and the largest change in codes, black or white."""
    change = adversarial.astype(np.int64) - original
    largest = int(np.abs(change).max(initial=0))
    gain = _REACH / largest if largest else 1.0
    return np.clip(np.rint(_GREY + gain * change), 0, 255).astype(np.uint8), largest


def chosen_examples(result: AttackResult) -> NDArray[np.int64]:
    """Return a few images that were turned: the first of each class, then the next ones; by class and place."""
    places = np.flatnonzero(result.success & (result.clean_predictions == result.labels))
    labels = result.labels
    _, firsts = np.unique(labels[places], return_index=True)
    rest = np.setdiff1d(np.arange(len(places)), firsts)
    chosen = places[np.concatenate((firsts, rest))[:_EXAMPLES].astype(np.int64)]
    return chosen[np.lexsort((chosen, labels[chosen]))]


def _png(image: NDArray[np.uint8]) -> str:
    """Return an image `(C, H, W)` or `(C, L)` as a PNG: RGB of three channels, else channels in a column."""
    if image.ndim == 3 and len(image) == 3:
        picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    else:
        picture = Image.fromarray(np.ascontiguousarray(image.reshape(-1, image.shape[-1])))
    data = io.BytesIO()
    picture.save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
