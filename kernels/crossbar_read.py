"""The loops of a crossbar's product: see `crossbar`, which prepares what they read."""

from __future__ import annotations

from typing import Any

import numpy as np

from .cache import kernel
from .counter_random import normal, philox
from .crossbar_convert import convert_sums, read_sums
from .crossbar_tile import bits_of_eight, cell_sums, part_sums, popcount_sums
from .isa.base import COLUMNS, STEP_BYTES
from .tile import begin_tiles, end_tiles

__all__ = ["clipped", "extract_bits", "extract_digits", "general", "mask_digits", "sum_squares"]

_INT32_MAX = 2**31 - 1


@kernel
def extract_bits(x: Any, stride: int, rows: int, steps: Any, digits: int, out: Any, words: Any) -> None:
    """Bit d of 32 codes side by side: `out[d][row][word of the tile][4]`; `steps` and `words` hold starts of tiles."""
    width = 4 * words[words.shape[0] - 1]
    for d in range(digits):
        for r in range(rows):
            for t in range(steps.shape[0] - 1):
                first = r * stride + 4 * steps[t]
                count = 4 * (steps[t + 1] - steps[t])
                target = (d * rows + r) * width + 4 * words[t]
                for byte in range(4 * (words[t + 1] - words[t])):
                    here = min(8, max(0, count - 8 * byte))
                    bits = bits_of_eight(x, first + 8 * byte, d) if here > 0 else 0
                    out[target + byte] = bits & ((1 << here) - 1)


@kernel
def mask_digits(x: Any, size: int, dac_bits: int, digits: int, out: Any) -> None:
    """Every digit by itself, not shifted down, `out[d][byte]`: for tile units, which read codes as they are."""
    for d in range(digits):
        mask = (((1 << dac_bits) - 1) << (d * dac_bits)) & 255
        for i in range(size):
            out[d * size + i] = x[i] & mask


@kernel
def _read_digits(
    tile: Any,
    x: Any,
    masked: Any,
    plane_bytes: int,
    start: int,
    stride: int,
    count: int,
    cells: Any,
    place: int,
    panel_bytes: int,
    dac_bits: int,
    digits: int,
    low: int,
    high: int,
    shift: int,
    started: int,
    acc: Any,
) -> None:
    """All digits of one tile and plane, one after another; digits are not shifted down, limits are up."""
    for d in range(digits):
        scale = d * dac_bits
        if masked is None:
            mask = (((1 << dac_bits) - 1) << scale) & 255
            cell_sums(
                tile, x, start, stride, mask, count, cells, place, panel_bytes,
                low << scale, high << scale, shift, started + d, acc,
            )  # fmt: skip
        else:
            cell_sums(
                tile, masked, d * plane_bytes + start, stride, 255, count, cells, place, panel_bytes,
                low << scale, high << scale, shift, started + d, acc,
            )  # fmt: skip


@kernel
def clipped(  # noqa: C901 - the loops of one product, and the three ways to read a tile
    tile: Any,
    block_rows: int,
    width: int,
    x: Any,
    masked: Any,
    plane_bytes: int,
    stride: int,
    rows: int,
    steps: Any,
    cells: Any,
    panels: int,
    planes: int,
    dac_bits: int,
    digits: int,
    limits: Any,
    shifts: Any,
    exact: Any,
    bits: Any,
    bit_rows: int,
    words: Any,
    bit_cells: Any,
    bit_planes: int,
    acc: Any,
    out: Any,
    columns: int,
) -> None:
    """See the module. `cells` is `[panel][plane][step][16][4]`, `limits` `[plane][2]`, `exact` `[tile][plane][panel]`.

    `masked` holds every digit by itself, of `plane_bytes`, for tile units; else it is None. `steps` holds the first
    step of every tile and their number, `words` likewise for `bit_cells`, which is
    `[panel][plane][word][bit plane][16]`, and `bits`; they are None where digits are not single bits.
    """
    begin_tiles(tile, acc)
    tiles = steps.shape[0] - 1
    depth = steps[tiles]
    panel_bytes = planes * depth * STEP_BYTES
    lowest, highest = -_INT32_MAX - 1, _INT32_MAX
    for panel in range(0, panels, width):
        for row in range(0, rows, block_rows):
            started = 0
            for t in range(tiles):
                count = steps[t + 1] - steps[t]
                start = row * stride + 4 * steps[t]
                for plane in range(planes):
                    place = panel * panel_bytes + (plane * depth + steps[t]) * STEP_BYTES
                    low, high, shift = limits[plane, 0], limits[plane, 1], shifts[plane]
                    sure = True
                    for v in range(width):
                        sure = sure and exact[t, plane, panel + v]
                    if sure:
                        cell_sums(
                            tile, x, start, stride, 255, count, cells, place, panel_bytes,
                            lowest, highest, shift, started, acc,
                        )  # fmt: skip
                    elif bits is None:
                        _read_digits(
                            tile, x, masked, plane_bytes, start, stride, count, cells, place, panel_bytes,
                            dac_bits, digits, low, high, shift, started, acc,
                        )  # fmt: skip
                    else:
                        line, word_bytes = 4 * words[tiles], bit_planes * STEP_BYTES
                        bit_bytes = planes * words[tiles] * word_bytes
                        at_bits = panel * bit_bytes + (plane * words[tiles] + words[t]) * word_bytes
                        for d in range(digits):
                            popcount_sums(
                                tile, bits, (d * bit_rows + row) * line + 4 * words[t], line,
                                words[t + 1] - words[t], bit_cells, at_bits, bit_bytes,
                                low, high, shift + d, started + d, acc,
                            )  # fmt: skip
                    started = 1
            for r in range(min(block_rows, rows - row)):
                for c in range(min(width * COLUMNS, columns - panel * COLUMNS)):
                    out[(row + r) * columns + panel * COLUMNS + c] = acc[r * width * COLUMNS + c]
    end_tiles(tile, acc)


@kernel
def extract_digits(
    x: Any, size: int, dac_bits: int, digits: int, out: Any, low_squares: Any, high_squares: Any
) -> None:
    """Every digit by itself, shifted down, `out[d][byte]`; and the bytes of its square where they are wanted."""
    mask = (1 << dac_bits) - 1
    for d in range(digits):
        for i in range(size):
            digit = (np.int32(x[i]) >> (d * dac_bits)) & mask
            out[d * size + i] = digit
            if low_squares is not None:
                low_squares[d * size + i] = (digit * digit) & 255
                high_squares[d * size + i] = (digit * digit) >> 8


@kernel
def _draw(keys: Any, first_sample: int, first_four: int, fours: Any, digits: Any, rows: Any, z: Any) -> None:
    """Normal variates `z[digit][row][column]` of a block, of one tile and plane.

    Block k of the counter is (column / 4, digit, sample): four columns each. `fours`, `digits` and `rows` tell what
    k stands for.
    """
    k0, k1 = keys[0], keys[1]
    for k in range(fours.shape[0]):
        sample = first_sample + rows[k]
        w0, w1, w2, w3 = philox(first_four + fours[k], digits[k], sample & 0xFFFFFFFF, sample >> 32, k0, k1)
        z[4 * k] = normal(w0)
        z[4 * k + 1] = normal(w1)
        z[4 * k + 2] = normal(w2)
        z[4 * k + 3] = normal(w3)


@kernel
def _disturb(acc: Any, variance: Any, z: Any, first: int, scale: Any) -> None:
    """Add a block's read noise, `rint(sqrt(variance) * scale * z)`: single IEEE float32 operations."""
    for i in range(acc.shape[0]):
        spread = np.sqrt(np.float32(variance[i])) * scale
        acc[i] += np.int32(np.rint(spread * np.float32(z[first + i])))


@kernel
def _disturb_rows(
    acc: Any, squares: Any, first_square: int, variance: int, rows: int, z: Any, first: int, scale: Any
) -> None:
    """As `_disturb`, where all cells have one variance: that of a row is it, times the row's sum of squares."""
    width = acc.shape[0] // rows
    for r in range(rows):
        spread = np.sqrt(np.float32(squares[first_square + r] * variance)) * scale
        for i in range(r * width, (r + 1) * width):
            acc[i] += np.int32(np.rint(spread * np.float32(z[first + i])))


@kernel
def sum_squares(x: Any, plane_bytes: int, stride: int, rows: int, steps: Any, digits: int, out: Any) -> None:
    """Sums of squared digits of every row in every tile, `out[tile][digit][row]`, int32; `x` is `[digit][row][k]`."""
    for t in range(steps.shape[0] - 1):
        for d in range(digits):
            for r in range(rows):
                first = d * plane_bytes + r * stride + 4 * steps[t]
                total = np.int32(0)
                for i in range(first, first + 4 * (steps[t + 1] - steps[t])):
                    total += np.int32(x[i]) * np.int32(x[i])
                out[(t * digits + d) * rows + r] = total


@kernel
def _whole_levels(total: Any, first: int, count: int, fraction_bits: int, out: Any, place: int) -> None:
    """Sums in units of 2^-F of a level, rounded half to even to levels."""
    half = (1 << fraction_bits) >> 1
    for c in range(count):
        value = total[first + c]
        if fraction_bits > 0:
            odd = (value >> fraction_bits) & 1
            value = (value + half - 1 + odd) >> fraction_bits
        out[place + c] = value


@kernel
def general(  # noqa: C901 - the loops of one product, and what noise adds to them
    tile: Any,
    block_rows: int,
    width: int,
    x: Any,
    plane_bytes: int,
    stride: int,
    rows: int,
    steps: Any,
    cells: Any,
    panels: int,
    planes: int,
    parts: int,
    cell_shift: int,
    dac_bits: int,
    digits: int,
    converters: Any,
    quotient: Any,
    variances: Any,
    variance_parts: int,
    uniform: Any,
    row_squares: Any,
    square_rows: int,
    low_squares: Any,
    high_squares: Any,
    keys: Any,
    first_sample: int,
    noise_scale: Any,
    fours: Any,
    digit_of: Any,
    row_of: Any,
    z: Any,
    fraction_bits: int,
    acc: Any,
    spread: Any,
    total: Any,
    out: Any,
    columns: int,
) -> None:
    """See the module. `cells` and `variances` are `[panel][plane][part][step][16][4]`, `x` is `[digit][row][k]`.

    Cells are in units of 2^cell_shift. Where all cells of a plane have one variance, `uniform` holds it for every
    plane, `row_squares` what `sum_squares` gives for `square_rows` rows, and `variances` is None. `converters` is
    `[plane][4]`: low, high, step and shift (see `convert_sums`, which also takes `quotient`); the rest is scratch,
    and `fours`, `digit_of` and `row_of` are for `_draw`.
    """
    begin_tiles(tile, acc)
    tiles = steps.shape[0] - 1
    depth = steps[tiles]
    part_bytes = depth * STEP_BYTES
    panel_bytes = planes * parts * part_bytes
    spread_bytes = planes * variance_parts * part_bytes
    for panel in range(0, panels, width):
        for row in range(0, rows, block_rows):
            count = min(block_rows, rows - row)
            for i in range(block_rows * width * COLUMNS):
                total[i] = 0
            for t in range(tiles):
                size = steps[t + 1] - steps[t]
                for plane in range(planes):
                    base = panel * panel_bytes + plane * parts * part_bytes + steps[t] * STEP_BYTES
                    spread_base = (
                        panel * spread_bytes + plane * variance_parts * part_bytes + steps[t] * STEP_BYTES
                    )
                    if variances is not None or uniform is not None:
                        first_four = panel * COLUMNS // 4
                        _draw(keys[t, plane], first_sample + row, first_four, fours, digit_of, row_of, z)
                    low, high, step = converters[plane, 0], converters[plane, 1], converters[plane, 2]
                    for d in range(digits):
                        start = d * plane_bytes + row * stride + 4 * steps[t]
                        shift = converters[plane, 3] + d * dac_bits
                        if variances is None and uniform is None:
                            read_sums(
                                tile, x, start, stride, size, cells, base, part_bytes, panel_bytes, parts,
                                cell_shift, acc, low, high, step, shift, quotient, total,
                            )  # fmt: skip
                            continue
                        part_sums(
                            tile, x, start, stride, size, cells, base, part_bytes, panel_bytes, parts,
                            cell_shift, 0, acc,
                        )  # fmt: skip
                        if variances is not None:
                            part_sums(
                                tile, low_squares, start, stride, size, variances, spread_base, part_bytes,
                                spread_bytes, variance_parts, 0, 0, spread,
                            )  # fmt: skip
                            if dac_bits > 4:
                                part_sums(
                                    tile, high_squares, start, stride, size, variances, spread_base, part_bytes,
                                    spread_bytes, variance_parts, 8, 1, spread,
                                )  # fmt: skip
                            _disturb(acc, spread, z, d * acc.shape[0], noise_scale)
                        if uniform is not None:
                            _disturb_rows(
                                acc, row_squares, (t * digits + d) * square_rows + row, uniform[plane], block_rows,
                                z, d * acc.shape[0], noise_scale,
                            )  # fmt: skip
                        convert_sums(tile, acc, low, high, step, shift, quotient, total)
            left = min(width * COLUMNS, columns - panel * COLUMNS)
            for r in range(count):
                place = (row + r) * columns + panel * COLUMNS
                _whole_levels(total, r * width * COLUMNS, left, fraction_bits, out, place)
    end_tiles(tile, acc)
