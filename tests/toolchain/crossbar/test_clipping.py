"""Clipped reads, layer by layer: every conversion of every image, counted by the formulas."""

import numpy as np
import pytest
from crossbar_nets import NETS
from crossbar_reference import Chip, weight_matrices, windows
from crossbar_tiles import tiled_hardware
from program_nets import images_for

from ohmfold.errors import HardwareError
from ohmfold.toolchain.crossbar.clipping import ClippedReads, count_clipped, total_clipped
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.program import Conv, Dense

FIRST = 2**32 - 2


def profile(mapping, **parts):
    adc = {"bits": 5, "range": "fixed", "low": -3.0 if mapping == "differential" else 1.0, "high": 9.0}
    cell = {"fraction_bits": 4, "programming": {"kind": "relative", "sigma": 0.05}}
    return tiled_hardware(20, 26, mapping, 2, dac={"bits": 2}, adc=adc, cell=cell, **parts)


def codes_of(layer, x, size):
    """The unsigned codes that a layer's arrays read, `(groups, rows, K)`, and rows of an image."""
    if isinstance(layer, Dense):
        maps = x.reshape(len(x), *(size or (x.shape[1], 1, 1)))
        codes = maps.transpose(0, 2, 3, 1).reshape(1, len(x), -1)
    else:
        codes, _ = windows(layer, x)
    flip = 128 if x.dtype == np.int8 else 0
    return (codes.astype(int) + flip).astype(np.uint8)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("mapping", ["differential", "offset"])
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_every_layers_clipped_reads_are_those_of_the_formulas(net, mapping, noise):
    program, flattened = NETS[net](3)
    hardware = profile(mapping, read={"noise": noise})
    images = images_for(program, 5)
    emulator = Emulator(program, hardware=hardware, seed=8, threads=2)
    found = count_clipped(emulator, images, first_sample=FIRST)
    layers = [layer for layer in program.layers if isinstance(layer, Conv | Dense)]
    assert list(found) == [layer.name for layer in layers]
    tensors = emulator.trace(images, first_sample=FIRST)
    for number, layer in enumerate(program.layers):
        if layer not in layers:
            continue
        size = flattened if isinstance(layer, Dense) and layer.weight.shape[0] == np.prod(flattened) else None
        chip = Chip(weight_matrices(layer, size), hardware, 8, number)
        codes = codes_of(layer, tensors[layer.inputs[0]], size)
        first = FIRST * (codes.shape[1] // len(images))
        wanted = [chip.clipped(group, codes[group], first) for group in range(chip.groups)]
        assert found[layer.name] == ClippedReads(*np.sum(wanted, axis=0).tolist())
    assert 0.02 < total_clipped(found.values()).share < 0.9


def test_counting_changes_no_bit_and_leaves_nothing_behind():
    program, _ = NETS["maps"](1)
    images = images_for(program, 4)
    emulator = Emulator(program, hardware=profile("differential", read={"noise": 0.1}), seed=2)
    before = emulator(images)
    first = count_clipped(emulator, images)
    assert np.array_equal(emulator(images), before)
    assert count_clipped(emulator, images) == first
    halves = [count_clipped(emulator, images[:3]), count_clipped(emulator, images[3:], first_sample=3)]
    for name, counted in first.items():
        assert total_clipped(half[name] for half in halves) == counted
    assert emulator.crossbar.observer is None


def test_where_nothing_can_clip_nothing_is_clipped():
    program, _ = NETS["maps"](1)
    emulator = Emulator(program, hardware=load_hardware("isaac").with_changes({"adc.bits": 12}))
    found = count_clipped(emulator, images_for(program, 3))
    assert all(count.reads > 0 and count.low == count.high == 0 for count in found.values())
    assert total_clipped(found.values()).share == 0
    assert ClippedReads().share == 0


def test_without_a_chip_there_is_nothing_to_count():
    program, _ = NETS["lines"](1)
    with pytest.raises(HardwareError, match="without hardware"):
        count_clipped(Emulator(program), images_for(program, 1))
