"""`Part`: what every group of a hardware profile shares: strict types, no unknown fields, errors that name a path."""

from __future__ import annotations

import difflib
import reprlib
from typing import TYPE_CHECKING, Any, TypeGuard, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from ...errors import HardwareError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["NONE", "Part", "flatten", "leaves", "nearest", "nest"]

NONE = "none"
"""How TOML and the command line spell a field without a value, for TOML has no null."""

_LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_FOUND = reprlib.Repr()
_FOUND.maxstring = _FOUND.maxother = 60


class Part(BaseModel):
    """A frozen group of fields; whatever is wrong with one is a `HardwareError` of one line.

    The text `"none"` stands for None wherever a field may have no value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise HardwareError(_one_line(error, type(self))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _build(cls, value: Any, info: ValidationInfo) -> Any:
        """Read `"none"`, and build a nested group from its table, so that its errors name the whole path."""
        name = str(info.field_name)
        kind = cls.model_fields[name].annotation
        if value == NONE and type(None) in get_args(kind):
            return None
        if not (_is_part(kind) and isinstance(value, dict)):
            return value
        try:
            return kind(**value)
        except HardwareError as error:
            raise HardwareError(f"{name}.{error}") from None


def _is_part(kind: Any) -> TypeGuard[type[Part]]:
    return isinstance(kind, type) and issubclass(kind, Part)


def _one_line(error: ValidationError, kind: type[Part]) -> str:
    """Return the first fault of a group, and how many more it has."""
    first, *rest = error.errors()
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown field{_hint(where, kind)}{more}"
    if first["type"] == "missing":
        return f"{where}: missing, expected a value{more}"
    return f"{where}: expected {_expected(first)}, found {_FOUND.repr(first['input'])}{more}"


def _expected(fault: Mapping[str, Any]) -> str:
    if fault["type"] in _LIMITS:
        name, words = _LIMITS[fault["type"]]
        return f"{words} {fault['ctx'][name]:.12g}"
    if fault["type"] == "model_type":
        return "a table of fields"
    return str(fault["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")


def _hint(name: str, kind: type[Part]) -> str:
    found = nearest(name, [*kind.model_fields, *leaves(kind)])
    return f", the nearest there is {found}" if found else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known paths most like `name`, quoted; a name without a dot is compared with their last parts."""
    paths = list(known)
    ends: dict[str, list[str]] = {}
    for path in paths:
        ends.setdefault(path.rpartition(".")[2], []).append(path)
    if "." in name and (close := difflib.get_close_matches(name, paths, n=1)):
        return f"'{close[0]}'"
    close = difflib.get_close_matches(name.rpartition(".")[2], ends, n=1)
    return " or ".join(f"'{path}'" for end in close for path in ends[end])


def leaves(kind: type[Part]) -> Iterator[str]:
    """Yield the dotted paths of all fields that hold values, in the order of the profile."""
    for name, field in kind.model_fields.items():
        if _is_part(field.annotation):
            yield from (f"{name}.{path}" for path in leaves(field.annotation))
        else:
            yield name


def flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables as one table of dotted paths."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{path}": item for path, item in flatten(value).items()}
        else:
            flat[name] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `flatten`."""
    values: dict[str, Any] = {}
    for path, value in flat.items():
        *groups, name = path.split(".")
        table = values
        for group in groups:
            table = table.setdefault(group, {})
        table[name] = value
    return values
