"""What a report is made of: everything that the runs given to it hold, read and checked.

| given | is read as |
|---|---|
| a folder with `run.json` (`ohmfold demo`, `ohmfold attack --out`) | a run, with `result.json` its campaign |
| a folder with `chips.json` (`ohmfold chips --out`) | a study of chips |
| a folder with `analysis.json` (`ohmfold analyze --out`) | an analysis |
| a file that `ohmfold verify --json` or `ohmfold run --json` printed | a verification, a run on a data set |
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from ...errors import DataError
from ..attacks.results import CampaignResult
from ..chips import ChipStudy
from ..run_record import AccuracyRow, ExactnessRow, RunRecord
from ..verify.report import VerifyReport
from .records import AnalysisRecord, DataRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from ..analysis.report import Analysis

__all__ = ["Evidence", "Run", "read_evidence"]

_LARGEST = 64 << 20
_CAMPAIGN = CampaignResult.file_name
_FILES: dict[str, tuple[str, type[BaseModel]]] = {
    "chips.json": ("a study of chips", ChipStudy),
    "analysis.json": ("an analysis", AnalysisRecord),
}
# Of a JSON file, a key that only its kind has.
_PRINTED: dict[str, tuple[str, type[BaseModel]]] = {
    "yardstick": ("a verification", VerifyReport),
    "witnesses": ("a run on a data set", DataRun),
    "points": ("a study of chips", ChipStudy),
    "float_model": ("an analysis", AnalysisRecord),
}
_EXPECTED = (
    "expected a folder that demo, attack, chips or analyze wrote, or a JSON file that verify or run printed"
)


@dataclass(frozen=True)
class Run:
    """A run that was read.

    Attributes:
        path: As it was given.
        letter: What the report calls it, where it holds several; else empty.
        record: Its record, the variants of several runs under the run's letter.
        original: The record as it was written.
        campaign: Of `ohmfold attack`.
    """

    path: Path
    letter: str
    record: RunRecord
    original: RunRecord
    campaign: CampaignResult | None

    @property
    def name(self) -> str:
        """In a few words."""
        return f"{self.letter}: {self.path.name}" if self.letter else self.path.name

    def called(self, variant: str) -> str:
        """What the report calls a variant."""
        return f"{self.letter}: {variant}" if self.letter else variant


@dataclass(frozen=True)
class Evidence:
    """Everything that was read, each with the path that it was given as, in the order given."""

    runs: tuple[Run, ...] = ()
    studies: tuple[tuple[Path, ChipStudy], ...] = ()
    analyses: tuple[tuple[Path, Analysis, AnalysisRecord], ...] = ()
    verifications: tuple[tuple[Path, VerifyReport], ...] = ()
    data_runs: tuple[tuple[Path, DataRun], ...] = ()

    def artifact(self, sha256: str) -> str:
        """What the report calls a model: a variant of a run that holds it, or the beginning of its hash."""
        names = [
            artifact.variant
            for run in self.runs
            for artifact in run.record.artifacts
            if artifact.sha256 == sha256
        ]
        return names[0] if names else f"model {sha256[:8]}"

    @property
    def exactness(self) -> tuple[ExactnessRow, ...]:
        """Every comparison of the emulator with another executor."""
        rows = [row for run in self.runs for row in run.record.exactness]
        for _, found in self.verifications:
            rows += [
                ExactnessRow(
                    variant=self.artifact(found.sha256),
                    witness=row.witness,
                    tensors=row.tensors,
                    integers=row.integers,
                    floats=row.floats,
                    differing=row.differing,
                    first_difference=row.fault or None,
                )
                for row in found.rows
            ]
        for _, ran in self.data_runs:
            rows += [row.model_copy(update={"variant": self.artifact(ran.sha256)}) for row in ran.exactness]
        return tuple(rows)

    @property
    def accuracy(self) -> tuple[AccuracyRow, ...]:
        """Every count of images that a float model or exact integers got right, once."""
        rows = [row for run in self.runs for row in run.record.accuracy]
        for _, ran in self.data_runs:
            rows += [
                AccuracyRow(
                    variant=self.artifact(ran.sha256),
                    model="integer",
                    witness=witness,
                    images=ran.images,
                    correct=judged.correct,
                )
                for witness, judged in ran.witnesses.items()
                if witness != "crossbar"
            ]
        for _, study in self.studies:
            rows.append(
                AccuracyRow(
                    variant=self.artifact(study.artifact_sha256),
                    model="integer",
                    witness="emulator",
                    images=study.data.images,
                    correct=study.exact_correct,
                )
            )
        return tuple(dict.fromkeys(rows))


@dataclass
class _Gathered:
    """What is read, while it is read."""

    runs: list[tuple[Path, RunRecord, CampaignResult | None]] = field(default_factory=list)
    studies: list[tuple[Path, ChipStudy]] = field(default_factory=list)
    analyses: list[tuple[Path, Analysis, AnalysisRecord]] = field(default_factory=list)
    verifications: list[tuple[Path, VerifyReport]] = field(default_factory=list)
    data_runs: list[tuple[Path, DataRun]] = field(default_factory=list)

    def add(self, path: Path, found: BaseModel) -> None:
        """Take what a file holds."""
        if isinstance(found, ChipStudy):
            self.studies.append((path, found))
        elif isinstance(found, AnalysisRecord):
            try:
                self.analyses.append((path, found.analysis(), found))
            except ValueError as error:
                raise DataError(f"{path} is not an analysis: {error}") from None
        elif isinstance(found, VerifyReport):
            self.verifications.append((path, found))
        elif isinstance(found, DataRun):
            self.data_runs.append((path, found))


def read_evidence(paths: Sequence[Path]) -> Evidence:
    """Read what runs hold.

    Args:
        paths: Folders and files, as in this module's table; at least one.

    Raises:
        DataError: There is none, or one is missing, damaged, or holds nothing that a report is made of.
    """
    if not paths:
        raise DataError(f"found no run; {_EXPECTED}")
    gathered = _Gathered()
    for path in paths:
        if path.is_file():
            gathered.add(path, _printed(path))
        else:
            _read_folder(path, gathered)
    several = len(gathered.runs) > 1
    runs = tuple(
        _lettered(path, record, campaign, _letter(place) if several else "")
        for place, (path, record, campaign) in enumerate(gathered.runs)
    )
    return Evidence(
        runs,
        tuple(gathered.studies),
        tuple(gathered.analyses),
        tuple(gathered.verifications),
        tuple(gathered.data_runs),
    )


def _read_folder(folder: Path, gathered: _Gathered) -> None:
    held = [name for name in _FILES if (folder / name).is_file()]
    if (folder / RunRecord.file_name).exists() or not held:
        campaign = CampaignResult.load(folder) if (folder / _CAMPAIGN).exists() else None
        gathered.runs.append((folder, RunRecord.load(folder), campaign))
    for name in held:
        kind, model = _FILES[name]
        gathered.add(folder, _validated(folder / name, kind, model, _bytes(folder / name)))


def _printed(path: Path) -> BaseModel:
    """Read what a command printed as JSON."""
    data = _bytes(path)
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    keys = document if isinstance(document, dict) else {}
    for key, (kind, model) in _PRINTED.items():
        if key in keys:
            if model is VerifyReport:  # it says in a word what follows from its rows
                data = json.dumps({name: value for name, value in keys.items() if name != "equal"}).encode()
            return _validated(path, kind, model, data)
    raise DataError(f"{path} is not a run; {_EXPECTED}")


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} has {path.stat().st_size} bytes, more than such a file can have")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; {_EXPECTED}") from None


_Model = TypeVar("_Model", bound=BaseModel)


def _validated(path: Path, kind: str, model: type[_Model], data: bytes) -> _Model:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(f"{path} is not {kind}: {where}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not {kind}: {error}") from None


def _letter(place: int) -> str:
    return ascii_uppercase[place] if place < len(ascii_uppercase) else str(place + 1)


def _lettered(path: Path, record: RunRecord, campaign: CampaignResult | None, letter: str) -> Run:
    run = Run(path, letter, record, record, campaign)
    if not letter:
        return run

    def called(rows: Iterable[Any]) -> tuple[Any, ...]:
        return tuple(row.model_copy(update={"variant": run.called(row.variant)}) for row in rows)

    parts = ("artifacts", "accuracy", "exactness", "attacks", "verdicts")
    return replace(
        run, record=record.model_copy(update={name: called(getattr(record, name)) for name in parts})
    )
