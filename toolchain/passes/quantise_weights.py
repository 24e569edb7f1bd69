"""Quantise weights: each layer reads codes through a DequantizeLinear, so the graph computes with `step * q`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ...errors import RecipeError
from ..analysis.weights import weight_error
from ..graph import add_initializer, check_finite, constant, emit, note
from ..quantise import quantise_weights

if TYPE_CHECKING:
    from ..recipe import Recipe

__all__ = ["WEIGHT_ERRORS_KEY", "QuantiseWeightsPass", "channel_axis", "weighted_nodes"]

WEIGHT_ERRORS_KEY = "ohmfold.weight_errors"
"""Metadata key: JSON, by layer, `snr_db`, `spectral` and `infinity` of `toolchain.analysis.weights`."""


def weighted_nodes(model: ir.Model) -> list[ir.Node]:
    """Return the canonical layers with weights, in graph order."""
    return [node for node in model.graph if node.domain == "" and node.op_type in ("Conv", "Gemm")]


def channel_axis(node: ir.Node) -> int:
    """Return the axis of the output channels: 0 in Conv's (O, I, ...) weights, 1 in Gemm's (K, N)."""
    return 0 if node.op_type == "Conv" else 1


class QuantiseWeightsPass(ir.passes.InPlacePass):
    """Replace the weights of every Conv and Gemm by codes and steps.

    1. `W` becomes `DequantizeLinear(codes, step)`, codes int8, step float32: `step * q` (see
       `toolchain.quantise` for levels and steps).
    2. Options come from the recipe; the first and the last layer and named layers may have their own.
    3. Biases stay in float; they become integers when the activations' scales are known.
    4. The error of each layer's weights goes into the metadata.

    Refused: options for layers that do not exist, NaN or infinite weights.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def requires(self, model: ir.Model) -> None:
        """Refuse options for unknown layers."""
        known = [node.name or "" for node in weighted_nodes(model)]
        for name in self.recipe.layers:
            if name not in known:
                raise RecipeError(
                    f"layers: no layer '{name}'; the layers with weights are {', '.join(known)}"
                )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Quantise layer by layer."""
        nodes = weighted_nodes(model)
        power_of_two = self.recipe.scales == "pow2"
        errors: dict[str, dict[str, float | None]] = {}
        for position, node in enumerate(nodes):
            layer = node.name or ""
            weights = constant(node.inputs[1])
            if weights is None:
                raise RecipeError(f"layer '{layer}': its weights are quantised already")
            check_finite(layer, "weight", weights)
            options = self.recipe.weight_options(layer, is_first=position == 0, is_last=node is nodes[-1])
            axis = channel_axis(node)
            result = quantise_weights(weights, options, channel_axis=axis, power_of_two=power_of_two)
            if not result.codes.any():
                note(model, f"layer '{layer}': every weight rounds to code 0")
            error = asdict(weight_error(weights, result.dequantised()))
            # The last digits of an eigenvalue depend on the processor; the artifact's bytes must not.
            errors[layer] = {key: None if x is None else float(f"{x:.6g}") for key, x in error.items()}
            codes = add_initializer(model.graph, f"{layer}.weight_codes", result.codes)
            step = add_initializer(model.graph, f"{layer}.weight_step", result.step)
            dequantised = emit(
                node,
                "DequantizeLinear",
                [codes, step],
                {} if result.axis is None else {"axis": result.axis},
                name=f"{layer}.dequantise_weights",
                output=f"{layer}.quantised_weight",
                dtype=ir.DataType.FLOAT,
            )
            dequantised.shape = ir.Shape(result.codes.shape)
            node.replace_input_with(1, dequantised)
            if len(node.inputs) > 2 and node.inputs[2] is not None:
                bias = constant(node.inputs[2])
                check_finite(layer, "bias", bias if bias is not None else np.zeros(0))
            width = f"{options.weight_bits} bits, {options.levels}, step by {options.step} per {options.granularity}"
            model.metadata_props[f"ohmfold.weights.{layer}"] = width
        model.metadata_props[WEIGHT_ERRORS_KEY] = json.dumps(errors, sort_keys=True)
        common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=bool(nodes))
