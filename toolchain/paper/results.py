"""What lies in a folder of results, read back: the tables, Figures 1, 3 and 4, and what claims need beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from ...errors import OutputError
from .claim import NotMeasured
from .figures import WidthRecord
from .norms import FIGURE_OF, NormRecord
from .printed import CLEAN, paper_tables
from .records import Cell, TableRecord
from .twelve import BITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .extras import Extras
    from .printed import Attacker, DataName, PaperTable
    from .records import RowRecord

__all__ = ["Results", "command_of", "images_of", "mean_of", "read_results", "row_of"]

_Kind = TypeVar("_Kind")
_FLOAT = "float"
_QUANTISED = " (Q)"


class CleanCells(NamedTuple):
    """Clean accuracies by model, the command that measures them, and on which images, in words."""

    cells: Mapping[str, Cell]
    command: str
    images: str


@dataclass(frozen=True)
class Results:
    """What is known of one data set; None for what is not there.

    Attributes:
        data: The data set.
        white, black: Its two tables.
        widths: Figure 1.
        norms: Figure 3 or 4.
        extras: What no table holds.
    """

    data: DataName
    white: TableRecord | None
    black: TableRecord | None
    widths: WidthRecord | None
    norms: NormRecord | None
    extras: Extras

    def table(self, attacker: Attacker) -> TableRecord:
        """Return a table.

        Raises:
            NotMeasured: It is not among the results.
        """
        found = self.white if attacker == "white box" else self.black
        if found is None:
            number = self.printed(attacker).number
            raise NotMeasured(f"table{number}.json is not there: {command_of(f'table{number}')}")
        return found

    def printed(self, attacker: Attacker) -> PaperTable:
        """Return the paper's table."""
        tables = paper_tables().values()
        return next(one for one in tables if (one.data, one.attacker) == (self.data, attacker))

    def needed_norms(self) -> NormRecord:
        """Return Figure 3 or 4.

        Raises:
            NotMeasured: It is not among the results.
        """
        if self.norms is None:
            part = f"figure{FIGURE_OF[self.data]}"
            raise NotMeasured(f"{part}.json is not there: {command_of(part)}")
        return self.norms

    def clean(self, names: Sequence[str]) -> CleanCells:
        """Return the clean accuracy of models: of the table, or of Figure 1.

        Of the two that have all the models, it is the one of more images.

        Raises:
            NotMeasured: Neither has them all.
        """
        part = f"table{self.printed('white box').number}"
        sources: list[CleanCells] = []
        reasons: list[str] = []
        if self.white is not None:
            rows = {row.model: row for row in self.white.rows if row.model in names}
            reasons += [row.missing for row in rows.values() if row.missing]
            cells = {name: row.cells[CLEAN] for name, row in rows.items() if CLEAN in row.cells}
            sources.append(CleanCells(cells, command_of(part), images_of(self.white)))
        if self.widths is not None:
            by = {name: self.widths.cells.get(name.removesuffix(_QUANTISED), {}) for name in names}
            width = {name: str(BITS) if name.endswith(_QUANTISED) else _FLOAT for name in names}
            reasons += [self.widths.missing[n] for n in names if n in self.widths.missing]
            cells = {name: by[name][width[name]] for name in names if width[name] in by[name]}
            sources.append(CleanCells(cells, command_of("figure1"), images_of(self.widths)))
        whole = [source for source in sources if len(source.cells) == len(names)]
        if not whole:
            reasons = reasons or [f"neither {part}.json nor figure1 is there: {command_of(part)}"]
            raise NotMeasured("; ".join(dict.fromkeys(reasons)))
        return max(whole, key=lambda source: min(cell.images for cell in source.cells.values()))


def images_of(record: TableRecord | WidthRecord) -> str:
    """Return what a record's accuracies were measured on, in words."""
    return f"{record.images} images of {record.data}"


def command_of(part: str) -> str:
    """Return the command that measures a part of the paper."""
    return f"ohmfold paper {part} --out results/"


def row_of(table: TableRecord, name: str) -> RowRecord:
    """Return a model of a table.

    Raises:
        NotMeasured: It has no figures.
    """
    row = next((one for one in table.rows if one.model == name), None)
    if row is None or row.missing or not row.cells:
        reason = row.missing if row is not None and row.missing else f"table {table.number} has no row {name}"
        raise NotMeasured(reason)
    return row


def mean_of(row: RowRecord, columns: Sequence[str]) -> float:
    """Return the mean accuracy of a model over columns, in percent."""
    return sum(row.cells[column].percent for column in columns) / len(columns)


def read_results(out: Path, data: DataName, extras: Extras) -> Results:
    """Read what a folder of results holds of a data set.

    Args:
        out: The folder.
        data: The data set.
        extras: What no table holds.

    Raises:
        OutputError: A file is not what was written.
    """
    numbers = {table.attacker: table.number for table in paper_tables().values() if table.data == data}
    return Results(
        data,
        _read(out / f"table{numbers['white box']}.json", TableRecord),
        _read(out / f"table{numbers['black box']}.json", TableRecord),
        _read(out / f"figure1-{data}.json", WidthRecord),
        _read(out / f"figure{FIGURE_OF[data]}.json", NormRecord),
        extras,
    )


def _read(path: Path, kind: type[_Kind]) -> _Kind | None:
    if not path.is_file():
        return None
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise OutputError(
            f"{path} cannot be read ({first}); remove it and measure it again: "
            f"{command_of(path.stem.partition('-')[0])}"
        ) from None
