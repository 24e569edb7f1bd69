"""Jobs are handed out one at a time, objects once, and again where a worker dies; what cannot be is refused."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_benches import counting, read_counting

from ohmfold.errors import DataError, ExactnessError, MissingDependencyError, OhmfoldError, RecipeError
from ohmfold.toolchain.jobs import Alone, Package, Parts, array_from, check_crew, hire, in_order
from ohmfold.toolchain.jobs import dispatch as dispatching
from ohmfold.toolchain.jobs.dispatch import TRIES, Died, Dispatcher
from ohmfold.toolchain.jobs.worker import Call, Done, Missing, Store
from ohmfold.toolchain.runs import versions


class Task:
    def __init__(self, answer):
        self._answer, self.dropped = answer, False

    def outcome(self):
        return self._answer()

    def drop(self):
        self.dropped = True


class Hands:
    """Workers in this process, each with a store of its own, that die as they are told.

    Args:
        number: How many are there at a time.
        deaths: Jobs whose worker dies, as often as they are named.
        vanish: Whether one that dies is just gone, and its task never ends.
        forget: Whether a worker forgets everything after each job.
    """

    def __init__(self, number, deaths=(), *, vanish=False, forget=False):
        self.stores = {f"worker {place}": Store() for place in range(number)}
        self._deaths, self._vanish, self._forget = list(deaths), vanish, forget
        self._next = number
        self.runs, self.tasks = [], []

    def workers(self):
        return dict.fromkeys(self.stores, 1)

    def start(self, worker, call, objects, ended):
        dies = call.job[0] in self._deaths
        if dies:
            self._deaths.remove(call.job[0])
            del self.stores[worker]
            self.stores[f"worker {self._next}"] = Store()
            self._next += 1
        else:
            store = self.stores[worker]
        self.runs.append((worker, call.job[0]))

        def answer():
            if dies:
                return Died("it fell over")
            found = store.answer(call, objects)
            if self._forget and isinstance(found, Done):
                self.stores[worker] = Store()
            return found

        task = Task(answer)
        self.tasks.append(task)
        if not (dies and self._vanish):
            ended(task)
        return task

    def close(self):
        pass


def jobs(count):
    return [(number, "") for number in range(count)]


def sums(found):
    return {place: result["sum"] for place, result in found}


@settings(max_examples=25)
@given(
    workers=st.integers(1, 4),
    count=st.integers(0, 9),
    deaths=st.lists(st.integers(0, 8), max_size=6),
    vanish=st.booleans(),
)
def test_results_are_those_of_one_process_whoever_dies(workers, count, deaths, vanish, tmp_path_factory):
    bench = counting(tmp_path_factory.mktemp("jobs"))
    hands = Hands(workers, deaths, vanish=vanish)
    too_often = [place for place in range(count) if deaths.count(place) >= TRIES]
    if too_often:
        with pytest.raises(OhmfoldError, match=r"job \d: each of 3 workers"):
            sums(Dispatcher(hands).run(bench, jobs(count)))
        return
    assert sums(Dispatcher(hands).run(bench, jobs(count))) == sums(Alone().run(bench, jobs(count)))
    # A death costs its own job one more run, and no other job any.
    for place in range(count):
        assert [job for _, job in hands.runs].count(place) == 1 + deaths.count(place)


def test_an_object_is_sent_to_a_worker_once_and_to_its_successor_again(tmp_path):
    bench = counting(tmp_path)
    hands = Hands(2, [3])
    crew = Dispatcher(hands)
    sums(crew.run(bench, jobs(20)))
    sums(crew.run(bench, jobs(20)))
    (name,) = bench.pack().objects
    assert set(crew.sent.values()) == {1}
    assert {worker for worker, _ in crew.sent} == {worker for worker, _ in hands.runs}
    assert len(crew.sent) == 3
    assert all(store.received == 1 and set(store.objects) == {name} for store in hands.stores.values())


def test_a_worker_that_forgot_its_objects_says_so_and_gets_them_again(tmp_path):
    bench = counting(tmp_path)
    crew = Dispatcher(Hands(1, forget=True))
    assert sums(crew.run(bench, jobs(4))) == sums(Alone().run(bench, jobs(4)))
    assert set(crew.sent.values()) == {4}


def test_progress_is_told_of_every_job(tmp_path):
    told = []
    found = Dispatcher(Hands(2)).run(counting(tmp_path), jobs(3), lambda *what: told.append(what))
    assert len(list(found)) == 3
    assert sorted(told) == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_an_error_of_a_job_ends_the_run_and_the_rest_is_dropped(tmp_path):
    hands = Hands(3)
    with pytest.raises(DataError, match="job 1 is refused"):
        list(Dispatcher(hands).run(counting(tmp_path), [(0, ""), (1, "refuse"), (2, ""), (3, "")]))
    assert any(task.dropped for task in hands.tasks)


def test_without_any_worker_it_waits_and_then_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(dispatching, "_PATIENCE", 0.05)
    monkeypatch.setattr(dispatching, "_LOOK", 0.01)
    with pytest.raises(OhmfoldError, match="there has been no worker"):
        list(Dispatcher(Hands(0)).run(counting(tmp_path), jobs(1)))


@given(st.permutations(range(8)))
def test_results_in_order_are_those_of_the_places(places):
    assert list(in_order((place, str(place)) for place in places)) == [str(place) for place in range(8)]


# Packages and stores


def call(package, number=0, **changes):
    fields = {
        "package": package.sha256, "reader": package.reader, "values": package.values,
        "names": tuple(package.objects), "job": (number, ""), "threads": 1, "versions": versions(),
    }  # fmt: skip
    return Call(**{**fields, **changes})


def test_a_package_is_named_by_all_that_it_holds(tmp_path):
    one = counting(tmp_path).pack()
    assert counting(tmp_path).pack().sha256 == one.sha256
    assert counting(tmp_path, 999).pack().sha256 != one.sha256
    assert Package(read_counting, {**one.values, "folder": "x"}, one.objects).sha256 != one.sha256
    assert Package(call, one.values, one.objects).sha256 != one.sha256


def test_equal_objects_are_one():
    parts = Parts()
    assert parts.add_array(np.arange(5)) == parts.add_array(np.arange(10)[::2] // 2)
    assert parts.add(b"x") != parts.add(b"y")
    assert len(parts.objects) == 3


def test_an_object_that_changed_on_its_way_is_refused():
    store = Store()
    with pytest.raises(ExactnessError, match="are others"):
        store.keep({"0" * 64: b"tampered"})
    assert store.objects == {}


def test_nothing_in_an_object_is_unpickled():
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    array = np.empty(1, object)
    array[0] = Evil()
    for data in (pickle.dumps(Evil()), b"\x93NUMPY\x01\x00" + pickle.dumps(array), b""):
        with pytest.raises(DataError, match="no array"):
            array_from(data)


def test_a_worker_of_other_versions_refuses(tmp_path):
    store, package = Store(), counting(tmp_path).pack()
    other = {**versions(), "torch": "0.0.1"}
    with pytest.raises(OhmfoldError, match=r"has torch .*, expected 0\.0\.1.*results could differ"):
        store.answer(call(package, versions=other), package.objects)


def test_a_worker_keeps_the_objects_of_its_last_benches_and_no_more(tmp_path):
    store = Store()
    packages = [counting(tmp_path, size).pack() for size in (10, 20, 30)]
    for package in packages:
        assert isinstance(store.answer(call(package), package.objects), Done)
    assert set(store.objects) == {*packages[1].objects, *packages[2].objects}
    assert store.answer(call(packages[0]), {}) == Missing(tuple(packages[0].objects))
    assert isinstance(store.answer(call(packages[2]), {}), Done)


# What is refused


@pytest.mark.parametrize(
    ("workers", "cluster", "says"),
    [
        (0, None, "at least one"),
        (2, "local:2", "expected one of both"),
        (1, "local:0", "tcp://HOST:PORT"),
        (1, "localhost:8786", "tcp://HOST:PORT"),
        (1, "tcp://host", "tcp://HOST:PORT"),
        (1, "http://host:80", "tcp://HOST:PORT"),
        (1, "", "tcp://HOST:PORT"),
    ],
)
def test_a_crew_that_cannot_be_is_refused(workers, cluster, says):
    with pytest.raises(RecipeError, match=says):
        check_crew(workers, cluster)


def test_a_cluster_without_the_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'ohmfold\[cluster\]'"),
        hire(cluster="local:2"),
    ):
        pass


def test_one_worker_is_this_process():
    with hire() as crew:
        assert isinstance(crew, Alone)
