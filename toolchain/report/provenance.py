"""Where every figure is from: commands to repeat, seeds, machines, versions and hashes, and what folds away."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..hardware import shown
from .words import amount, decimal, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..chips import ChipStudy
    from ..run_record import DatasetRecord
    from .records import DataRun
    from .sources import Evidence, Run

__all__ = ["Fact", "Group", "provenance"]


@dataclass(frozen=True)
class Fact:
    """A line; `code` marks what is to be read letter by letter."""

    name: str
    text: str
    code: bool = False


@dataclass(frozen=True)
class Group:
    """Of one run, file or study; `folded` are texts with their headings."""

    title: str
    facts: tuple[Fact, ...]
    folded: tuple[tuple[str, str], ...] = ()


def provenance(evidence: Evidence) -> tuple[Group, ...]:
    """Return where everything is from, in the order of kinds."""
    groups = [_run(run) for run in evidence.runs]
    for path, study in evidence.studies:
        groups.append(
            Group(
                f"Chips, {path.name}",
                (
                    Fact("Command", _chips(study), code=True),
                    _model(study.artifact_sha256),
                    _images(study.data),
                    Fact("Seeds", f"{study.seed} to {study.seed + study.count - 1}"),
                    Fact("Profile", f"{study.hardware}, SHA-256 {study.profile_sha256}"),
                    Fact("Swept", study.field or "nothing"),
                    Fact("Versions", f"ohmfold {study.ohmfold}"),
                ),
                ((f"PROFILE.toml: {study.hardware}", study.profile_toml),),
            )
        )
    for path, _, written in evidence.analyses:
        attacked = f" --adversarial {written.adversarial}" if written.adversarial else ""
        groups.append(
            Group(
                f"Analysis, {path.name}",
                (
                    Fact(
                        "Command",
                        f"ohmfold analyze {written.artifact} --float {written.float_model}{attacked} "
                        f"--images {written.attack.get('images')}",
                        code=True,
                    ),
                    _model(written.artifact_sha256),
                    Fact(
                        "Rounding", f"the terms miss what was observed by {decimal(written.rounding)} at most"
                    ),
                ),
            )
        )
    for path, verified in evidence.verifications:
        seed = "" if verified.seed is None else f" --seed {verified.seed}"
        groups.append(
            Group(
                f"Verification, {path.name}",
                (
                    Fact(
                        "Command",
                        f"ohmfold verify {verified.file or 'FILE'} --count {verified.images}{seed}",
                        code=True,
                    ),
                    _model(verified.sha256),
                    Fact("Images", ", ".join(f"{count} {kind}" for kind, count in verified.kinds.items())),
                    Fact("Compared with", verified.yardstick),
                    Fact("Machine", verified.machine),
                    _versions(verified.versions),
                    *(Fact("Note", note) for note in verified.notes),
                ),
            )
        )
    for path, ran in evidence.data_runs:
        chip = ran.hardware
        facts = [
            Fact("Command", _data_run(ran), code=True),
            _model(ran.sha256),
            Fact("Images", f"{ran.data}, {number(ran.images)}"),
        ]
        if chip is not None:
            facts.append(Fact("Chip", f"{chip.name}, seed {chip.seed}, SHA-256 {chip.sha256}"))
        folded = () if chip is None else ((f"PROFILE.toml: {chip.name}", chip.toml),)
        groups.append(Group(f"Run on a data set, {path.name}", tuple(facts), folded))
    return tuple(groups)


def _chips(study: ChipStudy) -> str:
    """What to type, with the profile in a file of its own."""
    sweep = ""
    if study.field is not None:
        sweep = f" --sweep {study.field}={','.join(shown(point.value) for point in study.points)}"
    return (
        f"ohmfold chips MODEL.onnx --hardware PROFILE.toml --count {study.count} --seed {study.seed}{sweep} "
        f"--data {study.data.name} --images {study.data.images}"
    )


def _data_run(ran: DataRun) -> str:
    """What to type, with the profile in a file of its own."""
    chip = "" if ran.hardware is None else f" --hardware PROFILE.toml --seed {ran.hardware.seed}"
    return f"ohmfold run {ran.file} --data {ran.data} --images {ran.images}{chip} --json"


def _run(run: Run) -> Group:
    record = run.record
    facts = [
        Fact("Command", record.command, code=True),
        Fact("Seed", str(record.seed)),
        Fact("Machine", record.machine),
        _images(record.dataset),
        Fact("Float model", f"SHA-256 {record.source_sha256}"),
        *(
            Fact(f"Artifact {artifact.variant}", f"{artifact.file}, SHA-256 {artifact.sha256}")
            for artifact in record.artifacts
        ),
        _versions(record.versions),
    ]
    if run.campaign is not None:
        facts += [
            Fact(
                "Suite",
                "; ".join(part for part in (suite.title, suite.source, f"SHA-256 {suite.sha256}") if part),
            )
            for suite in run.campaign.suites
        ]
        facts += [Fact("Not run", f"{skipped.name}: {skipped.reason}") for skipped in run.campaign.skipped]
    if record.seconds:
        facts.append(
            Fact(
                "Time", ", ".join(f"{step} {decimal(seconds)} s" for step, seconds in record.seconds.items())
            )
        )
    folded = tuple(
        (
            f"Recipe of {artifact.variant}",
            json.dumps(artifact.recipe, indent=2, sort_keys=True, ensure_ascii=False),
        )
        for artifact in record.artifacts
    )
    return Group(run.name, tuple(facts), folded)


def _model(sha256: str) -> Fact:
    return Fact("Model", f"SHA-256 {sha256}")


def _images(data: DatasetRecord) -> Fact:
    return Fact("Images", f"{amount(data.images, 'image')} of {data.name}, SHA-256 {data.sha256}")


def _versions(versions: Mapping[str, str]) -> Fact:
    known = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return Fact("Versions", known or "not recorded")
