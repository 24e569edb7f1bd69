"""`ohmfold run --hardware`: a chip beside the exact integers, its seed and its whole profile in what is printed."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

import ohmfold
from ohmfold.toolchain.cli import on_chip
from ohmfold.toolchain.crossbar.clipping import count_clipped
from ohmfold.toolchain.hardware import Hardware, load_hardware
from ohmfold.toolchain.judged import calibration_set

from .conftest import write_images

NOISY = [
    "--hardware",
    "reram-128",
    "--set",
    "adc.range=fixed",
    "--set",
    "adc.low=-20",
    "--set",
    "adc.high=20",
]
CALIBRATED = ["--hardware", "reram-128", "--set", "adc.bits=5"]


def run(call, files, *arguments, data=None):
    outcome = call("run", files.artifact, "--data", data or files.data, *arguments, "--json")
    assert (outcome.code, outcome.err) == (0, ""), outcome
    return json.loads(outcome.out)


def judged(files):
    with np.load(files.data) as archive:
        kept = np.sort(np.random.default_rng(0).permutation(80)[30:])
        return archive["images"][kept], archive["labels"][kept]


def test_a_flawless_chip_gives_the_exact_integers_and_every_read_is_certified(call, files, tmp_path) -> None:
    found = run(call, files, "--hardware", "ideal", "--out", tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as saved:
        assert np.array_equal(saved["crossbar"], saved["emulator"])
    assert found["witnesses"]["crossbar"]["correct"] == found["witnesses"]["emulator"]["correct"]
    assert found["hardware"]["certified_reads"] == 1.0
    assert [layer["name"] for layer in found["hardware"]["layers"]] == ["conv", "fc"]
    # 9 rows of 4 pairs on one tile; 4 * 8 * 8 rows take two.
    assert [layer["tiles"] for layer in found["hardware"]["layers"]] == [1, 2]
    assert [layer["utilisation"] for layer in found["hardware"]["layers"]] == [
        9 * 8 / 128**2,
        256 * 6 / (2 * 128**2),
    ]
    assert (found["hardware"]["tiles"], found["hardware"]["seed"]) == (3, 0)


@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_a_chip_is_the_emulators_of_its_seed(seed: int, call, files, tmp_path) -> None:
    found = run(call, files, *NOISY, "--seed", seed, "--batch-size", 9, "--out", tmp_path / "p.npz")
    images, labels = judged(files)
    profile = Hardware.from_toml(found["hardware"]["toml"])
    assert profile == load_hardware("reram-128").with_changes(
        {"adc.range": "fixed", "adc.low": -20, "adc.high": 20}
    )
    expected = ohmfold.Emulator(files.artifact, hardware=profile, seed=seed).predict(images)
    with np.load(tmp_path / "p.npz") as saved:
        assert np.array_equal(saved["crossbar"], expected)
        assert np.array_equal(saved["emulator"], ohmfold.Emulator(files.artifact).predict(images))
    assert found["witnesses"]["crossbar"]["correct"] == int((expected == labels).sum())
    assert found["witnesses"]["crossbar"]["images_per_second"] > 0
    assert found["hardware"]["seed"] == seed
    assert found["hardware"]["sha256"] == hashlib.sha256(found["hardware"]["toml"].encode()).hexdigest()
    step = profile.adc_limits(1).step * profile.unit
    assert found["hardware"]["layers"][0]["converters"]["step"] == step


def test_a_profile_may_be_a_file(call, files, tmp_path) -> None:
    assert call("hardware", "new", tmp_path / "own.toml", "--from", "isaac").code == 0
    found = run(call, files, "--hardware", tmp_path / "own.toml")
    assert found["hardware"]["name"] == "own"


def test_converters_are_calibrated_on_the_images_that_calibrated_the_artifact(call, files, tmp_path) -> None:
    found = run(call, files, *CALIBRATED, "--seed", 3, "--out", tmp_path / "p.npz")
    assert (found["images"], found["left_out"], found["hardware"]["calibration_images"]) == (50, 30, 30)
    images, _ = judged(files)
    seen = calibration_set(files.data, 30).images
    profile = load_hardware("reram-128").with_changes({"adc.bits": 5})
    chip = ohmfold.Emulator(files.artifact, hardware=profile, seed=3, calibration=seen)
    with np.load(tmp_path / "p.npz") as saved:
        assert np.array_equal(saved["crossbar"], chip.predict(images))


def test_images_of_another_set_that_calibrate_converters_judge_nothing(call, files, tmp_path) -> None:
    other = write_images(tmp_path / "other.npz", 41)
    found = run(call, files, *CALIBRATED, data=other)
    assert (found["images"], found["left_out"]) == (21, 20)
    assert run(call, files, *NOISY, data=other)["images"] == 41


def test_the_table_shows_both_rows_tiles_and_one_figure_of_the_certificate(call, files) -> None:
    outcome = call("run", files.artifact, "--data", files.data, "--hardware", "isaac", "--seed", 5)
    assert outcome.code == 0
    lines = [line.split() for line in outcome.out.splitlines() if line.strip()]
    (emulator,) = [line for line in lines if line[0] == "emulator"]
    (crossbar,) = [line for line in lines if line[0] == "crossbar"]
    assert "%" not in emulator[-1]
    assert crossbar[-1] == "%"
    assert "reads that cannot clip" in outcome.out
    assert "Chip 5 of isaac" in outcome.out
    assert {line[0] for line in lines} >= {"conv", "fc", "all"}
    words = " ".join(outcome.out.split())
    assert all(part in words for part in ("clipped", "fixed-point error", "counted on the first 16 images."))


def test_clipped_reads_and_the_error_of_fixed_point_are_told_for_each_layer(call, files) -> None:
    found = run(call, files, *NOISY, "--seed", 4)["hardware"]
    images, _ = judged(files)
    profile = Hardware.from_toml(found["toml"])
    chip = ohmfold.Emulator(files.artifact, hardware=profile, seed=4)
    assert found["clipping_images"] == 16
    counts = count_clipped(chip, images[:16])
    for layer in found["layers"]:
        expected = counts[layer["name"]]
        assert layer["clipped"] == {"reads": expected.reads, "low": expected.low, "high": expected.high}
        assert layer["clipped_reads"] == expected.share
        assert layer["clipped"]["reads"] == 16 * layer["reads_per_image"]
        assert layer["fixed_point_error"] == chip.crossbar.programmed[layer["name"]].fixed_point_error
        assert 0 < layer["fixed_point_error"] <= profile.unit / 2
    assert any(layer["clipped_reads"] > 0 for layer in found["layers"])
    reads = sum(layer["clipped"]["reads"] for layer in found["layers"])
    clipped = sum(layer["clipped"]["low"] + layer["clipped"]["high"] for layer in found["layers"])
    assert found["clipped_reads"] == clipped / reads


def test_reads_are_counted_on_fewer_images_where_each_takes_many(call, files, monkeypatch) -> None:
    cells = run(call, files, *NOISY)["hardware"]["cost"]["cell_reads"]
    monkeypatch.setattr(on_chip, "_CLIPPING_READS", 3 * cells + 1)
    assert run(call, files, *NOISY)["hardware"]["clipping_images"] == 3
    monkeypatch.setattr(on_chip, "_CLIPPING_READS", 1)
    outcome = call("run", files.artifact, "--data", files.data, *NOISY)
    assert "counted on the first 1 image." in " ".join(outcome.out.split())


def test_a_flawless_chip_clips_nothing_and_is_off_by_nothing(call, files) -> None:
    found = run(call, files, "--hardware", "ideal")["hardware"]
    assert [layer["clipped_reads"] for layer in found["layers"]] == [0, 0]
    assert [layer["fixed_point_error"] for layer in found["layers"]] == [0, 0]
    assert found["clipped_reads"] == 0


def test_without_hardware_nothing_is_said_of_chips(call, files) -> None:
    assert "hardware" not in run(call, files)
    assert "clip" not in call("run", files.artifact, "--data", files.data).out


BAD = {
    "another runtime": ("--witness all --hardware ideal", "another runtime computes exact integers"),
    "another runtime alone": (
        "--witness onnxruntime --hardware ideal",
        "another runtime computes exact integers",
    ),
    "a change without a profile": ("--set adc.bits=6", "--set is about a chip"),
    "a seed without a profile": ("--seed 6", "--seed is about a chip"),
    "unknown profile": ("--hardware isac", "the nearest is 'isaac'"),
    "missing profile": ("--hardware {folder}/gone.toml", "gone.toml"),
    "wrong field": ("--hardware ideal --set adc.bit=6", "adc.bit: unknown field"),
    "wrong value": ("--hardware ideal --set adc.bits=17", "adc.bits: expected at most 16"),
    "negative seed": ("--hardware ideal --seed -1", "--seed"),
    "seed past 63 bits": ("--hardware ideal --seed 9223372036854775808", "--seed"),
    "tiles too narrow": ("--hardware ideal --set array.columns=2 --set array.cell_bits=1", "array.columns"),
    "sums past int32": ("--hardware ideal --set read.noise=16 --set dac.bits=8", "can pass int32"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_exit_code_2_and_no_file(case: str, call, files, tmp_path) -> None:
    options, mentions = BAD[case]
    arguments = options.replace("{folder}", str(tmp_path)).split()
    outcome = call("run", files.artifact, "--data", files.data, "--out", tmp_path / "p.npz", *arguments)
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert mentions in outcome.err
    assert (outcome.out, list(tmp_path.iterdir())) == ("", [])
