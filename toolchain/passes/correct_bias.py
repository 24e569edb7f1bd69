"""Bias correction: take the mean error that quantised weights cause out of each layer's bias.

    b'[o] = b[o] + E[y[o]] - E[y_q[o]]

with y the layer's output in the float model and y_q its output with quantised weights (earlier layers quantised
and corrected already), both averaged over the calibration images and positions. Source: the empirical bias
correction of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (2019),
section 4.2 and appendix D.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..float_run import FloatRun
from ..graph import add_initializer, constant
from .fold_normalisation import INPUT_SCALE
from .quantise_weights import weighted_nodes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CorrectBiasPass"]


def _channel_means(
    model: ir.Model, names: list[str], images: NDArray[np.uint8]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each named value over images and positions, per channel, in float64."""
    scale = float(model.metadata_props[INPUT_SCALE])
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    for batch in FloatRun(model, names).batches(images, scale):
        for name in names:
            value = batch[name].astype(np.float64)
            axes = tuple(i for i in range(value.ndim) if i != 1)
            sums[name] = sums.get(name, 0.0) + value.sum(axis=axes)
            counts[name] = counts.get(name, 0) + value.size // value.shape[1]
    return {name: total / counts[name] for name, total in sums.items()}


class CorrectBiasPass(ir.passes.InPlacePass):
    """Shift every layer's bias by the mean error of its output, first layer first.

    Args:
        reference: The same model before its weights were quantised.
        images: Calibration images, uint8 `(N, C, H, W)`.
    """

    def __init__(self, reference: ir.Model, images: NDArray[np.uint8]) -> None:
        super().__init__()
        self.reference = reference
        self.images = images

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Correct layer after layer, each with the earlier ones corrected."""
        nodes = weighted_nodes(model)
        names = [str(node.outputs[0].name) for node in nodes]
        wanted = _channel_means(self.reference, names, self.images)
        for node, name in zip(nodes, names, strict=True):
            found = _channel_means(model, [name], self.images)[name]
            bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
            corrected = (0.0 if bias is None else bias.astype(np.float64)) + wanted[name] - found
            if len(node.inputs) < 3:
                node.resize_inputs(3)
            value = add_initializer(model.graph, f"{node.name}.corrected_bias", corrected.astype(np.float32))
            node.replace_input_with(2, value)
        return ir.passes.PassResult(model, modified=bool(nodes))
