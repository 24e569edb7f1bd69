"""Layers as reals: what each is between two quantisers, and which have no such form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import TargetError
from .. import program as p
from ..float_model import OPSET
from .real_moves import MOVES, WINDOW_NAMES, move, operator
from .scales import positions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ..artifact import Artifact
    from .real_graph import RealGraph

__all__ = ["check_real", "emit_layer"]

# Share of a code.
_NEXT_TO_NOTHING = 2.0**-6


def emit_layer(graph: RealGraph, layer: p.Layer) -> None:
    """Emit one layer; what it reads has been emitted."""
    _EMITTERS[type(layer)](graph, layer)


def check_real(artifact: Artifact, target: str) -> None:
    """Refuse an artifact that cannot be written with reals.

    Raises:
        TargetError: A layer has no form with reals, weights do not fit int8, or an output is not a float.
    """
    program = artifact.program
    real = {spec.name for spec in program.inputs if spec.dtype.kind == "f"}
    opset = artifact.model.opset_imports.get("")
    for layer in program.layers:
        fault = _fault(layer, real, opset)
        if fault is not None:
            raise TargetError(
                f"layer '{layer.name}' ({type(layer).__name__}): {fault}; {target} cannot hold it"
            )
        if isinstance(layer, p.Scale | p.Dequantise | p.Operator) or layer.input in real:
            real |= set() if isinstance(layer, p.Quantise) else set(layer.outputs)
    for spec in program.outputs:
        if spec.name not in real:
            raise TargetError(f"the output {spec} holds integers of the program; {target} has floats there")


def _fault(layer: p.Layer, real: set[str], opset: int | None) -> str | None:
    if type(layer) not in _EMITTERS:
        return "it has no form with reals"
    match layer:
        case p.Conv() | p.Dense() if (
            not -128 <= layer.weight.min(initial=0) <= layer.weight.max(initial=0) <= 127
        ):
            return "its weights less their zero point do not fit int8"
        case p.Quantise() | p.Dequantise() if layer.scale.size != 1 or layer.zero_point.size != 1:
            return "it has a scale for each channel, expected one for the whole tensor"
        case p.WeightedSum() if min(layer.multipliers) < 1:
            return f"its multipliers are {layer.multipliers}, expected positive ones"
        case p.Operator() if not real.issuperset(layer.inputs):
            return "it works on integers"
        case p.Operator() if opset != OPSET:
            return f"it has the meaning of opset {opset}, expected {OPSET}"
    return None


def _product(graph: RealGraph, layer: p.Conv | p.Dense) -> None:
    """Convolution or dense layer: x * w + b, in units of s_x s_w."""
    convolution = isinstance(layer, p.Conv)
    channels = layer.weight.shape[0 if convolution else 1]
    spatial = layer.weight.ndim - 2 if convolution else 0
    step = _step(graph, layer, channels, spatial).astype(np.float32)
    unit = (np.float64(graph.meanings[layer.input].scale) * step).astype(np.float32)
    graph.exact(f"the step of the weights of layer '{layer.name}'", step)
    graph.exact(f"the scale of '{layer.input}'", graph.meanings[layer.input].scale)
    operands = [graph.real[layer.input], graph.weights(layer, step)]
    bias = [] if layer.bias is None else [graph.bias(layer, unit)]
    result = graph.free(f"{layer.output}.sum")
    if isinstance(layer, p.Conv):
        values = (layer.weight.shape[2:], layer.strides, layer.pads, layer.dilations)
        windows: dict[str, Any] = {
            name: list(value) for name, value in zip(WINDOW_NAMES, values, strict=True)
        }
        graph.node("Conv", operands + bias, [result], **windows, group=layer.groups)
    elif len(graph.program.tensors[layer.input].shape or ()) == 2:
        graph.node("Gemm", operands + bias, [result])
    else:
        graph.node("MatMul", operands, [result])
        if bias:
            result = graph.emit("Add", [result, *bias], f"{layer.output}.shifted")
    per_sample = (unit.reshape(-1, *(1,) * spatial) if unit.ndim else unit).astype(np.float64)
    if layer.requantisation is None:
        graph.real[layer.output], graph.units[layer.output] = result, per_sample
    else:
        graph.requantised(layer, result, per_sample, layer.requantisation, None)


def _step(graph: RealGraph, layer: p.Conv | p.Dense, channels: int, spatial: int) -> NDArray[np.float64]:
    """The step s_w that makes the unit s_x s_w what is asked of the result, where that is one for a channel."""
    unit = _unit_asked_for(graph, layer, spatial)
    if unit is not None and (unit > 0).all() and unit.size in (1, channels):
        found = unit.reshape(-1) / np.float64(graph.meanings[layer.input].scale)
    else:
        told = np.ones(()) if layer.weight_scale is None else layer.weight_scale
        found = told.astype(np.float64).reshape(-1)
    return found[:1].reshape(()) if (found == found[0]).all() else found


def _unit_asked_for(graph: RealGraph, layer: p.Conv | p.Dense, spatial: int) -> NDArray[np.float64] | None:
    """M s_y before codes, M before logits; None where the multiplier is no matter of the channel."""
    if layer.requantisation is not None:
        found = _per_channel(layer.requantisation.multiplier, spatial)
        return None if found is None else found * np.float64(graph.meanings[layer.output].scale)
    tensor, direct = layer.output, True
    while len(readers := graph.program.consumers.get(tensor, ())) == 1:
        reader = readers[0]
        if isinstance(reader, p.Scale):
            found = _per_channel(reader.multiplier, spatial)
            return found if direct or reader.multiplier.size == 1 else None
        if not isinstance(reader, p.Reshape | p.Transpose):
            return None
        tensor, direct = reader.output, False
    return None


def _per_channel(multiplier: NDArray[np.float32], spatial: int) -> NDArray[np.float64] | None:
    """The multiplier where it is one number, or one for each channel of a map or column of a dense layer."""
    whole = multiplier.size == 1 or (
        multiplier.ndim == spatial + 1 and multiplier.shape[1:] == (1,) * spatial
    )
    return multiplier.astype(np.float64) if whole else None


def _weighted_sum(graph: RealGraph, layer: p.WeightedSum) -> None:
    """Addition, in units of s_a / m_a of its operand of the largest multiplier."""
    scales = [np.float64(graph.meanings[name].scale) for name in layer.inputs]
    largest = int(np.argmax(layer.multipliers))
    unit = scales[largest] / layer.multipliers[largest]
    terms = []
    for name, multiplier, scale in zip(layer.inputs, layer.multipliers, scales, strict=True):
        graph.exact(f"the scale of '{name}'", scale)
        factor = multiplier * unit / scale
        # The compiler rounds a ratio of scales to integers: reals need not repeat that where it is next to nothing.
        rounded = abs(factor - 1) * multiplier * 255 <= _NEXT_TO_NOTHING * layer.multipliers[largest]
        if rounded and factor != 1:
            graph.doubt(f"the multipliers of layer '{layer.name}' are the ratio of two scales, rounded")
        terms.append(graph.real[name] if rounded else graph.multiplied(layer, graph.real[name], factor))
    graph.units[layer.output] = np.asarray(unit)
    graph.real[layer.output] = (
        terms[0] if len(terms) == 1 else graph.emit("Add", terms, f"{layer.output}.sum")
    )


def _spatial_sum(graph: RealGraph, layer: p.SpatialSum) -> None:
    """The average, in units of s_x / n."""
    count = positions_of(graph.program, layer.input)
    if not count:
        raise TargetError(f"layer '{layer.name}': it averages a map whose size is not known")
    scale = np.float64(graph.meanings[layer.input].scale)
    graph.exact(f"the scale of '{layer.input}'", scale)
    graph.exact(f"the number of positions that layer '{layer.name}' averages", count)
    name = graph.emit("GlobalAveragePool", [graph.real[layer.input]], f"{layer.output}.mean")
    graph.real[layer.output], graph.units[layer.output] = name, np.asarray(scale / count)


def _requantise(graph: RealGraph, layer: p.Requantise) -> None:
    real, unit = graph.real[layer.input], graph.units[layer.input]
    graph.requantised(layer, real, unit, layer.requantisation, layer.bias)


def _scale(graph: RealGraph, layer: p.Scale) -> None:
    graph.exact(f"the multiplier of layer '{layer.name}'", layer.multiplier)
    factor = layer.multiplier.astype(np.float64) / graph.units[layer.input]
    _named(graph, layer, graph.multiplied(layer, graph.real[layer.input], factor))


def _quantise(graph: RealGraph, layer: p.Quantise) -> None:
    meaning = graph.meanings[layer.output]
    graph.real[layer.output] = graph.quantised(graph.real[layer.input], layer.output, meaning)


def _dequantise(graph: RealGraph, layer: p.Dequantise) -> None:
    scale = layer.scale.astype(np.float64).reshape(())
    graph.exact(f"the scale of layer '{layer.name}'", scale)
    factor = scale / np.float64(graph.meanings[layer.input].scale)
    _named(graph, layer, graph.multiplied(layer, graph.real[layer.input], factor))


def _named(graph: RealGraph, layer: p.Layer, real: str) -> None:
    """Give a float tensor of the program its own name."""
    graph.node("Identity", [real], [layer.output])
    graph.real[layer.output] = layer.output


def _table(graph: RealGraph, layer: p.Table) -> None:
    graph.real[layer.output] = graph.table(layer)


_EMITTERS: Mapping[type[p.Layer], Callable[[RealGraph, Any], None]] = {
    p.Conv: _product,
    p.Dense: _product,
    p.Dequantise: _dequantise,
    p.Operator: operator,
    p.Quantise: _quantise,
    p.Requantise: _requantise,
    p.Scale: _scale,
    p.SpatialSum: _spatial_sum,
    p.Table: _table,
    p.WeightedSum: _weighted_sum,
    **dict.fromkeys(MOVES, move),
}
