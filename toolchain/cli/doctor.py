"""`ohmfold doctor`: what is here, what is missing, and how to get it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from .options import Json  # noqa: TC001 - typer reads the annotations
from .output import fold_lines, print_json, say, table

if TYPE_CHECKING:
    from ..doctor import Examination

__all__ = ["doctor"]


def doctor(*, as_json: Json = False) -> None:
    """Print versions, processor features, data sets, and what is missing; exit code 1 if a library is."""
    from ..doctor import examine

    found = examine()
    if as_json:
        print_json(_document(found))
    else:
        _show(found)
    if not found.complete:
        raise typer.Exit(1)


def _document(found: Examination) -> dict[str, object]:
    return {
        "python": found.python,
        "system": found.system,
        "libraries": [vars(library) for library in found.libraries],
        "processor": found.processor,
        "cores": found.cores,
        "features": found.features,
        "instruction_sets": found.instruction_sets,
        "kernel_cache": found.kernel_cache,
        "datasets": [status._asdict() for status in found.datasets],
        "remarks": found.remarks,
        "missing": found.missing,
    }


def _show(found: Examination) -> None:
    say(f"Python {found.python} on {found.system}", "")
    table(
        "Libraries",
        ["library", "version", "needed for"],
        [(library.name, library.version or "missing", library.needed_for) for library in found.libraries],
        left=3,
    )
    features = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found.features.items())
    fold_lines(
        "Processor",
        [
            f"{found.processor}, {found.cores} cores",
            features or "features unknown",
            *found.remarks,
            f"compiled kernels are kept in {found.kernel_cache}"
            if found.kernel_cache
            else "compiled kernels are not kept",
        ],
    )
    table(
        "Data sets",
        ["name", "found", "where"],
        [(status.name, "yes" if status.found else "no", status.where) for status in found.datasets],
        left=3,
    )
    fold_lines("Missing", found.missing)
    if not found.missing:
        say("Nothing is missing.")
