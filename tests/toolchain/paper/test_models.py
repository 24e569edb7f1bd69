"""The eighteen models: their names, their weights, what is mapped, who judges and whose gradients there are."""

import numpy as np
import pytest
import torch
from paper_zoos import ARCHITECTURE, small_model, some_images, write_zoo

from ohmfold.errors import DataError, RecipeError
from ohmfold.models.checkpoints import save_weights
from ohmfold.models.registry import ZOO, build_model
from ohmfold.toolchain.paper import twelve
from ohmfold.toolchain.paper.subjects import make_subject
from ohmfold.toolchain.paper.twelve import Row, find_checkpoint, mapped_layers, rows
from ohmfold.toolchain.paper.weight_only import weight_only


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("paper") / "zoo", "", "-adv")


def test_names_are_the_papers():
    names = [row.name for row in rows()]
    assert len(names) == 18
    assert names[:3] == ["Orig.", "Orig. (Q)", "Orig. (Q) deployed"]
    assert names[-1] == "F.L.+mu (Q) deployed"


def test_a_folder_comes_before_the_packages_own_zoo(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(twelve, "ZOO", ZOO)
    assert find_checkpoint("mnist", "Orig.", zoo).file == zoo / "mnist-cnn.safetensors"
    assert find_checkpoint("mnist", "Orig.", tmp_path).file == ZOO / "mnist-cnn.safetensors"
    assert find_checkpoint("mnist", "Orig.", None).file == ZOO / "mnist-cnn.safetensors"


def test_a_missing_checkpoint_says_how_to_train_it(zoo):
    found = find_checkpoint("cifar10", "Adv.", zoo)
    assert found.file is None
    assert found.sha256 == ""
    assert found.command.startswith("ohmfold train --model cifar-wrn32-WIDTH --recipe adversarial")
    assert "--init mnist-cnn.safetensors" in find_checkpoint("mnist", "F.L.", zoo).command


def test_a_zoo_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no such folder"):
        find_checkpoint("mnist", "Orig.", tmp_path / "nowhere")


def test_on_mnist_the_last_layer_is_mapped():
    assert mapped_layers(build_model("mnist-cnn"), "mnist") == {"fc2": 255.0}


def test_on_cifar10_the_last_block_and_the_last_layer_are_mapped():
    found = mapped_layers(build_model("cifar-wrn32-1"), "cifar10")
    assert found == {"units.14.conv1": 255.0, "units.14.conv2": 255.0, "fc": 255.0}


def test_a_network_without_blocks_is_refused_on_cifar10():
    with pytest.raises(RecipeError, match="residual network"):
        mapped_layers(small_model(), "cifar10")


SOURCES = {
    "Orig.": {"twin"},
    "Orig. (Q)": {"twin", "parent"},
    "Orig. (Q) deployed": {"twin", "parent"},
    "Orig.+mu": {"twin", "unmapped"},
    "Orig.+mu (Q)": {"twin", "parent", "unmapped"},
    "Orig.+mu (Q) deployed": {"twin", "parent", "unmapped"},
}


@pytest.mark.parametrize("row", [row for row in rows() if row.family == "Orig."], ids=lambda row: row.name)
def test_a_model_judges_as_its_own_gradient_source_computes(row, zoo):
    images = some_images(40)
    subject = make_subject(row, "mnist", zoo / "mnist-cnn.safetensors", some_images(16, seed=5))
    assert set(subject.sources) == SOURCES[row.name]
    with torch.no_grad():
        own = subject.sources["twin"](torch.from_numpy(images).float() / 255).numpy()
    assert np.array_equal(subject.judge.logits(images), own)
    assert np.array_equal(subject.judge.predict(images), own.argmax(1))


def test_the_models_of_a_family_differ_and_say_so(zoo):
    file, seen = zoo / "mnist-cnn.safetensors", some_images(16, seed=5)
    found = [make_subject(row, "mnist", file, seen).identity for row in rows() if row.family == "Orig."]
    assert len({tuple(sorted(one.items())) for one in found}) == 6


def test_the_quantised_model_is_the_weight_only_one(zoo):
    images = some_images(10)
    subject = make_subject(Row("Orig.", quantised=True), "mnist", zoo / "mnist-cnn.safetensors", images)
    with torch.no_grad():
        expected = weight_only(small_model(1))(torch.from_numpy(images).float() / 255).numpy()
    assert np.array_equal(subject.judge.logits(images), expected)


def test_weights_beyond_the_maps_domain_are_refused_and_not_changed(tmp_path):
    network = small_model()
    with torch.no_grad():
        network.fc.weight[0, 0] = 1.5
    file = tmp_path / "mnist-cnn.safetensors"
    save_weights(network, file, architecture=ARCHITECTURE)
    with pytest.raises(RecipeError, match=r"max\|w\| = 1.5, the literal domain needs"):
        make_subject(Row("Orig.", mapped=True), "mnist", file, some_images(4))


def test_images_of_another_size_are_refused(zoo):
    wrong = np.zeros((4, 3, 32, 32), np.uint8)
    with pytest.raises(DataError, match=r"does not take images of shape \(3, 32, 32\)"):
        make_subject(Row("Orig."), "mnist", zoo / "mnist-cnn.safetensors", wrong)
