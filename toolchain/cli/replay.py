"""`ohmfold replay`: a saved set of adversarial images, judged again on any executor of its artifact."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Changes, Data, Json, On  # noqa: TC001 - typer reads the annotations
from .output import count, percent, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from ..attacks.replay import Replay

__all__ = ["replay"]


def replay(
    file: Annotated[Path, typer.Argument(metavar="SET.npz", help="A set that `ohmfold attack --out` wrote.")],
    artifact_file: Annotated[
        Path | None,
        typer.Argument(metavar="[ARTIFACT]", show_default="the one beside the set", help="What to judge."),
    ] = None,
    *,
    on: On = "emulator",
    changes: Changes = None,
    transfer: Annotated[
        bool, typer.Option("--transfer", help="Judge an artifact that the set was not made for.")
    ] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Judge a saved set again; exit code 1 if an executor of exact integers gives an image another label."""
    from ..attacks.judges import parse_judge

    name = parse_judge(on, changes or ())
    with progress_bar("replay") as progress:
        progress("loading", 0.0)
        if name.name == "onnxruntime":
            import_onnxruntime()
        from ..artifact import Artifact
        from ..attacks.judges import ArtifactJudge
        from ..attacks.replay import artifact_beside, check_target
        from ..attacks.replay import replay as judge_again
        from ..attacks.storage import load_adversarial
        from ..judged import judged_images

        saved = load_adversarial(file)
        path = artifact_beside(file, saved.artifact_sha256) if artifact_file is None else artifact_file
        artifact = Artifact.load(path)
        check_target(saved, artifact, transfer=transfer)
        calibration = None
        if name.hardware is not None and name.hardware.calibrated:
            found_calibration = judged_images(data, artifact, converters=True).calibration
            calibration = None if found_calibration is None else found_calibration.images
        judge = ArtifactJudge(artifact, name, calibration=calibration)
        found = judge_again(
            saved, judge, transfer=transfer, progress=lambda share: progress(f"judging on {name}", share)
        )
    differing = found.differing
    if as_json:
        print_json(_document(file, path, str(name), found))
    else:
        _show(path, str(name), found)
    if len(differing) and name.exact and not found.transferred:
        raise typer.Exit(1)


def _document(file: Path, path: Path, on: str, found: Replay) -> dict[str, Any]:
    result = found.saved.result
    return {
        "file": str(file),
        "artifact": str(path),
        "artifact_sha256": found.saved.artifact_sha256,
        "transferred": found.transferred,
        "on": on,
        "attack": result.name,
        "source": result.source,
        "norm": result.norm,
        "radius": result.radius,
        "clean": found.clean.model_dump(),
        "left": found.left.model_dump(),
        "stated_correct": int((~result.success).sum()),
        "differing": found.differing.tolist(),
        "predictions": found.predictions.tolist(),
    }


def _show(path: Path, on: str, found: Replay) -> None:
    result, clean, left = found.saved.result, found.clean, found.left
    stated = int((~result.success).sum())
    before = count(int((result.clean_predictions == result.labels).sum()))
    rows = [("clean", percent(clean.correct, clean.images), "", before, count(clean.correct))]
    rows.append(
        (
            f"{result.name}, norm {result.norm}, radius {result.radius:g}",
            percent(left.correct, left.images),
            f"{100 * left.low:.1f}..{100 * left.high:.1f} %",
            count(stated),
            count(left.correct),
        )
    )
    table("", ["set", "accuracy", "95 % interval", "correct, as the set says", f"correct on {on}"], rows)
    differing = found.differing
    other = (
        "another artifact than it was made for" if found.transferred else "the artifact that it was made for"
    )
    say(f"{count(left.images)} images, judged on {on}: {path}, {other}")
    if len(differing):
        first = int(differing[0])
        say(f"{count(len(differing))} images got another label than the set says, the first is image {first}")
    else:
        say("every image got the label that the set says")
