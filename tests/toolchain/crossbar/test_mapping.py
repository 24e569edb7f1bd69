"""Where weights lie: tiles and what they hold, slices that give every weight back, and what does not fit."""

import numpy as np
import pytest
from crossbar_tiles import cells_of_tiles, tiled_hardware
from hypothesis import given
from hypothesis import strategies as st

from ohmfold.errors import HardwareError
from ohmfold.toolchain.crossbar.mapping import map_weights, slice_levels

mappings = st.sampled_from(["differential", "offset"])


@given(
    st.integers(1, 30), st.integers(1, 12), st.integers(1, 7), st.integers(1, 9), mappings,
    st.integers(1, 20), st.integers(18, 30), st.integers(1, 4),
)  # fmt: skip
def test_tiles_and_what_they_hold_are_those_of_cells_laid_one_by_one(
    rows, columns, groups, weight_bits, mapping, tile_rows, tile_columns, cell_bits
):
    profile = tiled_hardware(tile_rows, tile_columns, mapping, cell_bits)
    found = map_weights(rows, columns, groups, weight_bits, profile)
    tiles = cells_of_tiles(found, profile)
    assert found.tiles == len(tiles)
    assert found.utilisation == pytest.approx(
        sum(map(len, tiles)) / (len(tiles) * tile_rows * tile_columns), rel=1e-12
    )
    assert 0 < found.utilisation <= 1
    each, _ = found.physical
    weights = [(owner, index) for index, tile in enumerate(tiles) for owner in tile.values() if owner[2] >= 0]
    assert len(weights) == groups * rows * columns * each
    assert len(set(weights)) == groups * rows * columns  # the cells of a weight are in one tile


def test_a_layer_that_fills_its_tiles_uses_all_of_them():
    # 3 bits in a pair of 2-bit cells: two columns a weight.
    found = map_weights(16, 8, 1, 3, tiled_hardware(8, 8))
    assert (found.row_tiles, found.column_tiles, found.tiles, found.utilisation) == (2, 2, 4, 1.0)
    assert (found.slices, found.physical, found.tile_weights) == (1, (2, 0), 4)


def test_what_remains_takes_a_tile_of_its_own():
    found = map_weights(17, 9, 1, 3, tiled_hardware(8, 8))
    assert (found.row_tiles, found.column_tiles, found.tiles) == (3, 3, 9)
    assert found.utilisation == 17 * 18 / (9 * 64)


def test_a_column_that_is_left_over_holds_no_part_of_a_weight():
    # 8 bits in pairs of 2-bit cells: four slices, eight columns; of 23 columns seven stay empty.
    found = map_weights(1, 5, 1, 8, tiled_hardware(8, 23))
    assert (found.slices, found.tile_weights, found.column_tiles) == (4, 2, 3)


def test_every_offset_tile_has_a_reference_column_for_each_slice():
    # 3 bits in two 2-bit cells, and two for the reference: three weights in eight columns.
    found = map_weights(8, 7, 1, 3, tiled_hardware(8, 8, "offset"))
    assert (found.physical, found.tile_weights, found.column_tiles) == ((2, 2), 3, 3)
    assert found.utilisation == 8 * (7 * 2 + 3 * 2) / (3 * 64)


@pytest.mark.parametrize(
    ("rows", "columns", "together", "tiles"),
    [
        (9, 1, 4, 8),
        (9, 5, 4, 8),
        (9, 17, 3, 11),
        (32, 33, 1, 32),
        (33, 1, 1, 64),
        (1, 65, 1, 64),
        (32, 64, 1, 32),
    ],
)
def test_groups_lie_side_by_side_along_the_diagonal_as_many_as_fit(rows, columns, together, tiles):
    # Tiles of 36 rows and 64 weights.
    found = map_weights(rows, columns, 32, 3, tiled_hardware(36 if rows == 9 else 32, 128))
    assert (found.groups_per_tile, found.tiles) == (together, tiles)


def test_the_groups_of_a_tile_share_its_reference_column():
    found = map_weights(2, 1, 5, 2, tiled_hardware(8, 5, "offset"))
    assert (found.tile_weights, found.groups_per_tile, found.tiles) == (4, 4, 2)
    assert found.utilisation == 5 * 2 * 2 / (2 * 40)


@pytest.mark.parametrize(
    ("mapping", "bits", "needed"),
    [("differential", 3, 2), ("differential", 8, 8), ("offset", 3, 4), ("offset", 8, 8)],
)
def test_a_tile_with_too_few_columns_for_one_weight_is_refused_by_the_field(mapping, bits, needed):
    assert map_weights(4, 3, 1, bits, tiled_hardware(4, needed, mapping)).tile_weights == 1
    if needed > 2:
        with pytest.raises(
            HardwareError, match=rf"^array\.columns: .* {needed} columns .* found {needed - 1}$"
        ):
            map_weights(4, 3, 1, bits, tiled_hardware(4, needed - 1, mapping))


@given(st.integers(1, 9), mappings, st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_every_weight_is_recovered_from_its_slices(weight_bits, mapping, cell_bits, seed):
    profile = tiled_hardware(8, 40, mapping, cell_bits)
    low, high = profile.weight_range(weight_bits)
    rng = np.random.default_rng(seed)
    weight = rng.integers(low, high + 1, (5, 9)).astype(np.int16)
    weight[0, :2] = low, high
    slices = slice_levels(weight, weight_bits, profile)
    assert len(slices) == profile.slices(weight_bits)
    assert [part.shift for part in slices] == [cell_bits * index for index in range(len(slices))]
    found = np.zeros(weight.shape, int)
    for part in slices:
        for levels in (part.plus, part.minus):
            if levels is not None:
                assert levels.dtype == np.uint8
                assert levels.max() < 2**cell_bits
        minus = part.reference if part.minus is None else part.minus.astype(int)
        found += (part.plus.astype(int) - minus) * 2**part.shift
    assert np.array_equal(found, weight)


@given(st.integers(1, 9), st.integers(1, 4))
def test_one_cell_of_a_pair_is_always_at_level_zero(weight_bits, cell_bits):
    profile = tiled_hardware(8, 40, "differential", cell_bits)
    low, high = profile.weight_range(weight_bits)
    for part in slice_levels(np.arange(low, high + 1)[np.newaxis], weight_bits, profile):
        assert not (part.plus.astype(int) * part.minus).any()
