"""Two runs of one kind side by side: what changed between them, and whether by more than chance would do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import zip_longest
from math import hypot
from typing import TYPE_CHECKING, Any, Literal

from ..analysis.intervals import wilson
from ..hardware import shown
from .words import decimal, interval, number, percent, points_between

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..chips import ChipStudy
    from ..verify.report import VerifyReport
    from .records import AnalysisRecord, DataRun
    from .sources import Evidence, Run

__all__ = ["Change", "Comparison", "comparisons"]

_NONE = "–"
_ON_CHIP = ("name", "sha256", "seed", "tiles", "certified_reads", "clipped_reads")
State = Literal["same", "changed", "chance"]


@dataclass(frozen=True)
class Change:
    """A figure or a setting of both.

    Attributes:
        part: What it belongs to: accuracy, an attack, a setting.
        name: What it is.
        before, after: What it is in the first and in the second; a dash where one has no such thing.
        difference: In words; empty for what has none.
        state: `chance`: different, but by no more than chance explains.
    """

    part: str
    name: str
    before: str
    after: str
    difference: str
    state: State


@dataclass(frozen=True)
class Comparison:
    """Two of one kind.

    Attributes:
        kind: Of what.
        names: What the columns are called.
        changes: Rows.
        same_images: Whether both were judged on the same images; None where there are none.
    """

    kind: str
    names: tuple[str, str]
    changes: tuple[Change, ...]
    same_images: bool | None

    @property
    def summary(self) -> str:
        """What changed, in a sentence."""
        states = [change.state for change in self.changes]
        changed, chance = states.count("changed"), states.count("chance")
        return (
            f"{number(changed)} of {number(len(states))} entries differ"
            + (f"; {number(chance)} more by no more than chance explains" if chance else "")
            + "."
        )


def comparisons(evidence: Evidence) -> tuple[Comparison, ...]:
    """Compare what was given twice; of three or more of a kind, none are compared."""
    found = []
    if len(evidence.runs) == 2:
        first, second = evidence.runs
        found.append(
            Comparison(
                "run",
                (first.name, second.name),
                tuple(_runs(first, second)),
                first.record.dataset.sha256 == second.record.dataset.sha256,
            )
        )
    if len(evidence.studies) == 2:
        (path, one), (other_path, other) = evidence.studies
        same = one.data.sha256 == other.data.sha256
        found.append(
            Comparison(
                "study of chips", _paths(path.name, other_path.name), tuple(_studies(one, other)), same
            )
        )
    if len(evidence.analyses) == 2:
        (path, _, analysed), (other_path, _, other_analysed) = evidence.analyses
        rows = tuple(_analyses(analysed, other_analysed))
        found.append(Comparison("analysis", _paths(path.name, other_path.name), rows, None))
    if len(evidence.verifications) == 2:
        (path, verified), (other_path, other_verified) = evidence.verifications
        rows = tuple(_verifications(verified, other_verified))
        found.append(Comparison("verification", _paths(path.name, other_path.name), rows, None))
    if len(evidence.data_runs) == 2:
        (path, ran), (other_path, other_ran) = evidence.data_runs
        rows = tuple(_data_runs(ran, other_ran))
        found.append(Comparison("run on a data set", _paths(path.name, other_path.name), rows, None))
    return tuple(found)


def _paths(first: str, second: str) -> tuple[str, str]:
    return f"A: {first}", f"B: {second}"


def difference_interval(before: tuple[int, int], after: tuple[int, int]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares (Newcombe 1998, Statistics in Medicine 17, 873-890).

    With p, l and u the shares and the ends of their Wilson intervals (his method 10), its ends are

        d - sqrt((p_b - l_b)**2 + (u_a - p_a)**2)  and  d + sqrt((u_b - p_b)**2 + (p_a - l_a)**2),  d = p_b - p_a.

    It takes the two sets of images for independent; of the same images twice it is wider than need be.

    Args:
        before: Correct and all images of a.
        after: Of b.
    """
    (low_a, high_a), (low_b, high_b) = wilson(*before), wilson(*after)
    p_a, p_b = (correct / max(1, images) for correct, images in (before, after))
    return p_b - p_a - hypot(p_b - low_b, high_a - p_a), p_b - p_a + hypot(high_b - p_b, p_a - low_a)


def _counts(part: str, name: str, before: tuple[int, int] | None, after: tuple[int, int] | None) -> Change:
    """A count of images in both."""
    old, new = (_NONE if one is None else f"{percent(*one)} ({interval(*one)})" for one in (before, after))
    if before is None or after is None or not before[1] or not after[1]:
        return Change(part, name, old, new, "", "changed" if before != after else "same")
    low, high = difference_interval(before, after)
    share = after[0] / after[1] - before[0] / before[1]
    words = points_between(share, low, high, min(before[1], after[1]))
    if not share:
        return Change(part, name, old, new, words, "same")
    return Change(part, name, old, new, words, "chance" if low <= 0 <= high else "changed")


def _plain(part: str, name: str, before: Any, after: Any) -> Change:
    """Something that is the same or not."""
    old, new = (
        _NONE if one is None else one if isinstance(one, str) else _word(one) for one in (before, after)
    )
    return Change(part, name, old, new, "", "same" if before == after else "changed")


def _figure(part: str, name: str, before: float | None, after: float | None) -> Change:
    """A number; how much more or less it is, in percent."""
    ratio = f"{100 * (after / before - 1):+.3g} %" if before and after is not None and before != after else ""
    return Change(
        part,
        name,
        decimal(before, 4),
        decimal(after, 4),
        ratio.replace("-", "\u2212"),
        "same" if before == after else "changed",
    )


def _fields(part: str, names: Iterable[str], first: Any, second: Any) -> list[Change]:
    """Attributes that are the same or not."""
    return [
        _plain(part, name.replace("_", " "), getattr(first, name), getattr(second, name)) for name in names
    ]


def _word(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return shown(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _mappings(part: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    return [
        _plain(part, str(key), before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after))
    ]


def _runs(first: Run, second: Run) -> list[Change]:
    a, b = first.original, second.original
    names = _paired([row.variant for row in a.artifacts], [row.variant for row in b.artifacts])

    def key(row: Any, *fields: str) -> tuple[Any, ...]:
        return (names.get(row.variant, row.variant), *(getattr(row, name) for name in fields))

    def both(part: str, *fields: str) -> list[tuple[tuple[Any, ...], Any, Any]]:
        found = [{key(row, *fields): row for row in getattr(one, part)} for one in (a, b)]
        return [(one, found[0].get(one), found[1].get(one)) for one in dict.fromkeys((*found[0], *found[1]))]

    def counted(row: Any) -> tuple[int, int] | None:
        return None if row is None else (row.correct, row.images)

    rows = [
        _counts("accuracy", _joined(variant, model, witness), counted(one), counted(other))
        for (variant, model, witness), one, other in both("accuracy", "model", "witness")
    ]
    attacks = both("attacks", "attack", "norm", "epsilon_codes")
    for (variant, attack, norm, codes), one, other in attacks:
        name = _joined(variant, attack, norm, f"{codes:g} codes")
        rows.append(_counts("attack", name, counted(one), counted(other)))
    for (variant,), one, other in both("verdicts"):
        rows.append(_plain("masking", _joined(variant, "verdict"), one and one.label, other and other.label))
        rows += _mappings(
            _joined("masking", variant),
            *(
                {} if row is None else {check.name: check.outcome for check in row.findings}
                for row in (one, other)
            ),
        )
    differing = [
        f"{sum(row.differing for row in one.exactness)} differ in {len(one.exactness)} comparisons"
        for one in (a, b)
    ]
    rows.append(_plain("bits", "numbers that differ", *differing))
    for (variant,), one, other in both("artifacts"):
        rows.append(_plain("model", _joined(variant, "SHA-256"), one and one.sha256, other and other.sha256))
        rows += _mappings(
            _joined("recipe", variant), one.recipe if one else {}, other.recipe if other else {}
        )
        rows += _layers(variant, one.layers if one else (), other.layers if other else ())
    for (variant, attack, _, codes), one, other in attacks:
        part = _joined("settings", variant, attack, f"{codes:g} codes")
        rows += _mappings(part, one.parameters if one else {}, other.parameters if other else {})
    models = [", ".join(row.variant for row in one.artifacts) for one in (a, b)]
    rows.append(_plain("model", "name", *models))
    rows += _fields("run", ("command", "seed", "judge", "machine"), a, b)
    rows.append(_plain("model", "float model, SHA-256", a.source_sha256, b.source_sha256))
    rows += _mappings("images", a.dataset.model_dump(), b.dataset.model_dump())
    return rows + _mappings("version", a.versions, b.versions)


def _paired(before: Sequence[str], after: Sequence[str]) -> dict[str, str]:
    """What variants are called in a comparison: where both runs have one model alone, it needs no name."""
    if len(before) == len(after) == 1:
        return dict.fromkeys((*before, *after), "")
    return {}


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _layers(variant: str, before: Iterable[Any], after: Iterable[Any]) -> list[Change]:
    rows = []
    for one, other in zip_longest(before, after):
        name = (one or other).name
        for field, words in (
            ("bound", "bound of the accumulator"),
            ("weight_snr_db", "weight SNR, dB"),
            ("spectral_error", "‖ΔW‖₂"),
        ):
            rows.append(
                _figure(
                    _joined("layer", variant),
                    f"{name}, {words}",
                    one and getattr(one, field),
                    other and getattr(other, field),
                )
            )
    return rows


def _studies(first: ChipStudy, second: ChipStudy) -> list[Change]:
    found = [{shown(point.value): point for point in one.points} for one in (first, second)]
    rows = [
        _counts(
            "accuracy",
            "exact integers",
            (first.exact_correct, first.data.images),
            (second.exact_correct, second.data.images),
        )
    ]
    for value in dict.fromkeys((*found[0], *found[1])):
        one, other = (points.get(value) for points in found)
        place = first.hardware if first.field is None else f"{first.field} = {value}"
        for field in ("mean", "standard_deviation"):
            words = f"{place}, {field.replace('_', ' ')}, percent"
            shares = [None if point is None else getattr(point, field) for point in (one, other)]
            rows.append(
                _figure("chips", words, *(None if share is None else 100 * share for share in shares))
            )
    rows += _fields(
        "settings",
        ("hardware", "profile_sha256", "field", "seed", "count", "artifact_sha256", "ohmfold"),
        first,
        second,
    )
    return rows + _mappings("images", first.data.model_dump(), second.data.model_dump())


def _analyses(first: AnalysisRecord, second: AnalysisRecord) -> list[Change]:
    rows = []
    for one, other in zip_longest(first.layers, second.layers):
        name = (one or other).name
        for term in ("attack", "quantisation", "cross"):
            shares = [
                None if layer is None else _percent_of(layer.lengths().relative(term))
                for layer in (one, other)
            ]
            rows.append(_figure("terms of Eq. 1, percent of the signal", f"{name}, {term}", *shares))
        norms = [None if layer is None else layer.lipschitz.operator_spectral for layer in (one, other)]
        rows.append(_figure("Lipschitz constants", f"{name}, operator, p = 2", *norms))
    rows += _fields("settings", ("artifact", "artifact_sha256", "float_model", "adversarial"), first, second)
    return rows + _mappings("attack", first.attack, second.attack)


def _percent_of(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _verifications(first: VerifyReport, second: VerifyReport) -> list[Change]:
    found = [
        {row.witness: "equal" if row.equal else row.fault or "differs" for row in one.rows}
        | {row.witness: f"did not run: {row.reason}" for row in one.skipped}
        for one in (first, second)
    ]
    rows = _mappings("witness", *found)
    rows.append(_plain("bits", "integers compared", first.integers, second.integers))
    rows += _fields("settings", ("file", "sha256", "images", "seed", "machine"), first, second)
    return rows + _mappings("version", first.versions, second.versions)


def _data_runs(first: DataRun, second: DataRun) -> list[Change]:
    names = dict.fromkeys((*first.witnesses, *second.witnesses))
    rows = [
        _counts(
            "accuracy",
            name,
            *(
                (one.witnesses[name].correct, one.images) if name in one.witnesses else None
                for one in (first, second)
            ),
        )
        for name in names
    ]
    chips = [{} if one.hardware is None else one.hardware.model_dump() for one in (first, second)]
    rows += _mappings("chip", *({name: chip[name] for name in _ON_CHIP if name in chip} for chip in chips))
    rows += _fields("settings", ("sha256", "data", "images"), first, second)
    return rows
