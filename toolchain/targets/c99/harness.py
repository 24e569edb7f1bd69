"""Builds a C library with a compiler, runs images through it, and hands back every integer that it computes."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ....errors import DataError, TargetError
from .compilers import (
    COMPILERS,
    STRICT,
    Compiler,
    available_compilers,
    find_compiler,
    missing_compilers,
)
from .library import C99Library, generate, render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ...program import Program
    from ...source import HasProgram
    from .options import C99Options

__all__ = [
    "COMPILERS",
    "STRICT",
    "CProgram",
    "Compiler",
    "available_compilers",
    "build",
    "find_compiler",
    "missing_compilers",
    "run_c",
    "write_sources",
]

_SECONDS = 3600
_BOARD_RAM = {"mps2-an500": "0x60000000"}
_USUAL_BOARD_RAM = "0x21000000"


def write_sources(library: C99Library, folder: Path) -> None:
    """Write a library's files."""
    for name, content in library.files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)


def build(
    library: C99Library,
    compiler: Compiler,
    folder: Path,
    main: str,
    flags: Sequence[str] = ("-O2",),
) -> Path:
    """Build a program of a library's sources, strictly.

    Args:
        library: Its files must lie in `folder`.
        compiler: What builds it.
        folder: Where it is built.
        main: Name of the C file with the program's `main`.
        flags: The optimisation, macros.

    Returns:
        The program.

    Raises:
        TargetError: The compiler refuses it; with what it says.
    """
    program = folder / f"{Path(main).stem}.{compiler.name}"
    sources = [f"{library.name}.c", f"{library.name}_weights.c", main]
    defines = [f"-D{define.format(NAME=library.name.upper())}" for define in compiler.defines]
    arguments = [compiler.command, *STRICT, *compiler.flags, *flags, *defines, *sources, "-o", str(program)]
    if compiler.board:
        arguments += _bare_metal(compiler, folder)
    done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"{compiler.name} cannot build {library.name}: {done.stderr.strip()[:2000]}")
    return program


def _bare_metal(compiler: Compiler, folder: Path) -> list[str]:
    """The start of an image, and where its parts lie."""
    (folder / "cortex_m.c").write_text(render("cortex_m.c", {}), encoding="ascii")
    origin = _BOARD_RAM.get(compiler.board, _USUAL_BOARD_RAM)
    (folder / "mps2.ld").write_text(render("mps2.ld", {"ram_origin": origin}), encoding="ascii")
    return ["cortex_m.c", "--specs=rdimon.specs", "-nostartfiles", "-Wl,--gc-sections", "-T", "mps2.ld"]


class CProgram:
    """A traced build of a library, ready to run; use it in a `with` statement.

    Args:
        library: What to build.
        compiler: What builds it.
        flags: The optimisation, and further flags.

    Raises:
        TargetError: The compiler refuses it.
    """

    def __init__(self, library: C99Library, compiler: Compiler, flags: Sequence[str] = ("-O2",)) -> None:
        self.library = library
        self.compiler = compiler
        self._temporary = tempfile.TemporaryDirectory(prefix="ohmfold-c99-")
        self._folder = Path(self._temporary.name)
        sizes = [size for size, _ in library.trace_bytes]
        self._offsets = list(itertools.accumulate(sizes, initial=0))
        self._record = self._offsets[-1] + 4 * (library.logits or library.codes)
        try:
            write_sources(library, self._folder)
            runner = render(
                "runner.c",
                {
                    "name": library.name,
                    "offsets": self._offsets,
                    "record": self._record,
                    "pixels": library.pixels,
                    "logits": library.logits,
                    "codes": library.codes,
                },
            )
            (self._folder / "runner.c").write_text(runner, encoding="ascii")
            trace = f"-D{library.name.upper()}_TRACE"
            self._program = build(library, compiler, self._folder, "runner.c", (*flags, trace))
        except BaseException:
            self._temporary.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def run(self, images: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Every integer tensor that the program computes, and the logits.

        Args:
            images: uint8 pixels `(N, ...)` of the program's input.

        Returns:
            By the tensor's name: uint8, int8 or int32 `(N, ...)`; and the float32 logits, where the library has them.

        Raises:
            DataError: The images do not fit.
            TargetError: The program fails.
        """
        if images.dtype != np.uint8 or images[:1].size != self.library.pixels * len(images[:1]):
            raise DataError(
                f"images: found {images.dtype}{images.shape}, expected uint8 pixels, {self.library.pixels} of each"
            )
        (self._folder / "images.bin").write_bytes(np.ascontiguousarray(images).tobytes())
        command = [*self.compiler.runner, str(self._program)]
        done = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, check=False, timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise TargetError(
                f"the program of {self.compiler.name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
            )
        data = np.fromfile(self._folder / "trace.bin", np.uint8)
        if data.size != len(images) * self._record:
            raise TargetError(
                f"the program of {self.compiler.name} wrote {data.size} bytes, expected {len(images) * self._record}"
            )
        return self._tensors(data.reshape(len(images), self._record))

    def _tensors(self, records: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name, traced in self.library.traced.items():
            start = self._offsets[traced.number]
            size, each = self.library.trace_bytes[traced.number]
            stored = records[:, start : start + size]
            if each > 1:
                words: NDArray[np.int32] = (
                    np.ascontiguousarray(stored).view("<i4").astype(np.int32, copy=False)
                )
                found[name] = words[:, traced.index]
            elif traced.dtype == np.int8:
                found[name] = (stored[:, traced.index].astype(np.int16) - 128).astype(np.int8)
            else:
                found[name] = stored[:, traced.index]
        ends = np.ascontiguousarray(records[:, self._offsets[-1] :]).view("<u4").astype(np.uint32, copy=False)
        program = self.library.program
        name = (program.logits if self.library.logits else program.codes) or ""
        shape = tuple(int(size or 0) for size in (program.tensors[name].shape or ())[1:])
        if self.library.logits:
            found[name] = ends.view(np.float32).reshape(len(records), *shape)
        elif name not in found:
            found[name] = ends.view(np.int32).reshape(len(records), *shape)
        return found


def run_c(
    source: C99Library | HasProgram | Program,
    images: NDArray[np.uint8],
    compiler: Compiler | str = "gcc",
    optimisation: str = "-O2",
    options: C99Options | None = None,
) -> dict[str, NDArray[Any]]:
    """Build a library as a trace build and run images through it.

    Args:
        source: A library, or what to generate one of.
        images: uint8 pixels `(N, ...)`.
        compiler: One of `COMPILERS`, or its name.
        optimisation: Flags, separated by spaces.
        options: The settings, where `source` is no library yet.

    Returns:
        As `CProgram.run`.

    Raises:
        UnsupportedError: A layer has no C form.
        MissingDependencyError: The compiler is not here.
        TargetError: The build or the program fails.
        DataError: The images do not fit.
    """
    found = find_compiler(compiler) if isinstance(compiler, str) else compiler
    library = source if isinstance(source, C99Library) else generate(source, options, measure=False)
    with CProgram(library, found, tuple(optimisation.split())) as program:
        return program.run(images)
