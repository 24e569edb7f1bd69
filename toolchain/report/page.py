"""From a run's folder to one HTML file: a template filled with what the record holds, and nothing else."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..analysis.ranges import FLOAT32_EXACT
from ..artifact import write_atomically
from ..run_record import RunRecord
from .charts import attack_chart, layer_chart, level_bars
from .pictures import galleries
from .verdict import agrees, float_row, masking, verdict
from .words import FILTERS, points

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..run_record import AccuracyRow

__all__ = ["write_report"]

REPORT_NAME = "report.html"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class _Accuracy:
    """A row of the accuracy table: what was counted, and the difference to the float model if known."""

    row: AccuracyRow
    against_float: str | None

    @property
    def variant(self) -> str:
        return self.row.variant


def write_report(run_folder: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a run: one HTML file without scripts that loads nothing else.

    The same run folder always gives the same bytes.

    Args:
        run_folder: Holds `run.json` and the adversarial sets that it names.
        out: The file to write; by default `report.html` in the run's folder.

    Returns:
        The file that was written.

    Raises:
        DataError: The record, or an adversarial set that it names, is missing, damaged, or does not fit.
        OutputError: The file cannot be written.
    """
    folder = Path(run_folder)
    record = RunRecord.load(folder)
    target = folder / REPORT_NAME if out is None else Path(out)
    write_atomically(target, _render(record, folder).encode())
    return target


def _render(record: RunRecord, folder: Path) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        record=record,
        style=Markup(style),  # noqa: S704 - our own file
        findings=verdict(record),
        accuracy=_by_variant([_against_float(record, row) for row in record.accuracy]),
        exactness=_by_variant(record.exactness),
        attacks=_by_variant(record.attacks),
        verdicts={row.variant: row for row in record.verdicts},
        agrees=agrees,
        attack_chart=attack_chart(record),
        layer_chart=layer_chart(record.artifacts),
        level_bars=level_bars,
        galleries=galleries(record, folder),
        masking=masking(record),
        exact_limit=FLOAT32_EXACT,
        mapped_here=any(artifact.recipe.get("mu_law") for artifact in record.artifacts),
        recipes={
            artifact.variant: json.dumps(artifact.recipe, indent=2, sort_keys=True, ensure_ascii=False)
            for artifact in record.artifacts
        },
    )


class _OfVariant(Protocol):
    @property
    def variant(self) -> str: ...


_Row = TypeVar("_Row", bound=_OfVariant)


def _by_variant(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    """Return rows by variant, in the record's order."""
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(row.variant, []).append(row)
    return groups


def _against_float(record: RunRecord, row: AccuracyRow) -> _Accuracy:
    before = float_row(record, row.variant)
    if row.model == "float" or before is None or before.images != row.images:
        return _Accuracy(row, None)
    return _Accuracy(row, points(row.correct - before.correct, row.images))
