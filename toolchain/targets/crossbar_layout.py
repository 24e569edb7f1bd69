"""Where the cells of a layer lie on its tiles: from weights to levels and back.

Levels are uint8 `(groups, row tiles, column tiles, rows, columns)`: a tile for each group, place down and place across,
cut to the rows and columns that the fullest of them uses; what a smaller one leaves is zero. With S slices and P
polarities (2 in a differential pair, 1 with an offset), weight column n of a tile takes physical columns

    (n S + s) P + p            slice s, the least significant first; p = 0 the positive part, 1 the negative

and an offset tile has its reference's S columns behind those of its last weight. Row r of a tile down at d is row
`d tile_rows + r` of the weight matrix. Groups that share a tile (`groups_per_tile` of them) lie along its diagonal:
the i-th starts at row i K and weight column i N, and the reference's columns come behind all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..crossbar.mapping import slice_levels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..crossbar.mapping import Mapping
    from ..hardware import Hardware

__all__ = ["levels_of", "levels_shape", "weights_of"]


def levels_shape(mapping: Mapping) -> tuple[int, int, int, int, int]:
    """The shape of a layer's levels."""
    each, spare = mapping.physical
    rows = min(mapping.rows, mapping.tile_rows)
    columns = min(mapping.columns, mapping.tile_weights) * each + spare
    return mapping.groups, mapping.row_tiles, mapping.column_tiles, rows, columns


def levels_of(weight: NDArray[Any], bits: int, mapping: Mapping, hardware: Hardware) -> NDArray[np.uint8]:
    """Lay weights `(groups, K, N)` of `bits` bits on tiles."""
    levels = np.zeros(levels_shape(mapping), np.uint8)
    for group in range(mapping.groups):
        slices = slice_levels(weight[group], bits, hardware)
        polarities = [part for found in slices for part in (found.plus, found.minus) if part is not None]
        cells = np.stack(polarities, axis=-1)  # (K, N, S P)
        references = [] if hardware.signed else [found.reference for found in slices]
        for down, across, rows, columns in _places(mapping):
            block = cells[rows, columns]
            used = block.shape[1] * block.shape[2]
            tile = levels[group, down, across, : len(block)]
            tile[:, :used] = block.reshape(len(block), -1)
            tile[:, used : used + len(references)] = references
    return levels


def weights_of(
    levels: NDArray[np.uint8], bits: int, mapping: Mapping, hardware: Hardware
) -> NDArray[np.int16]:
    """Read weights `(groups, K, N)` from the cells of tiles; references are taken for what they should be."""
    each, _ = mapping.physical
    cell_bits = hardware.array.cell_bits
    significance = np.repeat(1 << (cell_bits * np.arange(mapping.slices)), each // mapping.slices)
    if hardware.signed:
        significance = significance * np.tile([1, -1], mapping.slices)
    offset = 0 if hardware.signed else 1 << (max(bits, 2) - 1)
    weight = np.zeros((mapping.groups, mapping.rows, mapping.columns), np.int64)
    for down, across, rows, columns in _places(mapping):
        count, width = rows.stop - rows.start, columns.stop - columns.start
        cells = levels[:, down, across, :count, : width * each].astype(np.int64)
        weight[:, rows, columns] = cells.reshape(-1, count, width, each) @ significance - offset
    return weight.astype(np.int16)


def _places(mapping: Mapping) -> Iterator[tuple[int, int, slice, slice]]:
    """Tiles down and across, and the rows and columns of the weight matrix that each holds."""
    for down in range(mapping.row_tiles):
        first = down * mapping.tile_rows
        rows = slice(first, min(mapping.rows, first + mapping.tile_rows))
        for across in range(mapping.column_tiles):
            left = across * mapping.tile_weights
            yield down, across, rows, slice(left, min(mapping.columns, left + mapping.tile_weights))
