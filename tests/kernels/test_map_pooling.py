"""Pooling of channels-last maps against windows enumerated one by one, in guarded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_buffers import KINDS, Buffer, Flat, layouts, sizes

from ohmfold.kernels.layout import MapLayout
from ohmfold.kernels.map_pooling import MaxPoolMaps, SpatialSumMaps

seeds = st.integers(0, 2**32 - 1)


def window_maxima(x, kernel, strides, begins, dilations, windows):
    """The maximum over the taps of each window that lie inside `(N, H, W, C)`; 0 where none does."""
    out = np.zeros((x.shape[0], *windows, x.shape[3]), np.uint8)
    for y, column in np.ndindex(*windows):
        rows, columns = (
            [t for t in range(p * s - b, p * s - b + k * d, d) if 0 <= t < length]
            for p, s, b, k, d, length in zip(
                (y, column), strides, begins, kernel, dilations, x.shape[1:3], strict=True
            )
        )
        if rows and columns:
            out[:, y, column] = x[:, rows][:, :, columns].max(axis=(1, 2))
    return out


@settings(max_examples=200, deadline=None)
@given(st.data(), sizes(), st.sampled_from(KINDS), st.integers(0, 2), seeds)
def test_max_pool_equals_the_maximum_of_each_window(data, size, kind, images, seed):
    rng = np.random.default_rng(seed)
    pair = lambda low, high: data.draw(st.tuples(*[st.integers(low, high)] * 2))  # noqa: E731
    kernel = data.draw(st.sampled_from([(2, 2), (3, 3), (1, 1), (2, 3), (5, 1), (4, 4)]))
    strides, begins, dilations, windows = pair(1, 3), pair(0, 4), pair(1, 2), pair(1, 9)
    source, target = data.draw(layouts(size)), data.draw(layouts((size[0], *windows)))
    x, out = Buffer(rng, source, images, kind), Buffer(rng, target, images)
    MaxPoolMaps(kernel, strides, begins, dilations, source, target)(x.array, out.array, images)
    assert out.holds(window_maxima(x.view(), kernel, strides, begins, dilations, windows))
    assert x.untouched()


def test_padding_never_wins_and_a_window_outside_gives_the_lowest_code():
    layout, target = MapLayout(5, 2, 2, 3, 3, 3, 3, fill=255), MapLayout(5, 3, 3)
    x = np.full(layout.image_bytes, 255, np.uint8)
    x.reshape(8, 8, 5)[3:5, 3:5] = 7
    out = np.full(target.codes, 99, np.uint8)
    MaxPoolMaps((2, 2), (2, 2), (2, 2), (1, 1), layout, target)(x, out, 1)
    wanted = np.zeros((3, 3, 5), np.uint8)
    wanted[1, 1] = 7
    assert np.array_equal(out.reshape(3, 3, 5), wanted)


@settings(max_examples=120, deadline=None)
@given(st.data(), sizes(), st.sampled_from(KINDS), st.integers(0, 255), st.integers(0, 3), seeds)
def test_spatial_sums_equal_int64(data, size, kind, zero_point, images, seed):
    rng = np.random.default_rng(seed)
    layout = data.draw(layouts(size))
    x, out = Buffer(rng, layout, images, kind), Flat(rng, images * size[0], np.int32)
    SpatialSumMaps(zero_point, layout)(x.array, out.array, images)
    assert out.holds((x.codes() - zero_point).sum(axis=(1, 2)))
    assert x.untouched()


def test_settings_that_do_not_fit_are_refused():
    a, two, one = MapLayout(3, 4, 5), (2, 2), (1, 1)
    for make, match in [
        (lambda: MaxPoolMaps((0, 1), one, (0, 0), one, a, a), "at least 1"),
        (lambda: MaxPoolMaps(two, (1, 0), (0, 0), one, a, a), "at least 1"),
        (lambda: MaxPoolMaps(two, one, (0, 0), (0, 1), a, a), "at least 1"),
        (lambda: MaxPoolMaps(two, one, (0, -1), one, a, a), "negative"),
        (lambda: MaxPoolMaps((2,), one, (0, 0), one, a, a), "two numbers"),
        (lambda: MaxPoolMaps(two, one, (0, 0), one, a, MapLayout(4, 4, 5)), "3 to 4"),
        (lambda: MaxPoolMaps(two, one, (0, 0), one, MapLayout(3, 0, 1), a), "at least 1"),
        (lambda: SpatialSumMaps(256, a), "0..255"),
        (lambda: SpatialSumMaps(0, MapLayout(1, 4096, 4096)), "int32"),
    ]:
        with pytest.raises(ValueError, match=match):
            make()


def test_arrays_that_a_kernel_could_not_go_through_are_refused():
    layout = MapLayout(2, 3, 4)
    x = np.zeros(2 * layout.codes, np.uint8)
    pool, add = MaxPoolMaps((1, 1), (1, 1), (0, 0), (1, 1), layout, layout), SpatialSumMaps(0, layout)
    for a, b in [(x[1:], x.copy()), (x, x[1:].copy()), (x[::-1], x.copy())]:
        with pytest.raises(ValueError, match=r"images of|contiguous"):
            pool(a, b, 2)
    with pytest.raises(TypeError, match="int32"):
        add(x, x, 2)
    with pytest.raises(ValueError, match="images of"):
        add(x, np.zeros(3, np.int32), 2)
