"""What commands print: tables for people, one JSON document for programs, progress on standard error."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from ...errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    Progress = Callable[[str, float], None]

__all__ = ["check_writable", "count", "fold_lines", "percent", "print_json", "progress_bar", "say", "table"]

# Without a terminal nothing is folded: what reads the lines has no width.
_UNBOUNDED = 10_000


def _console() -> Console:
    """A console on the standard output of now (tests and redirections replace it)."""
    return Console(
        file=sys.stdout,
        width=None if sys.stdout.isatty() else _UNBOUNDED,
        highlight=False,
        soft_wrap=False,
    )


def say(*lines: str) -> None:
    """Print lines of text as they are."""
    console = _console()
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; the first `left` columns hold words, the others figures.

    Args:
        title: Above the table; empty for none.
        columns: Headings.
        rows: Cells, one for each column.
        left: How many columns are aligned left.
    """
    console = _console()
    shown = Table(
        title=title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for position, name in enumerate(columns):
        shown.add_column(
            name,
            justify="left" if position < left else "right",
            overflow="fold",
            no_wrap=not console.is_terminal,
        )
    for row in rows:
        shown.add_row(*(_escaped(cell) for cell in row))
    console.print(shown)


def _escaped(text: str) -> str:
    """Keep square brackets of shapes from being read as markup."""
    return text.replace("[", r"\[")


def fold_lines(title: str, lines: Sequence[str]) -> None:
    """Print a titled list, nothing where it is empty."""
    if lines:
        say(title, *(f"  - {line}" for line in lines), "")


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document; infinities and NaN, which JSON does not have, become null."""
    sys.stdout.write(json.dumps(_finite(document), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def percent(correct: float, images: int) -> str:
    """`99.44 %`, with as many decimals as the number of images carries."""
    return f"{100 * correct / images:.{2 if images >= 1000 else 1}f} %"


def count(number: int) -> str:
    """A number with its thousands set apart."""
    return f"{number:,}"


@contextlib.contextmanager
def progress_bar(label: str, window: float = 30.0) -> Iterator[Progress]:
    """Yield `update(step, fraction)`; a bar on standard error where that is a terminal, else nothing.

    Args:
        label: What is in progress.
        window: Seconds of the past that the time left is estimated from; several steps should fit in.
    """
    if not sys.stderr.isatty():
        yield _no_progress
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.fields[label]}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, transient=True, speed_estimate_period=window) as bar:
        task = bar.add_task("", total=1.0, label=label)

        def update(step: str, fraction: float) -> None:
            bar.update(task, description=step, completed=min(max(fraction, 0.0), 1.0))

        yield update


def _no_progress(step: str, fraction: float) -> None:
    del step, fraction


def check_writable(path: Path) -> None:
    """Refuse, before any work is done, a path at which no file can be written.

    Raises:
        OutputError: It is a folder, or its folder is missing or not writable.
    """
    parent = path.absolute().parent
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder, expected the name of a file")
    if not parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {parent}")
    if not os.access(parent, os.W_OK):
        raise OutputError(f"cannot write {path}: the folder {parent} is not writable")
