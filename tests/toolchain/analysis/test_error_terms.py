import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.errors import DataError
from ohmfold.toolchain.analysis import error_terms as module
from ohmfold.toolchain.analysis.error_terms import error_terms, terms_of
from ohmfold.toolchain.analysis.operators import LayerOperator
from ohmfold.toolchain.analysis.quantised_layers import quantised_layers
from ohmfold.toolchain.recipe import Recipe

from ...support.analysed import SHAPE, small_network, some_images, spelled_out

CONV = LayerOperator("conv", (2, 5, 4), (2, 1), (1, 0, 0, 1), (1, 1))
DENSE = LayerOperator("dense", (12,))
SHAPES = {CONV: (3, 2, 3, 2), DENSE: (12, 5)}
UNIT = 2.0**-53


def attacked(images, seed=5, radius=40):
    change = np.random.default_rng(seed).integers(-radius, radius + 1, images.shape)
    return np.clip(images.astype(int) + change, 0, 255).astype(np.uint8)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([CONV, DENSE]), st.integers(0, 2**32), st.integers(1, 20))
def test_the_terms_sum_to_the_observed_difference_exactly_where_nothing_rounds(operator, seed, bits):
    random = np.random.default_rng(seed)

    def draw(*shape):
        # Multiples of 2**-10 of at most 20 bits: products have 40, sums of dozens fit 53.
        return random.integers(-(2**bits), 2**bits + 1, shape) / 2.0**10

    weights, quantised = draw(*SHAPES[operator]), draw(*SHAPES[operator])
    found = terms_of(
        operator, weights, quantised, draw(4, *operator.input_shape), draw(4, *operator.input_shape)
    )
    assert np.array_equal(found.total, found.observed)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([CONV, DENSE]), st.integers(0, 2**32), st.floats(-6, 6))
def test_the_terms_sum_to_the_observed_difference_up_to_the_stated_rounding(operator, seed, magnitude):
    random = np.random.default_rng(seed)
    weights, quantised = (random.normal(size=SHAPES[operator]) for _ in range(2))
    quantised *= 10**magnitude
    clean, after = (random.normal(size=(4, *operator.input_shape)) for _ in range(2))
    found = terms_of(operator, weights, quantised, clean, after)
    w, q, e, x, y, d = (
        np.abs(a) for a in (weights, quantised, quantised - weights, clean, after, after - clean)
    )
    products = sum(operator.apply(a, b) for a, b in ((q, y), (w, x), (w, d), (e, x), (e, d)))
    count = weights.size // (weights.shape[-1] if operator.kind == "dense" else len(weights))
    assert (np.abs(found.total - found.observed) <= (count + 8) * UNIT * products).all()


def test_each_term_is_the_product_that_it_is_named_for():
    random = np.random.default_rng(1)
    weights, quantised = (random.normal(size=SHAPES[CONV]) for _ in range(2))
    clean, after = (random.normal(size=(2, *CONV.input_shape)) for _ in range(2))
    found = terms_of(CONV, weights, quantised, clean, after)
    real, error = spelled_out(CONV, weights), spelled_out(CONV, quantised - weights)
    x, change = clean.reshape(2, -1), (after - clean).reshape(2, -1)
    for name, matrix, vector in (
        ("signal", real, x),
        ("attack", real, change),
        ("quantisation", error, x),
        ("cross", error, change),
    ):
        np.testing.assert_allclose(getattr(found, name).reshape(2, -1), vector @ matrix.T, rtol=0, atol=1e-12)


def test_lengths_are_means_over_all_images_however_they_are_batched(monkeypatch):
    images = some_images(9)
    after = attacked(images)
    network = quantised_layers(small_network(), Recipe(), SHAPE)
    whole = error_terms(network, images, after)
    (before,), (changed,) = list(network.inputs(images, 9)), list(network.inputs(after, 9))
    for layer, found in zip(network.layers, whole, strict=True):
        x, y = before[layer.input].astype(np.float64), changed[layer.input].astype(np.float64)
        terms = terms_of(layer.operator, layer.weights, layer.dequantised, x, y)
        for name in ("signal", "attack", "quantisation", "cross", "observed"):
            lengths = [np.sqrt(np.square(one).sum()) for one in getattr(terms, name)]
            assert getattr(found, name) == pytest.approx(np.mean(lengths), rel=1e-13)
        assert found.input == pytest.approx(np.mean([np.sqrt(np.square(one).sum()) for one in x]), rel=1e-13)
        assert found.relative("attack") == found.attack / found.signal
        assert found.rounding < 1e-14
    monkeypatch.setattr(module, "_batch_size", lambda _: 2)
    for one, other in zip(error_terms(network, images, after), whole, strict=True):
        # onnxruntime's float32 sums may depend on the batch.
        assert one.observed == pytest.approx(other.observed, rel=1e-5)


def test_images_without_a_change_have_the_quantisation_term_alone():
    images = some_images(4)
    for found in error_terms(quantised_layers(small_network(), Recipe(), SHAPE), images, images):
        assert (found.input_change, found.attack, found.cross) == (0.0, 0.0, 0.0)
        assert found.observed == pytest.approx(found.quantisation, rel=1e-12)
        assert found.quantisation > 0


def test_without_a_signal_there_is_no_relative_length():
    terms = module.ErrorTerms(0.0, 1.0, 0.0, 2.0, 0.0, 1.0, 3.0, 0.0)
    assert terms.relative("attack") is None


@pytest.mark.parametrize(
    ("clean", "after", "message"),
    [
        (some_images(2)[:, :1], some_images(2), r"clean images: found uint8\(2, 1, 6, 6\)"),
        (some_images(2), some_images(2).astype(float), "attacked images: found float64"),
        (some_images(0), some_images(0), "at least one"),
        (some_images(2), some_images(3), "2 clean and 3 attacked"),
    ],
)
def test_images_that_do_not_fit_are_refused(clean, after, message):
    network = quantised_layers(small_network(), Recipe(), SHAPE)
    with pytest.raises(DataError, match=message):
        error_terms(network, clean, after)
