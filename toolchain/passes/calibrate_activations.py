"""Choose scales and zero points of the activations and write them into the graph as Q/DQ pairs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ...errors import DataError, ModelError
from ..float_run import FloatRun
from ..graph import add_initializer, note, real_consumers
from ..quantise import power_of_two_at_least
from .dataflow import MOVES, Dataflow
from .fold_normalisation import INPUT_SCALE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..recipe import Recipe

__all__ = ["ACTIVATIONS_KEY", "CalibrateActivationsPass", "choose_limit"]

ACTIVATIONS_KEY = "ohmfold.activations"
"""Metadata key: JSON, scale and zero point of the codes of each float value, by the value's name."""

_BINS = 4096
_CANDIDATES = 128
_SMALLEST_LIMIT = 255 * float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class _Range:
    """What calibration saw of one group."""

    limit: float
    histogram: NDArray[np.int64]


def choose_limit(
    histogram: NDArray[np.int64], largest: float, levels: int, method: str, percentile: float
) -> float:
    """Choose the magnitude that falls on the outermost code.

    Args:
        histogram: Counts of |x| in equal bins over [0, largest].
        largest: The largest |x| seen.
        levels: The outermost code: 255 unsigned, 127 signed.
        method: `min-max`, `percentile` or `mse`.
        percentile: Percent of the values to keep in range, for `percentile`.

    Returns:
        The limit, in (0, largest]; 0 where nothing but zeros was seen.
    """
    if method == "min-max" or largest == 0.0 or not histogram.any():
        return largest
    width = largest / len(histogram)
    if method == "percentile":
        wanted = histogram.sum() * percentile / 100
        return width * (int(np.searchsorted(np.cumsum(histogram), wanted)) + 1)
    centres = width * (np.arange(len(histogram)) + 0.5)
    candidates = largest * np.arange(1, _CANDIDATES + 1) / _CANDIDATES
    steps = candidates[:, None] / levels
    error = centres - steps * np.clip(np.rint(centres / steps), 0, levels)
    return float(candidates[np.argmin((error**2 * histogram).sum(axis=1))])


class CalibrateActivationsPass(ir.passes.InPlacePass):
    """Put QuantizeLinear and DequantizeLinear behind every value that will be stored as codes.

    1. The input's scale is that of the pixel codes, zero point 0.
    2. Values that only move codes (see `dataflow.MOVES`) share one scale; a join with the pixels rescales them.
    3. Zero point 0 where no value of the group can be negative, 128 elsewhere.
    4. The range comes from running the graph, with its quantised weights, on the calibration images:
       `min-max`, `percentile`, `mse`, or `limits`: the upper limit of a Clip, reached or not (`min-max` for
       values without one). In power-of-two mode the scale is rounded up to a power of two (for
       `mse`: to the one of two with the smaller error).

    Refused: an empty calibration set, images of another shape or type, values that are NaN or infinite.
    """

    def __init__(self, recipe: Recipe, images: NDArray[np.uint8]) -> None:
        super().__init__()
        self.recipe = recipe
        self.images = images

    def requires(self, model: ir.Model) -> None:
        """Refuse calibration images that do not fit the model."""
        check_images(model, self.images)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Measure, choose, insert."""
        flow = Dataflow(model, clamps_at_limits=self.recipe.scales == "float")
        sources = [v for v in flow.coded if v.producer() is None or v.producer().op_type not in MOVES]  # type: ignore[union-attr]
        ranges = self._measure(model, flow, sources)
        pixels = model.graph.inputs[0]
        chosen: dict[ir.Value, tuple[np.float32, int]] = {}
        for root in dict.fromkeys(flow.groups[v] for v in flow.coded):
            signed = flow.signed(root)
            if root is flow.groups[pixels]:
                chosen[root] = np.float32(float(model.metadata_props[INPUT_SCALE])), 0
            else:
                largest = max(flow.upper_bounds.get(v, float("inf")) for v in flow.members(root))
                chosen[root] = self._scale(ranges[root], largest, signed=signed), 128 if signed else 0
                if ranges[root].limit < _SMALLEST_LIMIT:
                    seen = f"at most {ranges[root].limit:.3g}" if ranges[root].limit else "zero"
                    note(
                        model,
                        f"value '{root.name}': {seen} on every calibration image; its scale is arbitrary",
                    )
        report = {}
        for value in flow.coded:
            scale, zero_point = chosen[flow.groups[value]]
            report[str(value.name)] = {"scale": float(scale), "zero_point": zero_point}
            _insert_pair(model.graph, flow, value, scale, zero_point)
        for node in flow.body:
            if node.op_type == "Concat":
                _rescale_operands(model.graph, node, *chosen[flow.groups[node.outputs[0]]])
        model.metadata_props[ACTIVATIONS_KEY] = json.dumps(report)
        return ir.passes.PassResult(model, modified=True)

    def _measure(self, model: ir.Model, flow: Dataflow, sources: list[ir.Value]) -> dict[ir.Value, _Range]:
        """Return the range of each group over its sources: largest magnitude, and the histogram if needed."""
        scale = float(model.metadata_props[INPUT_SCALE])
        runner = FloatRun(model, [str(v.name) for v in sources])
        largest = {flow.groups[v]: 0.0 for v in sources}
        for batch in runner.batches(self.images, scale):
            for value in sources:
                peak = float(np.abs(batch[str(value.name)]).max(initial=0.0))
                if not math.isfinite(peak):
                    raise ModelError(
                        f"value '{value.name}' is {peak} on a calibration image; the model overflows"
                    )
                largest[flow.groups[value]] = max(largest[flow.groups[value]], peak)
        counts = {root: np.zeros(_BINS, np.int64) for root in largest}
        if self.recipe.calibration in ("percentile", "mse"):
            for batch in runner.batches(self.images, scale):
                for value in sources:
                    root = flow.groups[value]
                    magnitude = np.abs(batch[str(value.name)]).reshape(-1)
                    counts[root] += np.histogram(magnitude, bins=_BINS, range=(0.0, largest[root] or 1.0))[0]
        return {root: _Range(limit, counts[root]) for root, limit in largest.items()}

    def _scale(self, found: _Range, largest: float, *, signed: bool) -> np.float32:
        """Return the scale of a group that saw `found` and cannot pass `largest`."""
        levels = 127 if signed else 255
        if self.recipe.calibration == "limits":
            limit = found.limit if largest == float("inf") else largest
        else:
            limit = choose_limit(
                found.histogram, found.limit, levels, self.recipe.calibration, self.recipe.percentile
            )
        if limit < _SMALLEST_LIMIT:
            return np.float32(
                1.0 if largest == float("inf") or self.recipe.scales != "float" else largest / levels
            )
        if self.recipe.scales == "float":
            return np.float32(limit / levels)
        above = float(power_of_two_at_least(np.asarray(limit / levels)))
        if self.recipe.calibration != "mse":
            return np.float32(above)
        width = found.limit / _BINS
        centres = width * (np.arange(_BINS) + 0.5)

        def error(step: float) -> float:
            return float(
                ((centres - step * np.clip(np.rint(centres / step), 0, levels)) ** 2 * found.histogram).sum()
            )

        return np.float32(min((above / 2, above), key=error))


def check_images(model: ir.Model, images: NDArray[np.uint8]) -> None:
    """Refuse images that are not uint8 `(N >= 1, ...)` of the model's input shape.

    Raises:
        DataError: Names what was found and what was expected.
    """
    value = model.graph.inputs[0]
    expected = None if value.shape is None else tuple(d if isinstance(d, int) else None for d in value.shape)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        found = getattr(images, "dtype", type(images).__name__)
        raise DataError(f"calibration images are {found}, expected a uint8 array of pixel codes (N, C, H, W)")
    if len(images) == 0:
        raise DataError("the calibration set is empty, expected at least one image (a few hundred are usual)")
    if expected is not None and (
        images.ndim != len(expected)
        or any(e not in (None, d) for e, d in zip(expected[1:], images.shape[1:], strict=True))
    ):
        raise DataError(
            f"calibration images have shape {images.shape}, the model takes (N, {', '.join(map(str, expected[1:]))})"
        )


def _pair(
    graph: ir.Graph, source: ir.Value, name: str, scale: np.float32, zero_point: int
) -> tuple[list[ir.Node], ir.Value]:
    s = add_initializer(graph, f"{name}.scale", np.asarray(scale, np.float32))
    z = add_initializer(graph, f"{name}.zero_point", np.asarray(zero_point, np.uint8))
    codes = ir.Value(name=f"{name}.codes", type=ir.TensorType(ir.DataType.UINT8), shape=source.shape)
    result = ir.Value(name=f"{name}.dequantised", type=ir.TensorType(ir.DataType.FLOAT), shape=source.shape)
    quantise = ir.Node("", "QuantizeLinear", [source, s, z], outputs=[codes], name=f"{name}.quantise")
    dequantise = ir.Node("", "DequantizeLinear", [codes, s, z], outputs=[result], name=f"{name}.dequantise")
    return [quantise, dequantise], result


def _insert_pair(
    graph: ir.Graph, flow: Dataflow, value: ir.Value, scale: np.float32, zero_point: int
) -> None:
    """Let every reader of `value` but those of its integers read the dequantised codes."""
    readers = [r for r in real_consumers(value) if not flow.raw_use(value, r)]
    nodes, result = _pair(graph, value, str(value.name), scale, zero_point)
    for reader in readers:
        for index, operand in enumerate(reader.inputs):
            if operand is value:
                reader.replace_input_with(index, result)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], nodes)
    else:
        graph.insert_after(producer, nodes)
    if value.is_graph_output():
        name = value.name
        graph.outputs[graph.outputs.index(value)] = result
        value.name = f"{name}.real"
        result.name = name


def _rescale_operands(graph: ir.Graph, node: ir.Node, scale: np.float32, zero_point: int) -> None:
    """Bring operands of a Concat that have another scale (the pixels) to the scale of its result."""
    for index, operand in enumerate(node.inputs):
        dequantise = operand.producer() if operand is not None else None
        if operand is None or dequantise is None or dequantise.op_type != "DequantizeLinear":
            continue
        s, z = dequantise.inputs[1], dequantise.inputs[2]
        if s is None or z is None or s.const_value is None or z.const_value is None:
            continue
        if (np.float32(s.const_value.numpy()), int(z.const_value.numpy())) == (scale, zero_point):
            continue
        nodes, result = _pair(graph, operand, f"{node.outputs[0].name}.operand_{index}", scale, zero_point)
        graph.insert_before(node, nodes)
        node.replace_input_with(index, result)
