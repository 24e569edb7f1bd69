"""C code under construction: names of constants, pointers into the arena, structs."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ....errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from . import steps as s
    from .plan import Plan

__all__ = ["Constant", "Program", "braces", "float_literal", "wrapped"]

Purpose = Literal["weights", "tables", "parameters"]


@dataclass(frozen=True, eq=False)
class Constant:
    """An array in ROM.

    Attributes:
        name: Its C name.
        values: int8, uint8, uint16, int32 or float32.
        purpose: weights, tables, or parameters (biases and multipliers).
    """

    name: str
    values: NDArray[Any]
    purpose: Purpose


@dataclass(eq=False)
class Program:
    """C code under construction.

    Attributes:
        name: What the library's names begin with.
        plan: What it does.
        integer_only: Whether multipliers are shifts.
        constants: The arrays in ROM.
        definitions: Constant structs, in the order in which they are needed.
        calls: Statements that run the steps.
        logits_call: The statement that makes the logits.
        kernels: Names of the C functions that are used.
        widths: Widths of packed weights.
        traced: The number under which a trace build hands out each buffer.
    """

    name: str
    plan: Plan
    integer_only: bool
    constants: list[Constant] = field(default_factory=list)
    definitions: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    logits_call: str = ""
    kernels: set[str] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)
    traced: dict[int, int] = field(default_factory=dict)
    at: int = 0

    def constant(self, what: str, values: NDArray[Any] | None, purpose: Purpose) -> str:
        """The name of an array in ROM; `NULL` for none. Arrays of equal content are kept once."""
        if values is None:
            return "NULL"
        for known in self.constants:
            if known.values.dtype == values.dtype and np.array_equal(_bits(known.values), _bits(values)):
                return known.name
        name = f"{self.name}_{what}_{self.at}_{len(self.constants)}"
        self.constants.append(Constant(name, values, purpose))
        return name

    def codes(self, place: s.Place) -> str:
        """A pointer to codes."""
        if self.plan.buffers[place.buffer].home == "pixels":
            return f"pixels + {place.first}" if place.first else "pixels"
        return f"CODES({self.plan.offsets[place.buffer] + place.first})"

    def words(self, place: s.Place) -> str:
        """A pointer to words."""
        return f"WORDS({self.plan.offsets[place.buffer] + 4 * place.first})"

    @property
    def scratch(self) -> str:
        """A pointer to the step's scratch, as a last argument where functions take one."""
        if not self.widths:
            return ""
        needed = self.plan.steps[self.at].scratch
        return f", SCRATCH({self.plan.scratch[self.at]})" if needed else ", NULL"

    def struct(self, kind: str, fields: dict[str, str]) -> str:
        """Define a constant struct of a step; returns its name."""
        name = f"step_{self.at}"
        self.definitions.append(wrapped(f"static const {kind} {name} = {braces(fields)};") + "\n")
        return name


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """Floats by their bits: 0 and -0 are not the same constant."""
    return values.view(np.int32) if values.dtype == np.float32 else values


def wrapped(text: str, indent: str = "") -> str:
    """Code in lines of at most 118 characters, broken at spaces."""
    return textwrap.fill(
        text, 118, initial_indent=indent, subsequent_indent=indent + "    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def braces(fields: dict[str, str]) -> str:
    """An initialiser that names its fields."""
    return "{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}"


def float_literal(value: Any) -> str:
    """A float32 as a C99 literal of the same bits."""
    number = float(value)
    if not math.isfinite(number):
        raise UnsupportedError(f"the constant {number} is not finite")
    return f"{number.hex()}f"
