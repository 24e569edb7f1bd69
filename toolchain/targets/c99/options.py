"""The settings of a C library, and its names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ....errors import TargetError

__all__ = ["C99Options"]

_LONGEST_NAME = 31  # what C99 promises to tell apart in names that other files see

# Keywords of C99 and, as the header may be read by it, of C++.
_KEYWORDS = (
    "asm auto bool break case catch char class const constexpr continue default delete do double else enum "
    "explicit export extern false float for friend goto if inline int long mutable namespace new nullptr "
    "operator private protected public register restrict return short signed sizeof static struct switch "
    "template this throw true try typedef typeid typename union unsigned using virtual void volatile wchar_t "
    "while"
)

# A file NAME.h would hide the header of that name.
_HEADERS = (
    "arm_acle assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdarg "
    "stdbool stddef stdint stdio stdlib string tgmath time wchar wctype"
)


@dataclass(frozen=True)
class C99Options:
    """Settings of a C library.

    Attributes:
        name: What its files and names begin with; a C identifier.
        ram: The most bytes that its arena may take.
        rom: The most bytes that its constants and (where a compiler is there to measure it) its code may take.
        weight_bits: "own", the width that a layer's levels need, or 8, a byte for each weight.
        integer_only: Without any floating point, for programs whose multipliers are powers of two.
        vectors: Number of test vectors.
        dsp: Whether the Cortex-M DSP path is chosen in the source; else the macro NAME_USE_DSP chooses it.

    Raises:
        TargetError: One of them makes no sense.
    """

    name: str = "network"
    ram: int | None = None
    rom: int | None = None
    weight_bits: Literal["own", 8] = "own"
    integer_only: bool = False
    vectors: int = 4
    dsp: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        for what in ("ram", "rom"):
            limit = getattr(self, what)
            if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
                raise TargetError(f"{what} = {limit!r}: expected a number of bytes, at least 1")
        if self.weight_bits not in ("own", 8):
            raise TargetError(f"weight_bits = {self.weight_bits!r}: expected 'own' or 8")
        if not isinstance(self.vectors, int) or isinstance(self.vectors, bool) or self.vectors < 1:
            raise TargetError(f"vectors = {self.vectors!r}: expected a whole number, at least 1")


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise TargetError(
            f"name {name!r} is not a C identifier; expected letters, digits and underscores, a letter first"
        )
    if name.lower() in _KEYWORDS.split():
        raise TargetError(f"name {name!r} is a keyword of C or C++; choose another")
    if name.lower() in _HEADERS.split():
        raise TargetError(f"name {name!r} would hide the standard header {name.lower()}.h; choose another")
    if len(name) > _LONGEST_NAME:
        raise TargetError(
            f"name {name!r} has {len(name)} characters; C99 tells names of {_LONGEST_NAME} apart"
        )
