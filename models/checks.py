"""Checks that the settings of trainings share: each names the setting, what was found and what was expected."""

from __future__ import annotations

import math

from ..errors import RecipeError

__all__ = ["require_flag", "require_integer", "require_number", "require_one_of"]


def require_integer(name: str, value: object, least: int) -> None:
    """Refuse what is not an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise RecipeError(f"{name} is {value!r}, expected an integer of at least {least}")


def require_number(
    name: str, value: object, least: float, *, inclusive: bool = True, below: float = math.inf
) -> None:
    """Refuse what is not a finite number of at least (or above) `least` and below `below`."""
    fits = (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (value > least or (inclusive and value == least))
        and value < below
    )
    if not fits:
        bound = f"{'at least' if inclusive else 'above'} {least:g}"
        upper = "" if math.isinf(below) else f" and below {below:g}"
        raise RecipeError(f"{name} is {value!r}, expected a finite number {bound}{upper}")


def require_one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Refuse what is not one of the words."""
    if value not in allowed:
        raise RecipeError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")


def require_flag(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise RecipeError(f"{name} is {value!r}, expected True or False")
