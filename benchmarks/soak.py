"""Whether memory grows: many emulator calls and many compilations in one process, resident memory after each tenth.

    python -m benchmarks.soak [--calls N] [--compilations N] [--json]

The first tenth warms up: kernels are compiled, pools and caches fill. From there to the end resident memory may grow by
no more than `LIMIT`; garbage is collected before each look, so that what grows is held by something. A small network of
convolutions and a dense layer is run in batches of one to eight images, so that buffers of several sizes are made.
What is compiled is its float ONNX model: torch's own exporter keeps 0.16 MiB of every export (torch 2.13, 40 exports),
which is not ours to free.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

import ohmfold
from ohmfold.export import export_module
from ohmfold.toolchain.cli.output import print_json, progress_bar, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CALLS, COMPILATIONS = 100_000, 1_000
LIMIT = 8 << 20
"""Bytes that resident memory may grow by after the first tenth."""

PARTS = 10


@dataclass(frozen=True)
class Row:
    """What was repeated and how often, resident bytes after each tenth, and how many seconds all took."""

    what: str
    repeats: int
    resident: tuple[int, ...]
    seconds: float

    @property
    def growth(self) -> int:
        """Bytes between the end of the first tenth and the end."""
        return self.resident[-1] - self.resident[0]


def resident_memory() -> int:
    """Bytes of this process that lie in memory, less what files alone hold."""
    gc.collect()
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def soak(
    what: str, repeats: int, step: Callable[[int], object], progress: Callable[[str, float], None]
) -> Row:
    """Call `step` with 0, 1, ... and look at memory after each tenth.

    Args:
        what: Its name.
        repeats: How often, at least `PARTS` times.
        step: What is repeated.
        progress: Told what runs, and the share that is done.
    """
    begun = time.perf_counter()
    resident, number = [], 0
    for part in range(1, PARTS + 1):
        while number < repeats * part // PARTS:
            step(number)
            number += 1
        resident.append(resident_memory())
        progress(what, part / PARTS)
    return Row(what, repeats, tuple(resident), time.perf_counter() - begun)


def network() -> nn.Module:
    """A small network: two convolutions and a dense layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 10),
    )  # fmt: skip


def measure(calls: int, compilations: int, progress: Callable[[str, float], None]) -> list[Row]:
    """Repeat both."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 1, 8, 8), np.uint8)
    model = export_module(network().eval(), images.shape[1:])
    emulator = ohmfold.Emulator(ohmfold.compile(model, images), threads=1)
    return [
        soak("emulator calls", calls, lambda i: emulator.predict(images[: 1 + i % 8]), progress),
        soak("compilations", compilations, lambda i: ohmfold.compile(model, images[: 8 + i % 8]), progress),
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Soak and print a table, or JSON; returns 1 where memory grew beyond the limit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=CALLS, help="emulator calls")
    parser.add_argument("--compilations", type=int, default=COMPILATIONS)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(given)
    if min(arguments.calls, arguments.compilations) < PARTS:
        parser.error(f"at least {PARTS} calls and compilations: memory is looked at after each tenth")
    with progress_bar("soak") as progress:
        rows = measure(arguments.calls, arguments.compilations, progress)
    grown = any(row.growth > LIMIT for row in rows)
    if arguments.json:
        print_json({"limit": LIMIT, "rows": [{**asdict(row), "growth": row.growth} for row in rows]})
        return int(grown)
    table(
        "",
        ["what", "repeats", "MiB after a tenth", "MiB at the end", "growth", "limit", "seconds", ""],
        [
            (
                row.what,
                f"{row.repeats}",
                f"{row.resident[0] / (1 << 20):.1f}",
                f"{row.resident[-1] / (1 << 20):.1f}",
                f"{row.growth / (1 << 20):+.2f}",
                f"{LIMIT >> 20}",
                f"{row.seconds:.0f}",
                "beyond" if row.growth > LIMIT else "within",
            )
            for row in rows
        ],
    )
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
