"""What a run found, in words: the sentences that a report begins with.

Nothing is said that the record does not hold: what was not measured is called so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..attacks import ATTACKS
from ..run_record import WORST_CASE
from .accuracy import float_row
from .words import amount, number, percent, points

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..run_record import (
        AccuracyRow,
        ArtifactRecord,
        AttackRow,
        ExactnessRow,
        RunRecord,
        VerdictRow,
    )
    from .accuracy import Accuracy

__all__ = ["Finding", "agrees", "masking", "verdict"]


_MOST = 2
"""Crossbars that are named one by one."""

_LABELS = {"trustworthy": "can be trusted", "masked": "masked", "inconclusive": "not to be trusted yet"}


@dataclass(frozen=True)
class Finding:
    """One question, its answer in a few words, and the sentences behind it.

    Attributes:
        question: Text.
        answers: A few words each; one for each variant where they differ.
        details: Sentences.
        state: How the answer is marked; `plain` is a figure without a judgement.
    """

    question: str
    answers: tuple[str, ...]
    details: tuple[str, ...]
    state: Literal["good", "bad", "caution", "plain"]


def verdict(
    record: RunRecord, beyond: Sequence[Accuracy] = (), doubts: Sequence[str] | None = None
) -> tuple[Finding, Finding, Finding]:
    """Return the answers to the three questions of a run.

    Args:
        record: Of the run; or of several, each variant under a name of its own.
        beyond: Accuracies on crossbars.
        doubts: What `masking` says of each of several runs; by default, of the record.
    """
    if doubts is None:
        doubt = masking(record)
        doubts = () if doubt is None else (doubt,)
    return _bits(record.exactness), _cost(record, beyond), _left(record, doubts)


def agrees(row: ExactnessRow) -> bool:
    """Whether a comparison compared something and found no difference."""
    return (
        row.tensors > 0
        and row.integers + row.floats > 0
        and not row.differing
        and row.first_difference is None
    )


def _bits(rows: tuple[ExactnessRow, ...]) -> Finding:
    question = "Are the bits equal?"
    if not rows:
        return Finding(
            question, ("Not checked",), ("This run compared the emulator with no other executor.",), "caution"
        )
    wrong = [row for row in rows if not agrees(row)]
    integers, floats = sum(row.integers for row in rows), sum(row.floats for row in rows)
    compared = f"{amount(integers, 'integer')} and {amount(floats, 'float')}"
    if not wrong:
        text = (
            f"In {amount(len(rows), 'comparison')} of the emulator with other executors, over {compared}, "
            "not one bit differs."
        )
        return Finding(question, ("Yes, every one",), (text,), "good")
    empty = [row for row in wrong if not row.differing and row.first_difference is None]
    differing = sum(row.differing for row in rows)
    summary = (
        f"{number(len(wrong))} of {amount(len(rows), 'comparison')} do not agree, over {compared}; "
        f"{amount(differing, 'number')} in all {'differs' if differing == 1 else 'differ'}."
    )
    details = [summary]
    first = next((row for row in wrong if row.first_difference is not None), None)
    if first is not None:
        details.append(f"First difference ({first.variant}, {first.witness}): {first.first_difference}")
    if empty:
        details.append(f"{amount(len(empty), 'comparison')} compared nothing, which proves nothing.")
    return Finding(question, ("No" if len(empty) < len(wrong) else "Not shown",), tuple(details), "bad")


def _variants(rows: Iterable[AccuracyRow | AttackRow | Accuracy]) -> list[str]:
    return list(dict.fromkeys(row.variant for row in rows))


def _cost(record: RunRecord, beyond: Sequence[Accuracy]) -> Finding:
    question = "Is the accuracy kept?"
    answers, details = [], []
    for variant in _variants(record.accuracy):
        integer = [row for row in record.accuracy if row.variant == variant and row.model == "integer"]
        before = float_row(record.accuracy, variant)
        if not integer:
            continue
        row = next((one for one in integer if before is not None and one.images == before.images), integer[0])
        accuracy = percent(row.correct, row.images)
        counts = {(other.images, other.correct) for other in integer}
        if len(counts) > len({images for images, _ in counts}):
            details.append(f"{variant}: the executors of the integer model count differently; see the table.")
        if before is None or before.images != row.images:
            answers.append(f"{variant}: {accuracy}")
            details.append(
                f"{variant}: {accuracy} right in integers; the float model was not judged on these images."
            )
            continue
        lost = row.correct - before.correct
        answers.append(f"{variant}: {points(lost, row.images)}")
        change = "as many" if not lost else f"{number(abs(lost))} {'more' if lost > 0 else 'fewer'}"
        details.append(
            f"{variant}: {percent(before.correct, before.images)} in float, {accuracy} in integers: "
            f"{change} of {amount(row.images, 'image')} right."
        )
    for variant in _variants(beyond):
        details += _on_crossbars([row for row in beyond if row.variant == variant])
    if not answers:
        return Finding(
            question,
            ("Not measured",),
            (*details, "This run holds no accuracy of an integer model."),
            "caution",
        )
    return Finding(question, tuple(answers), tuple(details), "plain")


def _on_crossbars(rows: Sequence[Accuracy]) -> list[str]:
    """What crossbars reach: each, or of many the worst and the best."""
    words = [
        f"{100 * row.share:.1f}\u00a0% ({row.witness}{'; ' if row.note else ''}{row.note})" for row in rows
    ]
    if len(rows) <= _MOST:
        return [f"{row.variant} on a crossbar: {text}." for row, text in zip(rows, words, strict=True)]
    order = sorted(range(len(rows)), key=lambda place: rows[place].share)
    return [
        f"{rows[0].variant} on {number(len(rows))} settings of crossbars: from {words[order[0]]} to {words[order[-1]]}."
    ]


def _left(record: RunRecord, doubts: Sequence[str]) -> Finding:
    question = "Robust, or masked?"
    if not record.attacks:
        return Finding(question, ("Not attacked",), ("This run holds no attack.",), "caution")
    answers, details = [], []
    for variant in _variants(record.attacks):
        rows = [row for row in record.attacks if row.variant == variant and row.images]
        single = [row for row in rows if row.attack != WORST_CASE]
        trust = next((row for row in record.verdicts if row.variant == variant), None)
        bounded = [row for row in rows if row.norm != "none"]
        if trust is not None:  # of several radii, the one that was probed
            probed = [row for row in bounded if _ball(row) == _ball(trust)]
            bounded, single = probed or bounded, [row for row in probed or single if row in single]
        for worst in sorted(bounded or rows, key=lambda row: (row.correct / row.images, row in single))[:1]:
            left = percent(worst.correct, worst.images)
            radius = f"within {amount(worst.epsilon_codes, 'code')}" if bounded else "not bounded"
            which = (
                f"{worst.attack} ({radius}), the strongest of {amount(len(single), 'attack')}"
                if worst in single
                else f"all of {amount(len(single), 'attack')} ({radius})"
            )
            answers.append(f"{variant}: {left} left" + (f", {_LABELS[trust.label]}" if trust else ""))
            details.append(
                f"{variant}: {left} of {amount(worst.images, 'image')} withstand {which}; "
                f"{percent(worst.clean_correct, worst.images)} were right before."
            )
    details += [_trust(row) for row in record.verdicts]
    details += doubts
    labels = {row.label for row in record.verdicts}
    if labels == {"masked"}:
        return Finding(question, tuple(answers), tuple(details), "bad")
    doubtful = doubts or labels - {"trustworthy"}
    return Finding(question, tuple(answers), tuple(details), "caution" if doubtful else "plain")


def _ball(row: AttackRow | VerdictRow) -> tuple[str, float]:
    return row.norm, row.epsilon_codes


def _trust(row: VerdictRow) -> str:
    """The masking verdict of a variant in a sentence, with the checks that decided it."""
    signs = [finding.name for finding in row.findings if finding.outcome in ("masked", "suspicious")]
    because = f": {', '.join(signs)}" if signs else ""
    means = {
        "trustworthy": "what withstood the attacks seems to be robust",
        "masked": "what withstood them owes it to a gradient that cannot be used",
        "inconclusive": "these figures are not to be trusted before it is explained",
    }[row.label]
    return f"{row.variant}: masking verdict {row.label}, {means}{because}."


def _is_mapped(artifact: ArtifactRecord) -> bool:
    """Whether a variant's weights went through a mu-law map, by its recipe or in its graph."""
    return bool(artifact.recipe.get("mu_law")) or any("mu-law map" in note for note in artifact.notes)


def _setting(row: AttackRow) -> tuple[str, str, float, str]:
    return row.attack, row.norm, row.epsilon_codes, json.dumps(row.parameters, sort_keys=True)


def masking(record: RunRecord) -> str | None:
    """Return a warning where a mu-law variant does better under a gradient attack than one without the map.

    The same attack, with the same settings, is compared; what the map changes for certain are the gradients. Where the
    record holds masking verdicts, these say more, and nothing is said here.
    """
    if record.verdicts:
        return None
    mapped = {artifact.variant for artifact in record.artifacts if _is_mapped(artifact)}
    plain = {artifact.variant for artifact in record.artifacts} - mapped
    follows_gradients = [
        row
        for row in record.attacks
        if row.images and row.norm != "none" and row.attack in ATTACKS and ATTACKS[row.attack].needs_gradient
    ]
    better = [
        f"{high.attack} at {amount(high.epsilon_codes, 'code')} ({percent(high.correct, high.images)} "
        f"against {percent(low.correct, low.images)})"
        for high in follows_gradients
        for low in follows_gradients
        if high.variant in mapped
        and low.variant in plain
        and _setting(high) == _setting(low)
        and high.correct * low.images > low.correct * high.images
    ]
    if not better:
        return None
    unmasked = [
        f"{row.attack} leaves {percent(row.correct, row.images)}"
        for row in record.attacks
        if row.variant in mapped and row.images and row.attack not in (*ATTACKS, WORST_CASE)
        for plainly in follows_gradients
        if plainly.variant == row.variant
        and row.attack.startswith(f"{plainly.attack}, ")
        and row.correct * plainly.images < plainly.correct * row.images
    ]
    found = f"With the mu-law map more images withstand {', '.join(better)}"
    if unmasked:
        return (
            f"{found}, but {', '.join(unmasked)}: what the plain attack misses is a vanished gradient, not "
            "robustness."
        )
    return (
        f"{found}: gradient masking is the likely cause, and an attack on the margin or on scaled logits is "
        "needed to judge whether any of this is robustness."
    )
