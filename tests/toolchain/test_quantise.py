"""Weights to codes: the formulas of the contract, written out again the slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ohmfold.toolchain.quantise import levels_of, power_of_two_at_least, quantise_weights, round_to_levels
from ohmfold.toolchain.recipe import WeightOptions

REAL = st.floats(-4, 4, width=32)
WEIGHTS = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=REAL)


def options(**settings):
    return WeightOptions(**settings)


@pytest.mark.parametrize(
    ("bits", "kind", "levels"),
    [
        (1, "linear", [-1, 1]),
        (2, "linear", [-1, 0, 1]),
        (3, "linear", [-3, -2, -1, 0, 1, 2, 3]),
        (3, "full-range", [-4, -3, -2, -1, 0, 1, 2, 3]),
        (2, "log2", [-1, 0, 1]),
        (3, "log2", [-4, -2, -1, 0, 1, 2, 4]),
        (4, "log2", [-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_levels_are_those_of_the_contract(bits, kind, levels):
    assert levels_of(bits, kind).tolist() == levels


@given(WEIGHTS, st.integers(2, 8))
def test_linear_codes_are_clipped_roundings_of_w_over_step(w, bits):
    result = quantise_weights(w, options(weight_bits=bits), channel_axis=0)
    top = 2 ** (bits - 1) - 1
    peak = float(np.abs(w.astype(np.float64)).max())
    step = np.float32(peak / top)
    if step < np.finfo(np.float32).tiny:
        assert result.step == 1
        return
    assert result.step == step
    expected = [max(-top, min(top, round(float(x) / float(step)))) for x in w.reshape(-1)]
    assert result.codes.reshape(-1).tolist() == expected


@given(WEIGHTS)
def test_one_bit_codes_are_signs_and_the_step_is_the_mean_magnitude(w):
    result = quantise_weights(w, options(weight_bits=1), channel_axis=0)
    assert result.codes.tolist() == [[-1 if x < 0 else 1 for x in row] for row in w]
    mean = np.abs(w.astype(np.float64)).mean()
    assert result.step == (np.float32(mean) if mean >= np.finfo(np.float32).tiny else 1)


@given(WEIGHTS, st.integers(2, 4), st.sampled_from(["linear", "full-range", "log2"]))
def test_every_code_is_a_nearest_level(w, bits, kind):
    result = quantise_weights(w, options(weight_bits=bits, levels=kind), channel_axis=0)
    levels = levels_of(bits, kind)
    scaled = w.astype(np.float64) / np.float64(result.step)
    distance = np.abs(scaled[..., None] - levels)
    chosen = np.abs(scaled - result.codes)
    assert np.array_equal(chosen, distance.min(axis=-1))


@given(WEIGHTS, st.integers(1, 8), st.sampled_from(["max", "mse"]))
def test_per_channel_is_per_tensor_of_each_channel(w, bits, step):
    both = quantise_weights(w, options(weight_bits=bits, step=step, granularity="channel"), channel_axis=0)
    for row, codes, one_step in zip(w, both.codes, both.step, strict=True):
        alone = quantise_weights(row[None], options(weight_bits=bits, step=step), channel_axis=0)
        assert np.array_equal(alone.codes[0], codes)
        assert alone.step == one_step


@given(WEIGHTS, st.integers(2, 4), st.sampled_from(["linear", "full-range", "log2"]))
def test_the_mse_step_is_never_worse_than_the_max_step(w, bits, kind):
    def error(step):
        result = quantise_weights(w, options(weight_bits=bits, levels=kind, step=step), channel_axis=0)
        return np.square(w.astype(np.float64) - result.dequantised()).sum()

    # Both steps are rounded to float32 after the search; that rounding alone may turn the comparison.
    assert error("mse") <= error("max") * (1 + 1e-5) + 1e-12


def test_the_mse_step_beats_the_max_step_where_one_weight_is_an_outlier():
    w = np.concatenate((np.linspace(-1, 1, 200), [6.0])).astype(np.float32)[None]
    errors = {
        step: np.square(w - quantise_weights(w, options(step=step), channel_axis=0).dequantised()).sum()
        for step in ("max", "mse")
    }
    assert errors["mse"] < 0.7 * errors["max"]


@given(WEIGHTS, st.integers(1, 8), st.sampled_from(["max", "mse"]), st.sampled_from(["tensor", "channel"]))
def test_power_of_two_steps_are_powers_of_two(w, bits, step, granularity):
    chosen = options(weight_bits=bits, step=step, granularity=granularity)
    result = quantise_weights(w, chosen, channel_axis=0, power_of_two=True)
    assert (np.frexp(result.step)[0] == 0.5).all()


def test_power_of_two_at_least_is_exact_at_powers_of_two():
    values = np.array([1.0, 2.0, 0.25, 1.0000001, 3.0, 0.2500001])
    assert power_of_two_at_least(values).tolist() == [1.0, 2.0, 0.25, 2.0, 4.0, 0.5]


def test_a_given_step_is_kept():
    result = quantise_weights(np.array([[0.3, -2.0]]), options(step=0.25), channel_axis=0)
    assert result.step == np.float32(0.25)
    assert result.codes.tolist() == [[1, -3]]


def test_ties_round_half_to_even_on_even_levels_and_to_the_smaller_magnitude_on_log2_levels():
    assert round_to_levels(np.array([0.5, 1.5, 2.5, -0.5, -1.5]), levels_of(3, "linear")).tolist() == [
        0,
        2,
        2,
        0,
        -2,
    ]
    assert round_to_levels(np.array([0.5, 1.5, 3.0, -3.0]), levels_of(3, "log2")).tolist() == [0, 1, 2, -2]


def test_all_zero_weights_have_step_one():
    for bits in range(1, 9):
        result = quantise_weights(np.zeros((2, 3)), options(weight_bits=bits), channel_axis=0)
        assert result.step == 1


def test_the_channel_axis_of_dense_weights_is_the_last():
    w = np.array([[1.0, 10.0], [3.0, -30.0]])
    result = quantise_weights(w, options(granularity="channel"), channel_axis=1)
    assert result.step.tolist() == [np.float32(1.0), np.float32(10.0)]
    assert result.codes.tolist() == [[1, 1], [3, -3]]
