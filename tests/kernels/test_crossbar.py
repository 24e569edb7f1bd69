"""The product of a crossbar against its formulas, on every instruction set, by every path, in guarded memory."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from crossbar_reference import Plane, clipped_reads, digit_of, int32_of, read_array
from hypothesis import given, settings
from hypothesis import strategies as st
from map_buffers import KINDS, Flat, codes

from ohmfold.kernels.counter_random import stream_key
from ohmfold.kernels.crossbar import PATHS, CrossbarProduct, ReadNoise, ReadPlane
from ohmfold.kernels.isa import BY_NAME, available

SETS = [*available(), "amx-model"]
LARGEST_SUM = 2**30  # of a tile, for one digit
INT32_MAX = 2**31 - 1

seeds = st.integers(0, 2**32 - 1)
every_set = pytest.mark.parametrize("name", SETS)


@dataclass
class Array:
    """An array, what reads it, and the keys of its noise."""

    planes: list
    tile_rows: int
    dac_bits: int
    fraction_bits: int
    keys: tuple = ()

    def product(self, isa, **settings_):
        noisy = any(plane.variance is not None for plane in self.planes)
        return CrossbarProduct(
            [
                ReadPlane(
                    plane.cells.astype(np.int32),
                    plane.shift,
                    plane.low,
                    plane.high,
                    plane.step,
                    None if plane.variance is None else plane.variance.astype(np.int32),
                )
                for plane in self.planes
            ],
            tile_rows=self.tile_rows,
            dac_bits=self.dac_bits,
            fraction_bits=self.fraction_bits,
            isa=BY_NAME[isa],
            noise=ReadNoise(self.keys) if noisy else None,
            **settings_,
        )

    def reading(self, first_sample):
        return {
            "tile_rows": self.tile_rows,
            "dac_bits": self.dac_bits,
            "fraction_bits": self.fraction_bits,
            "keys": self.keys,
            "first_sample": first_sample,
        }

    def sums(self, x, first_sample=0):
        return int32_of(read_array(x, self.planes, **self.reading(first_sample)))

    def clipped(self, x, first_sample=0):
        return clipped_reads(x, self.planes, **self.reading(first_sample))


def run(product, x, first_sample=0):
    """The sums of rows of codes; nothing around them is written, and their codes are not changed."""
    packed = product.pack(x)
    before = packed.copy()
    out = Flat(np.random.default_rng(0), len(x) * product.columns, np.int32)
    product(packed, len(x), first_sample, out.array[: len(x) * product.columns])
    found = out.memory[out.inside].copy()
    assert out.holds(found)
    assert np.array_equal(packed, before)
    return found.reshape(len(x), product.columns)


# The largest cells of each kind; those of the others fill the range that the sums leave them.
CELLS = {"single": 1, "levels": 3, "pairs": 7, "unsigned": 15, "bytes": 127}
WIDE = ["wide", "extremes", "sparse"]
LIMITS = ["never", "wide", "often", "often", "unsigned", "above", "below"]


def cells_of(rng, shape, kind, largest, unit):
    """Cells of one kind, none of them larger than `largest` (but -128 among bytes); `whole` ones are whole levels."""
    if kind == "whole":
        return rng.integers(-(largest // unit), largest // unit + 1, shape) * unit
    most = min(CELLS.get(kind, largest), largest)
    if kind == "unsigned":
        return rng.integers(0, most + 1, shape)
    if kind == "extremes":
        return rng.choice([-most, most], shape)
    cells = rng.integers(-most, most + 1, shape)
    if kind == "bytes" and most == 127:
        cells[rng.random(shape) < 0.1] = -128
    if kind == "sparse":
        cells[rng.random(shape) < 0.9] = 0
    return cells


def limits_of(rng, kind, reach, most):
    """Lowest and highest code of one kind, for sums of at most `reach` codes; none leaves out more than `most`."""
    some = int(rng.integers(0, min(reach, most, 40) + 1))
    return {
        "never": (-reach, reach),
        "wide": (-(2**31), 2**31),
        "often": (-some - 1, some),
        "unsigned": (0, some),
        "above": (some, reach),
        "below": (-reach, -some),
    }[kind]


@st.composite
def arrays(draw):
    """Any array whose sums fit int32; half of them have whole levels and codes, without noise.

    An eighth of int32 is for what cells add up to, one for what rounding to codes may add, one for what limits that
    leave out zero may, and one for noise.
    """
    rng = np.random.default_rng(draw(seeds))
    depth, columns = draw(st.integers(1, 140)), draw(st.integers(1, 70))
    tile_rows = draw(st.integers(1, depth + 40) | st.sampled_from([4, 31, 32, 64, 128]))
    dac_bits = draw(st.integers(1, 8) | st.just(1))
    plain = draw(st.booleans())
    fraction_bits = 0 if plain else draw(st.integers(0, 8))
    noisy = not plain and draw(st.booleans())
    shifts = draw(st.lists(st.integers(0, 7), min_size=1, max_size=3))
    digit, length, tiles = 2**dac_bits - 1, min(tile_rows, depth), -(-depth // tile_rows)
    eighth = (2**28 << fraction_bits) // sum(2**shift for shift in shifts)
    # What one read of each plane and tile may add for every digit.
    each = eighth // (tiles * sum(2**bit for bit in range(0, 8, dac_bits)))
    largest = max(1, min(LARGEST_SUM // (length * digit), eighth // (depth * 255)))
    spread = 2**30 if each > 2**30 else (each / 8 * 2.0 ** (6 - fraction_bits) / digit) ** 2 / length
    alike = [[kind] for kind in CELLS]
    kinds = draw(
        st.sampled_from([*alike, [*CELLS]] if plain else [*alike, ["whole"], WIDE, WIDE, [*CELLS, *WIDE]])
    )
    planes = []
    for shift in shifts:
        cells = cells_of(rng, (depth, columns), draw(st.sampled_from(kinds)), largest, 2**fraction_bits)
        reach = length * digit * int(np.abs(cells).max())
        steps = max(2, min(reach, 2 * each))
        step = draw(st.sampled_from([1, 1, 1, 0] if plain else [0, 1, "two", "any"]))
        if step == "two":
            step = 2 ** int(rng.integers(1, max(2, steps.bit_length())))
        elif step == "any":
            step = int(rng.integers(1, steps + 1))
        low, high = limits_of(
            rng, draw(st.sampled_from(LIMITS)), max(1, reach // max(step, 1)), each // max(step, 1)
        )
        variance = None
        if noisy:
            most = min(
                int(spread), LARGEST_SUM // (length * digit**2), draw(st.sampled_from([1, 127, 2**12, 2**20]))
            )
            variance = draw(
                st.sampled_from(
                    [
                        rng.integers(0, most + 1, (depth, columns)),
                        np.full((depth, columns), rng.integers(0, most + 1)),
                        None,
                    ]
                )
            )
        planes.append(Plane(cells, shift, low, high, step, variance))
    keys = tuple(tuple(stream_key(5, t, index) for index in range(len(planes))) for t in range(tiles))
    return Array(planes, tile_rows, dac_bits, fraction_bits, keys)


def paths_of(product, array, x):
    """Which ways the product takes, what it has to deal with on them, and whether sums are clipped."""
    fast = product.path != "general"
    variances = [plane.variance for plane in array.planes if plane.variance is not None]
    alike = all((variance == variance[0, 0]).all() for variance in variances)
    found = {
        "whole levels": fast,
        "weights": product.path == "exact product" and product._weights is not None,
        "planes at once": product.path == "exact product" and product._weights is None,
        "exact here and there": fast and 0 < product.exact_share < 1,
        "digit by digit": product.path == "digits multiplied",
        "bits": product.path == "bits counted",
        "fractions": not fast,
        "fractions at once": not fast and product.exact_share == 1,
        "one variance": not fast and len(variances) == len(array.planes) and alike,
        "variances": not fast and not alike,
        "noise on some planes": not fast and 0 < len(variances) < len(array.planes),
        "cells wider than a byte": not fast
        and any(np.abs(plane.cells).max() > 128 for plane in array.planes),
    }
    assert product.path in PATHS
    if found["bits"]:
        found[f"{product._bit_planes} bit planes"] = True
    first = slice(0, array.tile_rows)
    for plane in array.planes:
        if plane.step and len(x):
            digits = [digit_of(x, d, array.dac_bits) for d in range(-(-8 // array.dac_bits))]
            p = np.concatenate([digit[:, first] @ plane.cells[first] for digit in digits])
            clips = (p > plane.high * plane.step) | (p < plane.low * plane.step)
            found["clips often"] = found.get("clips often", False) or clips.sum() > 0.2 * clips.size
            found["clips never"] = found.get("clips never", False) or not clips.any()
    return [path for path, taken in found.items() if taken]


@every_set
def test_any_array_equals_the_formulas_on_every_path(name):
    seen = Counter()

    @settings(max_examples=200, deadline=None)
    @given(
        arrays(),
        st.sampled_from([0, 1, 2, 5, 12, 13, 29]),
        st.sampled_from(KINDS),
        st.sampled_from([0, 7, 2**32 - 3, 2**40 + 5]),
        st.booleans(),
        st.booleans(),
        seeds,
    )
    def check(array, rows, kind, first_sample, certificate, bits, seed):
        x = codes(np.random.default_rng(seed), (rows, len(array.planes[0].cells)), kind)
        product = array.product(name, certificate=certificate, bits=bits)
        seen.update(paths_of(product, array, x))
        assert np.array_equal(run(product, x, first_sample), array.sums(x, first_sample))

    check()
    wanted = {
        "whole levels",
        "weights",
        "planes at once",
        "exact here and there",
        "digit by digit",
        "fractions",
    }
    wanted |= {"fractions at once"}
    wanted |= {"one variance", "variances", "noise on some planes", "cells wider than a byte"}
    wanted |= {"clips often", "clips never"}
    if BY_NAME[name].counts_bits:
        wanted |= {"bits", "2 bit planes", "3 bit planes", "4 bit planes"}
    assert wanted <= seen.keys()


@settings(max_examples=150, deadline=None)
@given(arrays(), st.sampled_from([0, 1, 7, 20]), st.sampled_from([0, 2**32 - 3, 2**40]), seeds)
def test_clipped_conversions_are_counted_one_by_one(array, rows, first_sample, seed):
    x = codes(np.random.default_rng(seed), (rows, len(array.planes[0].cells)))
    product = array.product(SETS[0])
    assert product.clipped(product.pack(x), rows, first_sample) == array.clipped(x, first_sample)


def test_noise_decides_of_sums_at_the_limit_whether_they_clip():
    cells = np.full((4, 30), 16)
    array = noisy_array(cells, 2**13, dac_bits=1, fraction_bits=3)
    array.planes[0].step, array.planes[0].low, array.planes[0].high = 4, -16, 16
    x = np.full((50, 4), 255, np.uint8)  # every sum is the highest code
    product = array.product(SETS[0])
    reads, low, high = product.clipped(product.pack(x), 50, 9)
    assert (reads, low, high) == array.clipped(x, 9)
    assert low == 0
    assert 0.2 * reads < high < 0.8 * reads
    quiet = Array([Plane(cells, 0, -16, 16, 4)], 128, 1, 3)
    assert quiet.product(SETS[0]).clipped(product.pack(x), 50, 9) == (reads, 0, 0)


@every_set
@settings(max_examples=30, deadline=None)
@given(arrays(), st.lists(st.integers(0, 40), max_size=3), st.sampled_from([0, 2**32 - 20, 2**50]), seeds)
def test_rows_are_the_same_wherever_a_batch_is_cut(name, array, cuts, first_sample, seed):
    x = codes(np.random.default_rng(seed), (40, len(array.planes[0].cells)))
    product = array.product(name)
    bounds = [0, *sorted(cuts), 40]
    parts = [run(product, x[a:b], first_sample + a) for a, b in itertools.pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), run(product, x, first_sample))


@every_set
@pytest.mark.parametrize("dac_bits", [1, 5, 8])
@pytest.mark.parametrize("cell", [127, 64, 65, -64, -65, -128])
def test_bytes_of_any_size_do_not_saturate(name, cell, dac_bits):
    x = np.full((3, 8), 255, np.uint8)
    for planes in ([Plane(np.full((8, 2), cell), 0)], [Plane(np.full((8, 2), cell), 0, step=1, high=99)]):
        for fraction_bits in (0, 3):
            array = Array(planes, 8, dac_bits, fraction_bits)
            assert np.array_equal(run(array.product(name), x), array.sums(x))


@every_set
def test_variances_of_any_size_do_not_saturate(name):
    x = np.full((50, 8), 255, np.uint8)
    for variance in (64, 65, 127, 128):
        array = noisy_array(np.zeros((8, 2)), variance, dac_bits=8)
        assert np.array_equal(run(array.product(name), x), array.sums(x))


def noisy_array(cells, variance, *, dac_bits, fraction_bits=8, tile_rows=128):
    spread = np.broadcast_to(np.asarray(variance), cells.shape)
    tiles = -(-len(cells) // tile_rows)
    keys = tuple((stream_key(3, t),) for t in range(tiles))
    plane = Plane(np.asarray(cells, np.int64), 0, variance=spread)
    return Array([plane], tile_rows, dac_bits, fraction_bits, keys)


@every_set
@pytest.mark.parametrize("step", [2, 3, 4, 6, 7, 10])
def test_conversions_round_half_to_even(name, step):
    cells = np.arange(-45, 46)[np.newaxis]
    array = Array([Plane(cells, 0, -1000, 1000, step)], 1, 8, 0)
    found = run(array.product(name), np.ones((1, 1), np.uint8))
    assert np.array_equal(found[0], np.rint(cells[0] / step).astype(int) * step)
    assert step % 2 or any(2 * cell % (2 * step) == step for cell in cells[0])  # there are ties


@every_set
@pytest.mark.parametrize("fraction_bits", [1, 2, 8])
def test_sums_round_half_to_even_to_whole_levels(name, fraction_bits):
    unit = 2**fraction_bits
    cells = np.arange(-5 * unit, 5 * unit + 1)[np.newaxis]
    array = Array([Plane(cells, 0)], 1, 8, fraction_bits)
    found = run(array.product(name), np.ones((1, 1), np.uint8))
    assert np.array_equal(found[0], np.rint(cells[0] / unit).astype(int))


@every_set
def test_the_certificate_is_given_to_tiles_that_cannot_clip_and_to_no_others(name):
    cells = np.zeros((12, 64), np.int64)
    cells[:8] = 1  # two tiles of four rows sum up to 4 for a digit of one bit
    cells[4, :32] = 2  # the second one to 5, in the first two panels
    array = Array([Plane(cells, 0, 0, 4, 1)], 4, 1, 0)
    assert array.product(name).exact_share == pytest.approx(1 - 2 / 12)
    assert array.product(name, certificate=False).exact_share == 0
    x = codes(np.random.default_rng(1), (20, 12))
    for certificate in (True, False):
        assert np.array_equal(run(array.product(name, certificate=certificate), x), array.sums(x))


@every_set
def test_a_limit_that_is_just_reached_does_not_clip(name):
    x = np.full((1, 4), 255, np.uint8)
    for low, high, share in ((-4, 4, 1), (-3, 4, 0), (-4, 3, 0)):
        array = Array([Plane(np.array([[1, -1] * 16] * 4), 0, low, high, 1)], 4, 1, 0)
        assert array.product(name).exact_share == share
        assert np.array_equal(run(array.product(name), x), [[255 * min(4, high), 255 * max(-4, low)] * 16])


@every_set
def test_the_share_of_exact_reads_does_not_count_columns_that_are_not_there(name):
    array = Array([Plane(np.array([[1, -1]] * 4), 0, -3, 4, 1)], 4, 1, 0)
    assert array.product(name).exact_share == 0


@every_set
def test_no_variance_is_no_noise(name):
    cells = np.random.default_rng(0).integers(-300, 300, (70, 20))
    x = codes(np.random.default_rng(1), (15, 70))
    quiet = Array([Plane(cells, 0)], 32, 2, 5)
    noisy = noisy_array(cells, 0, dac_bits=2, fraction_bits=5, tile_rows=32)
    assert np.array_equal(run(noisy.product(name), x), run(quiet.product(name), x))


@every_set
def test_samples_columns_digits_tiles_and_planes_have_noise_of_their_own(name):
    def jitter(cells, x, **changes):
        array = noisy_array(cells, 2**12, fraction_bits=0, **changes)
        return run(array.product(name), x)

    rows = jitter(np.zeros((1, 40)), np.full((500, 1), 255, np.uint8), dac_bits=8)
    assert np.unique(rows, axis=0).shape == np.unique(rows, axis=1).shape == rows.shape
    # The same codes in another tile, and in another digit.
    first, second = np.zeros((500, 2), np.uint8), np.zeros((500, 2), np.uint8)
    first[:, 0] = second[:, 1] = 255
    tiles = [jitter(np.zeros((2, 40)), x, dac_bits=8, tile_rows=1) for x in (first, second)]
    assert not np.array_equal(*tiles)
    digits = [jitter(np.zeros((1, 40)), np.full((500, 1), x, np.uint8), dac_bits=4) for x in (15, 240)]
    assert not np.array_equal(16 * digits[0], digits[1])
    planes = noisy_array(np.zeros((1, 40)), 2**12, dac_bits=8, fraction_bits=0)
    planes.planes *= 2
    planes.keys = ((stream_key(3, 0), stream_key(3, 1)),)
    assert (run(planes.product(name), first[:, :1]) % 2).any()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (Array([Plane(np.full((3, 1), 2**21), 0)], 3, 8, 0), "3 rows of cells up to 2097152"),
        (noisy_array(np.zeros((5, 1)), 2**13, dac_bits=8), "variance"),
        # Every tile's sum fits, all of them together do not: 9 * 255 * 2^20.
        (Array([Plane(np.full((9, 1), 2**20), 0)], 1, 8, 0), "int32"),
        # A sum that fits until it is shifted.
        (Array([Plane(np.full((1, 1), 2**15), 10)], 1, 8, 0), "int32"),
        # A converter whose lowest code is above nothing: 9 * 255 * 2^20 again, of cells that conduct nothing.
        (Array([Plane(np.zeros((9, 1)), 0, 2**20, 2**20 + 1, 1)], 1, 1, 0), "int32"),
    ],
    ids=["tile", "variance", "tiles", "shift", "limits"],
)
@pytest.mark.parametrize("name", SETS[:1])
def test_sums_that_can_pass_int32_are_refused(name, array, words):
    with pytest.raises(ValueError, match=words):
        array.product(name)


def test_the_largest_sums_that_fit_are_computed():
    # 2^31 - 2^23 in whole levels; a tile's sums reach 2^30 - 2^22 units.
    array = Array([Plane(np.full((4, 1), 2**20), 1), Plane(np.full((4, 1), -(2**20)), 0)], 4, 8, 1)
    x = np.array([[255] * 4, [0] * 4, [255, 0, 1, 2]], np.uint8)
    for name in SETS:
        assert np.array_equal(run(array.product(name), x), array.sums(x))


@every_set
@pytest.mark.parametrize("step", [2**10, 2**20, 2**30, 3 * 2**20])
def test_a_step_above_all_sums_adds_nothing_to_what_they_can_reach(name, step):
    # 40 tiles of 255 half steps would pass int32; no sum is half a step.
    x = np.full((2, 40), 255, np.uint8)
    array = Array([Plane(np.full((40, 3), 2), 0, -(2**20), 2**20, step)], 1, 1, 0)
    assert not run(array.product(name), x).any()
    # A tie goes to the even code, which is zero.
    array = Array([Plane(np.full((40, 3), step // 2), 0, -(2**20), 2**20, step)], 1, 1, 0)
    assert not run(array.product(name), x).any()
    assert not array.sums(x).any()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("fraction_bits", [0, 3])
@pytest.mark.parametrize("step", [0, 3, 8])
def test_sums_are_computed_up_to_the_last_that_fits_and_refused_from_there(sign, fraction_bits, step):
    # Tiles of one row: 255 times the codes of all cells, of which the last one is found by bisection.
    unit, x = 2**fraction_bits, np.full((1, 9), 255, np.uint8)

    def array(cell):
        cells = np.array([[sign * unit * 2**20]] * 8 + [[sign * cell]])
        return Array([Plane(cells, 0, -(2**30), 2**30, step)], 1, 1, fraction_bits)

    def total(cell):
        planes = array(cell).planes
        return int(read_array(x, planes, tile_rows=1, dac_bits=1, fraction_bits=fraction_bits)[0, 0])

    low, high = 0, 2**21 * unit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if abs(total(middle)) <= INT32_MAX else (low, middle)
    for name in SETS:
        assert run(array(low).product(name), x)[0, 0] == total(low)
        with pytest.raises(ValueError, match="passes int32"):
            array(high).product(name)


def test_planes_of_different_shapes_are_refused():
    array = Array([Plane(np.ones((3, 2)), 0), Plane(np.ones((3, 1)), 0)], 3, 1, 0)
    with pytest.raises(ValueError, match="one shape"):
        array.product(SETS[0])
