"""A training that is killed from outside, and one of several processes: real signals, real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import ohmfold

_ROOT = Path(ohmfold.__file__).resolve().parent
_SUPPORT = _ROOT / "tests" / "support"

_SCRIPT = """
import sys, time
import torch
from pathlib import Path
from training_toys import toy_chain, toy_data
from ohmfold.models.parallel import joined_processes
from ohmfold.models.recipe import TrainingRecipe
from ohmfold.models.recipes import method_of
from ohmfold.models.training import train

torch.set_num_threads(1)
folder, name, pause = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
epochs, batch = 3, 24
recipe = TrainingRecipe(epochs=epochs, batch_size=batch, learning_rate=0.01, shift=1, flip=True, seed=5)
settings = {"hardened": ["steps=2", "step=0.2"]}.get(name, [])

def show(now):
    (folder / "at").write_text(f"{now.epoch} {now.batch}")
    if (now.epoch, now.batch) == (2, 3):
        time.sleep(pause)

with joined_processes() as processes:
    result = train(
        toy_chain(), toy_data(100), recipe, method=method_of(name, settings), test=toy_data(40, 1),
        checkpoint=folder / "run.pt", curves=folder / "curves.csv",
        progress=show if processes.first else None, processes=processes,
    )
    torch.save([result.sha256, [r.loss for r in result.history], result.module.state_dict()],
               folder / f"done-{processes.rank}.pt")
"""


def _environment() -> dict[str, str]:
    paths = [str(_SUPPORT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


def _arguments(folder: Path, name: str, pause: float = 0.0) -> list[str]:
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(_SCRIPT)
    return [str(script), str(folder), name, str(pause)]


def _run(arguments: list[str], *launcher: str) -> None:
    subprocess.run(
        [sys.executable, *launcher, *arguments],
        env=_environment(),
        check=True,
        capture_output=True,
        timeout=240,
    )


def _result(folder: Path, rank: int = 0) -> list:
    return torch.load(folder / f"done-{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["standard", "hardened"])
def test_killed_in_mid_epoch_and_resumed_is_the_same_as_never_killed(tmp_path: Path, name: str) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _run(_arguments(whole, name))
    child = subprocess.Popen([sys.executable, *_arguments(killed, name, pause=600.0)], env=_environment())
    try:
        deadline = time.monotonic() + 240
        while not ((killed / "at").exists() and (killed / "at").read_text() == "2 3"):
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    assert not (killed / "done-0.pt").exists()
    _run(_arguments(killed, name))
    assert _result(killed)[:2] == _result(whole)[:2]
    lines = [(folder / "curves.csv").read_text().splitlines() for folder in (whole, killed)]
    assert len(lines[0]) == len(lines[1]) == 4
    assert lines[0][0] == "stage,epoch,loss,accuracy,seconds"


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    _run(_arguments(one, "standard"))
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0")
    _run(_arguments(two, "standard"), *launcher, "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
    alone, first, second = _result(one), _result(two), _result(two, rank=1)
    assert first[0] == second[0]
    # The gradients are added up in another order, so the last bits differ.
    assert first[1] == pytest.approx(alone[1], rel=1e-3)
    for key, tensor in alone[2].items():
        torch.testing.assert_close(first[2][key], tensor, rtol=1e-2, atol=1e-3)
