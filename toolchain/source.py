"""What can be run: a program, an artifact, or the path of one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..errors import DataError
from .program import Program

__all__ = ["HasProgram", "program_of"]


class HasProgram(Protocol):
    """Anything that carries a program: an artifact."""

    @property
    def program(self) -> Program:
        """The program it carries."""


def program_of(source: Program | HasProgram | str | Path) -> Program:
    """Return the program itself, that of an artifact, or that of the artifact in a file.

    Raises:
        ModelError: The file cannot be read as an artifact.
        UnsupportedError: The model holds what cannot be run exactly.
        DataError: `source` is none of these.
    """
    if isinstance(source, str | Path):
        from .artifact import Artifact

        return Artifact.load(source).program
    program = source if isinstance(source, Program) else getattr(source, "program", None)
    if not isinstance(program, Program):
        raise DataError(
            f"found a {type(source).__name__}, expected an artifact, a program or the path of one"
        )
    return program
