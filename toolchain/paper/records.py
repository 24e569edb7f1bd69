"""What a table or a figure came to, as plain records that become JSON, CSV and Markdown."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..analysis.intervals import wilson

if TYPE_CHECKING:
    from .bench import Found

__all__ = ["NOT_COMPUTED", "Cell", "RowRecord", "StrengthRecord", "TableRecord", "cell_of"]

NOT_COMPUTED = "not computed (quick)"
"""What stands for a masking verdict that `--quick` leaves out."""


@dataclass(frozen=True)
class Cell:
    """One figure: images right, of how many, in percent with its 95 % Wilson interval, and what the paper prints."""

    correct: int
    images: int
    percent: float
    low: float
    high: float
    paper: float | None = None


def cell_of(found: Found, paper: float | None = None) -> Cell:
    """Return a count as a figure."""
    low, high = wilson(found.correct, found.images)
    return Cell(found.correct, found.images, found.percent, 100 * low, 100 * high, paper)


@dataclass(frozen=True)
class StrengthRecord:
    """The attack of a column, how strong it is, and why.

    Attributes:
        column: Its heading.
        attack: The attack with its settings, in words.
        why: How it was chosen.
        codes: The radius of its L-infinity ball in codes; None for an attack without one.
    """

    column: str
    attack: str
    why: str
    codes: float | None = None


@dataclass(frozen=True)
class RowRecord:
    """One model of a table.

    Attributes:
        model: Its name.
        checkpoint: The weights' name in the zoo.
        sha256: Of their file; empty where there is none.
        missing: Why there are no figures; empty where there are.
        paper: What the paper prints, by column.
        cells: Ours, by column.
        adaptive, query: What withstands those suites; None where they did not run.
        verdict: The masking verdict's label, or why there is none.
        because: Names of the checks that decided it.
    """

    model: str
    checkpoint: str
    sha256: str
    missing: str
    paper: Mapping[str, float]
    cells: Mapping[str, Cell]
    adaptive: Cell | None = None
    query: Cell | None = None
    verdict: str = NOT_COMPUTED
    because: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableRecord:
    """A table.

    Attributes:
        number, title: The paper's.
        data: The images' name, as it stands beside every figure.
        data_sha256: Of the images.
        images: How many.
        probed: How many of them, the first, the adaptive, query and verdict columns took.
        epsilon_codes: Their ball.
        seed: Of everything random.
        quick: Whether columns were left out and attacks shortened; `budget` says how.
        budget: What was spent, in words.
        substitute: What black-box attacks were made on, in words; empty for white box.
        columns: The paper's.
        strengths: Of each attack.
        rows: The models.
        versions: Of the libraries.
    """

    number: int
    title: str
    data: str
    data_sha256: str
    images: int
    probed: int
    epsilon_codes: int
    seed: int
    quick: bool
    budget: str
    substitute: str
    columns: tuple[str, ...]
    strengths: tuple[StrengthRecord, ...]
    rows: tuple[RowRecord, ...]
    versions: Mapping[str, str | None]

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)
