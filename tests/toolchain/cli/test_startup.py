"""Help and version answer at once, because nothing heavy is imported for them."""

from __future__ import annotations

import resource
import subprocess
import sys
from importlib.metadata import version

import pytest

COMMANDS = ("demo", "train", "export", "compile", "inspect", "run", "attack", "report", "doctor")
HEAVY = ("torch", "onnxruntime", "numba", "matplotlib", "onnx", "onnx_ir", "onnxscript", "numpy")
LIMIT_SECONDS = 0.5


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy_and_names_the_options(command: str) -> None:
    arguments = [*([command] if command else []), "--help"]
    code = (
        "import sys\nfrom ohmfold.toolchain.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY [] 0" in done.stdout
    assert "Usage: ohmfold" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["--help"], ["compile", "--help"], ["--version"]])
def test_help_and_version_answer_in_half_a_second(arguments: list[str]) -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "ohmfold", *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, the least of a few: what other processes take of the machine is not what is measured.
    assert min(seconds() for _ in range(5)) < LIMIT_SECONDS


def test_version_is_the_installed_one(call) -> None:
    assert call("--version") == (0, f"ohmfold {version('ohmfold')}\n", "")


def test_the_help_lists_every_command(call) -> None:
    text = call("--help").out
    assert all(f" {command} " in text for command in COMMANDS)
    assert "completion" not in text
