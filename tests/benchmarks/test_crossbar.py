"""The crossbar's benchmark: both sides read the same bits, what is asked for is checked, figures are shown."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ohmfold
from ohmfold.benchmarks import (
    crossbar,
    crossbar_cases,
    crossbar_chip,
    crossbar_limit,
    inference,
    kernel_speed,
)
from ohmfold.benchmarks.crossbar_cases import FRACTION_BITS, Size, cases, clipping_weights, codes
from ohmfold.benchmarks.crossbar_chip import program_tiles
from ohmfold.benchmarks.crossbar_numpy import NumpyCrossbar, noisy_sums, one_blas_thread
from ohmfold.benchmarks.machine import alternate
from ohmfold.kernels import isa
from ohmfold.kernels.crossbar import ReadPlane
from ohmfold.models.datasets import resolve_dataset

ROOT = Path(ohmfold.__file__).resolve().parent
# Tiles of three heights and two widths, among them ones that are cut short.
SIZE = Size(rows=6, depth=40, columns=20, tile_rows=16, tile_columns=8, wired=10)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Converters so narrow that tiny tiles clip; timings of a moment; a net of one layer."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    monkeypatch.setattr(crossbar_cases, "LOW", -16)
    monkeypatch.setattr(crossbar_cases, "HIGH", 15)
    monkeypatch.setattr(crossbar, "SIZE", SIZE)
    for module in (crossbar, crossbar_limit, kernel_speed):
        monkeypatch.setattr(module, "alternate", partial(alternate, seconds=0))
    monkeypatch.setattr(
        crossbar_chip, "CASES", (inference.Case("one layer", lambda: net, (1, 28, 28), 4, 1.0, "anywhere"),)
    )


def all_cases(size: Size = SIZE) -> dict[str, crossbar_cases.Case]:
    wired = clipping_weights(size.depth, size.wired) * (1 << FRACTION_BITS) - 3
    return {case.name: case for case in cases(size, wired)}


def slow_sums(x: np.ndarray, planes: list[ReadPlane], tile_rows: int, fraction_bits: int) -> np.ndarray:
    """Column by column, in Python's integers; halves of a code to even, as Python rounds."""
    sums = np.zeros((len(x), planes[0].cells.shape[1]), np.int64)
    for row, column in np.ndindex(*sums.shape):
        for start in range(0, x.shape[1], tile_rows):
            for plane in planes:
                for digit in range(8):
                    cells = plane.cells[start : start + tile_rows, column].tolist()
                    bits = [(int(code) >> digit) & 1 for code in x[row, start : start + tile_rows]]
                    p = sum(bit * cell for bit, cell in zip(bits, cells, strict=True))
                    code = min(max(round(p / 2**fraction_bits), plane.low), plane.high)
                    sums[row, column] += code << (plane.shift + digit)
    return sums


# NumPy's side


@pytest.mark.parametrize("fraction_bits", [0, 1, 8])
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize("tile_columns", [20, 7])
def test_the_simulation_reads_what_plain_integers_do(
    fraction_bits: int, planes: int, tile_columns: int
) -> None:
    rng = np.random.default_rng(planes)
    unit = 1 << fraction_bits
    x = rng.integers(0, 256, (5, 37)).astype(np.uint8)
    read = [
        ReadPlane(rng.integers(-3 * unit, 4 * unit, (37, 20)).astype(np.int32), 2 * index, -9, 6, unit)
        for index in range(planes)
    ]
    simulated = NumpyCrossbar(x, read, tile_rows=16, tile_columns=tile_columns, fraction_bits=fraction_bits)
    expected = slow_sums(x, read, 16, fraction_bits)
    assert np.array_equal(simulated.sums(), expected)
    simulated.products_alone()
    assert np.array_equal(simulated.sums(), expected), "a second call reads the same"
    assert 0.05 < simulated.clipped_share() < 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 2}, "have steps of one level"),
        ({"cells": np.full((16, 4), 2**21, np.int32)}, "can pass 2\\^24"),
        ({"high": 2**16}, "can pass 2\\^24"),
    ],
)
def test_what_float32_cannot_simulate_is_refused(changes: dict[str, object], message: str) -> None:
    plane = replace(ReadPlane(np.ones((16, 4), np.int32), 0, -8, 7, 1), **changes)
    with pytest.raises(ValueError, match=message):
        NumpyCrossbar(np.zeros((2, 16), np.uint8), [plane], tile_rows=8, tile_columns=4)


def test_without_noise_the_noisy_sums_are_the_simulations() -> None:
    case = all_cases()["wire resistance"]
    x, noise = codes(SIZE), crossbar_cases.noise_keys(SIZE)
    expected = NumpyCrossbar(
        x, [case.plane], tile_rows=16, tile_columns=8, fraction_bits=FRACTION_BITS
    ).sums()
    quiet = noisy_sums(x, [case.plane], noise, tile_rows=16, fraction_bits=FRACTION_BITS)
    assert np.array_equal(quiet, expected)
    noisy = replace(case.plane, variance=np.full(case.plane.cells.shape, 999, np.int32))
    assert not np.array_equal(
        noisy_sums(x, [noisy], noise, tile_rows=16, fraction_bits=FRACTION_BITS), expected
    )


def test_blas_has_one_thread_and_a_name() -> None:
    with one_blas_thread() as blas:
        assert blas.threads == 1
        assert blas.library
        assert blas.kernel


def test_without_threadpoolctl_the_environment_must_limit_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match=r"install threadpoolctl, or start Python .* OPENBLAS_NUM_THREADS"):
        one_blas_thread().__enter__()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    with one_blas_thread() as blas:
        assert blas.variables["OPENBLAS_NUM_THREADS"] == "1"


# Both sides


@pytest.mark.parametrize("name", ["128-row tiles, clipping", "128 x 128 tiles, clipping", "nothing can clip"])
def test_a_case_is_timed_beside_numpy(name: str) -> None:
    rows = crossbar.measure(all_cases()[name], SIZE, isa.available(), 2)
    assert [row.isa for row in rows] == list(isa.available())
    for row in rows:
        assert (row.case, row.compared_with) == (name, "NumPy")
        assert row.ratio == row.numpy_ms / row.ours_ms
        assert row.path in ("bits counted", "digits multiplied", "exact product")
        assert row.required == all_cases()[name].least.get(row.isa)
        assert row.within == (None if row.required is None else row.ratio >= row.required)


@pytest.mark.parametrize("name", ["read noise", "wire resistance"])
def test_a_case_is_timed_beside_itself_without_noise_or_wires(name: str) -> None:
    rows = crossbar.measure(all_cases()[name], SIZE, isa.available(), 2)
    for row in rows:
        assert (row.path, row.compared_with) == ("general", "noiseless")
        assert (row.numpy_ms is None) == (name == "read noise")
        assert row.within == (row.ratio <= row.required)


def test_cases_clip_where_they_say_so() -> None:
    whole = Size()
    clipping = ReadPlane(clipping_weights(whole.depth, 64), 0, -128, 127, 1)
    simulated = NumpyCrossbar(codes(replace(whole, rows=4)), [clipping], tile_rows=128, tile_columns=64)
    assert 0.05 < simulated.clipped_share() < 0.5
    sparse = crossbar_cases.sparse_weights(whole.depth, whole.columns).reshape(8, 128, -1)
    assert np.maximum(sparse, 0).sum(axis=1).max() <= 127
    assert np.minimum(sparse, 0).sum(axis=1).min() >= -128


def test_sums_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossbar, "alternate", lambda runs, repeats: pytest.fail("timed"))
    real = crossbar.expected_sums

    def wrong(*arguments: object) -> np.ndarray:
        sums = real(*arguments)
        sums[2, 3] += 1
        return sums

    monkeypatch.setattr(crossbar, "expected_sums", wrong)
    for name, case in all_cases().items():
        with pytest.raises(SystemExit, match=f"{name}, .*: 1 of 120 sums are not NumPy's"):
            crossbar.measure(case, SIZE, isa.available()[:1], 2)


def test_the_exact_product_and_the_peak_bound_what_cannot_clip() -> None:
    limits = crossbar_limit.measure_limits(all_cases()["nothing can clip"], SIZE, isa.available(), 2)
    assert [limit.isa for limit in limits] == list(isa.available())
    for limit in limits:
        assert min(limit.crossbar_ms, limit.exact_ms, limit.numpy_ms) > 0
        assert (limit.instruction is None) == (limit.isa in ("avx2", "portable"))
        if limit.instruction is not None:
            assert limit.least_ms == pytest.approx(6 * 40 * 20 / limit.peak_gmacs / 1e6)
            assert limit.most_ratio == limit.numpy_ms / limit.least_ms


def test_an_exact_product_with_other_sums_is_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossbar_limit, "alternate", lambda runs, repeats: pytest.fail("timed"))
    case = all_cases()["128-row tiles, clipping"]
    with pytest.raises(SystemExit, match="not those of a dense layer"):
        crossbar_limit.measure_limits(case, SIZE, isa.available()[:1], 2)
    with pytest.raises(ValueError, match="has no simulation"):
        crossbar_limit.measure_limits(all_cases()["read noise"], SIZE, isa.available()[:1], 2)


def test_memory_counts_the_output_and_all_else() -> None:
    memory = crossbar.measure_memory(all_cases()["read noise"], SIZE, isa.available()[0])
    assert memory.output_bytes == 4 * SIZE.rows * SIZE.columns
    assert memory.peak_bytes > memory.output_bytes
    assert memory.ratio == memory.peak_bytes / memory.output_bytes


# The chip


def test_programmed_tiles_conduct_a_little_less_than_their_weights() -> None:
    weight = clipping_weights(24, 10)
    cells, programming = program_tiles(weight, 8, rows=16, columns=8, threads=2, limit=9.0)
    assert (programming.tiles, programming.rows, programming.columns) == (4, 16, 16)
    assert programming.seconds > 0
    assert not np.array_equal(cells, weight * 256)
    assert np.abs(cells - weight * 256).max() < 8


def test_images_are_repeated_where_there_are_too_few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(crossbar_chip, "DATA", str(tmp_path / "nothing"))
    images, labels, name = crossbar_chip.images_and_labels(5_002)
    sample = resolve_dataset("mnist-sample")
    assert name == "mnist-sample, whose 5,000 are repeated"
    assert np.array_equal(images[5_000:], sample.images[:2])
    assert np.array_equal(labels[:5_000], sample.labels)
    assert crossbar_chip.images_and_labels(9)[2] == "mnist-sample"


# The command


def test_it_starts_from_the_root_of_a_checkout() -> None:
    command = [sys.executable, "-m", "benchmarks.crossbar", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(option in done.stdout for option in ("--isa", "--repeats", "--images", "--threads", "--json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "8"], "--repeats 8: expected at least 9"),
        (["--images", "0"], "--images 0: expected at least 1"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
        (["--isa", "sse"], "invalid choice: 'sse'"),
    ],
)
def test_wrong_options_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        crossbar.main(arguments)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_missing_instruction_set_is_a_line_and_no_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(isa, "available", lambda: ("portable",))
    monkeypatch.setattr(isa, "_runs", lambda name: name == "portable")
    monkeypatch.setenv(isa.VARIABLE, "portable")
    crossbar.main(["--isa", "amx", "--images", "40"])
    printed = capsys.readouterr().out
    assert "instruction set 'amx' cannot be used here" in printed
    assert "amx was asked for; measured with portable" in printed
    assert "NumPy's BLAS: " in printed
    assert "6 x 40 x 20, 3-bit weights" in printed
    for words in (
        *all_cases(),
        "exact product ms",
        "at most x 10",
        "peak memory",
        "programming 6 tiles",
        "reram-128",
    ):
        assert words in printed


def test_json_tells_figures_and_machine(capsys: pytest.CaptureFixture[str]) -> None:
    crossbar.main(["--json", "--images", "40", "--isa", isa.available()[0]])
    document = json.loads(capsys.readouterr().out)
    assert document["machine"]["instruction_sets"] == list(isa.available())
    assert document["blas"]["threads"] == 1
    assert document["repeats"] == 9
    assert [row["case"] for row in document["rows"]] == list(all_cases())
    assert document["size"]["depth"] == 40
    assert [limit["isa"] for limit in document["exact"]] == [isa.available()[0]]
    assert 0 < document["clipped_share"] < 1
    assert document["programming"]["tiles"] == 6
    assert document["memory"]["limit"] == 8
    assert [row["images"] for row in document["net"]] == [40, 40]
