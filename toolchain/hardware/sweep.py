"""`Sweep`: the values that one field of a profile takes in turn, written as `adc.bits=4..8` or `read.noise=0,0.1`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import HardwareError
from .base import NONE
from .changes import parse_changes
from .profile import Hardware

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Sweep", "parse_sweep"]

_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")
_MOST = 1000


@dataclass(frozen=True)
class Sweep:
    """Values of one field, in the order in which they are taken; None for no value.

    Raises:
        HardwareError: There is no value, or one is given twice.
    """

    field: str
    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise HardwareError(f"{self.field}: expected at least one value to sweep, found none")
        for place, value in enumerate(self.values):
            if value in self.values[:place]:
                raise HardwareError(f"{self.field}: the sweep takes {shown(value)} twice, expected it once")

    def profiles(self, hardware: Hardware) -> tuple[Hardware, ...]:
        """Return the profile with each value in turn.

        Raises:
            HardwareError: A value is not one of the field's.
        """
        return tuple(hardware.with_changes({self.field: value}) for value in self.values)


def parse_sweep(text: str) -> Sweep:
    """Read a sweep written as `FIELD=FIRST..LAST`, both whole numbers and both taken, or as `FIELD=VALUE,VALUE`.

    Raises:
        HardwareError: It is not written so, or its field is unknown.
    """
    field, equals, written = (part.strip() for part in text.partition("="))
    if not equals:
        raise HardwareError(
            f"expected a sweep like adc.bits=4..8 or cell.programming.sigma=0,0.05, found '{text}'"
        )
    values = []
    for value in _texts(field, written):
        ((path, typed),) = parse_changes(Hardware, [f"{field}={value}"]).items()
        values.append(None if typed == NONE else typed)
    return Sweep(path, tuple(values))


def shown(value: Any) -> str:
    """Return a value as TOML and the command line spell it."""
    if value is None:
        return NONE
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _texts(field: str, written: str) -> Sequence[str]:
    """Return the values as they are written."""
    ends = _RANGE.fullmatch(written)
    if ends is None:
        return [value.strip() for value in written.split(",")]
    first, last = int(ends[1]), int(ends[2])
    if not first <= last < first + _MOST:
        raise HardwareError(
            f"{field}: expected a range upwards of at most {_MOST} values, like 4..8, found '{written}'"
        )
    return [str(value) for value in range(first, last + 1)]
