"""Requantisation against float32 NumPy, ties and limits first."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.kernels.requantise import requantise


@dataclass(frozen=True)
class Codes:
    multiplier: np.ndarray
    zero_point: int
    dtype: np.dtype


def expected(acc, bias, codes):
    total = acc.astype(np.int64) + (0 if bias is None else bias.astype(np.int64))
    f = total.astype(np.int32).astype(np.float32) * codes.multiplier
    assert f.dtype == np.float32
    limits = np.iinfo(codes.dtype)
    low, high = np.float32(limits.min - codes.zero_point), np.float32(limits.max - codes.zero_point)
    return (np.rint(np.clip(f, low, high)).astype(np.int64) + codes.zero_point).astype(codes.dtype)


code_types = st.sampled_from([np.dtype(np.uint8), np.dtype(np.int8)])


@st.composite
def formats(draw, shape=()):
    dtype = draw(code_types)
    limits = np.iinfo(dtype)
    zero_point = draw(st.sampled_from([limits.min, limits.max, (limits.min + limits.max) // 2, 3]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    kind = draw(st.sampled_from(["random", "power", "negative", "zero"]))
    multiplier = {
        "random": lambda: rng.random(shape) * 10.0 ** rng.integers(-7, 2),
        "power": lambda: 2.0 ** rng.integers(-10, 1, shape),
        "negative": lambda: -rng.random(shape),
        "zero": lambda: np.zeros(shape),
    }[kind]()
    return Codes(np.asarray(multiplier, np.float32), zero_point, dtype)


def accumulators(seed, shape):
    rng = np.random.default_rng(seed)
    small = rng.integers(-1200, 1200, shape)
    wide = rng.integers(-(2**31), 2**31, shape)
    edges = rng.choice([-(2**31), 2**31 - 1, 2**24 + 1, -(2**24) - 1, 0, 1, -1], shape)
    return np.choose(rng.integers(0, 3, shape), [small, wide, edges]).astype(np.int32)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("exponent", range(1, 11))
@pytest.mark.parametrize("zero_point", [0, 5, 127])
def test_ties_go_to_the_even_code(dtype, exponent, zero_point):
    acc = np.arange(-600 * 2**exponent, 600 * 2**exponent, 2 ** (exponent - 1), dtype=np.int32)[None]
    codes = Codes(np.float32(2.0**-exponent).reshape(()), zero_point, np.dtype(dtype))
    assert np.array_equal(requantise(acc, None, codes), expected(acc, None, codes))
    halves = np.array([[-3, -1, 1, 3, 5]], np.int32) * 2 ** (exponent - 1)
    if zero_point == 5:
        assert requantise(halves, None, codes).tolist() == [[3, 5, 5, 7, 7]]


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    st.tuples(*(st.integers(0, 5) for _ in range(4))),
    st.sampled_from(["scalar", "channel", "last", "position", "full"]),
    st.sampled_from(["none", "scalar", "channel", "position"]),
    st.integers(0, 2**32 - 1),
)
def test_equals_float32_numpy_for_every_shape_of_parameters(data, shape, kind, bias_kind, seed):
    _, channels, height, width = shape
    shapes = {
        "scalar": (),
        "channel": (channels, 1, 1),
        "last": (width,),
        "position": (1, height, width),
        "full": (channels, height, width),
    }
    codes = data.draw(formats(shapes[kind]))
    acc = accumulators(seed, shape) // 2
    rng = np.random.default_rng(seed)
    bias = None
    if bias_kind != "none":
        bias = rng.integers(-(2**20), 2**20, shapes[bias_kind]).astype(np.int32)
        acc = np.clip(acc, -(2**30), 2**30).astype(np.int32)
    result = requantise(acc, bias, codes)
    assert result.dtype == codes.dtype
    assert np.array_equal(result, expected(acc, bias, codes))


@settings(max_examples=60, deadline=None)
@given(formats(), st.integers(0, 2**32 - 1), st.sampled_from([(), (0,), (1,), (7, 3), (2, 3, 33)]))
def test_a_scalar_multiplier_fits_any_rank(codes, seed, shape):
    acc = accumulators(seed, shape)
    assert np.array_equal(requantise(acc, None, codes), expected(acc, None, codes))


def test_the_product_is_not_promoted_to_float64():
    # In float64 this product lies above the tie; rounded to float32 it is the tie, and goes to even.
    multiplier = np.float32(0.1)
    acc = np.arange(1, 400_000, dtype=np.int32)
    single = acc.astype(np.float32) * multiplier
    double = acc.astype(np.float64) * float(multiplier)
    differ = acc[(np.rint(np.clip(single, 0, 255)) != np.rint(np.clip(double, 0, 255)))]
    assert differ.size
    codes = Codes(np.asarray(multiplier), 0, np.dtype(np.uint8))
    assert np.array_equal(requantise(acc[None], None, codes), expected(acc[None], None, codes))


def test_a_transposed_accumulator_is_read_in_its_own_order():
    acc = np.arange(24, dtype=np.int32).reshape(4, 6).T
    codes = Codes(np.float32(1).reshape(()), 0, np.dtype(np.uint8))
    assert np.array_equal(requantise(acc, None, codes), acc)


@pytest.mark.parametrize(
    ("acc", "multiplier", "zero_point", "dtype", "error"),
    [
        (np.zeros((1, 2), np.int64), np.float32(1), 0, np.uint8, TypeError),
        (np.zeros((1, 2), np.int32), np.float64(1), 0, np.uint8, TypeError),
        (np.zeros((1, 2), np.int32), np.float32(np.nan), 0, np.uint8, ValueError),
        (np.zeros((1, 2), np.int32), np.float32(1), -1, np.uint8, ValueError),
        (np.zeros((1, 2), np.int32), np.float32(1), 0, np.uint16, TypeError),
        (np.zeros((1, 2), np.int32), np.ones(3, np.float32), 0, np.uint8, ValueError),
    ],
)
def test_operands_that_do_not_fit_are_refused(acc, multiplier, zero_point, dtype, error):
    with pytest.raises(error):
        requantise(acc, None, Codes(np.asarray(multiplier), zero_point, np.dtype(dtype)))
