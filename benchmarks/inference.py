"""The emulator beside onnxruntime: the same artifact, in one process, alternating; medians and their ratio.

    python -m benchmarks.inference [--threads N] [--repeats N] [--json]

Before a case is timed, both executors' logits are compared; a case whose bits differ is an error, not a figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

import ohmfold
from ohmfold.models.checkpoints import load_model
from ohmfold.models.registry import build_model
from ohmfold.toolchain.witness import OnnxRuntime

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

WARM_UP = 3
LEAST_REPEATS = 20


@dataclass(frozen=True)
class Case:
    """One network at one batch size."""

    name: str
    model: Callable[[], nn.Module]
    image: tuple[int, ...]
    batch: int


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds, and how many times as many images a second the emulator does."""

    case: str
    batch: int
    threads: int
    emulator_ms: float
    onnxruntime_ms: float
    throughput_ratio: float


CASES = (
    Case("MNIST CNN", lambda: load_model("mnist-cnn"), (1, 28, 28), 256),
    Case("MNIST CNN", lambda: load_model("mnist-cnn"), (1, 28, 28), 1),
    Case("wide ResNet-32", lambda: build_model("cifar-wrn32", seed=0), (3, 32, 32), 16),
    Case("MobileNet-like", lambda: build_model("cifar-mobilenet", seed=0), (3, 32, 32), 64),
)


def measure(case: Case, threads: int, repeats: int) -> Row:
    """Time one case: warm both up, compare their bits, then alternate."""
    images = np.random.default_rng(0).integers(0, 256, (case.batch, *case.image)).astype(np.uint8)
    artifact = ohmfold.compile(case.model(), images[:64])
    emulator = ohmfold.Emulator(artifact, threads=threads)
    session = OnnxRuntime(artifact.to_bytes(), "all", threads)
    feed = {artifact.program.inputs[0].name: images}
    output = artifact.program.outputs[0].name
    for _ in range(WARM_UP):
        ours, theirs = emulator(images), session.run(feed)[output]
    if not np.array_equal(ours, theirs):
        raise SystemExit(f"{case.name}: the emulator's logits are not onnxruntime's")
    times: dict[str, list[float]] = {"emulator": [], "onnxruntime": []}
    for _ in range(repeats):
        for name, run in (("emulator", lambda: emulator(images)), ("onnxruntime", lambda: session.run(feed))):
            start = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - start))
    ours_ms, theirs_ms = statistics.median(times["emulator"]), statistics.median(times["onnxruntime"])
    return Row(case.name, case.batch, threads, ours_ms, theirs_ms, theirs_ms / ours_ms)


def main() -> None:
    """Measure every case and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.repeats < LEAST_REPEATS or arguments.threads < 1:
        parser.error(f"--repeats is at least {LEAST_REPEATS}, --threads at least 1")
    rows = []
    for case in CASES:
        rows.append(measure(case, arguments.threads, arguments.repeats))
        if not arguments.json:
            if len(rows) == 1:
                print(
                    f"{'case':<16} {'batch':>5} {'threads':>7} {'emulator':>12} {'onnxruntime':>12} {'ratio':>6}"
                )
            row = rows[-1]
            print(
                f"{row.case:<16} {row.batch:>5} {row.threads:>7} {row.emulator_ms:>9.2f} ms "
                f"{row.onnxruntime_ms:>9.2f} ms {row.throughput_ratio:>6.2f}"
            )
    if arguments.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=2)


if __name__ == "__main__":
    main()
