"""`ohmfold train` by every method: settings reach it, files appear, faults are named before any work is done."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ohmfold.models import checkpoints
from ohmfold.models.quantised import Quantised
from ohmfold.models.recipes import METHODS
from ohmfold.models.registry import build_model

from .conftest import write_images

QUICK = {
    "adversarial": ["steps=1", "step=0.3"],
    "hardened": ["steps=1", "step=0.3", "bits=2"],
    "adversarial-qat": ["steps=1", "step=0.3"],
    "feedback": ["rounds=1", "measured=20", "bisections=2"],
}


def _arguments(data: Path, out: Path, method: str, model: str = "mnist-cnn") -> list[object]:
    settings = [part for text in QUICK.get(method, []) for part in ("--set", text)]
    return [
        "train", "--model", model, "--recipe", method, *settings, "--data", data,
        "--epochs", 1, "--batch-size", 16, "--precision", "bfloat16", "--out", out, "--json",
    ]  # fmt: skip


def _guess_of_one_class(data: Path) -> nn.Module:
    """A network that is right about at least one image, so that it has a boundary to measure."""
    model = build_model("mnist-cnn")
    with torch.no_grad():
        model.fc2.bias[int(np.load(data)["labels"][0])] += 1
    return model


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_from_the_command_line(call, tmp_path, method: str) -> None:
    data = write_images(tmp_path / "data.npz", 24, side=28)
    curves = tmp_path / "curves.csv"
    checkpoints.save_weights(_guess_of_one_class(data), tmp_path / "init.safetensors")
    outcome = call(
        *_arguments(data, tmp_path / "m.safetensors", method),
        "--init",
        tmp_path / "init.safetensors",
        "--curves",
        curves,
        "--checkpoints",
        tmp_path / "state",
    )
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)
    assert found["method"]["name"] == method
    loaded = checkpoints.load_model(tmp_path / "m.safetensors")
    assert isinstance(loaded, Quantised) == (method == "hardened")
    if method == "hardened":
        assert int(loaded.bits) == 2
        assert found["method"]["bits"] == 2
    with curves.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [record["loss"] for record in found["epochs"]]


@pytest.mark.slow
def test_hardened_weights_go_on_from_themselves_and_compile(call, tmp_path) -> None:
    data = write_images(tmp_path / "data.npz", 24, side=28)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    assert call(*_arguments(data, first, "hardened")).code == 0
    again = _arguments(data, second, "hardened", model="mnist-cnn-w2")
    assert call(*again, "--init", first).code == 0
    assert call("compile", second, "--data", data, "--out", tmp_path / "a.onnx").code == 0
    refused = call("export", second, "--out", tmp_path / "float.onnx")
    assert refused.code == 2
    assert "trained as integers" in refused.err
    assert not (tmp_path / "float.onnx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "magic"], "magic"),
        (["--recipe", "adversarial", "--set", "epsilon=2"], "epsilon"),
        (["--recipe", "standard", "--set", "epsilon=0.1"], "no settings"),
        (["--recipe", "feedback", "--set", "rounds"], "FIELD=VALUE"),
        (["--curves", "nowhere/curves.csv"], "nowhere"),
    ],
)
def test_faults_are_named_in_one_line(call, tmp_path, words: list[str], message: str) -> None:
    data = write_images(tmp_path / "data.npz", 8, side=28)
    outcome = call(
        "train", "--model", "mnist-cnn", "--data", data, "--out", tmp_path / "m.safetensors", *words
    )
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "m.safetensors").exists()
