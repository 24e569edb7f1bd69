"""`c99`: a self-contained C library (see `targets.c99`)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from .base import Built, Material, Options, Target
from .c99 import C99Options, generate

if TYPE_CHECKING:
    from ..artifact import Artifact
    from .c99 import SizeReport

__all__ = ["C99Target", "C99TargetOptions"]

Bytes = Annotated[int, Field(ge=1)]


class C99TargetOptions(Options):
    """Settings of a C library.

    Attributes:
        name: What its files and functions are named after; a C identifier.
        ram: The most bytes of the arena.
        rom: The most bytes of constants and code.
        integer_only: Without any floating point, for artifacts whose scales are powers of two.
        vectors: Number of test vectors.
    """

    name: str = "network"
    ram: Bytes | None = None
    rom: Bytes | None = None
    integer_only: bool = False
    vectors: Annotated[int, Field(ge=1, le=10_000)] = 4

    def library(self) -> C99Options:
        """The generator's own form of them.

        Raises:
            TargetError: The name cannot be one of a C library.
        """
        return C99Options(**self.model_dump())


class C99Target(Target[C99TargetOptions]):
    """C source, test vectors, build files."""

    name: ClassVar[str] = "c99"
    description: ClassVar[str] = "a self-contained C99 library with test vectors, for microcontrollers"
    options = C99TargetOptions

    def check(self, artifact: Artifact, options: C99TargetOptions) -> None:
        """Refuse what cannot be read, and a name that no C library can have."""
        options.library()
        _ = artifact.program

    def build(self, artifact: Artifact, options: C99TargetOptions, material: Material | None = None) -> Built:
        """Generate the library."""
        self.check(artifact, options)
        images = None if material is None else material.images
        library = generate(artifact, options.library(), images)
        files = {
            name: text if isinstance(text, bytes) else text.encode() for name, text in library.files.items()
        }
        size = library.size
        summary = {"size": asdict(size) | {"rom": size.rom, "bytes_per_weight": size.bytes_per_weight}}
        return Built(files, summary, (_sizes(size), *library.notes))


def _sizes(size: SizeReport) -> str:
    code = (
        f"not known ({size.code_compiler})" if size.code is None else f"{size.code:,} ({size.code_compiler})"
    )
    return (
        f"ROM {size.rom:,} bytes: weights {size.weights:,}, biases and multipliers {size.parameters:,}, tables "
        f"{size.tables:,}, code {code}; RAM {size.ram:,} bytes; {size.products:,} multiply-accumulates an image, about "
        f"{size.cycles:,} cycles of a Cortex-M4"
    )
