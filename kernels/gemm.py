"""The exact integer matrix product that dense layers and convolutions share.

A row of the product is a list of equal segments of codes in memory (one for a dense layer, one per kernel row
of a convolution: an implicit GEMM, which copies nothing). Tiles run down the rows of one group of panels before
the next, so that a panel's weights stay in the cache; each tile's sums are drained while they are hot.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .cache import kernel
from .isa.base import COLUMNS
from .tile import begin_tiles, end_tiles, nibble_row, short_tile, tall_tile

__all__ = ["multiply", "multiply_row"]


@kernel
def multiply(
    tile: Any,
    tall: int,
    short: int,
    width: int,
    pool: int,
    x: Any,
    x_group: int,
    x_block: int,
    x_starts: Any,
    segments: Any,
    depth: int,
    weight: Any,
    panel_bytes: int,
    burst: int,
    first_panel: int,
    last_panel: int,
    panels: int,
    columns: int,
    groups: int,
    bias: Any,
    multiplier: Any,
    low: Any,
    high: Any,
    zero: Any,
    out: Any,
    out_base: int,
    out_group: int,
    out_block: int,
    out_starts: Any,
    block_rows: int,
    rows: int,
    acc: Any,
) -> None:
    """The product, its bias and (unless `multiplier` is None) its requantisation, for some panels of all groups.

    `tall`, `short`, `width` and `pool` are those of the tile. Rows come in blocks of `block_rows` that share the
    tables: row r of block b and group g is read from `x[g * x_group + b * x_block + x_starts[r] + segments[s]]` on.
    Every `pool` rows become one output row, their maximum, at
    `out[out_base + g * out_group + b * out_block + out_starts[r / pool] + column]`. A short tile that is not full
    reads its last row again, and nothing behind it.
    """
    begin_tiles(tile, acc)
    last_rows = np.empty(short, np.int64)
    for group in range(groups):
        for panel in range(first_panel, last_panel, width):
            index = group * panels + panel
            place = index * panel_bytes
            left = columns - panel * COLUMNS
            for block in range((rows + block_rows - 1) // block_rows):
                count = min(block_rows, rows - block * block_rows)
                source = group * x_group + block * x_block
                target = out_base + group * out_group + block * out_block + panel * COLUMNS
                first = index * COLUMNS
                row = 0
                while row < count:
                    if count - row >= tall:
                        height = tall
                        tall_tile(
                            tile, x, source, x_starts, row, segments, depth, weight, place, panel_bytes, burst,
                            bias, multiplier, first, left, low, high, zero, height,
                            out, target, out_starts, row // pool, acc,
                        )  # fmt: skip
                    else:
                        height = min(short, count - row)
                        for r in range(short):
                            last_rows[r] = x_starts[min(row + r, count - 1)]
                        short_tile(
                            tile, x, source, last_rows, 0, segments, depth, weight, place, panel_bytes, burst,
                            bias, multiplier, first, left, low, high, zero, height,
                            out, target, out_starts, row // pool, acc,
                        )  # fmt: skip
                    row += height
    end_tiles(tile, acc)


@kernel
def multiply_row(
    tile: Any,
    width: int,
    x: Any,
    x_group: int,
    x_starts: Any,
    segments: Any,
    depth: int,
    weight: Any,
    panel_bytes: int,
    first_panel: int,
    last_panel: int,
    panels: int,
    columns: int,
    groups: int,
    bias: Any,
    multiplier: Any,
    low: Any,
    high: Any,
    zero: Any,
    out: Any,
    out_base: int,
    out_group: int,
    out_starts: Any,
    acc: Any,
) -> None:
    """`multiply` for a single row, on weights that are packed in nibbles."""
    for group in range(groups):
        for panel in range(first_panel, last_panel, width):
            index = group * panels + panel
            place = index * panel_bytes
            left = columns - panel * COLUMNS
            target = out_base + group * out_group + panel * COLUMNS
            nibble_row(
                tile, x, group * x_group, x_starts, 0, segments, depth, weight, place, panel_bytes, 1,
                bias, multiplier, index * COLUMNS, left, low, high, zero, 1,
                out, target, out_starts, 0, acc,
            )  # fmt: skip
