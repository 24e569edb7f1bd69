"""A study of chips: how accurate an artifact is on many chips of one hardware profile, on the same images.

A chip is a seed: programming errors, stuck cells and read noise are drawn from it. A study takes the chips
`seed .. seed + count - 1`. A sweep takes them for every value of one field of the profile: the same seeds again, so
that two points differ by the field and not by the luck of the draw.

Chips that are finished are kept in their order, under a key of all that their results depend on. A study that was
killed goes on where it stopped and ends with the same lines and the same result, however many chips are run at a time.
"""

from __future__ import annotations

import json
import statistics
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from threading import Event, Lock
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from ..errors import OhmfoldError
from .chip_folder import ChipKey, FinishedChips
from .emulator import Emulator
from .judged import as_input, emulated, in_batches, pixels_sha256
from .record_file import Record
from .run_record import DatasetRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..models.image_data import Dataset
    from .artifact import Artifact
    from .hardware import Hardware, Sweep

__all__ = ["LAST_SEED", "Chip", "ChipStudy", "Point", "study"]

SCHEMA: Final = 1
LAST_SEED = 2**63 - 1
"""The largest seed of a chip: what 64 bits hold."""

# Images at a time, for the progress alone.
_BATCH_SIZE = 250
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Count = Annotated[int, Field(ge=0)]


class Chip(Record):
    """One chip: its seed, and how many of the images it classifies correctly."""

    seed: Count
    correct: Count


class Point(Record):
    """All chips of one profile. Accuracies are shares of the images, 0 to 1.

    Attributes:
        value: Of the swept field; null without a sweep, and where the field has no value.
        profile_sha256: SHA-256 of the profile as TOML.
        mean: Mean of the chips' accuracies.
        standard_deviation: Of the chips' accuracies, with n - 1 in the denominator; null for one chip.
        quantiles: Accuracies that 5, 25, 50, 75 and 95 percent of the chips do not reach, under "0.05" to "0.95";
            between two chips, interpolated linearly.
        worst: The chip with the lowest accuracy, of several the one with the lowest seed.
        best: The chip with the highest accuracy, likewise.
        chips: Every chip, by seed.
    """

    value: int | float | str | None
    profile_sha256: str
    mean: float
    standard_deviation: float | None
    quantiles: dict[str, float]
    worst: Chip
    best: Chip
    chips: tuple[Chip, ...]


class ChipStudy(Record):
    """What a study found: `chips.json` has these keys.

    Attributes:
        schema_version: 1.
        ohmfold: Version of the package.
        artifact_sha256: The model.
        data: The images that judge: name, number, SHA-256 of pixels and labels.
        calibration_sha256: SHA-256 of the images that calibrate converters; null where none is calibrated.
        hardware: Name of the profile.
        profile_sha256, profile_toml: The profile, before a sweep changes its field.
        seed, count: The chips are `seed .. seed + count - 1`.
        field: The swept field; null without a sweep.
        exact_correct: How many of the images the exact integers classify correctly.
        points: One without a sweep, else one for each value, in the order given.
    """

    schema_version: Literal[1] = SCHEMA
    ohmfold: str
    artifact_sha256: str
    data: DatasetRecord
    calibration_sha256: str | None
    hardware: str
    profile_sha256: str
    profile_toml: str
    seed: Count
    count: Count
    field: str | None
    exact_correct: Count
    points: tuple[Point, ...]

    def to_json(self) -> str:
        """Return the study as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def study(
    artifact: Artifact,
    hardware: Hardware,
    data: Dataset,
    *,
    count: int = 50,
    seed: int = 0,
    sweep: Sweep | None = None,
    calibration: Dataset | None = None,
    jobs: int = 1,
    finished: FinishedChips | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> ChipStudy:
    """Run an artifact on many chips of a profile.

    Args:
        artifact: An integer model.
        hardware: The profile.
        data: The images that judge (see `judged_images`).
        count: How many chips.
        seed: Of the first one.
        sweep: A field of the profile, and its values.
        calibration: Images for converters whose range is calibrated.
        jobs: How many chips are run at a time, each on one thread; 1: one after another, each on all processors.
        finished: Chips that need not be run again; those that are run are added.
        progress: Called, from any thread, with what is done in words, and the share of what this call has to do.

    Raises:
        HardwareError: A value is not one of the field's, or a profile cannot hold the artifact.
        DataError: The images are not those of the artifact.
        OhmfoldError: There is not one chip or not one job, or a seed has more than 63 bits.
        OutputError: A finished chip cannot be written down.
    """
    if count < 1 or jobs < 1:
        raise OhmfoldError(f"found {count} chips, {jobs} at a time; expected at least one of both")
    if not 0 <= seed <= LAST_SEED - count + 1:
        raise OhmfoldError(f"found {count} chips from seed {seed} on; expected seeds from 0 to {LAST_SEED}")
    profiles = (hardware,) if sweep is None else sweep.profiles(hardware)
    values = (None,) if sweep is None else sweep.values
    bench = _Bench(artifact, data, calibration, 1 if jobs > 1 else None)
    finished = FinishedChips() if finished is None else finished
    seeds = range(seed, seed + count)
    left = [
        (profile, number)
        for profile in profiles
        for number in seeds
        if bench.key(profile, number) not in finished
    ]
    exact = bench.exact_correct()
    share = _Share(progress, len(left), count * len(profiles))

    def keep(chip: tuple[Hardware, int], correct: int) -> None:
        finished.add(bench.key(*chip), len(data), correct)

    _each_in_order(left, lambda chip, tell: bench.correct(*chip, tell), keep, jobs, share)
    return ChipStudy(
        ohmfold=bench.version,
        artifact_sha256=artifact.sha256,
        data=DatasetRecord(name=data.name, images=len(data), sha256=bench.data_sha256),
        calibration_sha256=next(
            (bench.calibrating(profile) for profile in profiles if profile.calibrated), None
        ),
        hardware=hardware.name,
        profile_sha256=hardware.sha256,
        profile_toml=hardware.to_toml(),
        seed=seed,
        count=count,
        field=None if sweep is None else sweep.field,
        exact_correct=exact,
        points=tuple(
            _point(
                value,
                profile.sha256,
                [Chip(seed=number, correct=finished[bench.key(profile, number)]) for number in seeds],
                len(data),
            )
            for value, profile in zip(values, profiles, strict=True)
        ),
    )


class _Bench:
    """What all chips of a study have in common: the artifact and the images."""

    def __init__(
        self, artifact: Artifact, data: Dataset, calibration: Dataset | None, threads: int | None
    ) -> None:
        spec = artifact.program.inputs[0]
        self._artifact = artifact
        self._labels = data.labels
        self._pixels = as_input(data.images, spec)
        self._calibration = None if calibration is None else as_input(calibration.images, spec)
        self._calibration_sha256 = None if calibration is None else pixels_sha256(calibration.images)
        self._threads = threads
        fixed = artifact.program.batch or 1
        self._batch_size = max(1, _BATCH_SIZE // fixed) * fixed
        self.data_sha256 = data.sha256()
        self.version = metadata.version("ohmfold")

    def calibrating(self, profile: Hardware) -> str | None:
        """SHA-256 of the images that calibrate a profile's converters."""
        return self._calibration_sha256 if profile.calibrated else None

    def key(self, profile: Hardware, seed: int) -> ChipKey:
        """What a chip's result depends on."""
        return ChipKey(
            artifact=self._artifact.sha256,
            profile=profile.sha256,
            calibration=self.calibrating(profile),
            data=self.data_sha256,
            ohmfold=self.version,
            seed=seed,
        )

    def exact_correct(self) -> int:
        """How many images the exact integers classify correctly."""
        return self._count(
            in_batches(Emulator(self._artifact).predict, self._pixels, batch_size=self._batch_size)
        )

    def correct(self, profile: Hardware, seed: int, tell: Callable[[float], None]) -> int:
        """How many images a chip classifies correctly."""
        chip = Emulator(
            self._artifact,
            threads=self._threads,
            hardware=profile,
            seed=seed,
            calibration=self._calibration,
            progress=lambda done, total: tell(0.0),  # noqa: ARG005 - a sign of life while tiles are solved
            keep_tiles=False,  # many chips, each of which is made once
        )
        return self._count(emulated(chip, self._pixels, tell, self._batch_size))

    def _count(self, classes: NDArray[np.int64]) -> int:
        return int(np.count_nonzero(classes == self._labels))


class _Share:
    """How much of a study is done, put together from chips that run side by side."""

    def __init__(self, progress: Callable[[str, float], None] | None, left: int, chips: int) -> None:
        self._progress = progress
        self._shares = [0.0] * left
        self._chips = chips
        self._lock = Lock()

    def tell(self, place: int, share: float) -> None:
        """Of one of the chips that were left, this share is done."""
        if self._progress is None:
            return
        with self._lock:
            self._shares[place] = share
            done = self._chips - len(self._shares) + sum(share >= 1.0 for share in self._shares)
            self._progress(f"{done} of {self._chips} chips", sum(self._shares) / len(self._shares))


class _Stopped(Exception):  # noqa: N818 - nothing is wrong: the result is not wanted any more
    """Tells a chip that runs beside others that they have ended."""


def _each_in_order(
    chips: Sequence[tuple[Hardware, int]],
    run: Callable[[tuple[Hardware, int], Callable[[float], None]], int],
    keep: Callable[[tuple[Hardware, int], int], None],
    jobs: int,
    share: _Share,
) -> None:
    """Run chips, some at a time, and keep their results in their order.

    Threads do: what takes long releases the interpreter's lock, and nothing has to be sent to them.
    """
    stop = Event()

    def one(place: int) -> int:
        def tell(done: float) -> None:
            if stop.is_set():
                raise _Stopped
            share.tell(place, done)

        tell(0.0)
        return run(chips[place], tell)

    if jobs == 1:
        for place, chip in enumerate(chips):
            keep(chip, one(place))
        return
    with ThreadPoolExecutor(jobs, "ohmfold-chips") as pool:
        futures = [pool.submit(one, place) for place in range(len(chips))]
        try:
            for chip, future in zip(chips, futures, strict=True):
                keep(chip, future.result())
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _point(value: Any, profile_sha256: str, chips: Sequence[Chip], images: int) -> Point:
    """Put the figures of a point together; exact fractions are rounded once."""
    correct = sorted(chip.correct for chip in chips)
    return Point(
        value=value,
        profile_sha256=profile_sha256,
        mean=sum(correct) / (len(correct) * images),
        standard_deviation=statistics.stdev(correct) / images if len(correct) > 1 else None,
        quantiles={str(share): _quantile(correct, share) / images for share in _QUANTILES},
        worst=min(chips, key=lambda chip: (chip.correct, chip.seed)),
        best=min(chips, key=lambda chip: (-chip.correct, chip.seed)),
        chips=tuple(chips),
    )


def _quantile(ordered: Sequence[int], share: float) -> float:
    """Of n numbers in order, the one at place `share * (n - 1)`, between two of them in proportion."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
