"""`--workers` and `--cluster`: the same documents as one process, and one line where they cannot be."""

from __future__ import annotations

import json
import sys

import pytest

CHIPS = (
    "--hardware ideal --set cell.programming.kind=relative --set cell.programming.sigma=1 --count 3 --json"
)
ATTACK = "--attack fgsm --attack uniform-noise --epsilon 20 --images 20 --batch-size 6 --json"


def document(outcome) -> dict:
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    found.pop("seconds", None)
    return found


@pytest.mark.parametrize(("command", "options"), [("chips", CHIPS), ("attack", ATTACK)])
def test_workers_print_the_document_of_one_process(command, options, call, files) -> None:
    arguments = [command, files.artifact, "--data", files.data, *options.split()]
    assert document(call(*arguments, "--workers", 2)) == document(call(*arguments))


@pytest.mark.parametrize("command", ["chips", "attack"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--workers 0", "--workers"),
        ("--workers 2 --cluster local:2", "expected one of both"),
        ("--cluster here", "tcp://HOST:PORT"),
        ("--cluster tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_what_cannot_be_is_one_line(command, options, says, call, files, tmp_path) -> None:
    more = ["--hardware", "ideal"] if command == "chips" else []
    outcome = call(
        command, files.artifact, "--data", files.data, *more, *options.split(), "--out", tmp_path / "o"
    )
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert says in outcome.err
    assert not (tmp_path / "o").exists()


def test_a_cluster_without_the_extra_says_how_to_install_it(call, files, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    outcome = call("chips", files.artifact, "--hardware", "ideal", "--cluster", "local:2")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "pip install 'ohmfold[cluster]'" in outcome.err
