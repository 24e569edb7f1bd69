"""Hands jobs to workers: one at a time to each, its objects once, and again to another where a worker dies.

A worker has one job at a time, so that one that dies takes nothing with it but its own job, which is known by name.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...errors import OhmfoldError
from .worker import Call, Done, Missing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from .bench import Bench, Package

    TellPlace = Callable[[int, float], None]

__all__ = ["TRIES", "Died", "Dispatcher", "Hands", "Task"]

TRIES = 3
"""How often a job is run that ends its worker."""

# Seconds between two looks at who is still there, and seconds that a cluster may be without any worker.
_LOOK = 0.5
_PATIENCE = 60.0

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Died:
    """A worker ended before its job did.

    Attributes:
        why: What is known of it.
    """

    why: str


class Task(Protocol):
    """What a worker is doing."""

    def outcome(self) -> Missing | Done | Died:
        """How it ended.

        Raises:
            OhmfoldError: As the bench.
        """
        ...

    def drop(self) -> None:
        """Nobody wants it any more."""
        ...


class Hands(Protocol):
    """Workers, whatever they are. A worker that has died never comes back under the same name."""

    def workers(self) -> Mapping[str, int]:
        """Names of those that are there, and how many threads each may use.

        Raises:
            OhmfoldError: Whoever knows them does not answer.
        """
        ...

    def start(
        self, worker: str, call: Call, objects: Mapping[str, bytes], ended: Callable[[Task], None]
    ) -> Task:
        """Let a worker answer a call; `ended` is called, from any thread, when it has."""
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class Dispatcher:
    """Runs jobs on workers.

    Args:
        hands: The workers.

    Attributes:
        sent: How often each object was sent to each worker.
    """

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.sent: Counter[tuple[str, str]] = Counter()
        self._held: dict[str, set[str]] = {}

    def run(
        self, bench: Bench[Job, Result], jobs: Sequence[Job], tell: TellPlace | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Yield the place and the result of each job, as jobs end.

        Args:
            bench: Runs them.
            jobs: Each independent of the others.
            tell: Called with the place of a job that is done, and 1.

        Raises:
            OhmfoldError: As the bench; or a job has ended every worker that ran it, or no worker is left.
        """
        if not jobs:
            return
        run = _Run(self, bench, jobs)
        try:
            while run.unfinished:
                run.hand_out()
                found = run.ended()
                if found is None:
                    continue
                if tell is not None:
                    tell(found[0], 1.0)
                yield found
        finally:
            run.drop()

    def objects(self, worker: str, package: Package, lacking: Collection[str]) -> dict[str, bytes]:
        """What a worker is sent along: objects that it has not been sent, and those that it says it lacks."""
        held = self._held.setdefault(worker, set())
        names = [name for name in package.objects if name not in held or name in lacking]
        held.update(names)
        self.sent.update((worker, name) for name in names)
        return {name: package.objects[name] for name in names}

    def forget(self, worker: str) -> None:
        """A worker has died, and what it had with it."""
        self._held.pop(worker, None)


class _Run:
    """Jobs of one bench, on their way."""

    def __init__(self, dispatcher: Dispatcher, bench: Bench[Any, Any], jobs: Sequence[Any]) -> None:
        from ..runs import versions

        self._dispatcher, self._hands = dispatcher, dispatcher.hands
        self._bench, self._jobs = bench, jobs
        self._package, self._versions = bench.pack(), versions()
        self._waiting = deque(range(len(jobs)))
        self._busy: dict[str, tuple[int, Task]] = {}
        self._ended: SimpleQueue[tuple[str, Task]] = SimpleQueue()
        self._deaths: Counter[int] = Counter()
        self._threads: Mapping[str, int] = {}
        self._seen = time.monotonic()

    @property
    def unfinished(self) -> bool:
        """Whether there are jobs without a result."""
        return bool(self._waiting or self._busy)

    def hand_out(self) -> None:
        """Give a job to each worker that has none; take those of workers that are gone for failed.

        Raises:
            OhmfoldError: There has been no worker for long, or a job has failed too often.
        """
        self._threads = self._hands.workers()
        now = time.monotonic()
        if self._threads:
            self._seen = now
        elif now - self._seen > _PATIENCE:
            raise OhmfoldError(
                f"there has been no worker for {_PATIENCE:.0f} s; start some, and run it again"
            )
        for worker in [worker for worker in self._busy if worker not in self._threads]:
            self._busy[worker][1].drop()
            self._failed(worker, "it is gone")
        for worker in self._threads:
            if self._waiting and worker not in self._busy:
                self._hand(worker, self._waiting.popleft())

    def ended(self) -> tuple[int, Any] | None:
        """The place and the result of a job that has ended; None where none did, for a moment, or one failed.

        Raises:
            OhmfoldError: As the bench; or a job has failed too often.
        """
        try:
            worker, task = self._ended.get(timeout=_LOOK)
        except Empty:
            return None
        place, current = self._busy.get(worker, (0, None))
        if current is not task:  # of a worker that was given up
            return None
        outcome = task.outcome()
        if isinstance(outcome, Died):
            self._failed(worker, outcome.why)
            return None
        del self._busy[worker]
        if isinstance(outcome, Missing):
            self._hand(worker, place, outcome.names)
            return None
        return place, outcome.result

    def drop(self) -> None:
        """Nobody wants the rest."""
        for _, task in self._busy.values():
            task.drop()

    def _hand(self, worker: str, place: int, lacking: Collection[str] = ()) -> None:
        package = self._package
        objects = self._dispatcher.objects(worker, package, lacking)
        call = Call(
            package.sha256,
            package.reader,
            package.values,
            tuple(package.objects),
            self._jobs[place],
            self._threads[worker],
            self._versions,
        )
        task = self._hands.start(worker, call, objects, lambda task: self._ended.put((worker, task)))
        self._busy[worker] = place, task

    def _failed(self, worker: str, why: str) -> None:
        place, _ = self._busy.pop(worker)
        self._dispatcher.forget(worker)
        self._deaths[place] += 1
        if self._deaths[place] >= TRIES:
            raise OhmfoldError(
                f"{self._bench.name(self._jobs[place])}: each of {TRIES} workers that ran it ended before it did "
                f"({why}); is there memory enough for as many at a time? Run it with one worker to see more"
            )
        self._waiting.appendleft(place)
