"""`ohmfold analyze`: its tables, its JSON, its folder, and what it refuses before it works."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from ohmfold.toolchain.artifact import Artifact

from .conftest import float_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def attacked(files, tmp_path_factory) -> Path:
    from ohmfold.toolchain.cli import main

    run = tmp_path_factory.mktemp("attacked") / "run"
    arguments = [
        "attack",
        files.artifact,
        "--data",
        files.data,
        "--attack",
        "pgd",
        "--steps",
        "2",
        "--out",
        run,
    ]
    assert main([*map(str, arguments), "--epsilon", "20", "--images", "30", "--json"]) == 0
    (found,) = run.glob("adversarial-*.npz")
    return found


def test_tables_tell_every_layer_and_the_product(call, files) -> None:
    done = call("analyze", files.artifact, "--float", files.model, "--data", files.data, "--epsilon", "20")
    assert (done.code, done.err) == (0, "")
    for word in ("conv", "fc", "product", "|W dx|", "p = 2, operator", "under pgd, norm inf, radius 20"):
        assert word in done.out
    assert "the three terms sum to what was observed" in done.out


def test_a_saved_set_is_what_is_analysed(call, files, attacked, tmp_path) -> None:
    out = tmp_path / "out"
    done = call(
        "analyze", files.artifact, "--float", files.model, "--adversarial", attacked, "--images", "3", "--json",
        "--out", out,
    )  # fmt: skip
    document = json.loads(done.out)
    assert done.code == 0
    assert document["attack"]["images"] == 3
    assert document["attack"]["artifact_sha256"] == document["artifact_sha256"]
    assert [row["name"] for row in document["layers"]] == ["conv", "fc"]
    assert document["rounding"] < 1e-14
    assert document["folder"] == str(out)
    written = json.loads((out / "analysis.json").read_text())
    assert written == {key: value for key, value in document.items() if key != "folder"}
    held = Artifact.load(files.artifact).metadata()["weight_errors"]
    for row in document["layers"]:
        # The artifact holds six digits.
        assert row["lipschitz"]["spectral"] == pytest.approx(held[row["name"]]["spectral"], rel=1e-5)
        assert row["lipschitz"]["infinity"] == pytest.approx(held[row["name"]]["infinity"], rel=1e-5)


def test_the_same_seed_gives_the_same_figures(call, files) -> None:
    arguments = (
        "analyze",
        files.artifact,
        "--float",
        files.model,
        "--data",
        files.data,
        "--images",
        "20",
        "--json",
    )
    first, again, other = call(*arguments), call(*arguments), call(*arguments, "--seed", "5")
    assert first.out == again.out
    assert first.out != other.out


def test_a_set_for_another_artifact_is_said_to_be_one(call, files, attacked, tmp_path) -> None:
    other = tmp_path / "other.onnx"
    arguments = (
        "compile",
        files.model,
        "--out",
        other,
        "--data",
        files.data,
        "--calibration-images",
        "20",
        "--json",
    )
    assert call(*arguments, "--weight-bits", "5").code == 0
    done = call("analyze", other, "--float", files.model, "--adversarial", attacked)
    assert done.code == 0
    assert "the set was made for another artifact" in done.out


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bad")
    other = float_model(weights=np.random.default_rng(9).normal(size=(256, 3)).astype(np.float32))
    onnx.save(other, folder / "other.onnx")
    (folder / "notes.txt").write_text("a file")
    np.savez(folder / "ten.npz", images=np.zeros((4, 1, 10, 10), np.uint8), labels=np.zeros(4, np.int64))
    return {name: folder / name for name in ("other.onnx", "notes.txt", "ten.npz", "gone.npz", "gone.onnx")}


CASES = {
    "no float model": ("{artifact}", "Missing option '--float'"),
    "another float model": ("{artifact} --float {other.onnx} --data {data}", "holds other codes"),
    "an artifact as the float model": ("{artifact} --float {artifact} --data {data}", "is an integer model"),
    "a float model as the artifact": ("{model} --float {model} --data {data}", "does not tell the recipe"),
    "no such artifact": ("{gone.onnx} --float {model}", "cannot read the model"),
    "no such float model": ("{artifact} --float {gone.onnx}", "cannot read the model"),
    "no such set": ("{artifact} --float {model} --adversarial {gone.npz}", "no such file"),
    "not a set": ("{artifact} --float {model} --adversarial {data}", "not a set of adversarial images"),
    "a set and images": (
        "{artifact} --float {model} --adversarial {attacked} --data {data}",
        "brings its own",
    ),
    "a set and a radius": (
        "{artifact} --float {model} --adversarial {attacked} --epsilon 8",
        "brings its own",
    ),
    "no radius": ("{artifact} --float {model} --epsilon 0", "leaves every image alone"),
    "senseless radius": (
        "{artifact} --float {model} --epsilon far",
        "expected an integer number of pixel codes",
    ),
    "images of another shape": ("{artifact} --float {model} --data {ten.npz}", "(1, 1, 10, 10)"),
    "a file as the folder": ("{artifact} --float {model} --data {data} --out {notes.txt}", "is a file"),
    "no images": ("{artifact} --float {model} --images 0", "--images"),
}


@pytest.mark.parametrize(("arguments", "message"), CASES.values(), ids=CASES)
def test_a_mistake_is_one_line_and_exit_code_2(call, files, bad, attacked, arguments, message) -> None:
    for name, path in (bad | files._asdict() | {"attacked": attacked}).items():
        arguments = arguments.replace("{" + name + "}", str(path))
    done = call("analyze", *arguments.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert message in done.err
