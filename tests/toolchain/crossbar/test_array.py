"""Layers on programmed tiles against the formulas, bit for bit: flawless tiles, which are exact, and flawed ones."""

import hashlib
import math
import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from crossbar_nets import NETS, DrawnNet, maps, requantised
from crossbar_reference import Chip, run_layer, weight_matrices
from crossbar_tiles import tiled_hardware
from hardware_profiles import hardwares
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from program_nets import images_for

from ohmfold.errors import HardwareError
from ohmfold.kernels.isa import BY_NAME, available, chosen
from ohmfold.toolchain.crossbar.array import program_layer
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import Conv, Dense, Reshape
from ohmfold.toolchain.reference import run_reference

SETS = [*available(), "amx-model"]
seeds = st.integers(0, 2**32 - 1)
environment = dict(os.environ)

FLAWLESS = {
    "cell.on_off_ratio": None,
    "cell.programming.kind": "none",
    "cell.stuck.on_rate": 0.0,
    "cell.stuck.off_rate": 0.0,
    "cell.drift.exponent": 0.0,
    "wires.row_ohm": 0.0,
    "wires.column_ohm": 0.0,
    "read.noise": 0.0,
    "read.noise_relative": 0.0,
}
# Every flaw at once, none of them small.
FLAWED = {
    "cell": {
        "fraction_bits": 6,
        "on_off_ratio": 30.0,
        "programming": {"kind": "lognormal", "sigma": 0.1},
        "stuck": {"on_rate": 0.02, "off_rate": 0.03},
        "drift": {"time_s": 1e5, "reference_time_s": 20.0, "exponent": 0.02},
    },
    "wires": {"row_ohm": 2.0, "column_ohm": 3.0, "on_ohm": 2e4},
    "read": {"noise": 0.05, "noise_relative": 0.03},
    "adc": {"bits": 7},
}


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def profile(mapping="differential", rows=20, columns=26, dac_bits=2, **parts):
    parts = FLAWED | parts
    return tiled_hardware(rows, columns, mapping, 2, dac={"bits": dac_bits}, **parts)


def programmed(weight, hardware, *, seed=0, layer=0, bias=None, zero_point=0, isa=None):
    isa = chosen() if isa is None else BY_NAME[isa]
    return program_layer(weight, bias, zero_point, hardware, seed=seed, layer=layer, isa=isa)


def read(array, group, x, first_sample=0):
    return array(group, array.products[group].pack(x), len(x), first_sample)


def exact(weight, group, x, zero_point=0, bias=0):
    return (x.astype(np.int64) - zero_point) @ weight[group].astype(np.int64) + bias


@st.composite
def cases(draw, largest_tile):
    """Any profile; weights `(groups, K, N)`, at least one of which a tile holds; uint8 rows of codes for each group."""
    rng = np.random.default_rng(draw(seeds))
    hardware = draw(hardwares(largest_tile=largest_tile))
    bits = draw(st.sampled_from([3, 3, 8, 9]) | st.integers(1, 9))
    each = hardware.slices(bits) * (2 if hardware.signed else 1)
    least = each if hardware.signed else 2 * each
    hardware = hardware.with_changes({"array.columns": max(hardware.array.columns, least)})
    low, high = hardware.weight_range(bits)
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 60)), draw(st.integers(1, 9))
    weight = rng.integers(low, high + 1, shape).astype(np.int16 if bits > 8 else np.int8)
    weight[:, 0, 0], weight[:, -1, -1] = low, high
    x = rng.integers(0, 256, (shape[0], draw(st.integers(1, 14)), shape[1])).astype(np.uint8)
    x[:, 0] = draw(st.sampled_from([0, 255, 127]))
    return hardware, weight, x


@settings(max_examples=70, suppress_health_check=[HealthCheck.too_slow])
@given(cases(40), st.sampled_from([None, 12, 16]), seeds)
def test_flawless_cells_and_converters_that_lose_nothing_give_exact_integers(case, widest, seed):
    hardware, weight, x = case
    hardware = hardware.with_changes(FLAWLESS | {"adc.range": "full", "adc.bits": widest, "adc.step": None})
    groups, _, columns = weight.shape
    chip = Chip(weight, hardware, seed, 3)
    # A step of at most one level has a code for every whole number of levels.
    assume(chip.limits is None or chip.limits.step <= 2**hardware.cell.fraction_bits)
    rng = np.random.default_rng(seed)
    bias = rng.integers(-(10**6), 10**6, groups * columns).astype(np.int32)
    zero_point = int(rng.choice([0, 128, 255, 7]))
    array = programmed(weight, hardware, seed=seed, layer=3, bias=bias, zero_point=zero_point)
    assert array.converters == chip.limits
    assert array.fixed_point_error == 0
    for group in range(groups):
        found = read(array, group, x[group])
        assert found.dtype == np.int32
        assert found.shape == (x.shape[1], columns)
        assert np.array_equal(
            found, exact(weight, group, x[group], zero_point, bias.reshape(groups, -1)[group])
        )


def fits(chip, weight):
    """Whether no sum of a tile and no variance of one can pass 2^30, and no sum of all tiles int32."""
    hardware = chip.hardware
    depth, digit = weight.shape[1], 2**hardware.dac.bits - 1
    length = min(hardware.array.rows, depth)
    reads = -(-depth // length) * sum(2**bit for bit in range(0, 8, hardware.dac.bits))
    total = 0
    for plane in (plane for planes in chip.planes for plane in planes):
        sums = length * digit * int(np.abs(plane.cells).max())
        variance = 0 if plane.variance is None else length * digit**2 * int(plane.variance.max())
        if max(sums, variance) >= 2**30:
            return False
        noise = 8 * math.sqrt(variance) * 2.0 ** (hardware.cell.fraction_bits - 6)
        # Where the limits leave out zero, codes are moved there; elsewhere by half a step at most, if a sum is more.
        rounded = plane.step // 2 if 2 * (sums + noise) > plane.step else 0
        moved = max(0, plane.low, -plane.high) * plane.step + rounded
        total += (sums + noise + moved) * 2**plane.shift * reads
    return total < 2 ** (31 + hardware.cell.fraction_bits)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(cases(24), seeds)
def test_flawless_cells_with_any_limits_equal_the_formulas(case, seed):
    # Limits in steps: wide enough or not, with and without zero; steps that divide a level, and others.
    hardware, weight, x = case
    rng = np.random.default_rng(seed)
    low, width = int(rng.choice([-2000, -3, 0, 1, 5, 50])), int(rng.choice([0, 7, 100, 2000, 4000]))
    step = float(rng.choice([0.25, 0.5, 1.0, 2.0, 3.0]))
    limits = {
        "adc.bits": 12,
        "adc.range": "fixed",
        "adc.low": low * step,
        "adc.high": (low + 1 + width) * step,
    }
    hardware = hardware.with_changes(FLAWLESS | {"cell.fraction_bits": 3} | limits | {"adc.step": step})
    chip = Chip(weight, hardware, seed, 0)
    assume(fits(chip, weight))
    array = programmed(weight, hardware, seed=seed)
    for group in range(len(weight)):
        assert np.array_equal(read(array, group, x[group]), chip.accumulators(group, x[group], 0))


@pytest.mark.parametrize("cell", [1, -1])
def test_limits_that_leave_out_zero_move_every_sum(cell):
    # From 4 levels on: eight digits of 0 are read as 4 each; two digits of 11 are read as they are.
    adc = {"bits": 9, "range": "fixed", "low": 4.0, "high": 400.0, "step": 1.0}
    weight = np.full((1, 1, 1), cell, np.int8)
    array = programmed(weight, tiled_hardware(4, 8, "differential", 2, adc=adc))
    assert read(array, 0, np.zeros((1, 1), np.uint8)) == 4 * 255
    array = programmed(weight, tiled_hardware(4, 8, "differential", 2, adc=adc, dac={"bits": 4}))
    assert read(array, 0, np.full((1, 1), 0xBB, np.uint8)) == (11 if cell > 0 else 4) * 17


@settings(max_examples=70, suppress_health_check=[HealthCheck.too_slow])
@given(
    cases(24),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.sampled_from([0.0, 0.05]),
    seeds,
    st.sampled_from([0, 3, 2**32 - 5]),
)
def test_any_chip_equals_the_formulas_fed_with_its_conductances(case, noise, relative, seed, first_sample):
    hardware, weight, x = case
    changes = {"read.noise": noise, "read.noise_relative": relative}
    if hardware.adc.range == "calibrated":
        changes["adc.range"] = "full"
    hardware = hardware.with_changes(changes)
    chip = Chip(weight, hardware, seed, 5)
    assume(fits(chip, weight))
    array = programmed(weight, hardware, seed=seed, layer=5, zero_point=9)
    assert array.converters == chip.limits
    assert array.fixed_point_error == chip.fixed_point_error <= 2.0 ** -(hardware.cell.fraction_bits + 1)
    for group in range(len(weight)):
        wanted = chip.accumulators(group, x[group], 9, first_sample=first_sample)
        assert np.array_equal(read(array, group, x[group], first_sample), wanted)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("mapping", ["differential", "offset"])
@pytest.mark.parametrize("dac_bits", [1, 3, 8])
def test_a_flawed_chip_equals_the_formulas_on_every_instruction_set(name, mapping, dac_bits):
    rng = np.random.default_rng(4)
    weight = rng.integers(-127, 128, (2, 45, 7)).astype(np.int8)
    x = rng.integers(0, 256, (2, 30, 45)).astype(np.uint8)
    noise = {"noise": 0.05, "noise_relative": 0.03} if dac_bits < 8 else {"noise": 0.01}
    hardware = profile(mapping, dac_bits=dac_bits, read=noise)
    chip = Chip(weight, hardware, 11, 2)
    array = programmed(weight, hardware, seed=11, layer=2, isa=name)
    for group in range(2):
        wanted = chip.accumulators(group, x[group], 0, first_sample=100)
        assert np.array_equal(read(array, group, x[group], 100), wanted)
        assert not np.array_equal(wanted, exact(weight, group, x[group]))


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("fraction_bits", [4, 5, 6, 7])
def test_cells_between_half_a_byte_and_a_byte_of_units_are_read_exactly(name, fraction_bits):
    # Of level 3, less the leak of level 0: 2.85 levels.
    hardware = tiled_hardware(
        8, 8, "differential", 2, dac={"bits": 8}, cell={"fraction_bits": fraction_bits, "on_off_ratio": 20.0}
    )
    weight, x = np.full((1, 4, 2), 3, np.int8), np.full((1, 4), 255, np.uint8)
    wanted = Chip(weight, hardware, 0, 0).accumulators(0, x, 0)
    assert np.array_equal(read(programmed(weight, hardware, isa=name), 0, x), wanted)


@pytest.mark.parametrize("flaw", ["on_off_ratio", "programming", "stuck", "drift", "wires", "read", "adc"])
@pytest.mark.parametrize("mapping", ["differential", "offset"])
def test_each_flaw_by_itself_equals_the_formulas_and_changes_sums(flaw, mapping):
    rng = np.random.default_rng(5)
    weight = rng.integers(-3, 4, (1, 50, 9)).astype(np.int8)
    x = rng.integers(0, 256, (40, 50)).astype(np.uint8)
    parts = {"adc": {}, "wires": {}, "read": {}, "cell": {"fraction_bits": 8}}
    if flaw in FLAWED["cell"]:
        parts["cell"][flaw] = FLAWED["cell"][flaw]
    else:
        parts[flaw] = {"bits": 4} if flaw == "adc" else FLAWED[flaw]
    hardware = profile(mapping, **parts)
    wanted = Chip(weight, hardware, 1, 0).accumulators(0, x, 0)
    assert np.array_equal(read(programmed(weight, hardware, seed=1), 0, x), wanted)
    assert not np.array_equal(wanted, exact(weight, 0, x))


def test_the_error_of_fixed_point_is_the_largest_of_all_cells():
    rng = np.random.default_rng(6)
    weight = rng.integers(-3, 4, (2, 30, 5)).astype(np.int8)
    for fraction_bits in (0, 4, 10):
        hardware = profile(cell=FLAWED["cell"] | {"fraction_bits": fraction_bits}, read={})
        found = programmed(weight, hardware, seed=2).fixed_point_error
        assert found == Chip(weight, hardware, 2, 0).fixed_point_error
        # Of some 600 cells one is nearly half a unit off.
        assert 0.49 < found * 2**fraction_bits <= 0.5


def test_chips_of_different_seeds_and_layers_of_one_chip_differ():
    weight = np.random.default_rng(7).integers(-3, 4, (1, 30, 5)).astype(np.int8)
    x = np.random.default_rng(8).integers(0, 256, (10, 30)).astype(np.uint8)
    for parts in ({"read": {}}, {"cell": {}, "wires": {}}):  # by their cells, by their reads
        hardware = profile(**parts)
        one, again, seed, layer = (
            read(programmed(weight, hardware, seed=s, layer=number), 0, x)
            for s, number in ((1, 0), (1, 0), (2, 0), (1, 1))
        )
        assert np.array_equal(one, again)
        assert not np.array_equal(one, seed)
        assert not np.array_equal(one, layer)


def test_groups_with_the_same_weights_have_cells_and_noise_of_their_own():
    weight = np.repeat(np.random.default_rng(7).integers(-3, 4, (1, 30, 5)), 2, axis=0).astype(np.int8)
    x = np.random.default_rng(8).integers(0, 256, (10, 30)).astype(np.uint8)
    for parts in ({"read": {}}, {"cell": {}, "wires": {}}):
        array = programmed(weight, profile(**parts))
        assert not np.array_equal(read(array, 0, x), read(array, 1, x))


@pytest.mark.parametrize("mapping", ["differential", "offset"])
def test_wires_without_resistance_are_no_wires(mapping):
    rng = np.random.default_rng(9)
    weight = rng.integers(-3, 4, (1, 50, 9)).astype(np.int8)
    x = rng.integers(0, 256, (20, 50)).astype(np.uint8)
    none, zero, tiny, real = (
        read(programmed(weight, profile(mapping, wires=wires)), 0, x)
        for wires in (
            {},
            {"row_ohm": 0.0, "column_ohm": 0.0, "on_ohm": 2e4},
            {"row_ohm": 1e-9, "column_ohm": 1e-9, "on_ohm": 2e4},
            FLAWED["wires"],
        )
    )
    assert np.array_equal(none, zero)
    assert np.array_equal(none, tiny)  # what it changes is far below half a unit of a cell
    assert not np.array_equal(none, real)


# Statistics of fixed keys: a draw that passes keeps passing. Bounds hold for 999 keys in 1,000.
CONFIDENCE = 0.999
DEVIATIONS = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
SAMPLES = 100_000


@pytest.mark.parametrize("mapping", ["differential", "offset"])
@pytest.mark.parametrize(("noise", "relative"), [(0.2, 0.0), (0.0, 0.1), (0.1, 0.1)])
@pytest.mark.parametrize("dac_bits", [2, 4])
def test_read_noise_has_the_mean_and_the_variance_of_theory(mapping, noise, relative, dac_bits):
    rng = np.random.default_rng(10)
    weight = rng.integers(-7, 8, (1, 30, 2)).astype(np.int8)  # 4 bits: two slices of 2 bits
    code = rng.integers(0, 256, 30)
    hardware = tiled_hardware(
        13, 24, mapping, 2, dac={"bits": dac_bits}, read={"noise": noise, "noise_relative": relative}
    )
    array = programmed(weight, hardware, seed=3)
    x = np.broadcast_to(code.astype(np.uint8), (SAMPLES, 30))
    deviation = read(array, 0, x).astype(np.float64) - exact(weight, 0, x[:1])

    # Each digit of each cell is read once: its variance counts (digit 4^slice 2^(digit's bits))^2 times.
    digits = range(8 // dac_bits)
    weights = np.sum(
        [((code >> (dac_bits * d) & (2**dac_bits - 1)) * 2.0 ** (dac_bits * d)) ** 2 for d in digits], axis=0
    )
    variance = np.zeros(2)
    for index in range(2):
        if mapping == "differential":
            levels = [np.maximum(side * weight[0].astype(int), 0) // 4**index % 4 for side in (1, -1)]
        else:
            reference = np.full_like(weight[0], 8 // 4**index % 4)
            levels = [(weight[0].astype(int) + 8) // 4**index % 4, reference]
        for level in levels:
            variance += 16.0**index * (weights @ (noise**2 + (relative * level) ** 2))
    # Rounded to whole levels, a column; with an offset the reference's is rounded by itself.
    variance += (1 if mapping == "differential" else 2) / 12
    # The variances of cells are rounded to 2^-12 of a squared level.
    slack = 1e-3
    assert variance.min() > 100
    mean, spread = deviation.mean(axis=0), deviation.var(axis=0)
    assert (np.abs(mean) < DEVIATIONS * np.sqrt(variance / SAMPLES)).all()
    assert (np.abs(spread / variance - 1) < DEVIATIONS * math.sqrt(2 / SAMPLES) + slack).all()
    # Neighbouring columns and successive samples are independent, but for a reference that both columns share.
    bound = DEVIATIONS / math.sqrt(SAMPLES)
    assert abs(np.corrcoef(deviation[1:, 0], deviation[:-1, 0])[0, 1]) < bound
    if mapping == "differential":
        assert abs(np.corrcoef(deviation.T)[0, 1]) < bound


def test_a_profile_that_cannot_hold_the_weights_is_refused():
    wide = np.full((1, 3, 2), 300, np.int16)
    with pytest.raises(
        HardwareError,
        match=r"^layer 0 .*: array\.mapping: 'differential' holds .* -255 to 255, found 0 to 300",
    ):
        programmed(wide, tiled_hardware(columns=64))
    with pytest.raises(HardwareError, match=r"array\.mapping: 'offset' holds weights from -256 to 255"):
        programmed(wide, tiled_hardware(columns=64, mapping="offset"))
    byte = np.full((1, 3, 2), 127, np.int8)
    with pytest.raises(HardwareError, match=r"^layer 0 on hardware 'drawn': array\.columns: "):
        programmed(byte, tiled_hardware(columns=7))


def test_sums_of_a_tile_that_could_pass_int32_are_refused_with_the_layer():
    # Noise keeps fractions of a level: 300 rows of 15 levels of 2^10 units, times 255, pass 2^30.
    hardware = tiled_hardware(
        512, 512, "differential", 4, dac={"bits": 8}, cell={"fraction_bits": 10}, read={"noise": 1e-3}
    )
    weight = np.full((1, 300, 2), 15, np.int8)
    with pytest.raises(HardwareError, match=r"layer 4 .*'drawn'.* int32"):
        programmed(weight, hardware, layer=4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"array.columns": 3}, "array.columns: a weight of 3 bits takes 4 columns"),
        (
            {"array.cell_bits": 4, "cell.fraction_bits": 10, "dac.bits": 8, "read.noise": 16.0},
            "can pass int32",
        ),
    ],
)
def test_errors_of_programming_name_the_layer(changes, words):
    program, _ = NETS["lines"](0)
    (first, *_) = program.weighted_layers()
    hardware = tiled_hardware(columns=64, cell_bits=1).with_changes(changes)
    with pytest.raises(
        HardwareError, match=rf"^layer '{first.name}' on hardware 'drawn': .*{re.escape(words)}"
    ):
        Emulator(program, hardware=hardware)


@pytest.mark.parametrize("mapping", ["differential", "offset"])
def test_sums_of_all_tiles_that_could_pass_int32_are_refused_with_the_layer(mapping):
    # 70,000 * 127 * 255 is more than 2^31, though no tile's sum comes near.
    weight = np.full((1, 70_000, 1), 127, np.int8)
    with pytest.raises(HardwareError, match=r"layer 4 .*int32"):
        programmed(weight, tiled_hardware(128, 128, mapping), layer=4)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(hardwares(largest_tile=40), st.sampled_from([*NETS]), st.sampled_from([3, 127]), seeds)
def test_a_program_on_flawless_tiles_is_the_exact_one(hardware, net, most, seed):
    hardware = hardware.with_changes(FLAWLESS | {"adc.range": "full", "adc.bits": None})
    # Two columns for each of eight slices of one bit.
    hardware = hardware.with_changes({"array.columns": max(16, hardware.array.columns)})
    program, _ = NETS[net](seed, most)
    images = images_for(program, 4, seed)
    found = Emulator(program, hardware=hardware, threads=1, seed=seed).trace(images)
    wanted = run_reference(program, {"pixels": images})
    for name, value in found.items():
        assert value.dtype == wanted[name].dtype
        assert np.array_equal(value, wanted[name]), name


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("mapping", ["differential", "offset"])
@pytest.mark.parametrize("most", [3, 127])
def test_every_layer_of_a_program_on_a_flawed_chip_equals_the_formulas(net, mapping, most):
    program, flattened = NETS[net](1, most)
    hardware = profile(mapping)
    images = images_for(program, 5)
    found = Emulator(program, hardware=hardware, seed=7, threads=1).trace(images, first_sample=1000)
    wanted = run_reference(program, {"pixels": images})
    for number, layer in enumerate(program.layers):
        if isinstance(layer, Conv | Dense):
            after_map = isinstance(layer, Dense) and isinstance(program.producers[layer.input], Reshape)
            size = flattened if after_map else None
            acc = run_layer(
                layer, found[layer.input], hardware, seed=7, number=number, size=size, first_image=1000
            )
            assert np.array_equal(found[layer.output], requantised(acc, layer)), layer.name
    assert not np.array_equal(found[program.codes], wanted[program.codes])


@pytest.fixture
def flawed():
    """A program and a chip with every flaw."""
    return maps(2)[0], profile()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_instruction_sets_threads_and_batches_change_no_bit(flawed, name, threads):
    program, hardware = flawed
    images = images_for(program, 23)
    wanted = Emulator(program, hardware=hardware, seed=3, threads=1, isa="portable").codes(
        images, first_sample=9
    )
    emulator = Emulator(program, hardware=hardware, seed=3, threads=threads, isa=name)
    assert np.array_equal(emulator.codes(images, first_sample=9), wanted)
    for cut in (1, 8, 22):
        parts = [
            emulator.codes(images[:cut], first_sample=9),
            emulator.codes(images[cut:], first_sample=9 + cut),
        ]
        assert np.array_equal(np.concatenate(parts), wanted)


def test_batches_larger_than_a_piece_are_the_same_sample_by_sample():
    net = DrawnNet(np.random.default_rng(0), (1, 2, 2))
    net.convolve(3, (2, 1))
    net.flatten()
    net.dense(2)
    program = net.logits()
    images = images_for(program, 1100)
    emulator = Emulator(program, hardware=profile(), threads=2)
    whole = emulator.codes(images)
    for first in (0, 511, 512, 513, 1023, 1024, 1099):
        assert np.array_equal(
            emulator.codes(images[first : first + 1], first_sample=first), whole[first : first + 1]
        )


def test_a_chip_is_the_same_whatever_is_asked_of_it_first(flawed):
    program, hardware = flawed
    images = images_for(program, 6)
    called, traced = (Emulator(program, hardware=hardware, seed=3) for _ in range(2))
    everything = traced.trace(images)
    assert np.array_equal(called(images), everything[program.logits])
    for name in everything:
        assert np.array_equal(called.trace(images, [name])[name], everything[name])
    assert np.array_equal(called.run({"pixels": images})[program.logits], everything[program.logits])


def test_seeds_are_chips(flawed):
    program, hardware = flawed
    images = images_for(program, 6)
    one, again, other = (Emulator(program, hardware=hardware, seed=seed).codes(images) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_samples_have_noise_of_their_own_and_nothing_else(flawed):
    program, hardware = flawed
    image = np.repeat(images_for(program, 1), 30, axis=0)
    noisy = Emulator(program, hardware=hardware).codes(image)
    assert len(np.unique(noisy, axis=0)) > 1
    quiet = hardware.with_changes({"read.noise": 0.0, "read.noise_relative": 0.0})
    assert len(np.unique(Emulator(program, hardware=quiet).codes(image, first_sample=77), axis=0)) == 1


ELSEWHERE = """
import hashlib, pickle, sys
from ohmfold.toolchain.emulator import Emulator
with open(sys.argv[1], "rb") as file:
    program, hardware, images = pickle.load(file)
codes = Emulator(program, hardware=hardware, seed=3, isa=sys.argv[2]).codes(images, first_sample=9)
print(hashlib.sha256(codes.tobytes()).hexdigest())
"""


@pytest.mark.parametrize("name", [available()[0], "portable"])
def test_another_process_has_the_same_bits(flawed, name, tmp_path):
    program, hardware = flawed
    images = images_for(program, 5)
    wanted = Emulator(program, hardware=hardware, seed=3).codes(images, first_sample=9)
    path = tmp_path / "case.pickle"
    path.write_bytes(pickle.dumps((program, hardware, images)))
    # Its kernels are read from the usual folder; the tiles are solved anew.
    command = [sys.executable, "-c", ELSEWHERE, str(path), name]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    assert found.stdout.split() == [hashlib.sha256(wanted.tobytes()).hexdigest()]


def test_a_program_whose_weights_a_profile_cannot_hold_is_refused():
    program, _ = maps(0, most=127)
    with pytest.raises(HardwareError, match=r"array\.columns"):
        Emulator(program, hardware=tiled_hardware(columns=7))
    dense = next(layer for layer in program.layers if isinstance(layer, Dense))
    wide = replace(dense, weight=np.full(dense.weight.shape, 256, np.int16))
    changed = replace(program, layers=tuple(wide if layer is dense else layer for layer in program.layers))
    with pytest.raises(HardwareError, match="256"):
        Emulator(changed, hardware=tiled_hardware(columns=64))


def test_the_reference_lays_weights_as_the_formulas_read_them():
    program, flattened = maps(3)
    images = images_for(program, 3)
    tensors = run_reference(program, {"pixels": images})
    for layer in program.layers:
        if isinstance(layer, Dense) and isinstance(program.producers[layer.input], Reshape):
            x = tensors[layer.input].reshape(3, *flattened).transpose(0, 2, 3, 1).reshape(3, -1).astype(int)
            sums = (x - layer.input_zero_point) @ weight_matrices(layer, flattened)[0].astype(int)
            assert np.array_equal(requantised(sums.astype(np.int32), layer), tensors[layer.output])
