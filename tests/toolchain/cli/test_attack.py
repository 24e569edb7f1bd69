"""`ohmfold attack` and `ohmfold replay` on a small artifact: what they print, keep and refuse."""

from __future__ import annotations

import csv
import json
import shlex
from typing import TYPE_CHECKING

import numpy as np
import pytest

import ohmfold
from ohmfold.toolchain.attacks.results import CampaignResult
from ohmfold.toolchain.run_record import RunRecord

if TYPE_CHECKING:
    from pathlib import Path

KEPT = {"artifact.onnx", "gallery.svg", "images.csv", "result.csv", "result.json", "run.json"}


def document(outcome) -> dict:
    assert outcome.err == ""
    return json.loads(outcome.out)


@pytest.fixture(scope="module")
def run(files, tmp_path_factory) -> tuple[list[object], Path]:
    """A run folder of a few attacks, and the command that made it."""
    from ohmfold.toolchain.cli import main

    folder = tmp_path_factory.mktemp("attack") / "run"
    suite = folder.parent / "mine.toml"
    suite.write_text(
        'title = "Mine"\n[[attacks]]\nname = "noise"\nattack = "uniform-noise"\n'
        '[[attacks]]\nname = "descent"\nattack = "pgd"\nsettings = { steps = 3 }\n'
        '[[attacks]]\nname = "black"\nattack = "fgsm"\nsource = "substitute"\nepsilon = 30\n'
        '[[attacks]]\nname = "grey"\nattack = "fgsm"\nsource = "parent"\n'
    )
    arguments = ["attack", files.artifact, "--data", files.data, "--suite", suite, "--epsilon", "20"]
    arguments += ["--ladder", "5,40", "--images", 20, "--seed", 4, "--parent", files.model]
    arguments += ["--substitute", f"same={files.artifact}", "--out", folder]
    assert main([*map(str, arguments), "--json"]) == 0
    return arguments, folder


def test_a_run_keeps_figures_sets_tables_and_charts(files, run) -> None:
    _, folder = run
    at_each = [f"{name}{radius}" for name in ("noise", "descent", "grey") for radius in ("", "-5", "-40")]
    keys = (*at_each[:6], "black-same", *at_each[6:])  # its radius is its own
    sets = {f"adversarial-{key}.npz" for key in keys}
    assert {path.name for path in folder.iterdir()} == {*KEPT, *sets, "accuracy.svg"}
    result = CampaignResult.load(folder)
    assert [row.key for row in result.attacks] == list(keys)
    assert [row.source for row in result.attacks[::3]] == ["none", "twin", "substitute:same", "parent"]
    assert (folder / "artifact.onnx").read_bytes() == files.artifact.read_bytes()
    emulator = ohmfold.Emulator(folder / "artifact.onnx")
    for row in result.attacks:
        with np.load(folder / row.adversarial) as archive:
            right = emulator.predict(archive["adversarial"]) == archive["labels"]
        assert int(right.sum()) == row.left.correct
    with (folder / "result.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["key"] for row in rows] == [*keys, *["worst case"] * 4]
    assert {row["verdict"] for row in rows} == {result.verdict.label}
    with (folder / "images.csv").open() as file:
        turned = [row for row in csv.DictReader(file) if row["turned_by"]]
    robust = result.robust
    assert len(turned) == result.clean.correct - robust.left.correct
    assert all((folder / name).read_text().startswith("<svg") for name in ("accuracy.svg", "gallery.svg"))


def test_its_report_shows_the_verdict_beside_every_robust_accuracy(call, run, tmp_path) -> None:
    _, folder = run
    record = RunRecord.load(folder)
    label = record.verdicts[0].label
    assert call("report", folder, "--out", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    table = page[page.index("<caption>Attacked images") :]
    body = table[: table.index("</table>")]
    assert body.count(f">{label}</span>") == len(record.attacks)
    assert all(finding.text.split("<")[0][:40] in page for finding in record.verdicts[0].findings[:1])
    assert f"masking verdict {label}" in page


def test_it_prints_every_accuracy_with_interval_and_verdict_and_all_the_evidence(call, run) -> None:
    arguments, folder = run
    outcome = call(*arguments)  # again into the same folder
    assert (outcome.code, outcome.err) == (0, "")
    result = CampaignResult.load(folder)
    lines = outcome.out.partition("Masking verdict:")[0].splitlines()
    for row in result.attacks:
        (line,) = [line for line in lines if line.split() and line.split()[0] == row.key]
        assert f"{100 * row.left.accuracy:.1f} %" in line
        assert f"{100 * row.left.low:.1f}..{100 * row.left.high:.1f} %" in line
        assert line.rstrip().endswith(result.verdict.label)
    assert sum("worst case of each image" in line for line in lines) == len(result.worst_case)
    assert f"Masking verdict: {result.verdict.label}" in outcome.out
    assert all(finding.text in outcome.out for finding in result.verdict.findings)


def test_the_command_that_a_record_names_repeats_the_run(call, run, tmp_path) -> None:
    _, folder = run
    command = shlex.split(RunRecord.load(folder).command)
    assert command[0] == "ohmfold"
    assert call(*command[1:], "--out", tmp_path / "again").code == 0
    for name in (
        "adversarial-descent.npz",
        "adversarial-grey-5.npz",
        "images.csv",
        "result.csv",
        "gallery.svg",
    ):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_by_default_it_is_the_quick_suite_and_attacks_can_be_named(call, files) -> None:
    few = ["attack", files.artifact, "--data", files.data, "--images", 6, "--json"]
    found = document(call(*few))
    assert [row["key"] for row in found["attacks"]] == ["uniform-noise", "fgsm", "pgd"]
    assert (found["radius"], found["norm"], found["run_folder"]) == (76, "inf", None)
    found = document(
        call(*few, "--attack", "bim", "--attack", "mim", "--steps", 3, "--norm", "2", "--epsilon", "0.5")
    )
    assert [(row["key"], row["norm"], row["parameters"]["steps"]) for row in found["attacks"]] == [
        ("bim", "2", 3),
        ("mim", "2", 3),
    ]
    assert found["radius"] == 127.5


def test_a_chip_or_onnxruntime_may_judge(call, files, tmp_path) -> None:
    few = ["attack", files.artifact, "--data", files.data, "--images", 8, "--attack", "fgsm", "--json"]
    plain = document(call(*few))
    assert plain["judge"]["name"] == "emulator"
    runtime = document(call(*few, "--on", "onnxruntime"))
    assert runtime["attacks"][0]["left"] == plain["attacks"][0]["left"]
    chip = document(
        call(*few, "--on", "template:seed=7", "--set", "read.noise=2", "--out", tmp_path / "chip")
    )
    assert (chip["judge"]["hardware"], chip["judge"]["seed"]) == ("template", 7)
    assert "noise = 2" in chip["judge"]["profile_toml"]
    replayed = ["replay", tmp_path / "chip" / "adversarial-fgsm.npz", "--data", files.data, "--json"]
    again = document(call(*replayed, "--on", "template:seed=7", "--set", "read.noise=2"))
    assert again["differing"] == []
    assert again["left"] == chip["attacks"][0]["left"]


@pytest.mark.parametrize("on", ["emulator", "onnxruntime", "ideal:seed=3"])
def test_a_set_is_replayed_with_the_same_labels_anywhere(call, run, on) -> None:
    _, folder = run
    result = CampaignResult.load(folder)
    for row in result.attacks[3:5]:
        found = document(call("replay", folder / row.adversarial, "--on", on, "--json"))
        assert found["differing"] == []
        assert found["left"] == row.left.model_dump()
        assert found["attack"] == row.key
    outcome = call("replay", folder / row.adversarial, "--on", on)
    assert outcome.code == 0
    assert "every image got the label that the set says" in outcome.out


def test_a_set_for_another_artifact_is_refused_or_transferred(call, files, run, tmp_path) -> None:
    _, folder = run
    other = tmp_path / "other.onnx"
    assert call("compile", files.model, "--out", other, "--data", files.data, "--weight-bits", 8).code == 0
    refused = call("replay", folder / "adversarial-descent.npz", other)
    assert refused.code == 2
    assert "was made for the artifact" in refused.err
    found = document(call("replay", folder / "adversarial-descent.npz", other, "--transfer", "--json"))
    assert found["transferred"]
    with np.load(folder / "adversarial-descent.npz") as archive:
        images = archive["adversarial"]
    assert found["predictions"] == ohmfold.Emulator(other).predict(images).tolist()
