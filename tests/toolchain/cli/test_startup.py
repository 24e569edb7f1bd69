"""Help and version answer at once and commands start fast, because nothing is imported that they do not need."""

from __future__ import annotations

import resource
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    "demo",
    "train",
    "export",
    "compile",
    "inspect",
    "run",
    "build",
    "verify",
    "attack",
    "replay",
    "analyze",
    "paper",
    "report",
    "hardware",
    "chips",
    "doctor",
)
HEAVY = ("torch", "onnxruntime", "numba", "matplotlib", "onnx", "onnx_ir", "onnxscript", "numpy")
LIMIT_SECONDS = 0.5
IMPORT_LIMIT_SECONDS = 0.3

# What running an artifact in the emulator has no use for.
NOT_FOR_RUN = (
    "torch",
    "onnxruntime",
    "onnxscript",
    "matplotlib",
    "pandas",
    "sklearn",
    "mlxtend.data",
    "jinja2",
)


def processor_seconds(arguments: Sequence[str]) -> float:
    """Processor time of a Python process, the least of a few: what else runs on the machine is not measured."""

    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return min(seconds() for _ in range(5))


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
    assert processor_seconds(["-m", "ohmfold", *arguments]) < LIMIT_SECONDS


def test_importing_ohmfold_takes_less_than_a_third_of_a_second() -> None:
    assert processor_seconds(["-c", "import ohmfold"]) < IMPORT_LIMIT_SECONDS


def test_run_imports_only_what_it_needs(files) -> None:
    arguments = ["run", str(files.artifact), "--data", str(files.data)]
    code = (
        "import sys\nfrom ohmfold.toolchain.cli import main\n"
        f"code = main({arguments!r})\n"
        f"found = set({NOT_FOR_RUN!r}) | {{'ohmfold.toolchain.run_record', 'ohmfold.toolchain.attacks'}}\n"
        "print('NEEDLESS', sorted(found & set(sys.modules)), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "NEEDLESS [] 0" in done.stdout


@pytest.mark.parametrize("own", [True, False], ids=["own process", "called from another program"])
def test_the_collector_is_calmed_in_a_process_of_our_own_only(own: bool) -> None:
    call = "main()" if own else "main(['--version'])"
    code = (
        "import atexit, gc, sys\nfrom ohmfold.toolchain.cli import main\nusual = gc.get_threshold()\n"
        "atexit.register(lambda: print(gc.get_threshold() == usual, gc.get_freeze_count() == 0))\n"
        f"sys.argv = ['ohmfold', '--version']\n{call}"
    )
    # Of functions for the exit, the one registered first is called last: it sees what the others did.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ("False False" if own else "True True")


def test_version_is_the_installed_one(call) -> None:
    assert call("--version") == (0, f"ohmfold {version('ohmfold')}\n", "")


def test_the_help_lists_every_command(call) -> None:
    text = call("--help").out
    assert all(f" {command} " in text for command in COMMANDS)
    assert "completion" not in text
