"""The limits of one core, and where the time of a network goes.

    python -m benchmarks.roofline [--isa amx|vnni|avx2|portable] [--repeats N] [--json]

A step of the emulator that multiplies `products` times and must read `bytes` cannot be faster than

    attainable = min(peak, products / bytes * bandwidth)                 products a second

(Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for Multicore Architectures" (2009)).
Peak and bandwidth are measured, on one core: the multiplying instruction alone (see `kernel_speed`; where an
instruction set has no one such, the matrix kernel at its best), 16-bit products for depthwise convolutions, and reads
of buffers that fit each level of the caches (see `memory_speed`). The bandwidth of a step is that of the smallest
buffer that is no smaller than its weights and the codes that it reads at once.

Times are medians of `Emulator.profile`, on one thread. What a profiled call takes beyond its steps (Python, the clock
itself) is "between steps". On a machine that others use too, repeat: what is slow by chance is slow here.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import ohmfold
from ohmfold.errors import OhmfoldError
from ohmfold.kernels import isa as instruction_sets
from ohmfold.kernels.emit import integers
from ohmfold.kernels.packing import aligned_empty
from ohmfold.toolchain.cli.output import print_json, progress_bar, say, table

from .inference import CASES, compiled, pixels, show_machine
from .kernel_speed import BUFFER_BYTES, SHAPES, measure_kernel, measure_peak, vector_loop
from .machine import LEAST_REPEATS, alternate, describe_machine
from .memory_speed import BUFFERS, Level, cache_sizes, measure_level
from .step_work import work_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

    from .inference import Case
    from .step_work import StepWork

PRODUCT, DEPTHWISE, BETWEEN = "matrix product", "depthwise convolution", "between steps"

# The share of a network's time from which on a kind of step that multiplies nothing would be worth work.
LARGE_SHARE = 0.25

_WORDS, _SUMS = integers(16, 32), integers(32, 16)
_DEPTHWISE_TURNS = 100_000
_DEPTHWISE_PRODUCTS = 24 * 32  # of a turn


@dataclass(frozen=True)
class Ceiling:
    """The most that one core multiplies for a kind of step: 10^9 products a second, and by what it was measured."""

    kind: str
    measured_by: str
    gmacs: float


@dataclass(frozen=True)
class StepRow:
    """One step of a network.

    Attributes:
        kind, layer: What it does, and for which layer.
        products: Multiplications for the batch; 0 where it only moves or adds.
        bytes_read: What it cannot avoid reading (see `step_work`); None where that is not known.
        intensity: Multiplications for a byte.
        level: Which buffer's bandwidth counts.
        attainable: 10^9 products a second, at most.
        measured: Likewise, as it was.
        ms: Median milliseconds for the batch.
        share: Of the network's time.
    """

    kind: str
    layer: str
    products: int
    bytes_read: int | None
    intensity: float | None
    level: str | None
    attainable: float | None
    measured: float | None
    ms: float
    share: float


@dataclass(frozen=True)
class KindRow:
    """All steps of a kind: milliseconds for the batch, share of the network's time, and products a second."""

    kind: str
    ms: float
    share: float
    gmacs: float | None


@dataclass(frozen=True)
class Net:
    """One network at one batch size, on one thread.

    Attributes:
        case, batch, isa: What ran.
        ms: Median milliseconds of a call.
        steps: In the order in which they run.
        kinds: The longest first.
    """

    case: str
    batch: int
    isa: str
    ms: float
    steps: tuple[StepRow, ...]
    kinds: tuple[KindRow, ...]


@dataclass(frozen=True)
class Limits:
    """What one core can do."""

    ceilings: tuple[Ceiling, ...]
    levels: tuple[Level, ...]

    def attainable(self, kind: str, work: StepWork) -> tuple[str, float]:
        """Whose bandwidth counts for a step, and the 10^9 products a second that it can reach."""
        gmacs = next(ceiling.gmacs for ceiling in self.ceilings if ceiling.kind == kind)
        fits = [level for level in self.levels if work.bytes_at_once <= level.buffer_bytes]
        level = fits[0] if fits else self.levels[-1]
        return level.name, min(gmacs, work.products / work.bytes_read * level.gbs)


def multiply_words(builder: ir.IRBuilder, total: ir.Value, x: ir.Value, w: ir.Value) -> ir.Value:
    """`total * w + x` in 16-bit lanes: product and addition of a depthwise tap, neither of which leaves the loop."""
    total, x, w = (builder.bitcast(value, _WORDS) for value in (total, x, w))
    return builder.bitcast(builder.add(builder.mul(total, w), x), _SUMS)


def measure_limits(isa: str, repeats: int) -> Limits:
    """Measure the ceilings of an instruction set, and the levels of memory."""
    peak = measure_peak(isa, repeats)
    if peak is None:
        best = max(measure_kernel(isa, shape, repeats, None).gmacs for shape in SHAPES)
        product = Ceiling(PRODUCT, "the matrix kernel at its best", best)
    else:
        product = Ceiling(PRODUCT, peak.instruction, peak.gmacs)
    run, buffer = vector_loop(multiply_words), aligned_empty(BUFFER_BYTES)
    buffer[:] = 1
    ms = alternate({isa: partial(run, _DEPTHWISE_TURNS, buffer)}, repeats)[isa]
    words = Ceiling(
        DEPTHWISE, "16-bit product and addition", _DEPTHWISE_PRODUCTS * _DEPTHWISE_TURNS / ms / 1e6
    )
    levels = tuple(measure_level(name, size, repeats) for name, size in BUFFERS.items())
    return Limits((product, words), levels)


def measure_net(case: Case, isa: str, limits: Limits, repeats: int) -> Net:
    """Time every step of a case, and whole calls in between."""
    artifact, images = compiled(case), pixels(case, case.batch)
    emulator = ohmfold.Emulator(artifact, threads=1, isa=isa)
    seconds: dict[tuple[str, str], list[float]] = {}
    rests: list[float] = []

    def profile() -> None:
        start = time.perf_counter()
        steps = emulator.profile(images)
        rests.append(time.perf_counter() - start - sum(step.seconds for step in steps))
        for step in steps:
            seconds.setdefault((step.layer, step.kind), []).append(step.seconds)

    call_ms = alternate({"call": partial(emulator, images), "profile": profile}, repeats)["call"]
    times = {key: 1000 * statistics.median(found) for key, found in seconds.items()}
    rest = 1000 * statistics.median(rests)
    whole = sum(times.values()) + rest
    work = work_of(emulator.program, instruction_sets.find(isa), case.batch)
    steps = tuple(_step(*key, ms, whole, work.get(key), limits) for key, ms in times.items())
    kinds = sorted((*_kinds(steps), KindRow(BETWEEN, rest, rest / whole, None)), key=lambda row: -row.ms)
    return Net(case.name, case.batch, emulator.isa, call_ms, steps, tuple(kinds))


def _step(layer: str, kind: str, ms: float, whole: float, work: StepWork | None, limits: Limits) -> StepRow:
    common: dict[str, Any] = {"kind": kind, "layer": layer, "ms": ms, "share": ms / whole}
    if work is None or not work.products:
        read = None if work is None else work.bytes_read
        return StepRow(
            **common, products=0, bytes_read=read, intensity=None, level=None, attainable=None, measured=None
        )
    level, attainable = limits.attainable(kind, work)
    return StepRow(
        **common,
        products=work.products,
        bytes_read=work.bytes_read,
        intensity=work.products / work.bytes_read,
        level=level,
        attainable=attainable,
        measured=work.products / ms / 1e6,
    )


def _kinds(steps: Sequence[StepRow]) -> list[KindRow]:
    """The steps added up by kind."""
    rows = []
    for kind in dict.fromkeys(step.kind for step in steps):
        members = [step for step in steps if step.kind == kind]
        ms, products = sum(step.ms for step in members), sum(step.products for step in members)
        share = sum(step.share for step in members)
        rows.append(KindRow(kind, ms, share, products / ms / 1e6 if products else None))
    return rows


def verdict(nets: Sequence[Net]) -> str:
    """Whether anything but the products takes a large share of a network's time."""
    large = [
        f"{row.kind} {100 * row.share:.0f} % of {net.case}, batch {net.batch}"
        for net in nets
        for row in net.kinds
        if row.kind not in (PRODUCT, DEPTHWISE) and row.share > LARGE_SHARE
    ]
    products = f'"{PRODUCT}" and "{DEPTHWISE}"'
    if large:
        return f"Beside {products}, more than a quarter of a network's time goes to: {', '.join(large)}."
    return f"No kind of step but {products} takes more than a quarter of any network's time."


def _size(number: int) -> str:
    """Bytes in the largest unit that leaves a whole number."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if number % unit == 0:
            return f"{number // unit} {name}"
    return f"{number} B"


def show_limits(limits: Limits) -> None:
    """Print the ceilings and the bandwidths."""
    table(
        "The most that one core multiplies",
        ["for", "measured by", "GMAC/s"],
        [(row.kind, row.measured_by, f"{row.gmacs:,.0f}") for row in limits.ceilings],
        left=2,
    )
    sizes = cache_sizes()
    table(
        "What one core reads",
        ["level", "its size here", "buffer", "GB/s"],
        [
            (row.name, sizes.get(row.name, "-"), _size(row.buffer_bytes), f"{row.gbs:,.0f}")
            for row in limits.levels
        ],
    )


def show_net(net: Net) -> None:
    """Print a network's steps, and then its kinds of steps."""
    blank = "-"
    table(
        f"{net.case}, batch {net.batch}, {net.isa}, one thread: {net.ms:.3f} ms",
        ["kind", "layer", "10^6 products", "KiB read", "products/byte", "from", "attainable", "GMAC/s", "ms", "share"],
        [
            (
                row.kind,
                row.layer,
                f"{row.products / 1e6:,.2f}" if row.products else blank,
                blank if row.bytes_read is None else f"{row.bytes_read / 1024:,.0f}",
                blank if row.intensity is None else f"{row.intensity:,.1f}",
                row.level or blank,
                blank if row.attainable is None else f"{row.attainable:,.0f}",
                blank if row.measured is None else f"{row.measured:,.0f}",
                f"{row.ms:.3f}",
                f"{100 * row.share:.1f} %",
            )
            for row in net.steps
        ],
        left=2,
    )  # fmt: skip
    table(
        f"{net.case}, batch {net.batch}, by kind",
        ["kind", "ms", "share", "GMAC/s"],
        [
            (
                row.kind,
                f"{row.ms:.3f}",
                f"{100 * row.share:.1f} %",
                blank if row.gmacs is None else f"{row.gmacs:,.0f}",
            )
            for row in net.kinds
        ],
    )


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.roofline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--isa", choices=instruction_sets.NAMES, help="the emulator's instruction set")
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS, help="timings behind a median")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(given)
    if arguments.repeats < LEAST_REPEATS:
        parser.error(f"--repeats {arguments.repeats}: a median takes at least {LEAST_REPEATS}")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print it."""
    machine = describe_machine()
    used = arguments.isa if arguments.isa in machine.instruction_sets else None
    isa = used or instruction_sets.chosen().name
    if not arguments.json:
        show_machine(machine, arguments.isa, used)
    nets = []
    with progress_bar("roofline") as progress:
        progress("limits", 0.0)
        limits = measure_limits(isa, arguments.repeats)
        for number, case in enumerate(CASES, 1):
            progress(f"{case.name}, batch {case.batch}", number / (1 + len(CASES)))
            nets.append(measure_net(case, isa, limits, arguments.repeats))
    if arguments.json:
        about = {"machine": asdict(machine), "isa": isa, "repeats": arguments.repeats}
        found = {"limits": asdict(limits), "nets": [asdict(net) for net in nets]}
        print_json({**about, "cache_sizes": cache_sizes(), **found, "verdict": verdict(nets)})
        return
    show_limits(limits)
    for net in nets:
        show_net(net)
    say(verdict(nets))


def main(given: Sequence[str] | None = None) -> None:
    """Measure limits and networks and print tables, or JSON."""
    arguments = _arguments(given)
    try:
        run(arguments)
    except OhmfoldError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
