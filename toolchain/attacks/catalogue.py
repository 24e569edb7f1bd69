"""The attacks by name, for the command line and for settings files; those of installed packages too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ...errors import RecipeError
from ..extensions import ATTACK_GROUP, extension_names, load_extension
from .adaptive import AdaptivePGD
from .autoattack import APGDCE, APGDT, FABT
from .base import Attack
from .bim import BIM
from .carlini_wagner import CarliniWagnerL2
from .fgsm import FGSM
from .hop_skip_jump import HopSkipJump
from .mim import MIM
from .noise import GaussianNoise, UniformNoise
from .pgd import PGD
from .spsa import SPSA
from .square import Square

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ATTACKS", "make_attack"]

_OWN: dict[str, type[Attack]] = {
    kind.name: kind
    for kind in (
        UniformNoise,
        GaussianNoise,
        FGSM,
        BIM,
        PGD,
        MIM,
        CarliniWagnerL2,
        APGDCE,
        APGDT,
        FABT,
        AdaptivePGD,
        Square,
        SPSA,
        HopSkipJump,
    )
}


class _Catalogue(Mapping[str, type[Any]]):
    """Ohmfold's own attacks, and then those of installed packages, which are looked for when they are asked for."""

    def __getitem__(self, name: str) -> type[Any]:
        if name in _OWN:
            return _OWN[name]
        found = load_extension(ATTACK_GROUP, name, _OWN, Attack)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        yield from _OWN
        yield from extension_names(ATTACK_GROUP, _OWN)

    def __len__(self) -> int:
        return len(_OWN) + len(extension_names(ATTACK_GROUP, _OWN))


ATTACKS: Mapping[str, type[Any]] = _Catalogue()
"""Every attack's class, by its name: noise, those that follow a gradient, those that query the judge, and those that
installed packages declare (see `toolchain.extensions`)."""


def make_attack(name: str, /, **settings: Any) -> Attack:
    """Return the attack called `name` with these settings, the rest at their defaults.

    Raises:
        RecipeError: The name or a setting is unknown, or a setting is out of range.
    """
    if name not in ATTACKS:
        raise RecipeError(f"unknown attack {name!r}; expected one of {', '.join(ATTACKS)}")
    known = [field.name for field in fields(ATTACKS[name])]
    for setting in settings:
        if setting not in known:
            raise RecipeError(f"{name}: unknown setting {setting!r}; it has {', '.join(known) or 'none'}")
    attack: Attack = ATTACKS[name](**settings)
    return attack
