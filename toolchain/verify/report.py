"""`VerifyReport`: what a verification compared and found, as one validated record."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from ..record_file import Record
from .bounds import BoundResult  # noqa: TC001 - pydantic reads the annotations
from .ties import TieResult  # noqa: TC001 - pydantic reads the annotations

__all__ = ["FirstDifference", "SkippedWitness", "VerifyReport", "WitnessRow"]

SCHEMA: Final = 1

Count = Annotated[int, Field(ge=0)]


class FirstDifference(Record):
    """The first place where a witness parts from what was expected.

    Attributes:
        tensor: The tensor's name in the program; the earliest that differs.
        image: Which image, None where the tensor is not one entry for each image.
        kind: Of the image (see `inputs.KINDS`).
        index: Place in the image's part of the tensor; None where type or shape differ.
        expected, found: The numbers, or types and shapes.
    """

    tensor: str
    image: Count | None
    kind: str | None
    index: tuple[int, ...] | None
    expected: str
    found: str

    def __str__(self) -> str:
        place = self.tensor if self.index is None else f"{self.tensor}{list(self.index)}"
        where = "" if self.image is None else f" of image {self.image} ({self.kind})"
        return f"{place}{where}: expected {self.expected}, found {self.found}"


class WitnessRow(Record):
    """What one witness was compared in.

    Attributes:
        witness, group, promise: See `witness_base.Witness`.
        images: How many images it ran.
        tensors: How many tensors of the program it showed.
        integers, floats: How many numbers were compared, floats by their bits.
        differing: How many differ.
        missing: Tensors that it should have shown and did not.
        not_computed: Tensors that it has no means to compute, with the reason.
        first: The first difference.
        error: Why it ended early: it should have run and could not.
        seconds: How long it ran.
    """

    witness: str
    group: str
    promise: str
    images: Count
    tensors: Count
    integers: Count
    floats: Count
    differing: Count
    missing: tuple[str, ...] = ()
    not_computed: dict[str, str] = Field(default_factory=dict)
    first: FirstDifference | None = None
    error: str | None = None
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether something was compared, and nothing differs, is missing or went wrong."""
        return self.error is None and self.tensors > 0 and not self.differing and not self.missing

    @property
    def fault(self) -> str:
        """What is wrong, in a line; empty where nothing is."""
        if self.error is not None:
            return f"could not run: {self.error}"
        if self.first is not None:
            return str(self.first)
        if self.missing:
            return f"{len(self.missing)} tensors missing: {', '.join(self.missing[:3])}"
        return "" if self.tensors else "nothing was compared"


class SkippedWitness(Record):
    """A witness that did not run, and why."""

    witness: str
    group: str
    reason: str


class VerifyReport(Record):
    """Everything a verification found.

    Attributes:
        file, sha256: The model.
        versions, machine: What it ran with and on.
        seed: Of random and searched images; None for a user's own.
        images: How many; `kinds` says how many of each kind.
        yardstick: What all witnesses are compared with.
        reference_images: How many of the images the int64 NumPy reference ran.
        rows: A row for each witness that ran.
        skipped: Those that did not.
        bounds, ties: What the searched images reach.
        search_seconds: How long the searches took.
        notes: What else a reader must know.
    """

    schema_version: Literal[1] = SCHEMA
    file: str | None
    sha256: str
    versions: dict[str, str]
    machine: str
    seed: int | None
    images: Count
    kinds: dict[str, int]
    yardstick: str
    reference_images: Count
    rows: tuple[WitnessRow, ...]
    skipped: tuple[SkippedWitness, ...]
    bounds: tuple[BoundResult, ...] = ()
    ties: tuple[TieResult, ...] = ()
    search_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether at least one witness ran, and all that ran are equal."""
        return bool(self.rows) and all(row.equal for row in self.rows)

    @property
    def integers(self) -> int:
        """How many integers were compared."""
        return sum(row.integers for row in self.rows)

    @property
    def differing(self) -> int:
        """How many numbers differ."""
        return sum(row.differing for row in self.rows)
