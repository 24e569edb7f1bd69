"""A network trained as integers and the artifact compiled from it agree on every code."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from training_toys import toy_chain, toy_data

from ohmfold.errors import RecipeError
from ohmfold.models.attack import Pgd
from ohmfold.models.checkpoints import load_model, save_weights
from ohmfold.models.image_data import Dataset
from ohmfold.models.quantised import Quantised
from ohmfold.models.recipe import TrainingRecipe
from ohmfold.models.recipes import method_of
from ohmfold.models.registry import build_model
from ohmfold.models.training import train
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.compiler import compile as compile_model
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import Conv, Dense
from ohmfold.toolchain.recipe import Recipe
from ohmfold.toolchain.twin import Twin


def _extreme(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Noise, black, white, black and white by chance, and almost black."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.integers(0, 256, (24, *shape), dtype=np.uint8),
            np.zeros((1, *shape), np.uint8),
            np.full((1, *shape), 255, np.uint8),
            rng.choice([0, 255], (16, *shape)).astype(np.uint8),
            rng.integers(0, 2, (8, *shape), dtype=np.uint8),
        ]
    )


def _assert_every_code_agrees(network: Quantised, calibration: np.ndarray, images: np.ndarray) -> None:
    emulator = Emulator(compile_model(network, calibration))
    found = emulator.trace(images)
    with torch.inference_mode():
        wanted = network.eval().trace(torch.from_numpy(images).float() / 255)
        logits = network(torch.from_numpy(images).float() / 255)
    layers = [layer for layer in emulator.program.layers if isinstance(layer, Conv | Dense)]
    assert len(layers) == len(wanted) - 1
    for layer, (name, codes) in zip(layers, wanted.items(), strict=False):
        got = found[layer.outputs[0]]
        assert np.array_equal(codes.numpy(), got.astype(np.float32)), name
    assert np.array_equal(found["logits"], wanted["logits"].numpy())
    assert np.array_equal(found["logits"], logits.numpy())


def _disturb(network: Quantised, seed: int) -> None:
    """Move everything that is learned away from where it starts, saturation included."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name in network.names:
            layer = network.layer(name)
            layer.step.factor.fill_(float(rng.uniform(0.2, 1.7)))
            layer.bias.add_(torch.from_numpy(rng.normal(0, 0.3, layer.bias.shape).astype(np.float32)))
            if layer.limit is not None:
                layer.limit.factor.fill_(float(rng.uniform(0.1, 3)))


@given(
    seed=st.integers(0, 10**6),
    bits=st.integers(2, 8),
    channels=st.integers(1, 7),
    hidden=st.integers(1, 33),
    kernel=st.sampled_from([1, 3, 5]),
)
@settings(phases=(Phase.explicit, Phase.generate), max_examples=8, deadline=None)
def test_module_and_artifact_agree_on_every_code(
    seed: int, bits: int, channels: int, hidden: int, kernel: int
) -> None:
    data = toy_data(16, seed)
    network = Quantised.of(toy_chain(seed, channels=channels, hidden=hidden, kernel=kernel), bits, data)
    _disturb(network, seed)
    _assert_every_code_agrees(network, data.images, _extreme((1, 8, 8), seed))


def test_they_agree_where_sums_pass_what_float32_holds() -> None:
    network = Quantised(toy_chain(channels=80, kernel=5), 8, {"conv": 0.02, "fc1": 5.0})
    with torch.no_grad():
        for name in network.names:
            network.layer(name).weight.abs_()
    assert network.eval().layer("fc1").frozen(torch.tensor(1.0)).weight.dtype == torch.float64
    _assert_every_code_agrees(network, toy_data(4).images, _extreme((1, 8, 8), 1))


def test_gradients_flow_after_a_look_in_inference_mode() -> None:
    network = Quantised.of(toy_chain(), 3, toy_data(16)).eval()
    pixels = torch.from_numpy(toy_data(4).images).float() / 255
    with torch.inference_mode():
        network(pixels)
    pixels.requires_grad_()
    network(pixels).square().sum().backward()
    assert pixels.grad is not None
    assert bool(pixels.grad.any())


def test_they_agree_on_the_mnist_cnn_as_it_is_stored(tmp_path: Path) -> None:
    images = _extreme((1, 28, 28), 3)
    network = Quantised(build_model("mnist-cnn", 2), 3, {"conv1": 0.4, "conv2": 0.3, "fc1": 0.2})
    save_weights(network, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert isinstance(again, Quantised)
    _assert_every_code_agrees(again, images[:4], images)


def test_they_agree_after_training_in_half_precision() -> None:
    data = toy_data(64)
    method = method_of("hardened", ["epsilon=0.1", "step=0.05", "steps=2"])
    recipe = TrainingRecipe(epochs=2, learning_rate=0.01, batch_size=16, precision="bfloat16")
    network = train(toy_chain(), data, recipe, method=method).module
    assert isinstance(network, Quantised)
    _assert_every_code_agrees(network, data.images[:8], _extreme((1, 8, 8), 0))


def test_onnxruntime_gives_the_modules_logits_too(tmp_path: Path) -> None:
    data = toy_data(32)
    network = Quantised.of(toy_chain(), 3, data)
    _disturb(network, 5)
    compile_model(network, data.images).save(tmp_path / "a.onnx")
    images = _extreme((1, 8, 8), 9)
    session = ort.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: images})
    with torch.inference_mode():
        assert np.array_equal(got, network.eval()(torch.from_numpy(images).float() / 255).numpy())


def test_calibration_images_change_nothing() -> None:
    data = toy_data(32)
    network = Quantised.of(toy_chain(), 3, data)
    dark = np.zeros((1, 1, 8, 8), np.uint8)
    one, other = compile_model(network, data.images), compile_model(network, dark)
    images = _extreme((1, 8, 8), 4)
    assert np.array_equal(Emulator(one)(images), Emulator(other)(images))


@pytest.mark.parametrize(
    "changes",
    [
        {"weight_bits": 4},
        {"step": "mse"},
        {"granularity": "channel"},
        {"levels": "full-range"},
        {"layers": {"fc1": {"weight_bits": 8}}},
        {"mu_law": {"fc2": 255.0}},
        {"bias_correction": True},
        {"scales": "pow2"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_would_change_a_trained_code_are_refused(changes: dict) -> None:
    network = Quantised(toy_chain(), 2)
    with pytest.raises(RecipeError, match=f"^{next(iter(changes))}: the network"):
        compile_model(network, toy_data(4).images, Recipe(**changes))


def test_the_default_recipe_and_the_networks_own_width_are_taken() -> None:
    network = Quantised(toy_chain(), 2)
    images = toy_data(4).images
    one, other = compile_model(network, images), compile_model(network, images, Recipe(weight_bits=2))
    assert np.array_equal(Emulator(one)(images), Emulator(other)(images))
    assert one.metadata()["recipe"]["weight_bits"] == 2


def test_limits_of_a_float_network_become_its_ranges_where_it_has_some() -> None:
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 5), nn.Hardtanh(0, 300.0), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2)
    )
    images = toy_data(4).images

    def scales(recipe: Recipe) -> dict[str, float]:
        found = compile_model(network, images, recipe).metadata()["activations"]
        return {name: np.float32(value["scale"]) for name, value in found.items()}

    limited, plain = scales(Recipe(calibration="limits")), scales(Recipe())
    changed = [name for name in plain if limited[name] != plain[name]]
    assert [limited[name] for name in changed] == [np.float32(300 / 255)]
    assert all(plain[name] < limited[name] for name in changed)


@pytest.mark.slow
def test_hardening_makes_the_artifact_robust_and_not_only_the_float_network() -> None:
    data, test = toy_data(160), toy_data(150, 5)
    recipe = TrainingRecipe(epochs=12, batch_size=20, learning_rate=0.01, seed=3)
    attacked = ["epsilon=0.3", "step=0.12", "steps=3", "warm_up=0.5"]
    standing = {}
    for name, chosen in (("standard", []), ("hardened", attacked)):
        network = train(toy_chain(), data, recipe, method=method_of(name, chosen)).module
        assert network is not None
        artifact = compile_model(network, data.images)
        assert np.mean(Emulator(artifact).predict(test.images) == test.labels) > 0.9
        standing[name] = _standing(artifact, test)
    assert standing["hardened"] > standing["standard"] + 0.2


def _standing(artifact: Artifact, test: Dataset) -> float:
    """Accuracy of the emulator on codes that an attack on the twin leaves, within floor(255 * 0.3) codes."""
    pixels, labels = torch.from_numpy(test.images).float() / 255, torch.from_numpy(test.labels)
    torch.manual_seed(0)
    attacked = Pgd(epsilon=76 / 255, step=0.04, steps=20)(Twin(artifact), pixels, labels)
    codes = torch.round(255 * attacked).to(torch.uint8).numpy()
    assert np.abs(codes.astype(int) - test.images).max() <= 76
    return float(np.mean(Emulator(artifact).predict(codes) == test.labels))
