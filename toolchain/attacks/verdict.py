"""The masking verdict of a campaign's target, as the records keep it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ..run_record import FindingRow, VerdictRow
from .masking import gather, judge_evidence

if TYPE_CHECKING:
    from collections.abc import Callable

    from .campaign import Target
    from .masking import Verdict
    from .planning import Ball

__all__ = ["find_verdict", "verdict_row"]


def find_verdict(
    target: Target, ball: Ball, variant: str, progress: Callable[[float], None] | None = None
) -> VerdictRow:
    """Probe a target along every gradient that there is, and judge the evidence.

    Args:
        target: What is attacked.
        ball: Within which.
        variant: What the record calls the artifact.
        progress: Called with the share that is done.
    """
    name = target.judge.name
    noisy = name.hardware is not None and name.hardware.noisy
    evidence = gather(
        target.judge,
        target.sources.all(),
        target.data.images,
        target.data.labels,
        ball.radius,
        ball.norm,
        seed=target.seed,
        batch_size=target.batch_size,
        noise_seed=name.seed if noisy else None,
        progress=progress,
    )
    return verdict_row(judge_evidence(evidence), variant, len(evidence.clean_correct), ball)


def verdict_row(verdict: Verdict, variant: str, images: int, ball: Ball) -> VerdictRow:
    """A verdict as a row of a record."""
    return VerdictRow(
        variant=variant,
        label=verdict.label,
        images=images,
        norm=ball.norm,
        epsilon_codes=ball.radius,
        findings=tuple(FindingRow(**asdict(finding)) for finding in verdict.findings),
    )
