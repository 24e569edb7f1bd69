"""Gradient sources by name: what each is, and why one is not there."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from tiny_artifacts import tiny_artifact
from torch import nn

import ohmfold
from ohmfold.errors import CheckpointError, DataError, ModelError, RecipeError
from ohmfold.export import export_module
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.toolchain.attacks.sources import Sources, load_source, substitute_names
from ohmfold.toolchain.float_torch import FloatModule
from ohmfold.toolchain.twin import Twin

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 1, 4, 4)).astype(np.uint8)
PIXELS = torch.from_numpy(IMAGES).float() / 255


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)).eval()
    with torch.no_grad():
        net[3].weight.clamp_(-1, 1)
    return net


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    net = network()
    ir.save(export_module(net, (1, 4, 4)), folder / "float.onnx")
    ohmfold.compile(net, IMAGES).save(folder / "plain.onnx")
    ohmfold.compile(net, IMAGES, ohmfold.Recipe(mu_law={"3": 255.0})).save(folder / "mapped.onnx")
    return folder


def artifact(models, name):
    return ohmfold.Artifact.load(models / name)


def test_the_twin_is_the_artifacts(models):
    sources = Sources(artifact(models, "plain.onnx"))
    emulator = ohmfold.Emulator(models / "plain.onnx")
    assert np.array_equal(sources["twin"](PIXELS).numpy(), emulator(IMAGES))
    assert sources["twin"] is sources["twin"]


@pytest.mark.parametrize("form", ["module", "file"])
def test_the_parent_is_the_float_model(models, form):
    parent = network() if form == "module" else models / "float.onnx"
    found = Sources(artifact(models, "plain.onnx"), parent=parent)["parent"](PIXELS)
    assert torch.allclose(found, network()(PIXELS), rtol=1e-5, atol=1e-6)


def test_a_mapped_parent_is_left_as_it_was(models):
    parent = apply_mu_law(network(), {"3": 255.0})
    before = parent(PIXELS)
    sources = Sources(artifact(models, "mapped.onnx"), parent=parent, calibration=IMAGES)
    assert sources["unmapped"](PIXELS).shape == before.shape
    assert torch.equal(parent(PIXELS), before)
    assert torch.equal(sources["parent"](PIXELS), before)


@pytest.mark.parametrize("form", ["module", "file"])
def test_the_unmapped_twin_is_that_of_the_artifact_compiled_without_the_map(models, form):
    parent = network() if form == "module" else str(models / "float.onnx")
    sources = Sources(artifact(models, "mapped.onnx"), parent=parent, calibration=IMAGES)
    expected = Twin(artifact(models, "plain.onnx"))(PIXELS)
    assert torch.equal(sources["unmapped"](PIXELS), expected)
    assert not torch.equal(sources["twin"](PIXELS), expected)


def test_a_map_that_is_in_the_module_is_taken_off(models):
    mapped = apply_mu_law(network(), {"3": 255.0})
    made = ohmfold.compile(mapped, IMAGES)
    sources = Sources(made, parent=mapped, calibration=IMAGES)
    assert torch.equal(sources["unmapped"](PIXELS), Twin(artifact(models, "plain.onnx"))(PIXELS))
    assert torch.nn.utils.parametrize.is_parametrized(
        mapped[3], "weight"
    )  # the caller's module keeps its map


def test_substitutes_are_float_or_integer_models(models):
    given = {"a": models / "float.onnx", "b": models / "mapped.onnx", "c": network()}
    sources = Sources(artifact(models, "plain.onnx"), substitutes=given)
    assert sources.substitutes == ("substitute:a", "substitute:b", "substitute:c")
    kinds = [type(sources[name]) for name in sources.substitutes]
    assert kinds == [FloatModule, Twin, nn.Sequential]
    sources.check(["twin", *sources.substitutes], IMAGES)


def test_why_a_source_is_missing(models):
    mapped, plain, foreign = artifact(models, "mapped.onnx"), artifact(models, "plain.onnx"), tiny_artifact()
    assert Sources(plain).missing("twin") is None
    assert "was not given (--parent)" in Sources(plain).missing("parent")
    assert "made by others" in Sources(foreign).missing("parent")
    assert Sources(foreign, parent=network()).missing("parent") is None
    assert "no mu-law map" in Sources(plain, parent=network()).missing("unmapped")
    assert "was not given" in Sources(mapped).missing("unmapped")
    assert Sources(mapped, parent=network()).missing("unmapped") is None
    assert "no substitute is called 'x'" in Sources(plain).missing("substitute:x")
    with pytest.raises(RecipeError, match="unknown gradient source 'oracle'"):
        Sources(plain).missing("oracle")
    with pytest.raises(DataError, match="no gradient source 'parent': the artifact was made by others"):
        Sources(foreign)["parent"]


def test_wrong_models_are_refused_before_anything_is_attacked(models, tmp_path):
    plain = artifact(models, "plain.onnx")
    with pytest.raises(DataError, match=r"none\.safetensors: no such file"):
        Sources(plain, parent=str(tmp_path / "none.safetensors"))
    with pytest.raises(DataError, match=r"plain\.onnx is an integer model; expected the float model"):
        Sources(plain, parent=models / "plain.onnx")["parent"]
    with pytest.raises(CheckpointError, match="neither a file nor a bundled model"):
        load_source("mnist-cn")
    with pytest.raises(ModelError, match="found a int"):
        load_source(3)
    wider = nn.Sequential(nn.Flatten(), nn.Linear(16, 7)).eval()
    with pytest.raises(DataError, match=r"'substitute:w' gives \(1, 7\) for one image; expected \(1, 5\)"):
        Sources(plain, substitutes={"w": wider}).check(["twin", "substitute:w"], IMAGES)
    with pytest.raises(DataError, match="'substitute:w' does not take images of shape"):
        Sources(plain, substitutes={"w": nn.Linear(9, 5)}).check(["substitute:w"], IMAGES)


def test_what_the_models_are_is_part_of_what_results_depend_on(models, tmp_path):
    plain = artifact(models, "plain.onnx")
    one = Sources(plain, parent=network(), substitutes={"a": models / "float.onnx"}).fingerprint()
    assert set(one) == {"parent", "substitute:a"}
    other = network()
    with torch.no_grad():
        other[1].weight[0, 0] += 1e-3
    assert Sources(plain, parent=other).fingerprint()["parent"] != one["parent"]


def test_substitutes_get_names_of_their_own():
    assert substitute_names(["models/vgg 11.onnx", "b=c.onnx"]) == {
        "vgg-11": "models/vgg 11.onnx",
        "b": "c.onnx",
    }
    for wrong in (["a=x", "a=y"], ["=x"], ["a="], ["a/b=x"]):
        with pytest.raises(RecipeError, match="expected MODEL or NAME=MODEL"):
            substitute_names(wrong)
