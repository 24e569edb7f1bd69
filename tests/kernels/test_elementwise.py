"""The weighted sum and the table against int64 NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.kernels.elementwise import look_up, look_up_pairs, weighted_sum


@settings(max_examples=120, deadline=None)
@given(
    shape=st.lists(st.integers(0, 9), max_size=4),
    types=st.lists(st.sampled_from([np.uint8, np.int8]), min_size=1, max_size=2),
    seed=st.integers(0, 2**32 - 1),
    edge=st.booleans(),
)
def test_weighted_sum_equals_int64(shape, types, seed, edge):
    rng = np.random.default_rng(seed)
    inputs = [rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1, shape).astype(t) for t in types]
    multipliers = [int(rng.choice([-32767, 32767]) if edge else rng.integers(-5000, 5000)) for _ in types]
    zero_points = [int(rng.integers(np.iinfo(t).min, np.iinfo(t).max + 1)) for t in types]
    terms = zip(multipliers, inputs, zero_points, strict=True)
    wanted = sum(m * (x.astype(np.int64) - z) for m, x, z in terms)
    result = weighted_sum(inputs, multipliers, zero_points)
    assert result.dtype == np.int32
    assert np.array_equal(result, wanted)


def test_weighted_sum_broadcasts_and_reads_strided_inputs():
    a = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    b = np.arange(12, dtype=np.uint8).reshape(4, 3).T
    wanted = 5 * (a.astype(np.int64) - 1) - 3 * (b.astype(np.int64) - 2)
    assert np.array_equal(weighted_sum([a, b], [5, -3], [1, 2]), wanted)


def test_a_weighted_sum_that_could_pass_int32_is_refused():
    x = np.zeros((1, 1), np.uint8)
    with pytest.raises(ValueError, match="int32"):
        weighted_sum([x, x], [2**22, 2**23], [0, 0])
    with pytest.raises(ValueError, match="one or two"):
        weighted_sum([x], [1, 2], [0, 0])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(0, 2**32 - 1))
def test_look_up_equals_indexing(shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape, dtype=np.uint8)
    table = rng.integers(0, 256, 256, dtype=np.uint8)
    assert np.array_equal(look_up(x, table), table[x])


def test_only_a_whole_table_of_codes_is_accepted():
    x = np.zeros(3, np.uint8)
    with pytest.raises(ValueError, match="256"):
        look_up(x, np.zeros(255, np.uint8))
    with pytest.raises(TypeError, match="uint8"):
        look_up(x.astype(np.int8), np.zeros(256, np.uint8))


def test_a_table_over_int8_starts_at_its_lowest_code():
    rng = np.random.default_rng(2)
    x, table = (
        rng.integers(-128, 128, (3, 4, 5)).astype(np.int8),
        rng.integers(-128, 128, 256).astype(np.int8),
    )
    assert np.array_equal(look_up(x, table), table[x.astype(int) + 128])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_table_of_pairs_is_read_at_both_codes(dtype):
    rng, lowest = np.random.default_rng(3), np.iinfo(dtype).min
    table = rng.integers(lowest, lowest + 256, (256, 256)).astype(dtype)
    a, b = (rng.integers(lowest, lowest + 256, (3, 4, 5)).astype(dtype) for _ in range(2))
    assert np.array_equal(look_up_pairs(a, b, table), table[a.astype(int) - lowest, b.astype(int) - lowest])


def test_a_table_of_pairs_takes_codes_of_one_shape_and_type():
    table, a = np.zeros((256, 256), np.uint8), np.zeros((2, 3), np.uint8)
    with pytest.raises(TypeError, match="one type"):
        look_up_pairs(a, a.astype(np.int8), table)
    with pytest.raises(ValueError, match="shapes"):
        look_up_pairs(a, a[:1], table)
