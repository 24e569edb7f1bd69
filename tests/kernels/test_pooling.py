"""Pooling against windows enumerated one by one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.kernels.pooling import max_pool, spatial_sum


def window_maxima(x, kernel, strides, pads, dilations, ceil_mode):
    """Pad with the lowest value as far as any window reaches, then take the maximum of each."""
    axes = len(kernel)
    floating = np.issubdtype(x.dtype, np.floating)
    lowest = -np.inf if floating else np.iinfo(x.dtype).min
    counts = []
    for a in range(axes):
        extent = dilations[a] * (kernel[a] - 1) + 1
        begun = x.shape[2 + a] + pads[a]
        end = begun + pads[axes + a]
        starts = range(0, end, strides[a])
        if ceil_mode:  # as long as elements are left over, and the window holds one that is not padding
            taken = [s for s in starts if (s == 0 or s - strides[a] + extent < end) and s < begun]
        else:
            taken = [s for s in starts if s + extent <= end]
        counts.append(len(taken))
    reach = [dilations[a] * kernel[a] + strides[a] for a in range(axes)]
    padding = [(0, 0), (0, 0), *((pads[a], pads[axes + a] + reach[a]) for a in range(axes))]
    padded = np.pad(x, padding, constant_values=x.dtype.type(lowest))
    out = np.full((*x.shape[:2], *counts), lowest, x.dtype)
    for place in itertools.product(*map(range, counts)):
        cut = tuple(
            slice(place[a] * strides[a], place[a] * strides[a] + dilations[a] * kernel[a], dilations[a])
            for a in range(axes)
        )
        window = padded[(slice(None), slice(None), *cut)]
        out[(slice(None), slice(None), *place)] = window.max(axis=tuple(range(2, 2 + axes)))
    return out


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_max_pool_equals_the_maximum_of_each_window(data):
    axes = data.draw(st.sampled_from([1, 2]))
    per_axis = lambda low, high, times=1: data.draw(  # noqa: E731
        st.tuples(*(st.integers(low, high) for _ in range(axes * times)))
    )
    kernel, strides, dilations = per_axis(1, 4), per_axis(1, 3), per_axis(1, 2)
    pads = data.draw(st.tuples(*(st.integers(0, k - 1) for k in (*kernel, *kernel))))
    room = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    spatial = [
        data.draw(st.integers(max(1, room[a] - pads[a] - pads[axes + a]), room[a] + 9)) for a in range(axes)
    ]
    dtype = data.draw(st.sampled_from([np.uint8, np.int8, np.float32]))
    ceil_mode = data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shape = (data.draw(st.integers(0, 3)), data.draw(st.integers(1, 3)), *spatial)
    if dtype == np.float32:
        x = np.where(rng.random(shape) < 0.1, -np.inf, rng.standard_normal(shape)).astype(dtype)
    else:
        x = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    result = max_pool(x, kernel, strides, pads, dilations, ceil_mode=ceil_mode)
    wanted = window_maxima(x, kernel, strides, pads, dilations, ceil_mode)
    assert result.dtype == x.dtype
    assert np.array_equal(result, wanted)


def test_a_ceil_window_that_would_start_in_the_padding_is_dropped():
    x = np.arange(9, dtype=np.uint8).reshape(1, 1, 9)
    assert max_pool(x, (2,), (3,), (0, 0), (1,), ceil_mode=True).tolist() == [[[1, 4, 7]]]
    assert max_pool(x, (2,), (4,), (0, 0), (1,), ceil_mode=True).tolist() == [[[1, 5, 8]]]
    assert max_pool(x, (2,), (3,), (0, 1), (1,), ceil_mode=True).tolist() == [[[1, 4, 7]]]


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from([(0, 3, 2, 2), (1, 1, 1, 1), (2, 3, 5, 7), (3, 2, 65), (1, 4, 3, 3, 3), (2, 2, 0)]),
    st.sampled_from([np.uint8, np.int8]),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
)
def test_spatial_sum_equals_int64(shape, dtype, zero, seed):
    rng = np.random.default_rng(seed)
    low = np.iinfo(dtype).min
    x = rng.integers(low, low + 256, shape).astype(dtype)
    wanted = (x.astype(np.int64) - (zero + low)).sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    result = spatial_sum(x, zero + low)
    assert result.dtype == np.int32
    assert np.array_equal(result, wanted)


def test_settings_that_do_not_fit_are_refused():
    x = np.zeros((1, 1, 4, 4), np.uint8)
    for arguments in [
        ((2,), (1,), (0, 0), (1,)),
        ((5, 2), (1, 1), (0,) * 4, (1, 1)),
        ((2, 2), (0, 1), (0,) * 4, (1, 1)),
        ((2, 2), (1, 1), (0, -1, 0, 0), (1, 1)),
    ]:
        with pytest.raises(ValueError, match=r"."):
            max_pool(x, *arguments)
    with pytest.raises(ValueError, match=r"takes \(N, C"):
        spatial_sum(x[0, 0], 0)
    with pytest.raises(TypeError, match="uint8 or int8"):
        spatial_sum(x.astype(np.int32), 0)
