"""Real workers: the results of one process, on processes and on a Dask cluster, also where one of them is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from campaigns import plan, suite, target
from crews import SUITES, attacked, killing, processes, studied
from job_benches import counting

from ohmfold.errors import DataError, OhmfoldError, UnsupportedError
from ohmfold.toolchain.attacks.campaign import campaign_plan, run_campaign
from ohmfold.toolchain.attacks.state import FolderState
from ohmfold.toolchain.jobs import hire
from ohmfold.toolchain.jobs.threads import processors

SUPPORT = Path(__file__).parents[2] / "support"
KINDS = [
    pytest.param({"workers": 2}, id="processes"),
    pytest.param({"cluster": "local:2"}, id="cluster", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=KINDS)
def crew(request):
    """Two workers, real processes."""
    with hire(**request.param) as found:
        yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process finds."""
    return studied(tmp_path_factory.mktemp("alone")), attacked()


def test_chips_and_attacks_are_those_of_one_process(crew, alone, tmp_path):
    assert (studied(tmp_path, crew), attacked(crew)) == alone


def test_a_worker_killed_in_mid_run_changes_nothing(crew, alone, tmp_path):
    progress, killed = killing(crew)
    assert studied(tmp_path, crew, progress) == alone[0]
    assert len(killed) == 1
    progress, killed = killing(crew)
    assert attacked(crew, progress) == alone[1]
    assert len(killed) == 1


def test_a_death_costs_its_own_job_alone(crew, tmp_path):
    found = {}
    for place, result in crew.run(counting(tmp_path), [(0, "wait"), (1, "once"), (2, ""), (3, "")]):
        found[place] = result["sum"]
        if len(found) == 3:
            (tmp_path / "go").touch()
    assert found == {n: 499500 + n for n in range(4)}
    assert len(list(tmp_path.glob("pid-0-*"))) == 1  # it ran on while the other died


def test_objects_travel_once_to_each_worker_and_threads_are_shared(crew, tmp_path):
    bench = counting(tmp_path, 1234)
    (name,) = bench.pack().objects
    received = Counter()
    for _ in range(2):
        found = [result for _, result in crew.run(bench, [(n, "") for n in range(12)])]
        received.update((one["process"], one["received"]) for one in found)
    # What a worker has received stays the same from its first job of this bench to its last.
    assert len(received) == len({process for process, _ in received}) <= 2
    assert [times for (_, what), times in crew.sent.items() if what == name] == [1] * len(received)
    share = max(1, processors() // 2)
    assert {one["threads"] for one in found} == {share}
    assert {tuple(one["variables"]) for one in found} == {(str(share), str(share))}


def test_a_job_that_always_ends_its_worker_is_named(crew, tmp_path):
    with pytest.raises(OhmfoldError, match=r"^job 7: each of 3 workers that ran it ended before it did"):
        list(crew.run(counting(tmp_path), [(7, "always")]))


def test_an_error_in_a_job_is_the_same_error_here_and_workers_go_on(crew, tmp_path):
    with pytest.raises(DataError, match=r"^job 1 is refused$"):
        list(crew.run(counting(tmp_path), [(0, ""), (1, "refuse"), (2, "")]))
    assert [result["sum"] for _, result in crew.run(counting(tmp_path), [(0, "")])] == [499500]


def test_an_unfinished_campaign_of_one_process_is_finished_by_workers(crew, alone, tmp_path):
    goal = target(wrong=(2,), batch=9)
    todo = plan(goal, *SUITES, ladder=(30,))

    class Stopped(Exception):  # noqa: N818 - nothing is wrong
        pass

    def stop(_key, share):
        if share > 0.5:
            raise Stopped

    with pytest.raises(Stopped):
        run_campaign(goal, todo, state=FolderState(tmp_path, campaign_plan(goal, todo)), progress=stop)
    kept = len(list(tmp_path.rglob("*.npz")))
    assert kept > 3
    assert attacked(crew, state=FolderState(tmp_path, campaign_plan(goal, todo))) == alone[1]


# Processes


def test_a_model_in_memory_does_not_travel(tmp_path):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 5))
    goal = target(substitutes={"mine": module})
    own = suite({"attack": "fgsm", "source": "substitute"})
    with hire(2) as crew, pytest.raises(UnsupportedError, match="found a Sequential in memory"):
        run_campaign(goal, plan(goal, own), crew=crew)


CHILD = """
import sys
sys.path.insert(0, {support!r})
from pathlib import Path
from job_benches import counting
from ohmfold.toolchain.jobs import hire
with hire(2) as crew:
    list(crew.run(counting(Path(sys.argv[1])), [(0, "wait"), (1, "wait")]))
"""


@pytest.mark.slow
def test_processes_end_in_mid_job_when_their_parent_is_killed(tmp_path):
    code = CHILD.format(support=str(SUPPORT))
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    _until(lambda: len(list(tmp_path.glob("pid-*"))) == 2, child)
    workers = [int(path.name.split("-")[2]) for path in tmp_path.glob("pid-*")]
    child.send_signal(signal.SIGKILL)
    child.wait()
    _until(lambda: not any(_runs(worker) for worker in workers))
    assert child.stderr.read() == b""


def test_no_process_is_left_when_a_run_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt), hire(2) as crew:  # noqa: PT012 - the context ends them
        for _ in crew.run(counting(tmp_path), [(0, ""), (1, "wait"), (2, "")]):
            pids = processes(crew)
            raise KeyboardInterrupt
    assert pids
    _until(lambda: not any(_runs(pid) for pid in pids))


# Clusters


@pytest.mark.slow
def test_a_cluster_that_is_there_is_used_and_left_running(alone, tmp_path):
    with hire(cluster="local:2") as started:
        address = started.hands.client.scheduler.address
        with hire(cluster=address) as crew:
            assert studied(tmp_path, crew) == alone[0]
        assert len(processes(started)) == 2


def test_a_cluster_that_does_not_answer_is_one_line_within_seconds():
    began = time.monotonic()
    with (
        pytest.raises(OhmfoldError, match=r"^no Dask scheduler answers at tcp://127\.0\.0\.1:9 .*$"),
        hire(cluster="tcp://127.0.0.1:9"),
    ):
        pass
    assert time.monotonic() - began < 20  # 5 on an idle machine


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(holds, process=None, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
