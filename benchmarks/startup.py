"""How long ohmfold takes to start: wall-clock medians of whole processes, with the limits beside them.

    python -m benchmarks.startup [--artifact FILE.onnx] [--repeats N] [--json]

`run` classifies the digits of mnist-sample with the MNIST CNN, compiled for the purpose or given. The cold runs each
have an empty cache of kernels and data (NUMBA_CACHE_DIR, XDG_CACHE_HOME); the warm ones share that of a cold one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ohmfold.toolchain.cli.output import print_json, progress_bar, say, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPEATS = 5

# Seconds.
LIMITS = {
    "import ohmfold": 0.3,
    "ohmfold run --help": 0.5,
    "ohmfold run, cold": 8.0,
    "ohmfold run, warm": 1.5,
}


@dataclass(frozen=True)
class Row:
    """What was started, the median of its wall-clock seconds, and the most that it may take."""

    what: str
    seconds: float
    limit: float
    least: float
    most: float


def run_process(arguments: Sequence[str], caches: Path | None = None) -> float:
    """Seconds that a Python process takes from its start to its end.

    Args:
        arguments: What follows `python`.
        caches: Folder for all its caches; None for the user's.

    Raises:
        SystemExit: It fails.
    """
    places = {} if caches is None else {"NUMBA_CACHE_DIR": str(caches), "XDG_CACHE_HOME": str(caches)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"error: python {' '.join(arguments)} failed: {done.stderr.strip()}")
    return seconds


def measure(artifact: Path, folder: Path, repeats: int, progress: Callable[[str, float], None]) -> list[Row]:
    """Time every start `repeats` times, after one that counts for nothing, save where it is cold.

    Args:
        artifact: What `run` runs.
        folder: An empty folder, for the caches.
        repeats: Timings behind a median.
        progress: Told what comes next, and the share that is done.
    """
    command = ["-m", "ohmfold", "run", str(artifact), "--data", "mnist-sample"]
    caches = iter(folder / str(number) for number in range(repeats))
    starts: dict[str, Callable[[], float]] = {
        "import ohmfold": lambda: run_process(["-c", "import ohmfold"]),
        "ohmfold run --help": lambda: run_process(["-m", "ohmfold", "run", "--help"]),
        "ohmfold run, cold": lambda: run_process(command, next(caches)),
        "ohmfold run, warm": lambda: run_process(command, folder / "0"),
    }
    rows = []
    for number, (what, start) in enumerate(starts.items()):
        progress(what, number / len(starts))
        if "cold" not in what:
            start()
        times = [start() for _ in range(repeats)]
        rows.append(Row(what, statistics.median(times), LIMITS[what], min(times), max(times)))
    return rows


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--artifact", type=Path, metavar="FILE.onnx", help="by default mnist-cnn, compiled")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="timings behind a median")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(given)
    if arguments.repeats < REPEATS:
        parser.error(f"--repeats {arguments.repeats}: a median takes at least {REPEATS}")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, progress_bar("startup") as progress:
        artifact = arguments.artifact
        if artifact is None:
            progress("compiling the MNIST CNN", 0.0)
            artifact = Path(name, "mnist-cnn.onnx")
            run_process(
                ["-m", "ohmfold", "compile", "mnist-cnn", "--data", "mnist-sample", "--out", str(artifact)]
            )
        rows = measure(artifact, Path(name), arguments.repeats, progress)
    if arguments.json:
        print_json({"load": load, "repeats": arguments.repeats, "rows": [asdict(row) for row in rows]})
        return
    say(f"load {load:.2f} at the start; medians of {arguments.repeats} processes", "")
    table(
        "",
        ["start", "seconds", "least to most", "limit", ""],
        [
            (
                row.what,
                f"{row.seconds:.3f}",
                f"{row.least:.3f} to {row.most:.3f}",
                f"{row.limit:.1f}",
                "within" if row.seconds < row.limit else "beyond",
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
