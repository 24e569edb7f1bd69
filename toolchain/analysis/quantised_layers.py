"""The layers of a float model as the compiler quantises them: W, the quantised W + dW, and the operator.

A float model goes through the compiler's own passes up to the point where weights are quantised, under an artifact's
own recipe: so W holds what was folded into it (batch norms, the normalisation of the pixels, a mu-law map), and dW is
the error of *those* weights. That the artifact was made of this model is not taken on trust: every code must be the
artifact's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, ModelError
from ..float_model import prepare_float_model
from ..float_run import FloatRun
from ..graph import attribute, check_finite, constant, notes_of
from ..passes import (
    CanonicalisePass,
    FoldBatchNormPass,
    FoldConstantsPass,
    FoldMuLawPass,
    FoldNormalisationPass,
    NameLayersPass,
    apply,
)
from ..passes.fold_normalisation import INPUT_SCALE
from ..passes.quantise_weights import channel_axis, weighted_nodes
from ..quantise import QuantisedWeights, levels_of, quantise_weights
from ..recipe import Recipe
from .operators import LayerOperator

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from ..artifact import Artifact

__all__ = ["LayerNetwork", "QuantisedLayer", "layers_of", "quantised_layers", "recipe_of"]


@dataclass(frozen=True, eq=False)
class QuantisedLayer:
    """One layer before and after its weights are quantised.

    Attributes:
        name: As the artifact calls it.
        operator: Its geometry.
        real: W, float32, `(O, I / groups, k...)` or `(K, N)`.
        quantised: Codes and steps.
        levels: Every code that the layer's width has, ascending int64.
        options: The width, levels and step, in words.
        mapping: The mu-law map that W went through, in words; None where there is none. W is the mapped one.
        input: The value that the layer reads.
        output: The value that it makes.
    """

    name: str
    operator: LayerOperator
    real: NDArray[np.float32]
    quantised: QuantisedWeights
    levels: NDArray[np.int64]
    options: str
    mapping: str | None
    input: str
    output: str

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """W."""
        return self.real.astype(np.float64)

    @cached_property
    def dequantised(self) -> NDArray[np.float64]:
        """W + dW = code * step, exact in float64: codes have 8 bits and steps 24."""
        return self.quantised.dequantised()

    @cached_property
    def error(self) -> NDArray[np.float64]:
        """dW, rounded once to float64."""
        return self.dequantised - self.weights


@dataclass(frozen=True, eq=False)
class LayerNetwork:
    """A float model in the form that the compiler quantises, and its layers.

    Attributes:
        model: Not to be changed.
        input_scale: The value of one pixel code at its input.
        image_shape: Of one image.
        layers: In graph order.
    """

    model: ir.Model
    input_scale: float
    image_shape: tuple[int, ...]
    layers: tuple[QuantisedLayer, ...]

    def inputs(self, images: NDArray[np.uint8], batch: int) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield what every layer reads, by value, for `batch` images after the other.

        Raises:
            ModelError: onnxruntime cannot run the model.
        """
        run = FloatRun(self.model, [layer.input for layer in self.layers])
        for start in range(0, len(images), batch):
            parts = list(run.batches(images[start : start + batch], self.input_scale))
            yield {name: np.concatenate([part[name] for part in parts]) for name in run.names}


def recipe_of(artifact: Artifact) -> Recipe:
    """Return the recipe that an artifact was compiled by.

    Raises:
        ModelError: It was not compiled by ohmfold.
    """
    found = artifact.metadata().get("recipe")
    if not artifact.compiled_here or not isinstance(found, dict):
        raise ModelError(
            "the model does not tell the recipe of its weights (metadata ohmfold.recipe); "
            "expected an artifact compiled by ohmfold"
        )
    return Recipe(**found)


def layers_of(artifact: Artifact, float_model: ir.Model) -> LayerNetwork:
    """Return the layers of the float model that an artifact was compiled from.

    Args:
        artifact: Compiled by ohmfold.
        float_model: Takes float32 pixels in [0, 1]; not changed.

    Raises:
        ModelError: The artifact tells no recipe, or the float model cannot be read.
        DataError: The artifact holds other codes than its recipe makes of this model; names the layer.
        UnsupportedError: The artifact or the model holds what cannot be compiled.
    """
    recipe = recipe_of(artifact)
    spec = artifact.program.inputs[0]
    shape = tuple(int(size or 0) for size in (spec.shape or ())[1:])
    held = {layer.name: layer for layer in artifact.program.weighted_layers()}
    network = quantised_layers(float_model, recipe, shape)
    for layer in network.layers:
        if layer.name not in held or not np.array_equal(held[layer.name].weight, layer.quantised.codes):
            found = "no such layer" if layer.name not in held else "other codes"
            raise DataError(
                f"layer '{layer.name}' of the float model, quantised by the artifact's recipe: the artifact holds "
                f"{found}; expected the float model that it was compiled from"
            )
    return network


def quantised_layers(float_model: ir.Model, recipe: Recipe, image_shape: tuple[int, ...]) -> LayerNetwork:
    """Return the layers of a float model as a recipe quantises them.

    Args:
        float_model: Takes float32 pixels in [0, 1]; not changed.
        recipe: Its `mu_law` says which weights are mapped before they are quantised.
        image_shape: Of one image, `(C, H, W)` or `(C, L)`.

    Raises:
        RecipeError: A setting names a layer that is not there, or does not fit the weights.
        ModelError: The model cannot be read or run, or holds NaN or infinite weights.
        UnsupportedError: It holds what cannot be compiled.
    """
    model = float_model.clone()
    prepare_float_model(model)
    power_of_two = recipe.scales == "pow2"
    for step in (
        NameLayersPass(),
        FoldMuLawPass(recipe.mu_law, recipe.mu_law_domain),
        FoldConstantsPass(),
        CanonicalisePass(),
        FoldNormalisationPass(power_of_two=power_of_two),
        FoldBatchNormPass(),
    ):
        apply(step, model)
    scale = float(model.metadata_props[INPUT_SCALE])
    nodes = weighted_nodes(model)
    if not nodes:
        raise ModelError("the float model has no layer with weights; expected a classifier")
    names = [str(node.inputs[0].name) for node in nodes if node.inputs[0] is not None]
    blank = next(FloatRun(model, names).batches(np.zeros((1, *image_shape), np.uint8), scale))
    layers = []
    for position, (node, name) in enumerate(zip(nodes, names, strict=True)):
        options = recipe.weight_options(
            node.name or "", is_first=position == 0, is_last=position == len(nodes) - 1
        )
        weights = constant(node.inputs[1])
        if weights is None:
            raise ModelError(f"layer '{node.name}': its weights are computed in the graph")
        check_finite(node.name or "", "weight", weights)
        layers.append(
            QuantisedLayer(
                name=node.name or "",
                operator=_operator(node, blank[name].shape[1:]),
                real=weights.astype(np.float32),
                quantised=quantise_weights(
                    weights, options, channel_axis=channel_axis(node), power_of_two=power_of_two
                ),
                levels=levels_of(options.weight_bits, options.levels),
                options=f"{options.weight_bits} bits, {options.levels}, step by {options.step} "
                f"per {options.granularity}",
                mapping=_mapping(model, node.name or ""),
                input=name,
                output=str(node.outputs[0].name),
            )
        )
    return LayerNetwork(model, scale, image_shape, tuple(layers))


def _mapping(model: ir.Model, layer: str) -> str | None:
    """What the fold of mu-law maps reported of a layer."""
    prefix = f"layer '{layer}': "
    lines = [line.removeprefix(prefix) for line in notes_of(model) if line.startswith(prefix)]
    return next((line for line in lines if "mu-law map" in line), None)


def _operator(node: ir.Node, input_shape: tuple[int, ...]) -> LayerOperator:
    if node.op_type == "Gemm":
        return LayerOperator("dense", input_shape)
    geometry: dict[str, Any] = {
        name: tuple(int(size) for size in attribute(node, name)) for name in ("strides", "pads", "dilations")
    }
    return LayerOperator("conv", input_shape, groups=int(attribute(node, "group", 1)), **geometry)
