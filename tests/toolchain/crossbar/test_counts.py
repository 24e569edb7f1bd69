"""Counts of an inference against events counted one by one, and what the profile's figures make of them."""

from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
from crossbar_tiles import cells_of_tiles, tiled_hardware
from hypothesis import given
from hypothesis import strategies as st
from program_nets import Net

from ohmfold.errors import HardwareError
from ohmfold.toolchain.crossbar import Crossbar
from ohmfold.toolchain.crossbar.counts import count_layer, count_program
from ohmfold.toolchain.crossbar.mapping import map_weights
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.program import Conv, Dense, Requantisation, Reshape, Scale


def events(mapping, positions, hardware):
    """What happens in one inference, event by event."""
    tiles = cells_of_tiles(mapping, hardware)
    seen, passes = Counter(), Counter()
    for _ in range(positions):
        for group in range(mapping.groups):
            for _ in range(hardware.digits):
                for index, tile in enumerate(tiles):
                    read = [place for place, (owner, _, _) in tile.items() if owner == group]
                    if not read:
                        continue
                    passes[index] += 1
                    seen["row_drives"] += len({row for row, _ in read})
                    seen["cell_reads"] += len(read)
                    columns = len({column for _, column in read})
                    seen["conversions"] += columns // 2 if hardware.signed else columns
    return {
        **seen,
        "shift_adds": seen["conversions"],
        "passes": max(passes.values()),
        "tiles": len(tiles),
        "rows": len(tiles) * hardware.array.rows,
        "cells": len(tiles) * hardware.array.rows * hardware.array.columns,
        "cells_used": sum(map(len, tiles)),
    }


@given(
    st.integers(1, 14), st.integers(1, 7), st.integers(1, 5), st.integers(1, 9), st.integers(1, 3),
    st.sampled_from(["differential", "offset"]), st.integers(1, 16), st.integers(18, 30), st.integers(1, 4),
    st.integers(1, 8),
)  # fmt: skip
def test_counts_are_the_events_counted_one_by_one(
    rows, columns, groups, weight_bits, positions, mapping, tile_rows, tile_columns, cell_bits, dac_bits
):
    hardware = tiled_hardware(tile_rows, tile_columns, mapping, cell_bits, dac={"bits": dac_bits})
    laid = map_weights(rows, columns, groups, weight_bits, hardware)
    found = count_layer(laid, positions, hardware)
    for name, count in events(laid, positions, hardware).items():
        assert getattr(found, name) == count, name
    assert found.utilisation == pytest.approx(laid.utilisation, rel=1e-12)


def test_a_layer_counted_by_hand():
    # 3 bits in two 2-bit cells; a tile holds three weights and a reference. 8-bit codes take four digits of 2 bits.
    hardware = tiled_hardware(8, 8, "offset", dac={"bits": 2})
    found = count_layer(map_weights(10, 4, 1, 3, hardware), 5, hardware)
    reads = 5 * 4
    assert (found.tiles, found.passes) == (4, reads)
    assert found.conversions == found.shift_adds == reads * 2 * (4 + 2) * 2
    assert found.row_drives == reads * 10 * 2
    assert found.cell_reads == reads * 10 * (4 * 2 + 2 * 2)
    assert (found.cells, found.cells_used) == (256, 120)


def test_energy_and_area_are_counts_times_the_figures_and_name_their_source():
    energy = {"source": "Doe 2020", "adc_pj": 2.0, "dac_pj": 0.5, "cell_fj": 3.0, "digital_pj": 0.25}
    area = {"source": "Roe 2021", "adc_um2": 1000.0, "dac_um2": 0.5, "cell_um2": 0.25}
    hardware = tiled_hardware(energy=energy, area=area)
    found = count_layer(map_weights(20, 9, 1, 3, hardware), 7, hardware)
    assert found.energy.source == "Doe 2020"
    assert found.energy.adc_pj == 2 * found.conversions
    assert found.energy.dac_pj == 0.5 * found.row_drives
    assert found.energy.cell_pj == 3 * found.cell_reads / 1000
    assert found.energy.digital_pj == 0.25 * found.shift_adds
    parts = found.energy.adc_pj + found.energy.dac_pj + found.energy.cell_pj + found.energy.digital_pj
    assert found.energy.known_pj == pytest.approx(parts, rel=1e-12)
    assert found.area.source == "Roe 2021"
    assert found.area.adc_um2 == 1000 * found.tiles  # one for each tile
    assert found.area.dac_um2 == 0.5 * found.tiles * 8
    assert found.area.cell_um2 == 0.25 * found.tiles * 64
    assert found.area.known_um2 == found.area.adc_um2 + found.area.dac_um2 + found.area.cell_um2


def test_what_the_profile_does_not_say_is_none():
    plain = tiled_hardware()
    found = count_layer(map_weights(20, 9, 1, 3, plain), 7, plain)
    assert found.energy is None
    assert found.area is None
    some = tiled_hardware(energy={"source": "Doe", "adc_pj": 2.0}, area={"source": "Doe", "cell_um2": 0.5})
    found = count_layer(map_weights(20, 9, 1, 3, some), 7, some)
    assert (found.energy.dac_pj, found.energy.cell_pj, found.energy.digital_pj) == (None, None, None)
    assert found.energy.known_pj == found.energy.adc_pj == 2 * found.conversions
    assert (found.area.adc_um2, found.area.dac_um2) == (None, None)
    assert found.area.known_um2 == 0.5 * found.cells


def small_net():
    """A convolution of 5 x 4 positions, a grouped one of 3 x 2, and a dense layer."""
    net = Net(np.random.default_rng(0), (2, 7, 6))
    common = {"bias": None, "input_zero_point": 0, "pads": (0,) * 4, "dilations": (1, 1)}
    codes = Requantisation(np.float32(0.01), 0, np.dtype(np.uint8))

    def weights(*shape):
        return net.rng.integers(-3, 4, shape).astype(np.int8)

    net.add(
        Conv, (6, 5, 4), weight=weights(6, 2, 3, 3), strides=(1, 1), groups=1, requantisation=codes, **common
    )
    net.add(
        Conv, (6, 3, 2), weight=weights(6, 2, 1, 2), strides=(2, 2), groups=3, requantisation=codes, **common
    )
    net.add(Reshape, (36,), shape=(0, -1))
    net.add(
        Dense, (3,), dtype=np.int32, weight=weights(36, 3), bias=None, input_zero_point=0, requantisation=None
    )
    sums = net.name
    return net.program(net.add(Scale, (3,), dtype=np.float32, multiplier=np.float32(1)), sums)


def test_a_program_counts_its_layers_at_their_positions():
    hardware = load_hardware("isaac").with_changes({"array.rows": 16, "array.columns": 12})
    program = small_net()
    found = count_program(Emulator(program, hardware=hardware).crossbar)
    convolution, grouped, dense = (layer for layer in program.layers if isinstance(layer, Conv | Dense))
    assert list(found.layers) == [convolution.name, grouped.name, dense.name]
    expected = {
        convolution.name: (map_weights(18, 6, 1, 3, hardware), 20),
        grouped.name: (map_weights(4, 2, 3, 3, hardware), 6),
        dense.name: (map_weights(36, 3, 1, 3, hardware), 1),
    }
    for name, (mapping, positions) in expected.items():
        assert found.layers[name] == count_layer(mapping, positions, hardware)
        assert found.layers[name].conversions == events(mapping, positions, hardware)["conversions"]


def test_the_total_is_the_sum_of_the_layers():
    hardware = load_hardware("isaac").with_changes({"array.rows": 16, "array.columns": 12})
    found = count_program(Emulator(small_net(), hardware=hardware).crossbar)
    for field in fields(found.total):
        if field.type == "int":
            layers = [getattr(layer, field.name) for layer in found.layers.values()]
            assert getattr(found.total, field.name) == sum(layers) > 0
    energies = [layer.energy.known_pj for layer in found.layers.values()]
    assert found.total.energy.known_pj == pytest.approx(sum(energies), rel=1e-12)
    assert found.total.energy.source == hardware.energy.source
    assert found.total.area.known_um2 == pytest.approx(
        sum(layer.area.known_um2 for layer in found.layers.values()), rel=1e-12
    )


def test_a_flawed_chip_counts_the_same():
    program = small_net()
    plain = tiled_hardware(16, 12)
    noisy = plain.with_changes(
        {"read.noise": 0.5, "cell.programming.kind": "absolute", "cell.programming.sigma": 0.1}
    )
    counts = [count_program(Emulator(program, hardware=one).crossbar) for one in (plain, noisy)]
    assert counts[0] == counts[1]


def test_layers_that_are_not_programmed_cannot_be_counted():
    program = small_net()
    with pytest.raises(HardwareError, match=rf"'{program.layers[0].name}' is not programmed"):
        count_program(Crossbar(tiled_hardware(), program))
