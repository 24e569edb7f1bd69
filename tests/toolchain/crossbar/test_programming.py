"""Programmed cells against each formula by itself, their statistics, and the same chip however it is made."""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ohmfold.kernels.counter_random import stream_key
from ohmfold.toolchain.crossbar.programming import (
    CellModel,
    _exponential,
    cell_key,
    fixed_point_error,
    program_cells,
    to_fixed,
)

IDEAL = CellModel()
KEY = cell_key(seed=1, layer=2, tile=3, slice_index=0, polarity=1)
EVERYTHING = CellModel(
    on_off_ratio=20.0,
    programming_kind="lognormal",
    programming_sigma=0.2,
    stuck_on_rate=0.02,
    stuck_off_rate=0.05,
    drift_time_s=86_400.0,
    drift_reference_time_s=20.0,
    drift_exponent=0.031,
)
CHIP_SHA256 = "93147dc66aa6335d0b89a63f4f1c6a7517e471e3eb386fd769a3506ed147f19e"
# Statistics of a fixed key: a draw that passes keeps passing. Bounds hold for 999 keys in 1,000.
CONFIDENCE = 0.999
DEVIATIONS = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
LARGE = (320, 320)
SAMPLES = LARGE[0] * LARGE[1]
assert SAMPLES >= 100_000


def levels(shape, top, seed=0):
    return np.random.default_rng(seed).integers(0, top + 1, shape).astype(np.uint8)


def flat(level):
    return np.full(LARGE, level, np.uint8)


@given(st.integers(1, 255), st.integers(0, 9), st.integers(0, 9))
def test_an_ideal_cell_conducts_its_level(top, rows, columns):
    target = levels((rows, columns), top)
    found = program_cells(target, top, IDEAL, KEY)
    assert found.dtype == np.float64
    assert np.array_equal(found, target)


def test_a_finite_ratio_shifts_and_scales_the_levels():
    target = np.arange(8, dtype=np.uint8)[None]
    found = program_cells(target, 7, CellModel(on_off_ratio=10.0), KEY)
    assert found[0, 0] == 0.7
    assert found[0, 7] == pytest.approx(7, rel=1e-15)
    assert found[0, 7] / found[0, 0] == pytest.approx(10, rel=1e-14)
    assert np.diff(found[0]) == pytest.approx(0.9, rel=1e-14)


def test_the_shift_of_a_finite_ratio_cancels_in_a_differential_pair():
    cell = CellModel(on_off_ratio=10.0)
    positive, negative = levels((40, 30), 3, seed=1), levels((40, 30), 3, seed=2)
    difference = program_cells(positive, 3, cell, KEY) - program_cells(negative, 3, cell, KEY)
    # Differences of float64 numbers up to 3.
    assert difference == pytest.approx(0.9 * (positive - negative.astype(float)), abs=1e-14)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_relative_error_is_in_proportion_to_the_state(level):
    cell = CellModel(programming_kind="relative", programming_sigma=0.05)
    deviation = program_cells(flat(level), 3, cell, KEY) / level - 1
    assert abs(deviation.mean()) < DEVIATIONS * 0.05 / math.sqrt(SAMPLES)
    assert abs(deviation.var() / 0.05**2 - 1) < DEVIATIONS * math.sqrt(2 / SAMPLES)
    assert stats.kstest(deviation.ravel() / 0.05, "norm").pvalue > 1 - CONFIDENCE


def test_an_absolute_error_is_the_same_for_all_states():
    cell = CellModel(programming_kind="absolute", programming_sigma=0.1)
    low, high = (program_cells(flat(level), 7, cell, KEY) - level for level in (2, 6))
    assert low == pytest.approx(high, abs=1e-14)
    assert abs(low.mean()) < DEVIATIONS * 0.1 / math.sqrt(SAMPLES)
    assert abs(low.var() / 0.1**2 - 1) < DEVIATIONS * math.sqrt(2 / SAMPLES)


def test_a_lognormal_error_is_normal_in_the_logarithm():
    cell = CellModel(programming_kind="lognormal", programming_sigma=0.1)
    logarithm = np.log(program_cells(flat(5), 7, cell, KEY) / 5)
    # 7 / 5 * 2 is 10 deviations away: nothing is clipped.
    assert abs(logarithm.mean()) < DEVIATIONS * 0.1 / math.sqrt(SAMPLES)
    assert abs(logarithm.var() / 0.1**2 - 1) < DEVIATIONS * math.sqrt(2 / SAMPLES)
    assert stats.kstest(logarithm.ravel() / 0.1, "norm").pvalue > 1 - CONFIDENCE


@pytest.mark.parametrize("kind", ["relative", "lognormal"])
def test_errors_in_proportion_leave_cells_that_conduct_nothing(kind):
    cell = CellModel(programming_kind=kind, programming_sigma=1.0)
    assert not program_cells(flat(0), 7, cell, KEY).any()


@pytest.mark.parametrize("kind", ["relative", "absolute", "lognormal"])
def test_conductances_are_clipped_to_nothing_and_twice_the_highest_level(kind):
    cell = CellModel(programming_kind=kind, programming_sigma=16.0)
    found = program_cells(flat(7), 7, cell, KEY)
    assert found.max() == 14
    assert found.min() >= 0
    assert (found.min() == 0) == (kind != "lognormal")


def test_clipping_raises_the_mean_of_cells_that_conduct_nothing():
    found = program_cells(flat(0), 7, CellModel(programming_kind="absolute", programming_sigma=0.5), KEY)
    half = 0.5 / math.sqrt(2 * math.pi)  # the mean of the positive part of a normal variate
    assert found.mean() == pytest.approx(half, abs=DEVIATIONS * 0.5 / math.sqrt(SAMPLES))


@pytest.mark.parametrize("kind", ["relative", "absolute", "lognormal"])
def test_no_sigma_is_no_error(kind):
    target = levels((30, 20), 7)
    assert np.array_equal(program_cells(target, 7, CellModel(programming_kind=kind), KEY), target)


@given(st.floats(1, 1e12), st.floats(1e-6, 1), st.floats(0, 2))
def test_drift_is_the_power_law(time, reference, exponent):
    cell = CellModel(drift_time_s=time, drift_reference_time_s=reference, drift_exponent=exponent)
    # `math.pow` takes a quotient that is rounded, and its error grows with the exponent's product.
    expected = math.pow(time / reference, -exponent)
    assert cell.drift_factor == pytest.approx(expected, rel=1e-14)
    assert 0 <= cell.drift_factor <= 1
    target = levels((4, 3), 7)
    assert np.array_equal(program_cells(target, 7, cell, KEY), target * cell.drift_factor)


def test_stuck_cells_are_as_many_as_the_rates_say_and_do_not_drift():
    cell = replace(EVERYTHING, programming_kind="none", programming_sigma=0.0)
    found = program_cells(flat(3), 7, cell, KEY)
    on, off = found == 7.0, found == 7.0 / 20.0
    rest = found[~on & ~off]
    assert np.unique(rest).size == 1
    assert rest[0] == pytest.approx((0.35 + 3 * 0.95) * cell.drift_factor, rel=1e-14)
    for stuck, rate in ((on, 0.02), (off, 0.05)):
        assert abs(stuck.mean() - rate) < DEVIATIONS * math.sqrt(rate * (1 - rate) / SAMPLES)
        # Neighbours are stuck independently.
        for beside in (stuck[1:] & stuck[:-1], stuck[:, 1:] & stuck[:, :-1]):
            assert abs(beside.mean() - rate**2) < DEVIATIONS * math.sqrt(3 * rate**2 / beside.size)


def test_stuck_cells_have_no_programming_error():
    found = program_cells(flat(3), 7, replace(EVERYTHING, stuck_on_rate=0.4, stuck_off_rate=0.6), KEY)
    assert set(np.unique(found)) == {7.0, 7.0 / 20.0}


def test_a_rate_of_one_is_every_cell():
    assert (program_cells(flat(3), 7, CellModel(stuck_on_rate=1.0), KEY) == 7).all()
    assert (program_cells(flat(3), 7, CellModel(stuck_off_rate=1.0), KEY) == 0).all()
    both = program_cells(flat(3), 7, CellModel(stuck_on_rate=0.3, stuck_off_rate=0.7), KEY)
    assert set(np.unique(both)) == {0.0, 7.0}


def test_more_stuck_cells_are_the_same_ones_and_others():
    few, many = (program_cells(flat(3), 7, CellModel(stuck_on_rate=rate), KEY) == 7 for rate in (0.01, 0.03))
    assert few.any()
    assert (many | ~few).all()


def test_errors_scale_with_sigma():
    one, two = (
        program_cells(flat(3), 7, CellModel(programming_kind="absolute", programming_sigma=sigma), KEY) - 3
        for sigma in (0.1, 0.2)
    )
    assert two == pytest.approx(2 * one, abs=1e-14)


def test_errors_of_neighbouring_cells_and_of_other_tiles_do_not_correlate():
    cell = CellModel(programming_kind="absolute", programming_sigma=0.1)
    found = program_cells(flat(3), 7, cell, KEY)
    limit = DEVIATIONS / math.sqrt(SAMPLES - LARGE[0])
    assert abs(np.corrcoef(found[1:].ravel(), found[:-1].ravel())[0, 1]) < limit
    assert abs(np.corrcoef(found[:, 1:].ravel(), found[:, :-1].ravel())[0, 1]) < limit
    assert abs(np.corrcoef(found.ravel(), found.T.ravel())[0, 1]) < limit
    base = {"seed": 1, "layer": 2, "tile": 3, "slice_index": 0, "polarity": 1}
    for name, value in base.items():
        other = program_cells(flat(3), 7, cell, cell_key(**{**base, name: value + 1}))
        assert abs(np.corrcoef(found.ravel(), other.ravel())[0, 1]) < limit


def test_being_stuck_does_not_depend_on_the_programming_error():
    cell = CellModel(programming_kind="absolute", programming_sigma=0.1)
    error = program_cells(flat(3), 7, cell, KEY) - 3
    stuck = program_cells(flat(3), 7, CellModel(stuck_on_rate=0.3), KEY) == 7
    assert abs(np.corrcoef(error.ravel(), stuck.ravel())[0, 1]) < DEVIATIONS / math.sqrt(SAMPLES)


def test_a_cell_does_not_depend_on_the_size_of_its_tile():
    target = levels((60, 50), 7)
    whole = program_cells(target, 7, EVERYTHING, KEY)
    assert np.array_equal(program_cells(target[:17, :50], 7, EVERYTHING, KEY), whole[:17])
    assert np.array_equal(program_cells(target[:, :1], 7, EVERYTHING, KEY), whole[:, :1])


def test_a_chip_is_the_same_in_any_order_and_on_any_thread():
    def program(tile):
        return program_cells(levels((64, 48), 7, tile), 7, EVERYTHING, cell_key(9, 0, tile, 0, 0))

    chip = [program(tile) for tile in range(12)]
    backwards = [program(tile) for tile in reversed(range(12))][::-1]
    with ThreadPoolExecutor(4) as pool:
        threads = list(pool.map(program, range(12)))
    for one, two, three in zip(chip, backwards, threads, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)


def test_chips_differ():
    target = levels((64, 48), 7)
    chips = [program_cells(target, 7, EVERYTHING, cell_key(seed, 0, 0, 0, 0)) for seed in range(8)]
    for place, one in enumerate(chips):
        for other in chips[:place]:
            # But for cells that are stuck, or conduct next to nothing, no two are equal.
            assert np.mean(one == other) < 0.02


def test_a_chip_has_the_bits_that_results_were_made_with():
    target = (np.arange(128 * 128) * 37 % 101 % 8).astype(np.uint8).reshape(128, 128)
    found = program_cells(target, 7, EVERYTHING, KEY)
    assert hashlib.sha256(found.astype("<f8").tobytes()).hexdigest() == CHIP_SHA256


def test_keys_are_of_no_other_stream():
    assert cell_key(1, 2, 3, 0, 1) == stream_key(1, 1, 2, 3, 0, 1)
    keys = {cell_key(*parts) for parts in np.ndindex(3, 4, 5, 3, 2)}
    assert len(keys) == 3 * 4 * 5 * 3 * 2


def test_the_exponential_is_within_two_units_in_the_last_place():
    x = np.concatenate([np.linspace(-50, 50, 40_001), np.linspace(-1e-3, 1e-3, 2001), [0.0, 700.0, -700.0]])
    with np.errstate(all="raise"):
        found = _exponential(x)
    expected = np.array([math.exp(value) for value in x.tolist()])
    # math.exp is itself within one unit.
    assert np.abs(found - expected).max(initial=0, where=x == 0) == 0
    assert (np.abs(found - expected) <= 2 * np.spacing(expected)).all()
    assert np.isfinite(_exponential(np.array([1e300, -1e300]))).all()


@pytest.mark.parametrize("fraction_bits", [0, 4, 8, 16])
def test_fixed_point_is_the_nearest_unit_and_ties_go_to_even(fraction_bits):
    unit = 2.0**-fraction_bits
    ties = np.array([0.5, 1.5, 2.5, 3.5, -0.5, -1.5]) * unit
    assert to_fixed(ties, fraction_bits).tolist() == [0, 2, 2, 4, 0, -2]
    conductances = program_cells(levels((50, 40), 7), 7, EVERYTHING, KEY)
    fixed = to_fixed(conductances, fraction_bits)
    assert fixed.dtype == np.int32
    error = fixed_point_error(conductances, fixed, fraction_bits)
    difference = fixed.astype(np.float64) / 2**fraction_bits - conductances
    assert error.maximum == np.abs(difference).max() <= unit / 2
    assert error.rms == pytest.approx(np.sqrt(np.mean(difference**2)), rel=1e-12)
    # Rounding errors are spread over a unit.
    assert error.rms == pytest.approx(unit / math.sqrt(12), rel=0.2)


def test_whole_levels_have_no_error_and_nothing_has_none():
    target = levels((5, 4), 7).astype(np.float64)
    assert fixed_point_error(target, to_fixed(target, 3), 3).maximum == 0
    empty = np.zeros((0, 4))
    assert fixed_point_error(empty, to_fixed(empty, 3), 3).rms == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: program_cells(np.zeros((2, 2), np.int64), 7, IDEAL, KEY), TypeError),
        (lambda: program_cells(np.zeros(2, np.uint8), 7, IDEAL, KEY), ValueError),
        (lambda: program_cells(np.full((2, 2), 8, np.uint8), 7, IDEAL, KEY), ValueError),
        (lambda: program_cells(np.zeros((2, 2), np.uint8), 0, IDEAL, KEY), ValueError),
        (lambda: program_cells(np.zeros((2, 2), np.uint8), 256, IDEAL, KEY), ValueError),
        (lambda: to_fixed(np.array([1.0]), -1), ValueError),
        (lambda: to_fixed(np.array([np.nan]), 8), ValueError),
        (lambda: to_fixed(np.array([np.inf]), 8), ValueError),
        (lambda: to_fixed(np.array([2.0**23]), 8), ValueError),
    ],
)
def test_operands_that_do_not_fit_are_refused(call, error):
    with pytest.raises(error):
        call()


@pytest.mark.parametrize(
    "settings",
    [
        {"on_off_ratio": 1.0},
        {"on_off_ratio": math.nan},
        {"programming_kind": "gaussian"},
        {"programming_sigma": -0.1},
        {"programming_sigma": math.inf},
        {"stuck_on_rate": -0.1},
        {"stuck_on_rate": 0.6, "stuck_off_rate": 0.6},
        {"stuck_off_rate": math.nan},
        {"drift_time_s": 0.5},
        {"drift_reference_time_s": 0.0},
        {"drift_time_s": math.inf},
        {"drift_exponent": -0.1},
    ],
)
def test_a_cell_that_cannot_be_is_refused(settings):
    with pytest.raises(ValueError, match=r"\d|none"):
        CellModel(**settings)
