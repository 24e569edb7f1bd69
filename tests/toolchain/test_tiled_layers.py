"""Where layers lie on a chip: tiles, utilisation and reads counted by hand, and the certificate's share of them."""

import numpy as np
import pytest
from program_nets import FLOAT32, INT32, Net, images_for

from ohmfold.toolchain import program as p
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.tiled_layers import TiledLayer, certified_share, tiled_layers


def two_layers(groups=1):
    """Convolution of 3 x 3 over (2, 6, 6) to (4, 4, 4), then 64 x 5 dense, with weights of 3 bits."""
    rng = np.random.default_rng(0)
    net = Net(rng, (2, 6, 6))
    weight = rng.integers(-3, 4, (4, 2 // groups, 3, 3)).astype(np.int8)
    step = p.Requantisation(np.float32(1e-3), 0)
    net.add(
        p.Conv, (4, 4, 4), weight=weight, bias=None, input_zero_point=0, strides=(1, 1), pads=(0, 0, 0, 0),
        dilations=(1, 1), groups=groups, requantisation=step,
    )  # fmt: skip
    net.add(p.Reshape, (64,), shape=(0, -1))
    weight = rng.integers(-3, 4, (64, 5)).astype(np.int8)
    codes = net.add(
        p.Dense, (5,), dtype=INT32, weight=weight, bias=None, input_zero_point=0, requantisation=None
    )
    logits = net.add(p.Scale, (5,), dtype=FLOAT32, multiplier=np.float32(0.5))
    return net.program(logits, codes)


def lying(changes, groups=1):
    program = two_layers(groups)
    hardware = load_hardware("ideal").with_changes(
        {"array.rows": 16, "array.columns": 8, "dac.bits": 2} | changes
    )
    return tiled_layers(Emulator(program, hardware=hardware), images_for(program, 3))


def test_pairs_are_counted_by_hand():
    conv, dense = lying({})
    # 18 rows take 2 tiles down, 4 pairs are 8 columns; 64 rows take 4, 5 pairs take 2 across.
    assert (conv.tiles, dense.tiles) == (2, 8)
    assert conv.utilisation == 18 * 8 / (2 * 16 * 8)
    assert dense.utilisation == 64 * 10 / (8 * 16 * 8)
    # positions x digits x tiles down x columns of the weight matrix
    assert (conv.reads, dense.reads) == (16 * 4 * 2 * 4, 1 * 4 * 4 * 5)
    assert conv.converters is None


def test_slices_and_reference_columns_are_read_too():
    conv, dense = lying({"array.mapping": "offset", "array.cell_bits": 1})
    # Weights of 3 bits take 3 cells; 8 columns hold one weight and the reference of its slices.
    assert (conv.tiles, dense.tiles) == (2 * 4, 4 * 5)
    assert (conv.reads, dense.reads) == (16 * 4 * 2 * 3 * (4 + 4), 4 * 4 * 3 * (5 + 5))


def test_groups_share_a_tile_and_are_read_one_after_another():
    conv, _ = lying({"array.rows": 18, "array.columns": 8}, groups=2)
    assert conv.tiles == 1
    assert conv.reads == 16 * 4 * 2 * 2


@pytest.mark.parametrize(
    ("changes", "share"),
    [
        ({}, 1.0),
        ({"adc.bits": 12, "adc.step": 1.0}, 1.0),
        ({"adc.bits": 2, "adc.range": "fixed", "adc.low": -1, "adc.high": 1}, 0.0),
    ],
)
def test_the_certificate_covers_reads_that_cannot_clip(changes, share):
    layers = lying(changes)
    assert [layer.certified for layer in layers] == [share, share]
    assert certified_share(layers) == share


def test_the_share_of_all_reads_weighs_layers_by_their_reads():
    layers = [TiledLayer("a", 1, 1.0, 300, 1.0, None), TiledLayer("b", 1, 1.0, 100, 0.2, None)]
    assert certified_share(layers) == (300 + 20) / 400
    assert certified_share([]) == 0.0


def test_without_a_chip_there_are_no_tiles():
    program = two_layers()
    assert tiled_layers(Emulator(program), images_for(program, 3)) == ()
