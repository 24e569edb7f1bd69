"""`ohmfold compile`: a float classifier becomes an integer artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Data, Json, ModelArgument  # noqa: TC001 - typer reads the annotations
from .output import check_writable, count, fold_lines, print_json, progress_bar, say, table
from .quiet import import_onnxruntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..recipe import Recipe
    from ..run_record import LayerRow

__all__ = ["compile_model", "layer_table"]

# Passes of a compilation, the export included; for the progress bar alone.
_STEPS = 13


def compile_model(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", metavar="FILE.onnx", help="Where the artifact goes.")],
    *,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE.toml", help="Settings; the options below override them."),
    ] = None,
    weight_bits: Annotated[
        int | None, typer.Option(metavar="1..8", show_default="3", help="Width of the weights.")
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(metavar="linear|full-range|log2", show_default="linear", help="The weights' levels."),
    ] = None,
    step: Annotated[
        str | None, typer.Option(metavar="max|mse|NUMBER", show_default="max", help="How the step is chosen.")
    ] = None,
    per_channel: Annotated[
        bool | None,
        typer.Option(
            "--per-channel/--per-tensor", show_default="per tensor", help="One step per output channel."
        ),
    ] = None,
    layer_bits: Annotated[
        list[str] | None, typer.Option(metavar="LAYER=BITS", help="Another width for one layer; repeatable.")
    ] = None,
    mu_law: Annotated[
        list[str] | None,
        typer.Option(metavar="LAYER=MU", help="Mu-law map on a layer's weights; repeatable."),
    ] = None,
    mu_law_domain: Annotated[
        str | None, typer.Option(metavar="literal|normalised", show_default="literal", help="What is mapped.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="min-max|percentile|mse", show_default="min-max", help="Ranges of the activations."
        ),
    ] = None,
    percentile: Annotated[
        float | None, typer.Option(show_default="99.99", help="Share of activations in range, in percent.")
    ] = None,
    bias_correction: Annotated[
        bool | None,
        typer.Option(
            "--bias-correction/--no-bias-correction",
            show_default="no",
            help="Shift biases by the mean error.",
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(metavar="float|pow2", show_default="float", help="Or every scale a power of two."),
    ] = None,
    input_type: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="uint8|float32", show_default="uint8", help="What the artifact takes."
        ),
    ] = None,
    data: Data = None,
    calibration_images: Annotated[
        int, typer.Option(help="Images that calibrate; they are held back from judging.")
    ] = 512,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Save the model after each pass there.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compile a classifier to an integer artifact: standard ONNX, uint8 pixels in, logits out."""
    settings = {
        "weight_bits": weight_bits,
        "levels": levels,
        "step": None if step is None else _number_or_word(step),
        "granularity": None if per_channel is None else ("channel" if per_channel else "tensor"),
        "mu_law": _pairs("--mu-law", mu_law),
        "mu_law_domain": mu_law_domain,
        "calibration": calibration,
        "percentile": percentile,
        "bias_correction": bias_correction,
        "scales": scales,
        "input": input_type,
    }
    chosen = _recipe(recipe, settings, _pairs("--layer-bits", layer_bits))
    check_writable(out)
    if keep is not None:
        _check_keep(keep)
    with progress_bar("compile") as progress:
        progress("loading", 0.0)
        import_onnxruntime()
        from ..analysis.layers import layer_rows
        from ..compiler import compile as compile_artifact
        from ..judged import calibration_set

        source = load_source(model)
        images = calibration_set(data, calibration_images)
        done = iter(range(1, _STEPS + 1))
        artifact = compile_artifact(
            source,
            images.images,
            chosen,
            keep=keep,
            progress=lambda name: progress(name, next(done, _STEPS) / (_STEPS + 1)),
        )
        rows = layer_rows(artifact)
        artifact.save(out)
    if as_json:
        print_json(
            {
                "file": str(out),
                "sha256": artifact.sha256,
                "calibration": {"data": images.name, "images": len(images)},
                "recipe": chosen.model_dump(exclude_none=True),
                "layers": [row.model_dump(mode="json") for row in rows],
                "notes": artifact.notes,
            }
        )
        return
    layer_table(rows)
    fold_lines("Notes", artifact.notes)
    say(
        f"calibrated on {len(images)} images of {images.name}, left out where run and attack judge",
        f"wrote {out}, SHA-256 {artifact.sha256}",
    )


def layer_table(rows: Sequence[LayerRow]) -> None:
    """Print the layers with weights."""
    table(
        "Layers with weights",
        ["layer", "kind", "weights", "shape", "codes", "step", "weight SNR", "|acc| at most"],
        [
            (
                row.name,
                row.kind,
                row.options,
                " x ".join(map(str, row.shape)),
                f"{min(row.codes)}..{max(row.codes)}" if row.codes else "-",
                _steps(row),
                decibels(row.weight_snr_db),
                count(row.bound) if row.exact_in_float32 else f"{count(row.bound)}, past 2^24",
            )
            for row in rows
        ],
        left=3,
    )


def decibels(value: float | None) -> str:
    """A ratio in decibels; a dash where there is none."""
    return "-" if value is None else f"{value:.1f} dB"


def _steps(row: LayerRow) -> str:
    if row.step_low is None or row.step_high is None:
        return "-"
    return (
        f"{row.step_low:.4g}" if row.step_low == row.step_high else f"{row.step_low:.3g}..{row.step_high:.3g}"
    )


def load_source(model: str) -> Any:
    """What the compiler takes: the path of an ONNX file, or the module of a zoo name or checkpoint."""
    if model.endswith(".onnx"):
        return Path(model)
    from ...models.checkpoints import load_model

    return load_model(model)


def _recipe(file: Path | None, settings: dict[str, Any], widths: dict[str, float] | None) -> Recipe:
    from ..recipe import Recipe

    values = {} if file is None else Recipe.load(file).model_dump(exclude_none=True)
    values.update({name: value for name, value in settings.items() if value is not None})
    for layer, bits in (widths or {}).items():
        own = values.setdefault("layers", {}).setdefault(layer, {})
        own["weight_bits"] = int(bits) if bits == int(bits) else bits
    return Recipe(**values)


def _pairs(option: str, given: list[str] | None) -> dict[str, float] | None:
    """Read `NAME=NUMBER` options."""
    if not given:
        return None
    from ...errors import RecipeError

    pairs = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            pairs[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise RecipeError(f"{option} {text!r}: expected a layer's name, =, and a number, such as fc2=255")
    return pairs


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _check_keep(folder: Path) -> None:
    from ...errors import OutputError

    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise OutputError(f"cannot make the folder {folder}: {existing} is a file")
