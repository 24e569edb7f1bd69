"""What an inference on a crossbar costs: events, passes, energy and area, from the mapping and the profile alone.

With P positions, G groups of K rows and N columns on `row_tiles x column_tiles` tiles, D digits of the input codes,
S slices, and R = `column_tiles` with an offset (every tile converts its reference column too), else 0:

    conversions   P G D S (N + R) row_tiles         a pair is subtracted before its one conversion
    row drives    P G D K column_tiles              every tile across drives its rows by itself
    cell reads    P G D K (cells of the group in a row, with those of the reference)
    passes        P D (groups that share a tile)    one after another; tiles work at the same time
    shift-adds    conversions                       each code is shifted and added once

A read counts the cells that are converted, not those of other groups in the same rows of a shared tile. A tile has
one ADC, which converts its columns in turn within a pass (as in ISAAC), one DAC for every row, and all of its cells,
used or not. Layers run one after another. The digital rest (zero points, biases, requantisation) is not counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import HardwareError
from ..program import Conv, Dense

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as Table

    from ..hardware import Hardware
    from ..program import Program
    from .crossbar import Crossbar
    from .mapping import Mapping

__all__ = ["ArrayArea", "InferenceEnergy", "LayerCounts", "ProgramCounts", "count_layer", "count_program"]


@dataclass(frozen=True)
class InferenceEnergy:
    """Picojoules by what takes them, each None where the profile does not say.

    Attributes:
        source: Where the profile's figures are from.
        adc_pj: Of the conversions.
        dac_pj: Of driving the rows.
        cell_pj: Of reading the cells.
        digital_pj: Of shifting and adding the codes.
    """

    source: str
    adc_pj: float | None
    dac_pj: float | None
    cell_pj: float | None
    digital_pj: float | None

    @property
    def known_pj(self) -> float:
        """The sum of what is known; less than the whole where something is None."""
        return _sum_of_known(self.adc_pj, self.dac_pj, self.cell_pj, self.digital_pj)


@dataclass(frozen=True)
class ArrayArea:
    """Square micrometres by what takes them, each None where the profile does not say.

    Attributes:
        source: Where the profile's figures are from.
        adc_um2: Of one ADC for each tile.
        dac_um2: Of one DAC for each row of each tile.
        cell_um2: Of all cells of all tiles.
    """

    source: str
    adc_um2: float | None
    dac_um2: float | None
    cell_um2: float | None

    @property
    def known_um2(self) -> float:
        """The sum of what is known; less than the whole where something is None."""
        return _sum_of_known(self.adc_um2, self.dac_um2, self.cell_um2)


@dataclass(frozen=True)
class LayerCounts:
    """What one inference costs on the tiles of a layer, or of several.

    Attributes:
        tiles: Tiles.
        rows: Rows of all tiles.
        cells: Cells of all tiles.
        cells_used: Those that hold a weight or belong to a reference column.
        conversions: ADC conversions.
        row_drives: Rows driven, times the passes.
        cell_reads: Cells read, times the passes.
        passes: Passes that must follow each other.
        shift_adds: Codes shifted and added.
        energy: None where the profile has no figure.
        area: None where the profile has no figure.
    """

    tiles: int
    rows: int
    cells: int
    cells_used: int
    conversions: int
    row_drives: int
    cell_reads: int
    passes: int
    shift_adds: int
    energy: InferenceEnergy | None
    area: ArrayArea | None

    @property
    def utilisation(self) -> float:
        """Share of the cells that are used; 0 without any."""
        return self.cells_used / self.cells if self.cells else 0.0


@dataclass(frozen=True)
class ProgramCounts:
    """What one inference costs.

    Attributes:
        layers: The counts of each layer on the crossbar by its name, in the order in which they run.
        total: All of them together.
    """

    layers: Table[str, LayerCounts]
    total: LayerCounts


def count_layer(mapping: Mapping, positions: int, hardware: Hardware) -> LayerCounts:
    """The counts of one layer.

    Args:
        mapping: Where it lies.
        positions: Positions of its output map; 1 for a dense layer.
        hardware: The profile that it was mapped to.
    """
    each, spare = mapping.physical
    references = mapping.column_tiles if spare else 0
    reads = positions * mapping.groups * hardware.digits
    in_a_row = mapping.columns * each + mapping.column_tiles * spare
    return _priced(
        hardware,
        tiles=mapping.tiles,
        cells_used=mapping.groups * mapping.rows * in_a_row,
        conversions=reads * mapping.slices * (mapping.columns + references) * mapping.row_tiles,
        row_drives=reads * mapping.rows * mapping.column_tiles,
        cell_reads=reads * mapping.rows * in_a_row,
        passes=positions * hardware.digits * min(mapping.groups, mapping.groups_per_tile),
    )


def count_program(crossbar: Crossbar) -> ProgramCounts:
    """The counts of all layers that are programmed on a crossbar, for one sample.

    Raises:
        HardwareError: A layer that belongs on it is not programmed yet, or its output has no fixed size.
    """
    layers = {}
    for layer in crossbar.program.layers:
        if not isinstance(layer, Conv | Dense):
            continue
        programmed = crossbar.programmed.get(layer.name)
        if programmed is None:
            raise HardwareError(
                f"layer {layer.name!r} is not programmed yet; make an emulator with its chip first"
            )
        positions = _positions(crossbar.program, layer)
        layers[layer.name] = count_layer(programmed.mapping, positions, crossbar.hardware)
    return ProgramCounts(layers, _total(layers.values(), crossbar.hardware))


def _positions(program: Program, layer: Conv | Dense) -> int:
    """How many rows of codes a layer's array reads for one sample."""
    spec = program.tensors.get(layer.output)
    sizes = [None] if spec is None or spec.shape is None else spec.shape[2:]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes):
        raise HardwareError(f"layer {layer.name!r}: its positions cannot be counted, its output is {spec}")
    return math.prod(known)


def _total(layers: Iterable[LayerCounts], hardware: Hardware) -> LayerCounts:
    every = list(layers)
    return _priced(
        hardware,
        tiles=sum(layer.tiles for layer in every),
        cells_used=sum(layer.cells_used for layer in every),
        conversions=sum(layer.conversions for layer in every),
        row_drives=sum(layer.row_drives for layer in every),
        cell_reads=sum(layer.cell_reads for layer in every),
        passes=sum(layer.passes for layer in every),
    )


def _priced(
    hardware: Hardware,
    *,
    tiles: int,
    cells_used: int,
    conversions: int,
    row_drives: int,
    cell_reads: int,
    passes: int,
) -> LayerCounts:
    """Counts with the energy and the area that the profile's figures make of them."""
    energy, area = hardware.energy, hardware.area
    rows = tiles * hardware.array.rows
    cells = rows * hardware.array.columns
    femtojoules = _times(energy.cell_fj, cell_reads)
    return LayerCounts(
        tiles=tiles,
        rows=rows,
        cells=cells,
        cells_used=cells_used,
        conversions=conversions,
        row_drives=row_drives,
        cell_reads=cell_reads,
        passes=passes,
        shift_adds=conversions,
        energy=InferenceEnergy(
            source=energy.source,
            adc_pj=_times(energy.adc_pj, conversions),
            dac_pj=_times(energy.dac_pj, row_drives),
            cell_pj=None if femtojoules is None else femtojoules / 1000,
            digital_pj=_times(energy.digital_pj, conversions),
        )
        if energy.known
        else None,
        area=ArrayArea(
            source=area.source,
            adc_um2=_times(area.adc_um2, tiles),
            dac_um2=_times(area.dac_um2, rows),
            cell_um2=_times(area.cell_um2, cells),
        )
        if area.known
        else None,
    )


def _times(figure: float | None, count: int) -> float | None:
    return None if figure is None else figure * count


def _sum_of_known(*parts: float | None) -> float:
    return math.fsum(part for part in parts if part is not None)
