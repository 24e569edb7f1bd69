"""Dense layers against int64 NumPy."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.kernels.dense import Dense
from ohmfold.kernels.isa import BY_NAME, available


def draw_codes(rng, shape, dtype):
    limits = np.iinfo(dtype)
    extreme = rng.choice([limits.min, limits.max], shape)
    return np.where(rng.random(shape) < 0.3, extreme, rng.integers(limits.min, limits.max + 1, shape)).astype(
        dtype
    )


def draw_weight(rng, shape, kind):
    low, high = {"three": (-3, 3), "int8": (-128, 127), "int16": (-255, 255), "edge": (-255, -255)}[kind]
    return rng.integers(low, high + 1, shape).astype(np.int8 if kind in ("three", "int8") else np.int16)


def round_codes(acc, multiplier, zero_point, dtype):
    limits = np.iinfo(dtype)
    f = acc.astype(np.int32).astype(np.float32) * multiplier
    clipped = np.clip(f, np.float32(limits.min - zero_point), np.float32(limits.max - zero_point))
    return (np.rint(clipped).astype(np.int64) + zero_point).astype(dtype)


@settings(max_examples=200, deadline=None)
@given(
    isa=st.sampled_from([*available(), "amx-model"]),
    rows=st.sampled_from([0, 1, 2, 3, 4, 5, 7, 11, 12, 13, 191, 192, 193, 389]),
    depth=st.integers(0, 70),
    columns=st.integers(0, 40),
    input_type=st.sampled_from([np.uint8, np.int8]),
    output_type=st.sampled_from([None, np.uint8, np.int8]),
    kind=st.sampled_from(["three", "int8", "int16", "edge"]),
    per_column=st.booleans(),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_int64_numpy(
    isa, rows, depth, columns, input_type, output_type, kind, per_column, with_bias, seed
):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(input_type)
    zero_point = int(rng.choice([limits.min, limits.max, 0, rng.integers(limits.min, limits.max + 1)]))
    x = draw_codes(rng, (rows, depth), input_type)
    weight = draw_weight(rng, (depth, columns), kind)
    bias = rng.integers(-(2**20), 2**20, columns).astype(np.int32) if with_bias else None
    acc = (x.astype(np.int64) - zero_point) @ weight.astype(np.int64)
    acc += 0 if bias is None else bias
    codes = None
    if output_type is not None:
        multiplier = 2.0 ** rng.integers(-16, 0, columns if per_column else ())
        codes = SimpleNamespace(
            multiplier=np.asarray(multiplier * rng.choice([1, 1, -1, 0.77]), np.float32),
            zero_point=int(rng.integers(np.iinfo(output_type).min, np.iinfo(output_type).max + 1)),
            dtype=np.dtype(output_type),
        )
    layer = Dense(weight, bias, input_zero_point=zero_point, codes=codes, isa=BY_NAME[isa])
    result = layer(x)
    wanted = acc.astype(np.int32)
    if codes is not None:
        wanted = round_codes(acc, codes.multiplier, codes.zero_point, codes.dtype)
    assert result.dtype == wanted.dtype
    assert np.array_equal(result, wanted)
    assert np.array_equal(layer.accumulate(x), acc)
    assert np.array_equal(layer.requantise(layer.accumulate(x)), wanted)


def test_the_greatest_products_of_a_deep_layer_are_exact():
    x = np.full((5, 33_000), 255, np.uint8)
    weight = np.full((33_000, 3), -255, np.int16)
    assert np.array_equal(Dense(weight)(x), np.full((5, 3), -255 * 255 * 33_000))


def test_a_transposed_input_and_a_strided_weight_are_read_in_their_own_order():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (30, 9), dtype=np.uint8).T
    weight = rng.integers(-3, 4, (40, 30)).astype(np.int8)[::2, ::2].T[:15]
    layer = Dense(weight)
    assert np.array_equal(layer(x[:, ::2]), x[:, ::2].astype(np.int64) @ weight.astype(np.int64))


@pytest.mark.parametrize(
    ("weight", "bias", "error"),
    [
        (np.zeros((2, 2), np.int32), None, TypeError),
        (np.full((2, 2), 256, np.int16), None, ValueError),
        (np.full((2, 2), -256, np.int16), None, ValueError),
        (np.zeros((2, 2, 2), np.int8), None, ValueError),
        (np.zeros((2, 2), np.int8), np.zeros(3, np.int32), ValueError),
        (np.zeros((2, 2), np.int8), np.zeros(2, np.int64), TypeError),
    ],
)
def test_operands_that_do_not_fit_are_refused(weight, bias, error):
    with pytest.raises(error):
        Dense(weight, bias)


@pytest.mark.parametrize(
    ("x", "zero_point", "error"),
    [
        (np.zeros((1, 3), np.uint8), 0, ValueError),
        (np.zeros(2, np.uint8), 0, ValueError),
        (np.zeros((1, 2), np.int16), 0, TypeError),
        (np.zeros((1, 2), np.uint8), -1, ValueError),
        (np.zeros((1, 2), np.int8), 128, ValueError),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, zero_point, error):
    with pytest.raises(error):
        Dense(np.zeros((2, 2), np.int8), input_zero_point=zero_point)(x)
