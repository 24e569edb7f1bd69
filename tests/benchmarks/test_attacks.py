"""The benchmark of attacks: what it times is exact, its figures are ratios, its errors are clear."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ohmfold
from ohmfold.benchmarks import attacks
from ohmfold.benchmarks.inference import Case
from ohmfold.toolchain.witness import LEVELS

ROOT = Path(ohmfold.__file__).resolve().parent


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5))


CASE = Case("small", network, (1, 8, 8), 6, 1.0, "anywhere")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacks, "GRADIENT_CASES", (CASE,))
    monkeypatch.setattr(attacks, "QUERY_CASES", (CASE,))
    monkeypatch.setattr(attacks, "STEPS", 3)
    monkeypatch.setattr(attacks, "BUDGET", 5)


def test_pgd_is_timed_through_the_twin_and_the_float_model() -> None:
    row = attacks.measure_gradients(CASE, 1, 2)
    assert row.ratio == row.twin_ms / row.float_ms
    assert row.harness_ratio == row.harness_twin_ms / row.harness_float_ms
    assert (row.steps, row.batch) == (3, 6)


def test_a_twin_of_other_bits_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = ohmfold.Twin.forward
    monkeypatch.setattr(ohmfold.Twin, "forward", lambda twin, pixels: exact(twin, pixels) + 1e-3)
    with pytest.raises(SystemExit, match="not the emulator's"):
        attacks.measure_gradients(CASE, 1, 1)


def test_queries_are_counted_and_their_answers_timed() -> None:
    row = attacks.measure_queries(CASE, 1, 2)
    assert row.level in LEVELS
    assert 6 <= row.queries <= 6 * 5
    assert row.ratio == row.emulator / row.onnxruntime
    assert row.attack_ratio == row.attack_emulator / row.attack_onnxruntime
    assert row.attack_emulator <= row.emulator  # the attack takes longer than its answers


def test_answers_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = attacks.OnnxRuntime.run

    def other(session, inputs):
        return {name: np.roll(value, 1, axis=1) for name, value in exact(session, inputs).items()}

    monkeypatch.setattr(attacks.OnnxRuntime, "run", other)
    with pytest.raises(SystemExit, match="other images"):
        attacks.measure_queries(CASE, 1, 1)


def test_functions_run_in_turn_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    found = attacks.in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert "".join(calls) == "abababab"
    assert found.keys() == {"a", "b"}


def test_tables_and_json_tell_the_same_figures(capsys: pytest.CaptureFixture[str]) -> None:
    attacks.main(["--repeats", "5"])
    printed = capsys.readouterr().out
    assert "twin / float" in printed
    assert "answers a second" in printed
    attacks.main(["--repeats", "5", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["gradients"][0]["limit"] == document["queries"][0]["required"] == 1.5
    assert document["repeats"] == 5
    assert document["machine"]["processor"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "4"], "a median takes at least 5"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        attacks.main(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_it_starts_from_the_root_of_a_checkout() -> None:
    command = [sys.executable, "-m", "benchmarks.attacks", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--threads", "--repeats", "--json"))
