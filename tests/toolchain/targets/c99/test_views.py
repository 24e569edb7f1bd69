"""Views and copies: any reordering that Reshape and Transpose make is a nest of loops."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmfold.errors import UnsupportedError
from ohmfold.toolchain.targets.c99.views import View, channels_last, loops, row_major


def copied(source, target, data, size):
    """What the nest copies, loop by loop."""
    out = np.full(size, -1)
    start = int(np.argmin(target))
    first = source.reshape(-1)[start], target.reshape(-1)[start]
    nest = loops(source, target, "test")
    for counts in itertools.product(*(range(loop.count) for loop in nest)):
        a, b = (
            first[side] + sum(i * step for i, step in zip(counts, steps, strict=True))
            for side, steps in enumerate(([loop.source for loop in nest], [loop.target for loop in nest]))
        )
        out[b] = data[a]
    return out


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_a_nest_copies_what_the_indices_say(shape, random):
    source = row_major(tuple(shape))
    axes = list(range(len(shape)))
    random.shuffle(axes)
    moved = source.transpose(axes)
    target = channels_last(moved.shape)
    data = np.arange(source.size) + 100
    out = copied(moved, target, data, source.size)
    assert np.array_equal(out[target], data[moved])


def test_part_of_a_tensor_is_copied_into_a_part_of_another():
    source, target = channels_last((6, 5, 4))[2:5], channels_last((3, 9, 8))[:, 2:7, 3:7]
    data = np.arange(120)
    out = copied(source, target, data, 3 * 9 * 8)
    assert np.array_equal(out[target], data[source])
    assert (out >= 0).sum() == source.size


def test_an_order_without_steps_is_refused():
    with pytest.raises(UnsupportedError, match="no order"):
        loops(np.array([0, 3, 1, 2]), np.arange(4), "layer 'x'")


def test_a_map_lies_with_its_channels_last():
    index = channels_last((2, 3, 4))
    assert index[1, 0, 0] == 1
    assert index[0, 0, 1] == 2
    assert index[0, 1, 0] == 8
    assert View(0, index + 5).lies_as(index)
    assert View(0, index[:1]).order is None
