"""How many of a chip's reads its converters clip, counted one by one on images.

The kernels keep no codes, so the images run once more, and every conversion is looked at (see
`kernels.crossbar_conversions`): some ten times as slow. The counts are exact, read noise included, for these images
and this chip; where the certificate says that nothing can clip, they are zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...errors import HardwareError
from ...kernels.isa import find
from ..execution import batch_prefix
from ..planning import PIECE_SAMPLES, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Mapping as Table

    from numpy.typing import NDArray

    from ..emulator import Emulator
    from ..planning.crossbar_node import Observed

__all__ = ["ClippedReads", "count_clipped", "total_clipped"]


@dataclass(frozen=True)
class ClippedReads:
    """The reads of a layer, or of several.

    Attributes:
        reads: Conversions.
        low: Those that gave the lowest code for a sum below it.
        high: Those that gave the highest code for a sum above it.
    """

    reads: int = 0
    low: int = 0
    high: int = 0

    @property
    def share(self) -> float:
        """Share of the reads that were clipped; 0 without any."""
        return (self.low + self.high) / self.reads if self.reads else 0.0


def count_clipped(
    emulator: Emulator, images: NDArray[Any], *, first_sample: int = 0
) -> Table[str, ClippedReads]:
    """The clipped reads of each layer by its name, in the order in which they run.

    Args:
        emulator: One with `hardware`.
        images: As the emulator takes them.
        first_sample: Global index of the first, which read noise depends on.

    Raises:
        HardwareError: The emulator has no chip.
    """
    chip, program = emulator.crossbar, emulator.program
    if chip is None:
        raise HardwareError(
            "found an emulator without hardware; expected one with a chip, whose reads can clip"
        )
    layers = [layer for layer in program.weighted_layers() if layer.name in chip.programmed]
    found = {layer.name: ClippedReads() for layer in layers}

    def observe(read: Observed) -> None:
        counted = read.product.clipped(read.packed, read.rows, read.first_sample)
        found[read.layer] = total_clipped([found[read.layer], ClippedReads(*counted)])

    outputs = frozenset(layer.output for layer in layers)
    watched = replace(chip, observer=observe)
    plan = Plan(program, batch_prefix(program), outputs, find(emulator.isa), watched)
    (name,) = (spec.name for spec in program.inputs)
    for start in range(0, len(images), PIECE_SAMPLES):
        plan.run({name: images[start : start + PIECE_SAMPLES]}, first_sample + start)
    return found


def total_clipped(counts: Iterable[ClippedReads]) -> ClippedReads:
    """All of them together."""
    every = list(counts)
    return ClippedReads(
        sum(count.reads for count in every),
        sum(count.low for count in every),
        sum(count.high for count in every),
    )
