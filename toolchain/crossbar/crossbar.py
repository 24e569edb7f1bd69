"""`Crossbar`: one manufactured chip of a hardware profile, which the layers of a program are programmed on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import HardwareError
from .array import ProgrammedLayer, program_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ...kernels.isa.base import InstructionSet
    from ..hardware import Hardware
    from ..planning.crossbar_node import Observed
    from ..program import Conv, Dense, Program

__all__ = ["Crossbar"]


# Rows of a block of a layer's positions that are looked at in calibration.
_OBSERVED_ROWS = 32


class _Histogram:
    """How often each column sum was seen."""

    def __init__(self) -> None:
        self._first = 0
        self._counts = np.zeros(1, np.int64)

    def add(self, sums: NDArray[np.int64]) -> None:
        """Count some more."""
        if not sums.size:
            return
        first = min(self._first, int(sums.min()))
        last = max(self._first + self._counts.size - 1, int(sums.max()))
        counts = np.bincount((sums - first).reshape(-1), minlength=last - first + 1)
        counts[self._first - first : self._first - first + self._counts.size] += self._counts
        self._first, self._counts = first, counts

    def window(self, percentile: float) -> tuple[int, int]:
        """The smallest sum that is not below `percentile` percent of all, and the largest not above as many."""
        shares = np.cumsum(self._counts)
        high = int(np.searchsorted(shares, percentile / 100 * shares[-1]))
        low = int(np.searchsorted(shares, (1 - percentile / 100) * shares[-1], side="right"))
        return self._first + min(low, high), self._first + max(low, high)


@dataclass(eq=False)
class Crossbar:
    """A chip: a profile and the seed of everything random about it.

    Layers are programmed when they are first needed, and kept: a chip does not change.

    Args:
        hardware: The profile.
        program: The program whose layers it holds.
        seed: Which chip. Programming errors, faults and read noise are drawn from it.
        threads: How many tiles with wire resistance are solved at a time.
        certificate: Whether reads that no input can clip are replaced by the exact product: the same bits.
        progress: Called with how many of a layer's tiles are solved, and how many there are.
        keep_tiles: Whether tiles with wire resistance are kept on disk once they are solved.
        windows: Lowest and highest column sum of each layer by its name, in units of 2^-F of a level, where the
            converters' range is calibrated (see `calibrate`).
        observer: Is shown what layers read.
    """

    hardware: Hardware
    program: Program
    seed: int = 0
    threads: int = 1
    certificate: bool = True
    progress: Callable[[int, int], None] | None = None
    keep_tiles: bool = True
    windows: dict[str, tuple[int, int]] = field(default_factory=dict)
    observer: Callable[[Observed], None] | None = None
    programmed: dict[str, ProgrammedLayer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not -(2**63) <= self.seed < 2**63:
            raise HardwareError(f"the seed of a chip is a number of 64 bits, found {self.seed}")

    def calibrate(self, run: Callable[[Crossbar], None]) -> None:
        """Set the converters' limits by what layers read.

        The window of a layer is from the lowest to the highest percentile of all its column sums, over tiles,
        digits and planes, as the cells of this chip give them, without read noise; layers before it are converted
        ideally.

        Args:
            run: Runs the program on the calibration images, on the crossbar that it is given.
        """
        changes = {"adc.range": "full", "adc.bits": None, "read.noise": 0.0, "read.noise_relative": 0.0}
        ideal = Crossbar(
            self.hardware.with_changes(changes),
            self.program,
            self.seed,
            self.threads,
            progress=self.progress,
            keep_tiles=self.keep_tiles,
        )
        percentile = self.hardware.adc.percentile
        if percentile is None:
            raise HardwareError("adc.percentile: a calibrated range needs one, found none")
        fraction_bits = self.hardware.cell.fraction_bits
        seen: dict[str, _Histogram] = {}

        def observe(read: Observed) -> None:
            product, rows = read.product, read.rows
            step = max(1, rows // _OBSERVED_ROWS)
            some = read.packed[: rows * product.stride].reshape(rows, product.stride)[::step]
            sums = product.column_sums(np.ascontiguousarray(some).reshape(-1), len(some))
            units = fraction_bits - product.fraction_bits
            seen.setdefault(read.layer, _Histogram()).add(sums << units)

        ideal.observer = observe
        run(ideal)
        self.windows = {name: histogram.window(percentile) for name, histogram in seen.items()}

    def layer(
        self, layer: Conv | Dense, weight: NDArray[Any], groups: int, flip: int, isa: InstructionSet
    ) -> ProgrammedLayer:
        """The layer's array.

        Args:
            layer: The layer; its name is unique in the program.
            weight: Its weights, `(O, C / groups, kH, kW)`.
            groups: Groups.
            flip: What was added to the input's codes: 128 for signed ones.
            isa: The instruction set.

        Raises:
            HardwareError: The profile cannot hold the weights, a sum could pass int32, or the converters of a
                calibrated range were not calibrated.
        """
        if self.hardware.calibrated and layer.name not in self.windows:
            raise HardwareError(
                f"adc.range: the 'calibrated' limits of '{self.hardware.name}' need calibration images "
                "(Emulator(..., calibration=images)); or choose 'full', or 'fixed' with low and high"
            )
        if layer.name not in self.programmed:
            number = next(i for i, other in enumerate(self.program.layers) if other is layer)
            outputs = weight.shape[0]
            ordered = weight.transpose(2, 3, 1, 0).reshape(-1, groups, outputs // groups)
            self.programmed[layer.name] = program_layer(
                np.ascontiguousarray(ordered.transpose(1, 0, 2)),
                layer.bias,
                layer.input_zero_point + flip,
                self.hardware,
                seed=self.seed,
                layer=number,
                name=layer.name,
                isa=isa,
                certificate=self.certificate,
                threads=self.threads,
                progress=self.progress,
                keep=self.keep_tiles,
                window=self.windows.get(layer.name),
            )
        return self.programmed[layer.name]
