"""A profile in words: what is not ideal about it, and which of its effects its own precision hides."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .parts import Drift
    from .profile import Hardware

__all__ = ["non_idealities", "remarks"]

_KINDS = {
    "relative": "programming error {:g} of the conductance",
    "absolute": "programming error {:g} levels",
    "lognormal": "programming error {:g} lognormal",
}
_MOST_FRACTION_BITS = 10


def non_idealities(hardware: Hardware) -> tuple[str, ...]:
    """Return what is not ideal about cells, wires and reads, each in a few words; the ADC is not among them."""
    return tuple(_non_idealities(hardware))


def _non_idealities(hardware: Hardware) -> Iterator[str]:
    cell, wires, read = hardware.cell, hardware.wires, hardware.read
    if cell.on_off_ratio is not None:
        yield f"on/off ratio {cell.on_off_ratio:g}"
    if cell.programming.sigma:
        yield _KINDS[cell.programming.kind].format(cell.programming.sigma)
    for rate, state in ((cell.stuck.on_rate, "on"), (cell.stuck.off_rate, "off")):
        if rate:
            yield f"{100 * rate:g} % stuck {state}"
    if cell.drift.happens:
        yield f"drift to {100 * _left_after(cell.drift):.3g} % of the conductance"
    if wires.resistive:
        yield f"IR drop ({wires.row_ohm:g} and {wires.column_ohm:g} ohm a segment, {wires.on_ohm:g} ohm a cell)"
    if read.noise:
        yield f"read noise {read.noise:g} levels"
    if read.noise_relative:
        yield f"read noise {read.noise_relative:g} of the conductance"


def remarks(hardware: Hardware) -> tuple[str, ...]:
    """Return the effects that rounding to `cell.fraction_bits` hides: those below half a unit at every level."""
    found = []
    for path, words, effect in _largest_effects(hardware):
        if 0 < effect < hardware.unit / 2:
            enough = next(
                (bits for bits in range(_MOST_FRACTION_BITS + 1) if effect >= 2.0 ** -(bits + 1)), None
            )
            advice = "no width shows it" if enough is None else f"{enough} would show it"
            found.append(
                f"{path}: {words} {effect:.2g} of a level, which vanishes with cell.fraction_bits = "
                f"{hardware.cell.fraction_bits}; {advice}"
            )
    return tuple(found)


def _largest_effects(hardware: Hardware) -> Iterator[tuple[str, str, float]]:
    """Yield field, words, and the largest change of a conductance that it makes, in levels."""
    cell, highest = hardware.cell, hardware.array.highest_level
    if cell.on_off_ratio is not None:
        yield "cell.on_off_ratio", "level 0 conducts", highest / cell.on_off_ratio
    deviation = cell.programming.sigma
    if cell.programming.kind != "absolute":
        deviation *= highest
    yield "cell.programming.sigma", "at the highest level it is", deviation
    yield "cell.drift", "the highest level loses", highest * (1 - _left_after(cell.drift))


def _left_after(drift: Drift) -> float:
    """What drift leaves of a conductance, rounded as this machine rounds powers: for words, not for arithmetic."""
    return float((drift.time_s / drift.reference_time_s) ** -drift.exponent)
