import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from ohmfold.errors import DataError
from ohmfold.toolchain.analysis.weights import weight_error

small = st.floats(-8, 8, allow_nan=False, width=32)


def as_rows(array: np.ndarray) -> np.ndarray:
    """The matrix of Eq. 2, spelled out entry by entry."""
    if array.ndim == 2:
        return np.array([[array[k, n] for k in range(array.shape[0])] for n in range(array.shape[1])])
    return np.array(
        [[array[o][index] for index in np.ndindex(array.shape[1:])] for o in range(array.shape[0])]
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_norms_are_those_of_the_unfolded_error(data):
    shape = data.draw(array_shapes(min_dims=2, max_dims=4, max_side=5))
    weights = data.draw(arrays(np.float32, shape, elements=small))
    rounded = data.draw(arrays(np.float64, shape, elements=small))
    found = weight_error(weights, rounded)
    error = as_rows(weights.astype(np.float64) - rounded)
    # An eigenvalue of the Gram matrix is exact to about eps times the largest, which is the one that counts.
    assert found.spectral == pytest.approx(np.linalg.svd(error, compute_uv=False)[0], rel=1e-12, abs=1e-300)
    assert found.infinity == pytest.approx(max(sum(abs(x) for x in row) for row in error), rel=1e-12, abs=0)


def test_no_unit_vector_is_stretched_further_than_the_spectral_norm():
    random = np.random.default_rng(0)
    weights = random.normal(size=(6, 4))
    rounded = np.rint(weights)
    found = weight_error(weights, rounded)
    error = (weights - rounded).T
    angles = random.normal(size=(200_000, 6))
    stretched = np.linalg.norm(angles @ error.T, axis=1) / np.linalg.norm(angles, axis=1)
    assert stretched.max() <= found.spectral
    # 200 000 random directions come within 2 % of the best one in six dimensions.
    assert stretched.max() > 0.98 * found.spectral


def test_the_infinity_norm_is_reached_by_a_vector_of_signs():
    random = np.random.default_rng(1)
    weights = random.normal(size=(3, 2, 2, 2))
    error = weights.reshape(3, 8)
    signs = np.array(list(np.ndindex(*(2,) * 8))) * 2 - 1
    assert weight_error(weights, np.zeros_like(weights)).infinity == np.abs(signs @ error.T).max()


@pytest.mark.parametrize(
    "error",
    [
        2 * np.eye(64) - np.eye(64, k=1) - np.eye(64, k=-1),
        2 * np.eye(64) - np.roll(np.eye(64), 1, axis=1) - np.roll(np.eye(64), -1, axis=1),
        np.eye(64) - 1 / 64,
    ],
    ids=["alternating", "rows of sum zero", "ones taken to zero"],
)
def test_a_large_error_that_is_symmetric_has_its_largest_singular_value(error):
    found = weight_error(error, np.zeros_like(error)).spectral
    assert found == pytest.approx(np.linalg.norm(error, 2), rel=1e-12)


def test_a_diagonal_error_has_its_largest_entry_as_norm():
    found = weight_error(np.diag([0.25, -3.0, 2.0]), np.zeros((3, 3)))
    assert found.spectral == 3.0
    assert found.infinity == 3.0


def test_snr_is_in_decibels():
    weights = np.array([[3.0, 4.0]])
    assert weight_error(weights, np.array([[3.0, 3.5]])).snr_db == pytest.approx(20.0, abs=1e-12)


def test_exact_weights_have_no_snr_and_no_error():
    weights = np.arange(6.0).reshape(2, 3)
    found = weight_error(weights, weights)
    assert found == type(found)(None, 0.0, 0.0)


def test_weights_of_zero_have_no_snr_but_may_have_an_error():
    found = weight_error(np.zeros((2, 2)), np.ones((2, 2)))
    assert found.snr_db is None
    assert found.spectral == pytest.approx(2.0, rel=1e-15)


@pytest.mark.parametrize("factor", [1e-200, 1e100])
def test_errors_of_any_magnitude_have_a_norm(factor):
    error = np.array([[3.0, 0.0], [4.0, 0.0]])
    assert math.isclose(weight_error(error * factor, np.zeros((2, 2))).infinity, 7 * factor)
    assert math.isclose(weight_error(error * factor, np.zeros((2, 2))).spectral, 5 * factor)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 2)), ((4,), (4,))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(DataError, match="expected the same shape"):
        weight_error(np.zeros(shapes[0]), np.zeros(shapes[1]))
