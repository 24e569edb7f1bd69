"""Workers of a Dask cluster: one that is there already, or one that is started on this machine and stopped again.

Jobs are pinned, one to a worker at a time. The scheduler knows who is there; a worker that is no longer there has died,
and its job goes to another, under another name. Dask's own repetition, which counts deaths of other jobs too, has no
part in it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import distributed

from ...errors import OhmfoldError
from .dispatch import Died
from .threads import environment, processors
from .worker import keep_objects, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .dispatch import Task
    from .worker import Call, Done, Missing

__all__ = ["Cluster", "connect", "start_local"]

# Seconds that a scheduler may take to answer, a worker to be there, and between two questions who is there.
_ANSWER = 4.0
_FIRST_WORKER = 10.0
_START = 60.0
_FRESH = 0.4


def connect(address: str) -> Cluster:
    """Return the workers of a scheduler.

    Args:
        address: `tcp://HOST:PORT`.

    Raises:
        OhmfoldError: It does not answer, or has no worker.
    """
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        client = stack.enter_context(_client(address, _ANSWER))
        _wait(client, address, _FIRST_WORKER)
        return Cluster(client, address, stack.pop_all())


def start_local(number: int) -> Cluster:
    """Start a scheduler and workers on this machine; `close` ends them.

    Raises:
        OhmfoldError: They do not start.
    """
    threads = max(1, processors() // number)
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="ohmfold-workers-"))
        cluster = stack.enter_context(
            distributed.LocalCluster(
                n_workers=number,
                threads_per_worker=threads,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,  # else a worker is ended that takes more than an equal share
                local_directory=scratch,
                env=environment(threads),
                silence_logs=logging.CRITICAL,
            )
        )
        client = stack.enter_context(_client(cluster.scheduler_address, _START))
        _wait(client, "the cluster", _START)
        return Cluster(client, "the cluster", stack.pop_all(), number, lambda: cluster.scale(number))


class Cluster:
    """Workers of a Dask scheduler.

    Args:
        client: Connected to it.
        address: What errors call it.
        stack: Ends what was started.
        number: How many workers there should be.
        refill: Called, again and again, while there are fewer. What watches over a worker starts it again when it has
            died, but not always: not one that dies in the moment that it is there.

    Attributes:
        client: The connection.
    """

    def __init__(
        self,
        client: distributed.Client,
        address: str,
        stack: ExitStack,
        number: int = 0,
        refill: Callable[[], object] | None = None,
    ) -> None:
        self.client = client
        self._address = address
        self._stack = stack
        self._number, self._refill = number, refill
        self._known: tuple[float, dict[str, int]] = (float("-inf"), {})
        self._gone: set[str] = set()

    def workers(self) -> Mapping[str, int]:
        """Addresses of the workers, and how many threads each was started with.

        Raises:
            OhmfoldError: The scheduler does not answer any more.
        """
        asked, known = self._known
        if time.monotonic() - asked > _FRESH:
            known = _ask(self.client, self._address)
            self._known = time.monotonic(), known
            if self._refill is not None and len(known) < self._number:
                self._refill()
        return {worker: threads for worker, threads in known.items() if worker not in self._gone}

    def start(
        self, worker: str, call: Call, objects: Mapping[str, bytes], ended: Callable[[Task], None]
    ) -> Task:
        """Let a worker answer a call; objects are sent first, past the scheduler's memory of what jobs are."""
        task = _Task(self, worker)
        try:
            if objects:
                self.client.run(keep_objects, dict(objects), workers=[worker])
        except (OSError, ValueError, KeyError) as error:
            # It died while it was sent to, or before: what `run` says then is about the connection.
            self._gone.add(worker)
            task.died = f"{type(error).__name__} while it was sent to"
            ended(task)
            return task
        task.future = self.client.submit(
            work, call, {}, key=f"ohmfold-{uuid4().hex}", pure=False, retries=0, workers=[worker]
        )
        task.future.add_done_callback(lambda _: ended(task))
        return task

    def give_up(self, worker: str) -> None:
        """Take a worker for gone."""
        self._gone.add(worker)

    def close(self) -> None:
        """Leave the cluster; end what was started."""
        self._stack.close()


class _Task:
    def __init__(self, cluster: Cluster, worker: str) -> None:
        self._cluster, self._worker = cluster, worker
        self.future: Any = None
        self.died = ""

    def outcome(self) -> Missing | Done | Died:
        if self.future is None:
            return Died(self.died)
        try:
            found = self._result()
        except (distributed.KilledWorker, FutureCancelled) as error:
            self._cluster.give_up(self._worker)
            return Died(type(error).__name__)
        except ModuleNotFoundError as error:
            raise OhmfoldError(
                f"worker {self._worker}: {error}; expected the same ohmfold there as here: install it, and start the "
                "worker again"
            ) from None
        return found

    def _result(self) -> Missing | Done | Died:
        """What the worker holds; one that dies before it is fetched would be waited for without an end."""
        while True:
            try:
                found: Missing | Done = self.future.result(timeout=_ANSWER)
            except TimeoutError:
                if self._worker not in self._cluster.workers():
                    self.drop()
                    return Died("it is gone")
            else:
                return found

    def drop(self) -> None:
        if self.future is not None:
            self.future.cancel()


@contextmanager
def _client(address: str, seconds: float) -> Iterator[distributed.Client]:
    try:
        client = distributed.Client(address, timeout=seconds, set_as_default=False)
    except (OSError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OhmfoldError(
            f"no Dask scheduler answers at {address} ({first}); expected one that was started with `dask scheduler`"
        ) from None
    with client:
        yield client


def _wait(client: distributed.Client, address: str, seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise OhmfoldError(
            f"{address} has no worker after {seconds:.0f} s; start some with `dask worker ADDRESS`"
        ) from None


def _ask(client: distributed.Client, address: str) -> dict[str, int]:
    try:
        if client.status == "running":
            return {worker: int(threads) for worker, threads in client.nthreads().items()}
    except (OSError, TimeoutError, FutureCancelled):
        pass  # said below, with what it means
    raise OhmfoldError(
        f"the connection to {address} is lost; what is finished is kept where a folder was given: run it again"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Dask from writing lines about workers that come and go: we say what matters."""
    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
