"""How the command line keeps libraries in check: what they print, how threads wait, what is collected when."""

from __future__ import annotations

import atexit
import contextlib
import gc
import logging
import os
import sys
import warnings

__all__ = ["calm_collector", "calm_threads", "import_onnxruntime", "quieten"]

# Containers made between two collections of cyclic garbage; Python's default is 700.
_COLLECT_AFTER = 50_000


class _Lines(logging.Handler):
    """Writes our own warnings as one line each; standard error is looked up when the line is written."""

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        sys.stderr.write(f"{record.levelname.lower()}: {text}\n")


def quieten() -> None:
    """Silence the warnings and log lines of libraries; let ohmfold's own warnings through, a line each."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
    ours = logging.getLogger("ohmfold")
    if not any(isinstance(handler, _Lines) for handler in ours.handlers):
        ours.addHandler(_Lines(logging.WARNING))


def calm_threads() -> None:
    """Let OpenMP's threads sleep at barriers, and NumPy's BLAS use one; call it before either is imported.

    By default they spin, which is ruinous where something else wants the cores too. On two busy cores, a step
    of an attack on 100 digits was measured at 0.57 s spinning and 0.16 s sleeping, and the eigenvalues of a
    1024 x 1024 matrix at 0.5 to 5 s with two threads and 0.2 s with one.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def calm_collector() -> None:
    """Let the collector look for cyclic garbage less often, and not at all when the process ends.

    What imports make lives to the end, and going through all of it again and again, the last time at the exit,
    took 0.25 s of the 0.95 s of a process that imports Numba and onnx_ir. It is for a process of our own only.
    """
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)


def import_onnxruntime() -> None:
    """Import onnxruntime without the lines that its C++ part may write about devices it did not find.

    They go straight to file descriptor 2, before any severity can be set, so that is where they are stopped.
    """
    if "onnxruntime" in sys.modules:
        return
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        try:
            kept = os.dup(2)
        except OSError:  # there is no standard error to protect
            pass
        else:
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
