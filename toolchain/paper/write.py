"""A table as files: JSON, CSV, Markdown and a chart. A file is there whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from ..artifact import write_atomically
from ..report.drawing import MARKERS, SERIES, svg_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

    from .records import Cell, RowRecord, TableRecord

__all__ = ["csv_bytes", "markdown_table", "table_markdown", "write_files", "write_table"]

_HEADINGS = (
    "model", "column", "data", "correct", "images", "percent", "low", "high", "paper", "verdict", "missing",
)  # fmt: skip


def write_table(table: TableRecord, out: Path) -> tuple[Path, ...]:
    """Write a table into a folder as `table1.json`, `.csv`, `.md` and `.svg`; return the files.

    Raises:
        OutputError: One cannot be written.
    """
    contents = {
        "json": json.dumps(table.to_json(), indent=1),
        "csv": csv_bytes(_HEADINGS, _csv_rows(table)),
        "md": table_markdown(table),
        "svg": _chart(table),
    }
    return write_files(f"table{table.number}", contents, out)


def write_files(stem: str, contents: Mapping[str, str], out: Path) -> tuple[Path, ...]:
    """Write texts into a folder under one name, by the suffix of each; return the files.

    Raises:
        OutputError: One cannot be written.
    """
    files = []
    for suffix, text in contents.items():
        files.append(out / f"{stem}.{suffix}")
        write_atomically(files[-1], text.encode())
    return tuple(files)


def csv_bytes(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    return buffer.getvalue()


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; the first column holds words, the others figures."""
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table_markdown(table: TableRecord) -> str:
    """Return a table in Markdown: ours, and the paper's in brackets, in percent."""
    headings = ["Model", *table.columns, "adaptive", "query", "verdict"]
    lines = [
        f"# Table {table.number}: {table.title}",
        f"{table.data}: ours in percent, the paper's in brackets. Budget: {table.budget}. Seed {table.seed}.",
        _about(table),
        markdown_table(headings, [_markdown_row(row, table) for row in table.rows]),
        "Attack strengths (the paper prints none):",
        markdown_table(
            ["Column", "attack", "how it was chosen"], [[s.column, s.attack, s.why] for s in table.strengths]
        ),
    ]
    if table.substitute:
        lines.insert(
            3, f"Black-box attacks are made on a substitute ({table.substitute}), once for all models."
        )
    absent = {f"- {row.model}: {row.missing}" for row in table.rows if row.missing}
    if absent:
        lines += ["Without figures:", "\n".join(line for line in _in_order(table) if line in absent)]
    return "\n\n".join(lines) + "\n"


def _in_order(table: TableRecord) -> list[str]:
    return [f"- {row.model}: {row.missing}" for row in table.rows]


def _about(table: TableRecord) -> str:
    text = (
        "(Q): 3-bit weights, activations in float. Deployed: the compiled integer artifact, judged by the emulator; "
        "the paper has no such rows. +mu: the literal mu-law map, mu = 255, on the last layers."
    )
    if table.quick:
        return f"{text} No masking verdict was computed (quick): no figure under attack is certain to be robustness."
    return (
        f"{text} `adaptive` and `query`: what withstands all attacks of those suites, image by image, within "
        f"{table.epsilon_codes} codes, on the first {table.probed} images. The verdict is about white-box attacks "
        "within the same ball."
    )


def _markdown_row(row: RowRecord, table: TableRecord) -> list[str]:
    if row.missing:
        printed = [f"- ({row.paper[c]:.2f})" if c in row.paper else "-" for c in table.columns]
        reason = "no checkpoint" if not row.sha256 else "not mapped"
        return [row.model, *printed, "-", "-", reason]
    because = f" ({', '.join(row.because)})" if row.because else ""
    return [
        row.model,
        *(_both(row.cells[column]) for column in table.columns),
        *("-" if cell is None else _percent(cell) for cell in (row.adaptive, row.query)),
        row.verdict + because,
    ]


def _percent(cell: Cell) -> str:
    return f"{cell.percent:.{2 if cell.images >= 1000 else 1}f}"


def _both(cell: Cell) -> str:
    return _percent(cell) if cell.paper is None else f"{_percent(cell)} ({cell.paper:.2f})"


def _csv_rows(table: TableRecord) -> list[list[object]]:
    found: list[list[object]] = []
    for row in table.rows:
        named = {**row.cells}
        named |= {
            name: cell
            for name, cell in (("adaptive", row.adaptive), ("query", row.query))
            if cell is not None
        }
        for column in (*table.columns, "adaptive", "query"):
            cell, printed = named.get(column), row.paper.get(column, "")
            counts: list[object] = ["", "", "", "", ""]
            if cell is not None:
                counts = [
                    cell.correct,
                    cell.images,
                    *(f"{x:.4f}" for x in (cell.percent, cell.low, cell.high)),
                ]
            elif not row.missing or (column in ("adaptive", "query")):
                continue
            found.append([row.model, column, table.data, *counts, printed, row.verdict, row.missing])
    return found


def _chart(table: TableRecord) -> str:
    """Draw a panel for each column: ours as dots with their intervals, the paper's as open marks."""
    names = [row.model for row in table.rows]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(table.columns), sharey=True, squeeze=False)[0]
        for column, axes in zip(table.columns, panels, strict=True):
            ours = [(y, row.cells[column]) for y, row in enumerate(table.rows) if column in row.cells]
            if ours:
                shares = [cell.percent for _, cell in ours]
                axes.errorbar(
                    shares,
                    [y for y, _ in ours],
                    xerr=(
                        [cell.percent - cell.low for _, cell in ours],
                        [cell.high - cell.percent for _, cell in ours],
                    ),
                    fmt=MARKERS[0], color=SERIES[0], markersize=3.5, elinewidth=1.0, label="here",
                )  # fmt: skip
            theirs = [(y, row.paper[column]) for y, row in enumerate(table.rows) if column in row.paper]
            axes.plot(
                [value for _, value in theirs], [y for y, _ in theirs], MARKERS[2], color=SERIES[1],
                markersize=4.5, fillstyle="none", label="paper",
            )  # fmt: skip
            axes.set_title(column, fontsize="small")
            axes.set_xlim(-4, 104)
            axes.set_xticks([0, 50, 100])
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_yticks(range(len(names)), names)
            axes.grid(axis="x")
            axes.set_axisbelow(True)
        figure.supxlabel(f"accuracy in percent on {table.images} images of {table.data}", fontsize="small")
        handles, labels = max((axes.get_legend_handles_labels() for axes in panels), key=lambda x: len(x[1]))
        figure.legend(handles, labels, loc="outside upper left", ncols=2, handletextpad=0.2)

    return svg_file(draw, 5.2, f"Table {table.number}: {table.title}; here and in the paper.")
