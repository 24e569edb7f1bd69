"""Checks of attacks' settings."""

from __future__ import annotations

import math

from ...errors import RecipeError

__all__ = ["check_count", "check_positive"]


def check_count(attack: str, setting: str, value: object, *, low: int = 1) -> None:
    """Refuse what is no integer of at least `low`.

    Raises:
        RecipeError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise RecipeError(f"{attack}: {setting} is {value!r}; expected an integer of at least {low}")


def check_positive(
    attack: str, setting: str, value: object, what: str = "number", *, zero: bool = False
) -> None:
    """Refuse what is no finite number above 0 (or, with `zero`, from 0 on).

    Raises:
        RecipeError: It is none.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (value >= 0 if zero else value > 0):  # type: ignore[operator]
        expected = f"a {what} from 0 on" if zero else f"a positive {what}"
        raise RecipeError(f"{attack}: {setting} is {value!r}; expected {expected}")
