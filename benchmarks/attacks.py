"""What attacks cost: the twin's gradients beside the float model's, the emulator's answers beside onnxruntime's.

    python -m benchmarks.attacks [--threads N] [--repeats N] [--json]

Gradients. The same 40 steps of projected gradient descent, by cleverhans called directly, on the same batch, along the
gradient of the twin and along that of the float module that the artifact was made from. Before they are timed, the
twin's logits are compared with the emulator's, bit by bit. Then the same as the harness runs it, with everything that
it adds: earlier iterates kept, the final images rounded, projected and judged.

Queries. Square attacks the same images with the same seed, its questions answered by the emulator and by onnxruntime;
both end with the same images, or nothing is timed. onnxruntime answers at whichever of its optimisation levels is
fastest. What counts is the time of the answers; the time of the whole attack, its own bookkeeping in torch included,
stands beside it.

All of it alternates in one process; figures are medians of rounds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

import ohmfold
from ohmfold.errors import OhmfoldError
from ohmfold.models.registry import build_model
from ohmfold.toolchain.attacks import make_attack
from ohmfold.toolchain.attacks.base import Problem
from ohmfold.toolchain.cli.output import print_json, progress_bar, say, table
from ohmfold.toolchain.cli.quiet import import_onnxruntime
from ohmfold.toolchain.judged import as_input
from ohmfold.toolchain.witness import LEVELS, OnnxRuntime

from .inference import CASES, Case, compiled, pixels
from .machine import alternate, describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

LEAST_ROUNDS = 5
STEPS, RADIUS = 40, 25
GRADIENT_LIMIT, QUERY_LIMIT = 1.5, 1.5
BUDGET = 60


def _resnet() -> nn.Module:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model("mnist-resnet8")


MNIST_CNN = CASES[0]
GRADIENT_CASES = (
    Case(MNIST_CNN.name, MNIST_CNN.model, MNIST_CNN.image, 64, 1.0, "anywhere"),
    Case("ResNet-8", _resnet, (1, 28, 28), 16, 1.0, "anywhere"),
)
QUERY_CASES = tuple(
    Case(MNIST_CNN.name, MNIST_CNN.model, MNIST_CNN.image, batch, 1.0, "anywhere") for batch in (256, 32)
)


@dataclass(frozen=True)
class GradientRow:
    """PGD through the twin and through the float model: medians in milliseconds, and their ratio.

    Attributes:
        case, batch, threads: What ran.
        steps: Of the descent.
        twin_ms, float_ms: By cleverhans, called directly.
        ratio: How many times as long the twin takes.
        harness_twin_ms, harness_float_ms, harness_ratio: The same as the harness runs it.
        limit: What the ratio may be at most.
    """

    case: str
    batch: int
    threads: int
    steps: int
    twin_ms: float
    float_ms: float
    ratio: float
    harness_twin_ms: float
    harness_float_ms: float
    harness_ratio: float
    limit: float


@dataclass(frozen=True)
class QueryRow:
    """Answers a second to a query attack: medians, and how many times as many the emulator gives.

    Attributes:
        case, batch, threads: What ran.
        level: Of onnxruntime, the fastest.
        queries: How many answers an attack took.
        emulator, onnxruntime: Answers a second, over the time of the answers alone.
        ratio: The emulator's over onnxruntime's.
        attack_emulator, attack_onnxruntime, attack_ratio: Over the time of the whole attack.
        required: What the ratio must be at least.
    """

    case: str
    batch: int
    threads: int
    level: str
    queries: int
    emulator: float
    onnxruntime: float
    ratio: float
    attack_emulator: float
    attack_onnxruntime: float
    attack_ratio: float
    required: float


class Answers:
    """A judge that takes the time of its answers.

    Args:
        scores: From uint8 images to logits.

    Attributes:
        seconds: Spent on answers since it was last set to 0.
    """

    def __init__(self, scores: Callable[[NDArray[Any]], NDArray[np.float32]]) -> None:
        self._scores = scores
        self.seconds = 0.0

    def logits(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """The logits of images."""
        start = time.perf_counter()
        found = self._scores(images)
        self.seconds += time.perf_counter() - start
        return found

    def predict(self, images: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """The labels of images."""
        classes: NDArray[np.int64] = self.logits(images).argmax(1).astype(np.int64)
        return classes


def measure_gradients(case: Case, threads: int, rounds: int) -> GradientRow:
    """Compare the twin's bits with the emulator's, then time PGD through it and through the float model.

    Raises:
        SystemExit: The bits differ.
    """
    import torch

    artifact, images = compiled(case), pixels(case, case.batch)
    emulator = ohmfold.Emulator(artifact, threads=threads)
    twin, module = ohmfold.Twin(artifact), case.model().eval()
    for parameter in module.parameters():
        parameter.requires_grad_(requires_grad=False)
    x = torch.from_numpy(images).float() / 255
    with torch.no_grad():
        if not np.array_equal(twin(x).numpy(), emulator(images)):
            raise SystemExit("error: the twin's logits are not the emulator's; nothing is timed")
    labels = emulator.predict(images)
    attack = make_attack("pgd", steps=STEPS)

    def harness(source: nn.Module) -> object:
        return attack(source, emulator, images, labels, RADIUS, seed=0, batch_size=len(images))

    ms = in_turn(
        {
            "twin": partial(_descend, twin, x, torch.from_numpy(labels)),
            "float": partial(_descend, module, x, torch.from_numpy(labels)),
            "harness, twin": partial(harness, twin),
            "harness, float": partial(harness, module),
        },
        rounds,
    )
    return GradientRow(
        case=case.name,
        batch=case.batch,
        threads=threads,
        steps=STEPS,
        twin_ms=ms["twin"],
        float_ms=ms["float"],
        ratio=ms["twin"] / ms["float"],
        harness_twin_ms=ms["harness, twin"],
        harness_float_ms=ms["harness, float"],
        harness_ratio=ms["harness, twin"] / ms["harness, float"],
        limit=GRADIENT_LIMIT,
    )


def in_turn(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of functions of seconds, which run in turn after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(taken[1:]) for name, taken in times.items()}


def _descend(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent

    attacked: Tensor = projected_gradient_descent(
        model, x, RADIUS / 255, 2.5 * RADIUS / 255 / STEPS, STEPS, np.inf, clip_min=0.0, clip_max=1.0, y=labels,
        rand_init=False, sanity_checks=False,
    )  # fmt: skip
    return attacked


def measure_queries(case: Case, threads: int, rounds: int) -> QueryRow:
    """Let Square ask the emulator and onnxruntime, and time the answers.

    Raises:
        SystemExit: It does not end with the same images.
    """
    artifact, images = compiled(case), pixels(case, case.batch)
    judges = {"emulator": Answers(ohmfold.Emulator(artifact, threads=threads))}
    import_onnxruntime()
    spec, logits = artifact.program.inputs[0], str(artifact.program.logits)
    for level in LEVELS:
        session = OnnxRuntime(artifact.to_bytes(), level, threads, (logits,))
        judges[level] = Answers(
            lambda batch, session=session: session.run({spec.name: as_input(batch, spec)})[logits]
        )
    labels = judges["emulator"].predict(images)
    answers = alternate({name: partial(judge.logits, images) for name, judge in judges.items()}, rounds)
    level = min(LEVELS, key=answers.__getitem__)
    problem = {name: Problem(None, judge, images, labels, RADIUS, 0) for name, judge in judges.items()}
    attack = make_attack("square", budget=BUDGET)
    seconds: dict[str, list[tuple[float, float]]] = {"emulator": [], level: []}
    found = {name: attack.run(problem[name]) for name in seconds}
    if not np.array_equal(found["emulator"].images, found[level].images):
        raise SystemExit("error: Square finds other images through onnxruntime; nothing is timed")
    for _ in range(rounds):
        for name, taken in seconds.items():
            judges[name].seconds = 0.0
            start = time.perf_counter()
            attack.run(problem[name])
            taken.append((judges[name].seconds, time.perf_counter() - start))
    queries = int(np.sum(found["emulator"].queries))
    rates = {
        name: tuple(queries / statistics.median(column) for column in zip(*taken, strict=True))
        for name, taken in seconds.items()
    }
    ours, theirs = rates["emulator"], rates[level]
    return QueryRow(
        case=case.name,
        batch=case.batch,
        threads=threads,
        level=level,
        queries=queries,
        emulator=ours[0],
        onnxruntime=theirs[0],
        ratio=ours[0] / theirs[0],
        attack_emulator=ours[1],
        attack_onnxruntime=theirs[1],
        attack_ratio=ours[1] / theirs[1],
        required=QUERY_LIMIT,
    )


def show_gradients(rows: Sequence[GradientRow]) -> None:
    """Print PGD's times."""
    table(
        f"PGD, {STEPS} steps: through the twin, and through the plain float model",
        [
            "case",
            "batch",
            "threads",
            "twin ms",
            "float ms",
            "twin / float",
            "at most",
            "as the harness runs it",
        ],
        [
            (
                row.case,
                str(row.batch),
                str(row.threads),
                f"{row.twin_ms:.0f}",
                f"{row.float_ms:.0f}",
                f"x {row.ratio:.2f}",
                f"x {row.limit:.1f}",
                f"x {row.harness_ratio:.2f}",
            )
            for row in rows
        ],
    )


def show_queries(rows: Sequence[QueryRow]) -> None:
    """Print rates of answers."""
    table(
        "Square's queries, answers a second",
        [
            "case",
            "batch",
            "threads",
            "emulator",
            "onnxruntime",
            "its level",
            "ratio",
            "at least",
            "whole attack",
        ],
        [
            (
                row.case,
                str(row.batch),
                str(row.threads),
                f"{row.emulator:,.0f}",
                f"{row.onnxruntime:,.0f}",
                row.level,
                f"x {row.ratio:.2f}",
                f"x {row.required:.1f}",
                f"x {row.attack_ratio:.2f}",
            )
            for row in rows
        ],
    )


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of torch and of both executors")
    parser.add_argument("--repeats", type=int, default=9, help="rounds behind a median")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(given)
    if arguments.repeats < LEAST_ROUNDS:
        parser.error(f"--repeats {arguments.repeats}: a median takes at least {LEAST_ROUNDS}")
    if arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: expected at least 1")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print it."""
    import torch

    machine = describe_machine()
    torch.set_num_threads(arguments.threads)
    gradients: list[GradientRow] = []
    queries: list[QueryRow] = []
    steps = len(GRADIENT_CASES) + len(QUERY_CASES)
    with progress_bar("attacks", 600.0) as progress:
        for case in GRADIENT_CASES:
            progress(f"PGD, {case.name}", len(gradients) / steps)
            gradients.append(measure_gradients(case, arguments.threads, arguments.repeats))
        for case in QUERY_CASES:
            progress(f"Square, {case.name}", (len(gradients) + len(queries)) / steps)
            queries.append(measure_queries(case, arguments.threads, arguments.repeats))
    if arguments.json:
        print_json(
            {
                "machine": asdict(machine),
                "repeats": arguments.repeats,
                "gradients": [asdict(row) for row in gradients],
                "queries": [asdict(row) for row in queries],
            }
        )
        return
    say(f"{machine.processor}, {machine.cores} cores, load {machine.load:.2f}", "")
    show_gradients(gradients)
    show_queries(queries)


def main(given: Sequence[str] | None = None) -> None:
    """Measure everything and print tables, or JSON."""
    arguments = _arguments(given)
    try:
        run(arguments)
    except OhmfoldError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
