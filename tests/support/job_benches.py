"""Benches whose jobs tell about the process that runs them, or end it; workers import them by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from ohmfold.errors import DataError
from ohmfold.toolchain.jobs import Package, Parts, array_from
from ohmfold.toolchain.jobs.worker import STORE


def read_counting(package, threads):
    """Make a `Counting` of its package."""
    values = package.values
    return Counting(array_from(package.objects[values["numbers"]]), Path(values["folder"]), threads)


class Counting:
    """Adds a job's number to the sum of an array, in a process of which it tells what it was sent.

    A job is a number and what happens when it is first run (`once`), or each time (`always`), or "".
    """

    def __init__(self, numbers, folder, threads=0):
        self.numbers, self.folder, self.threads = numbers, folder, threads

    def name(self, job):
        return f"job {job[0]}"

    def pack(self):
        parts = Parts()
        values = {"numbers": parts.add_array(self.numbers), "folder": str(self.folder)}
        return Package(read_counting, values, parts.objects)

    def run(self, job, tell):
        number, what = job
        mark = self.folder / f"started-{number}"
        first = not mark.exists()
        mark.touch()
        if what == "always" or (what == "once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "refuse":
            raise DataError(f"job {number} is refused")
        if what == "wait":
            (self.folder / f"pid-{number}-{os.getpid()}").touch()
            while not (self.folder / "go").exists():
                time.sleep(0.01)
        tell(1.0)
        return {
            "sum": int(self.numbers.sum()) + number,
            "process": os.getpid(),
            "received": STORE.received,
            "threads": self.threads,
            "variables": [os.environ.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")],
        }


def counting(folder, size=1000):
    return Counting(np.arange(size, dtype=np.int64), folder)
