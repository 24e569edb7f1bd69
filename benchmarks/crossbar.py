"""The crossbar's kernels beside the same crossbar in NumPy: the same bits, in one process, alternating; medians.

    python -m benchmarks.crossbar [--isa amx|vnni|avx2|portable ...] [--repeats N] [--images N] [--threads N] [--json]

256 rows of codes by a 1024 x 1024 matrix of 3-bit weights (-3 .. 3, a pair of 2-bit cells each, whose difference one
8-bit converter reads), eight passes of one bit, one thread, on every instruction set that this machine has unless
told otherwise. Before a case is timed, all sums are compared with NumPy's; a case whose bits differ is an error, not a
figure. Codes and weights are packed beforehand on both sides, bits extracted by both in every call.

NumPy's float32 simulation (see `crossbar_numpy`) is at its best: its time may be at most 1.5 times that of its BLAS
products alone. BLAS has one thread; without threadpoolctl, start Python with OPENBLAS_NUM_THREADS=1 (or what your BLAS
listens to). OPENBLAS_CORETYPE chooses other BLAS kernels; which ones run is printed.

Last come, once each and by the clock, the programming of tiles with wire resistance, and a network on a preset.
"""

from __future__ import annotations

import argparse
import tracemalloc
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from ohmfold.errors import OhmfoldError
from ohmfold.kernels import isa as instruction_sets
from ohmfold.toolchain.cli.output import percent, print_json, progress_bar, say, table

from .crossbar_cases import (
    FRACTION_BITS,
    SIZE,
    call_of,
    cases,
    clipping_weights,
    codes,
    make_product,
    simulation,
)
from .crossbar_chip import IMAGES, measure_net, program_tiles
from .crossbar_limit import measure_limits
from .crossbar_numpy import noisy_sums, one_blas_thread
from .machine import alternate, describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ohmfold.kernels.crossbar import CrossbarProduct

    from .crossbar_cases import Case, Size
    from .crossbar_chip import NetRow, Programming
    from .crossbar_limit import ExactLimit
    from .crossbar_numpy import Blas, NumpyCrossbar
    from .machine import Machine

LEAST_REPEATS = 9

# What NumPy's simulation may take of its BLAS products' time, the noisy call of its output's memory.
MOST_OF_BLAS, MOST_MEMORY = 1.5, 8.0

PROGRAMMING_THREADS, PROGRAMMING_SECONDS = 2, 120.0


@dataclass(frozen=True)
class Row:
    """One case on one instruction set, measured.

    Attributes:
        case, isa: What ran.
        path: How: bits counted, digits multiplied, the exact product, or the general kernel.
        exact_share: Share of (tile, panel) that were read at once, since nothing can clip there.
        ours_ms: Median milliseconds of a call.
        numpy_ms: Likewise, of the simulation; None where there is none.
        blas_ms: Likewise, of its BLAS products alone.
        compared_with: `NumPy`, or `noiseless`: our own time without what the case adds.
        ratio: NumPy's time over ours; or ours over the noiseless one's.
        required: What the ratio must be at least (NumPy), or at most (noiseless); None where nothing is required.
        within: Whether it is.
    """

    case: str
    isa: str
    path: str
    exact_share: float
    ours_ms: float
    numpy_ms: float | None
    blas_ms: float | None
    compared_with: str
    ratio: float
    required: float | None
    within: bool | None


@dataclass(frozen=True)
class Memory:
    """The most that a call with read noise allocates, its output among it, and the size of the output."""

    peak_bytes: int
    output_bytes: int
    ratio: float
    limit: float


def expected_sums(case: Case, size: Size, simulated: NumpyCrossbar | None) -> NDArray[np.int64]:
    """What all must agree on."""
    if simulated is not None:
        return simulated.sums()
    if case.noise is None:
        raise ValueError("a case without noise has a simulation")
    return noisy_sums(
        codes(size), [case.plane], case.noise, tile_rows=size.tile_rows, fraction_bits=case.fraction_bits
    )


def measure(case: Case, size: Size, isas: Sequence[str], repeats: int) -> list[Row]:
    """Compare a case's bits with NumPy's on every instruction set, then time all of them.

    Raises:
        SystemExit: The bits differ.
    """
    simulated = simulation(case, size)
    expected = expected_sums(case, size, simulated)
    products = {isa: make_product(case, size, isa) for isa in isas}
    runs: dict[str, Callable[[], object]] = {}
    if simulated is not None:
        runs |= {"numpy": simulated, "blas": simulated.products_alone}
    for isa, product in products.items():
        call = runs[isa] = call_of(product, codes(size))
        different = int((call() != expected).sum())
        if different:
            raise SystemExit(
                f"error: {case.name}, {isa}: {different} of {expected.size} sums are not NumPy's"
            )
        if case.noiseless is not None:
            runs[f"noiseless {isa}"] = call_of(make_product(case.noiseless, size, isa), codes(size))
    ms = alternate(runs, repeats)
    return [_row(case, isa, product, ms) for isa, product in products.items()]


def _row(case: Case, isa: str, product: CrossbarProduct, ms: dict[str, float]) -> Row:
    if case.noiseless is None:
        compared, ratio, required = "NumPy", ms["numpy"] / ms[isa], case.least.get(isa)
        within = None if required is None else ratio >= required
    else:
        compared, ratio, required = "noiseless", ms[isa] / ms[f"noiseless {isa}"], case.most
        within = None if required is None else ratio <= required
    return Row(
        case=case.name,
        isa=isa,
        path=product.path,
        exact_share=product.exact_share,
        ours_ms=ms[isa],
        numpy_ms=ms.get("numpy"),
        blas_ms=ms.get("blas"),
        compared_with=compared,
        ratio=ratio,
        required=required,
        within=within,
    )


def measure_memory(case: Case, size: Size, isa: str) -> Memory:
    """The peak of what Python and NumPy allocate in a call; the kernels allocate nothing themselves."""
    product = make_product(case, size, isa)
    packed = product.pack(codes(size))

    def call() -> int:
        out = np.empty(size.rows * size.columns, np.int32)
        product(packed, size.rows, 0, out)
        return out.nbytes

    call()
    tracemalloc.start()
    output = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Memory(peak, output, peak / output, MOST_MEMORY)


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _verdict(within: bool | None) -> str:
    return "-" if within is None else "within" if within else "beyond"


def _required(row: Row) -> str:
    if row.required is None:
        return "-"
    return f"at {'least' if row.compared_with == 'NumPy' else 'most'} x {row.required:g}"


def show_rows(rows: Sequence[Row], size: Size) -> None:
    """Print the cases side by side."""
    columns = [
        "case", "isa", "path", "exact reads", "ours ms", "NumPy ms", "its BLAS ms", "NumPy / BLAS", "compared with",
        "ratio", "required", "",
    ]  # fmt: skip
    cells = [
        (
            row.case,
            row.isa,
            row.path,
            f"{100 * row.exact_share:.0f} %",
            _ms(row.ours_ms),
            _ms(row.numpy_ms),
            _ms(row.blas_ms),
            "-" if row.numpy_ms is None or row.blas_ms is None else f"x {row.numpy_ms / row.blas_ms:.2f}",
            row.compared_with,
            f"x {row.ratio:.2f}",
            _required(row),
            _verdict(row.within),
        )
        for row in rows
    ]
    what = f"{size.rows} x {size.depth} x {size.columns}, 3-bit weights, eight 1-bit passes, 8-bit ADC, one thread"
    table(what, columns, cells, left=3)
    shares = [row.numpy_ms / row.blas_ms for row in rows if row.numpy_ms and row.blas_ms]
    if shares:
        say(
            f"NumPy's simulation takes at most {max(shares):.2f} times its BLAS products' time, of "
            f"{MOST_OF_BLAS:g} allowed: {_verdict(max(shares) <= MOST_OF_BLAS)}"
        )


def show_rest(clipped: float, memory: Memory, programming: Programming) -> None:
    """Print what is no row."""
    say(
        f"{100 * clipped:.0f} % of the conversions clip in the clipping cases",
        f"peak memory of the call with read noise: {memory.peak_bytes / 2**20:.1f} MiB, {memory.ratio:.1f} times its "
        f"output, of {memory.limit:g} allowed: {_verdict(memory.ratio < memory.limit)}",
        f"programming {programming.tiles} tiles of {programming.rows} x {programming.columns} with wire resistance, "
        f"{programming.threads} threads: {programming.seconds:.1f} s, of {programming.limit:g} allowed: "
        f"{_verdict(programming.seconds <= programming.limit)}",
        "",
    )


def show_limits(limits: Sequence[ExactLimit]) -> None:
    """Print how far the case that cannot clip is from the processor's peak."""
    table(
        "Nothing can clip: the exact integer product, and the processor's peak",
        [
            "isa",
            "crossbar ms",
            "exact product ms",
            "multiplies by",
            "peak GMAC/s",
            "at peak ms",
            "NumPy / that",
        ],
        [
            (
                limit.isa,
                _ms(limit.crossbar_ms),
                _ms(limit.exact_ms),
                limit.instruction or "several",
                "-" if limit.peak_gmacs is None else f"{limit.peak_gmacs:,.0f}",
                _ms(limit.least_ms),
                "-" if limit.most_ratio is None else f"x {limit.most_ratio:.1f}",
            )
            for limit in limits
        ],
    )
    say("No kernel of this instruction passes the last ratio on this processor.", "")


def show_net(name: str, rows: Sequence[NetRow]) -> None:
    """Print the network's rows."""
    table(
        f"MNIST CNN, {rows[0].images:,} images of {name}",
        ["executor", "isa", "threads", "seconds", "images/s", "correct"],
        [
            (
                row.executor,
                row.isa,
                str(row.threads),
                f"{row.seconds:.2f}",
                f"{row.images_per_second:,.0f}",
                percent(row.correct, row.images),
            )
            for row in rows
        ],
        left=2,
    )


def show_machine(machine: Machine, blas: Blas, asked: Sequence[str], used: Sequence[str]) -> None:
    """Print what is measured on, and what it lacks."""
    libraries = ", ".join(f"{name} {machine.versions.get(name, '?')}" for name in ("numpy", "numba"))
    say(
        f"{machine.processor}, {machine.cores} cores, load {machine.load:.2f}; {libraries}",
        f"NumPy's BLAS: {blas.library}, kernels for {blas.kernel}, {blas.threads} thread",
        *(f"  {name}={value}" for name, value in blas.variables.items()),
        *machine.missing,
    )
    if missing := [name for name in asked if name not in used]:
        say(f"{', '.join(missing)} was asked for; measured with {', '.join(used)}")
    say("")


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crossbar",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--isa", nargs="+", choices=instruction_sets.NAMES, help="by default all that there are"
    )
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS, help="timings behind a median")
    parser.add_argument("--images", type=int, default=IMAGES, help="that the network classifies")
    parser.add_argument("--threads", type=int, help="of the network; by default all processors")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args(given)
    for name, least in (("repeats", LEAST_REPEATS), ("images", 1), ("threads", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            parser.error(f"--{name} {value}: expected at least {least}")
    return arguments


def run(arguments: argparse.Namespace, blas: Blas, size: Size) -> None:
    """Measure everything and print it."""
    machine = describe_machine()
    asked = arguments.isa or machine.instruction_sets
    isas = [name for name in asked if name in machine.instruction_sets] or [machine.instruction_sets[0]]
    if not arguments.json:
        show_machine(machine, blas, asked, isas)
    with progress_bar("crossbar") as progress:
        progress("programming tiles", 0.0)
        wired, programming = program_tiles(
            clipping_weights(size.depth, size.wired),
            FRACTION_BITS,
            rows=size.tile_rows,
            columns=size.tile_columns,
            threads=PROGRAMMING_THREADS,
            limit=PROGRAMMING_SECONDS,
        )
        measured, rows = cases(size, wired), []
        steps = len(measured) + 3
        for number, case in enumerate(measured, 1):
            progress(case.name, number / steps)
            rows += measure(case, size, isas, arguments.repeats)
        progress("the exact product", (steps - 2) / steps)
        (exact,) = (case for case in measured if case.certificate and case.noiseless is None)
        limits = measure_limits(exact, size, isas, arguments.repeats)
        (noisy,) = (case for case in measured if case.noise is not None)
        memory = measure_memory(noisy, size, isas[0])
        simulated = simulation(measured[0], size)
        clipped = 0.0 if simulated is None else simulated.clipped_share()
        progress("MNIST CNN", (steps - 1) / steps)
        name, net = measure_net(arguments.images, isas[0], arguments.threads or machine.cores)
    if arguments.json:
        about = {"machine": asdict(machine), "blas": asdict(blas), "repeats": arguments.repeats}
        figures = {"size": asdict(size), "clipped_share": clipped, "rows": [asdict(row) for row in rows]}
        figures["exact"] = [asdict(limit) for limit in limits]
        chip = {"memory": asdict(memory), "programming": asdict(programming)}
        print_json({**about, **figures, **chip, "images": name, "net": [asdict(row) for row in net]})
        return
    show_rows(rows, size)
    show_limits(limits)
    show_rest(clipped, memory, programming)
    show_net(name, net)


def main(given: Sequence[str] | None = None) -> None:
    """Measure every case and print tables, or JSON."""
    arguments = _arguments(given)
    try:
        with one_blas_thread() as blas:
            run(arguments, blas, SIZE)
    except OhmfoldError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
