"""The generated C library: packed weights against a byte for each, instructions, and onnx2c's float program.

    python -m benchmarks.c99 [--model NAME] [--repeats N] [--json]

Host times are of one process that calls both libraries in turn, in processor time of its thread: medians. Where the
binary onnx2c is on the PATH, the C program that it makes of the float model is built with the same flags and timed too.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import statistics
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ohmfold
from ohmfold.errors import TargetError
from ohmfold.models.checkpoints import load_model
from ohmfold.models.mnist import load_mnist_sample
from ohmfold.toolchain.cli.output import count, print_json, progress_bar, say, table
from ohmfold.toolchain.targets.c99 import C99Library, C99Options, generate
from ohmfold.toolchain.targets.c99.harness import (
    Compiler,
    available_compilers,
    missing_compilers,
    write_sources,
)

from .c99_counts import callgrind_instructions, qemu_instructions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

REPEATS = 21
LIMIT = 1.6
"""The most that packed weights may cost, as a ratio of times."""

_FLAGS = ("-O2", "-O3")
_SHARED = ("-std=c99", "-ffp-contract=off", "-shared", "-fPIC")
_BOARDS = ("cortex-m4", "cortex-m4-dsp")


@dataclass(frozen=True)
class TimeRow:
    """Milliseconds of one inference on this processor, medians."""

    compiler: str
    flags: str
    packed: float
    bytes: float
    onnx2c: float | None

    @property
    def ratio(self) -> float:
        """Packed over a byte for each weight."""
        return self.packed / self.bytes


@dataclass(frozen=True)
class CountRow:
    """Instructions of one inference."""

    counted_by: str
    flags: str
    packed: int
    bytes: int


def _shared(folder: Path, sources: Sequence[str], name: str, compiler: str, flags: str) -> ctypes.CDLL:
    library = folder / f"{name}.{compiler}{flags}.so"
    command = [compiler, *_SHARED, flags, *sources, "-o", str(library), "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"{compiler} cannot build {name}: {done.stderr.strip()[:500]}")
    return ctypes.CDLL(str(library))


def _runner(library: C99Library, shared: ctypes.CDLL, image: NDArray[np.uint8]) -> Callable[[], None]:
    function = getattr(shared, f"{library.name}_run")
    logits = np.zeros(library.logits, np.float32)
    pixels = np.ascontiguousarray(image)
    # Both arrays live as long as the function that is returned.
    return lambda: function(ctypes.c_void_p(pixels.ctypes.data), ctypes.c_void_p(logits.ctypes.data))


def _onnx2c_source(float_model: Path, folder: Path) -> Path | None:
    """The C program that onnx2c makes of the float model, None where onnx2c is not here."""
    binary = shutil.which("onnx2c")
    if binary is None:
        return None
    done = subprocess.run([binary, str(float_model)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"onnx2c refuses the float model: {done.stderr.strip()[-300:]}")
    (folder / "float.c").write_text(done.stdout, encoding="utf-8")
    return folder / "float.c"


def _float_runner(shared: ctypes.CDLL, image: NDArray[np.uint8], logits: int) -> Callable[[], None]:
    pixels = np.ascontiguousarray(image, np.float32) / np.float32(255)
    out = np.zeros(logits, np.float32)
    return lambda: shared.entry(ctypes.c_void_p(pixels.ctypes.data), ctypes.c_void_p(out.ctypes.data))


def alternate(runs: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median milliseconds of processor time of functions called in turn, after one call that does not count."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            start = time.thread_time()
            run()
            if turn:
                times[name].append(time.thread_time() - start)
    return {name: 1000 * statistics.median(values) for name, values in times.items()}


def measure_times(
    libraries: dict[str, C99Library],
    image: NDArray[np.uint8],
    folder: Path,
    float_source: Path | None,
    repeats: int,
    progress: Callable[[str, float], None],
) -> list[TimeRow]:
    """Time the libraries under every native compiler and level of optimisation."""
    rows = []
    compilers = [c for c in available_compilers() if c.native and not c.flags]
    cases = [(compiler, flags) for compiler in compilers for flags in _FLAGS]
    for number, (compiler, flags) in enumerate(cases):
        progress(f"{compiler.name} {flags}", number / len(cases))
        runs = {}
        for name, library in libraries.items():
            write_sources(library, folder)
            sources = [f"{library.name}.c", f"{library.name}_weights.c"]
            runs[name] = _runner(
                library, _shared(folder, sources, library.name, compiler.command, flags), image
            )
        if float_source is not None:
            shared = _shared(folder, [float_source.name], "float", compiler.command, flags)
            runs["onnx2c"] = _float_runner(shared, image, libraries["packed"].logits)
        found = alternate(runs, repeats)
        rows.append(TimeRow(compiler.name, flags, found["packed"], found["bytes"], found.get("onnx2c")))
    return rows


def measure_counts(
    libraries: dict[str, C99Library], folder: Path, progress: Callable[[str, float], None]
) -> list[CountRow]:
    """Count instructions by valgrind and by qemu, as far as they are here."""
    here = {compiler.name: compiler for compiler in available_compilers()}
    rows = []

    def add(label: str, flags: str, counter: Callable[..., int | None], compiler: Compiler) -> None:
        progress(label, len(rows) / (len(_BOARDS) + 1))
        found = {name: counter(library, compiler, (flags,), folder) for name, library in libraries.items()}
        if found["packed"] is not None and found["bytes"] is not None:
            rows.append(CountRow(label, flags, found["packed"], found["bytes"]))

    if "gcc" in here:
        add("callgrind, gcc", "-O3", callgrind_instructions, here["gcc"])
    for name in _BOARDS:
        if name in here:
            add(f"qemu, {name}", "-O2", qemu_instructions, here[name])
    return rows


def _float_model(name: str, shape: tuple[int, ...], folder: Path) -> Path:
    """The float model with a batch of 1, as onnx2c wants it."""
    import torch

    path = folder / "float.onnx"
    program = torch.onnx.export(
        load_model(name).eval(), (torch.zeros(1, *shape),), dynamo=True, verbose=False
    )
    if program is None:
        raise TargetError(f"torch exports no ONNX of {name}")
    program.save(str(path))
    return path


def measure(model: str, repeats: int, folder: Path, progress: Callable[[str, float], None]) -> dict[str, Any]:
    """Generate both libraries, time them, count their instructions."""
    progress("compiling", 0.0)
    images = load_mnist_sample().images
    artifact = ohmfold.compile(load_model(model), images[::50])
    libraries = {
        "packed": generate(artifact, C99Options(name="packed"), images[:4]),
        "bytes": generate(artifact, C99Options(name="bytes", weight_bits=8), images[:4]),
    }
    float_source = None
    if shutil.which("onnx2c") is not None:
        float_source = _onnx2c_source(_float_model(model, images.shape[1:], folder), folder)
    times = measure_times(libraries, images[0], folder, float_source, repeats, progress)
    counts = measure_counts(libraries, folder, progress)
    return {
        "model": model,
        "sizes": {
            name: asdict(library.size)
            | {"bytes_per_weight": library.size.bytes_per_weight, "ram_ratio": library.size.ram_ratio}
            for name, library in libraries.items()
        },
        "times_ms": [asdict(row) | {"ratio": row.ratio} for row in times],
        "instructions": [asdict(row) for row in counts],
        "missing": dict(missing_compilers())
        | {tool: "not on the PATH" for tool in ("onnx2c", "valgrind") if shutil.which(tool) is None},
    }


def show(found: dict[str, Any]) -> None:
    """Print tables."""
    table(
        f"{found['model']}: bytes",
        ["weights", "ROM of them", "for each", "biases, multipliers", "code, -Os", "RAM", "of the least"],
        [
            (
                name,
                count(size["weights"]),
                f"{size['bytes_per_weight']:.4f}",
                count(size["parameters"]),
                "?" if size["code"] is None else count(size["code"]),
                count(size["ram"]),
                f"{size['ram_ratio']:.2f}",
            )
            for name, size in found["sizes"].items()
        ],
    )
    table(
        "one inference on this processor, ms of processor time",
        ["compiler", "packed", "bytes", "ratio", "limit", "", "onnx2c, float"],
        [
            (
                f"{row['compiler']} {row['flags']}",
                f"{row['packed']:.3f}",
                f"{row['bytes']:.3f}",
                f"{row['ratio']:.2f}",
                f"{LIMIT}",
                "within" if row["ratio"] <= LIMIT else "beyond",
                "-" if row["onnx2c"] is None else f"{row['onnx2c']:.3f}",
            )
            for row in found["times_ms"]
        ],
    )
    table(
        "instructions of one inference",
        ["counted by", "packed", "bytes"],
        [
            (f"{row['counted_by']} {row['flags']}", count(row["packed"]), count(row["bytes"]))
            for row in found["instructions"]
        ],
    )
    if found["missing"]:
        say("", *(f"{name}: {reason}" for name, reason in found["missing"].items()))


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print tables, or JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.c99",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model", default="mnist-cnn", help="a model of MNIST: a bundled one, or a checkpoint"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS, help="timings behind a median")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(given)
    if arguments.repeats < 1:
        parser.error(f"--repeats {arguments.repeats}: a median takes at least 1")
    with tempfile.TemporaryDirectory() as folder, progress_bar("c99") as progress:
        found = measure(arguments.model, arguments.repeats, Path(folder), progress)
    if arguments.json:
        print_json(found)
        return
    show(found)


if __name__ == "__main__":
    main()
