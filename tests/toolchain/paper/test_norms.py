"""Figures 3 and 4: norms of the error of weight-only quantisation, by layer, from checkpoints alone."""

import csv
import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from paper_zoos import ARCHITECTURE, small_model, write_zoo
from torch import nn

from ohmfold.errors import DataError, RecipeError
from ohmfold.models.checkpoints import save_weights
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.models.registry import build_model
from ohmfold.toolchain.paper import norms as norms_module
from ohmfold.toolchain.paper.cells import Cells
from ohmfold.toolchain.paper.extras import Extras
from ohmfold.toolchain.paper.norm_figures import write_norms
from ohmfold.toolchain.paper.norms import drawn_layers, error_layers, measure_norms
from ohmfold.toolchain.paper.results import read_results
from ohmfold.toolchain.paper.weight_only import weight_layers, weight_only


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("paper") / "zoo", "", "-adv")


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    return Cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture
def record(zoo, cells):
    return measure_norms("mnist", cells, zoo=zoo)


def test_the_norms_are_those_of_what_weight_only_quantisation_changes(record):
    model, mapped = small_model(1), apply_mu_law(small_model(1), {"fc": 255.0})
    for name, real, rounded in (
        ("Orig.", model, weight_only(model)),
        ("Orig.+mu", mapped, weight_only(model, 3, mapped)),
    ):
        layers = record.models[name]
        assert [one.layer for one in layers] == [layer for layer, _ in weight_layers(model)]
        for one in layers:
            before, after = (
                m.get_submodule(one.layer).weight.detach().double().flatten(1).numpy()
                for m in (real, rounded)
            )
            error = after - before
            # The weight-only network holds code * step rounded to float32, the norms are of the exact product.
            values = np.linalg.svd(error, compute_uv=False)
            assert one.norms.spectral == pytest.approx(values[0], rel=1e-5)
            assert one.norms.infinity == pytest.approx(np.abs(error).sum(1).max(), rel=1e-5)


def test_a_convolutions_operator_is_measured_on_its_real_input():
    layers = error_layers(small_model(1), (1, 28, 28), 3, {})
    first = layers[0]
    assert first.operator.input_shape == (1, 28, 28)
    torch.manual_seed(0)
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    conv = next(layer for _, layer in weight_layers(small_model(1)))
    expected = nn.functional.conv2d(x, conv.weight.double(), None, conv.stride, conv.padding).detach().numpy()
    np.testing.assert_allclose(
        first.operator.apply(first.weights, x.numpy()), expected, rtol=1e-12, atol=1e-12
    )
    last = layers[-1]
    assert last.operator.kind == "dense"
    assert last.real.shape == tuple(reversed(small_model(1).fc.weight.shape))


def test_the_map_changes_the_mapped_layer_alone(record):
    plain, mapped = record.models["Orig."], record.models["Orig.+mu"]
    assert [one.mapped for one in mapped] == [False] * (len(mapped) - 1) + [True]
    assert [one.norms for one in plain[:-1]] == [one.norms for one in mapped[:-1]]
    assert plain[-1].norms != mapped[-1].norms


def test_products_are_over_all_layers(record):
    for name, layers in record.models.items():
        found = record.products[name].spectral
        assert found == pytest.approx(np.prod([one.norms.spectral for one in layers]))


def test_a_model_without_weights_says_how_to_train_it(record):
    assert set(record.missing) == {"F.L.", "F.L.+mu"}
    assert "train it: ohmfold train --model mnist-cnn --recipe feedback" in record.missing["F.L."]


def test_nothing_is_measured_twice(record, zoo, cells, monkeypatch):
    monkeypatch.setattr(norms_module, "lipschitz", None)
    assert measure_norms("mnist", cells, zoo=zoo) == record


def test_the_figure_is_four_files_that_say_what_the_paper_shows(record, tmp_path):
    files = write_norms(record, tmp_path)
    assert [file.name for file in files] == [f"figure3.{suffix}" for suffix in ("json", "csv", "md", "svg")]
    document = json.loads(files[0].read_text("utf-8"))
    assert "Adv. has the largest constants" in document["paper_shape"]
    assert len(document["models"]["Adv."]) == len(record.models["Adv."])
    with files[1].open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 * (len(record.models["Orig."]) + 1)
    fc = next(line for line in lines if (line["model"], line["layer"]) == ("Orig.+mu", "fc"))
    assert float(fc["spectral"]) == record.models["Orig.+mu"][-1].norms.spectral
    text = files[2].read_text("utf-8")
    assert "## p = infinity, operator" in text
    assert "product of all layers" in text
    assert f"{record.models['Orig.+mu'][-1].norms.spectral:.3f} *" in text
    assert "train it: ohmfold train" in text
    ET.fromstring(files[3].read_text("utf-8"))  # noqa: S314 - our own file


def test_a_figure_is_read_back_as_it_was_written(record, tmp_path):
    write_norms(record, tmp_path)
    assert read_results(tmp_path, "mnist", Extras()).norms == record


def test_without_any_weights_the_figure_says_so(no_zoo, tmp_path):
    record = measure_norms("cifar10", Cells(tmp_path), zoo=no_zoo)
    assert len(record.missing) == 6
    text = write_norms(record, tmp_path)[2].read_text("utf-8")
    assert text.count("train it: ohmfold train --model cifar-wrn32-WIDTH") == 6


def test_on_cifar10_the_last_two_blocks_and_the_last_layer_are_drawn(tmp_path):
    names = ["units.13.conv1", "units.13.conv2", "units.14.conv1", "units.14.conv2", "fc"]
    assert drawn_layers(build_model("cifar-wrn32-1"), "cifar10") == names
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    file = zoo / "cifar10-wrn32.safetensors"
    save_weights(build_model("cifar-resnet8", 3), file, architecture="cifar-resnet8")
    record = measure_norms("cifar10", Cells(tmp_path), zoo=zoo)
    drawn = {one.drawn: one.layer for one in record.models["Orig."] if one.drawn}
    assert list(drawn.values()) == [
        "units.1.conv1", "units.1.conv2", "units.2.conv1", "units.2.conv2", "fc",
    ]  # fmt: skip
    assert sorted(drawn) == [1, 2, 3, 4, 5]
    mapped = [one.layer for one in record.models["Orig.+mu"] if one.mapped]
    assert mapped == ["units.2.conv1", "units.2.conv2", "fc"]
    assert write_norms(record, tmp_path)[0].name == "figure4.json"


def test_weights_beyond_the_maps_domain_are_reported(tmp_path):
    network = small_model()
    with torch.no_grad():
        network.fc.weight[0, 0] = 1.5
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    save_weights(network, zoo / "mnist-cnn.safetensors", architecture=ARCHITECTURE)
    record = measure_norms("mnist", Cells(tmp_path), zoo=zoo)
    assert "Orig." in record.models
    assert "literal domain needs |w| <= 1" in record.missing["Orig.+mu"]


def test_what_the_norms_do_not_know_is_refused():
    odd = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(32, 10)
    )
    with pytest.raises(RecipeError, match="mode 'reflect'; expected a number of zeros"):
        error_layers(odd, (1, 4, 4), 3, {})
    with pytest.raises(DataError, match=r"does not take images of shape \(3, 4, 4\)"):
        error_layers(odd, (3, 4, 4), 3, {})
