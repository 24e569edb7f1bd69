"""The folder of a study of chips: `chips.jsonl` while it runs, and what it found.

| file | what it holds |
|---|---|
| `chips.jsonl` | a line for every finished chip: what its result depends on, and the result |
| `chips.json` | the study (`ChipStudy`), all figures |
| `chips.csv` | a line for every chip of the study: field, value, seed, images, correct, accuracy |
| `distribution.svg` | how the chips' accuracies are distributed |
| `sweep.svg` | accuracy against the swept field; only of a sweep |
"""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import DataError, OutputError
from .artifact import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from .chips import ChipStudy

__all__ = ["ChipKey", "FinishedChips", "check_study_folder", "write_study"]

LINES = "chips.jsonl"
STUDY = "chips.json"
TABLE = "chips.csv"
DISTRIBUTION = "distribution.svg"
SWEEP = "sweep.svg"


class ChipKey(NamedTuple):
    """What a chip's result depends on.

    Attributes:
        artifact: SHA-256 of the model.
        profile: SHA-256 of the hardware profile.
        calibration: SHA-256 of the images that calibrate its converters; None where they are not calibrated.
        data: SHA-256 of the images that judge, and of their labels.
        ohmfold: Version of the package.
        seed: Which chip.
    """

    artifact: str
    profile: str
    calibration: str | None
    data: str
    ohmfold: str
    seed: int


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    artifact: str
    profile: str
    calibration: str | None
    data: str
    ohmfold: str
    seed: int
    images: Annotated[int, Field(ge=1)]
    correct: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.correct > self.images:
            raise ValueError(f"{self.correct} of {self.images} images are correct")
        return self

    @property
    def key(self) -> ChipKey:
        return ChipKey(self.artifact, self.profile, self.calibration, self.data, self.ohmfold, self.seed)


class FinishedChips:
    """Results of chips by what they depend on; with a folder, kept in its `chips.jsonl`.

    A line is written at once when its chip is finished. A last line without its end, which is what a killed run can
    leave, counts for nothing and is removed. Nothing is made before the first chip is finished.

    Args:
        folder: The folder of a study, which need not exist; None: nothing is kept.

    Raises:
        DataError: The file holds something else than finished chips.
        OutputError: The file cannot be read or mended.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / LINES
        self._correct: dict[ChipKey, int] = {}
        if self._path is not None:
            self._read(self._path)

    def __contains__(self, key: ChipKey) -> bool:
        return key in self._correct

    def __getitem__(self, key: ChipKey) -> int:
        """How many images the chip classifies correctly."""
        return self._correct[key]

    def add(self, key: ChipKey, images: int, correct: int) -> None:
        """Write down a finished chip.

        Raises:
            OutputError: The file cannot be written.
        """
        if self._path is not None:
            line = json.dumps(key._asdict() | {"images": images, "correct": correct}) + "\n"
            try:
                self._path.parent.mkdir(exist_ok=True)
                with self._path.open("ab", buffering=0) as file:  # one write: all of the line or a part of it
                    file.write(line.encode())
            except OSError as error:
                raise OutputError(f"cannot write {self._path}: {error.strerror or error}") from None
        self._correct[key] = correct

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            for number, text in enumerate(whole.splitlines(), start=1):
                line = _parsed(text, f"{path}, line {number}")
                self._correct[line.key] = line.correct
            if len(whole) < len(data):
                os.truncate(path, len(whole))
        except OSError as error:
            raise OutputError(f"cannot read {path}: {error.strerror or error}") from None


def _parsed(text: bytes, where: str) -> _Line:
    try:
        return _Line.model_validate_json(text)
    except ValidationError as error:
        raise DataError(
            f"{where}: {error.errors()[0]['msg']}; expected a finished chip; remove the line or the file"
        ) from None


def check_study_folder(out: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be or must not become that of a study.

    Raises:
        OutputError: It is a file, lies where no folder can be made, or holds something else than a study.
    """
    parent = out.absolute().parent
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, expected a folder to write to")
    if not out.exists() and not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OutputError(f"cannot make the folder {out}: {parent} is not a folder that can be written to")
    if out.is_dir() and not os.access(out, os.W_OK):
        raise OutputError(f"cannot write to the folder {out}")
    if out.is_dir() and any(out.iterdir()) and not (out / LINES).is_file():
        raise OutputError(f"{out} is not empty and holds no {LINES} of a former study; choose another folder")


def write_study(study: ChipStudy, folder: Path) -> tuple[str, ...]:
    """Write what a study found into its folder, each file whole or not at all, `chips.json` last.

    Returns:
        The names of the files.

    Raises:
        OutputError: A file cannot be written.
    """
    from .report.chip_charts import distribution_chart, sweep_chart

    files = {TABLE: _csv(study), DISTRIBUTION: distribution_chart(study)}
    if study.field is not None:
        files[SWEEP] = sweep_chart(study)
    files[STUDY] = study.to_json()
    try:
        folder.mkdir(exist_ok=True)
        if study.field is None:
            (folder / SWEEP).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return tuple(files)


def _csv(study: ChipStudy) -> str:
    """A line for every chip; field and value are empty without a sweep."""
    from .hardware import shown

    images = study.data.images
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["field", "value", "seed", "images", "correct", "accuracy"])
    for point in study.points:
        swept = ["", ""] if study.field is None else [study.field, shown(point.value)]
        rows.writerows(
            [*swept, chip.seed, images, chip.correct, chip.correct / images] for chip in point.chips
        )
    return text.getvalue()
