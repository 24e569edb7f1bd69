"""`ohmfold demo`: the whole pipeline on real digits, in under a minute."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json  # noqa: TC001 - typer reads the annotations
from .output import count, percent, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from ..run_record import RunRecord

__all__ = ["attack_text", "demo"]

_WITNESSES = {
    "torch": "float model, torch",
    "emulator": "3-bit artifact, emulator",
    "onnxruntime": "3-bit artifact, onnxruntime",
}


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path(
        "ohmfold-demo"
    ),
    *,
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, show_default="all", help="Held-out digits that judge accuracy."),
    ] = None,
    attack_images: Annotated[
        int, typer.Option("--attack-images", min=1, help="How many of them to attack.")
    ] = 100,
    as_json: Json = False,
) -> None:
    """Compile the bundled MNIST CNN to 3 bits, judge it bit by bit, attack it, report. Needs no network."""
    start = time.monotonic()
    with progress_bar("demo") as progress:
        progress("starting", 0.0)
        import_onnxruntime()
        from ..demo import run_demo

        record, left_out = run_demo(out, images=images, attack_images=attack_images, progress=progress)
    report = out / "report.html"
    if as_json:
        print_json(
            {
                "folder": str(out),
                "report": str(report),
                "left_out": left_out,
                **record.model_dump(mode="json"),
            }
        )
        return
    _show(record, left_out)
    say(f"{time.monotonic() - start:.0f} s on {record.machine}.", f"Report: {report}")


def _show(record: RunRecord, left_out: int) -> None:
    variants = [artifact.variant for artifact in record.artifacts]
    judged = {(row.variant, row.witness): row for row in record.accuracy}
    rows = []
    for witness, text in _WITNESSES.items():
        cells = [judged[variant, witness] for variant in variants]
        rows.append([text, *(percent(row.correct, row.images) for row in cells)])
    compared = [[row for row in record.exactness if row.variant == variant] for variant in variants]
    rows.append(
        ["integers compared, emulator with others", *(count(sum(r.integers for r in c)) for c in compared)]
    )
    rows.append(["integers that differ", *(count(sum(r.differing for r in c)) for c in compared)])
    attacks = [[row for row in record.attacks if row.variant == variant] for variant in variants]
    first = attacks[0]
    for same in zip(*attacks, strict=True):
        text = attack_text(same[0].attack, same[0].parameters)
        rows.append([text, *(percent(row.correct, row.images) for row in same)])
    rows.append(["masking verdict", *(row.label for row in record.verdicts)])
    say(
        f"{record.title}: {count(record.dataset.images)} held-out digits of {record.dataset.name} "
        f"({left_out} others calibrated), {first[0].images} of them attacked within "
        f"{first[0].epsilon_codes}/255, judged by the emulator."
    )
    table("", ["accuracy", *variants], rows)
    for verdict in record.verdicts:
        for finding in verdict.findings:
            if finding.outcome in ("masked", "suspicious"):
                say(f"{verdict.variant}, {finding.name} ({finding.outcome}): {finding.text}")
    say("What one gradient attack leaves and another takes is not robustness: the worst case counts.")


def attack_text(name: str, parameters: dict[str, object]) -> str:
    """An attack and its settings in a few words."""
    words = {
        "worst case": "all attacks, worst case of each image",
        "uniform-noise": "uniform noise",
        "gaussian-noise": "Gaussian noise",
        "fgsm": "FGSM",
        "bim": "BIM",
        "pgd": "PGD",
        "adaptive-pgd": "adaptive PGD",
    }
    parts = [words.get(name, name)]
    if "steps" in parameters:
        parts.append(f"{parameters['steps']} steps")
    if parameters.get("temperature") == "search":
        parts.append("logits scaled")
    return ", ".join(parts)
