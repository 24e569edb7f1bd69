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
    from collections.abc import Sequence

    from ..paper.cells import Cells
    from ..paper.claim import Outcome
    from ..paper.printed import DataName
    from ..paper.records import RowRecord, TableRecord
    from ..paper.table import Budget
    from .output import Progress

__all__ = ["paper"]

_TABLES = ("table1", "table2", "table3", "table4")
_NORMS = ("figure3", "figure4")
_PARTS = (*_TABLES, "figure1", "figure2", *_NORMS, "claims")
_ALL = "all"
_WINDOW = 600.0


def paper(
    part: Annotated[
        str,
        typer.Argument(
            metavar="PART",
            help="table1 to table4, figure1 to figure4, claims (what the results say of each claim), or all.",
        ),
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
    cw_steps: Annotated[
        str | None,
        typer.Option(
            "--cw-steps",
            metavar="SEARCHESxSTEPS",
            show_default="5x1000, or 2x60 with --quick",
            help="Shorten CW-L2 alone, which costs hours: so many constants of so many steps, such as 5x200.",
        ),
    ] = None,
    probed: Annotated[
        int,
        typer.Option(
            "--probed", min=1, help="How many images the adaptive, query and verdict columns judge."
        ),
    ] = 200,
    seed: Seed = 0,
) -> None:
    """Measure the paper's tables and figures, and judge its claims; missing models say how to train them."""
    from ...errors import OutputError, RecipeError

    if part not in (*_PARTS, _ALL):
        raise RecipeError(f"no part {part!r} of the paper; expected one of {', '.join((*_PARTS, _ALL))}")
    if zoo is not None and not zoo.is_dir():
        raise RecipeError(
            f"--zoo {zoo}: no such folder; expected one of safetensors files named as in the zoo"
        )
    cw = _cw_steps(cw_steps)
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
            Budget(images, quick, seed, probed, cw),
            data,
            cifar10_name,
            zoo,
            substitute,
            progress,
            [],
            [],
            [],
            [],
        )
        for one in parts:
            _measure(one, work, alone=len(parts) == 1)
    for record in work.tables:
        _show(record)
    if work.outcomes:
        _show_claims(work.outcomes)
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
    outcomes: list[Outcome]
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
        elif part in _NORMS:
            _norms(part, work)
        elif part == "claims":
            _claims(work)
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


def _norms(part: str, work: _Work) -> None:
    """Figure 3 or 4, which need no images."""
    from ..paper.norm_figures import write_norms
    from ..paper.norms import FIGURE_OF, measure_norms

    data = next(name for name, number in FIGURE_OF.items() if part == f"figure{number}")
    record = measure_norms(data, work.cells, zoo=work.zoo, progress=work.progress)
    work.left_out.extend(f"{part}: {reason}" for reason in dict.fromkeys(record.missing.values()))
    work.files.extend(write_norms(record, work.out))


def _claims(work: _Work) -> None:
    """Judge the claims by what lies in the folder, and measure what no table or figure holds."""
    from ..paper.claims import judge_claims, write_claims
    from ..paper.extras import measure_extras
    from ..paper.results import read_results

    found = {}
    names: tuple[DataName, ...] = ("mnist", "cifar10")
    for name in names:
        extras = measure_extras(
            name,
            work.cells,
            budget=work.budget,
            spec=work.data,
            called=work.cifar10_name if name == "cifar10" else None,
            zoo=work.zoo,
            progress=work.progress,
        )
        found[name] = read_results(work.out, name, extras)
    work.outcomes.extend(judge_claims(found))
    work.files.extend(write_claims(work.outcomes, work.out))


def _cw_steps(text: str | None) -> tuple[int, int] | None:
    """Constants and steps of CW-L2, from such as `5x200`."""
    from ...errors import RecipeError

    if text is None:
        return None
    searches, _, steps = text.partition("x")
    if not (searches.isdecimal() and steps.isdecimal() and int(searches) and int(steps)):
        raise RecipeError(f"--cw-steps {text}: expected SEARCHESxSTEPS, two numbers above 0, such as 5x200")
    return int(searches), int(steps)


def _show_claims(outcomes: Sequence[Outcome]) -> None:
    """Print the verdicts; why is in the file, where there is room."""
    verdicts: dict[str, dict[str, str]] = {}
    for one in outcomes:
        verdicts.setdefault(one.title, {})[one.data] = one.verdict
    table(
        "Claims of the paper (CLAIMS.md says why)",
        ["claim", "MNIST", "CIFAR-10"],
        [
            (title, *(by.get(data, "no such claim") for data in ("mnist", "cifar10")))
            for title, by in verdicts.items()
        ],
        left=3,
    )


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
