"""The groups of a hardware profile: array, converters, cells, wires, read noise, energy and area.

Conductances are counted in levels: a cell of `b` bits has the levels 0 to `2**b - 1`, and the highest one conducts
`2**b - 1`. What a device does to a cell is rounded once, to a whole number of units of `2**-F` of a level.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ...errors import HardwareError
from .base import NONE, Part

__all__ = [
    "Adc",
    "Area",
    "Array",
    "Cell",
    "Dac",
    "Drift",
    "Energy",
    "Line",
    "Programming",
    "Read",
    "Stuck",
    "Title",
    "Wires",
]


def _line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("one line of printable text")
    return text


def _title(text: str) -> str:
    if not _line(text) or text != text.strip():
        raise ValueError("a line of text that is not empty and has no space at its ends")
    return text


Line = Annotated[str, AfterValidator(_line)]
Title = Annotated[str, AfterValidator(_title)]
Rate = Annotated[float, Field(ge=0, le=1)]
Deviation = Annotated[float, Field(ge=0, le=16)]
Levels = Annotated[float, Field(ge=-(2**31), le=2**31)]
Figure = Annotated[float, Field(ge=0, le=1e12)]

PERCENTILE = 99.9
"""Share of the column sums, in percent, that a calibrated range keeps unless told otherwise."""


class Array(Part):
    """One tile of cells, and how weights are laid on it.

    Attributes:
        rows: Word lines of a tile, 1 to 4096: inputs that are multiplied at a time.
        columns: Physical bit lines of a tile, 1 to 4096, whatever they hold.
        mapping: `differential`: a weight is the difference of a column for its positive and one for its negative
            part, subtracted before the ADC, which therefore reads signed sums. `offset`: `weight + offset` is
            never negative and takes one column; offset times the sum of the inputs is subtracted after the ADC.
        cell_bits: Bits that a cell stores, 1 to 4. A weight of more bits is sliced over several cells, the least
            significant slice first.
    """

    rows: Annotated[int, Field(ge=1, le=4096)] = 128
    columns: Annotated[int, Field(ge=1, le=4096)] = 128
    mapping: Literal["differential", "offset"] = "differential"
    cell_bits: Annotated[int, Field(ge=1, le=4)] = 2

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.mapping == "differential" and self.columns < 2:
            raise HardwareError(
                f"columns: expected at least 2 with mapping 'differential', found {self.columns}"
            )
        return self

    @property
    def highest_level(self) -> int:
        """The highest level of a cell."""
        return (1 << self.cell_bits) - 1


class Dac(Part):
    """The converters at the rows.

    Attributes:
        bits: Input bits that a pass applies, 1 to 8. An 8-bit input code takes `ceil(8 / bits)` passes, the least
            significant digit first.
    """

    bits: Annotated[int, Field(ge=1, le=8)] = 1


class Adc(Part):
    """The converters at the columns: `code = clip(rint(p / step), low, high)` for a column sum `p`.

    Attributes:
        bits: Resolution, 1 to 16 bits; None: ideal, nothing is clipped or rounded and the fields below have no
            effect. Signed sums (mapping `differential`) take at least 2 bits.
        range: `full`: every sum that the weights allow is within the codes. `fixed`: from `low` to `high`.
            `calibrated`: from percentile `100 - percentile` to percentile `percentile` of the sums that are seen on
            calibration images.
        low: Lower limit of the range, in levels; `fixed` needs it, the others have none.
        high: Upper limit of the range, in levels; `fixed` needs it, the others have none.
        percentile: Of the sums, 50 to 100: as many percent are at most `calibrated`'s upper limit, and as many at
            least its lower; 99.9 if left out.
            The others have none.
        step: Levels for each code, a multiple of `2**-cell.fraction_bits`; None: it follows from range and bits.
            `calibrated` has none.
    """

    bits: Annotated[int, Field(ge=1, le=16)] | None = None
    range: Literal["full", "fixed", "calibrated"] = "full"
    low: Levels | None = None
    high: Levels | None = None
    percentile: Annotated[float, Field(ge=50, le=100)] | None = None
    step: Annotated[float, Field(gt=0, le=2**31)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: object) -> object:
        if not isinstance(values, dict) or values.get("range") != "calibrated":
            return values
        left_out = values.get("percentile") in (None, NONE)
        return values | {"percentile": PERCENTILE} if left_out else values

    @model_validator(mode="after")
    def _check(self) -> Self:
        fixed, calibrated = self.range == "fixed", self.range == "calibrated"
        for name, has in (("low", fixed), ("high", fixed), ("percentile", calibrated)):
            value = getattr(self, name)
            if has and value is None:
                raise HardwareError(f"{name}: expected a number with range '{self.range}', found none")
            if not has and value is not None:
                raise HardwareError(f"{name}: expected none with range '{self.range}', found {value:g}")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise HardwareError(f"high: expected more than low ({self.low:g}), found {self.high:g}")
        if calibrated and self.step is not None:
            raise HardwareError(
                f"step: expected none with range 'calibrated', which finds it, found {self.step:g}"
            )
        return self


class Programming(Part):
    """What programming leaves of the conductance G that was meant; N is a standard normal variate for each cell.

    Attributes:
        kind: `none`; `relative`: `G (1 + sigma N)`; `absolute`: `G + sigma N`; `lognormal`: `G exp(sigma N)`.
            What comes of it is clipped to 0..2 L, with L the highest level.
        sigma: Standard deviation, 0 to 16: a share of G (`relative`), levels (`absolute`), or of the natural
            logarithm of G (`lognormal`).
    """

    kind: Literal["none", "relative", "absolute", "lognormal"] = "none"
    sigma: Deviation = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "none" and self.sigma:
            raise HardwareError(f"sigma: expected 0 with kind 'none', found {self.sigma:g}")
        return self


class Stuck(Part):
    """Cells that cannot be programmed.

    Attributes:
        on_rate: Share of cells, 0 to 1, that conduct what the highest level does.
        off_rate: Share of cells, 0 to 1, that conduct what level 0 does. Both rates together are at most 1.
    """

    on_rate: Rate = 0.0
    off_rate: Rate = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.on_rate + self.off_rate > 1:
            raise HardwareError(
                f"off_rate: expected at most 1 together with on_rate ({self.on_rate:g}), found {self.off_rate:g}"
            )
        return self


class Drift(Part):
    """How conductances fall with time: `G(t) = G(t0) (t / t0) ** -exponent`.

    Attributes:
        time_s: t, seconds between programming and use; not before t0.
        reference_time_s: t0, seconds after programming at which cells have their nominal conductance.
        exponent: 0 to 10; 0: no drift.
    """

    time_s: Annotated[float, Field(gt=0, le=1e12)] = 1.0
    reference_time_s: Annotated[float, Field(gt=0, le=1e12)] = 1.0
    exponent: Annotated[float, Field(ge=0, le=10)] = 0.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.time_s < self.reference_time_s:
            raise HardwareError(
                f"time_s: expected at least reference_time_s ({self.reference_time_s:g}), found {self.time_s:g}"
            )
        return self

    @property
    def happens(self) -> bool:
        """Whether conductances change."""
        return self.exponent > 0 and self.time_s > self.reference_time_s


class Cell(Part):
    """What a cell conducts.

    Attributes:
        fraction_bits: F, 0 to 10: effective conductances are whole multiples of `2**-F` of a level. Effects smaller
            than half of that vanish (`remarks` says which).
        on_off_ratio: Conductance of the highest level over that of level 0, more than 1; None: infinite, level 0
            conducts nothing. With the highest level L, level l conducts `L / ratio + l (1 - 1 / ratio)` levels.
        programming: Error made when the array is programmed.
        stuck: Cells that cannot be programmed.
        drift: Change between programming and use.
    """

    fraction_bits: Annotated[int, Field(ge=0, le=10)] = 8
    on_off_ratio: Annotated[float, Field(gt=1, le=1e12)] | None = None
    programming: Programming = Programming()
    stuck: Stuck = Stuck()
    drift: Drift = Drift()


class Wires(Part):
    """Resistance of the lines; none in both directions: no IR drop.

    Attributes:
        row_ohm: Ohms of a segment of a word line, between two neighbouring cells.
        column_ohm: Ohms of a segment of a bit line, between two neighbouring cells.
        on_ohm: Ohms of a cell at the highest level; needed where a line has resistance.
    """

    row_ohm: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    column_ohm: Annotated[float, Field(ge=0, le=1e9)] = 0.0
    on_ohm: Annotated[float, Field(gt=0, le=1e15)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.resistive and self.on_ohm is None:
            raise HardwareError(
                "on_ohm: expected the ohms of a cell, since wires have resistance, found none"
            )
        return self

    @property
    def resistive(self) -> bool:
        """Whether there is an IR drop."""
        return self.row_ohm > 0 or self.column_ohm > 0


class Read(Part):
    """Noise of a cell, drawn anew at each read; of both kinds the variances add.

    Attributes:
        noise: Standard deviation in levels, 0 to 16, the same for every conductance.
        noise_relative: Standard deviation as a share of the cell's conductance, 0 to 16.
    """

    noise: Deviation = 0.0
    noise_relative: Deviation = 0.0


class _Sourced(Part):
    """Figures that say where they are from.

    Attributes:
        source: A paper, or "made up for tests"; needed where there is a figure.
    """

    source: Line = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.known and not self.source.strip():
            raise HardwareError("source: expected where the figures are from, found nothing")
        return self

    @property
    def known(self) -> bool:
        """Whether there is any figure."""
        return any(getattr(self, name) is not None for name in type(self).model_fields if name != "source")


class Energy(_Sourced):
    """Energy of one event, each None where it is not known.

    Attributes:
        source: A paper, or "made up for tests"; needed where there is a figure.
        adc_pj: Picojoules of an ADC conversion.
        dac_pj: Picojoules of driving one row for one pass.
        cell_fj: Femtojoules of reading one cell for one pass.
        digital_pj: Picojoules of one shift-and-add of an ADC code.
    """

    adc_pj: Figure | None = None
    dac_pj: Figure | None = None
    cell_fj: Figure | None = None
    digital_pj: Figure | None = None


class Area(_Sourced):
    """Area of one component, each None where it is not known.

    Attributes:
        source: A paper, or "made up for tests"; needed where there is a figure.
        adc_um2: Square micrometres of an ADC.
        cell_um2: Square micrometres of a cell.
        dac_um2: Square micrometres of the DAC of one row.
    """

    adc_um2: Figure | None = None
    cell_um2: Figure | None = None
    dac_um2: Figure | None = None
