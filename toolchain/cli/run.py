"""`ohmfold run`: an integer model on a data set: in the emulator, beside other executors, on a crossbar."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .on_chip import OnTiles, chip_document, layer_table, profile_to_run, run_on_chip
from .options import LAST_CHIP, BatchSize, Changes, Data, Json, OnnxFile, OptionalImages
from .output import check_writable, count, percent, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ..artifact import Artifact
    from ..run_record import ExactnessRow
    from ..tiled_layers import TiledLayer

__all__ = ["run"]

_WITNESSES = {"emulator": ("emulator",), "onnxruntime": ("onnxruntime",), "all": ("emulator", "onnxruntime")}
_CERTIFIED_BATCHES = (1, 7, 64)
_REFERENCE_IMAGES = 2


def run(
    file: OnnxFile,
    *,
    data: Data = None,
    images: OptionalImages = None,
    witness: Annotated[
        str,
        typer.Option(
            metavar="emulator|onnxruntime|all",
            help="Who runs it; all also compares every tensor, bit by bit.",
        ),
    ] = "emulator",
    hardware: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Run it on a chip of this profile too, beside the exact integers.",
        ),
    ] = None,
    changes: Changes = None,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="SEED", min=0, max=LAST_CHIP, show_default="0", help="Which chip of the profile."
        ),
    ] = None,
    batch_size: BatchSize = 256,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.npz", help="Save predictions and labels there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an integer model on a data set; exit code 1 if two executors differ in any bit."""
    from ...errors import DataError

    if witness not in _WITNESSES:
        raise DataError(f"--witness {witness!r}: expected one of {', '.join(_WITNESSES)}")
    profile, chip_seed = profile_to_run(hardware, changes, seed, witness), seed or 0
    if out is not None:
        check_writable(out)
    with progress_bar("run") as progress:
        progress("loading", 0.0)
        import numpy as np

        from ..artifact import Artifact
        from ..judged import as_input, judged_images

        artifact = Artifact.load(file)
        program = artifact.program
        calibrated = profile is not None and profile.calibrated
        judged, left_out, calibration = judged_images(data, artifact, converters=calibrated, limit=images)
        pixels = as_input(judged.images, program.inputs[0])
        found: dict[str, dict[str, Any]] = {}
        for name in _WITNESSES[witness]:
            progress(name, 0.1)
            predictions, speed = _predict(
                _executor(name, artifact), pixels, batch_size, partial(progress, name)
            )
            found[name] = {"predictions": predictions, "images_per_second": speed}
        exactness: tuple[ExactnessRow, ...] = ()
        if witness == "all":
            progress("comparing every tensor", 0.9)
            exactness = _certify(artifact, pixels)
        on_tiles: OnTiles | None = None
        if profile is not None:
            progress("programming the chip", 0.0)
            predictions, speed, on_tiles = run_on_chip(
                artifact, profile, chip_seed, pixels, calibration, batch_size, partial(progress, "crossbar")
            )
            found["crossbar"] = {"predictions": predictions, "images_per_second": speed}
        if out is not None:
            _save(out, {name: row["predictions"] for name, row in found.items()}, judged.labels)
    results = {
        name: {
            "correct": int(np.count_nonzero(row["predictions"] == judged.labels)),
            "images_per_second": row["images_per_second"],
        }
        for name, row in found.items()
    }
    differing = sum(row.differing for row in exactness)
    if as_json:
        print_json(
            {
                "file": str(file),
                "sha256": artifact.sha256,
                "data": judged.name,
                "images": len(judged),
                "left_out": left_out,
                "witnesses": results,
                "exactness": [row.model_dump(mode="json") for row in exactness],
                "integers": sum(row.integers for row in exactness),
                "differing": differing,
                **(
                    {"hardware": chip_document(profile, chip_seed, calibration, on_tiles)}
                    if profile is not None and on_tiles is not None
                    else {}
                ),
            }
        )
    else:
        _show(results, len(judged), exactness, () if on_tiles is None else on_tiles.layers)
        if profile is not None and on_tiles is not None:
            layer_table(profile, chip_seed, on_tiles)
        held = f"; {left_out} others calibrated it and were left out" if left_out else ""
        say(f"{count(len(judged))} images of {judged.name}{held}")
    if differing:
        raise typer.Exit(1)


def _executor(name: str, artifact: Artifact) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """What turns a batch into classes."""
    if name == "emulator":
        from ..emulator import Emulator

        return Emulator(artifact).predict
    import_onnxruntime()
    from ...errors import ModelError
    from ..judged import onnxruntime_predictor

    program = artifact.program
    if program.logits is None:
        raise ModelError("the model has no logits to classify by")
    return onnxruntime_predictor(
        artifact.to_bytes(), program.inputs[0].name, program.logits, batch=program.batch
    )


def _predict(
    predict: Callable[[NDArray[Any]], NDArray[np.int64]],
    pixels: NDArray[Any],
    batch_size: int,
    progress: Callable[[float], None],
) -> tuple[NDArray[np.int64], float]:
    """Classes, and images per second after a first batch that compiles and warms up."""
    from ..judged import in_batches

    predict(pixels[:batch_size])
    start = time.perf_counter()
    classes = in_batches(predict, pixels, progress, batch_size)
    return classes, len(pixels) / (time.perf_counter() - start)


def _certify(artifact: Artifact, pixels: NDArray[Any]) -> tuple[ExactnessRow, ...]:
    from ..runs import exactness_rows
    from ..witness import LEVELS, certify

    # Onnxruntime's own levels disagree on ties in Q/DQ patterns: it fuses them from `extended` on.
    foreign = not artifact.compiled_here and any(
        node.op_type == "DequantizeLinear" for node in artifact.model.graph
    )
    levels = LEVELS[LEVELS.index("extended") :] if foreign else LEVELS
    fixed = artifact.program.batch
    sizes = sorted({min(size, len(pixels)) for size in _CERTIFIED_BATCHES}) if fixed is None else [fixed]
    rows = certify(artifact, pixels, levels=levels, batch_sizes=sizes)
    reference = () if foreign else certify(artifact, pixels[:_REFERENCE_IMAGES], levels=(), reference=True)
    return exactness_rows("", (*rows, *reference))


def _save(path: Path, predictions: dict[str, NDArray[np.int64]], labels: NDArray[np.int64]) -> None:
    import io

    import numpy as np

    from ..artifact import write_atomically

    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, labels=labels, **predictions)
    write_atomically(path, buffer.getvalue())


def _show(
    results: dict[str, dict[str, Any]],
    images: int,
    exactness: tuple[ExactnessRow, ...],
    layers: tuple[TiledLayer, ...],
) -> None:
    from ..analysis.intervals import wilson
    from ..tiled_layers import certified_share

    certified = {"crossbar": f"{100 * certified_share(layers):.1f} %"}
    columns = ["witness", "accuracy", "95 % interval", "correct", "images per second"]
    rows = []
    for name, row in results.items():
        low, high = wilson(row["correct"], images)
        rows.append(
            (
                name,
                percent(row["correct"], images),
                f"{100 * low:.1f}..{100 * high:.1f} %",
                count(row["correct"]),
                f"{row['images_per_second']:,.0f}",
                *([certified.get(name, "")] if layers else []),
            )
        )
    table("", [*columns, *(["reads that cannot clip"] if layers else [])], rows)
    if exactness:
        table(
            "Emulator against others, bit by bit",
            ["witness", "tensors", "integers", "floats", "differing"],
            [
                (
                    row.witness,
                    count(row.tensors),
                    count(row.integers),
                    count(row.floats),
                    count(row.differing),
                )
                for row in exactness
            ],
        )
        first = next((row.first_difference for row in exactness if row.first_difference), None)
        if first:
            say(f"first difference: {first}")
