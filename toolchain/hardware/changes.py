"""Changes to a profile: checked by path, written as `FIELD=VALUE`, and what a change leaves behind."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from ...errors import HardwareError
from .base import NONE, Part, leaves, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["check_paths", "left_behind", "parse_changes"]

_OF_THE_OLD_RANGE = ("adc.low", "adc.high", "adc.percentile", "adc.step")


def check_paths(changes: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a path that is not one of the known fields.

    Raises:
        HardwareError: Names the fields of the group that was meant, or the nearest field.
    """
    paths = list(known)
    for path in changes:
        if path in paths:
            continue
        inside = [name for name in paths if name.startswith(f"{path}.")]
        if inside:
            raise HardwareError(f"{path}: expected one field of this group: {', '.join(inside)}")
        closest = nearest(path, paths)
        hint = f", the nearest is {closest}" if closest else "; `ohmfold hardware show ideal` prints them all"
        raise HardwareError(f"{path}: unknown field{hint}")


def left_behind(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what becomes of the fields that only made sense before the changes.

    Args:
        values: All fields by dotted path, before the changes.
        changes: The new values.
    """
    reset: dict[str, Any] = {}
    if changes.get("adc.range", values["adc.range"]) != values["adc.range"]:
        reset |= dict.fromkeys(_OF_THE_OLD_RANGE)
    if changes.get("cell.programming.kind") == "none":
        reset["cell.programming.sigma"] = 0.0
    return reset


def parse_changes(kind: type[Part], texts: Sequence[str]) -> dict[str, Any]:
    """Read changes written as `FIELD=VALUE`, each value in the type of its field.

    Raises:
        HardwareError: A text has no `=`, its field is unknown, or a field is given twice.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        path, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise HardwareError(f"expected a change like adc.bits=6, found '{text}'")
        check_paths([path], leaves(kind))
        if path in changes:
            raise HardwareError(f"{path}: given twice, as {changes[path]} and as {value}")
        changes[path] = _typed(kind, path, value)
    return changes


def _typed(kind: type[Part], path: str, text: str) -> Any:
    """Return the text as a value of the field; as it is, for the profile to refuse, if it is not one."""
    *groups, name = path.split(".")
    part: Any = kind
    for group in groups:
        part = part.model_fields[group].annotation
    for number in _numbers(part.model_fields[name].annotation):
        try:
            return number(text) if text != NONE else text
        except ValueError:
            return text
    return text


def _numbers(annotation: Any) -> list[type[Any]]:
    """Return the number types among the alternatives of a field's annotation."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [number for choice in get_args(annotation) for number in _numbers(choice)]
    if get_origin(annotation) is Annotated:
        return _numbers(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return []
    return [annotation] if annotation in (int, float) else []
