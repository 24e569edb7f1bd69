"""The roofline: what is timed is what it says, work is counted by hand's arithmetic, shares add up to the whole."""

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
from ohmfold.benchmarks import inference, kernel_speed, memory_speed, roofline
from ohmfold.benchmarks.memory_speed import BLOCK_BYTES, Level, measure_level
from ohmfold.benchmarks.roofline import BETWEEN, DEPTHWISE, PRODUCT, Ceiling, Limits
from ohmfold.benchmarks.step_work import StepWork, work_of
from ohmfold.errors import OhmfoldError
from ohmfold.kernels import isa
from ohmfold.kernels.packing import aligned_empty

ROOT = Path(ohmfold.__file__).resolve().parent
SLOW = Limits((Ceiling(PRODUCT, "hand", 100.0), Ceiling(DEPTHWISE, "hand", 10.0)), (Level("L1", 1000, 2.0),))


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 20), nn.ReLU(), nn.Linear(20, 5),
    )  # fmt: skip


def case(batch: int = 6) -> inference.Case:
    return inference.Case("small", net, (2, 8, 8), batch, 2.0, "anywhere")


# The limits


def test_the_reading_loop_reads_every_byte_as_often_as_it_is_told() -> None:
    buffer = aligned_empty(5 * BLOCK_BYTES)
    buffer[:] = np.random.default_rng(0).integers(0, 256, buffer.size)
    vectors = buffer.view(np.int32).reshape(-1, 16).astype(np.int64)
    memory_speed.read(buffer, 5, 3)
    assert np.array_equal(buffer[:64].view(np.int32), (3 * vectors.sum(axis=0)).astype(np.int32))


def test_a_level_is_timed_and_caches_are_named() -> None:
    level = measure_level("L1", 4 * BLOCK_BYTES, 1)
    assert (level.name, level.buffer_bytes) == ("L1", 4 * BLOCK_BYTES)
    assert 0.1 < level.gbs < 10_000
    assert all(size % BLOCK_BYTES == 0 for size in memory_speed.BUFFERS.values())
    assert all(name.startswith("L") for name in memory_speed.cache_sizes())


def test_the_loop_of_depthwise_products_multiplies_words() -> None:
    buffer = aligned_empty(kernel_speed.BUFFER_BYTES)
    x, w = np.random.default_rng(1).integers(-9, 10, (2, 32)).astype(np.int16)
    buffer[:64], buffer[64:128] = x.view(np.uint8), w.view(np.uint8)
    kernel_speed.vector_loop(roofline.multiply_words)(2, buffer)
    # 24 sums of ((0 * w + x) * w + x), which are added up as int32.
    words = (x * w + x).astype(np.int16).view(np.int32).astype(np.int64)
    assert np.array_equal(buffer[:64].view(np.int32), (24 * words).astype(np.int32))


def test_a_set_without_one_instruction_has_the_kernel_as_its_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "BUFFERS", {"L1": BLOCK_BYTES})
    monkeypatch.setattr(roofline, "SHAPES", ((5, 8, 16), (8, 8, 16)))
    for name in isa.available():
        limits = roofline.measure_limits(name, 1)
        assert [ceiling.kind for ceiling in limits.ceilings] == [PRODUCT, DEPTHWISE]
        assert all(ceiling.gmacs > 0 for ceiling in limits.ceilings)
        by_kernel = limits.ceilings[0].measured_by == "the matrix kernel at its best"
        assert by_kernel == (name in ("avx2", "portable"))


def test_a_step_is_limited_by_its_peak_or_by_the_smallest_buffer_that_holds_it() -> None:
    levels = (Level("L1", 100, 50.0), Level("L2", 1000, 5.0), Level("memory", 5000, 1.0))
    limits = Limits(SLOW.ceilings, levels)
    assert limits.attainable(PRODUCT, StepWork(1000, 100, 100)) == ("L1", 100.0)
    assert limits.attainable(DEPTHWISE, StepWork(1000, 100, 100)) == ("L1", 10.0)
    assert limits.attainable(PRODUCT, StepWork(1000, 100, 101)) == ("L2", 50.0)
    assert limits.attainable(PRODUCT, StepWork(1000, 100, 10**6)) == ("memory", 10.0)


# The work


@pytest.mark.parametrize("batch", [1, 6])
def test_products_and_bytes_are_those_of_the_layers(batch: int) -> None:
    program = inference.compiled(case()).program
    work = work_of(program, isa.chosen(), batch)
    conv, depthwise, first, last = (layer.name for layer in program.weighted_layers())
    codes, taps = batch * 2 * 8 * 8, 8 * 2 * 3 * 3
    assert work[conv, "layout"] == StepWork(0, codes, codes)
    assert work[conv, PRODUCT] == StepWork(batch * 64 * taps, taps + codes, taps + codes)
    middle = 72 + batch * 8 * 16
    assert work[depthwise, DEPTHWISE] == StepWork(batch * 16 * 72, middle, middle)
    # Weights of 3 bits lie in nibbles where one row is multiplied.
    weights, more = (128 * 20, 20 * 5) if batch > 1 else (128 * 10, 10 * 5)
    assert work[first, PRODUCT].bytes_read == weights + batch * 128
    assert work[last, PRODUCT] == StepWork(batch * 100, more + batch * 20, more + batch * 20)
    assert len(work) == 5


def test_chunks_read_the_weights_of_convolutions_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ohmfold.toolchain.planning.plan.CHUNK_SAMPLES", 4)
    program = inference.compiled(case()).program
    work = work_of(program, isa.chosen(), 10)
    conv, *_, last = (layer.name for layer in program.weighted_layers())
    assert work[conv, PRODUCT] == StepWork(10 * 64 * 144, 3 * 144 + 10 * 128, 144 + 4 * 128)
    assert work[last, PRODUCT].bytes_read == 100 + 10 * 20


def test_more_than_a_piece_is_refused() -> None:
    with pytest.raises(OhmfoldError, match="batch of 513"):
        work_of(inference.compiled(case()).program, isa.chosen(), 513)


# The networks


def test_every_step_is_timed_and_shares_add_up() -> None:
    name = isa.available()[-1]
    found = roofline.measure_net(case(), name, SLOW, 2)
    assert (found.case, found.batch, found.isa) == ("small", 6, name)
    assert {step.kind for step in found.steps} >= {PRODUCT, DEPTHWISE, "layout"}
    assert sum(row.share for row in found.kinds) == pytest.approx(1)
    assert {row.kind for row in found.kinds} == {step.kind for step in found.steps} | {BETWEEN}
    assert [row.ms for row in found.kinds] == sorted((row.ms for row in found.kinds), reverse=True)
    for step in found.steps:
        assert step.ms > 0
        if step.products:
            assert step.measured == pytest.approx(step.products / step.ms / 1e6)
            assert step.intensity == step.products / step.bytes_read
            assert step.attainable <= (100.0 if step.kind == PRODUCT else 10.0)
        else:
            assert step.attainable is step.measured is step.intensity is None


def test_the_verdict_names_what_takes_more_than_a_quarter() -> None:
    def of(*shares: tuple[str, float]) -> roofline.Net:
        kinds = tuple(roofline.KindRow(kind, 1.0, share, None) for kind, share in shares)
        return roofline.Net("small", 6, "vnni", 1.0, (), kinds)

    fine = of((PRODUCT, 0.5), (DEPTHWISE, 0.3), ("padding", 0.2))
    assert roofline.verdict([fine]).startswith("No kind of step but")
    said = roofline.verdict([fine, of((PRODUCT, 0.7), ("padding", 0.26))])
    assert said.endswith("goes to: padding 26 % of small, batch 6.")


# The command


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "CASES", (case(), case(1)))
    monkeypatch.setattr(roofline, "BUFFERS", {"L1": 8 * BLOCK_BYTES})


@pytest.mark.usefixtures("short")
def test_it_prints_tables(capsys: pytest.CaptureFixture[str]) -> None:
    roofline.main([])
    printed = capsys.readouterr().out
    assert "What one core reads" in printed
    assert "4 KiB" in printed
    assert "small, batch 1, by kind" in printed
    assert "a quarter of" in printed.splitlines()[-1]


@pytest.mark.usefixtures("short")
def test_it_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    roofline.main(["--json", "--isa", "portable"])
    document = json.loads(capsys.readouterr().out)
    assert document["isa"] == "portable"
    assert document["repeats"] == 20
    assert document["machine"]["processor"]
    assert [net["batch"] for net in document["nets"]] == [6, 1]
    assert document["limits"]["levels"][0]["buffer_bytes"] == 4096
    assert "a quarter of" in document["verdict"]


def test_wrong_options_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        roofline.main(["--repeats", "19"])
    assert refused.value.code == 2
    assert "a median takes at least 20" in capsys.readouterr().err


def test_it_starts_from_the_root_of_a_checkout() -> None:
    command = [sys.executable, "-m", "benchmarks.roofline", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--isa", "--repeats", "--json"))
