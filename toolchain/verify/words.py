"""A verification's report in words and tables, for terminals and for failing tests."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .report import VerifyReport

__all__ = ["COLUMNS", "cells", "searched", "skipped_lines", "text", "verdict"]

COLUMNS = ("witness", "images", "tensors", "integers", "floats", "differing", "first difference")


def cells(report: VerifyReport) -> list[tuple[str, ...]]:
    """A row of cells for each witness, below `COLUMNS`."""
    return [
        (
            row.witness,
            f"{row.images:,}",
            f"{row.tensors:,}",
            f"{row.integers:,}",
            f"{row.floats:,}",
            f"{row.differing:,}" if row.error is None else "failed",
            row.fault,
        )
        for row in report.rows
    ]


def skipped_lines(report: VerifyReport) -> list[str]:
    """Who did not run and why, a reason that several share once; then what witnesses cannot compute."""
    ran = {row.group for row in report.rows}
    by_reason: dict[str, dict[str, None]] = {}
    for skip in report.skipped:
        # Of a group that did not run at all, its name says it.
        whole = (
            skip.group not in ran and len({s.reason for s in report.skipped if s.group == skip.group}) == 1
        )
        by_reason.setdefault(skip.reason, {})[skip.group if whole else skip.witness] = None
    lines = [f"{'; '.join(names)}: {reason}" for reason, names in by_reason.items()]
    for row in report.rows:
        for reason in dict.fromkeys(row.not_computed.values()):
            names = [name for name, why in row.not_computed.items() if why == reason]
            lines.append(f"{row.witness} without {len(names)} tensors ({names[0]}, ...): {reason}")
    return lines


def searched(report: VerifyReport) -> list[str]:
    """What the searched images reach, in lines."""
    lines = []
    if report.ties:
        can = sum(row.possible for row in report.ties)
        met = [row for row in report.ties if row.ties]
        lines.append(
            f"rounding ties: {can} of {len(report.ties)} layers that requantise can tie, {len(met)} do on these images"
            + (f", up to {max(row.ties for row in met):,} times in one" if met else "")
        )
        near = [row.nearest for row in report.ties if not row.ties and row.nearest is not None]
        if near:
            lines.append(f"nearest to a tie elsewhere: {min(near):.1e} to {max(near):.1e}")
    if report.bounds:
        first = report.bounds[0].layer
        shares = [row.share for row in report.bounds if row.layer == first]
        rest = [row.share for row in report.bounds if row.layer != first]
        lines.append(
            f"accumulator bounds: {min(shares):.0%} of the proved ends at {first}"
            + (
                f"; deeper {min(rest):.0%} to {max(rest):.0%}, median {statistics.median(rest):.0%}"
                if rest
                else ""
            )
        )
    if lines:
        lines.append(f"the search took {report.search_seconds:.1f} s")
    return lines


def verdict(report: VerifyReport) -> str:
    """One line: equal or not, and over how much."""
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in report.kinds.items())
    over = f"{len(report.rows)} witnesses, {report.integers:,} integers, {report.images:,} images ({kinds})"
    if report.equal:
        return f"every bit is equal: {over}"
    wrong = sum(not row.equal for row in report.rows)
    return f"NOT equal: {wrong} of {over}; {report.differing:,} numbers differ"


def text(report: VerifyReport) -> str:
    """The whole report as plain text."""
    lines = [verdict(report), f"expected: {report.yardstick}", "", *_aligned(COLUMNS, cells(report))]
    if gaps := skipped_lines(report):
        lines += ["", "not compared:", *(f"  - {line}" for line in gaps)]
    return "\n".join(lines)


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of figures flush right, words flush left."""
    table = [tuple(columns), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
    words = (0, len(columns) - 1)
    return [
        "  ".join(
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
