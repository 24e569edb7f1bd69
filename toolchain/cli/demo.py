"""`ohmfold demo`: the whole pipeline on real digits, in under a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Json  # noqa: TC001 - typer reads the annotations
from .output import count, percent, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from ..run_record import RunRecord

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write to.")] = Path("ohmfold-demo"),
    *,
    images: Annotated[int, typer.Option("--images", min=1, help="Held-out digits that judge accuracy.")] = 2000,
    attack_images: Annotated[int, typer.Option("--attack-images", min=1, help="How many of them to attack.")] = 100,
    as_json: Json = False,
) -> None:
    """Compile the bundled MNIST CNN to 3 bits, judge it bit by bit, attack it, report. Needs no network."""
    with progress_bar("demo") as progress:
        progress("starting", 0.0)
        import_onnxruntime()
        from ..demo import run_demo

        record, left_out = run_demo(out, images=images, attack_images=min(attack_images, images), progress=progress)
    report = out / "report.html"
    if as_json:
        print_json({"folder": str(out), "report": str(report), "left_out": left_out, **record.model_dump(mode="json")})
        return
    _show(record, left_out)
    say(f"Report: {report}")


def _show(record: RunRecord, left_out: int) -> None:
    variants = [artifact.variant for artifact in record.artifacts]
    judged = {(row.variant, row.model, row.witness): row for row in record.accuracy}
    rows = []
    for model, witness, text in (
        ("float", "torch", "float model, torch"),
        ("integer", "emulator", "3-bit artifact, emulator"),
        ("integer", "onnxruntime", "3-bit artifact, onnxruntime"),
    ):
        cells = [judged[variant, model, witness] for variant in variants]
        rows.append([text, *(percent(row.correct, row.images) for row in cells)])
    compared = [[row for row in record.exactness if row.variant == variant] for variant in variants]
    rows.append(["integers compared, emulator with others", *(count(sum(r.integers for r in c)) for c in compared)])
    rows.append(["integers that differ", *(count(sum(r.differing for r in c)) for c in compared)])
    first = [row for row in record.attacks if row.variant == variants[0]]
    for position, attack in enumerate(first):
        cells = [[row for row in record.attacks if row.variant == variant][position] for variant in variants]
        rows.append([attack_text(attack.attack, attack.parameters), *(percent(r.correct, r.images) for r in cells)])
    say(
        f"{record.title}: {count(record.dataset.images)} held-out digits of {record.dataset.name} "
        f"({left_out} others calibrated), {first[0].images} of them attacked within "
        f"{first[0].epsilon_codes}/255, judged by the emulator."
    )
    table("", ["accuracy", *variants], rows)
    say(
        "What PGD gains on the mu-law artifact and loses again when the logits are divided is a vanished gradient,",
        "not robustness.",
        f"{sum(record.seconds.values()):.0f} s on {record.machine}.",
    )


def attack_text(name: str, parameters: dict[str, object]) -> str:
    """An attack and its settings in a few words."""
    words = {
        "uniform-noise": "uniform noise",
        "gaussian-noise": "Gaussian noise",
        "fgsm": "FGSM",
        "bim": "BIM",
        "pgd": "PGD",
        "pgd-divided": "PGD",
    }
    parts = [words.get(name, name)]
    if "steps" in parameters:
        parts.append(f"{parameters['steps']} steps")
    if "logits_divided_by" in parameters:
        parts.append(f"logits / {parameters['logits_divided_by']:g}")
    return ", ".join(parts)
