"""A study of chips: how accurate an artifact is on many chips of one hardware profile, on the same images.

A chip is a seed: programming errors, stuck cells and read noise are drawn from it. A study takes the chips
`seed .. seed + count - 1`. A sweep takes them for every value of one field of the profile: the same seeds again, so
that two points differ by the field and not by the luck of the draw.

Chips that are finished are kept in their order, under a key of all that their results depend on. A study that was
killed goes on where it stopped and ends with the same lines and the same result, whoever runs the chips.
"""

from __future__ import annotations

import json
import statistics
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field

from ..errors import OhmfoldError
from .chip_folder import ChipKey, FinishedChips
from .emulator import Emulator
from .jobs import Alone, Package, Parts, array_from, in_order
from .judged import as_input, emulated, in_batches, pixels_sha256
from .record_file import Record
from .run_record import DatasetRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..models.image_data import Dataset
    from .artifact import Artifact
    from .hardware import Hardware, Sweep
    from .jobs import Crew

__all__ = ["LAST_SEED", "Chip", "ChipBench", "ChipStudy", "Point", "read_bench", "study"]

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
    crew: Crew | None = None,
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
        crew: Who runs the chips; None: this process, one after another, each on all processors.
        finished: Chips that need not be run again; those that are run are added.
        progress: Called with what is done in words, and the share of what this call has to do.

    Raises:
        HardwareError: A value is not one of the field's, or a profile cannot hold the artifact.
        DataError: The images are not those of the artifact.
        OhmfoldError: There is not one chip, a seed has more than 63 bits, or workers fail (see `Crew.run`).
        OutputError: A finished chip cannot be written down.
    """
    if count < 1:
        raise OhmfoldError(f"found {count} chips; expected at least one")
    if not 0 <= seed <= LAST_SEED - count + 1:
        raise OhmfoldError(f"found {count} chips from seed {seed} on; expected seeds from 0 to {LAST_SEED}")
    profiles = (hardware,) if sweep is None else sweep.profiles(hardware)
    values = (None,) if sweep is None else sweep.values
    bench = ChipBench(artifact, profiles, data, calibration)
    finished = FinishedChips() if finished is None else finished
    seeds = range(seed, seed + count)
    left = [
        (place, number)
        for place, profile in enumerate(profiles)
        for number in seeds
        if bench.key(profile, number) not in finished
    ]
    exact = bench.exact_correct()
    share = _Share(progress, len(left), count * len(profiles))
    found = (Alone() if crew is None else crew).run(bench, left, share.tell)
    for (place, number), correct in zip(left, in_order(found), strict=True):
        finished.add(bench.key(profiles[place], number), len(data), correct)
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


class ChipBench:
    """What all chips of a study have in common: the artifact, the profiles and the images.

    A job is the place of a profile, and a seed.

    Args:
        artifact, data, calibration: As `study`.
        profiles: One, or those of a sweep.
        threads: Of each chip; None: all processors.
    """

    def __init__(
        self,
        artifact: Artifact,
        profiles: Sequence[Hardware],
        data: Dataset,
        calibration: Dataset | None,
        threads: int | None = None,
    ) -> None:
        spec = artifact.program.inputs[0]
        self._artifact, self._profiles = artifact, tuple(profiles)
        self._data, self._calibration = data, calibration
        self._pixels = as_input(data.images, spec)
        self._seen = None if calibration is None else as_input(calibration.images, spec)
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

    def name(self, job: tuple[int, int]) -> str:
        """Which chip it is, in words."""
        return f"chip {job[1]} of {self._profiles[job[0]].name}"

    def run(self, job: tuple[int, int], tell: Callable[[float], None]) -> int:
        """How many images a chip classifies correctly."""
        place, seed = job
        tell(0.0)
        chip = Emulator(
            self._artifact,
            threads=self._threads,
            hardware=self._profiles[place],
            seed=seed,
            calibration=self._seen,
            progress=lambda done, total: tell(0.0),  # noqa: ARG005 - a sign of life while tiles are solved
            keep_tiles=False,  # many chips, each of which is made once
        )
        return self._count(emulated(chip, self._pixels, tell, self._batch_size))

    def pack(self) -> Package:
        """Return what a worker makes the same bench of."""
        parts = Parts()
        arrays: dict[str, NDArray[Any]] = {"images": self._data.images, "labels": self._data.labels}
        if self._calibration is not None:
            arrays |= {"seen": self._calibration.images, "seen_labels": self._calibration.labels}
        values = {
            "artifact": parts.add(self._artifact.to_bytes()),
            "profiles": [profile.to_toml() for profile in self._profiles],
            "arrays": {name: parts.add_array(array) for name, array in arrays.items()},
            "data": self._data.name,
        }
        return Package(read_bench, values, parts.objects)

    def _count(self, classes: NDArray[np.int64]) -> int:
        return int(np.count_nonzero(classes == self._data.labels))


def read_bench(package: Package, threads: int) -> ChipBench:
    """Make the bench of a package, in a worker."""
    from ..models.image_data import Dataset
    from .artifact import Artifact, parse_model
    from .hardware import Hardware

    values = package.values
    arrays = {name: array_from(package.objects[digest]) for name, digest in values["arrays"].items()}
    seen = Dataset("calibration", arrays["seen"], arrays["seen_labels"]) if "seen" in arrays else None
    return ChipBench(
        Artifact(parse_model(package.objects[values["artifact"]], "the artifact")),
        [Hardware.from_toml(text) for text in values["profiles"]],
        Dataset(values["data"], arrays["images"], arrays["labels"]),
        seen,
        threads,
    )


class _Share:
    """How much of a study is done, put together from its chips."""

    def __init__(self, progress: Callable[[str, float], None] | None, left: int, chips: int) -> None:
        self._progress = progress
        self._shares = [0.0] * left
        self._chips = chips

    def tell(self, place: int, share: float) -> None:
        """Of one of the chips that were left, this share is done."""
        if self._progress is None:
            return
        self._shares[place] = share
        done = self._chips - len(self._shares) + sum(share >= 1.0 for share in self._shares)
        self._progress(f"{done} of {self._chips} chips", sum(self._shares) / len(self._shares))


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
