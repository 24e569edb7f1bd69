"""Bundled weights are those of their model cards, and as good as the cards say."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ohmfold.models.checkpoints import load_model
from ohmfold.models.cnn import MnistCnn
from ohmfold.models.datasets import load_mnist_sample
from ohmfold.models.registry import ZOO, build_model
from ohmfold.models.training import accuracy

NAMES = sorted(path.stem for path in ZOO.glob("*.safetensors"))


def _architecture(name: str) -> str:
    with safe_open(ZOO / f"{name}.safetensors", framework="pt") as file:
        (metadata,) = file.metadata().values()
    return json.loads(metadata)["architecture"]


def _card(name: str) -> str:
    return Path(ZOO, f"{name}.md").read_text(encoding="utf-8")


def test_the_zoo_holds_the_mnist_cnn_and_nothing_without_a_card() -> None:
    assert "mnist-cnn" in NAMES
    assert all(build_model(_architecture(name)) is not None for name in NAMES)
    assert sorted(path.stem for path in ZOO.glob("*.md")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_their_cards(name: str) -> None:
    content = (ZOO / f"{name}.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in _card(name)
    assert len(content) < 7_000_000


def test_the_card_gives_the_command_that_made_the_model() -> None:
    assert re.search(r"ohmfold train --model mnist-cnn .*--exclude mnist-sample", _card("mnist-cnn"))


def test_mnist_cnn_classifies_the_sample_as_its_card_says() -> None:
    found = re.search(r"(\d,\d{3}) of 5,000", _card("mnist-cnn"))
    assert found is not None
    model = load_model("mnist-cnn")
    assert isinstance(model, MnistCnn)
    correct = round(accuracy(model, load_mnist_sample()) * 5000)
    # Processors and thread counts add products in different orders. In float32 that moves a logit by some
    # 1e-5, and no digit's two best logits are closer than 0.02; two digits are allowed for back ends that
    # multiply float32 tensors in bfloat16, which moves a logit by some 1e-2.
    assert abs(correct - int(found[1].replace(",", ""))) <= 2


def test_the_last_layer_fits_the_literal_mu_law() -> None:
    assert float(load_model("mnist-cnn").fc2.weight.detach().abs().max()) <= 1.0


def test_weights_rounded_to_seven_levels_keep_accuracy_within_a_point() -> None:
    sample = load_mnist_sample().subset(1000, seed=0)
    model = load_model("mnist-cnn")
    before = accuracy(model, sample)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                step = parameter.abs().max() / 3
                parameter.copy_(torch.round(parameter / step) * step)
    assert accuracy(model, sample) >= before - 0.01
