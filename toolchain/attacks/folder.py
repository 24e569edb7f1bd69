"""The folder of a campaign: `ohmfold attack --out RUN_DIR`.

| file | what it holds |
|---|---|
| `result.json` | the campaign (`CampaignResult`), all figures |
| `result.csv` | a line for every attack |
| `images.csv` | a line for every image: its labels, and the first attack that turned it |
| `adversarial-KEY.npz` | the set of an attack: pixel codes, and the SHA-256 of what it attacked; for `ohmfold replay` |
| `artifact.onnx` | what was attacked |
| `accuracy.svg` | accuracy against epsilon, attack by attack; only of attacks that ran at several radii |
| `gallery.svg` | images that were turned, before and after, with the difference magnified |
| `run.json` | the record that `ohmfold report` makes a page of |
| `state/` | finished batches; only while the campaign is unfinished |
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import OutputError
from ..artifact import write_atomically
from ..run_record import RunRecord
from ..runs import (
    accuracy_row,
    check_run_folder,
    describe_artifact,
    machine,
    versions,
    write_record,
)
from .results import RESULT, fooled_within
from .state import PLAN, STATE
from .storage import save_adversarial

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..run_record import AttackRow
    from .campaign import Campaign
    from .epsilon import Norm
    from .outcome import AttackResult
    from .results import CampaignResult

__all__ = ["ARTIFACT", "check_campaign_folder", "write_campaign"]

ARTIFACT = "artifact.onnx"
TABLE = "result.csv"
IMAGES = "images.csv"
ACCURACY = "accuracy.svg"
GALLERY = "gallery.svg"


def check_campaign_folder(out: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be or must not become that of a campaign.

    Raises:
        OutputError: As `runs.check_run_folder`; an unfinished campaign is none of these.
    """
    if not (out / STATE / PLAN).is_file():
        check_run_folder(out)


def write_campaign(
    campaign: Campaign, folder: Path, *, title: str, variant: str, command: str
) -> tuple[str, ...]:
    """Write what a campaign found, each file whole or not at all, the records last.

    Args:
        campaign: A finished one.
        folder: Of the run.
        title: Of its report.
        variant: What the report calls the artifact.
        command: What to type to repeat it.

    Returns:
        The names of the files.

    Raises:
        OutputError: A file cannot be written.
    """
    from ..report.attack_charts import accuracy_chart, gallery_chart

    result = campaign.result
    artifact = campaign.target.judge.artifact
    sets = {}
    for record, (_, found) in zip(result.attacks, campaign.keyed, strict=True):
        sets[str(record.adversarial)] = found
    _remove_others(folder, set(sets))
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None
    artifact.save(folder / ARTIFACT)
    for name, found in sets.items():
        save_adversarial(replace(found, name=_key(name)), folder / name, artifact.sha256)
    texts = {TABLE: _table(result), IMAGES: _images(campaign)}
    charts = {ACCURACY: accuracy_chart(result), GALLERY: gallery_chart(_shown(campaign))}
    texts |= {name: text for name, text in charts.items() if text is not None}
    texts[RESULT] = result.to_json()
    for name, text in texts.items():
        write_atomically(folder / name, text.encode())
    write_record(folder, _run_record(campaign, title=title, variant=variant, command=command))
    return (*sets, ARTIFACT, *texts)


def _shown(campaign: Campaign) -> list[tuple[str, AttackResult]]:
    """The attacks that a gallery shows: those of the ladder's other radii are like them."""
    own = campaign.plan.ball.radius
    return [
        keyed
        for one, keyed in zip(campaign.plan.attacks, campaign.keyed, strict=True)
        if one.entry.epsilon is not None or one.radius == own
    ]


def _key(file: str) -> str:
    return file.removeprefix("adversarial-").removesuffix(".npz")


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove what a former run of another plan left, or it would be taken for this one's."""
    if not folder.is_dir():
        return
    for path in [*folder.glob("adversarial-*.npz"), folder / ACCURACY, folder / GALLERY]:
        if path.name not in names:
            path.unlink(missing_ok=True)


def _table(result: CampaignResult) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        [
            "key", "suite", "attack", "source", "norm", "radius_codes", "epsilon", "cascade", "attacked", "turned",
            "images", "correct", "accuracy", "low", "high", "queries", "verdict",
        ]
    )  # fmt: skip
    label = "" if result.verdict is None else result.verdict.label
    for row in result.attacks:
        left = row.left
        rows.writerow(
            [
                row.key, row.suite, row.attack, row.source, row.norm, f"{row.radius:g}", row.epsilon,
                "yes" if row.cascade else "no", row.attacked, row.turned, left.images, left.correct, left.accuracy,
                left.low, left.high, "" if row.queries is None else row.queries.total, label,
            ]
        )  # fmt: skip
    for worst in result.worst_case:
        left = worst.left
        rows.writerow(
            [
                "worst case", "", "", "", worst.norm, f"{worst.radius:g}", worst.epsilon, "", "", "",
                left.images, left.correct, left.accuracy, left.low, left.high, "", label,
            ]
        )  # fmt: skip
    return text.getvalue()


def _images(campaign: Campaign) -> str:
    """For every image the first attack that turned it within the campaign's ball."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["image", "label", "clean_prediction", "turned_by", "prediction"])
    ball = campaign.plan.ball
    first = campaign.results[0]
    for index, (label, clean) in enumerate(zip(first.labels, first.clean_predictions, strict=True)):
        by, prediction = "", int(clean)
        if clean == label:
            for (key, result), fooled in zip(
                campaign.keyed, _fooled(campaign, ball.norm, ball.radius), strict=True
            ):
                if fooled[index]:
                    by, prediction = key, int(result.predictions[index])
                    break
        rows.writerow([index, int(label), int(clean), by, prediction])
    return text.getvalue()


def _fooled(campaign: Campaign, norm: Norm, radius: float) -> list[NDArray[np.bool_]]:
    return [fooled_within(result, norm, radius) for result in campaign.results]


def _run_record(campaign: Campaign, *, title: str, variant: str, command: str) -> RunRecord:
    """What the report is made from."""
    result, target = campaign.result, campaign.target
    artifact = target.judge.artifact
    source = artifact.metadata().get("source")
    clean = campaign.results[0].clean_predictions
    return RunRecord(
        title=title,
        command=command,
        seed=target.seed,
        versions=versions(),
        machine=machine(),
        dataset=result.data,
        source_sha256=str(source.get("sha256", "")) if isinstance(source, dict) else "",
        artifacts=(describe_artifact(variant, ARTIFACT, artifact),),
        accuracy=(accuracy_row(variant, "integer", str(target.judge.name), clean, target.data.labels),),
        exactness=(),
        attacks=_rows(result, variant),
        verdicts=() if result.verdict is None else (result.verdict.model_copy(update={"variant": variant}),),
        judge=str(target.judge.name),
        seconds=result.seconds,
    )


def _rows(result: CampaignResult, variant: str) -> tuple[AttackRow, ...]:
    from ..run_record import WORST_CASE, AttackRow

    rows = [
        AttackRow(
            variant=variant,
            attack=record.key,
            parameters={"gradient": record.source, **record.parameters},
            norm=record.norm,
            epsilon_codes=_codes(record.radius),
            images=record.left.images,
            clean_correct=result.clean.correct,
            correct=record.left.correct,
            adversarial=record.adversarial,
        )
        for record in result.attacks
    ]
    rows += [
        AttackRow(
            variant=variant,
            attack=WORST_CASE,
            parameters={},
            norm=worst.norm,
            epsilon_codes=_codes(worst.radius),
            images=worst.left.images,
            clean_correct=result.clean.correct,
            correct=worst.left.correct,
        )
        for worst in result.worst_case
    ]
    return tuple(rows)


def _codes(radius: float) -> float:
    """A whole number of codes as an integer."""
    return int(radius) if float(radius).is_integer() else radius
