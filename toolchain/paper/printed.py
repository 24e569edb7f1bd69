"""What the paper prints: Tables 1 to 4, and what it says of its figures. Data, in TOML."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CLEAN",
    "Attacker",
    "DataName",
    "PaperTable",
    "figure_shape",
    "paper_tables",
    "read_toml",
]

CLEAN = "Clean"
"""The column without an attack."""

DataName = Literal["mnist", "cifar10"]
Attacker = Literal["white box", "black box"]


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        number: 1 to 4.
        title: In the paper's words.
        data: Which data set.
        attacker: What the attacks see.
        columns: Their headings; `Clean` is no attack.
        rows: Accuracies in percent by the name of the model, one for each column.
    """

    number: int
    title: str
    data: DataName
    attacker: Attacker
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]

    def value(self, row: str, column: str) -> float | None:
        """Return the printed accuracy in percent; None where the paper has no such row."""
        return self.rows[row][self.columns.index(column)] if row in self.rows else None


@cache
def paper_tables() -> Mapping[int, PaperTable]:
    """Return the paper's tables by number."""
    return {
        table["number"]: PaperTable(
            **{key: table[key] for key in ("number", "title", "data", "attacker")},
            columns=tuple(table["columns"]),
            rows={name: tuple(values) for name, values in table["rows"].items()},
        )
        for table in read_toml("tables.toml")["tables"]
    }


def figure_shape(number: int) -> tuple[str, str]:
    """Return the title of a figure and, in words, the shape that the paper gives it."""
    found = next(one for one in read_toml("figures.toml")["figures"] if one["number"] == number)
    return found["title"], found["shape"].strip()


def read_toml(name: str) -> dict[str, Any]:
    """Return a data file of this package."""
    return tomllib.loads((resources.files(__package__) / name).read_text(encoding="utf-8"))
