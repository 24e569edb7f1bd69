"""`compile`: a float classifier becomes an integer artifact, pass by pass.

Every pass maps an ONNX model to an ONNX model, so the state between any two can be saved and opened.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..errors import DataError, ModelError, OutputError, RecipeError
from .artifact import SCHEMA, Artifact, library_versions, load_model_file, write_atomically
from .float_model import prepare_float_model
from .passes import (
    CalibrateActivationsPass,
    CanonicalisePass,
    CheckPass,
    CorrectBiasPass,
    FoldBatchNormPass,
    FoldConstantsPass,
    FoldMuLawPass,
    FoldNormalisationPass,
    LowerToIntegersPass,
    NameLayersPass,
    ProveRangesPass,
    QuantiseWeightsPass,
    apply,
)
from .recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

__all__ = ["ADDED_PASSES_KEY", "compile", "passes_of"]

ADDED_PASSES_KEY = "ohmfold.added_passes"
"""Metadata key: JSON, the classes of passes that were added, by the name of the pass that they run before."""

_CHECKED_IMAGES = 8
"""How many calibration images compare the export with torch."""


def passes_of(
    recipe: Recipe, images: NDArray[np.uint8]
) -> Iterator[tuple[str, Callable[[ir.Model], ir.passes.PassBase]]]:
    """Yield the names of the passes in order, and how to make each for the model that it gets."""
    power_of_two = recipe.scales == "pow2"
    yield "name-layers", lambda _: NameLayersPass()
    yield "fold-mu-law", lambda _: FoldMuLawPass(recipe.mu_law, recipe.mu_law_domain)
    yield "fold-constants", lambda _: FoldConstantsPass()
    yield "canonicalise", lambda _: CanonicalisePass()
    yield "fold-normalisation", lambda _: FoldNormalisationPass(power_of_two=power_of_two)
    yield "fold-batch-norm", lambda _: FoldBatchNormPass()
    reference: list[ir.Model] = []
    if recipe.bias_correction:

        def quantise(model: ir.Model) -> ir.passes.PassBase:
            reference.append(model.clone())
            return QuantiseWeightsPass(recipe)

        yield "quantise-weights", quantise
        yield "correct-bias", lambda _: CorrectBiasPass(reference[0], images)
    else:
        yield "quantise-weights", lambda _: QuantiseWeightsPass(recipe)
    yield "calibrate-activations", lambda _: CalibrateActivationsPass(recipe, images)
    yield (
        "lower-to-integers",
        lambda _: LowerToIntegersPass(power_of_two=power_of_two, float_input=recipe.input == "float32"),
    )
    yield "prove-ranges", lambda _: ProveRangesPass()
    yield "check", lambda _: CheckPass()


def compile(  # noqa: A001 - the verb of a compiler
    model: nn.Module | ir.Model | str | Path,
    calibration_images: NDArray[np.uint8],
    recipe: Recipe | None = None,
    *,
    before: Mapping[str, Sequence[ir.passes.PassBase]] | None = None,
    keep: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> Artifact:
    """Compile a float classifier to an integer artifact.

    Args:
        model: A PyTorch module, a float ONNX file or an `onnx_ir.Model` (not changed), that takes float32
            pixels in [0, 1] `(N, C, H, W)` or `(N, C, L)` and returns logits `(N, classes)`. One that was
            trained as integers (`models.quantised.Quantised`) keeps its learned steps and limits.
        calibration_images: uint8 pixel codes `(N, C, H, W)`, a few hundred from the training set; they set
            the ranges of the activations (and the bias correction).
        recipe: The settings; by default 3-bit weights, min-max calibration.
        before: Passes of your own, by the name of the pass that they run before (`passes_of` yields the names). The
            artifact's metadata names them; who compiles again from that metadata compiles without them.
        keep: A folder for the model after each pass (`01-name-layers.onnx`, ...).
        progress: Called with the name of each pass before it runs.

    Returns:
        The artifact.

    Raises:
        ModelError, UnsupportedError: The model cannot be read, or holds what cannot be compiled exactly.
        RecipeError: A setting names a layer that is not there, or does not fit the weights; or `before` names a pass
            that is not there.
        RangeError: An accumulator could overflow int32.
        DataError: The calibration images do not fit.
        ExactnessError: What torch exported computes something else than the module.
    """
    recipe = Recipe() if recipe is None else recipe
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"the recipe is a {type(recipe).__name__}, expected ohmfold.Recipe(...)")
    _check_calibration(calibration_images)
    if keep is not None:
        _make_folder(Path(keep))
    model, recipe = _float_form(model, recipe)
    steps = list(_with_added(passes_of(recipe, calibration_images), before or {}))
    graph, source = _float_model(model, calibration_images, progress)
    for position, (name, make) in enumerate(steps, start=1):
        if progress is not None:
            progress(name)
        apply(make(graph), graph)
        if keep is not None:
            write_atomically(
                Path(keep) / f"{position:02d}-{name}.onnx", ir.to_proto(graph).SerializeToString()
            )
    _describe(graph, recipe, source, calibration_images)
    if before:
        added = {name: [_qualified(pass_) for pass_ in passes] for name, passes in before.items()}
        graph.metadata_props[ADDED_PASSES_KEY] = json.dumps(added, sort_keys=True)
    return Artifact(graph)


def _with_added(
    steps: Iterator[tuple[str, Callable[[ir.Model], ir.passes.PassBase]]],
    before: Mapping[str, Sequence[ir.passes.PassBase]],
) -> Iterator[tuple[str, Callable[[ir.Model], ir.passes.PassBase]]]:
    """Yield the compiler's passes, and before them those that were added, under the names of their classes."""
    known = list(steps)
    names = [name for name, _ in known]
    for name, passes in before.items():
        if name not in names:
            raise RecipeError(f"before: no pass '{name}'; the passes are {', '.join(names)}")
        for pass_ in passes:
            if not isinstance(pass_, ir.passes.PassBase):
                raise RecipeError(
                    f"before: '{name}' holds a {type(pass_).__name__}, expected objects of onnx_ir.passes.PassBase"
                )
    for name, make in known:
        for pass_ in before.get(name, ()):
            yield type(pass_).__name__, _always(pass_)
        yield name, make


def _always(pass_: ir.passes.PassBase) -> Callable[[ir.Model], ir.passes.PassBase]:
    return lambda _: pass_


def _qualified(pass_: ir.passes.PassBase) -> str:
    return f"{type(pass_).__module__}.{type(pass_).__qualname__}"


def _float_form(
    model: nn.Module | ir.Model | str | Path, recipe: Recipe
) -> tuple[nn.Module | ir.Model | str | Path, Recipe]:
    """Return the float network to compile and its recipe; what was trained as integers brings its own."""
    if isinstance(model, str | Path | ir.Model):
        return model, recipe
    from ..models.quantised import Quantised
    from .learned import float_form

    return float_form(model, recipe) if isinstance(model, Quantised) else (model, recipe)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from None


def _check_calibration(images: NDArray[np.uint8]) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(f"calibration images are {found}, expected a uint8 array of pixel codes (N, C, H, W)")
    if images.ndim < 2 or len(images) == 0:
        raise DataError("the calibration set is empty, expected at least one image (a few hundred are usual)")


def _float_model(
    model: nn.Module | ir.Model | str | Path,
    images: NDArray[np.uint8],
    progress: Callable[[str], None] | None,
) -> tuple[ir.Model, dict[str, str]]:
    """Return a float ONNX model of our own to work on, and what it was made from."""
    if isinstance(model, str | Path):
        graph, digest = load_model_file(model)
        prepare_float_model(graph)
        return graph, {"kind": "onnx", "sha256": digest}
    if isinstance(model, ir.Model):
        graph = model.clone()
        digest = hashlib.sha256(ir.to_proto(model).SerializeToString(deterministic=True)).hexdigest()
        prepare_float_model(graph)
        return graph, {"kind": "onnx", "sha256": digest}
    from torch import nn as torch_nn

    from ..export import check_export, export_module

    if not isinstance(model, torch_nn.Module):
        raise ModelError(
            f"cannot compile a {type(model).__name__}, expected a torch.nn.Module, a float onnx_ir.Model or the path "
            "of a float ONNX file"
        )
    if progress is not None:
        progress("export")
    graph = export_module(model, images.shape[1:])
    check_export(model, graph, images[:_CHECKED_IMAGES])
    digest = hashlib.sha256(ir.to_proto(graph).SerializeToString(deterministic=True)).hexdigest()
    return graph, {"kind": type(model).__name__, "sha256": digest}


def _describe(model: ir.Model, recipe: Recipe, source: dict[str, str], images: NDArray[np.uint8]) -> None:
    """Write how the artifact was made into its metadata."""
    digest = hashlib.sha256(repr(images.shape).encode() + np.ascontiguousarray(images).tobytes()).hexdigest()
    records = {
        "schema": SCHEMA,
        "recipe": recipe.model_dump(exclude_none=True),
        "source": source,
        "calibration": {"images": len(images), "sha256": digest},
        "versions": library_versions(),
    }
    for key, value in records.items():
        model.metadata_props[f"ohmfold.{key}"] = json.dumps(value, sort_keys=True)
    model.producer_name = "ohmfold"
    model.producer_version = library_versions().get("ohmfold")
