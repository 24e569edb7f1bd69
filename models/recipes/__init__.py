"""Training methods, one file each: how a batch becomes a loss, and what becomes of the network around a run."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from ...errors import RecipeError
from .adversarial import Adversarial
from .base import Method
from .defensive import Defensive
from .feedback import Feedback
from .hardened import Hardened
from .qat import AdversarialQat, Qat
from .standard import Standard

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["METHODS", "Method", "method_of"]

METHODS: dict[str, type[Method]] = {
    kind.name: kind for kind in (Standard, Adversarial, Feedback, Hardened, Qat, AdversarialQat, Defensive)
}
"""Every method by its name."""

_WORDS = {"true": True, "false": False}


def method_of(name: str, settings: Sequence[str] = ()) -> Method:
    """Return a method by name, with settings written as `FIELD=VALUE`.

    Args:
        name: A key of `METHODS`.
        settings: Such as `epsilon=0.3`; each value is read in the type of its field.

    Raises:
        RecipeError: There is no such method or field, or a value does not fit.
    """
    if name not in METHODS:
        raise RecipeError(f"training method {name!r} is unknown, expected one of {', '.join(METHODS)}")
    kind = METHODS[name]
    types = {field.name: str(field.type) for field in fields(kind)}
    values: dict[str, object] = {}
    for setting in settings:
        field, equals, text = (part.strip() for part in setting.partition("="))
        if not equals or field not in types:
            known = ", ".join(types) or "none: it has no settings"
            raise RecipeError(f"setting {setting!r} of {name}: expected FIELD=VALUE with a field of {known}")
        if field in values:
            raise RecipeError(f"setting {field!r} of {name} is given twice")
        values[field] = _value(text, types[field])
    return kind(**values)


def _value(text: str, kind: str) -> object:
    """Read a value in the type of its field; text that is none is left for the method to refuse."""
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        return text
    return _WORDS.get(text.lower(), text)
