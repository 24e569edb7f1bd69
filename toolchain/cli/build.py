"""`ohmfold build`: an artifact in the form that a target takes."""

from __future__ import annotations

import hashlib
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .hardware import chosen_profile
from .options import LAST_CHIP, Changes, Data, Json
from .output import count, print_json, progress_bar, say, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..artifact import Artifact
    from ..targets import Material, Target

__all__ = ["build"]


def build(
    file: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="An integer model, as `compile` writes it.")
    ],
    target: Annotated[
        str, typer.Option("--target", metavar="TARGET", help="c99, qdq, qonnx, packed or crossbar.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new or empty folder for it.")],
    *,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="c99: what files and functions are named after.")
    ] = None,
    ram: Annotated[
        int | None, typer.Option(metavar="BYTES", min=1, help="c99: refuse to build past this much memory.")
    ] = None,
    rom: Annotated[
        int | None,
        typer.Option(metavar="BYTES", min=1, help="c99: refuse to build past this much constant data."),
    ] = None,
    integer_only: Annotated[
        bool, typer.Option("--integer-only", help="c99: no floating point, for artifacts of scales = pow2.")
    ] = False,
    data: Data = None,
    images: Annotated[
        int | None,
        typer.Option(
            "--images",
            metavar="N",
            min=1,
            show_default="4",
            help="c99: test vectors; of --data, or random.",
        ),
    ] = None,
    hardware: Annotated[
        str | None, typer.Option(metavar="NAME|FILE.toml", help="crossbar: the profile that is programmed.")
    ] = None,
    changes: Changes = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="SEED",
            min=0,
            max=LAST_CHIP,
            show_default="0",
            help="crossbar: which chip of the profile.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build an artifact for a target: all of its files in a new folder, or none."""
    from ..targets import check_new_folder, find_target, write_folder

    chosen = find_target(target)
    check_new_folder(out)
    given = {
        "name": name,
        "ram": ram,
        "rom": rom,
        "integer_only": integer_only or None,
        "vectors": images,
        "hardware": _profile(hardware, changes),
        "seed": seed,
    }
    _check_images(target, data, images, given["hardware"])
    options = chosen.options(**{key: value for key, value in given.items() if value is not None})
    with progress_bar("build") as progress:
        progress("loading", 0.0)
        from ..artifact import Artifact

        artifact = Artifact.load(file)
        chosen.check(artifact, options)
        material = _material(chosen, artifact, data, images, given["hardware"], progress)
        built = chosen.build(artifact, options, material)
        progress("writing", 1.0)
        write_folder(out, built.files)
    if as_json:
        print_json(
            {
                "file": str(file),
                "sha256": artifact.sha256,
                "target": target,
                "out": str(out),
                "files": [
                    {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                    for name, content in built.files.items()
                ],
                "summary": dict(built.summary),
                "notes": list(built.notes),
            }
        )
        return
    _show(out, built.files, built.notes)


def _profile(hardware: str | None, changes: list[str] | None) -> Any:
    """The profile that `--hardware` and `--set` name; None without."""
    from ...errors import HardwareError

    if hardware is None:
        if changes:
            raise HardwareError("--set is about a chip: expected --hardware NAME|FILE.toml with it")
        return None
    return chosen_profile(hardware, changes)


def _check_images(target: str, data: str | None, images: int | None, profile: Any) -> None:
    """Refuse images that nothing would be done with."""
    from ...errors import TargetError

    calibrated = profile is not None and profile.calibrated
    if images is not None and target != "c99":
        raise TargetError(f"--images: target '{target}' has no test vectors; leave it out")
    if data is not None and target != "c99" and not calibrated:
        raise TargetError(f"--data: target '{target}' needs no images here; leave it out")


def _material(
    target: Target[Any], artifact: Artifact, data: str | None, images: int | None, profile: Any, progress: Any
) -> Material:
    """Test vectors for c99, calibration images for converters that need them."""
    from ..targets import Material

    spec = artifact.program.inputs[0]
    if target.name == "c99" and data is not None:
        from ..judged import as_input, judged_images

        judged = judged_images(data, artifact, limit=images).data.images
        return Material(images=as_input(judged, spec), progress=progress)
    if profile is not None and profile.calibrated:
        from ..judged import as_input, judged_images

        calibration = judged_images(data, artifact, converters=True).calibration
        seen = None if calibration is None else as_input(calibration.images, spec)
        return Material(calibration=seen, progress=progress)
    return Material(progress=progress)


def _show(out: Path, files: Mapping[str, bytes], notes: tuple[str, ...]) -> None:
    rows = [(name, count(len(content))) for name, content in files.items()]
    if len(rows) > 1:
        rows.append(("all", count(sum(map(len, files.values())))))
    table("", ["file", "bytes"], rows)
    say(*notes, f"wrote {out}")
