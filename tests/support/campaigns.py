"""A campaign so small that it takes a second: a tiny artifact, its images, a suite as TOML."""

from __future__ import annotations

import tomli_w
from tiny_artifacts import tiny_artifact, tiny_data

from ohmfold.models.image_data import Dataset
from ohmfold.toolchain.attacks.campaign import Target
from ohmfold.toolchain.attacks.judges import ArtifactJudge, JudgeName
from ohmfold.toolchain.attacks.planning import Ball, make_plan
from ohmfold.toolchain.attacks.sources import Sources
from ohmfold.toolchain.attacks.suite import Suite


def suite(*attacks, name="mine", **fields):
    """A suite of entries given as dictionaries; `attack` alone is enough."""
    entries = [{"name": entry["attack"], **entry} for entry in attacks]
    return Suite.from_toml(tomli_w.dumps({"title": "A suite", "attacks": entries, **fields}), name)


def target(count=40, *, batch=16, seed=3, judge=None, wrong=(), **sources):
    """A tiny artifact, and images that it classifies correctly but for those at the places `wrong`."""
    artifact = tiny_artifact()
    data = tiny_data(artifact, count)
    labels = data.labels.copy()
    labels[list(wrong)] = (labels[list(wrong)] + 1) % 5
    data = Dataset(data.name, data.images, labels)
    name = JudgeName("emulator") if judge is None else judge
    return Target(ArtifactJudge(artifact, name), Sources(artifact, **sources), data, 0, seed, batch)


def plan(goal, *suites, norm="inf", radius=12, ladder=()):
    return make_plan(suites, Ball(norm, radius), goal.sources, ladder)
