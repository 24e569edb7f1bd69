"""The main job in one go: a trained MNIST CNN to 3 bits, judged bit by bit, attacked, reported.

    zoo model --export--> model.onnx --compile--> artifact.onnx           (plain)
       |                                              |
       +--mu-law on fc2--export--compile--> artifact-mu-law.onnx          (mu-law)
                                                      |
            accuracy (torch, emulator, onnxruntime) - exactness - attacks - run.json - report.html

Everything random is seeded, so that two runs on one machine find the same figures.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from .judged import (
    calibration_set,
    evaluation_set,
    float_predictor,
    in_batches,
    onnxruntime_predictor,
)
from .run_record import RunRecord
from .runs import (
    accuracy_row,
    attack_row,
    check_run_folder,
    dataset_record,
    describe_artifact,
    exactness_rows,
    machine,
    run_folder,
    versions,
    worst_case_row,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import onnx_ir as ir
    from torch import nn

    from ..models.image_data import Dataset
    from .artifact import Artifact
    from .emulator import Emulator
    from .run_record import AccuracyRow, AttackRow, ExactnessRow, VerdictRow

__all__ = ["ATTACK_IMAGES", "EPSILON", "MODEL", "run_demo"]

MODEL = "mnist-cnn"
DATA = "mnist-sample"
MAPPED_LAYER, MU = "fc2", 255.0
WEIGHT_BITS = 3

ATTACK_IMAGES = 100
EPSILON = 0.1
"""Radius of the attacks. Within 0.3, the usual one for MNIST, no ordinarily trained network keeps a digit."""

PGD_STEPS = 10
ADAPTIVE = {"loss": "cross-entropy", "temperature": "search", "steps": 30, "restarts": 1}
PROBED_IMAGES = 50
"""How many of the attacked images the masking verdict is found on."""

SEED = 0

# Batches on which every tensor is compared; odd ones among them, since fast kernels have remainders.
EXACT_BATCHES = (1, 7, 32)
REFERENCE_IMAGES = 2
ERROR_IMAGES = 64

# Seconds that the steps took on two cores, for the progress bar.
_EXPECTED = {
    "load": 2.0,
    "export": 5.0,
    "compile": 2.0,
    "accuracy": 17.0,
    "exactness": 2.0,
    "attacks": 9.0,
    "verdict": 16.0,
    "report": 4.0,
}


@dataclass(frozen=True, eq=False)
class _Variant:
    """One way of compiling the model, in every form that is judged."""

    name: str
    file: str
    module: nn.Module
    model: ir.Model
    artifact: Artifact
    emulator: Emulator


@dataclass(eq=False)
class _Clock:
    """Tells how far the demo is, and how long each step took."""

    progress: Callable[[str, float], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, text: str) -> Iterator[Callable[[float], None]]:
        """Time a step; yields what to call with the share of it that is done."""
        total = sum(_EXPECTED.values())
        before = sum(_EXPECTED[done] for done in self.seconds)

        def tell(share: float) -> None:
            self.progress(text, (before + share * _EXPECTED[name]) / total)

        tell(0.0)
        start = time.perf_counter()
        yield tell
        self.seconds[name] = round(time.perf_counter() - start, 3)


def run_demo(
    out: Path,
    *,
    images: int | None = None,
    attack_images: int = ATTACK_IMAGES,
    progress: Callable[[str, float], None],
) -> tuple[RunRecord, int]:
    """Run the demo and write its folder.

    Args:
        out: The folder: new, empty, or of a former run.
        images: How many held-out digits judge accuracy; None for all.
        attack_images: How many of them are attacked.
        progress: Called with the step in words and the share of all that is done.

    Returns:
        The record that was written, and how many images were held back for calibration.

    Raises:
        OutputError: The folder holds something else, or cannot be written.
        DataError: The digits are missing, or fewer than asked for.
    """
    check_run_folder(out)
    clock = _Clock(progress)
    with run_folder(out) as folder:
        with clock.step("load", "loading model and digits"):
            calibration = calibration_set(DATA)
            module = _trained_model()
        plain, mapped = _variants(module, calibration, folder, clock)
        held_out, left_out = evaluation_set(_held_out_digits(), plain.artifact)
        judged = held_out if images is None else held_out.subset(images, SEED)
        attacked = judged.subset(min(attack_images, len(judged)), SEED)
        accuracy = _accuracy((plain, mapped), judged, clock)
        exactness = _exactness((plain, mapped), judged, clock)
        attacks = _attacks((plain, mapped), attacked, folder, clock)
        verdicts = _verdicts((plain, mapped), attacked, clock)
        with clock.step("report", "report"):
            artifacts = tuple(
                describe_artifact(
                    variant.name,
                    variant.file,
                    variant.artifact,
                    variant.model,
                    judged.images[:ERROR_IMAGES],
                )
                for variant in (plain, mapped)
            )
            record = RunRecord(
                title="MNIST CNN in 3 bits",
                command=_command(images, attack_images),
                seed=SEED,
                versions=versions(),
                machine=machine(),
                dataset=dataset_record(judged),
                source_sha256=str(plain.artifact.metadata()["source"]["sha256"]),
                artifacts=artifacts,
                accuracy=accuracy,
                exactness=exactness,
                attacks=attacks,
                verdicts=verdicts,
                seconds=clock.seconds,
            )
            write_record(folder, record)
            from .report import write_report

            write_report(folder)
    return record, left_out


def _command(images: int | None, attack_images: int) -> str:
    options = {"--images": (images, None), "--attack-images": (attack_images, ATTACK_IMAGES)}
    given = [f"{name} {value}" for name, (value, default) in options.items() if value != default]
    return " ".join(["ohmfold demo", *given])


def _trained_model() -> nn.Module:
    from ..models.checkpoints import load_model

    return load_model(MODEL)


def _held_out_digits() -> Dataset:
    from ..models.datasets import resolve_dataset

    return resolve_dataset(DATA)


def _variants(
    module: nn.Module, calibration: Dataset, folder: Path, clock: _Clock
) -> tuple[_Variant, _Variant]:
    """Export and compile the model as it is and with the mu-law map on its last layer; write the files."""
    import onnx_ir as ir

    from ..export import check_export, export_module
    from ..models.mu_law import apply_mu_law
    from .artifact import write_atomically
    from .compiler import compile as compile_model
    from .emulator import Emulator
    from .recipe import Recipe

    mapped = apply_mu_law(_trained_model(), {MAPPED_LAYER: MU})
    shape = calibration.images.shape[1:]
    names = ("plain", f"mu-law on {MAPPED_LAYER}")
    files = ("artifact.onnx", "artifact-mu-law.onnx")
    with clock.step("export", "exporting to ONNX") as tell:
        models = []
        for position, source in enumerate((module, mapped)):
            model = export_module(source, shape)
            check_export(source, model, calibration.images[:64])
            models.append(model)
            tell((position + 1) / 2)
        write_atomically(folder / "model.onnx", ir.to_proto(models[0]).SerializeToString())
    with clock.step("compile", f"compiling to {WEIGHT_BITS} bits") as tell:
        variants = []
        for position, source in enumerate((module, mapped)):
            artifact = compile_model(models[position], calibration.images, Recipe(weight_bits=WEIGHT_BITS))
            artifact.save(folder / files[position])
            variants.append(
                _Variant(
                    names[position], files[position], source, models[position], artifact, Emulator(artifact)
                )
            )
            tell((position + 1) / 2)
    return variants[0], variants[1]


def _accuracy(variants: tuple[_Variant, ...], judged: Dataset, clock: _Clock) -> tuple[AccuracyRow, ...]:
    """Let torch, the emulator and onnxruntime classify the held-out digits."""
    rows = []
    with clock.step(
        "accuracy", f"{len(judged):,} held-out digits through torch, emulator, onnxruntime"
    ) as tell:
        for position, variant in enumerate(variants):

            def part(share: float, third: int, position: int = position) -> None:
                tell((position + (third + share) / 3) / len(variants))

            program, pixels = variant.artifact.program, judged.images
            logits = program.logits or program.outputs[0].name
            session = onnxruntime_predictor(
                variant.artifact.to_bytes(), program.inputs[0].name, logits, threads=2
            )
            found = {
                ("float", "torch"): in_batches(
                    float_predictor(variant.module), pixels, partial(part, third=0)
                ),
                ("integer", "emulator"): in_batches(variant.emulator.predict, pixels, partial(part, third=1)),
                ("integer", "onnxruntime"): in_batches(session, pixels, partial(part, third=2)),
            }
            for (model, witness), predictions in found.items():
                rows.append(accuracy_row(variant.name, model, witness, predictions, judged.labels))
    return tuple(rows)


def _exactness(variants: tuple[_Variant, ...], judged: Dataset, clock: _Clock) -> tuple[ExactnessRow, ...]:
    """Compare every tensor with onnxruntime's at all its levels, and with ONNX's reference evaluator's."""
    from .witness import certify

    rows: list[ExactnessRow] = []
    sizes = [size for size in EXACT_BATCHES if size <= len(judged)]
    with clock.step("exactness", "comparing every tensor with onnxruntime's") as tell:
        for position, variant in enumerate(variants):
            found = certify(variant.artifact, judged.images, batch_sizes=sizes)
            reference = certify(variant.artifact, judged.images[:REFERENCE_IMAGES], levels=(), reference=True)
            rows.extend(exactness_rows(variant.name, (*found, *reference)))
            tell((position + 1) / len(variants))
    return tuple(rows)


def _attacks(
    variants: tuple[_Variant, ...], attacked: Dataset, folder: Path, clock: _Clock
) -> tuple[AttackRow, ...]:
    """Attack with the twin's gradients, judge with the emulator, keep the images."""
    from .attacks import evaluate, make_attack, parse_epsilon, save_adversarial
    from .twin import Twin

    radius = parse_epsilon(EPSILON)
    pgd = make_attack("pgd", steps=PGD_STEPS)
    plan = (make_attack("uniform-noise"), make_attack("fgsm"), pgd, make_attack("adaptive-pgd", **ADAPTIVE))
    rows = []
    with clock.step("attacks", f"attacking {len(attacked)} digits within {radius} codes") as tell:
        for position, variant in enumerate(variants):
            twin = Twin(variant.artifact)
            results = []
            for number, attack in enumerate(plan):
                (result,) = evaluate(
                    variant.emulator, twin, attacked.images, attacked.labels, [attack], radius, seed=SEED
                ).results
                file = f"adversarial-{variant.file.removesuffix('.onnx')}-{attack.name}.npz"
                save_adversarial(result, folder / file, variant.artifact.sha256)
                rows.append(attack_row(variant.name, result, file))
                results.append(result)
                # The two searches take nearly all the time.
                done = (0.05, 0.1, 0.3, 1.0)[number]
                tell((position + done) / len(variants))
            rows.append(worst_case_row(variant.name, results))
    return tuple(rows)


def _verdicts(variants: tuple[_Variant, ...], attacked: Dataset, clock: _Clock) -> tuple[VerdictRow, ...]:
    """Say of each variant whether what it withstands can be trusted."""
    from .attacks import parse_epsilon
    from .attacks.masking import default_plan, gather, judge_evidence
    from .attacks.planning import Ball
    from .attacks.verdict import verdict_row
    from .twin import Twin

    ball = Ball("inf", parse_epsilon(EPSILON))
    plan = default_plan().model_copy(update={"images": PROBED_IMAGES})
    rows = []
    with clock.step("verdict", "is it robustness, or a vanished gradient?") as tell:
        for position, variant in enumerate(variants):

            def part(share: float, position: int = position) -> None:
                tell((position + share) / len(variants))

            evidence = gather(
                variant.emulator,
                {"twin": Twin(variant.artifact)},
                attacked.images,
                attacked.labels,
                ball.radius,
                seed=SEED,
                plan=plan,
                progress=part,
            )
            rows.append(
                verdict_row(judge_evidence(evidence), variant.name, len(evidence.clean_correct), ball)
            )
    return tuple(rows)
