"""The emulator beside onnxruntime: the same artifact, in one process, alternating; medians and their ratio.

    python -m benchmarks.inference [--threads N] [--isa amx|vnni|avx2|portable] [--repeats N] [--json]

Before a case is timed, both executors' logits are compared; a case whose bits differ is an error, not a figure.
onnxruntime has all its graph optimisations, as many threads, and its input and output bound once (io binding, which
is faster than `session.run` by 5 % at batch 1). Two models are timed in it and the faster one counts: the artifact,
and the same network with its dense layers as QGemm (see `dense_as_qgemm`); with several threads both with threads
that spin and with threads that sleep (see `executors`).

With more than one thread, the same batch is also timed on one. Last comes the matrix kernel alone, beside the most
that the processor's multiplying instruction can do.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

import ohmfold
from ohmfold.errors import OhmfoldError
from ohmfold.kernels import isa as instruction_sets
from ohmfold.models.checkpoints import load_model
from ohmfold.models.registry import build_model
from ohmfold.models.resnet import PreActResNet
from ohmfold.toolchain.cli.output import print_json, progress_bar, say, table

from .executors import onnxruntime_sessions
from .kernel_speed import SHAPES, KernelRow, Peak, measure_kernel, measure_peak
from .machine import LEAST_REPEATS, Machine, alternate, describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from ohmfold.toolchain.artifact import Artifact

CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class Case:
    """One network at one batch size.

    Attributes:
        name: Of the network.
        model: Makes it.
        image: Shape of an image.
        batch: Images at a time.
        required: How many times onnxruntime's throughput the emulator must reach.
        where: On which machines it must.
    """

    name: str
    model: Callable[[], nn.Module]
    image: tuple[int, ...]
    batch: int
    required: float
    where: str


@dataclass(frozen=True)
class Row:
    """One case, measured.

    Attributes:
        case, batch, threads: What ran.
        isa: The emulator's instruction set.
        emulator_ms: Median milliseconds of a batch.
        onnxruntime_ms: Likewise, of the fastest of its models.
        onnxruntime_model: Which of them that is.
        onnxruntime_models_ms: All of them.
        throughput_ratio: How many times as many images a second the emulator does.
        required, where: See `Case`.
        memory_ratio: Activation memory the emulator allocates, over what must be in memory together.
    """

    case: str
    batch: int
    threads: int
    isa: str
    emulator_ms: float
    onnxruntime_ms: float
    onnxruntime_model: str
    onnxruntime_models_ms: dict[str, float]
    throughput_ratio: float
    required: float
    where: str
    memory_ratio: float | None


@dataclass(frozen=True)
class ThreadsRow:
    """An executor on one thread and on several: medians in milliseconds, and how many times faster several are."""

    executor: str
    threads: int
    one_ms: float
    several_ms: float
    speedup: float


def _mnist_cnn() -> nn.Module:
    return load_model("mnist-cnn")


def _wide_resnet() -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PreActResNet((32, 64, 128), 5, 10, 3, stem=16)


CASES = (
    Case("MNIST CNN", _mnist_cnn, (1, 28, 28), 256, 2.0, "with AMX"),
    Case("wide ResNet-32, width 2", _wide_resnet, (3, 32, 32), 64, 2.0, "with AMX"),
    Case("MobileNet-like", partial(build_model, "cifar-mobilenet"), (3, 32, 32), 64, 1.0, "anywhere"),
    Case("MNIST CNN", _mnist_cnn, (1, 28, 28), 1, 1.5, "anywhere"),
)


def pixels(case: Case, count: int) -> NDArray[np.uint8]:
    """Random pixels, always the same."""
    return np.random.default_rng(0).integers(0, 256, (count, *case.image)).astype(np.uint8)


@cache
def compiled(case: Case) -> Artifact:
    """A case's network as an artifact."""
    return ohmfold.compile(case.model().eval(), pixels(case, CALIBRATION_IMAGES))


def measure(case: Case, threads: int, isa: str | None, repeats: int) -> Row:
    """Compare an emulator's bits with onnxruntime's, then time both.

    Raises:
        SystemExit: The bits differ.
    """
    artifact, images = compiled(case), pixels(case, case.batch)
    emulator = ohmfold.Emulator(artifact, threads=threads, isa=isa)
    sessions = onnxruntime_sessions(artifact, images, emulator(images), threads)
    ms = alternate({"emulator": partial(emulator, images), **sessions}, repeats)
    ours = ms.pop("emulator")
    best = min(ms, key=ms.__getitem__)
    return Row(
        case=case.name,
        batch=case.batch,
        threads=threads,
        isa=emulator.isa,
        emulator_ms=ours,
        onnxruntime_ms=ms[best],
        onnxruntime_model=best,
        onnxruntime_models_ms=ms,
        throughput_ratio=ms[best] / ours,
        required=case.required,
        where=case.where,
        memory_ratio=_memory_ratio(emulator),
    )


def _memory_ratio(emulator: ohmfold.Emulator) -> float | None:
    try:
        return emulator.memory.ratio
    except OhmfoldError:  # a program that runs without a plan
        return None


def measure_threads(case: Case, threads: int, isa: str | None, repeats: int) -> tuple[ThreadsRow, ...]:
    """Time both executors on one thread and on several, all of them alternating.

    What onnxruntime is fastest with counts, for each number of threads.

    Raises:
        SystemExit: The bits differ.
    """
    artifact, images = compiled(case), pixels(case, case.batch)
    runs: dict[str, Callable[[], object]] = {}
    for count in (1, threads):
        emulator = ohmfold.Emulator(artifact, threads=count, isa=isa)
        runs[f"emulator/{count}"] = partial(emulator, images)
        for model, session in onnxruntime_sessions(artifact, images, emulator(images), count).items():
            runs[f"onnxruntime/{count}/{model}"] = session
    ms = alternate(runs, repeats)

    def fastest(executor: str, count: int) -> float:
        return min(value for name, value in ms.items() if name.split("/")[:2] == [executor, str(count)])

    rows = []
    for name in ("emulator", "onnxruntime"):
        one, several = fastest(name, 1), fastest(name, threads)
        rows.append(ThreadsRow(name, threads, one, several, one / several))
    return tuple(rows)


def measure_kernels(name: str, repeats: int) -> tuple[Peak | None, tuple[KernelRow, ...]]:
    """Time the matrix kernel of an instruction set, and the instruction under it."""
    peak = measure_peak(name, repeats)
    return peak, tuple(measure_kernel(name, shape, repeats, peak) for shape in SHAPES)


def _ms(value: float) -> str:
    return f"{value:.2f}" if value >= 10 else f"{value:.3f}"


def show_cases(rows: Sequence[Row]) -> None:
    """Print the cases side by side."""
    columns = [
        "case", "isa", "batch", "threads", "emulator ms", "onnxruntime ms", "its model", "throughput", "required",
        "peak memory",
    ]  # fmt: skip
    cells = [
        (
            row.case,
            row.isa,
            str(row.batch),
            str(row.threads),
            _ms(row.emulator_ms),
            _ms(row.onnxruntime_ms),
            row.onnxruntime_model,
            f"x {row.throughput_ratio:.2f}",
            f"x {row.required:.1f} {row.where}",
            "-" if row.memory_ratio is None else f"x {row.memory_ratio:.2f}",
        )
        for row in rows
    ]
    table("Emulator beside onnxruntime, same bits", columns, cells, left=2)


def show_threads(rows: Sequence[ThreadsRow]) -> None:
    """Print what several threads bring."""
    threads = rows[0].threads
    columns = ["executor", "1 thread, ms", f"{threads} threads, ms", "speed-up"]
    cells = [(row.executor, _ms(row.one_ms), _ms(row.several_ms), f"x {row.speedup:.2f}") for row in rows]
    table("MNIST CNN, batch 256, on several threads", columns, cells)
    say("The emulator must reach x 1.5 where onnxruntime does, and x 1.0 everywhere.", "")


def show_kernels(peaks: Sequence[Peak], rows: Sequence[KernelRow]) -> None:
    """Print the matrix kernel beside the instruction's peak."""
    of_isa = {peak.isa: f"{peak.gmacs:,.0f} {peak.instruction}" for peak in peaks}
    table(
        "The matrix kernel alone, one thread",
        ["isa", "product", "ms", "GMAC/s", "peak GMAC/s", "share of peak"],
        [
            (
                row.isa,
                f"{row.rows} x {row.depth} x {row.columns}",
                _ms(row.ms),
                f"{row.gmacs:,.0f}",
                of_isa.get(row.isa, "-"),
                "-" if row.share is None else f"{100 * row.share:.0f} %",
            )
            for row in rows
        ],
        left=2,
    )


def show_machine(machine: Machine, asked: str | None, used: str | None) -> None:
    """Print what is measured on, and what it lacks."""
    libraries = ", ".join(f"{name} {machine.versions.get(name, '?')}" for name in ("onnxruntime", "numba"))
    say(f"{machine.processor}, {machine.cores} cores, load {machine.load:.2f}; {libraries}")
    say(*machine.missing)
    if asked != used:
        say(f"{asked} was asked for; measured with {machine.instruction_sets[0]} instead")
    say("")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of both executors")
    parser.add_argument("--isa", choices=instruction_sets.NAMES, help="the emulator's instruction set")
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS, help="timings behind a median")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(given)
    if arguments.repeats < LEAST_REPEATS:
        parser.error(f"--repeats {arguments.repeats}: a median takes at least {LEAST_REPEATS}")
    if arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: expected at least 1")
    return arguments


def measure_all(machine: Machine, isa: str | None, threads: int, repeats: int) -> dict[str, Any]:
    """Measure everything: rows by table."""
    sets = machine.instruction_sets
    with progress_bar("inference") as progress:
        steps = len(CASES) + 1 + len(sets)
        rows = []
        for number, case in enumerate(CASES):
            progress(f"{case.name}, batch {case.batch}", number / steps)
            rows.append(measure(case, threads, isa, repeats))
        progress("threads", len(CASES) / steps)
        several = measure_threads(CASES[0], threads, isa, repeats) if threads > 1 else ()
        peaks: list[Peak] = []
        kernels: list[KernelRow] = []
        for number, name in enumerate(sets):
            progress(f"kernel, {name}", (len(CASES) + 1 + number) / steps)
            peak, products = measure_kernels(name, repeats)
            peaks += [] if peak is None else [peak]
            kernels += products
    return {"cases": rows, "threads": several, "peaks": peaks, "kernels": kernels}


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print it."""
    machine = describe_machine()
    isa = arguments.isa if arguments.isa in machine.instruction_sets else None
    if not arguments.json:
        show_machine(machine, arguments.isa, isa)
    found = measure_all(machine, isa, arguments.threads, arguments.repeats)
    if arguments.json:
        about = {"machine": asdict(machine), "isa_asked_for": arguments.isa, "repeats": arguments.repeats}
        print_json(about | {name: [asdict(row) for row in rows] for name, rows in found.items()})
        return
    show_cases(found["cases"])
    if found["threads"]:
        show_threads(found["threads"])
    show_kernels(found["peaks"], found["kernels"])


def main(given: Sequence[str] | None = None) -> None:
    """Measure every case and print tables, or JSON."""
    arguments = _arguments(given)
    try:
        run(arguments)
    except OhmfoldError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
