"""What jobs cost: the slopes from which `docs/scale.md` reckons how long a study or a campaign takes.

    python -m benchmarks.scale [--repeats N] [--images N] [--json]

Slopes. For a few networks: milliseconds for an image, and nanoseconds for 1,000 products of a weight and a code, of the
emulator, of a chip (`reram-128`, converters of full range), and of one step of an attack along the twin's gradient, on
one thread. One chip more costs its programming and its images; both are timed.

Jobs. An empty job on two processes and on a cluster of two workers, from many of them; the start of the workers, their
first import included; and sending objects, from jobs whose bench holds 1 MiB and 65 MiB.

The reckoning multiplies jobs x images x cost of an image, adds what jobs cost by themselves, and divides by workers.
Nothing of it was run; its title says so.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

import ohmfold
from ohmfold.toolchain.attacks import make_attack
from ohmfold.toolchain.cli.output import print_json, say, table
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.jobs import Package, Parts, hire

from .inference import CASES, Case, compiled, pixels
from .machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ohmfold.toolchain.program import Program

PROFILE = "reram-128"
STEPS, RADIUS = 5, 25
MANY_JOBS = 100
MIB = 1 << 20
SMALL, LARGE = 1 * MIB, 65 * MIB

IMAGENET_IMAGES = 50_000
RESNET50_PRODUCTS = 4.089e9
"""Products of ResNet-50 for one image of 224 x 224: torchvision counts 4.089e9 (`ResNet50_Weights`)."""


@dataclass(frozen=True)
class Slope:
    """What one network costs on one thread, in milliseconds.

    Attributes:
        name: Of the network.
        products: Products of a weight and a code for one image.
        emulator, chip, step: For one image: exact integers, a chip, one step of an attack.
        programming: For making one chip.
    """

    name: str
    products: int
    emulator: float
    chip: float
    step: float
    programming: float


@dataclass(frozen=True)
class Cost:
    """What workers cost, in milliseconds, with two of them."""

    crew: str
    start: float
    job: float
    mebibyte: float


def read_empty(package: Package, _threads: int) -> Empty:
    """Make an `Empty` of its package."""
    return Empty(next(iter(package.objects.values())))


class Empty:
    """Does nothing, with some bytes at hand."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def name(self, job: int) -> str:
        """Which job it is."""
        return f"job {job}"

    def run(self, job: int, _tell: Callable[[float], None]) -> int:
        """Do nothing."""
        return job

    def pack(self) -> Package:
        """The bytes."""
        parts = Parts()
        parts.add(self._data)
        return Package(read_empty, {}, parts.objects)


def products(program: Program) -> int:
    """Products of a weight and a code for one image."""
    total = 0
    for layer in program.weighted_layers():
        shape = program.tensors[layer.outputs[0]].shape or ()
        places = int(np.prod([size for size in shape[2:] if size]))
        total += layer.weight.size * places
    return total


def slope(case: Case, images: int, repeats: int) -> Slope:
    """Time one network on one thread."""
    import torch

    artifact = compiled(case)
    data = pixels(case, images)
    profile = load_hardware(PROFILE).with_changes({"adc.range": "full"})
    emulator = ohmfold.Emulator(artifact, threads=1)
    chip = ohmfold.Emulator(artifact, threads=1, hardware=profile, keep_tiles=False)
    twin, attack = ohmfold.Twin(artifact), make_attack("bim", steps=STEPS)
    labels = emulator.predict(data)
    torch.set_num_threads(1)
    few = max(1, images // 8)
    return Slope(
        case.name,
        products(artifact.program),
        _median(lambda: emulator.predict(data), repeats) / images,
        _median(lambda: chip.predict(data[:few]), repeats) / few,
        _median(lambda: attack(twin, emulator, data, labels, RADIUS, seed=0, batch_size=images), repeats)
        / (images * STEPS),
        _median(
            lambda: ohmfold.Emulator(artifact, threads=1, hardware=profile, seed=1, keep_tiles=False), repeats
        ),
    )


def cost(name: str, workers: int, cluster: str | None) -> Cost:
    """Time what workers cost by themselves."""
    began = time.perf_counter()
    with hire(workers, cluster) as crew:
        list(crew.run(Empty(b""), range(2)))
        start = time.perf_counter() - began
        jobs = _seconds(lambda: list(crew.run(Empty(b""), range(MANY_JOBS)))) / MANY_JOBS
        small, large = (
            _seconds(lambda size=size: list(crew.run(Empty(_noise(size)), range(2))))
            for size in (SMALL, LARGE)
        )
    # One object to each of two workers.
    return Cost(name, 1000 * start, 1000 * jobs, 1000 * (large - small) / (2 * (LARGE - SMALL) / MIB))


def reckoned(per_image: float, images: int, jobs: int, workers: int, per_job: float) -> float:
    """Seconds that jobs of equal length take: each image in each of them, shared among workers."""
    return math.ceil(jobs / workers) * (images * per_image + per_job) / 1000


def _noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(size)


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _median(run: Callable[[], object], repeats: int) -> float:
    run()
    return 1000 * statistics.median(_seconds(run) for _ in range(repeats))


def _words(seconds: float) -> str:
    for unit, size in (("years", 31_557_600), ("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def reckoning(slopes: Sequence[Slope], process: Cost) -> list[tuple[str, str, str, str]]:
    """How long some studies and campaigns take by the slopes: what, on one worker, on 16, on 256."""
    largest = max(slopes, key=lambda slope: slope.products)
    scaled = RESNET50_PRODUCTS / largest.products
    rows = []
    cases = [
        (f"{slope.name}: 1,000 chips x 10,000 images", slope.chip, 10_000, 1000, slope.programming)
        for slope in slopes
    ]
    cases += [
        (f"{slope.name}: 100 steps on 10,000 images", 100 * slope.step, 128, 79, 0.0) for slope in slopes
    ]
    cases += [
        (
            "ResNet-50: 1,000 chips x 50,000 images",
            scaled * largest.chip,
            IMAGENET_IMAGES,
            1000,
            scaled * largest.programming,
        ),
        ("ResNet-50: 100 steps on 50,000 images", 100 * scaled * largest.step, 128, 391, 0.0),
    ]
    for what, per_image, images, jobs, own in cases:
        times = [reckoned(per_image, images, jobs, workers, own + process.job) for workers in (1, 16, 256)]
        rows.append((what, *map(_words, times)))
    return rows  # type: ignore[return-value]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the tables of `docs/scale.md`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5, help="how often each is timed")
    parser.add_argument("--images", type=int, default=64, help="in a batch")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    options = parser.parse_args(arguments)
    machine = describe_machine()
    slopes = [slope(case, options.images, options.repeats) for case in CASES if case.batch > 1]
    costs = [cost("2 processes", 2, None), cost("cluster, local:2", 1, "local:2")]
    rows = reckoning(slopes, costs[0])
    if options.json:
        document = {"machine": asdict(machine), "slopes": [asdict(one) for one in slopes]}
        print_json(
            {**document, "costs": [asdict(one) for one in costs], "reckoning": [list(row) for row in rows]}
        )
        return
    say(
        f"{machine.processor}, {machine.cores} cores, load {machine.load:.1f}, one thread; medians of {options.repeats}"
    )
    table(
        "ms for an image (ns for 1,000 products)",
        [
            "network",
            "products",
            "emulator",
            f"chip of {PROFILE}",
            "step of an attack",
            "a chip's programming, ms",
        ],
        [
            (
                one.name,
                f"{one.products:,}",
                *(
                    f"{value:.3f} ({1e9 * value / one.products:.1f})"
                    for value in (one.emulator, one.chip, one.step)
                ),
                f"{one.programming:.0f}",
            )
            for one in slopes
        ],
    )
    table(
        "Workers by themselves",
        ["workers", "start, s", "job, ms", "MiB sent to one, ms"],
        [(one.crew, f"{one.start / 1000:.1f}", f"{one.job:.1f}", f"{one.mebibyte:.1f}") for one in costs],
    )
    table("Reckoned from these slopes, not run", ["what", "1 worker", "16 workers", "256 workers"], rows)


if __name__ == "__main__":
    main()
