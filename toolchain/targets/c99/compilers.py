"""The C compilers that this machine has, and what runs the programs of those that compile for another processor."""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMPILERS", "STRICT", "Compiler", "available_compilers", "find_compiler", "missing_compilers"]

STRICT = (
    "-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror", "-ffp-contract=off",
)  # fmt: skip
"""What every file of a library builds under."""

_SANITISERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
_FLOATING_POINT = ("-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")
_BARE_METAL = ("-mthumb", "-ffunction-sections", "-fdata-sections")


@dataclass(frozen=True)
class Compiler:
    """A compiler with its flags, and how its programs run.

    Attributes:
        name: Unique.
        command: The compiler's executable.
        flags: Beside those of every build.
        runner: What the program's path is appended to; empty where it runs by itself.
        packages: Debian packages that bring the compiler and its runner.
        board: The MPS2 board of a bare-metal image, "" for a program of an operating system.
        defines: Macros without `-D`; `{NAME}` stands for the library's name in capitals.
    """

    name: str
    command: str
    flags: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    board: str = ""
    defines: tuple[str, ...] = field(default=())

    @property
    def native(self) -> bool:
        """Whether its programs run on this machine's processor."""
        return not self.runner


def _cortex(name: str, board: str, flags: tuple[str, ...], defines: tuple[str, ...] = ()) -> Compiler:
    return Compiler(
        name,
        "arm-none-eabi-gcc",
        (*flags, *_BARE_METAL),
        ("qemu-system-arm", "-M", board, "-nographic", "-monitor", "none", "-serial", "none",
         "-semihosting-config", "enable=on,target=native", "-kernel"),
        ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "qemu-system-arm"),
        board,
        defines,
    )  # fmt: skip


COMPILERS: tuple[Compiler, ...] = (
    Compiler("gcc", "gcc", packages=("gcc",)),
    Compiler("clang", "clang", packages=("clang",)),
    Compiler("gcc-sanitised", "gcc", _SANITISERS, packages=("gcc",)),
    Compiler("clang-sanitised", "clang", _SANITISERS, packages=("clang", "libclang-rt-dev")),
    Compiler(
        "s390x", "s390x-linux-gnu-gcc", ("-static",), ("qemu-s390x",),
        ("gcc-s390x-linux-gnu", "libc6-dev-s390x-cross", "qemu-user"),
    ),
    Compiler(
        "riscv64", "riscv64-linux-gnu-gcc", ("-static",), ("qemu-riscv64",),
        ("gcc-riscv64-linux-gnu", "libc6-dev-riscv64-cross", "qemu-user"),
    ),
    _cortex("cortex-m3", "mps2-an385", ("-mcpu=cortex-m3",)),
    _cortex("cortex-m4", "mps2-an386", ("-mcpu=cortex-m4", *_FLOATING_POINT)),
    _cortex("cortex-m4-dsp", "mps2-an386", ("-mcpu=cortex-m4", *_FLOATING_POINT), ("{NAME}_USE_DSP",)),
    _cortex("cortex-m7-dsp", "mps2-an500", ("-mcpu=cortex-m7", *_FLOATING_POINT), ("{NAME}_USE_DSP",)),
)  # fmt: skip
"""Every compiler that is known, the native ones first. `s390x` is big-endian; `cortex-m3` has no floating point."""


@functools.cache
def _why_missing(compiler: Compiler) -> str | None:
    needed = [compiler.command, *compiler.runner[:1]]
    absent = [command for command in needed if shutil.which(command) is None]
    if compiler.board and not absent and not _has_newlib(compiler):
        absent = ["newlib (rdimon.specs)"]
    if compiler.flags == _SANITISERS and not absent and not _links(compiler):
        absent = [f"the sanitisers of {compiler.command}"]
    if not absent:
        return None
    return f"{', '.join(absent)} not found; install {', '.join(compiler.packages)}"


def _has_newlib(compiler: Compiler) -> bool:
    """Whether the C library of bare-metal images is there: gcc then knows the file's path."""
    found = subprocess.run(
        [compiler.command, "-print-file-name=rdimon.specs"], capture_output=True, text=True, check=False
    )
    return Path(found.stdout.strip()).is_absolute()


def _links(compiler: Compiler) -> bool:
    """Whether an empty program can be built: the libraries of the sanitisers are packages of their own."""
    with tempfile.TemporaryDirectory(prefix="ohmfold-c99-") as folder:
        arguments = [compiler.command, *compiler.flags, "-x", "c", "-", "-o", str(Path(folder, "empty"))]
        program = "int main(void) { return 0; }"
        done = subprocess.run(arguments, input=program, capture_output=True, text=True, check=False)
    return done.returncode == 0


def available_compilers() -> tuple[Compiler, ...]:
    """Return the compilers whose programs can be built and run here."""
    return tuple(compiler for compiler in COMPILERS if _why_missing(compiler) is None)


def missing_compilers() -> Mapping[str, str]:
    """Return, for the others, what is missing and which Debian packages bring it."""
    reasons = {compiler.name: _why_missing(compiler) for compiler in COMPILERS}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def find_compiler(name: str) -> Compiler:
    """Return a compiler by its name.

    Raises:
        MissingDependencyError: It is not here, or not known.
    """
    from ....errors import MissingDependencyError

    for compiler in COMPILERS:
        if compiler.name == name:
            reason = _why_missing(compiler)
            if reason is not None:
                raise MissingDependencyError(f"compiler {name!r}: {reason}")
            return compiler
    known = ", ".join(compiler.name for compiler in COMPILERS)
    raise MissingDependencyError(f"no compiler is called {name!r}; expected one of {known}")
