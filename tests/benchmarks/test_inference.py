"""The benchmark: the network it rewrites keeps its bits, what it times is exact, and its errors are clear."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from small_models import operators, parsed
from torch import nn

import ohmfold
from ohmfold.benchmarks import inference, kernel_speed
from ohmfold.benchmarks.dense_as_qgemm import dense_as_qgemm
from ohmfold.benchmarks.executors import ARTIFACT, QGEMM, SLEEPING, onnxruntime_sessions
from ohmfold.benchmarks.machine import alternate, describe_machine
from ohmfold.kernels import isa
from ohmfold.kernels.isa.amx import TileModel
from ohmfold.kernels.packing import aligned_empty
from ohmfold.toolchain.witness import run_onnxruntime

ROOT = Path(ohmfold.__file__).resolve().parent
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)


def dense_net(middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 24), middle, nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5)
    )


def small_case(batch: int = 6) -> inference.Case:
    return inference.Case("small", lambda: dense_net(nn.ReLU()), (1, 8, 8), batch, 2.0, "anywhere")


# The rewrite


@pytest.mark.parametrize(
    ("bits", "granularity", "middle"),
    [
        (3, "tensor", nn.ReLU()),
        (8, "channel", nn.ReLU()),
        (3, "channel", nn.LeakyReLU(0.1)),
        (8, "tensor", nn.Identity()),
    ],
    ids=str,
)
def test_dense_layers_become_qgemm_with_the_same_bits(bits: int, granularity: str, middle: nn.Module) -> None:
    recipe = ohmfold.Recipe(weight_bits=bits, granularity=granularity)
    artifact = ohmfold.compile(dense_net(middle), IMAGES, recipe)
    before = operators(artifact.model)
    model, layers = dense_as_qgemm(artifact.model)
    assert layers == 3
    assert operators(model).count("QGemm") == 3
    assert "MatMulInteger" not in operators(model)
    assert operators(artifact.model) == before
    feed = {artifact.program.inputs[0].name: IMAGES}
    found = run_onnxruntime(ir.to_proto(model).SerializeToString(), feed)
    expected = run_onnxruntime(artifact.to_bytes(), feed)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_convolutions_before_and_after_stay_as_they_are() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    artifact = ohmfold.compile(net, IMAGES)
    model, layers = dense_as_qgemm(artifact.model)
    assert layers == 1
    assert operators(model) == ["QLinearConv", "Flatten", "QGemm"]


@pytest.mark.parametrize(("outputs", "layers"), [("", 1), (", int32[N, 2] acc", 0)])
def test_a_product_whose_sums_are_read_elsewhere_is_left_alone(outputs: str, layers: int) -> None:
    model = parsed(
        f"g (uint8[N, 4] x) => (float[N, 2] y{outputs})"
        "{ acc = MatMulInteger(x, w, zx, zw) \n f = Cast<to = 1>(acc) \n y = Mul(f, m) }",
        w=np.ones((4, 2), np.int8),
        zx=np.uint8(3),
        zw=np.int8(0),
        m=np.float32(0.5),
    )
    rewritten, count = dense_as_qgemm(model)
    assert count == layers
    assert operators(rewritten) == (["QGemm"] if layers else operators(model))


# Both executors


def test_a_case_is_measured_with_the_faster_of_two_models() -> None:
    row = inference.measure(small_case(), 1, isa.available()[-1], 2)
    assert (row.case, row.batch, row.threads, row.isa) == ("small", 6, 1, isa.available()[-1])
    assert set(row.onnxruntime_models_ms) == {ARTIFACT, QGEMM}
    assert row.onnxruntime_ms == min(row.onnxruntime_models_ms.values())
    assert row.onnxruntime_models_ms[row.onnxruntime_model] == row.onnxruntime_ms
    assert row.throughput_ratio == row.onnxruntime_ms / row.emulator_ms
    assert row.memory_ratio is None or row.memory_ratio >= 1


def test_with_several_threads_spinning_and_sleeping_ones_are_timed() -> None:
    row = inference.measure(small_case(), 2, None, 2)
    names = {ARTIFACT, QGEMM}
    assert set(row.onnxruntime_models_ms) == names | {f"{name}, {SLEEPING}" for name in names}


def test_threads_are_compared_for_both_executors() -> None:
    rows = inference.measure_threads(small_case(), 2, None, 2)
    assert [row.executor for row in rows] == ["emulator", "onnxruntime"]
    assert all(row.threads == 2 and row.speedup == row.one_ms / row.several_ms for row in rows)


def test_logits_that_differ_in_a_bit_are_not_timed() -> None:
    case = small_case()
    artifact, images = inference.compiled(case), inference.pixels(case, case.batch)
    logits = ohmfold.Emulator(artifact)(images)
    sessions = onnxruntime_sessions(artifact, images, logits, 1)
    assert all(np.array_equal(session(), logits) for session in sessions.values())
    logits[3, 2] = np.nextafter(logits[3, 2], np.float32(np.inf))
    with pytest.raises(SystemExit, match="not onnxruntime's"):
        onnxruntime_sessions(artifact, images, logits, 1)


def test_functions_are_called_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []

    def call(name: str) -> None:
        calls.append(name)
        time.sleep(0.002)

    found = alternate({name: partial(call, name) for name in "ab"}, 3, seconds=0)
    assert "".join(calls) == "aaaabbbb" + "ababab"
    assert found.keys() == {"a", "b"}
    assert min(found.values()) >= 2


def test_a_short_function_runs_several_times_in_its_turn() -> None:
    calls: list[str] = []
    alternate({name: partial(calls.append, name) for name in "ab"}, 3, seconds=0)
    turns = "".join(calls)[len("aaaabbbb") :]
    assert turns.startswith("aaa")
    assert turns.count("ab") == turns.count("ba") + 1 == 3


# The kernel


def test_the_loop_of_an_instruction_set_computes_what_it_is_timed_for() -> None:
    buffer = aligned_empty(kernel_speed.BUFFER_BYTES)
    rng = np.random.default_rng(1)
    buffer[:64], buffer[64:128] = rng.integers(0, 256, 64), rng.integers(0, 16, 64)
    codes, weights = buffer[:128].astype(np.int64).reshape(2, 16, 4)
    kernel_speed.vector_loop(isa.chosen().dot)(7, buffer)
    assert np.array_equal(buffer[:64].view(np.int32), 24 * 7 * (codes * weights).sum(1))


def test_the_loop_of_tiles_computes_what_it_is_timed_for() -> None:
    buffer = aligned_empty(kernel_speed.BUFFER_BYTES)
    rng = np.random.default_rng(2)
    buffer[:2048], buffer[2048:4096] = rng.integers(0, 256, 2048), rng.integers(0, 256, 2048)
    codes = buffer[:2048].astype(np.int64).reshape(2, 16, 64)
    weights = buffer[2048:4096].view(np.int8).astype(np.int64).reshape(2, 16, 16, 4)  # [tile][k / 4][n][4]
    kernel_speed.tile_loop(TileModel())(3, buffer)
    sums = buffer[:4096].view(np.int32).reshape(2, 2, 16, 16)
    for row in range(2):
        for column in range(2):
            product = codes[row] @ weights[column].transpose(0, 2, 1).reshape(64, 16)
            assert np.array_equal(sums[row, column], 3 * product)


@pytest.mark.parametrize("name", isa.available())
def test_the_kernel_is_timed_on_exact_products(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peak, rows = kernel_speed.measure_peak(name, 1), []
    for shape in ((5, 8, 16), (33, 20, 40)):
        rows.append(kernel_speed.measure_kernel(name, shape, 1, peak))
        assert (rows[-1].isa, rows[-1].rows, rows[-1].depth, rows[-1].columns) == (name, *shape)
        assert (rows[-1].share is None) == (peak is None)
    assert (peak is None) == (name in ("avx2", "portable"))
    monkeypatch.setattr(kernel_speed.ConvMaps, "__call__", lambda *arguments: None)
    with pytest.raises(SystemExit, match=f"kernel of {name} is not exact"):
        kernel_speed.measure_kernel(name, (5, 8, 16), 1, peak)


# The command


def test_it_starts_from_the_root_of_a_checkout() -> None:
    command = [sys.executable, "-m", "benchmarks.inference", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--threads", "--isa", "--repeats", "--json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "19"], "--repeats 19: a median takes at least 20"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
        (["--isa", "sse"], "invalid choice: 'sse'"),
        (["--quick"], "unrecognized arguments: --quick"),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        inference.main(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_instruction_set_is_a_line_and_no_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inference, "CASES", (small_case(),))
    monkeypatch.setattr(inference, "SHAPES", ((5, 8, 16),))
    monkeypatch.setattr(isa, "available", lambda: ("portable",))
    monkeypatch.setattr(isa, "_runs", lambda name: name == "portable")
    monkeypatch.setenv(isa.VARIABLE, "portable")
    inference.main(["--isa", "amx"])
    printed = capsys.readouterr().out
    assert "instruction set 'amx' cannot be used here" in printed
    assert "instruction set 'vnni' cannot be used here" in printed
    assert "amx was asked for; measured with portable instead" in printed
    assert "5 x 8 x 16" in printed


def test_json_tells_figures_and_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inference, "CASES", (small_case(), small_case(1)))
    monkeypatch.setattr(inference, "SHAPES", ((5, 8, 16),))
    inference.main(["--json", "--threads", "2"])
    document = json.loads(capsys.readouterr().out)
    assert document["repeats"] == 20
    assert [row["batch"] for row in document["cases"]] == [6, 1]
    assert len(document["threads"]) == 2
    assert [row["isa"] for row in document["kernels"]] == list(isa.available())
    machine = document["machine"]
    assert machine["processor"]
    assert machine["instruction_sets"] == list(isa.available())
    assert {"python", "numpy", "onnxruntime", "numba"} <= set(machine["versions"])
    assert machine["load"] >= 0
    found = describe_machine()
    assert len(found.missing) == len({"amx", "vnni"} - set(isa.available()))
