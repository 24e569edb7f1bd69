"""Packed weights: the width that the levels need, and every weight comes back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmfold.toolchain.targets.c99.packing import pack, unpack


@given(st.integers(1, 8), st.integers(1, 600), st.integers(0, 2**32 - 1))
def test_every_width_and_length_comes_back(bits, count, seed):
    low = -(1 << (bits - 1))
    weights = np.random.default_rng(seed).integers(low, low + (1 << bits), count)
    packed = pack(weights)
    assert packed.bits <= bits
    assert np.array_equal(unpack(packed), weights)


@pytest.mark.parametrize(
    ("levels", "bits"),
    [
        ([-1, 1], 1), ([-3, -2, -1, 0, 1, 2, 3], 3), ([-4, -2, -1, 0, 1, 2, 4], 3), ([-64, 0, 64], 2),
        ([-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64], 4), (list(range(-127, 128)), 8), ([5], 1),
    ],
)  # fmt: skip
def test_levels_take_the_bits_that_they_need(levels, bits):
    weights = np.resize(np.array(levels), 512)
    packed = pack(weights)
    assert packed.bits == bits
    assert packed.size == 512 * bits // 8
    assert np.array_equal(unpack(packed), weights)


def test_three_bits_take_three_bits_and_at_most_one_group_more():
    for count in (16, 25, 255, 256, 257, 3136 * 10):
        packed = pack(np.resize(np.arange(-3, 4), count))
        assert packed.size == -(-count // 16) * 6


def test_plain_weights_take_a_byte():
    weights = np.arange(-3, 4)
    packed = pack(weights, plain=True)
    assert packed.plain
    assert packed.size == 7
    assert np.array_equal(unpack(packed), weights)
