"""A layer on a programmed crossbar: cells as they came out, converters, and the digital rest.

    acc = sums of the array - z_x sum(w) + bias                       int32; the last two are digital and exact

Programming happens once, for a chip (a seed): levels -> device errors -> wire resistance -> fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import HardwareError
from ...kernels.counter_random import stream_key
from ...kernels.crossbar import VARIANCE_BITS, CrossbarProduct, ReadNoise, ReadPlane
from .mapping import map_weights, slice_levels
from .programming import CellModel, cell_key, fixed_point_error, program_cells, to_fixed
from .wires import effective_tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ...kernels.isa.base import InstructionSet
    from ..hardware import AdcLimits, Hardware
    from .mapping import Mapping, Slice

__all__ = ["ProgrammedLayer", "program_layer"]

_READ_NOISE = 2  # purpose of a stream of random numbers; cells have their own (see `programming`)


@dataclass(frozen=True, eq=False)
class ProgrammedLayer:
    """One weighted layer on its tiles.

    Attributes:
        mapping: Where it lies.
        products: The arrays, one for each group.
        references: Columns of the weight matrix that share a tile's reference column, 0 without one.
        bias: int32 `(N,)` for each group: what is added digitally.
        converters: Limits of the converters, None for ideal ones.
        fixed_point_error: Largest difference between a cell's conductance and its fixed point, in levels.
    """

    mapping: Mapping
    products: tuple[CrossbarProduct, ...]
    references: int
    bias: tuple[NDArray[np.int32], ...]
    converters: AdcLimits | None
    fixed_point_error: float

    @property
    def exact_share(self) -> float:
        """Share of the reads that no input can clip, and which the exact product replaces."""
        return float(np.mean([product.exact_share for product in self.products]))

    def __call__(
        self, group: int, packed: NDArray[np.uint8], rows: int, first_sample: int
    ) -> NDArray[np.int32]:
        """The accumulators of one group, int32 `(rows, N)`, for packed codes (see `CrossbarProduct`)."""
        product = self.products[group]
        sums = np.empty((rows, product.columns), np.int32)
        product(packed, rows, first_sample, sums.reshape(-1))
        if self.references:
            columns = self.mapping.columns
            block = np.arange(columns) // self.references
            sums = sums[:, :columns] - sums[:, columns + block]
        sums += self.bias[group]
        return sums


def program_layer(
    weight: NDArray[Any],
    bias: NDArray[np.int32] | None,
    zero_point: int,
    hardware: Hardware,
    *,
    seed: int,
    layer: int,
    isa: InstructionSet,
    name: str | None = None,
    certificate: bool = True,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
    keep: bool = True,
    window: tuple[int, int] | None = None,
) -> ProgrammedLayer:
    """Program a layer's weights, int8 or int16 `(groups, K, N)`.

    Args:
        weight: Codes less their zero point.
        bias: int32 `(groups * N,)`, or None.
        zero_point: The (unsigned) code of the input that stands for zero.
        hardware: The profile.
        seed: The chip.
        layer: Number of the layer in the program.
        isa: The instruction set.
        name: The layer's name, for errors; else they name its number.
        certificate: Whether reads that cannot clip are replaced by the exact product.
        threads: How many tiles with wire resistance are solved at a time.
        progress: Called with how many of those are done, and how many there are.
        keep: Whether tiles with wire resistance are kept on disk once they are solved.
        window: Lowest and highest column sum, in units of 2^-F of a level, of converters of a calibrated range.

    Raises:
        HardwareError: The profile cannot hold the weights, or a sum could pass int32.
    """
    groups, rows, columns = weight.shape
    what = f"layer {layer}" if name is None else f"layer {name!r}"
    try:
        bits = hardware.weight_bits(int(weight.min(initial=0)), int(weight.max(initial=0)))
        mapping = map_weights(rows, columns, groups, bits, hardware)
    except HardwareError as error:
        raise HardwareError(f"{what} on hardware '{hardware.name}': {error}") from error
    cells = _Programmer(hardware, seed, layer, mapping, threads, progress, keep=keep)
    arrays = [cells.group(group, slice_levels(weight[group], bits, hardware)) for group in range(groups)]
    largest = max(_largest_sum(plane, hardware) for planes in arrays for plane in planes)
    converters = hardware.adc_limits(largest) if window is None else hardware.adc_window(*window)
    low, high, step = converters or (0, 0, 0)
    products = []
    for group, planes in enumerate(arrays):
        noise = _noise_keys(seed, layer, group, mapping, len(planes)) if hardware.noisy else None
        read = [
            ReadPlane(plane.cells, plane.shift, low, high, step, plane.variance if hardware.noisy else None)
            for plane in planes
        ]
        fraction_bits = hardware.cell.fraction_bits
        if not hardware.noisy:
            read, fraction_bits = _whole_levels(read, fraction_bits, largest)
        try:
            products.append(
                CrossbarProduct(
                    read,
                    tile_rows=mapping.tile_rows,
                    dac_bits=hardware.dac.bits,
                    fraction_bits=fraction_bits,
                    isa=isa,
                    noise=noise,
                    certificate=certificate,
                )
            )
        except ValueError as error:
            raise HardwareError(f"{what} on hardware '{hardware.name}': {error}") from error
    references = 0 if hardware.signed else mapping.tile_weights
    totals = weight.astype(np.int64).sum(axis=1)
    given = np.zeros(groups * columns, np.int64) if bias is None else bias.astype(np.int64)
    digital = (given.reshape(groups, columns) - zero_point * totals).astype(np.uint64)
    wrapped = digital.astype(np.uint32).view(np.int32)
    return ProgrammedLayer(
        mapping, tuple(products), references, tuple(wrapped), converters, cells.fixed_point_error
    )


@dataclass(frozen=True, eq=False)
class _Plane:
    cells: NDArray[np.int32]
    variance: NDArray[np.int32]
    shift: int


class _Programmer:
    """Programs the tiles of one layer; keeps the largest error of fixed point."""

    def __init__(
        self,
        hardware: Hardware,
        seed: int,
        layer: int,
        mapping: Mapping,
        threads: int,
        progress: Callable[[int, int], None] | None,
        *,
        keep: bool,
    ) -> None:
        cell = hardware.cell
        self._hardware = hardware
        self._model = CellModel(
            on_off_ratio=cell.on_off_ratio,
            programming_kind=cell.programming.kind,
            programming_sigma=cell.programming.sigma,
            stuck_on_rate=cell.stuck.on_rate,
            stuck_off_rate=cell.stuck.off_rate,
            drift_time_s=cell.drift.time_s,
            drift_reference_time_s=cell.drift.reference_time_s,
            drift_exponent=cell.drift.exponent,
        )
        self._seed, self._layer, self._mapping = seed, layer, mapping
        self._threads, self._progress, self._keep = threads, progress, keep
        self._top = hardware.array.highest_level
        self.fixed_point_error = 0.0

    def group(self, group: int, slices: list[Slice]) -> list[_Plane]:
        """The planes of a group: the weights' columns, then (with an offset) one reference for each tile across."""
        mapping = self._mapping
        places, tiles = [], []
        for down in range(mapping.row_tiles):
            rows = slice(down * mapping.tile_rows, min(mapping.rows, (down + 1) * mapping.tile_rows))
            for across in range(mapping.column_tiles):
                columns = slice(
                    across * mapping.tile_weights, min(mapping.columns, (across + 1) * mapping.tile_weights)
                )
                tile = (group * mapping.row_tiles + down) * mapping.column_tiles + across
                places.append((rows, columns, across))
                tiles.append(self._tile(tile, slices, rows, columns))
        return self._planes(slices, places, self._wired(tiles))

    def _tile(self, tile: int, slices: list[Slice], rows: slice, columns: slice) -> NDArray[np.float64]:
        """Conductances `(rows, columns, slice, polarity)`; the last column of an offset tile is the reference."""
        polarities = 2 if self._hardware.signed else 1
        count = columns.stop - columns.start + (0 if self._hardware.signed else 1)
        found = np.empty((rows.stop - rows.start, count, len(slices), polarities))
        for index, part in enumerate(slices):
            for polarity, levels in enumerate((part.plus, part.minus)[:polarities]):
                assert levels is not None  # noqa: S101 - a pair has both
                meant = levels[rows, columns]
                if not self._hardware.signed:
                    reference = np.full((meant.shape[0], 1), part.reference, np.uint8)
                    meant = np.concatenate([meant, reference], axis=1)
                key = cell_key(self._seed, self._layer, tile, index, polarity)
                found[:, :, index, polarity] = program_cells(
                    np.ascontiguousarray(meant), self._top, self._model, key
                )
        return found

    def _wired(self, tiles: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
        """The tiles as their converters see them through the wires."""
        wires = self._hardware.wires
        if not wires.resistive or wires.on_ohm is None:
            return tiles
        flat = [np.ascontiguousarray(tile.reshape(len(tile), -1)) for tile in tiles]
        solved = effective_tiles(
            flat,
            wires.row_ohm,
            wires.column_ohm,
            wires.on_ohm,
            self._top,
            threads=self._threads,
            keep=self._keep,
            progress=self._progress,
        )
        return [found.reshape(tile.shape) for found, tile in zip(solved, tiles, strict=True)]

    def _planes(
        self,
        slices: list[Slice],
        places: list[tuple[slice, slice, int]],
        tiles: list[NDArray[np.float64]],
    ) -> list[_Plane]:
        """Tiles put together again, in fixed point; of a pair the difference."""
        mapping, read = self._mapping, self._hardware.read
        signed, fraction_bits = self._hardware.signed, self._hardware.cell.fraction_bits
        width = mapping.columns + (0 if signed else mapping.column_tiles)
        planes = []
        for index, part in enumerate(slices):
            cells = np.zeros((mapping.rows, width), np.int32)
            variance = np.zeros((mapping.rows, width), np.int32)
            for (rows, columns, across), tile in zip(places, tiles, strict=True):
                conductances = tile[:, :, index]
                fixed = to_fixed(np.ascontiguousarray(conductances), fraction_bits)
                error = fixed_point_error(conductances, fixed, fraction_bits).maximum
                self.fixed_point_error = max(self.fixed_point_error, error)
                value = fixed[:, :, 0] - fixed[:, :, 1] if signed else fixed[:, :, 0]
                spread = read.noise**2 + (read.noise_relative * conductances) ** 2
                noise = np.rint(spread.sum(axis=2) * 2.0**VARIANCE_BITS).astype(np.int32)
                count = columns.stop - columns.start
                cells[rows, columns], variance[rows, columns] = value[:, :count], noise[:, :count]
                if not signed:
                    cells[rows, mapping.columns + across] = value[:, count]
                    variance[rows, mapping.columns + across] = noise[:, count]
            planes.append(_Plane(cells, variance, part.shift))
        return planes


def _largest_sum(plane: _Plane, hardware: Hardware) -> int:
    """The largest column sum of a tile, without noise, in units of 2^-F of a level."""
    digit = (1 << hardware.dac.bits) - 1
    largest = 0
    for first in range(0, len(plane.cells), hardware.array.rows):
        tile = plane.cells[first : first + hardware.array.rows].astype(np.int64)
        for side in (np.maximum(tile, 0), np.maximum(-tile, 0)):
            largest = max(largest, int(digit * side.sum(axis=0).max(initial=0)))
    return largest


def _noise_keys(seed: int, layer: int, group: int, mapping: Mapping, planes: int) -> ReadNoise:
    """Keys of the read noise; the column of a key's counter tells the tile across."""
    return ReadNoise(
        tuple(
            tuple(
                stream_key(seed, _READ_NOISE, layer, group * mapping.row_tiles + down, plane)
                for plane in range(planes)
            )
            for down in range(mapping.row_tiles)
        )
    )


def _whole_levels(planes: list[ReadPlane], fraction_bits: int, largest: int) -> tuple[list[ReadPlane], int]:
    """The same planes in whole levels, where cells and steps are multiples of one; the kernel for that is faster.

    A step that divides a level, of a converter whose limits no sum reaches (`largest` units), changes nothing: it is
    an ideal converter's.
    """
    unit = 1 << fraction_bits
    if any((plane.cells % unit).any() for plane in planes):
        return planes, fraction_bits
    whole = []
    for plane in planes:
        step = plane.step
        lowest = -largest if (plane.cells < 0).any() else 0
        holds = plane.low * step <= lowest and plane.high * step >= largest
        if step and unit % step == 0 and holds:
            step = 0
        if step % unit:
            return planes, fraction_bits
        whole.append(
            ReadPlane(plane.cells >> fraction_bits, plane.shift, plane.low, plane.high, step >> fraction_bits)
        )
    return whole, 0
