"""What runs in a worker: it keeps the objects that it was sent and the benches that it made of them.

A worker is asked by a `Call`. It answers with the job's result (`Done`), or with the names of the objects that it lacks
(`Missing`), and is then asked again, with them.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import ExactnessError, OhmfoldError
from .bench import Package, sha256_of
from .threads import limit_threads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .bench import Bench, Reader

__all__ = ["STORE", "Call", "Done", "Missing", "Store", "end_with", "keep_objects", "work"]

# Benches that a worker keeps, each with its objects: a worker of a lasting cluster serves several runs in turn.
_KEPT = 2
_LOOK_FOR_PARENT = 1.0


@dataclass(frozen=True, eq=False)
class Call:
    """A job for a worker.

    Attributes:
        package: Names the package that its bench is made of.
        reader, values: Of that package.
        names: Of its objects.
        job: For the bench.
        threads: How many the worker may use.
        versions: Of everything that results depend on, where the call comes from.
    """

    package: str
    reader: Reader
    values: Mapping[str, Any]
    names: tuple[str, ...]
    job: Any
    threads: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Missing:
    """Objects that a worker lacks."""

    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Done:
    """What a job found."""

    result: Any


@dataclass
class Store:
    """What a worker keeps.

    Attributes:
        objects: Bytes by their SHA-256.
        benches: The last ones, by their packages and threads, each with the names of its objects.
        received: How many objects have arrived here.
        lock: One job at a time: torch's generator and number of threads are the process's own.
        guard: Of the objects; held for a moment alone, since they may arrive while a job runs.
    """

    objects: dict[str, bytes] = field(default_factory=dict)
    benches: OrderedDict[tuple[str, int], tuple[Bench[Any, Any], frozenset[str]]] = field(
        default_factory=OrderedDict
    )
    received: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    guard: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, call: Call, objects: Mapping[str, bytes]) -> Missing | Done:
        """Answer a call.

        Args:
            call: What to do.
            objects: Sent along.

        Raises:
            OhmfoldError: As the bench; or something has another version here than where the call comes from.
        """
        self.keep(objects)
        with self.lock:
            missing = self.missing(call.names)
            if missing:
                return Missing(missing)
            limit_threads(call.threads)
            return Done(self.bench(call).run(call.job, _unheard))

    def keep(self, objects: Mapping[str, bytes]) -> None:
        """Keep objects.

        Raises:
            ExactnessError: One is not what its name says.
        """
        for name, data in objects.items():
            if sha256_of(data) != name:
                raise ExactnessError(f"{len(data)} bytes arrived as {name[:12]} and are others; run it again")
        with self.guard:
            self.objects.update(objects)
            self.received += len(objects)

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names of the objects that are not here."""
        return tuple(name for name in names if name not in self.objects)

    def bench(self, call: Call) -> Bench[Any, Any]:
        """The bench of a call, made when it is first asked for.

        Raises:
            OhmfoldError: Something has another version here than where the call comes from.
        """
        key = call.package, call.threads
        if key not in self.benches:
            _check_versions(call.versions)
            objects = {name: self.objects[name] for name in call.names}
            bench = call.reader(Package(call.reader, call.values, objects), call.threads)
            self.benches[key] = bench, frozenset(call.names)
            while len(self.benches) > _KEPT:
                self.benches.popitem(last=False)
            used: frozenset[str] = frozenset().union(*(names for _, names in self.benches.values()))
            with self.guard:
                self.objects = {name: data for name, data in self.objects.items() if name in used}
        self.benches.move_to_end(key)
        return self.benches[key][0]


# Of the process, as it has to outlive the jobs: what a worker was sent for one it has for the next.
STORE = Store()


def keep_objects(objects: Mapping[str, bytes]) -> None:
    """Keep objects that are sent by themselves, before the call that needs them."""
    STORE.keep(objects)


def work(call: Call, objects: Mapping[str, bytes]) -> Missing | Done:
    """Answer a call in this process; see `Store.answer`."""
    return STORE.answer(call, objects)


def _check_versions(there: Mapping[str, str]) -> None:
    from ..runs import versions

    here = versions()
    for name in sorted(here.keys() | there.keys()):
        if here.get(name) != there.get(name):
            raise OhmfoldError(
                f"a worker on {platform.node()} has {name} {here.get(name, 'not at all')}, expected "
                f"{there.get(name, 'none')} as where the jobs come from; results could differ: install the same there"
            )


def _unheard(_share: float) -> None:
    """Nobody listens: a worker's progress is its finished jobs."""


def end_with(parent: int) -> None:
    """Let this process end when its parent does, in the middle of a job that nobody waits for any more.

    Args:
        parent: The process that started it.
    """
    threading.Thread(target=_watch, args=(parent,), name="ohmfold-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_FOR_PARENT)
    os._exit(1)
