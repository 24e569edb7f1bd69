"""Sums of channels-last maps and their requantisation against int64 and float32 NumPy, in guarded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_buffers import KINDS, Buffer, Flat, layouts, sizes

from ohmfold.kernels.layout import MapLayout
from ohmfold.kernels.map_sums import AddMaps, MapRequantise, RequantiseSums, SumMaps

seeds = st.integers(0, 2**32 - 1)
INT32 = np.iinfo(np.int32)


def requantised(acc, bias, multiplier, zero_point):
    """Codes of int64 sums: one float32 product, rounded half to even; the sum with the bias wraps in int32."""
    total = (acc + bias - INT32.min) % 2**32 + INT32.min
    with np.errstate(over="ignore"):
        f = total.astype(np.int32).astype(np.float32) * multiplier
    assert f.dtype == np.float32
    return (np.rint(np.clip(f, -zero_point, 255 - zero_point)) + zero_point).astype(np.uint8)


def parameters(rng, kind, *shape):
    """A bias and a multiplier: of ties, of any size, and of sizes that clamp or wrap."""
    if kind == "ties":
        multiplier = rng.choice(np.array([0.5, 0.25, -0.5], np.float32), shape)
        return rng.integers(-3, 4, shape).astype(np.int32), multiplier
    if kind == "wide":
        multiplier = np.float32(10.0) ** rng.uniform(-12, 30, shape).astype(np.float32)
        return rng.integers(INT32.min, INT32.max + 1, shape).astype(np.int32), multiplier
    multiplier = rng.uniform(0, 0.05, shape).astype(np.float32)
    return rng.integers(-4000, 4000, shape).astype(np.int32), multiplier


@settings(max_examples=200, deadline=None)
@given(
    st.data(),
    sizes(),
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=2),
    st.sampled_from([1, 40, 32768, 4_210_752]),
    st.lists(st.sampled_from(["ties", "any", "wide", None]), min_size=1, max_size=2),
    st.integers(0, 3),
    seeds,
)
def test_additions_equal_int64(data, size, kinds, largest, wanted, images, seed):
    rng = np.random.default_rng(seed)
    inputs = [Buffer(rng, data.draw(layouts(size)), images, kind) for kind in kinds]
    multipliers = tuple(int(rng.choice([-largest, largest, rng.integers(-largest, largest)])) for _ in inputs)
    zero_points = tuple(int(rng.choice([0, 255, rng.integers(256)])) for _ in inputs)
    terms = zip(multipliers, inputs, zero_points, strict=True)
    acc = sum(m * (x.codes() - z) for m, x, z in terms)
    results, outs, answers = [], [], []
    for kind in wanted:
        if kind is None:
            results.append(None)
            outs.append(Flat(rng, acc.size, np.int32))
            answers.append(acc)
            continue
        bias, multiplier = parameters(rng, kind, size[0])
        zero_point = int(rng.choice([0, 255, rng.integers(256)]))
        layout = data.draw(layouts(size))
        results.append(MapRequantise(bias, multiplier, zero_point, layout))
        outs.append(Buffer(rng, layout, images))
        answers.append(requantised(acc, bias, multiplier, zero_point))
    maps = tuple(x.layout for x in inputs)
    add = AddMaps(multipliers, zero_points, maps, tuple(results))
    add(*(x.array for x in inputs), *(out.array for out in outs), images)
    assert all(out.holds(answer) for out, answer in zip(outs, answers, strict=True))
    assert all(x.untouched() for x in inputs)
    sums = Flat(rng, acc.size, np.int32)
    SumMaps(multipliers, zero_points, maps)(*(x.array for x in inputs), sums.array, images)
    assert sums.holds(acc)


@settings(max_examples=40, deadline=None)
@given(st.data(), sizes(), st.integers(0, 2), seeds)
def test_a_sum_may_replace_its_first_input(data, size, images, seed):
    rng = np.random.default_rng(seed)
    layout, other = data.draw(layouts(size)), data.draw(layouts(size))
    a, b = Buffer(rng, layout, images), Buffer(rng, other, images)
    bias, multiplier = parameters(rng, "any", size[0])
    answer = requantised(3 * (a.codes() - 9) - 2 * (b.codes() - 200), bias, multiplier, 77)
    add = AddMaps((3, -2), (9, 200), (layout, other), (MapRequantise(bias, multiplier, 77, layout),))
    add(a.array, b.array, a.array, images)
    assert a.holds(answer)


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    sizes(),
    st.sampled_from(["ties", "any", "wide"]),
    st.tuples(st.booleans(), st.booleans()),
    st.integers(0, 3),
    seeds,
)
def test_requantised_sums_equal_float32(data, size, kind, by_position, images, seed):
    rng = np.random.default_rng(seed)
    channels, height, width = size
    layout = data.draw(layouts(size))
    limit = {"ties": 1000, "any": 40000, "wide": 2**31 - 1}[kind]
    sums = rng.integers(-limit, limit, (images, height, width, channels)).astype(np.int32)
    bias, multiplier = parameters(rng, kind, height * width, channels)
    bias, multiplier = (
        values if each else values[0] for values, each in zip((bias, multiplier), by_position, strict=True)
    )
    spread = [
        np.broadcast_to(values, (height * width, channels)).reshape(height, width, channels)
        for values in (bias.astype(np.int64), multiplier)
    ]
    zero_point = int(rng.choice([0, 255, rng.integers(256)]))
    out = Buffer(rng, layout, images)
    requantise = RequantiseSums(channels, height * width, bias, multiplier, zero_point, layout)
    requantise(sums.reshape(-1), out.array, images)
    assert out.holds(requantised(sums.astype(np.int64), *spread, zero_point))


def test_halves_go_to_the_even_code():
    sums = np.array([-5, -3, -1, 0, 1, 3, 5, 509, 510, 511], np.int32)
    out = np.zeros(sums.size, np.uint8)
    half, none = np.array([0.5], np.float32), np.zeros(1, np.int32)
    RequantiseSums(1, sums.size, none, half, 0, MapLayout(1, 1, sums.size))(sums, out, 1)
    assert out.tolist() == [0, 0, 0, 0, 0, 2, 2, 254, 255, 255]
    # The nearest even number is that of the product, before an odd zero point is added.
    RequantiseSums(1, sums.size, none, half, 101, MapLayout(1, 1, sums.size))(sums, out, 1)
    assert out.tolist() == [99, 99, 101, 101, 101, 103, 103, 255, 255, 255]


def test_settings_that_do_not_fit_are_refused():
    a, b = MapLayout(3, 4, 5), MapLayout(3)
    bias, multiplier = np.zeros(3, np.int32), np.ones(3, np.float32)
    result = MapRequantise(bias, multiplier, 0, a)

    def add(multipliers=(1,), zero_points=(0,), inputs=(a,), results=(result,)):
        return lambda: AddMaps(multipliers, zero_points, inputs, results)

    def one(bias=bias, multiplier=multiplier, zero_point=0, output=a):
        return add(results=(MapRequantise(bias, multiplier, zero_point, output),))

    def sums(channels=3, positions=20, bias=bias, multiplier=multiplier, zero_point=0):
        return lambda: RequantiseSums(channels, positions, bias, multiplier, zero_point, a)

    for make, match in [
        (add((1, 2)), "each with a multiplier"),
        (add((1,) * 3, (0,) * 3, (a,) * 3), "one or two maps"),
        (add(results=()), "one or two results"),
        (add(results=(None,) * 3), "one or two results"),
        (add((2**23, -(2**22)), (0, 0), (a, a)), "int32"),
        (add(zero_points=(256,)), "0..255"),
        (add((1, 1), (0, 0), (a, b)), "same channels, height and width"),
        (one(output=b), "same channels, height and width"),
        (one(zero_point=-1), "0..255"),
        (one(bias=np.zeros(2, np.int32)), "have shape"),
        (one(bias=np.zeros((20, 3), np.int32)), "for each channel"),
        (one(multiplier=np.ones(1, np.float32)), "have shape"),
        (one(multiplier=np.full(3, np.inf, np.float32)), "finite"),
        (sums(channels=2), "are not the map"),
        (sums(positions=21), "are not the map"),
        (sums(bias=np.zeros((3, 20), np.int32)), "have shape"),
        (sums(multiplier=np.full((20, 3), np.nan, np.float32)), "finite"),
    ]:
        with pytest.raises(ValueError, match=match):
            make()
    for make in (one(bias=np.zeros(3, np.int64)), sums(multiplier=np.ones(3))):
        with pytest.raises(TypeError, match="int32 and a multiplier float32"):
            make()


def test_arrays_that_a_kernel_could_not_go_through_are_refused():
    layout = MapLayout(2, 3, 4)
    x, sums = np.zeros(2 * layout.codes, np.uint8), np.zeros(2 * layout.codes, np.int32)
    result = MapRequantise(np.zeros(2, np.int32), np.ones(2, np.float32), 0, layout)
    add = AddMaps((1, 1), (0, 0), (layout, layout), (result, None))
    add(x, x, x.copy(), sums, 2)
    for operands in [(x, x, x, 2), (x, x[1:], x, sums, 2), (x, x, x, sums, 3), (x, x, x, sums[:-1], 2)]:
        with pytest.raises(ValueError, match=r"images of|found 3 arrays"):
            add(*operands)
    with pytest.raises(TypeError, match="int32"):
        add(x, x, x, x, 2)
    with pytest.raises(TypeError, match="uint8"):
        RequantiseSums(2, 12, result.bias, result.multiplier, 0, layout)(sums, sums, 2)
