"""Who runs jobs: this process alone, processes beside it, or a Dask cluster.

Whoever it is, results are the same, each with the place of its job; their order is that in which jobs end.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ...errors import MissingDependencyError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .bench import Bench

    TellPlace = Callable[[int, float], None]

__all__ = ["Alone", "Crew", "check_crew", "hire", "in_order"]

Job = TypeVar("Job")
Result = TypeVar("Result")

_LOCAL = re.compile(r"local:([1-9]\d{0,3})\Z")
_ADDRESS = re.compile(r"(?:tcp|tls)://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}\Z")


class Crew(Protocol):
    """Runs jobs."""

    def run(
        self, bench: Bench[Job, Result], jobs: Sequence[Job], tell: TellPlace | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Yield the place and the result of each job, as jobs end.

        Args:
            bench: Runs them.
            jobs: Each independent of the others.
            tell: Called with the place of a job and the share of it that is done; by workers once it is done.

        Raises:
            OhmfoldError: As the bench; or a job has ended every worker that ran it.
        """
        ...


class Alone:
    """Runs jobs in this process, one after the other."""

    def run(
        self, bench: Bench[Job, Result], jobs: Sequence[Job], tell: TellPlace | None = None
    ) -> Iterator[tuple[int, Result]]:
        """Yield the place and the result of each job, in their order; each is run when it is asked for."""
        for place, job in enumerate(jobs):
            told: Callable[[float], None] = _unheard if tell is None else partial(tell, place)
            yield place, bench.run(job, told)


def _unheard(_share: float) -> None:
    """Nobody listens."""


def check_crew(workers: int, cluster: str | None) -> None:
    """Refuse, before any work is done, a number of workers or a cluster that cannot be.

    Raises:
        RecipeError: There is not one worker, the cluster is no address, or both are given.
        MissingDependencyError: A cluster is wanted, and Dask is not installed.
    """
    if workers < 1:
        raise RecipeError(f"found {workers} workers; expected at least one")
    if cluster is None:
        return
    if workers > 1:
        raise RecipeError(
            "workers are processes beside this one, and a cluster has its own; expected one of both"
        )
    if not _LOCAL.match(cluster) and not _ADDRESS.match(cluster):
        raise RecipeError(
            f"the cluster {cluster!r}: expected the address of a scheduler, tcp://HOST:PORT, or local:N for N workers "
            "that are started here"
        )
    try:
        import distributed  # noqa: F401 - whether it is there
    except ImportError:
        raise MissingDependencyError(
            "a cluster needs the package distributed (Dask), which is not installed: pip install 'ohmfold[cluster]'"
        ) from None


@contextmanager
def hire(workers: int = 1, cluster: str | None = None) -> Iterator[Crew]:
    """Yield who runs jobs; what was started for it ends with the context.

    Args:
        workers: Processes on this machine; 1: none but this one.
        cluster: `tcp://HOST:PORT` of a Dask scheduler, or `local:N` to start N workers here; None: none.

    Raises:
        RecipeError, MissingDependencyError: As `check_crew`.
        OhmfoldError: The cluster does not answer, or has no workers.
    """
    check_crew(workers, cluster)
    if cluster is None and workers == 1:
        yield Alone()
        return
    from .dispatch import Dispatcher, Hands

    hands: Hands
    if cluster is None:
        from .processes import Processes

        hands = Processes(workers)
    else:
        from .cluster import connect, start_local

        local = _LOCAL.match(cluster)
        hands = connect(cluster) if local is None else start_local(int(local[1]))
    try:
        yield Dispatcher(hands)
    finally:
        hands.close()


def in_order(found: Iterable[tuple[int, Any]]) -> Iterator[Any]:
    """Yield results in the order of their places, which are 0, 1, 2 ...; what comes early waits."""
    early: dict[int, Any] = {}
    place = 0
    for where, result in found:
        early[where] = result
        while place in early:
            yield early.pop(place)
            place += 1
