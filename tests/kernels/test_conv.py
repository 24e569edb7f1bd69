"""Convolutions against a direct sum in int64."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.kernels.conv import Convolution
from ohmfold.kernels.isa import BY_NAME, available


def direct_convolution(x, weight, zero_point, strides, pads, dilations, groups):
    """A sum over taps of shifted, padded maps, in int64; any number of axes."""
    axes = weight.ndim - 2
    padding = [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)]
    padded = np.pad(x.astype(np.int64) - zero_point, padding)
    counts = [
        (padded.shape[2 + a] - dilations[a] * (weight.shape[2 + a] - 1) - 1) // strides[a] + 1
        for a in range(axes)
    ]
    batch, outputs, channels = x.shape[0], weight.shape[0], weight.shape[1]
    acc = np.zeros((batch, groups, outputs // groups, *counts), np.int64)
    grouped = weight.astype(np.int64).reshape(groups, outputs // groups, channels, *weight.shape[2:])
    for tap in itertools.product(*map(range, weight.shape[2:])):
        cut = tuple(
            slice(tap[a] * dilations[a], tap[a] * dilations[a] + (counts[a] - 1) * strides[a] + 1, strides[a])
            for a in range(axes)
        )
        maps = padded[(slice(None), slice(None), *cut)].reshape(batch, groups, channels, *counts)
        acc += np.einsum("ngc...,goc->ngo...", maps, grouped[(..., *tap)])
    return acc.reshape(batch, outputs, *counts)


def round_codes(acc, codes):
    limits = np.iinfo(codes.dtype)
    f = acc.astype(np.int32).astype(np.float32) * codes.multiplier
    low, high = np.float32(limits.min - codes.zero_point), np.float32(limits.max - codes.zero_point)
    return (np.rint(np.clip(f, low, high)).astype(np.int64) + codes.zero_point).astype(codes.dtype)


def draw_codes(rng, shape, dtype):
    limits = np.iinfo(dtype)
    extreme = rng.choice([limits.min, limits.max], shape)
    return np.where(rng.random(shape) < 0.3, extreme, rng.integers(limits.min, limits.max + 1, shape)).astype(
        dtype
    )


@st.composite
def convolutions(draw):
    axes = draw(st.sampled_from([1, 2, 2]))
    kernel = draw(st.tuples(*(st.integers(1, 5) for _ in range(axes))))
    dilations = draw(st.tuples(*(st.integers(1, 3) for _ in range(axes))))
    strides = draw(st.tuples(*(st.integers(1, 3) for _ in range(axes))))
    pads = draw(st.tuples(*(st.integers(0, 3) for _ in range(2 * axes))))
    kind = draw(st.sampled_from(["plain", "grouped", "depthwise"]))
    if kind == "depthwise":
        groups, channels, each = draw(st.integers(1, 20)), 1, draw(st.integers(1, 5))
    else:
        groups = 1 if kind == "plain" else draw(st.integers(2, 4))
        channels, each = draw(st.integers(1, 9)), draw(st.sampled_from([1, 2, 3, 15, 16, 17, 33]))
    room = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    spatial = [
        draw(st.integers(max(1, room[a] - pads[a] - pads[axes + a]), room[a] + 8)) for a in range(axes)
    ]
    batch = draw(st.sampled_from([0, 1, 2, 3]))
    return SimpleNamespace(
        x_shape=(batch, groups * channels, *spatial),
        weight_shape=(groups * each, channels, *kernel),
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
    )


@settings(max_examples=250, deadline=None)
@given(
    isa=st.sampled_from([*available(), "amx-model"]),
    case=convolutions(),
    input_type=st.sampled_from([np.uint8, np.int8]),
    output_type=st.sampled_from([None, np.uint8, np.int8]),
    magnitude=st.sampled_from([3, 127, 255]),
    multiplier_kind=st.sampled_from(["scalar", "channel", "position"]),
    with_bias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_a_direct_sum_in_int64(
    isa, case, input_type, output_type, magnitude, multiplier_kind, with_bias, seed
):
    rng = np.random.default_rng(seed)
    limits = np.iinfo(input_type)
    zero_point = int(rng.choice([limits.min, limits.max, rng.integers(limits.min, limits.max + 1)]))
    x = draw_codes(rng, case.x_shape, input_type)
    weight = rng.integers(-magnitude, magnitude + 1, case.weight_shape)
    weight = weight.astype(np.int16 if magnitude > 127 else np.int8)
    bias = rng.integers(-(2**20), 2**20, weight.shape[0]).astype(np.int32) if with_bias else None
    geometry = (case.strides, case.pads, case.dilations, case.groups)
    acc = direct_convolution(x, weight, zero_point, *geometry)
    places = acc.shape[2:]
    if bias is not None:
        acc += bias.reshape(-1, *(1 for _ in places))
    wanted, codes = acc.astype(np.int32), None
    if output_type is not None:
        shapes = {
            "scalar": (),
            "channel": (weight.shape[0], *(1 for _ in places)),
            "position": (1, *places),
        }
        multiplier = 2.0 ** rng.integers(-14, -2, shapes[multiplier_kind]) * rng.choice([1, -1, 0.77])
        codes = SimpleNamespace(
            multiplier=np.asarray(multiplier, np.float32),
            zero_point=int(rng.integers(np.iinfo(output_type).min, np.iinfo(output_type).max + 1)),
            dtype=np.dtype(output_type),
        )
        wanted = round_codes(acc, codes)
    layer = Convolution(
        weight,
        bias,
        input_zero_point=zero_point,
        strides=case.strides,
        pads=case.pads,
        dilations=case.dilations,
        groups=case.groups,
        codes=codes,
        isa=BY_NAME[isa],
    )
    result = layer(x)
    assert result.dtype == wanted.dtype
    assert np.array_equal(result, wanted)


@pytest.mark.parametrize("batch", [1, 40])
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "size", "groups"),
    [(32, 64, 5, 14, 1), (64, 64, 3, 9, 64), (3, 20, 3, 33, 1)],
)
def test_a_batch_of_several_blocks_equals_the_direct_sum(batch, channels, outputs, kernel, size, groups):
    rng = np.random.default_rng(batch)
    x = rng.integers(0, 256, (batch, channels, size, size), dtype=np.uint8)
    weight = rng.integers(-128, 128, (outputs, channels // groups, kernel, kernel)).astype(np.int8)
    geometry = ((1, 1), (kernel // 2,) * 4, (1, 1), groups)
    acc = direct_convolution(x, weight, 7, *geometry)
    strides, pads, dilations, _ = geometry
    layer = Convolution(
        weight, input_zero_point=7, strides=strides, pads=pads, dilations=dilations, groups=groups
    )
    assert np.array_equal(layer(x), acc)
    strided = x.transpose(0, 1, 3, 2)
    assert np.array_equal(layer(strided), direct_convolution(strided, weight, 7, *geometry))


SETTINGS = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}


@pytest.mark.parametrize(
    ("weight_shape", "changes"),
    [
        ((4, 2, 3), {}),
        ((4, 2, 3, 3, 3), {}),
        ((4, 2, 3, 3), {"strides": (1,)}),
        ((4, 2, 3, 3), {"strides": (0, 1)}),
        ((4, 2, 3, 3), {"pads": (-1, 0, 0, 0)}),
        ((4, 2, 3, 3), {"groups": 3}),
        ((4, 2, 9, 3), {}),
        ((4, 3, 3, 3), {}),
    ],
)
def test_settings_that_do_not_fit_are_refused(weight_shape, changes):
    x = np.zeros((1, 2, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"."):
        Convolution(np.zeros(weight_shape, np.int8), **{**SETTINGS, **changes})(x)
