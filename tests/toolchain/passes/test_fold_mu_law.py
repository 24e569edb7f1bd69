"""The mu-law map is folded once, in float64, and nothing else is taken for it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import parsed
from torch import nn

from ohmfold.errors import ModelError, RecipeError, UnsupportedError
from ohmfold.export import export_module
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.toolchain.graph import constant
from ohmfold.toolchain.passes import FoldMuLawPass, NameLayersPass, apply
from ohmfold.toolchain.passes.fold_mu_law import mu_law


def weights_of(model, layer):
    node = next(n for n in model.graph if n.name == layer)
    return constant(node.inputs[1])


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 4)).eval()


@given(arrays(np.float32, 7, elements=st.floats(-1, 1, width=32)), st.floats(0.5, 1000))
def test_the_map_is_eq_3a_rounded_once(w, mu):
    expected = [np.float32(np.sign(x) * np.log1p(mu * abs(float(x))) / np.log1p(mu)) for x in w]
    assert np.array_equal(mu_law(w, mu), np.array(expected, np.float32))


@pytest.mark.parametrize("domain", ["literal", "normalised"])
def test_an_exported_map_is_folded_into_the_weights(domain):
    module = network()
    original = module[3].weight.detach().numpy().copy()
    model = export_module(apply_mu_law(module, {"3": 255.0}, domain), (1, 4, 4))
    apply(NameLayersPass(), model)
    result = apply(FoldMuLawPass(), model)
    assert result.modified
    assert np.array_equal(weights_of(model, "3"), mu_law(original, 255.0, domain))


@pytest.mark.parametrize("domain", ["literal", "normalised"])
def test_a_recipe_gives_the_same_weights_as_the_parametrisation(domain):
    original = network()[3].weight.detach().numpy().copy()
    model = export_module(network(), (1, 4, 4))
    apply(NameLayersPass(), model)
    apply(FoldMuLawPass({"3": 40.0}, domain), model)
    stored = weights_of(model, "3")
    assert np.array_equal(np.sort(stored.reshape(-1)), np.sort(mu_law(original, 40.0, domain).reshape(-1)))


def test_weights_without_a_map_are_left_alone():
    model = export_module(network(), (1, 4, 4))
    apply(NameLayersPass(), model)
    assert not apply(FoldMuLawPass(), model).modified


def test_a_map_on_a_layer_that_carries_one_is_refused():
    model = export_module(apply_mu_law(network(), {"3": 255.0}), (1, 4, 4))
    apply(NameLayersPass(), model)
    with pytest.raises(RecipeError, match="carry a mu-law map already"):
        apply(FoldMuLawPass({"3": 255.0}), model)


def test_unknown_layers_are_refused_and_the_known_ones_named():
    model = export_module(network(), (1, 4, 4))
    apply(NameLayersPass(), model)
    with pytest.raises(RecipeError, match="no layer 'fc9'; the layers with weights are 1, 3"):
        apply(FoldMuLawPass({"fc9": 255.0}), model)


def test_literal_weights_above_one_are_refused_with_their_size():
    text = "g (float[n,2] pixels) => (float[n,2] logits) { logits = MatMul(pixels, fc__weight) }"
    model = parsed(text, fc__weight=np.array([[0.5, -1.5], [0.1, 0.2]], np.float32))
    apply(NameLayersPass(), model)
    with pytest.raises(RecipeError, match=r"layer 'fc': max\|w\| = 1.5"):
        apply(FoldMuLawPass({"fc": 255.0}), model)
    apply(FoldMuLawPass({"fc": 255.0}, "normalised"), model)


def test_a_logarithm_that_is_not_the_mu_law_is_refused():
    text = """g (float[n,2] pixels) => (float[n,2] logits) {
        s = Sign(fc__weight) a = Abs(fc__weight) m = Mul(a, mu) p = Add(m, one) l = Log(p) w = Mul(s, l)
        logits = MatMul(pixels, w) }"""
    model = parsed(
        text,
        fc__weight=np.array([[0.5, -0.5], [0.1, 0.2]], np.float32),
        mu=np.float32(255),
        one=np.float32(1),
    )
    apply(NameLayersPass(), model)
    with pytest.raises(UnsupportedError, match=r"not Eq\. 3a"):
        apply(FoldMuLawPass(), model)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinite_weights_are_refused(bad):
    text = "g (float[n,2] pixels) => (float[n,2] logits) { logits = MatMul(pixels, fc__weight) }"
    model = parsed(text, fc__weight=np.array([[0.5, bad], [0.1, 0.2]], np.float32))
    apply(NameLayersPass(), model)
    with pytest.raises(ModelError, match=r"layer 'fc': weight \[0, 1\]"):
        apply(FoldMuLawPass({"fc": 255.0}), model)
