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

    from ...kernels.crossbar import CrossbarProduct
    from ...kernels.isa.base import InstructionSet
    from ..hardware import Hardware
    from ..program import Conv, Dense, Program

__all__ = ["Crossbar"]


# Rows of a block of a layer's positions that are looked at in calibration.
_OBSERVED_ROWS = 32


class _Histogram:
    """How often each column sum was seen."""

    def __init__(self, fraction_bits: int) -> None:
        self._fraction_bits = fraction_bits
        self._counts: dict[int, int] = {}

    def add(self, sums: NDArray[np.int64]) -> None:
        """Count some more."""
        values, counts = np.unique(sums, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + count

    def window(self, percentile: float, fraction_bits: int) -> tuple[int, int]:
        """The percentiles on both sides, in units of 2^-fraction_bits of a level."""
        values = np.array(sorted(self._counts))
        shares = np.cumsum([self._counts[value] for value in values.tolist()])
        high = values[np.searchsorted(shares, percentile / 100 * shares[-1])]
        low = values[np.searchsorted(shares, (1 - percentile / 100) * shares[-1], side="right")]
        unit = 1 << (fraction_bits - self._fraction_bits)
        return int(low) * unit, int(high) * unit


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
        windows: Lowest and highest column sum of each layer by its name, in units of 2^-F of a level, where the
            converters' range is calibrated (see `calibrate`).
        observer: Is shown what a layer reads: its name, the array, packed rows and their number.
    """

    hardware: Hardware
    program: Program
    seed: int = 0
    threads: int = 1
    certificate: bool = True
    progress: Callable[[int, int], None] | None = None
    windows: dict[str, tuple[int, int]] = field(default_factory=dict)
    observer: Callable[[str, CrossbarProduct, NDArray[np.uint8], int], None] | None = None
    programmed: dict[str, ProgrammedLayer] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool:
        """Whether the converters' limits come from calibration."""
        return self.hardware.adc.bits is not None and self.hardware.adc.range == "calibrated"

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
            self.hardware.with_changes(changes), self.program, self.seed, self.threads, progress=self.progress
        )
        percentile = self.hardware.adc.percentile
        if percentile is None:
            raise HardwareError("adc.percentile: a calibrated range needs one, found none")
        seen: dict[str, _Histogram] = {}

        def observe(name: str, product: CrossbarProduct, packed: NDArray[np.uint8], rows: int) -> None:
            step = max(1, rows // _OBSERVED_ROWS)
            some = packed[: rows * product.stride].reshape(rows, product.stride)[::step]
            sums = product.column_sums(np.ascontiguousarray(some).reshape(-1), len(some))
            seen.setdefault(name, _Histogram(product.fraction_bits)).add(sums)

        ideal.observer = observe
        run(ideal)
        fraction_bits = self.hardware.cell.fraction_bits
        self.windows = {name: histogram.window(percentile, fraction_bits) for name, histogram in seen.items()}

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
        if self.calibrated and layer.name not in self.windows:
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
                isa=isa,
                certificate=self.certificate,
                threads=self.threads,
                progress=self.progress,
                window=self.windows.get(layer.name),
            )
        return self.programmed[layer.name]
