"""Converters whose range is calibrated: percentiles of what the columns of a chip add up, and nothing else."""

import math

import numpy as np
import pytest
from crossbar_nets import NETS
from crossbar_reference import Chip, digit_of, weight_matrices, windows
from crossbar_tiles import tiled_hardware
from program_nets import Net, images_for

from ohmfold.errors import HardwareError
from ohmfold.kernels.isa import available
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import Conv, Dense, Reshape, Scale

IDEAL = {"adc.range": "full", "adc.bits": None, "read.noise": 0.0, "read.noise_relative": 0.0}


def profile(mapping="differential", percentile=75.0, **parts):
    adc = {"bits": 6, "range": "calibrated", "percentile": percentile}
    cell = {"fraction_bits": 5, "programming": {"kind": "relative", "sigma": 0.05}, "on_off_ratio": 50.0}
    parts = {"cell": cell, "read": {"noise": 0.05}} | parts
    return tiled_hardware(20, 26, mapping, 2, dac={"bits": 2}, adc=adc, **parts)


def rows_of_codes(layer, x, size):
    """The unsigned codes that a layer's arrays read, `(groups, rows, K)`."""
    if isinstance(layer, Dense):
        maps = x.reshape(len(x), *(size or (x.shape[1], 1, 1)))
        codes = maps.transpose(0, 2, 3, 1).reshape(1, len(x), -1)
    else:
        codes, _ = windows(layer, x)
    return codes.astype(int) + (128 if x.dtype == np.int8 else 0)


def column_sums(chip, codes):
    """Every sum that a converter of a layer is given, without noise, for the codes of each group."""
    found = []
    for group, rows in enumerate(codes):
        for plane in chip.planes[group]:
            for top in range(0, chip.depth, chip.hardware.array.rows):
                tile = slice(top, top + chip.hardware.array.rows)
                for digit in range(chip.hardware.digits):
                    shown = digit_of(rows[:, tile], digit, chip.hardware.dac.bits)
                    found.append((shown @ plane.cells[tile]).reshape(-1))
    return np.sort(np.concatenate(found))


def window(sums, percentile):
    """The lowest sum that is more than the lower tail, and the lowest that leaves no more than the upper one."""
    share = percentile / 100
    return sums[math.floor((1 - share) * len(sums))], sums[math.ceil(share * len(sums)) - 1]


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("mapping", ["differential", "offset"])
@pytest.mark.parametrize("percentile", [75.0, 87.5, 100.0])
def test_windows_are_percentiles_of_all_sums_with_ideal_converters_before(net, mapping, percentile):
    program, flattened = NETS[net](4)
    hardware = profile(mapping, percentile)
    images = images_for(program, 1)
    chip = Emulator(program, hardware=hardware, seed=6, calibration=images).crossbar
    quiet = hardware.with_changes(IDEAL)
    tensors = Emulator(program, hardware=quiet, seed=6).trace(images)
    compared = 0
    for number, layer in enumerate(program.layers):
        if isinstance(layer, Conv | Dense):
            flat = isinstance(layer, Dense) and isinstance(program.producers[layer.input], Reshape)
            size = flattened if flat else None
            codes = rows_of_codes(layer, tensors[layer.input], size)
            if codes.shape[1] < 64:  # of more, some are left out
                sums = column_sums(Chip(weight_matrices(layer, size), quiet, 6, number), codes)
                assert chip.windows[layer.name] == window(sums, percentile), layer.name
                compared += 1
            limits = hardware.adc_window(*chip.windows[layer.name])
            assert chip.programmed[layer.name].converters == limits
    assert compared >= 3


@pytest.mark.parametrize("percentile", [50.0, 50.1, 100.0])
def test_every_percentile_that_a_profile_may_have_gives_a_range(percentile):
    program, _ = NETS["lines"](4)
    images = images_for(program, 2)
    chip = Emulator(program, hardware=profile("offset", percentile), calibration=images).crossbar
    assert all(low <= high for low, high in chip.windows.values())


def test_threads_instruction_sets_and_further_images_change_no_window():
    program, _ = NETS["maps"](5)
    hardware, images = profile(), images_for(program, 530)
    wanted = Emulator(
        program, hardware=hardware, threads=1, isa="portable", calibration=images
    ).crossbar.windows
    for name in available():
        emulator = Emulator(program, hardware=hardware, threads=3, isa=name, calibration=images[:512])
        assert emulator.crossbar.windows == wanted


def grouped(first):
    """A depthwise convolution of one tap, whose first weight is `first` and whose second is 1."""
    net = Net(np.random.default_rng(0), (2, 3, 3))
    net.add(
        Conv,
        (2, 3, 3),
        dtype=np.int32,
        weight=np.array([first, 1], np.int8).reshape(2, 1, 1, 1),
        bias=None,
        input_zero_point=0,
        strides=(1, 1),
        pads=(0,) * 4,
        dilations=(1, 1),
        groups=2,
        requantisation=None,
    )
    sums = net.name
    return net.program(net.add(Scale, (2, 3, 3), dtype=np.float32, multiplier=np.float32(1)), sums)


def test_a_group_of_whole_levels_and_one_of_fractions_are_seen_in_the_same_units():
    # A pair of cells at 1 and at 1/2 of a level is 128 units; one of two cells at 1/2 is none, a whole number.
    parts = {"cell": {"fraction_bits": 8, "on_off_ratio": 2.0}, "read": {}}
    adc = {"bits": 8, "range": "calibrated", "percentile": 100.0}
    hardware = tiled_hardware(4, 4, "differential", 1, dac={"bits": 8}, adc=adc, **parts)
    for first in (1, 0):
        program = grouped(first)
        images = np.full((1, 2, 3, 3), 255, np.uint8)
        images[0, :, 0] = 0
        chip = Emulator(program, hardware=hardware, calibration=images).crossbar
        assert list(chip.windows.values()) == [(0, 255 * 128)]


def test_a_calibrated_range_without_images_is_refused_by_the_field():
    program, _ = NETS["lines"](0)
    with pytest.raises(HardwareError, match=r"^adc\.range: .*calibration"):
        Emulator(program, hardware=profile())
