"""How a layer's weights are laid on tiles: slices, polarities, rows and columns.

A weight of B bits takes `slices` cells, least significant first:

    differential   w = sum over s of 2^(cell_bits s) (plus_s - minus_s)     two columns for each slice
    offset         w + 2^(B-1) = sum over s of 2^(cell_bits s) cell_s       one column for each slice, and for each
                   tile a reference column for each slice, whose cells hold 2^(B-1)

The slices of one weight are neighbours in their tile; a difference of two columns is taken before the converter (a
pair) or after it (the reference). Rows beyond a tile go to the next, columns likewise. Groups of a grouped or
depthwise convolution are laid side by side along a tile's diagonal, as many as fit, and read one after another:
only the rows of the group that is read are driven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import HardwareError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..hardware import Hardware

__all__ = ["Mapping", "Slice", "map_weights", "slice_levels"]


@dataclass(frozen=True, eq=False)
class Slice:
    """Cells of one significance.

    Attributes:
        plus: uint8 `(K, N)`, levels.
        minus: The other column of a pair, or None.
        shift: What it holds counts 2^shift times.
        reference: Level of the reference column's cells, with an offset; else 0.
    """

    plus: NDArray[np.uint8]
    minus: NDArray[np.uint8] | None
    shift: int
    reference: int


@dataclass(frozen=True)
class Mapping:
    """Where one group of a layer lies.

    Attributes:
        rows: K, columns: N: of the group's weight matrix.
        groups: Groups of the layer.
        slices: Cells of a weight (pairs, if differential).
        physical: Columns that a weight's cells take, and those that a tile's reference takes.
        tile_rows: Rows of a tile.
        tile_weights: Columns of the weight matrix that one tile holds.
        row_tiles, column_tiles: Tiles down and across for one group.
        groups_per_tile: Groups that share a tile.
        tiles: Tiles of the layer.
        utilisation: Share of the layer's cells that hold a weight.
    """

    rows: int
    columns: int
    groups: int
    slices: int
    physical: tuple[int, int]
    tile_rows: int
    tile_weights: int
    row_tiles: int
    column_tiles: int
    groups_per_tile: int
    tiles: int
    utilisation: float


def map_weights(rows: int, columns: int, groups: int, weight_bits: int, hardware: Hardware) -> Mapping:
    """Lay `groups` matrices of `(rows, columns)` on tiles.

    Raises:
        HardwareError: A tile has fewer columns than one weight takes.
    """
    slices = hardware.slices(weight_bits)
    each = 2 * slices if hardware.signed else slices
    spare = 0 if hardware.signed else slices
    array = hardware.array
    if array.columns < each + spare:
        raise HardwareError(
            f"array.columns: a weight of {weight_bits} bits takes {each + spare} columns of {array.cell_bits}-bit "
            f"cells (mapping '{array.mapping}'), found {array.columns}"
        )
    tile_weights = (array.columns - spare) // each
    row_tiles, column_tiles = -(-rows // array.rows), -(-columns // tile_weights)
    together = 1
    if row_tiles == column_tiles == 1:
        together = max(1, min(array.rows // rows, tile_weights // columns))
    tiles = row_tiles * column_tiles * -(-groups // together)
    used = rows * (columns * each + column_tiles * spare) * groups
    return Mapping(
        rows=rows,
        columns=columns,
        groups=groups,
        slices=slices,
        physical=(each, spare),
        tile_rows=array.rows,
        tile_weights=tile_weights,
        row_tiles=row_tiles,
        column_tiles=column_tiles,
        groups_per_tile=together,
        tiles=tiles,
        utilisation=used / (tiles * array.rows * array.columns),
    )


def slice_levels(weight: NDArray[Any], weight_bits: int, hardware: Hardware) -> list[Slice]:
    """The levels of every slice's cells, for a weight matrix `(K, N)`."""
    cell_bits = hardware.array.cell_bits
    top = hardware.array.highest_level
    wide = weight.astype(np.int64)
    offset = 0 if hardware.signed else 1 << (max(weight_bits, 2) - 1)
    found = []
    for index in range(hardware.slices(weight_bits)):
        shift = cell_bits * index

        def part(values: NDArray[np.int64], shift: int = shift) -> NDArray[np.uint8]:
            return ((values >> shift) & top).astype(np.uint8)

        if hardware.signed:
            found.append(Slice(part(np.maximum(wide, 0)), part(np.maximum(-wide, 0)), shift, 0))
        else:
            found.append(Slice(part(wide + offset), None, shift, (offset >> shift) & top))
    return found
