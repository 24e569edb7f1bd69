"""`ohmfold paper`: the paper's tables and figures, measured here beside what it prints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Data, Seed  # noqa: TC001 - typer reads the annotations
from .output import count, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from ..paper.cells import Cells
    from ..paper.printed import DataName
    from ..paper.records import RowRecord, TableRecord
    from ..paper.table import Budget
    from .output import Progress

__all__ = ["paper"]

_TABLES = ("table1", "table2", "table3", "table4")
_PARTS = (*_TABLES, "figure1", "figure2")
_ALL = "all"
_WINDOW = 600.0


def paper(
    part: Annotated[
        str, typer.Argument(metavar="PART", help="table1, table2, table3, table4, figure1, figure2 or all.")
    ],
    *,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FOLDER", help="Where results go; what was killed goes on there."),
    ],
    data: Data = None,
    cifar10_name: Annotated[
        str | None,
        typer.Option(
            "--cifar10-name",
            metavar="TEXT",
            help="What to write beside figures of CIFAR-10, such as 'CIFAR-10 (JPEG)' for a JPEG copy.",
        ),
    ] = None,
    zoo: Annotated[
        Path | None,
        typer.Option(
            "--zoo", metavar="FOLDER", help="Checkpoints, looked for there before the package's own."
        ),
    ] = None,
    substitute: Annotated[
        str | None,
        typer.Option(
            "--substitute",
            metavar="MODEL",
            show_default="a small network, trained once",
            help="What black-box attacks are made on.",
        ),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images", min=1, show_default="1000, or 100 with --quick", help="How many to judge on."
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A subset, shorter CW-L2, no adaptive attacks, queries or verdict."),
    ] = False,
    seed: Seed = 0,
) -> None:
    """Measure the paper's tables and figures; a model without a checkpoint says how to train it."""
    from ...errors import OutputError, RecipeError

    if part not in (*_PARTS, _ALL):
        raise RecipeError(f"no part {part!r} of the paper; expected one of {', '.join((*_PARTS, _ALL))}")
    if zoo is not None and not zoo.is_dir():
        raise RecipeError(
            f"--zoo {zoo}: no such folder; expected one of safetensors files named as in the zoo"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror or error}") from None
    parts = _PARTS if part == _ALL else (part,)
    with progress_bar("paper", _WINDOW) as progress:
        progress("loading", 0.0)
        import_onnxruntime()
        from ..paper.cells import Cells
        from ..paper.table import Budget

        work = _Work(
            out,
            Cells(out),
            Budget(images, quick, seed),
            data,
            cifar10_name,
            zoo,
            substitute,
            progress,
            [],
            [],
            [],
        )
        for one in parts:
            _measure(one, work, alone=len(parts) == 1)
    for record in work.tables:
        _show(record)
    say(*work.left_out, *(f"wrote {file}" for file in work.files))


@dataclass(frozen=True, eq=False)
class _Work:
    """What was asked for, and what was done."""

    out: Path
    cells: Cells
    budget: Budget
    data: str | None
    cifar10_name: str | None
    zoo: Path | None
    substitute: str | None
    progress: Progress
    tables: list[TableRecord]
    left_out: list[str]
    files: list[Path]


def _measure(part: str, work: _Work, *, alone: bool) -> None:
    """Measure a part and write it; of several, one whose images are not there is left out, and said to be."""
    from ...errors import DataError

    try:
        if part in _TABLES:
            _table(int(part[-1]), work)
        elif part == "figure1":
            _widths(work)
        else:
            from ..paper.figures import write_curves

            work.files.extend(write_curves(work.out))
    except DataError as error:
        if alone:
            raise
        work.left_out.append(f"{part} was left out: {error}")


def _table(number: int, work: _Work) -> None:
    from ..paper.printed import paper_tables
    from ..paper.table import measure_table
    from ..paper.write import write_table

    record = measure_table(
        number,
        work.cells,
        budget=work.budget,
        data=work.data,
        called=work.cifar10_name if paper_tables()[number].data == "cifar10" else None,
        zoo=work.zoo,
        substitute=work.substitute,
        progress=work.progress,
    )
    work.tables.append(record)
    work.files.extend(write_table(record, work.out))


def _widths(work: _Work) -> None:
    """Figure 1 for the data sets that are there; the others are left out, and said to be."""
    from ...errors import DataError
    from ..paper.figures import measure_widths, write_widths

    reasons = []
    names: tuple[DataName, ...] = ("mnist", "cifar10")
    for name in names:
        try:
            record = measure_widths(
                name,
                work.cells,
                budget=work.budget,
                spec=work.data,
                called=work.cifar10_name if name == "cifar10" else None,
                zoo=work.zoo,
                progress=work.progress,
            )
        except DataError as error:
            reasons.append(f"figure1 of {name} was left out: {error}")
            continue
        work.files.extend(write_widths(name, record, work.out))
    if len(reasons) == len(names):
        raise DataError("; ".join(reasons))
    work.left_out.extend(reasons)


def _show(record: TableRecord) -> None:
    """Print a table: ours, and the paper's in brackets."""
    table(
        f"Table {record.number}: {record.title}; percent, the paper's in brackets",
        ["model", *record.columns, "adaptive", "query", "verdict"],
        [_cells(row, record) for row in record.rows],
    )
    table(
        "Attack strengths",
        ["column", "attack", "how it was chosen"],
        [(one.column, one.attack, one.why) for one in record.strengths],
        left=3,
    )
    reasons = dict.fromkeys(row.missing for row in record.rows if row.missing)
    say(*reasons, f"{count(record.images)} images of {record.data}; {record.budget}")
    if record.substitute:
        say(f"black-box attacks were made on {record.substitute}")


def _cells(row: RowRecord, record: TableRecord) -> list[str]:
    found = []
    for column in record.columns:
        cell, printed = row.cells.get(column), row.paper.get(column)
        ours = "-" if cell is None else f"{cell.percent:.1f}"
        found.append(ours if printed is None else f"{ours} ({printed:.1f})")
    further = ["-" if cell is None else f"{cell.percent:.1f}" for cell in (row.adaptive, row.query)]
    verdict = ("not mapped" if row.sha256 else "no checkpoint") if row.missing else row.verdict
    return [row.model, *found, *further, verdict]
