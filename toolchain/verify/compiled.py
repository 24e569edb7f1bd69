"""The witnesses that are compiled C: each compiler found, at its optimisation levels, on its own processor."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TargetError, UnsupportedError
from .witness_base import FAST, POW2_ONLY, REFERENCE_PACE, SLOW, Witness

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from ..artifact import Artifact
    from ..targets.c99.harness import Compiler, CProgram
    from ..targets.c99.library import C99Library

__all__ = ["CompiledWitness", "Library", "compiled_witnesses"]

# Of compilers for this machine: what is compiled, and whether it is fast enough for all images.
_NATIVE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("-O0",), REFERENCE_PACE),
    (("-O1",), REFERENCE_PACE),
    (("-O2",), FAST),
    (("-O3",), FAST),
    # With every instruction of this processor: vectors, fused multiply-add if the library let it.
    (("-O3", "-march=native"), FAST),
)
_USUAL = ("-O2",)


class Library:
    """An artifact's C library, generated on first use for all compilers.

    Attributes:
        artifact: What it computes.
        integer_only: Whether it is the form without floating point.
    """

    def __init__(self, artifact: Artifact, *, integer_only: bool = False) -> None:
        self.artifact, self.integer_only = artifact, integer_only

    @cached_property
    def generated(self) -> C99Library:
        """The library.

        Raises:
            UnsupportedError, TargetError: The artifact has no such form.
        """
        from ..targets.c99.library import generate
        from ..targets.c99.options import C99Options

        return generate(self.artifact, C99Options(integer_only=self.integer_only), measure=False)

    @cached_property
    def refusal(self) -> str | None:
        """Why there is none."""
        spec = self.artifact.program.inputs[0]
        if spec.dtype != np.uint8:
            return f"the C library takes uint8 pixels, and the program's input is {spec}"
        try:
            self.generated  # noqa: B018 - asked for its errors
        except (UnsupportedError, TargetError) as error:
            return str(error)
        return None


class CompiledWitness(Witness):
    """The C library under one compiler with some flags.

    Args:
        library: What is compiled.
        compiler: With what; one that this machine may lack.
        flags: The optimisation.
        pace: How many images it runs.
    """

    group = "c99"

    def __init__(
        self, library: Library, compiler: Compiler, flags: Sequence[str] = _USUAL, pace: str = SLOW
    ) -> None:
        self._library, self._compiler, self._flags = library, compiler, tuple(flags)
        self.name = f"c99, {compiler.name} {' '.join(flags)}"
        if library.integer_only:
            self.name += ", no floating point"
            self.promise = POW2_ONLY
        self.pace = pace

    def unavailable(self) -> str | None:
        """A missing compiler, or an artifact without a C form."""
        from ..targets.c99.harness import missing_compilers

        return missing_compilers().get(self._compiler.name) or self._library.refusal

    def run(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Witness`."""
        return self._program.run(images)

    def must_show(self, names: Collection[str]) -> Collection[str]:
        """What the library computes: it never stores some accumulators, and the integer form has no logits."""
        library = self._library.generated
        shown = {*library.traced, library.program.logits if library.logits else library.program.codes}
        return [name for name in names if name in shown]

    def close(self) -> None:
        """Remove what was compiled."""
        if "_program" in self.__dict__:
            self._program.__exit__()
            del self._program

    @cached_property
    def _program(self) -> CProgram:
        from ..targets.c99.harness import CProgram

        return CProgram(self._library.generated, self._compiler, self._flags)


def compiled_witnesses(artifact: Artifact) -> tuple[Witness, ...]:
    """A witness for each compiler that is known, here or not, and each way of compiling."""
    from ..targets.c99.harness import COMPILERS

    library, integers = Library(artifact), Library(artifact, integer_only=True)
    found: list[Witness] = []
    for compiler in COMPILERS:
        plain = compiler.native and not any(flag.startswith("-fsanitize") for flag in compiler.flags)
        ways = _NATIVE if plain else ((_USUAL, SLOW),)
        found += [CompiledWitness(library, compiler, flags, pace) for flags, pace in ways]
    for compiler in COMPILERS:
        if compiler.name in ("gcc", "cortex-m3"):  # this processor, and one without floating point
            found.append(CompiledWitness(integers, compiler, _USUAL, FAST if compiler.native else SLOW))
    return tuple(found)
