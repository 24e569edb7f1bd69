"""Accuracy from the float model to integers to a crossbar, every figure with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..analysis.intervals import wilson
from ..hardware import shown
from .words import amount, percent, points

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..chips import ChipStudy
    from ..run_record import AccuracyRow
    from .sources import Evidence

__all__ = ["MODELS", "Accuracy", "accuracies", "float_row"]

MODELS = ("float", "integer", "crossbar")
"""What is run, in the order of a model's way to hardware."""


@dataclass(frozen=True)
class Accuracy:
    """A row of the accuracy table.

    Attributes:
        variant: Of which model.
        model: One of `MODELS`.
        witness: Who ran it; of a crossbar, the profile, and the value of a swept field.
        images: How many were judged.
        correct: How many were right; None of several chips.
        share: The accuracy; of several chips, their mean.
        low, high: The ends of its interval.
        kind: What the interval is.
        against_float: The difference to the float model on the same images, in words.
        note: What else is to say.
    """

    variant: str
    model: str
    witness: str
    images: int
    correct: int | None
    share: float
    low: float
    high: float
    kind: str
    against_float: str | None = None
    note: str = ""

    @property
    def stage(self) -> str:
        """A row of the chart."""
        return self.model if self.model == "float" else f"{self.model}, {self.witness}"


def accuracies(evidence: Evidence) -> tuple[Accuracy, ...]:
    """Return every accuracy that was measured, by variant, from float to crossbar."""
    rows = evidence.accuracy
    found = [_counted(row, rows) for row in rows]
    for _, ran in evidence.data_runs:
        judged = ran.witnesses.get("crossbar")
        if judged is not None and ran.hardware is not None:
            found.append(
                Accuracy(
                    evidence.artifact(ran.sha256),
                    "crossbar",
                    ran.hardware.name,
                    ran.images,
                    judged.correct,
                    judged.correct / max(1, ran.images),
                    *wilson(judged.correct, ran.images),
                    "Wilson",
                    note=f"chip {ran.hardware.seed}",
                )
            )
    for _, study in evidence.studies:
        found += _chips(evidence.artifact(study.artifact_sha256), study)
    order = list(dict.fromkeys(row.variant for row in found))
    return tuple(sorted(found, key=lambda row: (order.index(row.variant), MODELS.index(row.model))))


def float_row(rows: Iterable[AccuracyRow], variant: str) -> AccuracyRow | None:
    """Return the float accuracy of a variant, if it was measured."""
    return next((row for row in rows if row.variant == variant and row.model == "float"), None)


def _counted(row: AccuracyRow, rows: Sequence[AccuracyRow]) -> Accuracy:
    before = float_row(rows, row.variant)
    known = row.model != "float" and before is not None and before.images == row.images
    return Accuracy(
        row.variant,
        row.model,
        row.witness,
        row.images,
        row.correct,
        row.correct / max(1, row.images),
        *wilson(row.correct, row.images),
        "Wilson",
        points(row.correct - before.correct, row.images) if known and before is not None else None,
    )


def _chips(variant: str, study: ChipStudy) -> list[Accuracy]:
    images = study.data.images
    return [
        Accuracy(
            variant,
            "crossbar",
            study.hardware if study.field is None else f"{study.field} = {shown(point.value)}",
            images,
            None,
            point.mean,
            point.quantiles["0.05"],
            point.quantiles["0.95"],
            "chips, 5 to 95 %",
            note=f"{amount(study.count, 'chip')} of {study.hardware}; worst "
            f"{percent(point.worst.correct, images)}, seed {point.worst.seed}",
        )
        for point in study.points
    ]
