"""An artifact layer by layer: codes, steps, bounds, the error of its weights, and where accuracy is lost.

`layer_rows` reads the artifact alone. `activation_errors` runs it beside the float model that it was made of
and compares every stored activation: the layer where the signal-to-error ratio falls costs accuracy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ...errors import DataError, ModelError
from ..artifact import load_model_file
from ..emulator import Emulator
from ..float_run import FloatRun
from ..program import Conv, Dense, MaxPool, Pad, Program, Quantise, Reshape, Scale, Split, Transpose
from ..run_record import LayerRow
from .ranges import accumulator_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ..artifact import Artifact

__all__ = ["ActivationError", "activation_errors", "layer_rows"]

_CODES = ".codes"
_FOREIGN = "as in the model file"
_MOVES = (MaxPool, Pad, Reshape, Split, Transpose)


@dataclass(frozen=True)
class ActivationError:
    """One stored activation (or the logits) against the float model's value of the same name.

    Attributes:
        name: The value's name in the float model.
        snr_db: 10 log10(|f|^2 / |f - x|^2) over all images; None where the two are equal, where the float
            value is zero throughout, or where there was nothing to compare.
        max_abs_error: Largest |f - x|; None where the float model has no value of that name and shape (passes
            that fold layers also rename), so that nothing was compared.
        mean_abs_error: Mean of |f - x|; None as for `max_abs_error`.
        tensor: The tensor of the program that was compared.
    """

    name: str
    snr_db: float | None
    max_abs_error: float | None
    mean_abs_error: float | None
    tensor: str


def layer_rows(artifact: Artifact, errors: Sequence[ActivationError] = ()) -> tuple[LayerRow, ...]:
    """Describe the layers with weights, in order.

    An artifact compiled here holds average pools as depthwise convolutions of ones; these are left out.

    Args:
        artifact: Any integer model.
        errors: What `activation_errors` found, for the activations' signal-to-error ratio.

    Returns:
        One row for each layer; what a model made by others does not tell is None.

    Raises:
        UnsupportedError: The model holds something that cannot be run exactly.
    """
    program, metadata = artifact.program, artifact.metadata()
    bounds = {found.layer: found for found in reversed(accumulator_ranges(program))}
    weight_errors: Mapping[str, Any] = metadata.get("weight_errors", {})
    by_tensor = {error.tensor: error.snr_db for error in errors}
    rows = []
    for layer in program.weighted_layers():
        options = metadata.get(f"weights.{layer.name}")
        if options is None and artifact.compiled_here:
            continue
        codes, counts = np.unique(layer.weight, return_counts=True)
        low, high = _steps(layer, program, metadata.get("activations", {}))
        error = weight_errors.get(layer.name, {})
        rows.append(
            LayerRow(
                name=layer.name,
                kind="conv" if isinstance(layer, Conv) else "dense",
                shape=layer.weight.shape,
                options=_FOREIGN if options is None else str(options),
                codes=tuple(codes.tolist()),
                counts=tuple(counts.tolist()),
                step_low=low,
                step_high=high,
                bound=bounds[layer.name].bound,
                exact_in_float32=bounds[layer.name].exact_in_float32,
                weight_snr_db=error.get("snr_db"),
                spectral_error=error.get("spectral"),
                infinity_error=error.get("infinity"),
                activation_snr_db=by_tensor.get(_stored(layer, program)),
            )
        )
    return tuple(rows)


def _steps(
    layer: Conv | Dense, program: Program, activations: Mapping[str, Mapping[str, float]]
) -> tuple[float | None, float | None]:
    """Return the smallest and largest step, or None twice.

    QLinearConv holds its steps. Integer products hold the multiplier alone: M = s_x s_w / s_y before codes of
    scale s_y, and M = s_x s_w before logits; divided out it gives s_w to float32 rounding.
    """
    if layer.weight_scale is not None:
        return float(layer.weight_scale.min()), float(layer.weight_scale.max())
    source = activations.get(layer.input.removesuffix(_CODES))
    multiplier, result = _multiplier(layer, program)
    target = {"scale": 1.0} if result is None else activations.get(result.removesuffix(_CODES))
    if multiplier is None or source is None or target is None:
        return None, None
    steps = np.abs(multiplier.astype(np.float64)) * target["scale"] / source["scale"]
    return float(np.float32(steps.min())), float(np.float32(steps.max()))


def _multiplier(layer: Conv | Dense, program: Program) -> tuple[NDArray[np.float32] | None, str | None]:
    """Return the multiplier behind a layer, and the name of the codes that it makes (None for logits)."""
    if layer.requantisation is not None:
        return layer.requantisation.multiplier, layer.output
    tensor = layer.output
    while len(readers := program.consumers.get(tensor, ())) == 1 and isinstance(readers[0], Reshape):
        tensor = readers[0].output
    if len(readers) == 1 and isinstance(readers[0], Scale):
        return readers[0].multiplier, None
    return None, None


def _stored(layer: Conv | Dense, program: Program) -> str:
    """Return the tensor in which a layer's result is compared: its codes, or the logits made of it."""
    if layer.requantisation is not None:
        return layer.output
    return program.logits if program.logits is not None and layer.output == program.codes else layer.output


@dataclass(eq=False)
class _Sums:
    """Running sums over batches of one comparison."""

    signal: float = 0.0
    noise: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0
    values: int = 0
    comparable: bool = True

    def add(self, wanted: NDArray[np.float64], found: NDArray[np.float64]) -> None:
        if wanted.shape != found.shape:
            self.comparable = False
            return
        difference = np.abs(wanted - found)
        self.signal += float(np.square(wanted).sum())
        self.noise += float(np.square(difference).sum())
        self.absolute += float(difference.sum())
        self.largest = max(self.largest, float(difference.max(initial=0.0)))
        self.values += difference.size

    def result(self, name: str, tensor: str) -> ActivationError:
        if not self.comparable or not self.values:
            return ActivationError(name, None, None, None, tensor)
        snr = 10 * math.log10(self.signal / self.noise) if self.signal > 0 and self.noise > 0 else None
        return ActivationError(name, snr, self.largest, self.absolute / self.values, tensor)


@dataclass(frozen=True)
class _Stored:
    """A tensor of codes, and what they mean: `(code - zero_point) * scale`; floats have scale 1."""

    name: str
    tensor: str
    scale: float
    zero_point: int


def activation_errors(
    artifact: Artifact, float_model: str | Path | ir.Model, images: NDArray[np.uint8]
) -> tuple[ActivationError, ...]:
    """Compare every stored activation, and the logits, with the float model's, over all images.

    The pixels themselves, and codes that are only moved pixels, are left out: both are fed with them.

    Args:
        artifact: Compiled here, so that its metadata tell the activations' scales.
        float_model: The float model that it was made from: a file or `onnx_ir.Model`, with a free batch
            dimension, that takes float32 pixels in [0, 1].
        images: uint8 pixel codes `(N, C, H, W)`.

    Returns:
        In the artifact's order, the logits last; values that the float model does not have under that name
        and shape are listed with None for every figure.

    Raises:
        ModelError: The artifact tells no scales, or the float model cannot be read or run.
        DataError: The images are not a non-empty uint8 array, or do not fit the artifact.
    """
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or not len(images):
        found = f"{images.dtype}{images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise DataError(
            f"images: found {found}; expected a non-empty uint8 array of pixel codes (N, C, H, W)"
        )
    stored = _stored_tensors(artifact)
    model = float_model if isinstance(float_model, ir.Model) else load_model_file(float_model)[0]
    known = {value.name for node in model.graph for value in node.outputs}
    compared = [entry for entry in stored if entry.name in known]
    emulator = Emulator(artifact)
    as_floats = artifact.program.inputs[0].dtype == np.float32
    sums = {entry.tensor: _Sums() for entry in stored}
    start = 0
    for batch in _float_batches(model, [entry.name for entry in compared], images):
        size = len(next(iter(batch.values())))
        pixels = images[start : start + size]
        start += size
        fed = pixels.astype(np.float32) / np.float32(255) if as_floats else pixels
        trace = emulator.trace(fed, [entry.tensor for entry in compared])
        for entry in compared:
            codes = trace[entry.tensor].astype(np.float64)
            sums[entry.tensor].add(
                batch[entry.name].astype(np.float64), (codes - entry.zero_point) * entry.scale
            )
    return tuple(sums[entry.tensor].result(entry.name, entry.tensor) for entry in stored)


def _stored_tensors(artifact: Artifact) -> list[_Stored]:
    """Return the tensors of codes that are not pixels, in the artifact's order, and the logits."""
    activations = artifact.metadata().get("activations")
    if not isinstance(activations, dict):
        raise ModelError(
            "the model does not tell the scales of its activations (metadata ohmfold.activations); "
            "expected an artifact compiled by ohmfold"
        )
    program = artifact.program
    found = [
        _Stored(name, f"{name}{_CODES}", float(meaning["scale"]), int(meaning["zero_point"]))
        for name, meaning in activations.items()
        if f"{name}{_CODES}" in program.producers and not _is_pixels(f"{name}{_CODES}", program)
    ]
    if program.logits is not None and program.logits in program.producers:
        found.append(_Stored(program.logits, program.logits, 1.0, 0))
    return found


def _is_pixels(tensor: str, program: Program) -> bool:
    """Whether a tensor holds the input's codes, moved at most."""
    producer = program.producers.get(tensor)
    while isinstance(producer, _MOVES):
        producer = program.producers.get(producer.input)
    return producer is None or (isinstance(producer, Quantise) and producer.input not in program.producers)


def _float_batches(
    model: ir.Model, names: list[str], images: NDArray[np.uint8]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Run the float model; onnxruntime's own errors come out as one line."""
    if not names:
        return
    try:
        yield from FloatRun(model, names).batches(images, 1 / 255)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"onnxruntime cannot run the float model on images {images.shape}: {reason}; "
            "expected a model of float32 pixels (N, C, H, W) with a free batch dimension"
        ) from error
