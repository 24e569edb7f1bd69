"""Attacks and targets of other packages, found by the entry points that they declare.

A package names its classes in its own pyproject.toml, and every process that has it installed knows them: the command
line, a suite file, a worker of a cluster. Nothing is registered at run time.

    [project.entry-points."ohmfold.attacks"]
    salt = "my_package.salt:Salt"
"""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from ..errors import OhmfoldError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["ATTACK_GROUP", "TARGET_GROUP", "extension_names", "load_extension"]

ATTACK_GROUP = "ohmfold.attacks"
TARGET_GROUP = "ohmfold.targets"


def extension_names(group: str, own: Collection[str]) -> tuple[str, ...]:
    """Return the names that installed packages add to ohmfold's own, in alphabetical order.

    Args:
        group: `ATTACK_GROUP` or `TARGET_GROUP`.
        own: The names that are taken.

    Raises:
        OhmfoldError: Two packages declare a name, or one declares a name of ohmfold's own.
    """
    return tuple(sorted(_declared(group, own)))


def load_extension(group: str, name: str, own: Collection[str], base: type[Any]) -> type[Any] | None:
    """Import the class that an installed package declares under a name; None where there is none.

    Args:
        group: `ATTACK_GROUP` or `TARGET_GROUP`.
        name: Of the entry point; the class's `name` must be the same.
        own: The names that are taken.
        base: What the class must derive from.

    Raises:
        OhmfoldError: The class cannot be imported, is of another kind or has another name; see `extension_names`.
    """
    entry = _declared(group, own).get(name)
    if entry is None:
        return None
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise OhmfoldError(
            f"{_whose(entry)}: cannot import '{entry.value}', its {group} '{name}': {error}"
        ) from error
    if not isinstance(kind, type) or not issubclass(kind, base):
        raise OhmfoldError(
            f"{_whose(entry)}: '{entry.value}', its {group} '{name}', is no class that derives from "
            f"{base.__module__}.{base.__name__}"
        )
    called = getattr(kind, "name", None)
    if called != name:
        raise OhmfoldError(
            f"{_whose(entry)}: '{entry.value}' has the name {called!r}, its entry point in {group} is called "
            f"'{name}'; they must be the same"
        )
    return kind


def _declared(group: str, own: Collection[str]) -> dict[str, metadata.EntryPoint]:
    found: dict[str, metadata.EntryPoint] = {}
    for entry in metadata.entry_points(group=group):
        if entry.name in own:
            raise OhmfoldError(
                f"{_whose(entry)} declares '{entry.name}' in {group}, which ohmfold itself has; rename it there"
            )
        other = found.get(entry.name)
        if other is not None and (other.value != entry.value or _whose(other) != _whose(entry)):
            raise OhmfoldError(
                f"{_whose(other)} and {_whose(entry)} both declare '{entry.name}' in {group}; uninstall one of them"
            )
        found[entry.name] = entry
    return found


def _whose(entry: metadata.EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist is not None else "an installed package"
