"""How large a generated program is, and how long it takes: ROM, RAM, multiply-accumulates, an estimate of cycles."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ....errors import OutputError, TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .c_code import Program
    from .options import C99Options

__all__ = ["CODE_COMPILERS", "SizeReport", "check_limits", "code_size", "size_report"]

CODE_COMPILERS = (
    ("arm-none-eabi-gcc", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")),
    ("gcc", ()),
    ("clang", ()),
)
"""What measures the code, the first that is there: name and flags."""

# Instructions that qemu counts on an emulated Cortex-M4, -O2, fitted to three networks; within a fifth of each.
_CYCLES_PER_PRODUCT = 3.3
_CYCLES_PER_WEIGHT = 4.0
_CYCLES_PER_RESULT = 90.0


@dataclass(frozen=True)
class SizeReport:
    """Sizes in bytes.

    Attributes:
        weights: The weights in ROM.
        weight_count: How many there are.
        tables: Tables of codes and levels in ROM.
        parameters: Biases and multipliers in ROM.
        code: Code and descriptions of layers in ROM, of an -Os build; None where no compiler is there to say.
        code_compiler: What measured it, as it was called; or why nothing did.
        ram: The arena, in which every activation lies.
        live: The largest sum of sizes of tensors that must be alive together, the caller's pixels left out.
        products: Multiply-accumulates of one image.
        cycles: Estimated cycles of one image on a Cortex-M4 without its DSP instructions: a number for each product,
            each packed weight that is unpacked and each result, as measured in instructions; wait states and stalls
            are not in it.
    """

    weights: int
    weight_count: int
    tables: int
    parameters: int
    code: int | None
    code_compiler: str
    ram: int
    live: int
    products: int
    cycles: int

    @property
    def rom(self) -> int:
        """All of ROM that is known."""
        return self.weights + self.tables + self.parameters + (self.code or 0)

    @property
    def bytes_per_weight(self) -> float:
        """Bytes of ROM for each weight."""
        return self.weights / self.weight_count if self.weight_count else 0.0

    @property
    def ram_ratio(self) -> float:
        """The arena over the least that it could be."""
        return self.ram / self.live if self.live else 1.0


def size_report(code: Program, files: Mapping[str, str], *, measure: bool) -> SizeReport:
    """Add up a program's constants, and measure its code if `measure` says so and a compiler is there."""
    of = {"weights": 0, "tables": 0, "parameters": 0}
    for constant in code.constants:
        of[constant.purpose] += int(constant.values.nbytes)
    layers = [step.weights for step in code.plan.steps if hasattr(step, "weights")]
    unpacked = sum(
        step.weights.count * getattr(step, "rows", 1)
        for step in code.plan.steps
        if hasattr(step, "weights") and not step.weights.plain
    )
    products = sum(step.products for step in code.plan.steps)
    results = sum(step.results for step in code.plan.steps)
    size, compiler = code_size(code.name, files) if measure else (None, "not measured")
    return SizeReport(
        weights=of["weights"],
        weight_count=sum(weights.count for weights in layers),
        tables=of["tables"],
        parameters=of["parameters"],
        code=size,
        code_compiler=compiler,
        ram=code.plan.arena,
        live=code.plan.live,
        products=products,
        cycles=round(
            _CYCLES_PER_PRODUCT * products + _CYCLES_PER_WEIGHT * unpacked + _CYCLES_PER_RESULT * results
        ),
    )


def code_size(name: str, files: Mapping[str, str]) -> tuple[int | None, str]:
    """Bytes of code and constants of NAME.c, built with -Os; and what built it, or why it was not.

    Raises:
        TargetError: A compiler refuses it.
        OutputError: There is no room for temporary files.
    """
    for compiler, flags in CODE_COMPILERS:
        path, size = shutil.which(compiler), shutil.which(_size_of(compiler))
        if path is None or size is None:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                for file in (f"{name}.h", f"{name}_weights.h", f"{name}.c"):
                    Path(folder, file).write_text(files[file], encoding="ascii")
            except OSError as error:
                raise OutputError(
                    f"cannot write to the temporary folder {folder}: {error.strerror}"
                ) from None
            arguments = [
                path,
                "-std=c99",
                "-Os",
                "-ffp-contract=off",
                *flags,
                "-c",
                f"{name}.c",
                "-o",
                "code.o",
            ]
            built = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)
            if built.returncode:
                raise TargetError(f"{compiler} cannot build {name}.c: {built.stderr.strip()[:300]}")
            told = subprocess.run([size, "code.o"], cwd=folder, capture_output=True, text=True, check=True)
        return int(told.stdout.splitlines()[1].split()[0]), " ".join([compiler, "-Os", *flags])
    return None, "not measured: none of " + ", ".join(compiler for compiler, _ in CODE_COMPILERS) + " is here"


def _size_of(compiler: str) -> str:
    return compiler.replace("gcc", "size") if compiler.endswith("-gcc") else "size"


def check_limits(report: SizeReport, options: C99Options) -> None:
    """Refuse what is larger than the options allow.

    Raises:
        TargetError: Says by how much, and what takes it.
    """
    if options.ram is not None and report.ram > options.ram:
        raise TargetError(
            f"the activations take {report.ram} bytes of RAM, {report.ram - options.ram} more than the limit of "
            f"{options.ram}; at least {report.live} must be alive together"
        )
    if options.rom is not None and report.rom > options.rom:
        raise TargetError(
            f"the library takes {report.rom} bytes of ROM ({report.weights} of weights, {report.parameters} of "
            f"biases and multipliers, {report.tables} of tables, "
            f"{'unknown' if report.code is None else report.code} of code), {report.rom - options.rom} more than "
            f"the limit of {options.rom}"
        )
