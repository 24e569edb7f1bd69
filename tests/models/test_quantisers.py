"""Trainable quantisers: values, gradients, and what a chain of layers must be."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from training_toys import toy_chain, toy_data

from ohmfold.errors import RecipeError
from ohmfold.models.plain_chain import chain_of
from ohmfold.models.quantised import Quantised
from ohmfold.models.quantisers import FakeQuantise, best_step, requantise, round_straight_through
from ohmfold.models.registry import build_model


def test_rounding_goes_to_even_and_passes_its_gradient() -> None:
    x = torch.tensor([-1.5, -0.5, 0.5, 1.5, 2.4], requires_grad=True)
    rounded = round_straight_through(x)
    assert rounded.tolist() == [-2, 0, 0, 2, 2]
    rounded.backward(torch.arange(5.0))
    assert x.grad is not None
    assert torch.equal(x.grad, torch.arange(5.0))


@given(seed=st.integers(0, 1000), bits=st.integers(2, 8), spread=st.floats(1e-4, 10))
@settings(max_examples=30, deadline=None)
def test_best_step_is_no_worse_than_that_of_the_largest_weight(seed: int, bits: int, spread: float) -> None:
    weight = spread * torch.randn(50, generator=torch.Generator().manual_seed(seed))
    outermost = 2 ** (bits - 1) - 1

    def error(step: float) -> float:
        codes = torch.round(weight.double() / step).clamp(-outermost, outermost)
        return float((weight.double() - step * codes).square().sum())

    step = float(best_step(weight, outermost))
    assert 0 < step <= float(weight.abs().max()) / outermost * (1 + 1e-6)
    assert error(step) <= error(float(weight.abs().max()) / outermost) * (1 + 1e-4)


def test_the_step_of_a_large_layer_comes_from_a_sample_that_is_like_it() -> None:
    weight = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0))
    weight[17, 3] = 9.0
    step = float(best_step(weight, 3))
    # Of a normal distribution's seven levels: 0.651 standard deviations (Max, "Quantizing for Minimum Distortion").
    assert step == pytest.approx(0.651, abs=3.0 / 64)


def test_fake_quantised_weights_lie_on_the_papers_levels() -> None:
    weight = torch.randn(40, generator=torch.Generator().manual_seed(0), requires_grad=True)
    quantised = FakeQuantise(3)(weight)
    step = weight.detach().abs().max() / 3
    codes = quantised.detach() / step
    assert torch.allclose(codes, torch.round(codes), atol=1e-5)
    assert float(codes.abs().max()) == pytest.approx(3)
    quantised.sum().backward()
    assert weight.grad is not None
    assert torch.allclose(weight.grad, torch.ones(40))
    assert torch.equal(FakeQuantise(3)(torch.zeros(4)), torch.zeros(4))


def test_requantisation_is_autograds_own_chain_of_operations() -> None:
    torch.manual_seed(3)
    products = (200 * torch.randn(6, 4, 5, 5)).round().requires_grad_()
    bias = (20 * torch.randn(4, 1, 1)).round().requires_grad_()
    multiplier = torch.tensor(0.37, requires_grad=True)
    upstream = torch.randn(6, 4, 5, 5)
    inputs = (products, bias, multiplier)
    plain = round_straight_through(((products + bias) * multiplier).clamp(0, 255))
    fused = requantise(*inputs, 255)
    assert torch.equal(plain, fused)
    wanted = torch.autograd.grad(plain, inputs, upstream)
    got = torch.autograd.grad(fused, inputs, upstream)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_a_learned_step_has_the_gradient_of_lsq() -> None:
    layer = Quantised(toy_chain(), 3).train().layer("fc2")
    scale = torch.tensor(1.0)
    numbers = layer.trained(scale)
    upstream = torch.randn(numbers.weight.shape, generator=torch.Generator().manual_seed(1))
    (got,) = torch.autograd.grad((upstream * numbers.weight * numbers.unit).sum(), layer.step.factor)
    step = layer.step.initial
    ratio = layer.weight.detach() / step
    inside = ratio.abs() <= 3
    slope = torch.where(inside, torch.round(ratio) - ratio, 3 * ratio.sign())
    assert float(got) == pytest.approx(float((upstream * slope).sum() * step), rel=1e-4)


def test_evaluation_and_training_mode_give_the_same_codes_away_from_ties() -> None:
    network = Quantised.of(toy_chain(1), 3, toy_data(32))
    pixels = torch.from_numpy(toy_data(16, 2).images).float() / 255
    trained = network.train().trace(pixels)
    judged = network.eval().trace(pixels)
    for name in ("conv", "fc1", "fc2"):
        differing = (trained[name] != judged[name]).float().mean()
        assert float(differing) < 0.01


def test_codes_are_fresh_after_training_and_after_loading() -> None:
    network, other = Quantised(toy_chain(1), 3).eval(), Quantised(toy_chain(2), 3).eval()
    pixels = torch.rand(4, 1, 8, 8)
    before, wanted = network(pixels), other(pixels)
    assert not torch.equal(before, wanted)
    network.load_state_dict(other.state_dict())
    assert torch.equal(network(pixels), wanted)
    network.train()
    with torch.no_grad():
        network.fc2.bias.add_(1)
    assert not torch.equal(network.eval()(pixels), wanted)


def test_pixels_have_a_gradient_and_frozen_weights_have_none() -> None:
    network = Quantised.of(toy_chain(1), 3, toy_data(32)).eval()
    pixels = torch.rand(4, 1, 8, 8, requires_grad=True)
    network(pixels).sum().backward()
    assert pixels.grad is not None
    assert float(pixels.grad.abs().sum()) > 0
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_mnist_cnn_is_a_plain_chain() -> None:
    kinds = [type(link.layer).__name__ for link in chain_of(build_model("mnist-cnn"))]
    assert kinds == [
        "Conv2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear", "ReLU", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "followed by"),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "the last step"),
        (nn.Sequential(nn.Flatten()), "at least one layer"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid()), "Sigmoid"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.Linear(2, 2)),
            "reflect",
        ),
    ],
    ids=["no ReLU", "no logits", "no layer", "sigmoid", "padding"],
)
def test_other_networks_are_refused_with_the_step_that_is_not_plain(network: nn.Module, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        chain_of(network)


def test_residual_networks_are_refused() -> None:
    with pytest.raises(RecipeError, match="plain chain"):
        Quantised(build_model("mnist-resnet8"), 3)
