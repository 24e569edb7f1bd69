"""`Hardware`: the profile of a crossbar accelerator, as one frozen, validated tree that survives a TOML round trip."""

from __future__ import annotations

import hashlib
import tomllib
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import tomli_w
from pydantic import model_validator

from ...errors import HardwareError
from .base import NONE, Part, flatten, nest
from .changes import check_paths, left_behind
from .converter import AdcLimits, codes, full_range, window
from .parts import Adc, Area, Array, Cell, Dac, Energy, Line, Read, Title, Wires

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Hardware"]

INPUT_BITS = 8
WEIGHT_BITS = range(1, 10)
"""Widths of weight codes; 9 bits hold what an unsigned 8-bit code less its zero point can be."""


class Hardware(Part):
    """A ReRAM-like crossbar accelerator.

    Attributes:
        name: What reports call it.
        description: One line about it.
        source: The paper that it is taken from, or "made up for tests".
        array: Tiles, and how weights are laid on them.
        dac: Converters at the rows.
        adc: Converters at the columns.
        cell: What a cell conducts.
        wires: Resistance of the lines (IR drop).
        read: Noise at each read.
        energy: Energy of one event of each kind, where known.
        area: Area of one component of each kind, where known.
    """

    name: Title
    description: Line = ""
    source: Title
    array: Array = Array()
    dac: Dac = Dac()
    adc: Adc = Adc()
    cell: Cell = Cell()
    wires: Wires = Wires()
    read: Read = Read()
    energy: Energy = Energy()
    area: Area = Area()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.adc.bits is not None:
            self._check_adc(self.adc.bits)
        return self

    def _check_adc(self, bits: int) -> None:
        if self.signed and bits < 2:
            raise HardwareError(
                f"adc.bits: expected at least 2 for the signed sums of mapping 'differential', found {bits}"
            )
        if self.adc.step is not None and self._units(self.adc.step).denominator != 1:
            raise HardwareError(
                f"adc.step: expected a multiple of {self.unit:g} of a level (cell.fraction_bits = "
                f"{self.cell.fraction_bits}), found {self.adc.step!r}"
            )
        if self.adc.range == "fixed":
            low, high, step = self._fixed(bits)
            if high - low < 1:
                raise HardwareError(
                    f"adc.high: expected a range of two codes or more from low ({self.adc.low:g}), a code being "
                    f"{step * self.unit:g} levels, found {self.adc.high:g}"
                )
            if high - low >= 2**bits:
                raise HardwareError(
                    f"adc.step: expected at most {2**bits} codes of {bits} bits from low to high, "
                    f"found {self.adc.step!r}, which makes {high - low + 1}"
                )

    @property
    def signed(self) -> bool:
        """Whether column sums have a sign when the ADC reads them."""
        return self.array.mapping == "differential"

    @property
    def unit(self) -> float:
        """`2**-F`: the share of a level that effective conductances are multiples of."""
        return 2.0**-self.cell.fraction_bits

    @property
    def digits(self) -> int:
        """Passes that apply an 8-bit input code: `ceil(8 / dac.bits)`."""
        return -(-INPUT_BITS // self.dac.bits)

    @property
    def ideal_cells(self) -> bool:
        """Whether, once programmed, every cell conducts exactly its level: no error, fault, leak, drift, IR drop."""
        cell = self.cell
        return (
            cell.on_off_ratio is None
            and cell.programming.sigma == 0
            and cell.stuck.on_rate == cell.stuck.off_rate == 0
            and not cell.drift.happens
            and not self.wires.resistive
        )

    @property
    def noisy(self) -> bool:
        """Whether two reads of the same cell can differ."""
        return self.read.noise > 0 or self.read.noise_relative > 0

    @property
    def varies(self) -> bool:
        """Whether two chips of the profile can differ, by their cells or their reads."""
        cell = self.cell
        return cell.programming.sigma > 0 or cell.stuck.on_rate + cell.stuck.off_rate > 0 or self.noisy

    @property
    def calibrated(self) -> bool:
        """Whether the ADC's limits come from calibration images."""
        return self.adc.bits is not None and self.adc.range == "calibrated"

    def weight_range(self, weight_bits: int) -> tuple[int, int]:
        """Return the lowest and highest weight that the slices of `weight_bits` bits hold.

        Codes of b bits, at least 2 (1-bit codes are -1 and +1 and take as much room): `-L..L` with
        `L = 2**(b-1) - 1` in a differential pair, `-2**(b-1)..L` with an offset of `2**(b-1)`.

        Raises:
            HardwareError: The width is not one of 1 to 9.
        """
        highest = 2 ** (_stored(weight_bits) - 1) - 1
        return (-highest, highest) if self.signed else (-highest - 1, highest)

    def slices(self, weight_bits: int) -> int:
        """Return over how many cells a weight of `weight_bits` bits is sliced (each a pair if differential).

        Raises:
            HardwareError: The width is not one of 1 to 9.
        """
        stored = _stored(weight_bits) - self.signed
        return -(-stored // self.array.cell_bits)

    def weight_bits(self, lowest: int, highest: int) -> int:
        """Return the smallest width whose `weight_range` holds the codes from `lowest` to `highest`.

        A full range of 3 bits, -4..3, takes 4 bits in a differential pair; base-2 logarithmic levels of 4 bits
        reach 64 and take 8.

        Raises:
            HardwareError: No width from 1 to 9 holds them.
        """
        for bits in WEIGHT_BITS:
            low, high = self.weight_range(bits)
            if low <= lowest and highest <= high:
                return bits
        raise HardwareError(
            f"array.mapping: '{self.array.mapping}' holds weights from {low} to {high}, found {lowest} to {highest}"
        )

    def adc_limits(self, largest: int) -> AdcLimits | None:
        """Return codes and step of an ADC whose range is `full` or `fixed`.

        `full`: the smallest step, a power of two units of `2**-F` of a level, at which every sum in
        `-largest..largest` (differential) or `0..largest` (offset) has a code. It falls below one level only where
        the ADC has codes to spare, and never below one unit. A step that the profile names is kept, and clips what
        is past the codes. `fixed`: the codes nearest to `low` and `high`, and those between; the step is
        the profile's, or `(high - low) / (2**bits - 1)` rounded up to a whole unit.

        Args:
            largest: The largest column sum that the weights allow, in units of `2**-F` of a level.

        Returns:
            Limits as integers; None for an ideal ADC, which neither clips nor rounds.

        Raises:
            HardwareError: The range is `calibrated` (see `adc_window`), or `largest` is negative.
        """
        if largest < 0:
            raise HardwareError(f"the largest column sum: expected at least 0, found {largest}")
        if self.adc.bits is None:
            return None
        if self.adc.range == "calibrated":
            raise HardwareError("adc.range: 'calibrated' has limits only after calibration, see adc_window")
        if self.adc.range == "fixed":
            return self._fixed(self.adc.bits)
        if self.adc.step is not None:
            return AdcLimits(*codes(self.adc.bits, signed=self.signed), int(self._units(self.adc.step)))
        return full_range(self.adc.bits, signed=self.signed, largest=largest)

    def adc_window(self, low: int, high: int) -> AdcLimits | None:
        """Return codes and step for a range that calibration found: those nearest to its limits, and between.

        The step is `(high - low) / (2**bits - 1)`, rounded up to a whole unit.

        Args:
            low: Lowest column sum in range, in units of `2**-F` of a level.
            high: Highest column sum in range, likewise.

        Returns:
            Limits as integers; None for an ideal ADC.

        Raises:
            HardwareError: `low` is above `high`.
        """
        if low > high:
            raise HardwareError(
                f"the range of an ADC: expected low to be at most high, found {low} and {high}"
            )
        if self.adc.bits is None:
            return None
        return window(self.adc.bits, Fraction(low), Fraction(high))

    def _fixed(self, bits: int) -> AdcLimits:
        low, high = self._units(self.adc.low or 0.0), self._units(self.adc.high or 0.0)
        step = None if self.adc.step is None else floor(self._units(self.adc.step))
        return window(bits, low, high, step)

    def _units(self, levels: float) -> Fraction:
        return Fraction(levels) * (1 << self.cell.fraction_bits)

    def with_changes(self, changes: Mapping[str, Any]) -> Self:
        """Return a copy with other values in some fields.

        Where `adc.range` changes, limits, percentile and step of the old range are dropped; where
        `cell.programming.kind` becomes `none`, so is sigma. What `changes` itself says about them is kept.

        Args:
            changes: New values by dotted path, such as `{"adc.bits": 6}`; None or "none" for no value.

        Raises:
            HardwareError: There is no such field, or the value is not one of its own; names the field.
        """
        values = flatten(self.model_dump())
        check_paths(changes, values)
        return type(self)(**nest(values | left_behind(values, changes) | dict(changes)))

    def to_toml(self) -> str:
        """Return the profile as TOML text, every field with its value; `from_toml` reads it back."""
        flat = flatten(self.model_dump())
        return tomli_w.dumps(nest({path: NONE if value is None else value for path, value in flat.items()}))

    @property
    def sha256(self) -> str:
        """SHA-256 of `to_toml()`, in hexadecimal: profiles with the same values have the same."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read a profile from TOML text; fields left out have their defaults.

        Raises:
            HardwareError: The text is not TOML, or a field is unknown, missing, mistyped or senseless.
        """
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise HardwareError(f"the hardware profile is not TOML: {error}") from None
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a profile from a TOML file (see `from_toml`); errors name the file too."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise HardwareError(
                f"cannot read the hardware profile {path}: {error.strerror or error}"
            ) from None
        except ValueError as error:
            raise HardwareError(f"cannot read the hardware profile {path}: {error}") from None
        try:
            return cls.from_toml(text)
        except HardwareError as error:
            raise HardwareError(f"{path}: {error}") from None


def _stored(weight_bits: int) -> int:
    if weight_bits not in WEIGHT_BITS:
        raise HardwareError(f"weight bits: expected 1 to {WEIGHT_BITS[-1]}, found {weight_bits}")
    return max(weight_bits, 2)
