"""`ohmfold chips`: how accurate an integer model is on many manufactured chips of one hardware profile."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from .hardware import chosen_profile
from .options import LAST_CHIP, Changes, ClusterAddress, Data, Json, OnnxFile, OptionalImages, Workers
from .output import count as grouped
from .output import percent, print_json, progress_bar, say, table

if TYPE_CHECKING:
    from ..chips import ChipStudy, Point

__all__ = ["chips"]

# Seconds that the time left is estimated from: a chip with wire resistance takes minutes.
_WINDOW = 3600.0


def chips(
    file: OnnxFile,
    *,
    hardware: Annotated[
        str,
        typer.Option(metavar="NAME|FILE.toml", help="The profile (`ohmfold hardware list`)."),
    ],
    count: Annotated[int, typer.Option(min=1, help="How many chips.")] = 50,
    seed: Annotated[
        int,
        typer.Option(
            metavar="SEED", min=0, max=LAST_CHIP, help="Of the first chip; the others have the next ones."
        ),
    ] = 0,
    changes: Changes = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD=4..8|FIELD=A,B",
            help="Take all the chips for each value of a field of the profile.",
        ),
    ] = None,
    data: Data = None,
    images: OptionalImages = None,
    workers: Workers = 1,
    cluster: ClusterAddress = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for figures, a table and charts. What is killed goes on there when started again.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an integer model on many chips of a profile, each drawn from its seed, all on the same images."""
    from ...errors import HardwareError
    from ..hardware import parse_sweep

    swept = None if sweep is None else parse_sweep(sweep)
    if swept is not None and any(change.partition("=")[0].strip() == swept.field for change in changes or []):
        raise HardwareError(f"{swept.field}: --sweep takes its values in turn, expected no --set of it")
    profile = chosen_profile(hardware, changes)
    profiles = (profile,) if swept is None else swept.profiles(profile)
    if out is not None:
        from ..chip_folder import check_study_folder

        check_study_folder(out)
    from ..jobs import check_crew, hire

    check_crew(workers, cluster)
    with progress_bar("chips", _WINDOW) as progress, hire(workers, cluster) as crew:
        progress("loading", 0.0)
        from ..artifact import Artifact
        from ..chip_folder import FinishedChips, write_study
        from ..chips import study
        from ..judged import judged_images

        artifact = Artifact.load(file)
        calibrated = any(one.calibrated for one in profiles)
        judged, left_out, calibration = judged_images(data, artifact, converters=calibrated, limit=images)
        found = study(
            artifact,
            profile,
            judged,
            count=count,
            seed=seed,
            sweep=swept,
            calibration=calibration,
            crew=crew,
            finished=FinishedChips(out),
            progress=progress,
        )
        files = () if out is None else write_study(found, out)
    if as_json:
        document = {"file": str(file), "left_out": left_out, "folder": None if out is None else str(out)}
        print_json(document | found.model_dump(mode="json"))
        return
    _show(found)
    held = f"; {left_out} others calibrated it and were left out" if left_out else ""
    say(f"{grouped(len(judged))} images of {judged.name}{held}")
    if not any(one.varies for one in profiles):
        say(
            "Nothing about these chips is random: all with the same profile are the same, and --count 1 does."
        )
    if out is not None:
        say(f"wrote {out}: {', '.join(files)}")


def _show(study: ChipStudy) -> None:
    from ..hardware import shown

    images = study.data.images
    exact = percent(study.exact_correct, images)
    rows = [("exact integers", exact, *[""] * 6)]
    for point in study.points:
        name = study.hardware if study.field is None else f"{study.field} = {shown(point.value)}"
        rows.append((name, *_figures(point, images)))
    headings = ["", "mean accuracy", "deviation", "5 %", "median", "95 %", "worst", "its seed"]
    last = study.seed + study.count - 1
    chips = f"chip {last}" if study.count == 1 else f"chips {study.seed} to {last}"
    table(f"{study.hardware}, {chips}", headings, rows)


def _figures(point: Point, images: int) -> tuple[str, ...]:
    deviation = point.standard_deviation
    quantiles = (point.quantiles[share] for share in ("0.05", "0.5", "0.95"))
    return (
        f"{100 * point.mean:.2f} %",
        "" if deviation is None else f"{100 * deviation:.2f} %",
        *(percent(value * images, images) for value in quantiles),
        percent(point.worst.correct, images),
        str(point.worst.seed),
    )
