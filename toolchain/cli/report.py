"""`ohmfold report`: a run folder as one HTML page."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import Annotated

import typer

from .output import check_writable, say

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A folder that demo or attack wrote.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", show_default="RUN_DIR/report.html", help="The page."),
    ] = None,
) -> None:
    """Write the report of a run: one self-contained HTML page."""
    from ..run_record import RunRecord

    RunRecord.load(folder)
    check_writable(out or folder / "report.html")
    from ..report import write_report

    say(f"wrote {write_report(folder, out)}")
