"""The mu-law map and its parametrisation, against the formulas in float64 and ONNX's own evaluator."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn

from ohmfold.errors import RecipeError
from ohmfold.models.mu_law import MuLaw, apply_mu_law, mu_law, mu_law_inverse

UNIT = st.floats(-1.0, 1.0, allow_subnormal=False)
MU = st.floats(0.5, 5000.0)


@given(w=UNIT, mu=MU)
def test_map_is_equation_3a(w: float, mu: float) -> None:
    expected = math.copysign(math.log(1 + mu * abs(w)) / math.log(1 + mu), w) if w else 0.0
    got = float(mu_law(torch.tensor(w, dtype=torch.float64), mu))
    # log(1 + x) loses what is below one ulp of 1, log1p does not: 1e-15 absolute, divided by ln(1 + mu).
    assert got == pytest.approx(expected, rel=1e-13, abs=1e-15)


@given(w=st.lists(UNIT, min_size=1, max_size=20), mu=MU)
def test_inverse_undoes_the_map(w: list[float], mu: float) -> None:
    original = torch.tensor(w, dtype=torch.float64)
    back = mu_law_inverse(mu_law(original, mu), mu)
    # Each of the four float64 functions rounds once; expm1 multiplies a relative error by at most ln(1 + mu).
    torch.testing.assert_close(back, original, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ends_and_zero_are_fixed(dtype: torch.dtype) -> None:
    points = torch.tensor([-1.0, 0.0, 1.0], dtype=dtype)
    torch.testing.assert_close(mu_law(points), points)
    torch.testing.assert_close(mu_law_inverse(points), points)
    assert mu_law(points)[1] == 0


@given(w=st.floats(0.01, 1.0), mu=MU)
def test_gradient_is_that_of_the_formula(w: float, mu: float) -> None:
    x = torch.tensor([w, -w], dtype=torch.float64, requires_grad=True)
    mu_law(x, mu).sum().backward()
    expected = mu / ((1 + mu * w) * math.log1p(mu))
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full((2,), expected, dtype=torch.float64))


def test_registering_maps_the_weight_and_keeps_the_original() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    before = model[2].weight.detach().clone()
    assert apply_mu_law(model, {"2": 255.0}) is model
    assert torch.equal(model[2].parametrizations.weight.original, before)
    assert torch.equal(model[2].weight, mu_law(before, 255.0))
    model(torch.ones(1, 6)).sum().backward()
    assert model[2].parametrizations.weight.original.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_normalised_domain_commutes_with_scaling(scale: float) -> None:
    w = torch.randn(5, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mapping = MuLaw(255.0, "normalised")
    torch.testing.assert_close(mapping(scale * w), scale * mapping(w))
    assert float(mapping(w).abs().max()) == pytest.approx(float(w.abs().max()))


def test_normalised_domain_leaves_zero_weights_zero() -> None:
    assert torch.equal(MuLaw(255.0, "normalised")(torch.zeros(3, 3)), torch.zeros(3, 3))


def test_literal_domain_refuses_large_weights_and_changes_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = -1.5
    with pytest.raises(RecipeError, match=r"'1'.*1\.5.*normalised"):
        apply_mu_law(model, {"0": 255.0, "1": 255.0})
    assert not hasattr(model[0], "parametrizations")
    apply_mu_law(model, {"1": 255.0}, domain="normalised")


def test_nan_weights_are_refused_in_the_literal_domain() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(RecipeError, match="nan"):
        apply_mu_law(model, {"0": 255.0})


@pytest.mark.parametrize("name", ["", "relu", "9", "bn"])
def test_unknown_layers_are_refused_with_the_names_of_those_there_are(name: str) -> None:
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(2, 2))
    model.add_module("relu", nn.ReLU())
    model.add_module("bn", nn.BatchNorm1d(2))
    with pytest.raises(RecipeError, match="expected one of fc"):
        apply_mu_law(model, {name: 255.0})


def test_mapping_twice_is_refused() -> None:
    model = apply_mu_law(nn.Sequential(nn.Linear(2, 2)), {"0": 255.0})
    with pytest.raises(RecipeError, match="already"):
        apply_mu_law(model, {"0": 255.0})


@pytest.mark.parametrize("mu", [0.0, -1.0, math.inf, math.nan, "255", True])
def test_impossible_mu_is_refused(mu: object) -> None:
    with pytest.raises(RecipeError, match="above 0"):
        MuLaw(mu)  # type: ignore[arg-type]


def test_unknown_domain_is_refused() -> None:
    with pytest.raises(RecipeError, match="literal, normalised"):
        MuLaw(255.0, "logarithmic")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("domain", ["literal", "normalised"])
def test_exported_graph_carries_the_map_as_plain_operators(domain: str) -> None:
    model = apply_mu_law(nn.Sequential(nn.Linear(5, 3)).eval(), {"0": 255.0}, domain)
    x = torch.rand(2, 5, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(model, (x,), dynamo=True, optimize=False, opset_version=21, verbose=False)
    ops = [node.op_type for node in program.model.graph if node.op_type not in {"Constant", "CastLike"}]
    core = ["Sign", "Abs", "Mul", "Add", "Log", "Mul", "Div"]
    expected = core if domain == "literal" else ["Abs", "ReduceMax", "Clip", "Div", *core, "Mul"]
    assert ops == [*expected, "Gemm"]
    assert "0.parametrizations.weight.original" in program.model.graph.initializers
    (logits,) = ReferenceEvaluator(program.model_proto).run(
        None, {program.model.graph.inputs[0].name: x.numpy()}
    )
    # The exporter writes log1p as Log(1 + x) in float32, hence a tolerance of several ulps.
    np.testing.assert_allclose(logits, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
