"""Random networks in every native witness, added up by witness.

The networks are those that the tests draw (`tests/support/random_networks.py`, by Hypothesis): convolutions of all
sorts, pooling, batch norms, residual sums, concatenations, tables, dense layers, at 1 to 8 bits. Every other one is
compiled with power-of-two scales where it can be, so that the forms which compute with reals take part.
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

import ohmfold
from ohmfold.errors import UnsupportedError
from ohmfold.toolchain.cli.output import progress_bar, say, table
from ohmfold.toolchain.verify import SharedTwin, make_inputs, verify, witnesses_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx
    from numpy.typing import NDArray

    from ohmfold.toolchain.artifact import Artifact
    from ohmfold.toolchain.verify import VerifyReport, Witness

__all__ = ["RandomOutcome", "show_random", "verify_random"]

IMAGES = 24
REASONS = 4
_QUOTED = re.compile("'[^']*'")
LEVELS = ("-O0", "-O1", "-O2", "-O3", "-O3 -march=native")
_SUPPORT = Path(ohmfold.__file__).resolve().parent / "tests/support"


@dataclass
class Total:
    """What one witness did over all networks."""

    networks: int = 0
    images: int = 0
    integers: int = 0
    floats: int = 0
    differing: int = 0
    skipped: int = 0
    first: str = ""
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class RandomOutcome:
    """All networks added up.

    Attributes:
        networks: How many were verified.
        powers_of_two: How many of them have power-of-two scales.
        unequal: How many are not equal in some witness.
        by_witness: Totals.
        seconds: How long it took.
    """

    networks: int = 0
    powers_of_two: int = 0
    unequal: int = 0
    seconds: float = 0.0
    by_witness: dict[str, Total] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        """Whether there were networks, and no bit of any differs."""
        return self.networks > 0 and not self.unequal

    def document(self) -> dict[str, Any]:
        """The outcome as JSON has it."""
        return asdict(self)

    def add(self, report: VerifyReport, number: int) -> None:
        """Add one network's report."""
        self.networks += 1
        self.unequal += not report.equal
        for row in report.rows:
            total = self.by_witness.setdefault(row.witness, Total())
            total.networks += 1
            total.images += row.images
            total.integers += row.integers
            total.floats += row.floats
            total.differing += row.differing
            if not row.equal and not total.first:
                total.first = f"network {number}: {row.fault}"
        for skip in report.skipped:
            total = self.by_witness.setdefault(skip.witness, Total())
            total.skipped += 1
            total.reasons[_QUOTED.sub("'...'", skip.reason)] += 1


def verify_random(count: int, seed: int = 0, seconds: float | None = None) -> RandomOutcome:
    """Verify `count` networks, or as many as are begun within some seconds."""
    outcome, start, numbers = RandomOutcome(), time.perf_counter(), itertools.count()
    with progress_bar("random networks") as progress:

        def one(model: onnx.ModelProto, images: NDArray[Any], settings: dict[str, Any]) -> None:
            if seconds is not None and time.perf_counter() - start > seconds:
                return
            number = next(numbers)
            progress(f"network {number}", number / count)
            artifact, powers = _compiled(model, images, settings, power_of_two=number % 2 == 1)
            twin = SharedTwin(artifact.program)
            inputs = make_inputs(artifact.program, IMAGES, images, seed=number, twin=twin)
            report = verify(artifact, inputs, list(_native(witnesses_of(artifact, twin), number)))
            outcome.add(report, number)
            outcome.powers_of_two += powers

        _draw(count, seed, one)
    outcome.seconds = time.perf_counter() - start
    return outcome


def _draw(
    count: int, seed: int, take: Callable[[onnx.ModelProto, NDArray[Any], dict[str, Any]], None]
) -> None:
    """Draw networks and recipes, always the same ones of a seed, and hand them on."""
    sys.path.insert(0, str(_SUPPORT))
    try:
        from hypothesis import HealthCheck, Phase, given, settings
        from hypothesis import seed as hypothesis_seed
        from random_networks import networks, recipes
    finally:
        sys.path.remove(str(_SUPPORT))

    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(networks(), recipes())
    def draw(drawn: tuple[onnx.ModelProto, NDArray[Any]], recipe: dict[str, Any]) -> None:
        take(*drawn, recipe)

    draw()


def _compiled(
    model: onnx.ModelProto, images: NDArray[Any], settings: dict[str, Any], *, power_of_two: bool
) -> tuple[Artifact, bool]:
    """The artifact, and whether its scales are powers of two."""
    if power_of_two:
        try:
            recipe = ohmfold.Recipe(**{**settings, "scales": "pow2"})
            return ohmfold.compile(ir.from_proto(model), images, recipe), True
        except UnsupportedError:  # not every network can be brought to it
            pass
    return ohmfold.compile(ir.from_proto(model), images, ohmfold.Recipe(**settings)), False


def _native(witnesses: tuple[Witness, ...], number: int) -> Iterator[Witness]:
    """All but emulated processors; of gcc and clang one level each, in turn."""
    kept = {
        f"c99, gcc {LEVELS[number % len(LEVELS)]}",
        f"c99, clang {LEVELS[number // len(LEVELS) % len(LEVELS)]}",
    }
    for witness in witnesses:
        if (
            witness.group != "c99"
            or witness.name in kept
            or witness.name == "c99, gcc -O2, no floating point"
        ):
            yield witness


def show_random(outcome: RandomOutcome) -> None:
    """Print the totals."""
    columns = [
        "witness",
        "networks",
        "skipped",
        "images",
        "integers",
        "floats",
        "differing",
        "first difference",
    ]
    rows = [
        (
            name,
            *(f"{getattr(total, field_name):,}" for field_name in columns[1:7]),
            total.first,
        )
        for name, total in outcome.by_witness.items()
    ]
    table("Random networks", columns, rows)
    groups: dict[str, Counter[str]] = {}
    for name, total in outcome.by_witness.items():
        groups.setdefault(name.split(",")[0], Counter()).update(total.reasons)
    for group, reasons in groups.items():
        say(
            *(
                f"{group} skipped {number:,} times: {reason}"
                for reason, number in reasons.most_common(REASONS)
            )
        )
    integers = sum(total.integers for total in outcome.by_witness.values())
    say(
        f"{outcome.networks} networks ({outcome.powers_of_two} with power-of-two scales), {integers:,} integers, "
        f"{outcome.unequal} networks not equal, {outcome.seconds:.0f} s"
    )
