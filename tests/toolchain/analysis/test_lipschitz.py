import numpy as np
import pytest

from ohmfold.toolchain.analysis.lipschitz import Lipschitz, lipschitz, product
from ohmfold.toolchain.analysis.quantised_layers import quantised_layers
from ohmfold.toolchain.recipe import Recipe

from ...support.analysed import MU, SHAPE, mapped, small_network, spelled_out


def rows(weights):
    return weights.T if weights.ndim == 2 else weights.reshape(len(weights), -1)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(mu_law={"last": MU}), Recipe(granularity="channel")])
def test_the_norms_are_those_of_the_error_written_out(recipe):
    for layer in quantised_layers(small_network(), recipe, SHAPE).layers:
        found = lipschitz(layer)
        matrix = rows(layer.error)
        operator = spelled_out(layer.operator, layer.error)
        assert found.spectral == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-12)
        assert found.infinity == pytest.approx(np.abs(matrix).sum(axis=1).max(), rel=1e-13)
        # Lanczos' residual bounds the error of the operator's.
        assert found.operator_spectral == pytest.approx(np.linalg.norm(operator, 2), rel=1e-8)
        assert found.operator_infinity == pytest.approx(np.abs(operator).sum(axis=1).max(), rel=1e-13)


def test_the_error_of_mapped_weights_is_measured_on_the_mapped_ones():
    plain, other = (
        quantised_layers(small_network(), recipe, SHAPE).layers
        for recipe in (Recipe(), Recipe(mu_law={"last": MU}))
    )
    weights = mapped(plain[-1].real).astype(np.float64)
    step = float(np.float32(np.abs(weights).max() / 3))
    error = step * np.clip(np.rint(weights / step), -3, 3) - weights
    assert lipschitz(other[-1]).spectral == pytest.approx(np.linalg.norm(error, 2), rel=1e-12)
    assert lipschitz(other[-1]) != lipschitz(plain[-1])
    assert [lipschitz(layer) for layer in other[:-1]] == [lipschitz(layer) for layer in plain[:-1]]


def test_no_input_is_stretched_further_than_the_operator_norm():
    random = np.random.default_rng(0)
    for layer in quantised_layers(small_network(), Recipe(), SHAPE).layers:
        x = random.normal(size=(500, *layer.operator.input_shape))
        y = layer.operator.apply(layer.error, x)
        found = lipschitz(layer)
        stretched = np.linalg.norm(y.reshape(500, -1), axis=1) / np.linalg.norm(x.reshape(500, -1), axis=1)
        assert stretched.max() <= found.operator_spectral
        peaks = np.abs(y).reshape(500, -1).max(axis=1) / np.abs(x).reshape(500, -1).max(axis=1)
        assert peaks.max() <= found.operator_infinity


def test_a_product_is_norm_by_norm():
    found = product([Lipschitz(1.0, 2.0, 3.0, 4.0), Lipschitz(0.5, 0.25, 2.0, 10.0)])
    assert found == Lipschitz(0.5, 0.5, 6.0, 40.0)
