"""Workers that are processes of this machine: joblib's loky, an executor of one process for each worker.

One process to an executor, because an executor ends all its processes where one of them dies.
"""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import Future
from itertools import count
from typing import TYPE_CHECKING, Any

from joblib.externals.loky import process_executor
from joblib.externals.loky.backend import resource_tracker
from joblib.externals.loky.process_executor import BrokenProcessPool, ProcessPoolExecutor

from .dispatch import Died
from .threads import environment, processors
from .worker import end_with, work

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .dispatch import Task
    from .worker import Call, Done, Missing

__all__ = ["Processes"]

# How loky names the end of a process: `The exit codes of the workers are {SIGKILL(-9)}`.
_EXIT = re.compile(r"exit codes of the workers are \{(.*?)\}")


class Processes:
    """Processes beside this one, each started with its first job.

    Args:
        number: How many.
    """

    def __init__(self, number: int) -> None:
        self._threads = max(1, processors() // number)
        self._numbers = count(1)
        self._executors: dict[str, ProcessPoolExecutor] = {}
        _start_tracker()
        for _ in range(number):
            self._add()

    def workers(self) -> Mapping[str, int]:
        """Names of the processes, and how many threads each may use."""
        return dict.fromkeys(self._executors, self._threads)

    def start(
        self, worker: str, call: Call, objects: Mapping[str, bytes], ended: Callable[[Task], None]
    ) -> Task:
        """Let a process answer a call."""
        try:
            future = self._executors[worker].submit(work, call, objects)
        except BrokenProcessPool as error:  # it ended while it had nothing to do
            future = Future()
            future.set_exception(error)
        task = _Task(self, worker, future)
        future.add_done_callback(lambda _: ended(task))
        return task

    def replace(self, worker: str) -> None:
        """Let another process take the place of one."""
        executor = self._executors.pop(worker, None)
        if executor is not None:
            executor.shutdown(wait=False, kill_workers=True)
            self._add()

    def close(self) -> None:
        """End the processes, in the middle of their jobs too."""
        for executor in self._executors.values():
            executor.shutdown(wait=True, kill_workers=True)
        self._executors.clear()

    def _add(self) -> None:
        self._executors[f"process {next(self._numbers)}"] = ProcessPoolExecutor(
            1,
            initializer=_prepare,
            initargs=(os.getpid(),),
            env=environment(self._threads),
        )


def _prepare(parent: int) -> None:
    """Prepare a process: it leaves Ctrl-C to its parent, ends when its parent does, and may grow."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # loky would end it as soon as its memory has grown by 300 MB since its first job; models and images may be larger.
    process_executor._USE_PSUTIL = False  # noqa: SLF001
    end_with(parent)


def _start_tracker() -> None:
    """Start the process that frees loky's semaphores should this one be killed, which it is then silent about."""
    name, before = "PYTHONWARNINGS", os.environ.get("PYTHONWARNINGS")
    os.environ[name] = ",".join(filter(None, (before, "ignore:resource_tracker:UserWarning")))
    try:
        resource_tracker.ensure_running()
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


class _Task:
    def __init__(self, processes: Processes, worker: str, future: Future[Any]) -> None:
        self._processes, self._worker, self._future = processes, worker, future

    def outcome(self) -> Missing | Done | Died:
        try:
            found: Missing | Done = self._future.result()
        except BrokenProcessPool as error:
            self._processes.replace(self._worker)
            code = _EXIT.search(str(error))
            return Died("it ended" if code is None else f"it ended by {code[1]}")
        return found

    def drop(self) -> None:
        self._processes.replace(self._worker)
