"""What the sections of the page show besides tables: charts with what stands beside them."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING

from ...errors import DataError
from ..analysis.report import TERMS, WEIGHTS
from .analysis_charts import lipschitz_figure, terms_figure
from .attack_charts import accuracy_figure
from .charts import attack_chart
from .chip_charts import study_figure
from .words import amount, decimal

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from ..run_record import FindingRow, VerdictRow
    from .records import ChipRecord
    from .sources import Evidence, Run

__all__ = ["Analysed", "OnChip", "Robustness", "Studied", "analyses", "chips", "robustness", "studies"]

_LABEL = re.compile(r'<svg\b[^>]*\baria-label="([^"]*)"')
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Robustness:
    """A chart of what attacks left, and the evidence of masking beside it."""

    title: str
    chart: Markup | None
    text: str
    verdict: VerdictRow | None
    signs: tuple[FindingRow, ...]
    others: tuple[FindingRow, ...]


def robustness(evidence: Evidence) -> tuple[Robustness, ...]:
    """Return, of each run, what is left against the radius or under each attack; of each variant, the verdict."""
    found: list[Robustness] = []
    for place, run in enumerate(evidence.runs):
        curves = None if run.campaign is None else accuracy_figure(run.campaign, f"curves{place}")
        chart = curves or attack_chart(run.record, f"attacks{place}")
        judge = "the emulator" if run.record.judge == "emulator" else run.record.judge
        text = (
            f"What is left {'against the radius' if curves else 'under each attack'}, judged by {judge} on the "
            "artifact. Every attacked image is a set of pixel codes that a sensor could deliver."
        )
        found += _of_run(run, chart, text)
    return tuple(found)


def _of_run(run: Run, chart: Markup | None, text: str) -> list[Robustness]:
    verdicts = run.record.verdicts
    if len(verdicts) == 1:
        return [_beside(verdicts[0].variant, chart, text, verdicts[0])]
    every = f"All attacks of {run.name}" if run.letter else "All attacks"
    alone = [_beside(every, chart, text, None)] if chart is not None else []
    return alone + [_beside(row.variant, None, "", row) for row in verdicts]


def _beside(title: str, chart: Markup | None, text: str, verdict: VerdictRow | None) -> Robustness:
    findings = () if verdict is None else verdict.findings
    signs = tuple(row for row in findings if row.outcome in ("masked", "suspicious"))
    return Robustness(title, chart, text, verdict, signs, tuple(row for row in findings if row not in signs))


@dataclass(frozen=True)
class Studied:
    """A study of chips, drawn."""

    title: str
    chart: Markup
    text: str


def studies(evidence: Evidence) -> tuple[Studied, ...]:
    """Return every study of chips."""
    return tuple(
        Studied(
            f"{evidence.artifact(study.artifact_sha256)} on {amount(study.count, 'chip')} of {study.hardware}",
            study_figure(study, f"chips{place}"),
            f"Chips {study.seed} to {study.seed + study.count - 1} on {amount(study.data.images, 'image')} of "
            f"{study.data.name}: each chip has errors, stuck cells and noise of its own.",
        )
        for place, (_, study) in enumerate(evidence.studies)
    )


@dataclass(frozen=True)
class Shares:
    """A layer's terms in percent of the signal, and its norms."""

    name: str
    shares: tuple[float | None, ...]
    norms: tuple[float, ...]


@dataclass(frozen=True)
class Histogram:
    """A drawing as a data URI, and what it shows in words."""

    address: str
    text: str


@dataclass(frozen=True)
class Analysed:
    """An analysis, drawn."""

    name: str
    title: str
    text: str
    terms: Markup
    norms: Markup
    layers: tuple[Shares, ...]
    histograms: tuple[Histogram, ...]


def analyses(evidence: Evidence) -> tuple[Analysed, ...]:
    """Return every analysis.

    Raises:
        DataError: A histogram is too large, or no drawing.
    """
    found = []
    for place, (path, analysis, written) in enumerate(evidence.analyses):
        attack = analysis.attack
        name = evidence.artifact(written.artifact_sha256)
        layers = tuple(
            Shares(
                layer.name,
                tuple(
                    None if share is None else 100 * share
                    for share in (layer.terms.relative(term) for term in TERMS)
                ),
                (layer.lipschitz.operator_spectral, layer.lipschitz.operator_infinity),
            )
            for layer in analysis.layers
        )
        how = f"{attack.get('name')}, norm {attack.get('norm')}, radius {attack.get('radius')}"
        found.append(
            Analysed(
                name,
                f"Errors and Lipschitz constants of {name}",
                f"On {attack.get('images')} images under {how}; the product of the Lipschitz constants over all "
                f"layers is {decimal(analysis.product.operator_spectral)} (p = 2).",
                terms_figure(analysis, f"terms{place}"),
                lipschitz_figure(analysis, f"norms{place}"),
                layers,
                _histograms(path),
            )
        )
    return tuple(found)


def _histograms(folder: Path) -> tuple[Histogram, ...]:
    """The histograms of weights in an analysis's folder, as pictures, in which no script runs."""
    found = []
    for path in sorted((folder / WEIGHTS).glob("*.svg")) if folder.is_dir() else ():
        try:
            if path.stat().st_size > _LARGEST:
                raise DataError(f"{path} has {path.stat().st_size} bytes, more than a histogram can have")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read {path}: {error}; expected the histogram of a layer") from None
        label = _LABEL.search(text)
        if label is None:
            raise DataError(f"{path} is not a histogram that `ohmfold analyze --out` wrote")
        data = base64.b64encode(text.encode()).decode("ascii")
        found.append(Histogram(f"data:image/svg+xml;base64,{data}", unescape(label[1])))
    return tuple(found)


@dataclass(frozen=True)
class OnChip:
    """A model's layers on the tiles of a chip."""

    title: str
    record: ChipRecord


def chips(evidence: Evidence) -> tuple[OnChip, ...]:
    """Return every chip that a model was run on, layer by layer."""
    return tuple(
        OnChip(
            f"{evidence.artifact(ran.sha256)} on {amount(ran.hardware.tiles, 'tile')} of {ran.hardware.name}",
            ran.hardware,
        )
        for _, ran in evidence.data_runs
        if ran.hardware is not None
    )
