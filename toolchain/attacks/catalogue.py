"""The attacks by name, for the command line and for settings files."""

from __future__ import annotations

from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...errors import RecipeError
from .adaptive import AdaptivePGD
from .autoattack import APGDCE, APGDT, FABT
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
    from collections.abc import Mapping

    from .base import Attack

__all__ = ["ATTACKS", "make_attack"]

ATTACKS: Mapping[str, type[Any]] = MappingProxyType(
    {
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
)
"""Every attack's class, by its name: noise, those that follow a gradient, those that query the judge."""


def make_attack(name: str, **settings: Any) -> Attack:
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
