"""Depthwise convolutions against a direct sum in int64, in guarded memory."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_buffers import GUARD, Buffer, Flat

from ohmfold.kernels.codes import MapCodes
from ohmfold.kernels.depthwise import Depthwise
from ohmfold.kernels.layout import MapLayout

ZERO_POINTS = (0, 7, 128, 255)

# Levels of 3 bits, of 8, and differences of 8-bit codes.
MAGNITUDES = (3, 127, 255)

SAME = {"strides": (1, 1), "begins": (0, 0), "dilations": (1, 1)}


def direct_sums(x, weight, bias, zero_point, windows, strides, begins, dilations):
    """A sum over taps of shifted, padded maps `(N, H, W, C)`, in int64; windows are rows and columns."""
    reach = [
        (count - 1) * stride + (taps - 1) * dilation + 1
        for count, stride, taps, dilation in zip(windows, strides, weight.shape[1:], dilations, strict=True)
    ]
    padding = [(b, max(0, r - b - n)) for b, r, n in zip(begins, reach, x.shape[1:3], strict=True)]
    padded = np.pad(x.astype(np.int64) - zero_point, [(0, 0), *padding, (0, 0)])
    acc = np.zeros((x.shape[0], *windows, x.shape[3]), np.int64)
    for i, j in itertools.product(*map(range, weight.shape[1:])):
        rows, columns = (
            slice(tap * dilation, tap * dilation + (count - 1) * stride + 1, stride)
            for tap, dilation, count, stride in zip((i, j), dilations, windows, strides, strict=True)
        )
        acc += padded[:, rows, columns] * weight[:, i, j].astype(np.int64)
    return acc + (0 if bias is None else bias.astype(np.int64))


def round_codes(acc, codes):
    f = acc.astype(np.int32).astype(np.float32) * codes.multiplier
    low, high = np.float32(-codes.zero_point), np.float32(255 - codes.zero_point)
    return (np.rint(np.clip(f, low, high)).astype(np.int64) + codes.zero_point).astype(np.uint8)


def padded_input(rng, layout, images, kind="random"):
    """A guarded buffer of random codes whose padding holds the layout's fill."""
    buffer = Buffer(rng, layout, images, kind)
    codes = buffer.codes()
    buffer.memory[GUARD : GUARD + images * layout.image_bytes] = layout.fill
    buffer.view()[...] = codes
    buffer.before = buffer.memory.copy()
    return buffer


def check(rng, weight, bias, codes, zero_point, source, target, images=1, kind="random", **geometry):
    """Run the layer in guarded memory, compare every byte, and return it."""
    layer = Depthwise(
        weight, bias, zero_point=zero_point, codes=codes, input=source, output=target, **geometry
    )
    x = padded_input(rng, source, images, kind)
    windows = (target.height, target.width)
    acc = direct_sums(x.view(), weight, bias, zero_point, windows, **geometry)
    if codes is None:
        out, wanted = Flat(rng, images * target.codes, np.int32), acc.astype(np.int32)
    else:
        out, wanted = Buffer(rng, target, images), round_codes(acc, codes)
    layer(x.array, out.array, images)
    assert out.holds(wanted)
    assert x.untouched()
    return layer


@st.composite
def layers(draw):
    """Any geometry; most have whole vectors of channels and four windows at a time, which compiles less."""
    channels = draw(st.one_of(st.integers(32, 150), st.integers(32, 150), st.integers(1, 40)))
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (5, 5), (2, 3), (1, 1), (4, 2), (1, 6)]))
    strides, dilations = (draw(st.tuples(*[st.integers(1, most)] * 2)) for most in (3, 2))
    windows = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 3, 4, 4, 5, 6, 7, 9]))
    begins = draw(st.tuples(*[st.integers(0, 3)] * 2))
    sizes, before, after = [], [], []
    for count, taps, stride, begin, dilation in zip(windows, kernel, strides, begins, dilations, strict=True):
        end = (count - 1) * stride - begin + (taps - 1) * dilation + 1
        size = draw(st.integers(max(1, end - 2), max(1, end + 2)))
        sizes.append(size)
        before.append(begin + draw(st.integers(0, 2)))
        after.append(max(0, end - size) + draw(st.integers(0, 2)))
    zero_point = draw(st.sampled_from(ZERO_POINTS))
    return SimpleNamespace(
        kernel=kernel,
        zero_point=zero_point,
        source=MapLayout(channels, *sizes, *before, *after, fill=zero_point),
        target=MapLayout(channels, *windows),
        geometry={"strides": strides, "begins": begins, "dilations": dilations},
    )


@settings(max_examples=250, deadline=None)
@given(
    case=layers(),
    magnitude=st.sampled_from(MAGNITUDES),
    output_zero_point=st.sampled_from([None, *ZERO_POINTS]),
    output_padding=st.tuples(*[st.integers(0, 2)] * 4),
    factor=st.sampled_from([1.0, -1.0, 0.77]),
    bias_bits=st.sampled_from([None, 8, 20, 31]),
    images=st.sampled_from([0, 1, 1, 2, 3]),
    kind=st.sampled_from(["random", "extremes", "lowest", "highest"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_a_direct_sum_in_int64(
    case, magnitude, output_zero_point, output_padding, factor, bias_bits, images, kind, seed
):
    rng = np.random.default_rng(seed)
    channels, target = case.source.channels, case.target
    weight = rng.integers(-magnitude, magnitude + 1, (channels, *case.kernel))
    weight = weight.astype(np.int16 if magnitude > 127 else np.int8)
    bias = None
    if bias_bits is not None:
        bias = rng.integers(-(2**bias_bits), 2**bias_bits, channels).astype(np.int32)
    codes = None
    if output_zero_point is not None:
        multiplier = 2.0 ** rng.integers(-12, 0, channels) * factor
        codes = MapCodes(multiplier.astype(np.float32), output_zero_point)
        target = MapLayout(channels, target.height, target.width, *output_padding)
    check(rng, weight, bias, codes, case.zero_point, case.source, target, images, kind, **case.geometry)


@pytest.mark.parametrize("channels", range(1, 9))
def test_maps_of_few_channels_are_written_to_the_byte(channels):
    rng = np.random.default_rng(channels)
    source, target = MapLayout(channels, 4, 5, 1, 1, 1, 1, 9), MapLayout(channels, 4, 5, 0, 1, 2, 1)
    weight = rng.integers(-3, 4, (channels, 3, 3)).astype(np.int8)
    codes = MapCodes(np.full(channels, 0.125, np.float32), 3)
    geometry = {**SAME, "begins": (1, 1)}
    layer = check(rng, weight, None, codes, 9, source, target, 2, **geometry)
    assert layer.spare_bytes == 8 - channels
    check(rng, weight, None, None, 9, source, MapLayout(channels, 4, 5), 2, **geometry)


@pytest.mark.parametrize("as_codes", [True, False])
@pytest.mark.parametrize("kind", ["random", "extremes", "lowest", "highest"])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, -1), (1, -1, 1)])
@pytest.mark.parametrize(("last", "narrow"), [(127, True), (128, False)])
def test_sixteen_bits_are_enough_up_to_65535(last, narrow, signs, kind, as_codes):
    # 255 * (100 + 30 + 127) = 65535, in one channel of many.
    rng = np.random.default_rng(3)
    source, target = MapLayout(40, 3, 7, fill=0), MapLayout(40, 3, 5)
    weight = rng.integers(-4, 5, (40, 1, 3)).astype(np.int16)
    weight[37, 0] = np.array([100, 30, last]) * signs
    bias = rng.integers(-1000, 1000, 40).astype(np.int32)
    codes = MapCodes(np.full(40, 1 / 256, np.float32), 128) if as_codes else None
    layer = check(rng, weight, bias, codes, 0, source, target, 2, kind, **SAME)
    assert layer.narrow == narrow


@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize(
    ("bias", "multiplier", "narrow"),
    [
        (1 << 22, 2.0**-12, True),
        ((1 << 22) + 1, 2.0**-12, False),
        (-(1 << 22), 2.0**-12, True),
        (-(1 << 22) - 1, 2.0**-12, False),
        (32001, 1.0, True),  # products up to 32256
        (32002, 1.0, False),
        (-32256, 1.0, True),
        (-32257, 1.0, False),
        (-32256, -1.0, True),
        (-32257, -1.0, False),
        ((1 << 31) - 1, 2.0**-23, False),
        (-(1 << 31), 2.0**-23, False),
    ],
)
def test_large_biases_and_products_are_exact(bias, multiplier, narrow, zero_point):
    rng = np.random.default_rng(5)
    source, target = MapLayout(33, 4, 4), MapLayout(33, 4, 4)
    weight = np.ones((33, 1, 1), np.int8)
    codes = MapCodes(np.full(33, multiplier, np.float32), zero_point)
    layer = check(rng, weight, np.full(33, bias, np.int32), codes, 0, source, target, **SAME)
    assert layer.narrow == narrow


@pytest.mark.parametrize("zero_point", [0, 1, 127, 128, 255])
@pytest.mark.parametrize("narrow", [True, False])
def test_ties_go_to_the_even_code(zero_point, narrow):
    # Halves of all codes less 128, and of their negatives.
    source, target = MapLayout(36, 1, 257), MapLayout(36, 1, 256)
    weight = np.zeros((36, 1, 2), np.int16)
    weight[:, 0, 0] = 1
    if not narrow:
        weight[35] = 255
    multiplier = np.where(np.arange(36) % 2, 0.5, -0.5).astype(np.float32)
    layer = Depthwise(
        weight,
        np.full(36, -128, np.int32),
        zero_point=0,
        codes=MapCodes(multiplier, zero_point),
        input=source,
        output=target,
    )
    assert layer.narrow == narrow
    every = np.arange(257)[:, np.newaxis].repeat(36, axis=1).astype(np.uint8)
    out = np.zeros(target.codes, np.uint8)
    layer(every.reshape(-1), out, 1)
    halves = (np.arange(256)[:, np.newaxis] - 128) * np.where(np.arange(36) % 2, 1, -1)
    even = halves // 2 + (halves % 2) * (halves // 2 % 2)
    wanted = np.clip(even + zero_point, 0, 255)
    columns = slice(0, 36 if narrow else 35)
    assert np.array_equal(out.reshape(256, 36)[:, columns], wanted[:, columns])


def test_int32_sums_wrap():
    rng = np.random.default_rng(7)
    source = MapLayout(35, 5, 6)
    weight = np.full((35, 3, 3), 255, np.int16)
    bias = rng.integers((1 << 31) - 1000000, 1 << 31, 35).astype(np.int32)
    check(rng, weight, bias, None, 0, source, MapLayout(35, 3, 4), 1, "highest", **SAME)
    check(rng, weight // 255, bias, None, 0, source, MapLayout(35, 3, 4), 1, "highest", **SAME)


def test_no_images_are_no_work():
    source, target = MapLayout(3, 4, 4), MapLayout(3, 2, 2)
    layer = Depthwise(
        np.ones((3, 3, 3), np.int8), None, zero_point=0, codes=None, input=source, output=target
    )
    layer(np.empty(0, np.uint8), np.empty(0, np.int32), 0)


WEIGHT = np.zeros((3, 3, 3), np.int8)
CODES = MapCodes(np.ones(3, np.float32), 0)
BEGIN = {"begins": (1, 1)}
PADDED = MapLayout(3, 4, 4, 1, 1, 1, 1, 5)
NARROWER = MapLayout(3, 4, 4, 1, 0, 1, 1, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.zeros((3, 9), np.int8)}, "C, kH, kW"),
        ({"weight": np.full((3, 3, 3), 256, np.int16)}, "-255..255"),
        ({"weight": np.zeros((4, 3, 3), np.int8)}, "does not lead"),
        ({"output": MapLayout(4, 4, 4)}, "does not lead"),
        ({"bias": np.zeros(4, np.int32)}, "bias has shape"),
        ({"input": NARROWER}, "do not fit"),
        ({"begins": (1, -1)}, "do not fit"),
        ({"begins": (0, 1), "output": MapLayout(3, 5, 4)}, "do not fit"),
        ({"output": MapLayout(3, 4, 5)}, "do not fit"),
        ({"strides": (2, 1)}, "do not fit"),
        ({"strides": (0, 1)}, "do not fit"),
        ({"dilations": (1, 2)}, "do not fit"),
        ({"dilations": (1, 0)}, "do not fit"),
        ({"zero_point": 4}, "stands for zero"),
        ({"zero_point": 256}, "not an unsigned code"),
        ({"codes": MapCodes(np.ones(3, np.float32), 256)}, "not an unsigned code"),
        ({"codes": MapCodes(np.ones(1, np.float32), 0)}, "of shape"),
        ({"codes": MapCodes(np.full(3, np.inf, np.float32), 0)}, "finite"),
        ({"codes": None, "output": MapLayout(3, 4, 4, right=1)}, "without padding"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    settings = {"weight": WEIGHT, "bias": None, "zero_point": 5, "codes": CODES, "input": PADDED, **BEGIN}
    settings = {**settings, "output": MapLayout(3, 4, 4), **changes}
    with pytest.raises(ValueError, match=message):
        Depthwise(settings.pop("weight"), settings.pop("bias"), **settings)


def test_operands_of_the_wrong_type_are_refused():
    settings = {"zero_point": 5, "input": PADDED, "output": MapLayout(3, 4, 4), **BEGIN}
    with pytest.raises(TypeError, match="weights are int8 or int16"):
        Depthwise(WEIGHT.astype(np.int32), None, codes=CODES, **settings)
    with pytest.raises(TypeError, match="bias is int32"):
        Depthwise(WEIGHT, np.zeros(3), codes=CODES, **settings)
    with pytest.raises(TypeError, match="multiplier is float32"):
        Depthwise(WEIGHT, None, codes=MapCodes(np.ones(3), 0), **settings)


def test_arrays_that_do_not_hold_the_images_are_refused():
    target = MapLayout(3, 4, 4)
    layer = Depthwise(WEIGHT, None, zero_point=5, codes=CODES, input=PADDED, output=target, **BEGIN)
    x, out = (
        np.zeros(2 * PADDED.image_bytes + layer.spare_bytes, np.uint8),
        np.zeros(2 * target.codes, np.uint8),
    )
    layer(x, out, 2)
    for arrays in [(x[:-1], out), (x, out[:-1]), (x[::2], out), (x[np.newaxis], out)]:
        with pytest.raises(ValueError, match="array"):
            layer(*arrays, 2)
    for arrays in [(x.view(np.int8), out), (x, out.astype(np.int32))]:
        with pytest.raises(TypeError, match="expected uint8"):
            layer(*arrays, 2)


def test_padding_that_no_window_reads_may_hold_anything():
    rng = np.random.default_rng(11)
    source = MapLayout(34, 5, 6, 1, 2, 3, 1, fill=200)
    weight = rng.integers(-3, 4, (34, 3, 3)).astype(np.int8)
    check(rng, weight, None, None, 7, source, MapLayout(34, 3, 4), 2, **SAME)
