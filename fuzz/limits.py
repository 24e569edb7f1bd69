"""What a reader must not do, watched from inside the process: open other files, unpickle, write, take memory.

Python tells of these through audit hooks (PEP 578); memory is held by a limit on the address space, which a reader
meets as a MemoryError. A hook cannot be removed: only processes that exist for this install it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ALLOWANCE", "RATIO", "SECONDS", "EscapeError", "Watch", "memory_limit"]

SECONDS = 5.0
"""No input may take longer."""

RATIO, ALLOWANCE = 256, 256 << 20
"""An input of n bytes may take RATIO * n + ALLOWANCE bytes of address space."""

_WRITING = os.O_WRONLY | os.O_RDWR
_FORBIDDEN = (
    "pickle.find_class", "os.system", "subprocess.Popen", "socket.connect", "os.exec", "os.symlink", "os.link",
)  # fmt: skip
_CHANGING = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.truncate")
_M_ARENA_MAX = -8  # mallopt(3)


class EscapeError(BaseException):
    """A reader did what no reader may do; no `except Exception` on the way can hide it."""


class Watch:
    """Audits what happens while an input is read.

    Args:
        folder: Where inputs are written, and the only place that a reader may touch.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.realpath(folder)
        here = Path(__file__).resolve().parents[1]
        roots = (
            sys.prefix,
            sys.base_prefix,
            str(here),
            "/usr",
            "/lib",
            "/proc",
            "/sys",
            "/dev/urandom",
            *sys.path,
        )
        self._libraries = tuple(os.path.realpath(root) for root in roots if root)
        self._reading = False
        tempfile.tempdir = self._folder
        sys.addaudithook(self._audit)

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Watch what is done inside."""
        self._reading = True
        try:
            yield
        finally:
            self._reading = False

    def _audit(self, event: str, details: tuple[Any, ...]) -> None:
        if not self._reading:
            return
        if event in _FORBIDDEN:
            self._escape(event, details)
        if event == "open" and isinstance(details[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(details[0]))
            inside = path.startswith(self._folder + os.sep) or path == self._folder
            writes = isinstance(details[2], int) and details[2] & _WRITING
            if not inside and (writes or not path.startswith(self._libraries)):
                self._escape(event, (path, *details[1:]))
        elif event in _CHANGING and isinstance(details[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(details[0]))
            if not path.startswith(self._folder + os.sep):
                self._escape(event, details)

    def _escape(self, event: str, details: tuple[Any, ...]) -> None:
        self._reading = False
        raise EscapeError(f"{event}{details!r:.300}")


@contextlib.contextmanager
def memory_limit(size: int, times: int = 1) -> Iterator[None]:
    """Let the process take `RATIO * size + times * ALLOWANCE` bytes more than it has."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - once for every input
        taken = int(file.read().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + RATIO * size + times * ALLOWANCE, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, hard))


def one_arena() -> None:
    """Let every thread take memory from one heap: glibc reserves 64 MiB of address space for each other one."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
