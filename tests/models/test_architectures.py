"""Shapes, names and parameter counts of the architectures and the registry."""

import pytest
import torch
from torch import nn

from ohmfold.errors import RecipeError
from ohmfold.models.cnn import MnistCnn
from ohmfold.models.mobilenet import Block, InvertedResidual, MobileNet
from ohmfold.models.quantised import Quantised
from ohmfold.models.registry import MODELS, build_model, find_model, matching_architecture
from ohmfold.models.resnet import PreActResNet, PreActUnit
from ohmfold.models.vgg import Vgg


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_mnist_cnn_has_the_layers_of_madrys_challenge() -> None:
    model = MnistCnn()
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if name.endswith("weight")}
    assert shapes == {
        "conv1.weight": (32, 1, 5, 5),
        "conv2.weight": (64, 32, 5, 5),
        "fc1.weight": (1024, 3136),
        "fc2.weight": (10, 1024),
    }
    assert _parameters(model) == 3_274_634
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_madry_initialisation_is_a_truncated_normal() -> None:
    model = MnistCnn(madry_init=True)
    assert float(model.fc1.weight.detach().abs().max()) <= 0.2
    # A normal cut at two standard deviations keeps 0.88 of its standard deviation.
    assert float(model.fc1.weight.detach().std()) == pytest.approx(0.088, abs=0.001)
    assert torch.all(model.conv1.bias == 0.1)


# The wide ResNet has 46 million parameters; its shape is tested on the meta device below.
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"cifar-wrn32"}))
def test_registered_models_map_images_to_ten_finite_logits(name: str) -> None:
    shape = (1, 28, 28) if name.startswith("mnist") else (3, 32, 32)
    model = build_model(name).eval()
    with torch.inference_mode():
        logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 10)
    assert bool(torch.isfinite(logits).all())


def test_wide_resnet_has_the_size_that_its_paper_gives() -> None:
    with torch.device("meta"):
        wrn28 = PreActResNet((160, 320, 640), 4, 10, 3, stem=16)
        wrn32 = MODELS["cifar-wrn32"]()
    # Zagoruyko and Komodakis, Table 4: WRN-28-10 has 36.5 M parameters.
    assert _parameters(wrn28) == 36_479_194
    assert sum(isinstance(layer, PreActUnit) for layer in wrn32.modules()) == 15
    assert wrn32(torch.zeros(1, 3, 32, 32, device="meta")).shape == (1, 10)


def test_mobilenet_v2_has_the_size_that_its_paper_gives() -> None:
    with torch.device("meta"):
        model = MODELS["cifar-mobilenet"]()
    # Sandler et al., Table 4: 3.4 M with a head of 1000 classes, which is 1.28 M; 10 classes leave 2.24 M.
    assert _parameters(model) == 2_236_682


def test_identity_units_add_their_input() -> None:
    unit = PreActUnit(4, 4, 1).eval()
    nn.init.zeros_(unit.conv2.weight)
    x = torch.rand(1, 4, 5, 5)
    assert torch.equal(unit(x), x)
    block = InvertedResidual(4, Block(2, 4, 1)).eval()
    nn.init.zeros_(block.layers[-2].weight)
    assert torch.equal(block(x), x)


def test_units_that_change_shape_project_their_input() -> None:
    unit = PreActUnit(4, 6, 2).eval()
    assert unit(torch.rand(1, 4, 5, 5)).shape == (1, 6, 3, 3)
    assert PreActUnit(4, 4, 1).skip is None


def test_vgg_head_fits_odd_image_sizes() -> None:
    assert Vgg(((4,), (4, 4)), 7, 2, 13)(torch.rand(1, 2, 13, 13)).shape == (1, 7)


def test_mobilenet_blocks_may_be_plain_tuples() -> None:
    model = MobileNet([(1, 4, 2), (3, 4, 1)], 5, 2, stem=4, stem_stride=2, head=8).eval()
    assert model(torch.rand(1, 2, 16, 16)).shape == (1, 5)
    depthwise = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d) and layer.groups > 1]
    assert [layer.groups for layer in depthwise] == [4, 12]


def test_seed_decides_initial_weights_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (
        build_model("mnist-vgg", 1),
        build_model("mnist-vgg", 1),
        build_model("mnist-vgg", 2),
    )
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.fc.weight, second.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)


def test_unknown_model_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(RecipeError, match="mnist-cnn"):
        build_model("alexnet")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_registered_models_are_recognised_by_their_tensors(name: str) -> None:
    with torch.device("meta"):
        state = MODELS[name]().state_dict()
    assert matching_architecture(state) == name
    assert matching_architecture({**state, "extra": torch.zeros(1)}) is None


@pytest.mark.parametrize("width", [1, 2, 4])
def test_wide_resnets_of_any_width_are_built_and_recognised(width: int) -> None:
    build = find_model(f"cifar-wrn32-{width}")
    assert build is not None
    with torch.device("meta"):
        model = build()
    assert model.fc.in_features == 64 * width
    assert sum(isinstance(layer, PreActUnit) for layer in model.modules()) == 15
    assert matching_architecture(model.state_dict()) == f"cifar-wrn32-{width}"


def test_width_ten_is_the_one_without_a_number() -> None:
    build = find_model("cifar-wrn32-10")
    assert build is not None
    with torch.device("meta"):
        assert matching_architecture(build().state_dict()) == "cifar-wrn32"


def test_integer_networks_of_the_registry_are_recognised_with_their_width() -> None:
    model = build_model("mnist-cnn-w3")
    assert isinstance(model, Quantised)
    assert matching_architecture(model.state_dict()) == "mnist-cnn-w3"
    assert matching_architecture(Quantised(build_model("mnist-cnn"), 2).state_dict()) == "mnist-cnn-w2"
    assert matching_architecture({"bits": torch.tensor(3)}) is None


@pytest.mark.parametrize("name", ["cifar-wrn32-0", "cifar-wrn32-100", "cifar-wrn32-", "mnist-cnn-w1", "x-w3"])
def test_names_outside_a_family_are_unknown(name: str) -> None:
    assert find_model(name) is None
    with pytest.raises(RecipeError, match="cifar-wrn32-WIDTH"):
        build_model(name)
