"""`ohmfold chips`: prints and writes what the study found, goes on where it was killed, and refuses in one line."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from ohmfold.toolchain.chips import ChipStudy
from ohmfold.toolchain.cli import main
from ohmfold.toolchain.hardware import Hardware

from .conftest import start, wait_for, write_images

if TYPE_CHECKING:
    from pathlib import Path

NOISY = "--hardware ideal --set cell.programming.kind=relative --set read.noise=0.5"
FLAWED = f"{NOISY} --set cell.programming.sigma=1"
SWEEP = "--sweep cell.programming.sigma=0,0.5,2"


def chips(call, files, arguments: str, *more):
    return call("chips", files.artifact, "--data", files.data, *arguments.split(), *more)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_document_is_the_study_in_the_folder(call, files, tmp_path) -> None:
    outcome = chips(call, files, f"{FLAWED} --count 4 --seed 9 --json", "--out", tmp_path / "out")
    assert (outcome.code, outcome.err) == (0, "")
    document = json.loads(outcome.out)
    assert {key: document.pop(key) for key in ("file", "left_out", "folder")} == {
        "file": str(files.artifact),
        "left_out": 30,
        "folder": str(tmp_path / "out"),
    }
    written = contents(tmp_path / "out")
    assert set(written) == {"chips.jsonl", "chips.json", "chips.csv", "distribution.svg"}
    assert json.loads(written["chips.json"]) == document
    study = ChipStudy(**document)
    assert [chip.seed for chip in study.points[0].chips] == [9, 10, 11, 12]
    assert written["chips.jsonl"].count(b"\n") == written["chips.csv"].count(b"\n") - 1 == 4


def test_a_chip_is_the_one_that_run_shows(call, files) -> None:
    document = json.loads(chips(call, files, f"{FLAWED} --count 3 --json").out)
    assert Hardware.from_toml(document["profile_toml"]).cell.programming.sigma == 1
    for chip in document["points"][0]["chips"]:
        one = call(
            "run", files.artifact, "--data", files.data, *FLAWED.split(), "--seed", chip["seed"], "--json"
        )
        found = json.loads(one.out)
        assert found["witnesses"]["crossbar"]["correct"] == chip["correct"]
        assert found["witnesses"]["emulator"]["correct"] == document["exact_correct"]
        assert found["hardware"]["sha256"] == document["profile_sha256"]


def test_the_table_has_the_exact_integers_and_the_worst_chip(call, files) -> None:
    arguments = f"{NOISY} {SWEEP} --count 3 --images 20"
    outcome = chips(call, files, arguments)
    study = json.loads(chips(call, files, f"{arguments} --json").out)
    assert (outcome.code, outcome.err) == (0, "")
    (exact,) = [line for line in outcome.out.splitlines() if line.split()[:2] == ["exact", "integers"]]
    assert exact.split()[2:] == [f"{100 * study['exact_correct'] / 20:.1f}", "%"]
    for point in study["points"]:
        (line,) = [line for line in outcome.out.splitlines() if f"sigma = {point['value']:g} " in line]
        assert line.split()[-1] == str(point["worst"]["seed"])
        assert f"{100 * point['mean']:.2f} %" in line
    assert "20 images of" in outcome.out


def test_starting_again_adds_nothing_and_a_longer_study_goes_on(call, files, tmp_path) -> None:
    out = tmp_path / "out"
    assert chips(call, files, f"{FLAWED} --count 3", "--out", out).code == 0
    before = contents(out)
    assert chips(call, files, f"{FLAWED} --count 3 --workers 2", "--out", out).code == 0
    assert contents(out) == before
    assert chips(call, files, f"{FLAWED} --count 5", "--out", out).code == 0
    assert chips(call, files, f"{FLAWED} --count 5 --workers 2", "--out", tmp_path / "fresh").code == 0
    assert contents(out) == contents(tmp_path / "fresh")
    assert contents(out)["chips.jsonl"].startswith(before["chips.jsonl"])


def stopped_study(folder: Path) -> list[str]:
    """Arguments of a study that takes a few seconds, without its folder."""
    data = write_images(folder / "data.npz", 400)
    return ["--data", str(data), *FLAWED.split(), "--count", "40", "--out"]


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory) -> dict[str, bytes]:
    """What that study writes where nothing stops it."""
    folder = tmp_path_factory.mktemp("whole")
    assert main(["chips", str(files.artifact), *stopped_study(folder), str(folder / "out")]) == 0
    return contents(folder / "out")


@pytest.mark.parametrize(
    ("how", "workers", "code"),
    [(signal.SIGKILL, 2, -signal.SIGKILL), (signal.SIGINT, 1, 130), (signal.SIGINT, 2, 130)],
)
def test_a_study_that_was_stopped_goes_on_and_ends_with_the_same_files(
    how, workers, code, whole, call, files, tmp_path
) -> None:
    out = tmp_path / "out"
    arguments = ["chips", files.artifact, *stopped_study(tmp_path), out]
    process = start(*arguments, "--workers", workers)
    lines = out / "chips.jsonl"
    wait_for(lambda: lines.exists() and lines.read_bytes().count(b"\n") > 2, process)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert err == ("interrupted\n" if code == 130 else "")
    kept = contents(out)
    assert set(kept) == {"chips.jsonl"}
    assert 2 < kept["chips.jsonl"].count(b"\n") < 40
    assert whole["chips.jsonl"].startswith(kept["chips.jsonl"].rpartition(b"\n")[0])
    assert call(*arguments).code == 0
    assert contents(out) == whole


def test_converters_are_calibrated_where_a_profile_asks_for_it(call, files) -> None:
    sweep = "--hardware reram-128 --sweep adc.range=full,calibrated --count 2 --json"
    document = json.loads(chips(call, files, sweep).out)
    assert (document["left_out"], document["data"]["images"]) == (30, 50)
    assert document["calibration_sha256"]
    alone = json.loads(chips(call, files, "--hardware reram-128 --count 2 --json").out)
    assert alone["points"][0] | {"value": "calibrated"} == document["points"][1]
    assert json.loads(chips(call, files, f"{FLAWED} --count 1 --json").out)["calibration_sha256"] is None


def test_it_says_where_no_two_chips_differ(call, files) -> None:
    assert "Nothing about these chips is random" in chips(call, files, "--hardware isaac --count 2").out
    assert "random" not in chips(call, files, f"{FLAWED} --count 2").out


BAD = {
    "no profile": ("", "--hardware"),
    "unknown profile": ("--hardware isac", "the nearest is 'isaac'"),
    "no chips": ("--hardware ideal --count 0", "--count"),
    "no workers": ("--hardware ideal --workers 0", "--workers"),
    "negative seed": ("--hardware ideal --seed -3", "--seed"),
    "seeds past 63 bits": ("--hardware ideal --seed 9223372036854775807", "seeds from 0 to 9223372036854775807"),
    "wrong field": ("--hardware ideal --set adc.bit=6", "adc.bit: unknown field"),
    "no sweep": ("--hardware ideal --sweep adc.bits", "expected a sweep like adc.bits=4..8"),
    "sweep of a wrong field": ("--hardware ideal --sweep adc.bit=4..8", "the nearest is 'adc.bits'"),
    "sweep of a wrong value": ("--hardware ideal --sweep adc.bits=4,six", "expected a valid integer, found 'six'"),
    "sweep past the range": ("--hardware ideal --sweep adc.bits=12..20", "adc.bits: expected at most 16, found 17"),
    "sweep downwards": ("--hardware ideal --sweep adc.bits=8..4", "upwards"),
    "sweep of what is set": ("--hardware ideal --sweep adc.bits=4..8 --set adc.bits=6", "--sweep takes its values"),
    "tiles too narrow": ("--hardware ideal --set array.columns=2 --set array.cell_bits=1", "array.columns"),
    "no model": ("--hardware ideal --images 0", "--images"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_exit_code_2_and_no_folder(case: str, call, files, tmp_path) -> None:
    options, mentions = BAD[case]
    outcome = chips(call, files, options, "--out", tmp_path / "out")
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert mentions in outcome.err
    assert (outcome.out, list(tmp_path.iterdir())) == ("", [])


def test_somebodys_folder_and_damaged_lines_are_refused_and_left_alone(call, files, tmp_path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    refused = chips(call, files, "--hardware ideal --count 1", "--out", tmp_path)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "holds no chips.jsonl" in refused.err
    (tmp_path / "chips.jsonl").write_text("{}\n")
    refused = chips(call, files, "--hardware ideal --count 1", "--out", tmp_path)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "chips.jsonl, line 1" in refused.err
    assert contents(tmp_path) == {"thesis.tex": b"precious", "chips.jsonl": b"{}\n"}
    if os.geteuid():  # root may write anywhere
        (tmp_path / "chips.jsonl").write_text("")
        tmp_path.chmod(0o500)
        assert chips(call, files, "--hardware ideal --count 1", "--out", tmp_path).code == 2
        tmp_path.chmod(0o700)


def test_bad_data_leaves_no_folder(call, files, tmp_path) -> None:
    data = write_images(tmp_path / "ten.npz", 6, side=10)
    outcome = call("chips", files.artifact, "--data", data, "--hardware", "ideal", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "10, 10" in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_help_names_what_there_is(call) -> None:
    outcome = call("chips", "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.replace("│", " ").split())
    for word in (
        "--hardware",
        "--count",
        "--seed",
        "--set",
        "--sweep",
        "FIELD=4..8",
        "--workers",
        "--cluster",
        "--out",
        "--json",
    ):
        assert word in text
