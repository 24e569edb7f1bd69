"""`RunRecord`: what a run found, as one validated JSON file that reports are made from.

A run folder holds `run.json` (this record), the artifacts it names, and the adversarial sets it names. Every
figure of a report comes from here, never from a log.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field

from .record_file import Record, RecordFile

__all__ = [
    "WORST_CASE",
    "AccuracyRow",
    "ArtifactRecord",
    "AttackRow",
    "DatasetRecord",
    "ExactnessRow",
    "FindingRow",
    "LayerRow",
    "RunRecord",
    "VerdictRow",
]

SCHEMA: Final = 2
RECORD_NAME = "run.json"
WORST_CASE = "worst case"
"""Name of the `AttackRow` that counts an image only if it withstands every attack of its variant."""

Count = Annotated[int, Field(ge=0)]


class DatasetRecord(Record):
    """The held-out images that were judged: name, how many, and the SHA-256 of pixels and labels."""

    name: str
    images: Count
    sha256: str


class LayerRow(Record):
    """One layer with weights.

    Attributes:
        name, kind: The layer's name and `conv` or `dense`.
        shape: Shape of the weight codes.
        options: Width, levels, step and granularity in words.
        codes, counts: The codes that occur, ascending, and how often.
        step_low, step_high: Smallest and largest step (equal for one step per tensor); None where a model
            made by others does not tell.
        bound: Proved bound of the accumulator's magnitude.
        exact_in_float32: Whether that bound is below 2**24.
        weight_snr_db: 10 log10(|W|^2 / |W - step q|^2); None for exact weights.
        spectral_error: Largest singular value of the weight error as a matrix (paper, Eq. 2, p = 2).
        infinity_error: Largest absolute row sum of the weight error (Eq. 2, p = infinity).
        activation_snr_db: Signal to error of the layer's output against the float model; None if unknown.
    """

    name: str
    kind: Literal["conv", "dense"]
    shape: tuple[int, ...]
    options: str
    codes: tuple[int, ...]
    counts: tuple[int, ...]
    step_low: float | None
    step_high: float | None
    bound: int
    exact_in_float32: bool
    weight_snr_db: float | None = None
    spectral_error: float | None = None
    infinity_error: float | None = None
    activation_snr_db: float | None = None


class ArtifactRecord(Record):
    """One compiled model: a `variant` such as `plain` or `mu-law`, its file, recipe, notes and layers."""

    variant: str
    file: str
    sha256: str
    recipe: dict[str, Any]
    notes: tuple[str, ...]
    layers: tuple[LayerRow, ...]


class AccuracyRow(Record):
    """How many of the images one witness (`torch`, `emulator`, `onnxruntime`) gets right.

    `model` says what it ran: `float` or the artifact (`integer`).
    """

    variant: str
    model: Literal["float", "integer"]
    witness: str
    images: Count
    correct: Count


class ExactnessRow(Record):
    """A comparison of the emulator with one witness, tensor by tensor."""

    variant: str
    witness: str
    tensors: Count
    integers: Count
    floats: Count
    differing: Count
    first_difference: str | None = None


class AttackRow(Record):
    """One attack, judged on the artifact by the emulator, or by the judge that the record names.

    Attributes:
        attack: The attack's name.
        parameters: Its settings.
        norm: `inf`, `2`, or `none` where nothing bounds the change.
        epsilon_codes: The radius in pixel codes; a whole number but for the L2 norm.
        images: How many images were attacked.
        clean_correct: How many were right before.
        correct: How many are right after.
        adversarial: File of the adversarial set, relative to the run folder.
    """

    variant: str
    attack: str
    parameters: dict[str, Any]
    norm: str
    epsilon_codes: Count | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    images: Count
    clean_correct: Count
    correct: Count
    adversarial: str | None = None


class FindingRow(Record):
    """One check of the masking verdict.

    Attributes:
        name: Of the check.
        outcome: What it found; `not enough data` where it has too few images to say anything.
        effect: What it measured, as a share; None where there was nothing to measure.
        needed: From how many images on it says anything.
        text: Its evidence, a sentence.
        source: Who described the sign.
    """

    name: str
    outcome: Literal["clear", "suspicious", "masked", "not enough data"]
    effect: float | None
    needed: Count
    text: str
    source: str


class VerdictRow(Record):
    """Whether the robust accuracies of a variant can be trusted, and why.

    Attributes:
        label: `masked`: what looks like robustness is a gradient that cannot be used; `inconclusive`: there are signs
            of that, or too little was seen.
        images: How many images the probe attacked.
        norm, epsilon_codes: The ball that it attacked in.
        findings: Every check, those that found nothing included.
    """

    variant: str
    label: Literal["trustworthy", "masked", "inconclusive"]
    images: Count
    norm: str
    epsilon_codes: Count | Annotated[float, Field(ge=0, allow_inf_nan=False)]
    findings: tuple[FindingRow, ...]


class RunRecord(RecordFile):
    """Everything a run found.

    `command` is what to type to repeat it; `judge` who judged the attacks; `verdicts` whether what they left can be
    trusted; `seconds` how long the steps took. Schema 1 had neither judge nor verdicts.
    """

    file_name: ClassVar[str] = RECORD_NAME
    kind: ClassVar[str] = "a run record"
    folder_of: ClassVar[str] = "the folder of a run"

    schema_version: Literal[1, 2] = SCHEMA
    title: str
    command: str
    seed: int
    versions: dict[str, str]
    machine: str
    dataset: DatasetRecord
    source_sha256: str
    artifacts: tuple[ArtifactRecord, ...]
    accuracy: tuple[AccuracyRow, ...]
    exactness: tuple[ExactnessRow, ...]
    attacks: tuple[AttackRow, ...]
    verdicts: tuple[VerdictRow, ...] = ()
    judge: str = "emulator"
    seconds: dict[str, float] = Field(default_factory=dict)
