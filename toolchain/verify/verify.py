"""Run images through every witness and compare all that they show, bit by bit.

What is expected comes from the int64 NumPy reference, which shares no code with any kernel. It is slow; so it runs
the first images of the mixed set, and of the others the emulator's own trace is expected: the emulator is itself a
witness of the reference on the first ones. Nothing is compared with itself.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import DataError, MissingDependencyError, OhmfoldError
from ..comparison import compare
from ..emulator import Emulator
from ..judged import as_input
from ..reference import run_reference
from ..runs import machine, versions
from .report import FirstDifference, SkippedWitness, VerifyReport, WitnessRow
from .witness_base import FAST, REFERENCE_PACE, SLOW
from .witnesses import EmulatorWitness, comparable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ..artifact import Artifact
    from ..comparison import Difference
    from ..program import Program
    from .inputs import Inputs
    from .witness_base import Witness

    Tensors = dict[str, NDArray[Any]]
    Progress = Callable[[str, float], None]

__all__ = ["REFERENCE_IMAGES", "SLOW_IMAGES", "verify"]

REFERENCE_IMAGES = 64
"""How many images the reference runs, where nothing else is asked for: 5 to 20 s for networks of CIFAR-10's size."""

SLOW_IMAGES = 10
"""How many images slow witnesses run: emulated processors, the reference evaluator."""

BATCH = 64


@dataclass
class _Tally:
    """A witness's row while it grows."""

    witness: Witness
    limit: int
    images: int = 0
    tensors: set[str] = field(default_factory=set)
    integers: int = 0
    floats: int = 0
    differing: int = 0
    missing: dict[str, None] = field(default_factory=dict)
    first: FirstDifference | None = None
    error: str | None = None
    seconds: float = 0.0

    def row(self) -> WitnessRow:
        return WitnessRow(
            witness=self.witness.name,
            group=self.witness.group,
            promise=self.witness.promise,
            images=self.images,
            tensors=len(self.tensors),
            integers=self.integers,
            floats=self.floats,
            differing=self.differing,
            missing=tuple(self.missing),
            not_computed=dict(self.witness.not_computed),
            first=self.first,
            error=self.error,
            seconds=round(self.seconds, 3),
        )


def verify(
    artifact: Artifact,
    inputs: Inputs,
    witnesses: Sequence[Witness],
    *,
    reference_images: int = REFERENCE_IMAGES,
    slow_images: int = SLOW_IMAGES,
    file: str | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Compare every witness with the reference, on the same images.

    Args:
        artifact: What is verified.
        inputs: The images, mixed: the first ones go to the reference and to slow witnesses.
        witnesses: Who runs them.
        reference_images: How many images the reference runs, at least 1.
        slow_images: How many images slow witnesses run, at least 1.
        file: The artifact's file, for the report.
        progress: Told the step and the share that is done.

    Raises:
        DataError: A number of images is below 1.
        MissingDependencyError: No witness can run; says why the first cannot.
        RangeError: An accumulator of the program leaves int32: no witness could follow.
        UnsupportedError: The program holds a layer that the reference does not know.
    """
    if reference_images < 1 or slow_images < 1:
        raise DataError(
            f"found {reference_images} images for the reference and {slow_images} for slow witnesses, "
            "expected at least 1 of each"
        )
    program, count = artifact.program, len(inputs.images)
    step = program.batch or 1
    known = _round_up(min(reference_images, count), step)
    few = _round_up(min(slow_images, count), step)
    yardstick = Emulator(program)
    tallies, skipped = _available(witnesses, yardstick, count, known, few)
    if not tallies:
        raise MissingDependencyError(
            f"no witness can run: {skipped[0].witness}: {skipped[0].reason}"
            if skipped
            else "no witness was given"
        )
    if known < count and not any(_is_trace_of(tally.witness, yardstick) for tally in tallies):
        # What is expected of the later images is compared with the reference on the first, asked for or not.
        tallies.insert(0, _Tally(EmulatorWitness(program, yardstick.isa, fused=False), known))
    try:
        _run(program, yardstick, tallies, inputs, (count, known, few), progress)
    finally:
        for tally in tallies:
            tally.witness.close()
    return VerifyReport(
        file=file,
        sha256=artifact.sha256,
        versions=versions(),
        machine=machine(),
        seed=inputs.seed,
        images=count,
        kinds=dict(inputs.counts),
        yardstick=_yardstick(known, count, yardstick.isa),
        reference_images=known,
        rows=tuple(tally.row() for tally in tallies),
        skipped=skipped,
        bounds=inputs.bounds,
        ties=inputs.ties,
        search_seconds=round(inputs.search_seconds, 3),
        notes=inputs.notes,
    )


def _run(
    program: Program,
    yardstick: Emulator,
    tallies: Sequence[_Tally],
    inputs: Inputs,
    numbers: tuple[int, int, int],
    progress: Progress | None,
) -> None:
    """Batch after batch: what is expected, then every witness that still runs."""
    count, known, few = numbers
    report = progress or (lambda step, share: None)  # noqa: ARG005
    total, done = sum(tally.limit for tally in tallies) + known, 0
    for start, stop in _cuts(count, known, few, program.batch):
        running = [tally for tally in tallies if start < tally.limit and tally.error is None]
        if not running:
            continue
        images = inputs.images[start:stop]
        if start < known:
            report("int64 NumPy reference", done / total)
        expected = _expected(program, yardstick, images, by_reference=start < known)
        done += (stop - start) * (start < known)
        for tally in running:
            report(tally.witness.name, done / total)
            _judge(tally, expected, images, start, inputs.kinds)
            done += stop - start


def _available(
    witnesses: Sequence[Witness], yardstick: Emulator, count: int, known: int, few: int
) -> tuple[list[_Tally], tuple[SkippedWitness, ...]]:
    """Who runs on how many images, and who does not, with the reason."""
    limits = {FAST: count, REFERENCE_PACE: known, SLOW: few}
    tallies, skipped = [], []
    for witness in witnesses:
        limit = limits[witness.pace]
        if _is_trace_of(witness, yardstick):
            limit = min(limit, known)
        tally = _Tally(witness, limit)
        start = time.perf_counter()
        try:
            reason = witness.unavailable()
        except OhmfoldError as error:
            reason, tally.error = None, _one_line(error)
        tally.seconds = time.perf_counter() - start
        if reason is None:
            tallies.append(tally)
        else:
            skipped.append(SkippedWitness(witness=witness.name, group=witness.group, reason=reason))
    return tallies, tuple(skipped)


def _is_trace_of(witness: Witness, yardstick: Emulator) -> bool:
    return isinstance(witness, EmulatorWitness) and witness.is_trace_of(yardstick)


def _one_line(error: OhmfoldError) -> str:
    """What a compiler says takes many lines, and a cell of a table holds one."""
    return " ".join(str(error).split())


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _yardstick(known: int, count: int, isa: str) -> str:
    if known >= count:
        return f"int64 NumPy reference on all {count} images"
    return (
        f"int64 NumPy reference on the first {known} images, the emulator ({isa}, every tensor apart) on the other "
        f"{count - known}; the emulator is compared with the reference on the first {known}"
    )


def _cuts(count: int, known: int, few: int, fixed: int | None) -> Iterator[tuple[int, int]]:
    """Batches that end where a witness or the reference does: one image first, where the batch is free."""
    if fixed is not None:
        yield from ((start, start + fixed) for start in range(0, count, fixed))
        return
    ends = sorted({1, few, known, count, *range(BATCH, count, BATCH)})
    yield from zip([0, *ends], ends, strict=False)


def _expected(
    program: Program, yardstick: Emulator, images: NDArray[np.uint8], *, by_reference: bool
) -> Tensors:
    pixels, names = as_input(images, program.inputs[0]), comparable(program)
    if not by_reference:
        return yardstick.trace(pixels, names)
    computed = run_reference(program, {program.inputs[0].name: pixels})
    return {name: computed[name] for name in names}


def _judge(
    tally: _Tally, expected: Tensors, images: NDArray[np.uint8], start: int, kinds: tuple[str, ...]
) -> None:
    """Run a witness on some images and add what the comparison finds."""
    before = time.perf_counter()
    try:
        found = tally.witness.run(images)
        wanted = set(tally.witness.must_show(expected))
    except OhmfoldError as error:
        tally.error = _one_line(error)
        return
    finally:
        tally.seconds += time.perf_counter() - before
    shown = {name: array for name, array in expected.items() if name in wanted or name in found}
    comparison = compare(shown, found)
    tally.images += len(images)
    tally.tensors.update(name for name in shown if name in found)
    tally.integers += comparison.integers
    tally.floats += comparison.floats
    tally.differing += comparison.differing
    tally.missing.update(dict.fromkeys(comparison.missing))
    if tally.first is None and comparison.first is not None:
        per_image = expected[comparison.first.tensor].shape[:1] == (len(images),)
        tally.first = _first(comparison.first, start if per_image else None, kinds)


def _first(difference: Difference, start: int | None, kinds: tuple[str, ...]) -> FirstDifference:
    """The difference with its image among all of them."""
    index, image = difference.index, None
    if start is not None and index is not None:
        image, index = start + index[0], index[1:]
    return FirstDifference(
        tensor=difference.tensor,
        image=image,
        kind=None if image is None else kinds[image],
        index=index,
        expected=difference.expected,
        found=difference.got,
    )
