"""What a run folder is made of: the rows of its record, and the folder itself."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import OutputError
from .artifact import library_versions, write_atomically
from .attacks import worst_case
from .run_record import (
    WORST_CASE,
    AccuracyRow,
    ArtifactRecord,
    AttackRow,
    DatasetRecord,
    ExactnessRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from ..models.image_data import Dataset
    from .artifact import Artifact
    from .attacks import AttackResult
    from .run_record import RunRecord
    from .witness import Certificate

__all__ = [
    "accuracy_row",
    "attack_row",
    "check_run_folder",
    "dataset_record",
    "describe_artifact",
    "exactness_rows",
    "machine",
    "run_folder",
    "versions",
    "worst_case_row",
    "write_record",
]

RECORD = "run.json"
_MORE_LIBRARIES = ("numba", "cleverhans", "pyautoattack")


def dataset_record(data: Dataset) -> DatasetRecord:
    """Describe the images that were judged."""
    return DatasetRecord(name=data.name, images=len(data), sha256=data.sha256())


def describe_artifact(
    variant: str,
    file: str,
    artifact: Artifact,
    float_model: str | Path | ir.Model | None = None,
    images: NDArray[np.uint8] | None = None,
) -> ArtifactRecord:
    """Describe an artifact and its layers.

    Args:
        variant: Such as `plain`.
        file: Its name in the run folder.
        artifact: The artifact.
        float_model: What it was made from, a file or `onnx_ir.Model`, for the error of its activations.
        images: uint8, to measure that error on.
    """
    from .analysis.layers import activation_errors, layer_rows

    errors = () if float_model is None or images is None else activation_errors(artifact, float_model, images)
    return ArtifactRecord(
        variant=variant,
        file=file,
        sha256=artifact.sha256,
        recipe=dict(artifact.metadata().get("recipe") or {}),
        notes=tuple(artifact.notes),
        layers=layer_rows(artifact, errors),
    )


def accuracy_row(
    variant: str, model: str, witness: str, predictions: NDArray[np.int64], labels: NDArray[np.int64]
) -> AccuracyRow:
    """Count what a witness got right."""
    return AccuracyRow.model_validate(
        {
            "variant": variant,
            "model": model,
            "witness": witness,
            "images": len(labels),
            "correct": int(np.count_nonzero(predictions == labels)),
        }
    )


def exactness_rows(variant: str, certificates: Sequence[Certificate]) -> tuple[ExactnessRow, ...]:
    """One row for each witness and way of running it, its batch sizes added up."""
    groups: dict[str, list[Certificate]] = {}
    for certificate in certificates:
        groups.setdefault(certificate.name, []).append(certificate)
    rows = []
    for name, members in groups.items():
        total = members[0].comparison
        for member in members[1:]:
            total = total + member.comparison
        first = str(total.first) if total.first else None
        rows.append(
            ExactnessRow(
                variant=variant,
                witness=name,
                tensors=total.tensors,
                integers=total.integers,
                floats=total.floats,
                differing=total.differing + len(total.missing),
                first_difference=first or (f"{total.missing[0]}: missing" if total.missing else None),
            )
        )
    return tuple(rows)


def attack_row(variant: str, result: AttackResult, file: str | None) -> AttackRow:
    """Count what withstood an attack."""
    return AttackRow(
        variant=variant,
        attack=result.name,
        parameters=dict(result.parameters),
        norm=result.norm,
        epsilon_codes=result.epsilon_codes,
        images=len(result.labels),
        clean_correct=int(np.count_nonzero(result.clean_predictions == result.labels)),
        correct=int(np.count_nonzero(~result.success)),
        adversarial=file,
    )


def worst_case_row(variant: str, results: Sequence[AttackResult]) -> AttackRow:
    """Count the images that withstood every attack that stayed within the ball."""
    # Those that nothing bounds do not count; their radius is the strength of a noise.
    first = next((result for result in results if result.norm != "none"), results[0])
    return AttackRow(
        variant=variant,
        attack=WORST_CASE,
        parameters={},
        norm=first.norm,
        epsilon_codes=first.epsilon_codes,
        images=len(first.labels),
        clean_correct=int(np.count_nonzero(first.clean_predictions == first.labels)),
        correct=int(np.count_nonzero(worst_case(results))),
    )


def versions() -> dict[str, str]:
    """Versions of everything that a run's figures depend on."""
    found = {"python": platform.python_version(), **library_versions()}
    for name in _MORE_LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> str:
    """The processor in words: architecture, cores that this process may use, operating system."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return f"{platform.machine()}, {cores} cores, {platform.system()}"


def write_record(folder: Path, record: RunRecord) -> None:
    """Write a run's record into its folder."""
    write_atomically(folder / RECORD, record.to_json().encode())


@contextlib.contextmanager
def run_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files become the run folder `out` when the block ends well.

    A new folder appears whole, by one rename; in a former run's folder the files are replaced one by one,
    the record last. When the block fails or is interrupted, nothing is left behind.

    Raises:
        OutputError: `out` cannot be written, or holds something else than a former run.
    """
    check_run_folder(out)
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.absolute().parent))
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror or error}") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        if not out.exists():
            temporary.rename(out)
            return
        for file in sorted(temporary.iterdir(), key=lambda path: path.name == RECORD):
            file.replace(out / file.name)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_run_folder(out: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be or must not become a run folder.

    Raises:
        OutputError: It is a file, lies where no folder can be made, or holds something else than a run.
    """
    parent = out.absolute().parent
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, expected a folder to write to")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"cannot make the folder {out}: {parent} is not a folder that can be written to")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise OutputError(f"{out} is not empty and holds no {RECORD} of a former run; choose another folder")
