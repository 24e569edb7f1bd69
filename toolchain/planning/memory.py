"""Where tensors lie in one block of memory, so that those that are never alive together share it.

Two ways are tried, and the smaller block is taken:

1. From the largest tensor to the smallest, each into the tightest gap between those already placed whose lives
   overlap its own, or behind them (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference"
   (2020), algorithm 3, "greedy by size for offset calculation").
2. In the order in which they are written, at the two ends of a block in turn: a chain of layers then needs no more
   than its largest pair of neighbours.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALIGNMENT", "Lifetime", "MemoryReport", "live_bytes", "place"]

ALIGNMENT = 64  # bytes: a cache line, and the widest vector

# Sizes of the block for the second way, of the least possible.
_ROOM = (1.0, 1.05, 1.1, 1.2, 1.3)


@dataclass(frozen=True)
class Lifetime:
    """A tensor's size in bytes, and the first and the last step at which it must be in memory."""

    size: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both must be in memory at one step."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class MemoryReport:
    """Activation memory of one worker.

    Attributes:
        peak_bytes: What is allocated.
        live_bytes: The largest sum of sizes of tensors that must be in memory together.
        unplanned: Layers that run on arrays of their own, outside this memory.
    """

    peak_bytes: int
    live_bytes: int
    unplanned: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Allocated over needed; 1 is the least possible."""
        return self.peak_bytes / self.live_bytes if self.live_bytes else 1.0


def live_bytes(lifetimes: Sequence[Lifetime]) -> int:
    """The largest sum of sizes of tensors that are alive at one step: a lower bound of the memory."""
    steps = {lifetime.first for lifetime in lifetimes}
    return max(
        (sum(one.size for one in lifetimes if one.first <= step <= one.last) for step in steps), default=0
    )


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """An offset for every tensor, a multiple of `ALIGNMENT`, and the size of the whole."""
    aligned = [replace(one, size=-(-one.size // ALIGNMENT) * ALIGNMENT) for one in lifetimes]
    best, total = _by_size(aligned)
    least = live_bytes(aligned)
    for room in _ROOM:
        capacity = int(room * least) // ALIGNMENT * ALIGNMENT
        if capacity >= total:
            break
        offsets = _at_two_ends(aligned, capacity)
        if offsets is not None:
            return offsets, capacity
    return best, total


def _gaps(
    lifetimes: Sequence[Lifetime], offsets: dict[int, int], index: int, end: int | None
) -> list[tuple[int, int]]:
    """Free ranges (begin, end) beside the placed tensors that are alive with tensor `index`; the last is open."""
    taken = sorted(
        (start, start + lifetimes[other].size)
        for other, start in offsets.items()
        if lifetimes[other].overlaps(lifetimes[index])
    )
    gaps, begin = [], 0
    for start, stop in taken:
        if start > begin:
            gaps.append((begin, start))
        begin = max(begin, stop)
    gaps.append((begin, sys.maxsize if end is None else end))
    return gaps


def _by_size(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """The first way."""
    offsets: dict[int, int] = {}
    for index in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size, lifetimes[i].first)):
        size = lifetimes[index].size
        fitting = [gap for gap in _gaps(lifetimes, offsets, index, None) if gap[1] - gap[0] >= size]
        offsets[index] = min(fitting, key=lambda gap: gap[1] - gap[0])[0]
    total = max((offsets[i] + one.size for i, one in enumerate(lifetimes)), default=0)
    return [offsets[i] for i in range(len(lifetimes))], total


def _at_two_ends(lifetimes: Sequence[Lifetime], capacity: int) -> list[int] | None:
    """The second way; None if the block is too small for it."""
    offsets: dict[int, int] = {}
    for turn, index in enumerate(sorted(range(len(lifetimes)), key=lambda i: lifetimes[i].first)):
        size = lifetimes[index].size
        gaps = _gaps(lifetimes, offsets, index, capacity)
        fitting = [gap for gap in gaps if gap[1] - gap[0] >= size]
        if not fitting:
            return None
        offsets[index] = fitting[-1][1] - size if turn % 2 else fitting[0][0]
    return [offsets[i] for i in range(len(lifetimes))]
