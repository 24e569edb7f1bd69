"""A float ONNX file as a torch module computes what onnxruntime computes, and has the gradients of its operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import parsed, run_float
from torch import nn

from ohmfold.errors import DataError, UnsupportedError
from ohmfold.export import export_module
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.models.registry import build_model
from ohmfold.toolchain.float_torch import FloatModule

RNG = np.random.default_rng(0)


def array(*shape, scale=0.3):
    return RNG.normal(0, scale, shape).astype(np.float32)


def agree(model, shape, tolerance=1e-5):
    """Float32 sums in another order: equal to within rounding, which is what the tolerance allows."""
    x = RNG.random((3, *shape), np.float32)
    found = FloatModule(model)(torch.from_numpy(x)).numpy()
    expected = run_float(model, **{model.graph.inputs[0].name: x})
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < tolerance * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize(
    "name",
    [
        "mnist-cnn",
        "mnist-resnet8",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("mnist-vgg", "mnist-mobilenet")),
    ],
)
def test_exported_networks_compute_what_torch_computes(name):
    torch.manual_seed(0)
    module = build_model(name).eval()
    x = torch.rand(4, 1, 28, 28)
    again = FloatModule(export_module(module, (1, 28, 28)))
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(module(x).square().sum(), x)
    (found,) = torch.autograd.grad(again(x).square().sum(), x)
    with torch.no_grad():
        assert torch.allclose(again(x), module(x), rtol=1e-4, atol=1e-5)
    # Gradients sum in another order, too.
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-5 * float(wanted.abs().max()) + 1e-7)


GRAPHS = {
    "strided, dilated, grouped": (
        """g (float[N, 4, 9, 8] x) => (float[N, M] y) {
        a = Conv<strides = [2, 1], dilations = [1, 2], pads = [1, 0, 0, 2], group = 2> (x, w, b)
        c = LeakyRelu<alpha = 0.2> (a) \n d = Flatten (c) \n y = MatMul (d, v) }""",
        {"w": array(6, 2, 3, 3), "b": array(6), "v": array(6 * 4 * 6, 5)},
        (4, 9, 8),
    ),
    "pools": (
        """g (float[N, 2, 9, 9] x) => (float[N, M] y) {
        a = MaxPool<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1], ceil_mode = 1> (x)
        b = AveragePool<kernel_shape = [2, 2], strides = [2, 1], pads = [1, 1, 0, 0]> (a)
        c = AveragePool<kernel_shape = [2, 2], pads = [0, 1, 0, 1], count_include_pad = 1> (b)
        d = Flatten (c) \n y = MatMul (d, v) }""",
        {"v": array(2 * 2 * 6, 3)},
        (2, 9, 9),
    ),
    "normalised, clipped, added, joined": (
        """g (float[N, 2, 4, 4] x) => (float[N, M] y) {
        n = Sub (x, mean) \n s = Div (n, deviation)
        a = Conv<pads = [1, 1, 1, 1]> (s, w) \n b = Clip (a, low, high) \n c = Add (b, s)
        j = Concat<axis = 1> (c, b) \n k = Transpose<perm = [0, 2, 3, 1]> (j) \n p = GlobalAveragePool (j)
        q = Flatten (p) \n y = Gemm<transB = 1> (q, v, u) }""",
        {
            "mean": array(1, 2, 1, 1),
            "deviation": np.float32([0.5, 0.25]).reshape(1, 2, 1, 1),
            "w": array(2, 2, 3, 3),
            "low": np.float32(-0.2),
            "high": np.float32(0.7),
            "v": array(3, 4),
            "u": array(3),
        },
        (2, 4, 4),
    ),
    "one axis, probabilities behind the logits": (
        """g (float[N, 2, 12] x) => (float[N, M] p) {
        a = Conv<pads = [1, 1]> (x, w) \n b = Relu (a) \n m = MaxPool<kernel_shape = [2], strides = [2]> (b)
        f = Flatten (m) \n y = MatMul (f, v) \n p = Softmax (y) }""",
        {"w": array(3, 2, 3), "v": array(18, 4)},
        None,
    ),
}


@pytest.mark.parametrize("name", [name for name, graph in GRAPHS.items() if graph[2] is not None])
def test_graphs_of_others_compute_what_onnxruntime_computes(name):
    text, arrays, shape = GRAPHS[name]
    agree(parsed(text, **arrays), shape)


def test_what_follows_the_logits_is_left_out():
    text, arrays, _ = GRAPHS["one axis, probabilities behind the logits"]
    model = parsed(text, **arrays)
    x = RNG.random((3, 2, 12), np.float32)
    logits = FloatModule(model)(torch.from_numpy(x))
    expected = run_float(model, x=x)
    assert np.abs(torch.softmax(logits, 1).numpy() - expected).max() < 1e-6
    assert np.abs(logits.numpy() - expected).max() > 0.01


def test_a_mu_law_map_in_the_graph_is_part_of_the_function():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        net[1].weight.clamp_(-1, 1)
    plain = FloatModule(export_module(net, (1, 4, 4)))
    apply_mu_law(net, {"1": 255.0})
    x = torch.rand(2, 1, 4, 4)
    mapped = FloatModule(export_module(net, (1, 4, 4)))
    assert torch.allclose(mapped(x), net(x), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mapped(x), plain(x), atol=0.1)


def test_pixels_of_another_shape_and_operators_without_gradient_are_refused():
    text, arrays, _ = GRAPHS["pools"]
    with pytest.raises(DataError, match=r"takes \(None, 2, 9, 9\)"):
        FloatModule(parsed(text, **arrays))(torch.zeros(1, 2, 9, 8))
    with pytest.raises(UnsupportedError, match="Exp"):
        FloatModule(
            parsed("g (float[N, 4] x) => (float[N, 4] y) { a = Exp(x) \n y = MatMul(a, w) }", w=array(4, 4))
        )
