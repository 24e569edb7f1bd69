"""What a crossbar computes, written slowly as its formulas, in int64 and single float32 operations.

Nothing here knows how the kernels pack, tile or split anything: an array is planes of cells `(K, N)`, a layer is
looked at weight by weight, a convolution window by window.
"""

from dataclasses import dataclass

import numpy as np

from ohmfold.kernels.counter_random import normal_arrays, philox_arrays, stream_key
from ohmfold.toolchain.crossbar.programming import CellModel, cell_key, program_cells, to_fixed
from ohmfold.toolchain.crossbar.wires import effective_conductances
from ohmfold.toolchain.program import Dense

INPUT_BITS = 8
VARIANCE_BITS = 12  # variances are in units of 2^-12 of a squared level
NORMAL_BITS = 12  # and normal variates in units of 2^-12
READ_NOISE = 2  # the purpose in the keys of the read noise


@dataclass
class Plane:
    """Cells that are read together, in units of 2^-F of a level, and the converter that reads them."""

    cells: np.ndarray
    shift: int
    low: int = 0
    high: int = 0
    step: int = 0
    variance: np.ndarray | None = None


def round_half_even(value, unit):
    """`rint(value / unit)` of whole numbers, without a division that rounds."""
    quotient = value // unit
    twice = 2 * (value - quotient * unit)
    return quotient + ((twice > unit) | ((twice == unit) & (quotient % 2 == 1)))


def digit_of(codes, digit, dac_bits):
    """Digit number `digit` of codes, of `dac_bits` bits; the last one may have fewer."""
    return (codes.astype(np.int64) >> (digit * dac_bits)) & ((1 << dac_bits) - 1)


def noise_of(variance, fraction_bits, key, digit, samples):
    """The read noise of samples `(M,)` and columns `(N,)`, from their variances `(M, N)`, in units of 2^-F."""
    columns = np.arange(variance.shape[1])
    words = philox_arrays(
        columns // 4, digit, (samples & 0xFFFFFFFF)[:, np.newaxis], (samples >> 32)[:, np.newaxis], key
    )
    word = np.choose(np.broadcast_to(columns % 4, variance.shape), words)
    z = normal_arrays(word).astype(np.float32)
    scale = np.float32(2.0 ** (fraction_bits - VARIANCE_BITS / 2 - NORMAL_BITS))
    noise = np.rint(np.sqrt(variance.astype(np.float32)) * scale * z)
    assert noise.dtype == np.float32
    return noise.astype(np.int64)


def conversions(codes, planes, *, tile_rows, dac_bits, fraction_bits, keys=None, first_sample=0):
    """Every plane, digit and what its converter is given `(M, N)`, noise and all; arguments of `read_array`."""
    samples = first_sample + np.arange(len(codes), dtype=np.int64)
    for t, top in enumerate(range(0, len(planes[0].cells), tile_rows)):
        rows = slice(top, min(top + tile_rows, len(planes[0].cells)))
        for index, plane in enumerate(planes):
            for d in range(-(-INPUT_BITS // dac_bits)):
                digit = digit_of(codes[:, rows], d, dac_bits)
                p = digit @ plane.cells[rows].astype(np.int64)
                if plane.variance is not None:
                    variance = digit**2 @ plane.variance[rows].astype(np.int64)
                    p += noise_of(variance, fraction_bits, keys[t][index], d, samples)
                yield plane, d, p


def read_array(codes, planes, *, dac_bits, fraction_bits, **more):
    """The sums of rows of codes, int64 `(M, N)`, in whole levels.

    Args:
        codes: uint8 `(M, K)`.
        planes: What is read, in order.
        dac_bits: Bits of a digit.
        fraction_bits: F.
        more: `tile_rows`, rows of a tile; `keys[tile][plane]`, where planes have variances; `first_sample`, index of
            the first row.
    """
    total = np.zeros((len(codes), planes[0].cells.shape[1]), np.int64)
    for plane, d, p in conversions(codes, planes, dac_bits=dac_bits, fraction_bits=fraction_bits, **more):
        code = p
        if plane.step:
            code = np.clip(round_half_even(p, plane.step), plane.low, plane.high) * plane.step
        total += code * 2 ** (dac_bits * d) * 2**plane.shift
    return round_half_even(total, 2**fraction_bits)


def clipped_reads(codes, planes, **more):
    """How many conversions there are, and how many codes are below and above the limits; see `read_array`."""
    reads = low = high = 0
    for plane, _, p in conversions(codes, planes, **more):
        reads += p.size
        if plane.step:
            code = round_half_even(p, plane.step)
            low += int((code < plane.low).sum())
            high += int((code > plane.high).sum())
    return reads, low, high


def int32_of(values):
    """int64 as int32, which it must fit."""
    limits = np.iinfo(np.int32)
    assert not values.size or limits.min <= values.min() <= values.max() <= limits.max
    return values.astype(np.int32)


class Chip:
    """The arrays of one layer on a chip, programmed cell by cell as the documents say.

    Args:
        weight: `(groups, K, N)`, whole numbers.
        hardware: The profile.
        seed: The chip.
        layer: Number of the layer in the program.

    Attributes:
        planes: `planes[group][slice]`; with an offset the reference columns follow the weights'.
        exact: What the cells conduct, float64 with the same shapes, `(K, N', polarity)`.
        limits: Of the converters, or None.
    """

    def __init__(self, weight, hardware, seed, layer):
        self.hardware, self.seed, self.layer = hardware, seed, layer
        self.weight = np.asarray(weight, np.int64)
        self.groups, self.depth, self.columns = self.weight.shape
        array = hardware.array
        self.bits = max(2, hardware.weight_bits(int(self.weight.min()), int(self.weight.max())))
        self.slices = -(-(self.bits - (array.mapping == "differential")) // array.cell_bits)
        each = self.slices * (2 if hardware.signed else 1)
        self.across = (array.columns - (0 if hardware.signed else self.slices)) // each
        self.tiles_down = -(-self.depth // array.rows)
        self.tiles_across = -(-self.columns // self.across)
        self.exact = [self._conductances(group) for group in range(self.groups)]
        self.planes = [[self._plane(g, s) for s in range(self.slices)] for g in range(self.groups)]
        largest = max(self._largest(plane.cells) for planes in self.planes for plane in planes)
        self.limits = hardware.adc_limits(largest)
        if self.limits is not None:
            for planes in self.planes:
                for plane in planes:
                    plane.low, plane.high, plane.step = self.limits

    @property
    def fixed_point_error(self):
        unit = 2.0**-self.hardware.cell.fraction_bits
        return max(
            float(np.abs(to_fixed(g, self.hardware.cell.fraction_bits) * unit - g).max())
            for group in self.exact
            for g in group
        )

    def levels(self, group, index):
        """The levels of a slice's cells `(K, N, polarity)`, digit by digit; and of its reference column."""
        base, offset = 2**self.hardware.array.cell_bits, 2 ** (self.bits - 1)
        weight = self.weight[group]
        if self.hardware.signed:
            parts, reference = [np.where(weight > 0, weight, 0), np.where(weight < 0, -weight, 0)], 0
        else:
            parts, reference = [weight + offset], offset
        levels = np.stack([part // base**index % base for part in parts], axis=2)
        return levels.astype(np.uint8), reference // base**index % base

    def sums(self, group, codes, first_sample=0):
        """What the array adds up for rows of codes, int64 `(M, N)`, the reference columns subtracted."""
        found = read_array(codes, self.planes[group], **self._reading(group, first_sample))
        if self.hardware.signed:
            return found
        references = found[:, self.columns :]
        return found[:, : self.columns] - references[:, np.arange(self.columns) // self.across]

    def clipped(self, group, codes, first_sample=0):
        """Reads, and those below and above the limits; see `clipped_reads`."""
        return clipped_reads(codes, self.planes[group], **self._reading(group, first_sample))

    def _reading(self, group, first_sample):
        keys = [
            [self._noise_key(group, down, index) for index in range(self.slices)]
            for down in range(self.tiles_down)
        ]
        return {
            "tile_rows": self.hardware.array.rows,
            "dac_bits": self.hardware.dac.bits,
            "fraction_bits": self.hardware.cell.fraction_bits,
            "keys": keys,
            "first_sample": first_sample,
        }

    def accumulators(self, group, codes, zero_point, bias=None, first_sample=0):
        """int32 `(M, N)`: what an exact layer calls `sum(w (x - z)) + bias`."""
        bias = 0 if bias is None else bias.astype(np.int64)
        digital = bias - zero_point * self.weight[group].sum(axis=0)
        return int32_of(self.sums(group, codes, first_sample) + digital)

    def _conductances(self, group):
        """What the cells of each slice conduct, wires and all: float64 `(K, N', polarity)`."""
        polarities = 2 if self.hardware.signed else 1
        width = self.columns + (0 if self.hardware.signed else self.tiles_across)
        found = [np.full((self.depth, width, polarities), np.nan) for _ in range(self.slices)]
        for down in range(self.tiles_down):
            for across in range(self.tiles_across):
                rows = slice(down * self.hardware.array.rows, (down + 1) * self.hardware.array.rows)
                columns = np.arange(across * self.across, min((across + 1) * self.across, self.columns))
                tile = self._tile(group, down, across, rows, columns)
                if not self.hardware.signed:
                    columns = np.append(columns, self.columns + across)
                for index in range(self.slices):
                    found[index][rows, columns] = tile[:, :, index]
        assert not any(np.isnan(g).any() for g in found)
        return found

    def _tile(self, group, down, across, rows, columns):
        """One tile's conductances `(rows, weights and reference, slice, polarity)`, which is also their order."""
        hardware = self.hardware
        number = (group * self.tiles_down + down) * self.tiles_across + across
        slices = []
        for index in range(self.slices):
            levels, reference = self.levels(group, index)
            meant = levels[rows, columns]
            if not hardware.signed:
                meant = np.concatenate([meant, np.full((len(meant), 1, 1), reference, np.uint8)], axis=1)
            polarities = []
            for polarity in range(meant.shape[2]):
                key = cell_key(self.seed, self.layer, number, index, polarity)
                cells = np.ascontiguousarray(meant[:, :, polarity])
                polarities.append(program_cells(cells, hardware.array.highest_level, _cell(hardware), key))
            slices.append(np.stack(polarities, axis=2))
        tile = np.stack(slices, axis=2)
        wires = hardware.wires
        if wires.resistive:
            flat = np.ascontiguousarray(tile.reshape(len(tile), -1))
            flat = effective_conductances(
                flat, wires.row_ohm, wires.column_ohm, wires.on_ohm, hardware.array.highest_level
            )
            tile = flat.reshape(tile.shape)
        return tile

    def _plane(self, group, index):
        conductances = self.exact[group][index]
        fixed = to_fixed(conductances, self.hardware.cell.fraction_bits).astype(np.int64)
        cells = fixed[:, :, 0] - fixed[:, :, 1] if self.hardware.signed else fixed[:, :, 0]
        read = self.hardware.read
        variance = None
        if self.hardware.noisy:
            squared = read.noise**2 + (read.noise_relative * conductances) ** 2
            variance = np.rint(squared.sum(axis=2) * 2.0**VARIANCE_BITS).astype(np.int64)
        return Plane(cells, self.hardware.array.cell_bits * index, variance=variance)

    def _largest(self, cells):
        """The largest sum of a tile's column, for the highest digit wherever it counts."""
        digit = 2**self.hardware.dac.bits - 1
        sums = [0]
        for top in range(0, self.depth, self.hardware.array.rows):
            tile = cells[top : top + self.hardware.array.rows]
            sums.append(int((digit * np.where(tile > 0, tile, 0)).sum(axis=0).max()))
            sums.append(int((digit * np.where(tile < 0, -tile, 0)).sum(axis=0).max()))
        return max(sums)

    def _noise_key(self, group, down, index):
        return stream_key(self.seed, READ_NOISE, self.layer, group * self.tiles_down + down, index)


def _cell(hardware):
    cell = hardware.cell
    return CellModel(
        cell.on_off_ratio,
        cell.programming.kind,
        cell.programming.sigma,
        cell.stuck.on_rate,
        cell.stuck.off_rate,
        cell.drift.time_s,
        cell.drift.reference_time_s,
        cell.drift.exponent,
    )


def weight_matrices(layer, size=None):
    """The weights of a layer as its arrays hold them, `(groups, K, N)`: taps row by row, their channels together.

    Args:
        layer: A `Conv` or a `Dense`.
        size: Channels, height and width of the map that a dense layer reads flattened; None: a vector.
    """
    if isinstance(layer, Dense):
        depth, columns = layer.weight.shape
        weight = layer.weight.reshape(*(size or (depth, 1, 1)), columns)
        return weight.transpose(1, 2, 0, 3).reshape(1, depth, columns)
    each = len(layer.weight) // layer.groups
    groups = layer.weight.reshape(layer.groups, each, layer.weight.shape[1], -1)
    return groups.transpose(0, 3, 2, 1).reshape(layer.groups, -1, each)


def windows(layer, x):
    """The codes that a convolution reads, `(groups, N * positions, K)`, in the order of `weight_matrices`."""
    rank = x.ndim - 2
    ends = layer.pads[rank:]
    pads = [(0, 0), (0, 0), *zip(layer.pads[:rank], ends, strict=True)]
    padded = np.pad(x.astype(np.int64), pads, constant_values=layer.input_zero_point)
    kernel = layer.weight.shape[2:]
    counts = [
        (padded.shape[2 + axis] - (kernel[axis] - 1) * layer.dilations[axis] - 1) // layer.strides[axis] + 1
        for axis in range(rank)
    ]
    each = x.shape[1] // layer.groups
    rows = []
    for image in padded:
        for position in np.ndindex(*counts):
            taps = []
            for tap in np.ndindex(*kernel):
                place = [
                    position[axis] * layer.strides[axis] + tap[axis] * layer.dilations[axis]
                    for axis in range(rank)
                ]
                taps.append(image[(slice(None), *place)])
            rows.append(np.stack(taps))
    found = np.stack(rows).reshape(len(rows), -1, layer.groups, each)
    return found.transpose(2, 0, 1, 3).reshape(layer.groups, len(rows), -1), counts


def run_layer(layer, x, hardware, *, seed, number, size=None, first_image=0):
    """The int32 accumulators of a `Conv` or `Dense` on a chip, for a tensor of codes.

    Args:
        layer: The layer.
        x: Its input, uint8 or int8.
        hardware: The profile.
        seed: The chip.
        number: The layer's in the program.
        size: See `weight_matrices`.
        first_image: Global index of the first image.
    """
    chip = Chip(weight_matrices(layer, size), hardware, seed, number)
    if isinstance(layer, Dense):
        codes, counts = x.astype(np.int64), []
        if size is not None:
            codes = codes.reshape(len(x), *size).transpose(0, 2, 3, 1)
        codes = codes.reshape(1, len(x), -1)
    else:
        codes, counts = windows(layer, x)
    flip = 128 if x.dtype == np.int8 else 0
    codes = (codes + flip).astype(np.uint8)
    positions = int(np.prod(counts, dtype=int))
    bias = [None] * chip.groups if layer.bias is None else layer.bias.reshape(chip.groups, -1)
    found = [
        chip.accumulators(
            group, codes[group], layer.input_zero_point + flip, bias[group], first_image * positions
        )
        for group in range(chip.groups)
    ]
    stacked = np.stack(found, axis=1).reshape(len(x), positions, -1)
    return stacked.transpose(0, 2, 1).reshape(len(x), -1, *counts)
