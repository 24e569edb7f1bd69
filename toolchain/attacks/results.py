"""`CampaignResult`: what a campaign found, `result.json`. Every figure that is printed or drawn comes from here.

Accuracies are counts of images, so that nothing is rounded; shares and their 95 % Wilson intervals stand beside
them. Images that the judge got wrong before any attack count as wrong everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, Self

import numpy as np
from pydantic import Field

from ..analysis.intervals import wilson
from ..record_file import Record, RecordFile
from ..run_record import DatasetRecord, VerdictRow  # noqa: TC001 - pydantic reads the annotations
from .epsilon import PIXEL_HIGH, distances, inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .epsilon import Norm
    from .outcome import AttackResult

__all__ = [
    "AtRadius",
    "AttackRecord",
    "CampaignResult",
    "Distances",
    "JudgeRecord",
    "Queries",
    "Share",
    "Skipped",
    "SuiteRecord",
    "WorstCase",
    "fooled_within",
]

SCHEMA: Final = 1
RESULT = "result.json"

Count = Annotated[int, Field(ge=0)]
Radius = Annotated[float, Field(ge=0)]


class Share(Record):
    """How many of the images are still classified correctly, as a count, a share and its 95 % interval."""

    images: Count
    correct: Count
    accuracy: float
    low: float
    high: float

    @classmethod
    def of(cls, right: NDArray[np.bool_]) -> Self:
        """Count what is right, bool `(N,)`."""
        images, correct = len(right), int(np.count_nonzero(right))
        low, high = wilson(correct, images)
        return cls(images=images, correct=correct, accuracy=correct / max(1, images), low=low, high=high)


class JudgeRecord(Record):
    """Who judged: `emulator`, `onnxruntime` or `crossbar`; of a chip, its profile as TOML, its hash and its seed."""

    name: str
    hardware: str | None = None
    profile_sha256: str | None = None
    profile_toml: str | None = None
    seed: Count | None = None


class SuiteRecord(Record):
    """A suite that ran: name, title, where its strengths are from, the SHA-256 of its TOML file."""

    name: str
    title: str
    source: str
    cascade: bool
    sha256: str


class Skipped(Record):
    """An attack of a suite that did not run, and why."""

    suite: str
    name: str
    reason: str


class AtRadius(Record):
    """What is left at one L2 radius, in pixel codes and in units of the pixel range."""

    radius: Radius
    epsilon: Radius
    left: Share


class Distances(Record):
    """Distances, in codes and in the attack's own norm, of the images that an attack turned from right to wrong."""

    norm: Literal["inf", "2"]
    least: float
    median: float
    mean: float
    most: float


class Queries(Record):
    """What a query attack asked of the judge: in all, and of the images that it turned, the median."""

    total: Count
    median_of_turned: float | None


class AttackRecord(Record):
    """One attack.

    Attributes:
        key: Name of its adversarial set and of its row in tables, unique in the campaign.
        suite, name: Where it is from.
        attack: Its name in the catalogue.
        source: Whose gradient it followed: `twin`, `parent`, `unmapped`, `substitute:NAME`; `queries`, `none`.
        norm: `inf`, `2`, or `none` where nothing bounds the change.
        radius: In pixel codes (norm `none`: the strength that the attack made of it).
        epsilon: The same in units of the pixel range.
        parameters: Its settings as they were used.
        note: What the suite tells of them.
        cascade: Whether it was run on those images alone that withstood the suite's earlier attacks; `left` then
            counts what withstood all of these.
        attacked: How many images it attacked.
        turned: How many it turned from right to wrong.
        left: What is still right.
        kept_earlier: Of how many images an earlier iterate was kept, since the last one failed.
        distances: Of those turned; None where none was.
        at_radii: What is left at stated L2 radii.
        queries: None where the attack does not ask the judge.
        adversarial: File of the adversarial set, in the campaign's folder.
    """

    key: str
    suite: str
    name: str
    attack: str
    source: str
    norm: Literal["inf", "2", "none"]
    radius: Radius
    epsilon: Radius
    parameters: dict[str, Any]
    note: str
    cascade: bool
    attacked: Count
    turned: Count
    left: Share
    kept_earlier: Count
    distances: Distances | None
    at_radii: tuple[AtRadius, ...]
    queries: Queries | None
    adversarial: str | None


class WorstCase(Record):
    """What withstood every attack: an image counts if no attack found a misclassified image within the ball of it.

    Images of stronger or unbounded attacks count too, where they happen to lie within the ball.

    Attributes:
        norm, radius, epsilon: The ball.
        left: What is left.
        by: How many images each attack turned first, by its key.
    """

    norm: Literal["inf", "2"]
    radius: Radius
    epsilon: Radius
    left: Share
    by: dict[str, Count]


class CampaignResult(RecordFile):
    """Everything that a campaign found: `result.json` has these keys.

    Attributes:
        schema_version: 1.
        artifact_sha256: Of the model file that was judged.
        data: The images that were attacked.
        left_out: How many others of the set calibrated the artifact.
        judge: Who judged.
        seed: Of everything random.
        norm, radius: The campaign's ball, in codes.
        suites: Those that ran.
        clean: Before any attack.
        attacks: In the order in which they ran.
        skipped: Attacks that could not run.
        worst_case: For every ball that an attack was bound by.
        verdict: Whether to trust these figures, with its evidence; None where it was not asked for.
        versions: Of everything that the figures depend on.
        seconds: What each attack took; the only figures that differ between two equal runs.
    """

    file_name: ClassVar[str] = RESULT
    kind: ClassVar[str] = "the result of attacks"
    folder_of: ClassVar[str] = "the folder of `ohmfold attack --out`"

    schema_version: Literal[1] = SCHEMA
    artifact_sha256: str
    data: DatasetRecord
    left_out: Count
    judge: JudgeRecord
    seed: Count
    norm: Literal["inf", "2"]
    radius: Radius
    suites: tuple[SuiteRecord, ...]
    clean: Share
    attacks: tuple[AttackRecord, ...]
    skipped: tuple[Skipped, ...]
    worst_case: tuple[WorstCase, ...]
    verdict: VerdictRow | None
    versions: dict[str, str]
    seconds: dict[str, float] = Field(default_factory=dict)

    @property
    def robust(self) -> WorstCase:
        """What is left within the campaign's own ball."""
        return next(row for row in self.worst_case if row.norm == self.norm and row.radius == self.radius)


def fooled_within(result: AttackResult, norm: Norm, radius: float) -> NDArray[np.bool_]:
    """Return the images that are misclassified within a ball, those that were so without an attack included."""
    near = inside(result.adversarial, result.original, radius, norm)
    return np.asarray((result.success & near) | (result.clean_predictions != result.labels))


def worst_case(
    results: Sequence[tuple[str, AttackResult]], norm: Literal["inf", "2"], radius: float
) -> WorstCase:
    """Return what withstood every attack within a ball.

    Args:
        results: Keys and results, of the same images, in the order in which the attacks ran; at least one.
        norm: Of the ball.
        radius: Of the ball, in codes.
    """
    first = results[0][1]
    standing = np.asarray(first.clean_predictions == first.labels)
    by = {}
    for key, result in results:
        fallen = standing & fooled_within(result, norm, radius)
        by[key] = int(np.count_nonzero(fallen))
        standing = standing & ~fallen
    return WorstCase(norm=norm, radius=radius, epsilon=radius / PIXEL_HIGH, left=Share.of(standing), by=by)


def at_radius(result: AttackResult, epsilon: float) -> AtRadius:
    """Return what is left where images count only within an L2 radius, given in units of the pixel range."""
    radius = epsilon * PIXEL_HIGH
    return AtRadius(radius=radius, epsilon=epsilon, left=Share.of(~fooled_within(result, "2", radius)))


def distances_of(result: AttackResult, norm: Literal["inf", "2"]) -> Distances | None:
    """Return how far the images lie that an attack turned; None where it turned none."""
    turned = result.success & (result.clean_predictions == result.labels)
    if not turned.any():
        return None
    far = distances(result.adversarial[turned], result.original[turned], norm)
    return Distances(
        norm=norm,
        least=float(far.min()),
        median=float(np.median(far)),
        mean=float(far.mean()),
        most=float(far.max()),
    )
