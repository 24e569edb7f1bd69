"""`ohmfold report`: runs as one HTML page."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from .output import check_writable, say

__all__ = ["report"]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="Folders that demo, attack, chips or analyze wrote; files that verify --json or run --json printed.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.html", show_default="report.html in the first RUN", help="The page."
        ),
    ] = None,
) -> None:
    """Write the report of runs: one self-contained HTML page; two runs of one kind are compared."""
    if out is not None:
        check_writable(out)
    from ..report import write_report

    say(f"wrote {write_report(runs, out)}")
