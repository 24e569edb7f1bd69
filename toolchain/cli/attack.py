"""`ohmfold attack`: attacks on an artifact, judged on the device's bits, and whether to trust what they leave."""

from __future__ import annotations

import shlex
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import (  # noqa: TC001 - typer reads the annotations
    Changes,
    ClusterAddress,
    Data,
    Json,
    On,
    Seed,
    Workers,
)
from .output import count, percent, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..artifact import Artifact
    from ..attacks.campaign import Target
    from ..attacks.judges import JudgeName
    from ..attacks.planning import Ball
    from ..attacks.results import CampaignResult, JudgeRecord, Share
    from ..attacks.suite import Suite
    from ..run_record import VerdictRow

__all__ = ["attack"]

_DEFAULT = "quick"
_TRANSFER = "transfer"
# Seconds that the time left is estimated from: attacks of a suite differ by a factor of a thousand.
_WINDOW = 600.0


def attack(
    file: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An integer model.")],
    *,
    data: Data = None,
    suites: Annotated[
        list[str] | None,
        typer.Option(
            "--suite",
            metavar="NAME|FILE.toml",
            show_default=_DEFAULT,
            help="quick, paper, standard, adaptive, query, noise, transfer, all, or a file; repeatable.",
        ),
    ] = None,
    attacks: Annotated[
        list[str] | None,
        typer.Option("--attack", metavar="NAME", help="One attack with its default settings; repeatable."),
    ] = None,
    epsilon: Annotated[
        str, typer.Option(metavar="0.3|76|8/255", help="Radius: a share of the pixel range, or pixel codes.")
    ] = "0.3",
    norm: Annotated[str, typer.Option(metavar="inf|2", help="Norm of the radius.")] = "inf",
    ladder: Annotated[
        str | None,
        typer.Option(metavar="EPSILON,...", help="Further radii, for accuracy against epsilon."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the attacks that --attack names, where they have any.")
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option("--parent", metavar="MODEL", help="The float model that the artifact was made from."),
    ] = None,
    substitutes: Annotated[
        list[str] | None,
        typer.Option(
            "--substitute",
            metavar="[NAME=]MODEL",
            help="Another model, float or integer, for black-box attacks; repeatable.",
        ),
    ] = None,
    on: On = "emulator",
    changes: Changes = None,
    images: Annotated[int, typer.Option("--images", min=1, help="How many images to attack.")] = 100,
    seed: Seed = 0,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, show_default="by memory", help="Images attacked at a time."),
    ] = None,
    workers: Workers = 1,
    cluster: ClusterAddress = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="RUN_DIR", help="Keep sets, figures and charts; what was killed goes on there."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Attack an artifact; an image counts as the device sees it: pixel codes within the ball."""
    from ..attacks.judges import parse_judge
    from ..jobs import check_crew, hire

    ball, radii = _ball(epsilon, norm, ladder)
    chosen = _suites(suites, attacks, steps, transfer=bool(substitutes))
    judge_name = parse_judge(on, changes or ())
    if out is not None:
        from ..attacks.folder import check_campaign_folder

        check_campaign_folder(out)
    check_crew(workers, cluster)
    with progress_bar("attack", _WINDOW) as progress, hire(workers, cluster) as crew:
        progress("loading", 0.0)
        import_onnxruntime()
        from ..artifact import Artifact
        from ..attacks.campaign import campaign_plan, run_campaign
        from ..attacks.folder import write_campaign
        from ..attacks.planning import make_plan
        from ..attacks.state import FolderState, NoState
        from ..attacks.verdict import find_verdict

        artifact = Artifact.load(file)
        target = _target(artifact, data, parent, substitutes or (), judge_name, images, seed, batch_size)
        plan = make_plan(chosen, ball, target.sources, radii)
        target.check(plan)
        state = NoState() if out is None else FolderState(out, campaign_plan(target, plan))
        campaign = run_campaign(
            target,
            plan,
            state=state,
            verdict=lambda tell: find_verdict(target, ball, file.stem, tell),
            crew=crew,
            progress=progress,
        )
        if out is not None:
            options = {
                "--data": data, "--suite": suites, "--attack": attacks, "--epsilon": epsilon, "--norm": norm,
                "--ladder": ladder, "--steps": steps, "--parent": parent, "--substitute": substitutes, "--on": on,
                "--set": changes, "--images": images, "--seed": seed, "--batch-size": batch_size,
            }  # fmt: skip
            write_campaign(
                campaign,
                out,
                title=f"Attacks on {file.name}",
                variant=file.stem,
                command=_command(file, options),
            )
            state.done()
    if as_json:
        document = {"file": str(file), "run_folder": None if out is None else str(out)}
        print_json(document | campaign.result.model_dump(mode="json"))
        return
    _show(campaign.result)
    if out is not None:
        say(f"wrote {out}; `ohmfold report {out}` makes a page of it")


def _ball(epsilon: str, norm: str, ladder: str | None) -> tuple[Ball, tuple[float, ...]]:
    """The campaign's ball, and the further radii."""
    from ...errors import RecipeError
    from ..attacks.epsilon import parse_epsilon
    from ..attacks.planning import Ball

    if norm not in ("inf", "2"):
        raise RecipeError(f"--norm {norm!r}: expected inf or 2")
    radius = parse_epsilon(epsilon, norm)  # type: ignore[arg-type]
    if not radius:
        raise RecipeError(f"--epsilon {epsilon}: a radius of 0 codes leaves every image alone; expected more")
    further = [] if ladder is None else [part.strip() for part in ladder.split(",")]
    radii = tuple(parse_epsilon(part, norm) for part in further)  # type: ignore[arg-type]
    return Ball(norm, radius), radii  # type: ignore[arg-type]


def _suites(
    suites: Sequence[str] | None, attacks: Sequence[str] | None, steps: int | None, *, transfer: bool
) -> tuple[Suite, ...]:
    """The suites to run: those that are named, one of the attacks that are named, or else the quick one."""
    from ...errors import RecipeError
    from ..attacks.suite import load_suite, suite_of

    if steps is not None and not attacks:
        raise RecipeError(
            "--steps is about attacks that --attack names; strengths of a suite are in its file"
        )
    found = [load_suite(name) for name in suites or ()]
    if attacks:
        found.append(suite_of(attacks, steps))
    if not found:
        found = [load_suite(_DEFAULT)]
        if transfer:
            found.append(load_suite(_TRANSFER))
    return tuple(found)


def _target(
    artifact: Artifact,
    data: str | None,
    parent: str | None,
    substitutes: Sequence[str],
    name: JudgeName,
    images: int,
    seed: int,
    batch_size: int | None,
) -> Target:
    from ..attacks.campaign import Target
    from ..attacks.judges import ArtifactJudge
    from ..attacks.sources import Sources, substitute_names
    from ..judged import judged_images

    converters = name.hardware is not None and name.hardware.calibrated
    held_out, left_out, calibration = judged_images(
        data, artifact, converters=converters or parent is not None
    )
    judged = held_out.subset(min(images, len(held_out)), seed)
    calibrating = None if calibration is None else calibration.images
    sources = Sources(
        artifact, parent=parent, substitutes=substitute_names(substitutes), calibration=calibrating
    )
    judge = ArtifactJudge(artifact, name, calibration=calibrating)
    return Target(judge, sources, judged, left_out, seed, batch_size)


def _show(result: CampaignResult) -> None:
    label = "" if result.verdict is None else result.verdict.label
    rows = [("clean", "", "", *_share(result.clean), "")]
    for row in result.attacks:
        name = f"{row.key}, after those above" if row.cascade else row.key
        rows.append(
            (name, row.source, _settings(row.parameters, row.norm, row.radius), *_share(row.left), label)
        )
        rows += [(f"  within L2 {at.epsilon:g}", "", "", *_share(at.left), label) for at in row.at_radii]
    for worst in result.worst_case:
        ball = f"norm {worst.norm}, radius {worst.radius:g}"
        rows.append(("worst case of each image", "", ball, *_share(worst.left), label))
    table("", ["attack", "gradient", "settings", "accuracy", "95 % interval", "verdict"], rows, left=3)
    for skipped in result.skipped:
        say(f"left out: {skipped.name} of {skipped.suite}: {skipped.reason}")
    if result.verdict is not None:
        _show_verdict(result.verdict)
    held = f"; {result.left_out} others calibrated it and were left out" if result.left_out else ""
    say(f"{count(result.data.images)} images of {result.data.name}, judged by {_judge(result.judge)}{held}")


def _show_verdict(verdict: VerdictRow) -> None:
    table(
        f"Masking verdict: {verdict.label}",
        ["check", "outcome", "evidence", "source"],
        [(row.name, row.outcome, row.text, row.source) for row in verdict.findings],
        left=4,
    )


def _judge(judge: JudgeRecord) -> str:
    if judge.hardware is not None:
        return f"chip {judge.seed} of {judge.hardware}"
    return "the emulator" if judge.name == "emulator" else judge.name


def _share(share: Share) -> tuple[str, str]:
    return percent(share.correct, share.images), f"{100 * share.low:.1f}..{100 * share.high:.1f} %"


def _settings(parameters: Any, norm: str, radius: float) -> str:
    ball = "unbounded" if norm == "none" else f"{'L2 ' if norm == '2' else ''}radius {radius:g}"
    shown = [
        f"{name.replace('_', ' ')} {value:g}"
        if isinstance(value, float)
        else f"{name.replace('_', ' ')} {value}"
        for name, value in parameters.items()
    ]
    return ", ".join([ball, *shown])


def _command(file: Path, options: dict[str, Any]) -> str:
    """What to type to repeat the attacks."""
    parts = ["ohmfold", "attack", str(file)]
    for option, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            parts += [] if one is None else [option, str(one)]
    return shlex.join(parts)
