import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.errors import DataError
from ohmfold.toolchain.analysis.operators import RESIDUAL, LayerOperator, largest_singular_value

from ...support.analysed import spelled_out

# LAPACK and ARPACK both; a sum of at most a few hundred products of numbers around 1.
ROUNDING = {"rtol": 1e-11, "atol": 1e-12}


@st.composite
def convolutions(draw, largest_side=7):
    axes = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 3))
    size = [draw(st.integers(2, largest_side)) for _ in range(axes)]
    kernel = [draw(st.integers(1, 3)) for _ in range(axes)]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    pads = [draw(st.integers(0, 2)) for _ in range(2 * axes)]
    for i in range(axes):
        # Windows that do not fit have no output.
        if size[i] + pads[i] + pads[axes + i] < (kernel[i] - 1) * dilations[i] + 1:
            dilations[i], kernel[i] = 1, 1
    operator = LayerOperator(
        "conv",
        (groups * draw(st.integers(1, 2)), *size),
        tuple(draw(st.integers(1, 3)) for _ in range(axes)),
        tuple(pads),
        tuple(dilations),
        groups,
    )
    shape = (groups * draw(st.integers(1, 2)), operator.input_shape[0] // groups, *kernel)
    return operator, np.random.default_rng(draw(st.integers(0, 2**32))).normal(size=shape)


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.integers(0, 2**32))
def test_a_convolution_and_its_adjoint_are_its_matrix_and_the_transpose(drawn, seed):
    operator, weights = drawn
    matrix = spelled_out(operator, weights)
    random = np.random.default_rng(seed)
    x = random.normal(size=(3, *operator.input_shape))
    y = operator.apply(weights, x)
    np.testing.assert_allclose(y.reshape(3, -1), x.reshape(3, -1) @ matrix.T, **ROUNDING)
    z = random.normal(size=y.shape)
    np.testing.assert_allclose(
        operator.adjoint(weights, z).reshape(3, -1), z.reshape(3, -1) @ matrix, **ROUNDING
    )


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_norms_of_a_convolution_are_those_of_its_matrix(drawn):
    operator, weights = drawn
    matrix = spelled_out(operator, weights)
    assert operator.spectral_norm(weights) == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-11)
    assert operator.infinity_norm(weights) == pytest.approx(np.abs(matrix).sum(axis=1).max(), rel=1e-12)


@pytest.mark.parametrize(
    "operator",
    [
        LayerOperator("conv", (3, 9, 8), (1, 1), (1, 1, 1, 1), (1, 1)),
        LayerOperator("conv", (4, 13, 11), (2, 1), (0, 2, 1, 0), (1, 2), groups=2),
        LayerOperator("conv", (3, 60), (1,), (1, 1), (1,)),
    ],
    ids=["same", "strided, dilated, groups, odd padding", "one axis"],
)
@pytest.mark.parametrize("kind", ["random", "symmetric"])
def test_the_iteration_finds_what_scipy_finds_in_the_explicit_matrix(operator, kind):
    axes = len(operator.strides)
    weights = np.random.default_rng(1).normal(
        size=(6, operator.input_shape[0] // operator.groups, *(3,) * axes)
    )
    if kind == "symmetric":
        # Differences: the largest singular vector alternates, and all ones are orthogonal to it.
        taps = np.array([-1.0, 2.0, -1.0])
        weights = np.ones((6, 1, *(1,) * axes)) * (taps if axes == 1 else np.outer(taps, taps))
        weights = np.repeat(weights, operator.input_shape[0] // operator.groups, axis=1)
    matrix = spelled_out(operator, weights)
    assert min(matrix.shape) > 64  # else it is decomposed whole
    (expected,) = scipy.sparse.linalg.svds(
        matrix, k=1, return_singular_vectors=False, random_state=np.random.default_rng(5)
    )
    assert expected == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-10)
    assert operator.spectral_norm(weights) == pytest.approx(expected, rel=RESIDUAL)


def test_a_dense_layer_is_its_matrix():
    weights = np.random.default_rng(2).normal(size=(70, 90))
    operator = LayerOperator("dense", (70,))
    assert operator.spectral_norm(weights) == pytest.approx(np.linalg.norm(weights, 2), rel=RESIDUAL)
    assert operator.infinity_norm(weights) == pytest.approx(np.abs(weights).sum(axis=0).max(), rel=1e-14)


def test_windows_side_by_side_have_the_norm_of_the_unfolded_matrix():
    weights = np.random.default_rng(3).normal(size=(4, 2, 2, 2))
    operator = LayerOperator("conv", (2, 6, 6), (2, 2), (0, 0, 0, 0), (1, 1))
    assert operator.spectral_norm(weights) == pytest.approx(
        np.linalg.norm(weights.reshape(4, 8), 2), rel=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_overlapping_windows_add_at_most_the_root_of_their_number(drawn):
    operator, weights = drawn
    unfolded = np.linalg.norm(weights.reshape(len(weights), -1), 2)
    # How many windows a value lies in at most; with dilation and stride 2, in one for every tap.
    windows = np.prod(
        [
            -(-k // s) if d == 1 else k
            for k, s, d in zip(weights.shape[2:], operator.strides, operator.dilations, strict=True)
        ]
    )
    assert operator.spectral_norm(weights) <= np.sqrt(windows) * unfolded * (1 + 1e-12)


def test_groups_read_different_channels_and_do_not_add_up():
    # Two equal groups: side by side in the operator, on the same columns in the unfolded matrix.
    operator = LayerOperator("conv", (2, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1), groups=2)
    weights = np.ones((2, 1, 1, 1))
    assert operator.spectral_norm(weights) == pytest.approx(1.0, rel=1e-15)
    assert np.linalg.norm(weights.reshape(2, 1), 2) == pytest.approx(np.sqrt(2), rel=1e-15)


def test_an_input_inside_padding_bounds_less_than_a_whole_row():
    # 3x3 windows on one pixel: only the middle tap meets it.
    weights = np.arange(1.0, 10.0).reshape(1, 1, 3, 3)
    operator = LayerOperator("conv", (1, 1, 1), (1, 1), (1, 1, 1, 1), (1, 1))
    assert operator.infinity_norm(weights) == operator.spectral_norm(weights) == 5.0


@pytest.mark.parametrize("factor", [1e-200, 1e180])
def test_weights_of_any_magnitude_have_a_norm(factor):
    operator = LayerOperator("conv", (1, 2, 2), (1, 1), (0, 0, 0, 0), (1, 1))
    assert operator.spectral_norm(np.full((1, 1, 1, 1), -3.0 * factor)) == pytest.approx(
        3 * factor, rel=1e-15
    )


def test_weights_of_zero_have_norm_zero():
    operator = LayerOperator("conv", (1, 20, 20), (1, 1), (1, 1, 1, 1), (1, 1))
    assert operator.spectral_norm(np.zeros((1, 1, 3, 3))) == 0.0


def test_a_diagonal_operator_has_its_largest_entry_as_norm():
    diagonal = np.linspace(-7, 6, 200)
    assert largest_singular_value(
        lambda x: x * diagonal, lambda y: y * diagonal, (200, 200)
    ) == pytest.approx(7, rel=RESIDUAL)


def test_an_input_of_another_shape_is_refused():
    with pytest.raises(DataError, match=r"\(5,\) a sample; expected \(4,\)"):
        LayerOperator("dense", (4,)).apply(np.zeros((4, 2)), np.zeros((1, 5)))
