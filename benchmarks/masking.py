"""The ready traps: networks whose robustness is an illusion, what attacks leave of them, and their verdicts.

    python -m benchmarks.masking [--images 100] [--epsilon 0.1] [--robust CHECKPOINT] [--json]

The bundled MNIST CNN is compiled to 3 bits as it is, with logits 30 and 100 times as large (its last layer's weights
and bias multiplied), and with the literal mu-law map on its last layer; `--robust` adds an adversarially trained
checkpoint of the same architecture. Each is attacked by PGD, by the suite `adaptive`, and (the mapped one) by margin
attacks along the gradients of its unmapped parent and of its own twin. The images are the bundled sample's, judged by
the emulator.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ohmfold.models.checkpoints import load_weights
from ohmfold.models.registry import ZOO, build_model
from ohmfold.toolchain.attacks.campaign import Target, run_campaign
from ohmfold.toolchain.attacks.epsilon import parse_epsilon
from ohmfold.toolchain.attacks.judges import ArtifactJudge, JudgeName
from ohmfold.toolchain.attacks.planning import Ball, make_plan
from ohmfold.toolchain.attacks.sources import Sources
from ohmfold.toolchain.attacks.suite import Suite, load_suite, suite_of
from ohmfold.toolchain.attacks.verdict import find_verdict
from ohmfold.toolchain.compiler import compile as compile_model
from ohmfold.toolchain.judged import calibration_set, judged_images
from ohmfold.toolchain.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

ARCHITECTURE = "mnist-cnn"
LAST = "fc2"
SAMPLE = "mnist-sample"
# What an attacker reaches who knows the mapped network's parent: the reference of the mapped network's adaptive suite.
PARENT_AND_MARGIN = """
title = "Parent and margin"
cascade = true

[[attacks]]
name = "parent-margin"
attack = "adaptive-pgd"
source = "parent"
settings = { loss = "margin", steps = 60, restarts = 3 }

[[attacks]]
name = "margin"
attack = "adaptive-pgd"
settings = { loss = "margin", steps = 60, restarts = 3 }
"""


@dataclass(frozen=True)
class Row:
    """What is left of one network: shares of the images, and the verdict with the checks that fired."""

    network: str
    clean: float
    pgd: float
    adaptive: float
    parent_and_margin: float | None
    verdict: str
    because: tuple[str, ...]


def network(checkpoint: Path, logits: float = 1.0) -> nn.Module:
    """Return the MNIST CNN of a checkpoint, its logits multiplied by `logits`."""
    import torch

    module = build_model(ARCHITECTURE)
    load_weights(checkpoint, module)
    last = module.get_submodule(LAST)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.mul_(logits)
    return module.eval()


def measure(name: str, module: nn.Module, recipe: Recipe, ball: Ball, images: int) -> Row:
    """Compile a network, attack it and judge it."""
    artifact = compile_model(module, calibration_set(SAMPLE).images, recipe)
    judged = judged_images(SAMPLE, artifact, converters=True, limit=images)
    calibrating = None if judged.calibration is None else judged.calibration.images
    sources = Sources(artifact, parent=module, calibration=calibrating)
    target = Target(ArtifactJudge(artifact, JudgeName("emulator")), sources, judged.data, judged.left_out)

    def left(suite: Suite) -> float:
        campaign = run_campaign(target, make_plan((suite,), ball, sources))
        return float(campaign.standing[-1].mean())

    verdict = find_verdict(target, ball, name)
    clean = target.judge.judge(judged.data.images) == judged.data.labels
    reference = left(Suite.from_toml(PARENT_AND_MARGIN, "parent-and-margin")) if recipe.mu_law else None
    return Row(
        name,
        float(clean.mean()),
        left(suite_of(["pgd"], 40)),
        left(load_suite("adaptive")),
        reference,
        verdict.label,
        tuple(found.name for found in verdict.findings if found.outcome in ("masked", "suspicious")),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 where a trap is not caught."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epsilon", default="0.1")
    parser.add_argument("--robust", metavar="CHECKPOINT", help="an adversarially trained MNIST CNN")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    ball = Ball("inf", parse_epsilon(options.epsilon))
    plain = ZOO / f"{ARCHITECTURE}.safetensors"
    cases: list[tuple[str, nn.Module, Recipe]] = [
        ("plain", network(plain), Recipe()),
        ("logits x 30", network(plain, 30.0), Recipe()),
        ("logits x 100", network(plain, 100.0), Recipe()),
        (f"mu-law on {LAST}", network(plain), Recipe(mu_law={LAST: 255.0})),
    ]
    if options.robust:
        from pathlib import Path

        cases.append(("adversarially trained", network(Path(options.robust)), Recipe()))
    rows = []
    for name, module, recipe in cases:
        rows.append(measure(name, module, recipe, ball, options.images))
        if not options.json:
            print(_line(rows[-1]), flush=True)
    found = _caught(rows)
    if options.json:
        print(json.dumps({"rows": [vars(row) for row in rows], "caught": found}, indent=2))
    else:
        print(f"{options.images} images, radius {ball.radius:g} codes; " + "; ".join(_words(found)))
    return 0 if all(found.values()) else 1


def _line(row: Row) -> str:
    reference = (
        "" if row.parent_and_margin is None else f", parent + margin {100 * row.parent_and_margin:.1f} %"
    )
    because = f" ({', '.join(row.because)})" if row.because else ""
    return (
        f"{row.network:<22} clean {100 * row.clean:5.1f} %, PGD-40 {100 * row.pgd:5.1f} %, adaptive "
        f"{100 * row.adaptive:5.1f} %{reference}: {row.verdict}{because}"
    )


def _caught(rows: Sequence[Row]) -> dict[str, bool]:
    """Whether each promise holds."""
    plain = rows[0]
    found: dict[str, bool] = {}
    for row in rows:
        masked = row.network.startswith(("logits", "mu-law"))
        found[f"{row.network}: {'masked' if masked else 'trustworthy'}"] = row.verdict == (
            "masked" if masked else "trustworthy"
        )
        if row.network.startswith("logits"):
            found[f"{row.network}: adaptive within 2 points of the plain network's"] = (
                abs(row.adaptive - plain.adaptive) <= 0.02 + 1e-9
            )
        if row.parent_and_margin is not None:
            found[f"{row.network}: adaptive within 3 points of parent and margin"] = (
                row.adaptive - row.parent_and_margin <= 0.03 + 1e-9
            )
    return found


def _words(found: dict[str, Any]) -> list[str]:
    return [f"{promise}: {'yes' if holds else 'NO'}" for promise, holds in found.items()]


if __name__ == "__main__":
    sys.exit(main())
