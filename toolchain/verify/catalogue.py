"""All witnesses of a model, and the choice among them by name."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from ...errors import DataError, MissingDependencyError
from .compiled import compiled_witnesses
from .forms import form_witnesses
from .witnesses import SharedTwin, python_witnesses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..artifact import Artifact
    from ..twin import Twin
    from .report import VerifyReport
    from .witness_base import Witness

__all__ = ["ALL", "choose", "require_some", "witnesses_of"]

ALL = "all"


def witnesses_of(artifact: Artifact, twin: Callable[[], Twin] | None = None) -> tuple[Witness, ...]:
    """Every witness there is, whether it can run here or not.

    Args:
        artifact: What they run.
        twin: Makes the program's twin, where one is shared.
    """
    twin = twin or SharedTwin(artifact.program)
    return (*python_witnesses(artifact, twin), *form_witnesses(artifact), *compiled_witnesses(artifact))


def choose(witnesses: Sequence[Witness], wanted: Sequence[str]) -> tuple[Witness, ...]:
    """The witnesses of some names or groups, in their own order; "all" for all.

    Raises:
        DataError: A name fits none; names the nearest.
    """
    chosen: set[int] = set()
    for name in wanted:
        fitting = {i for i, one in enumerate(witnesses) if name in (ALL, one.name, one.group)}
        if not fitting:
            known = list(
                dict.fromkeys([ALL, *(one.group for one in witnesses), *(one.name for one in witnesses)])
            )
            close = difflib.get_close_matches(name, known, n=1)
            hint = f", the nearest is {close[0]!r}" if close else ""
            groups = ", ".join(dict.fromkeys(one.group for one in witnesses))
            raise DataError(
                f"no witness {name!r}{hint}; expected all, one of {groups}, or a full name from the table"
            )
        chosen |= fitting
    return tuple(one for i, one in enumerate(witnesses) if i in chosen)


def require_some(report: VerifyReport, wanted: Sequence[str]) -> None:
    """Refuse a report in which a witness that was asked for by name did not run at all.

    Raises:
        MissingDependencyError: Every witness of that name was skipped; says why the first was.
    """
    for name in wanted:
        ran = any(name in (ALL, row.witness, row.group) for row in report.rows)
        reasons = [skip.reason for skip in report.skipped if name in (ALL, skip.witness, skip.group)]
        if not ran:
            why = reasons[0] if reasons else "there is none"
            raise MissingDependencyError(f"no witness of {name!r} could run: {why}")
