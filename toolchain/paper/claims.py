"""Judges the claims of the paper by the records in a folder of results, and writes `CLAIMS.md` and `claims.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..runs import versions
from .claim import FAILS, HOLDS, MASKED, NOT_MEASURED, Figure, Finding, NotMeasured, Outcome, Rule, read_rules
from .claims_accuracy import ACCURACY_CLAIMS
from .claims_weights import WEIGHT_CLAIMS
from .write import markdown_table, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .printed import DataName
    from .results import Results

__all__ = ["CLAIMS", "judge_claim", "judge_claims", "write_claims"]

CLAIMS: Mapping[str, Callable[[Rule, Results], Finding]] = {**ACCURACY_CLAIMS, **WEIGHT_CLAIMS}
"""Every claim's function, by its name."""

_SETS: Mapping[DataName, str] = {"mnist": "MNIST", "cifar10": "CIFAR-10"}

_ABOUT = f"""\
Song, Fallon, Li, "Improving Adversarial Robustness in Weight-quantized Neural Networks". Each claim has a rule of
numbers that was fixed before results were seen; what the rule says is the verdict.

- `{HOLDS}`, `{FAILS}`: by the rule.
- `{MASKED}`: the rule is met under the paper's attacks, but the masking verdict of the
  model is `masked`, or the gain that the table's attacks show within the verdict's ball is below the rule's margin
  under adaptive attacks.
- `{NOT_MEASURED}`: something is missing; the text says what, and which command measures it."""


def judge_claims(results: Mapping[DataName, Results]) -> tuple[Outcome, ...]:
    """Judge every claim for every data set that the paper makes it of."""
    return tuple(judge_claim(rule, results[rule.data]) for rule in read_rules() if rule.data in results)


def judge_claim(rule: Rule, results: Results) -> Outcome:
    """Judge a claim for a data set."""
    try:
        found = CLAIMS[rule.claim](rule, results)
    except NotMeasured as reason:
        found = Finding(NOT_MEASURED, str(reason))
    return Outcome(
        rule.claim, rule.title, rule.data, rule.text, rule.paper, found.images, found.verdict, found.why, found.figures
    )  # fmt: skip


def write_claims(outcomes: Sequence[Outcome], out: Path) -> tuple[Path, ...]:
    """Write the outcomes as `claims.json` and `CLAIMS.md`; return the files.

    Raises:
        OutputError: One cannot be written.
    """
    found = [asdict(one) for one in outcomes]
    for figure in (figure for one in found for figure in one["figures"]):
        if figure["ours"] is not None and not math.isfinite(figure["ours"]):
            figure["ours"] = None  # JSON has no infinity: a share of nothing
    document = {"outcomes": found, "versions": versions()}
    return (
        *write_files("claims", {"json": json.dumps(document, indent=1, allow_nan=False)}, out),
        *write_files("CLAIMS", {"md": _markdown(outcomes)}, out),
    )


def _markdown(outcomes: Sequence[Outcome]) -> str:
    by_claim: dict[str, list[Outcome]] = {}
    for one in outcomes:
        by_claim.setdefault(one.claim, []).append(one)
    summary = []
    for several in by_claim.values():
        verdicts = {one.data: one.verdict for one in several}
        summary.append([several[0].title, *(verdicts.get(data, "no such claim") for data in _SETS)])
    lines = [
        "# The claims of the paper, judged here",
        _ABOUT,
        markdown_table(["Claim", *_SETS.values()], summary),
    ]
    for several in by_claim.values():
        lines.append(f"## {several[0].title}")
        for one in several:
            lines += _section(one)
    return "\n\n".join(lines) + "\n"


def _section(one: Outcome) -> list[str]:
    about = [
        f"- Verdict: **{one.verdict}**: {one.why}.",
        f"- Rule: {one.rule}.",
        f"- The paper: {one.paper}.",
    ]
    if one.images:
        about.append(f"- Measured on: {one.images}.")
    lines = [f"### {_SETS[one.data]}", "\n".join(about)]
    if one.figures:
        body = [[f.what, _number(f, f.ours), _number(f, f.paper)] for f in one.figures]
        lines.append(markdown_table(["", "here", "paper"], body))
    return lines


def _number(figure: Figure, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f} {figure.unit}" if figure.unit else f"{value:.3g}"
