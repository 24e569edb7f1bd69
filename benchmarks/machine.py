"""What a figure was measured on: processor, its features, instruction sets, versions, load; and how to measure."""

from __future__ import annotations

import math
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ohmfold.errors import OhmfoldError
from ohmfold.kernels import isa
from ohmfold.toolchain.doctor import examine
from ohmfold.toolchain.runs import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LEAST_REPEATS", "Machine", "alternate", "describe_machine"]

LEAST_REPEATS = 20
LEAST_SECONDS = 0.5
TURN_SECONDS = 1e-3
WARM_UP = 3

_FAST = ("amx", "vnni")


@dataclass(frozen=True)
class Machine:
    """What a figure was measured on.

    Attributes:
        processor: Its name.
        cores: How many this process may use.
        features: Those it has, of those that decide which integer instructions run.
        instruction_sets: What the kernels can use here, fastest first.
        missing: A line for each of AMX and VNNI that is not among them.
        versions: Of everything that the figures depend on.
        load: Mean number of running processes in the last minute, when the measurement began.
    """

    processor: str
    cores: int
    features: tuple[str, ...]
    instruction_sets: tuple[str, ...]
    missing: tuple[str, ...]
    versions: dict[str, str]
    load: float


def describe_machine() -> Machine:
    """Look at this machine, before anything is measured."""
    load = os.getloadavg()[0]
    found = examine()
    sets = isa.available()
    return Machine(
        processor=found.processor,
        cores=found.cores,
        features=tuple(name for name, there in found.features.items() if there),
        instruction_sets=sets,
        missing=tuple(_why_missing(name) for name in _FAST if name not in sets),
        versions=versions(),
        load=load,
    )


def _why_missing(name: str) -> str:
    try:
        isa.find(name)
    except OhmfoldError as error:
        return str(error)
    return ""


def alternate(
    runs: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    seconds: float = LEAST_SECONDS,
) -> dict[str, float]:
    """Median milliseconds of each of several functions that are called in turn.

    A function of less than a millisecond runs several times in its turn: a stream of single images finds its
    weights and its code in the cache, where the others would otherwise have left theirs.

    Args:
        runs: The functions by name.
        repeats: How many turns each has at least.
        seconds: How long all of them together are timed at least: a function of microseconds gets more turns.
    """
    counts: dict[str, int] = {}
    for name, run in runs.items():
        for _ in range(WARM_UP):
            run()
        start = time.perf_counter()
        run()
        counts[name] = max(1, math.ceil(TURN_SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in runs}
    total, turns = 0.0, 0
    while turns < repeats or total < seconds:
        for name, run in runs.items():
            for _ in range(counts[name]):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
            total += sum(times[name][-counts[name] :])
        turns += 1
    return {name: 1000 * statistics.median(values) for name, values in times.items()}
