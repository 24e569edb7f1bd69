"""The shipped profiles, and any profile by name or path."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import HardwareError
from .profile import Hardware

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

__all__ = ["load_hardware", "preset_names", "preset_text"]

_SUFFIX = ".toml"


def _folder() -> Traversable:
    return resources.files(__package__) / "presets"


def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped profiles, in alphabetical order."""
    files = (entry.name for entry in _folder().iterdir() if entry.name.endswith(_SUFFIX))
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files))


def preset_text(name: str) -> str:
    """Return the TOML text of a shipped profile, with its comments.

    Raises:
        HardwareError: There is no such preset; names the nearest.
    """
    names = preset_names()
    if name not in names:
        closest = difflib.get_close_matches(name, names, n=1)
        hint = f", the nearest is '{closest[0]}'" if closest else ""
        raise HardwareError(f"no hardware preset '{name}'{hint}; expected one of {', '.join(names)}")
    return (_folder() / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def load_hardware(name_or_path: str | Path) -> Hardware:
    """Return a shipped profile by its name, or the profile in a TOML file by its path.

    A text without a folder and without the suffix `.toml` is a name: `isaac`; anything else is a path: `./isaac`,
    `isaac.toml`. `Hardware.with_changes` overrides fields.

    Raises:
        HardwareError: There is no such preset or file, or a field is wrong; names the file and the field.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, Path) or path.name != name_or_path or path.suffix == _SUFFIX:
        return Hardware.load(path)
    try:
        text = preset_text(name_or_path)
    except HardwareError as error:
        raise HardwareError(f"{error}, or the path of a TOML file (./{path}{_SUFFIX})") from None
    return Hardware.from_toml(text)
