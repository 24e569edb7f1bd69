"""How many threads the libraries of a worker take: its share of the processors."""

from __future__ import annotations

import os
import sys

__all__ = ["environment", "limit_threads", "processors"]

_COUNTED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def processors() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def environment(threads: int) -> dict[str, str]:
    """Return the variables that a worker starts with; libraries read them when they are imported.

    NumPy's BLAS takes one thread in any case, and the threads of OpenMP sleep while they wait, as on the command line.
    """
    return {
        **dict.fromkeys(_COUNTED, str(threads)),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def limit_threads(threads: int) -> None:
    """Limit the libraries of this process, where they were imported before the variables could tell them."""
    os.environ.update(environment(threads))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
