"""What a campaign keeps while it runs, so that it can be killed at any moment and go on where it stopped.

    RUN_DIR/state/plan.json            what the results depend on; another plan does not go on with these
    RUN_DIR/state/KEY/00003.npz        batch 3 of an attack: its images, found and judged
    RUN_DIR/state/verdict.json         the masking verdict, once it is known

Every file appears whole or not at all. The folder goes when the campaign's result is written.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...errors import OutputError
from ..artifact import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .outcome import AttackResult

__all__ = ["PLAN", "STATE", "Batch", "FolderState", "NoState", "State"]

STATE = "state"
PLAN = "plan.json"
VERDICT = "verdict.json"


@dataclass(frozen=True, eq=False)
class Batch:
    """One finished batch of an attack.

    Attributes:
        chosen: Places of its images among all, int64 `(n,)`, ascending.
        adversarial: uint8 `(n, ...)`.
        attacked, kept_earlier: bool `(n,)`.
        margins: float32 `(iterates, n)`, or None.
        queries: int64 `(n,)`, or None.
        seconds: What it took.
    """

    chosen: NDArray[np.int64]
    adversarial: NDArray[np.uint8]
    attacked: NDArray[np.bool_]
    kept_earlier: NDArray[np.bool_]
    margins: NDArray[np.float32] | None
    queries: NDArray[np.int64] | None
    seconds: float

    @classmethod
    def of(cls, chosen: NDArray[np.int64], result: AttackResult, seconds: float) -> Batch:
        """What is kept of an attack's result on the images `chosen`."""
        return cls(
            chosen, result.adversarial, result.attacked, result.kept_earlier, result.margins, result.queries,
            seconds,
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """The batch as npz."""
        arrays: dict[str, NDArray[Any]] = {
            name: np.asarray(value) for name, value in vars(self).items() if value is not None
        }
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> Batch:
        """Read a batch.

        Raises:
            OutputError: The file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
            seconds = float(arrays.pop("seconds"))
            return cls(seconds=seconds, **{"margins": None, "queries": None, **arrays})
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise OutputError(f"{path} is damaged ({error}); remove it, and it is made again") from None


class State(Protocol):
    """Where finished batches are kept."""

    def batch(self, key: str, number: int) -> Batch | None:
        """A finished batch of an attack, None where it is to be done."""
        ...

    def keep(self, key: str, number: int, batch: Batch) -> None:
        """Keep a finished batch."""
        ...

    def verdict(self) -> dict[str, Any] | None:
        """The verdict, None where it is to be found."""
        ...

    def keep_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Keep the verdict."""
        ...

    def done(self) -> None:
        """Forget everything: the result is written."""
        ...


class NoState:
    """Keeps nothing: a campaign without a folder starts anew."""

    def batch(self, _key: str, _number: int) -> Batch | None:
        """Nothing is kept."""
        return None

    def keep(self, _key: str, _number: int, _batch: Batch) -> None:
        """Forget it."""

    def verdict(self) -> dict[str, Any] | None:
        """Nothing is kept."""
        return None

    def keep_verdict(self, _verdict: Mapping[str, Any]) -> None:
        """Forget it."""

    def done(self) -> None:
        """There is nothing to forget."""


class FolderState:
    """Keeps finished batches in a folder.

    Args:
        folder: Of the run; made where it is missing.
        plan: What the results depend on, as JSON values.

    Raises:
        OutputError: The folder cannot be written, or holds the unfinished campaign of another plan.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self._folder = folder / STATE
        text = json.dumps(plan, sort_keys=True, indent=1)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            kept = self._folder / PLAN
            if not kept.is_file():
                write_atomically(kept, text.encode())
            elif kept.read_text(encoding="utf-8") != text:
                raise OutputError(
                    f"{folder} holds an unfinished campaign of {_difference(kept, json.loads(text))}; start it "
                    f"as it was, choose another folder, or remove {self._folder}"
                )
        except OSError as error:
            raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None
        for rest in folder.rglob(".*.part"):  # of a process that was killed while it wrote
            rest.unlink(missing_ok=True)

    def batch(self, key: str, number: int) -> Batch | None:
        """A finished batch of an attack, None where it is to be done."""
        path = self._path(key, number)
        return Batch.read(path) if path.is_file() else None

    def keep(self, key: str, number: int, batch: Batch) -> None:
        """Keep a finished batch.

        Raises:
            OutputError: It cannot be written.
        """
        path = self._path(key, number)
        try:
            path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write to {path.parent}: {error.strerror or error}") from None
        write_atomically(path, batch.to_bytes())

    def verdict(self) -> dict[str, Any] | None:
        """The verdict, None where it is to be found."""
        path = self._folder / VERDICT
        found: dict[str, Any] | None = json.loads(path.read_text("utf-8")) if path.is_file() else None
        return found

    def keep_verdict(self, verdict: Mapping[str, Any]) -> None:
        """Keep the verdict."""
        write_atomically(self._folder / VERDICT, json.dumps(verdict).encode())

    def done(self) -> None:
        """Remove the folder; the plan goes last, so that what is left of it is still known for what it is."""
        for entry in sorted(self._folder.iterdir(), key=lambda path: path.name == PLAN):
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        self._folder.rmdir()

    def _path(self, key: str, number: int) -> Path:
        return self._folder / key / f"{number:05d}.npz"


def _difference(kept: Path, plan: Mapping[str, Any]) -> str:
    """The first field in which two plans differ, in words."""
    try:
        before = json.loads(kept.read_text("utf-8"))
    except ValueError:
        return "an unreadable plan"
    fields = [name for name in plan if not isinstance(before, dict) or before.get(name) != plan[name]]
    return f"another {fields[0].replace('_', ' ')}" if fields else "other settings"
