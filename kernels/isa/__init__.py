"""Instruction sets: one file each, behind the interface of `base`; chosen once, from Numba's own target.

`OHMFOLD_ISA` (amx, vnni, avx2, portable) asks for another one than the best. What Numba would not generate
code for is refused: an instruction that the processor lacks would not raise, it would end the process.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from numba.core.registry import cpu_target

from ...errors import MissingDependencyError, OhmfoldError
from .amx import Amx, TileInstructions, TileModel, permit_tiles
from .avx2 import Avx2
from .portable import Portable
from .vnni import Vnni

if TYPE_CHECKING:
    from .base import InstructionSet

__all__ = ["BY_NAME", "MODELS", "NAMES", "VARIABLE", "available", "chosen", "find"]

VARIABLE = "OHMFOLD_ISA"

# Fastest first.
_ALL: tuple[InstructionSet, ...] = (
    Amx("amx", TileInstructions(), ("amx-tile", "amx-int8")),
    Vnni(),
    Avx2(),
    Portable(),
)

# The AMX kernel on a model of the tile instructions: slow, for tests on processors without them.
MODELS: tuple[InstructionSet, ...] = (Amx("amx-model", TileModel(), ()),)

BY_NAME = {isa.name: isa for isa in (*_ALL, *MODELS)}
NAMES = tuple(isa.name for isa in _ALL)


@cache
def _target_features() -> frozenset[str]:
    """Features that Numba generates code for."""
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return frozenset(name[1:] for name in features.split(",") if name.startswith("+"))


@cache
def _runs(name: str) -> bool:
    isa = BY_NAME[name]
    if not set(isa.features) <= _target_features():
        return False
    return name != "amx" or permit_tiles()


def available() -> tuple[str, ...]:
    """Names of the instruction sets that this process can use, fastest first."""
    return tuple(name for name in NAMES if _runs(name))


def find(name: str) -> InstructionSet:
    """The instruction set of a name.

    Raises:
        OhmfoldError: There is none of that name.
        MissingDependencyError: This machine, or the target that Numba compiles for, does not have it.
    """
    if name not in BY_NAME:
        raise OhmfoldError(
            f"found the instruction set {name!r}; {VARIABLE} and --isa take {', '.join(NAMES)}"
        )
    if not _runs(name):
        missing = sorted(set(BY_NAME[name].features) - _target_features())
        reason = f"its target lacks {', '.join(missing)}" if missing else "the system refuses tile state"
        raise MissingDependencyError(
            f"the instruction set {name!r} cannot be used here: {reason}; this machine has {', '.join(available())}"
        )
    return BY_NAME[name]


@cache
def _best() -> str:
    return available()[0]


def chosen() -> InstructionSet:
    """The instruction set that `OHMFOLD_ISA` names, or the best that there is.

    Raises:
        OhmfoldError, MissingDependencyError: See `find`.
    """
    return find(os.environ.get(VARIABLE) or _best())
