"""Where a program's layers lie on a chip, and how many of its reads the no-clip certificate covers."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from .program import Conv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .crossbar import ProgrammedLayer
    from .emulator import Emulator
    from .hardware import AdcLimits

__all__ = ["TiledLayer", "certified_share", "tiled_layers"]


@dataclass(frozen=True)
class TiledLayer:
    """One weighted layer on its tiles.

    Attributes:
        name: The layer's name.
        tiles: How many tiles it takes.
        utilisation: Share of their cells that hold a weight.
        reads: Conversions for one image: positions x digits x tiles x slices x columns.
        certified: Share of them that no input can clip, so that the exact product replaces them.
        converters: Limits of its converters; None for ideal ones.
    """

    name: str
    tiles: int
    utilisation: float
    reads: int
    certified: float
    converters: AdcLimits | None


def tiled_layers(emulator: Emulator, images: NDArray[Any]) -> tuple[TiledLayer, ...]:
    """Return the layers of an emulator's chip, in the order of the program.

    Args:
        emulator: One with `hardware`.
        images: At least one batch of its program, to learn the sizes of maps from.
    """
    chip = emulator.crossbar
    if chip is None:
        return ()
    layers = [layer for layer in emulator.program.weighted_layers() if layer.name in chip.programmed]
    outputs = emulator.trace(images[: emulator.program.batch or 1], [layer.output for layer in layers])
    found = []
    for layer in layers:
        shape = outputs[layer.output].shape
        positions = prod(shape[2:]) if isinstance(layer, Conv) else prod(shape[1:-1])
        programmed = chip.programmed[layer.name]
        found.append(
            TiledLayer(
                name=layer.name,
                tiles=programmed.mapping.tiles,
                utilisation=programmed.mapping.utilisation,
                reads=positions * chip.hardware.digits * _columns_read(programmed),
                certified=programmed.exact_share,
                converters=programmed.converters,
            )
        )
    return tuple(found)


def certified_share(layers: Sequence[TiledLayer]) -> float:
    """Return the share of all reads that the certificate covers, 0 to 1."""
    reads = sum(layer.reads for layer in layers)
    return sum(layer.reads * layer.certified for layer in layers) / reads if reads else 0.0


def _columns_read(layer: ProgrammedLayer) -> int:
    """Columns that are converted for one position and digit; a tile's reference column is one of them."""
    mapping = layer.mapping
    references = mapping.column_tiles if layer.references else 0
    return mapping.groups * mapping.row_tiles * mapping.slices * (mapping.columns + references)
