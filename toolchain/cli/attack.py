"""`ohmfold attack`: adversarial images found with the twin, judged on the artifact by the emulator."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Data, Json, Seed  # noqa: TC001 - typer reads the annotations
from .output import count, percent, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from ...models.image_data import Dataset
    from ..artifact import Artifact
    from ..attacks import Evaluation

__all__ = ["attack"]

_DEFAULT = ("uniform-noise", "fgsm", "pgd")
_ARTIFACT = "artifact.onnx"


def attack(
    file: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An integer model.")],
    *,
    data: Data = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            metavar="NAME",
            show_default=", ".join(_DEFAULT),
            help="Repeatable; also bim, gaussian-noise.",
        ),
    ] = None,
    epsilon: Annotated[
        str, typer.Option(metavar="0.3|76|8/255", help="Radius: a share of the pixel range, or pixel codes.")
    ] = "0.3",
    steps: Annotated[int, typer.Option(help="Steps of pgd and bim.")] = 40,
    divide_logits: Annotated[
        float,
        typer.Option(
            min=1.0, help="Divide the logits before the loss: tells a vanished gradient from robustness."
        ),
    ] = 1.0,
    images: Annotated[int, typer.Option("--images", min=1, help="How many images to attack.")] = 100,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images attacked at a time.")] = 128,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="RUN_DIR", help="Keep images, artifact and record for a report."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack an artifact; an image counts as the device sees it: pixel codes within the ball."""
    from ..attacks import make_attack, parse_epsilon

    radius = parse_epsilon(epsilon)
    chosen = [
        make_attack(name, **({"steps": steps} if name in ("pgd", "bim") else {}))
        for name in attacks or _DEFAULT
    ]
    if out is not None:
        from ..runs import check_run_folder

        check_run_folder(out)
    with progress_bar("attack") as progress:
        progress("loading", 0.0)
        import_onnxruntime()
        from ...models.datasets import resolve_dataset
        from ..artifact import Artifact
        from ..attacks import evaluate
        from ..emulator import Emulator
        from ..judged import evaluation_set
        from ..runs import divided

        artifact = Artifact.load(file)
        held_out, left_out = evaluation_set(resolve_dataset(data), artifact)
        judged = held_out.subset(min(images, len(held_out)), seed)
        source = None
        if any(one.needs_gradient for one in chosen):
            from ..twin import Twin

            source = Twin(artifact) if divide_logits == 1.0 else divided(Twin(artifact), divide_logits)
        names = [one.name for one in chosen]

        def show(name: str, done: int, total: int) -> None:
            progress(name, (names.index(name) + done / max(total, 1)) / len(names))

        evaluation = evaluate(
            Emulator(artifact), source, judged.images, judged.labels, chosen, radius,
            seed=seed, batch_size=batch_size, progress=show,
        )  # fmt: skip
        evaluation = _noting(evaluation, divide_logits)
        if out is not None:
            _write_run(out, file, artifact, judged, evaluation, seed)
    robust = int(evaluation.robust.sum())
    clean = round(evaluation.clean_accuracy * len(judged))
    if as_json:
        print_json(
            {
                "file": str(file),
                "sha256": artifact.sha256,
                "data": judged.name,
                "images": len(judged),
                "left_out": left_out,
                "epsilon_codes": radius,
                "seed": seed,
                "clean_correct": clean,
                "attacks": [_document(result) for result in evaluation.results],
                "worst_case_correct": robust,
                "run_folder": None if out is None else str(out),
            }
        )
        return
    rows = [("clean", "", percent(clean, len(judged)))]
    rows += [
        (result.name, _settings(result.parameters), percent(int((~result.success).sum()), len(judged)))
        for result in evaluation.results
    ]
    rows.append(("worst case of each image", "", percent(robust, len(judged))))
    table("", ["attack", "settings", "accuracy"], rows, left=2)
    held = f"; {left_out} others calibrated it and were left out" if left_out else ""
    say(f"{count(len(judged))} images of {judged.name}, radius {radius}/255, judged by the emulator{held}")
    if out is not None:
        say(f"wrote {out}; `ohmfold report {out}` makes a page of it")


def _noting(evaluation: Evaluation, divisor: float) -> Evaluation:
    """Record the divisor of the logits among the settings of the attacks that saw it."""
    if divisor == 1.0:
        return evaluation
    from ..attacks import ATTACKS, Evaluation
    from ..runs import with_divisor

    return Evaluation(
        tuple(
            with_divisor(result, divisor) if ATTACKS[result.name].needs_gradient else result
            for result in evaluation.results
        )
    )


def _base_name(name: str) -> str:
    """The attack's own name, without what `_noting` added."""
    return name.partition(",")[0]


def _document(result: Any) -> dict[str, Any]:
    return {
        "attack": result.name,
        "norm": result.norm,
        "parameters": dict(result.parameters),
        "correct": int((~result.success).sum()),
    }


def _settings(parameters: Any) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in parameters.items()
    )


def _write_run(
    out: Path, file: Path, artifact: Artifact, judged: Dataset, evaluation: Evaluation, seed: int
) -> None:
    """Write the run folder: record, adversarial sets, a copy of the artifact."""
    from ..attacks import save_adversarial
    from ..run_record import RunRecord
    from ..runs import (
        accuracy_row,
        attack_row,
        dataset_record,
        describe_artifact,
        machine,
        run_folder,
        versions,
        worst_case_row,
        write_record,
    )

    variant = file.stem
    with run_folder(out) as folder:
        artifact.save(folder / _ARTIFACT)
        rows = []
        for number, result in enumerate(evaluation.results, start=1):
            name = f"adversarial-{number}-{_base_name(result.name)}.npz"
            save_adversarial(result, folder / name, artifact.sha256)
            rows.append(attack_row(variant, result, name))
        rows.append(worst_case_row(variant, evaluation.results))
        clean = evaluation.results[0].clean_predictions
        source = artifact.metadata().get("source")
        record = RunRecord(
            title=f"Attacks on {file.name}",
            command=_command(file, evaluation, seed),
            seed=seed,
            versions=versions(),
            machine=machine(),
            dataset=dataset_record(judged),
            source_sha256=str(source.get("sha256", "")) if isinstance(source, dict) else "",
            artifacts=(describe_artifact(variant, _ARTIFACT, artifact),),
            accuracy=(accuracy_row(variant, "integer", "emulator", clean, judged.labels),),
            exactness=(),
            attacks=tuple(rows),
        )
        write_record(folder, record)


def _command(file: Path, evaluation: Evaluation, seed: int) -> str:
    """What to type to repeat the attacks."""
    first = evaluation.results[0]
    parts = ["ohmfold attack", str(file)]
    parts += [f"--attack {_base_name(result.name)}" for result in evaluation.results]
    parts += [f"--epsilon {first.epsilon_codes}", f"--images {len(first.labels)}", f"--seed {seed}"]
    settings: dict[str, Any] = {}
    for result in evaluation.results:
        settings |= result.parameters
    parts += [f"--steps {settings['steps']}"] if "steps" in settings else []
    parts += [f"--divide-logits {settings['logits_divided_by']:g}"] if "logits_divided_by" in settings else []
    return " ".join(parts)
