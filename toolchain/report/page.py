"""From runs to one HTML file: templates filled with what the records hold, and nothing else."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..analysis.ranges import FLOAT32_EXACT
from ..artifact import write_atomically
from ..run_record import DatasetRecord, RunRecord
from .accuracy import accuracies
from .charts import accuracy_chart, layer_chart, level_bars
from .compare import comparisons
from .pictures import galleries
from .provenance import provenance
from .sections import analyses, chips, robustness, studies
from .sources import read_evidence
from .verdict import agrees, masking, verdict
from .words import FILTERS, amount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .pictures import Gallery
    from .sources import Evidence

__all__ = ["write_report"]

REPORT_NAME = "report.html"
_HERE = Path(__file__).parent


def write_report(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write the report of runs: one HTML file that loads nothing else.

    The same runs always give the same bytes. Two runs of one kind are compared as well.

    Args:
        runs: One or several, each a folder or a file (see `sources`).
        out: The file to write; by default `report.html` in the first run's folder, or beside the first file.

    Returns:
        The file that was written.

    Raises:
        DataError: A record, or an adversarial set that one names, is missing, damaged, or does not fit.
        OutputError: The file cannot be written.
    """
    paths = [Path(run) for run in ([runs] if isinstance(runs, str | Path) else runs)]
    evidence = read_evidence(paths)
    first = paths[0].parent if paths[0].is_file() else paths[0]
    target = first / REPORT_NAME if out is None else Path(out)
    write_atomically(target, _render(evidence).encode())
    return target


def _render(evidence: Evidence) -> str:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("page.html.j2").render(_context(evidence)).lstrip()


def _context(evidence: Evidence) -> dict[str, Any]:
    """What the templates show."""
    record = _merged(evidence)
    reached = accuracies(evidence)
    doubts = [doubt for run in evidence.runs if (doubt := masking(run.record)) is not None]
    shown, others = _galleries(evidence)
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return {
        "style": Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        "script": Markup(script),  # noqa: S704 - our own file
        "script_hash": Markup(f"sha256-{digest}"),  # noqa: S704 - our own digits
        "title": record.title,
        "kind": _kind(evidence),
        "lead": _lead(evidence),
        "record": record,
        "findings": verdict(record, [row for row in reached if row.model == "crossbar"], doubts),
        "comparisons": comparisons(evidence),
        "accuracy": reached,
        "accuracy_chart": accuracy_chart(reached),
        "studies": studies(evidence),
        "doubts": doubts,
        "robustness": robustness(evidence),
        "verdicts": {row.variant: row for row in record.verdicts},
        "galleries": shown,
        "others": [one for one in others if one.examples],
        "unturned": [f"{one.row.attack} on {one.row.variant}" for one in shown if not one.examples],
        "layer_chart": layer_chart(record.artifacts),
        "level_bars": level_bars,
        "analyses": analyses(evidence),
        "chips": chips(evidence),
        "exactness": record.exactness,
        "agrees": agrees,
        "verifications": evidence.verifications,
        "exact_limit": FLOAT32_EXACT,
        "mapped_here": any(artifact.recipe.get("mu_law") for artifact in record.artifacts),
        "provenance": provenance(evidence),
    }


def _merged(evidence: Evidence) -> RunRecord:
    """One record of all runs, each variant under a name of its own."""
    records = [run.record for run in evidence.runs]

    def every(part: str) -> tuple[Any, ...]:
        return tuple(row for record in records for row in getattr(record, part))

    titles = [
        f"{run.letter}: {run.record.title}" if run.letter else run.record.title for run in evidence.runs
    ]
    first = records[0] if records else None
    return RunRecord(
        title=" · ".join(titles) or _kind(evidence),
        command="",
        seed=0,
        versions={},
        machine="",
        dataset=first.dataset if first else DatasetRecord(name="", images=0, sha256=""),
        source_sha256="",
        artifacts=every("artifacts"),
        accuracy=evidence.accuracy,
        exactness=evidence.exactness,
        attacks=every("attacks"),
        verdicts=every("verdicts"),
    )


def _galleries(evidence: Evidence) -> tuple[list[Gallery], list[Gallery]]:
    """The pictures of every run that has an adversarial set; and of these, those at a ladder's other radii."""
    found, others = [], []
    for run in evidence.runs:
        own = None if run.campaign is None else (run.campaign.norm, run.campaign.radius)
        for gallery in galleries(run.record, run.path):
            found.append(gallery)
            row = gallery.row
            if own is not None and row.norm == own[0] and row.epsilon_codes != own[1]:
                others.append(gallery)
    return found, others


def _kind(evidence: Evidence) -> str:
    parts = [
        (evidence.runs, "run", None),
        (evidence.studies, "study of chips", "studies of chips"),
        (evidence.analyses, "analysis", "analyses"),
        (evidence.verifications, "verification", None),
        (evidence.data_runs, "run on a data set", "runs on data sets"),
    ]
    return "Report of " + ", ".join(amount(len(held), one, many) for held, one, many in parts if held)


def _lead(evidence: Evidence) -> str:
    images = {
        f"{amount(one.images, 'image')} of {one.name}"
        for one in (
            *(run.record.dataset for run in evidence.runs),
            *(study.data for _, study in evidence.studies),
        )
    }
    return f"Judged on {'; '.join(sorted(images))}." if images else ""
