"""Layers that move values and compute none, and float tails: the same operators on reals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from ...errors import TargetError
from .. import program as p

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .real_graph import RealGraph

    Operator = tuple[str, dict[str, Any], list[str]]

__all__ = ["MOVES", "WINDOW_NAMES", "move", "operator"]

WINDOW_NAMES = ("kernel_shape", "strides", "pads", "dilations")


def move(graph: RealGraph, layer: p.Layer) -> None:
    """Emit a layer that moves codes, sums or floats."""
    op, attributes, operands = MOVES[type(layer)](graph, layer)
    unit = graph.units.get(layer.input)
    if unit is not None and unit.size != 1:
        raise TargetError(
            f"layer '{layer.name}': it moves integers of several units, one for each channel; only integers of one "
            "unit have a form with reals there"
        )
    names = [_result_name(graph, name) for name in layer.outputs]
    graph.node(op, operands, names, **attributes)
    for output, real in zip(layer.outputs, names, strict=True):
        if not output:
            continue
        meaning = graph.meanings.get(output)
        graph.real[output] = real if meaning is None else graph.moved(real, output, meaning)
        if unit is not None:
            graph.units[output] = unit.reshape(())


def operator(graph: RealGraph, layer: p.Operator) -> None:
    """Emit a float operator behind the logits as it is."""
    operands = []
    for index, operand in enumerate(layer.operands):
        if isinstance(operand, np.ndarray):
            operands.append(graph.constant(f"{layer.name}.operand_{index}", operand))
        else:
            operands.append("" if operand is None else graph.real[operand])
    attributes = {
        key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for key, value in layer.attributes.items()
    }
    graph.node(layer.op_type, operands, list(layer.outputs), **attributes)
    graph.real |= {name: name for name in layer.outputs}


def _result_name(graph: RealGraph, name: str) -> str:
    """The name of a moved value: a float keeps its own, codes and sums are about to be named."""
    if not name or graph.program.tensors[name].dtype.kind == "f":
        return name
    return graph.free(f"{name}.moved")


def _max_pool(graph: RealGraph, layer: p.MaxPool) -> Operator:
    windows = zip(WINDOW_NAMES, (layer.kernel, layer.strides, layer.pads, layer.dilations), strict=True)
    attributes: dict[str, Any] = {name: list(value) for name, value in windows}
    return "MaxPool", attributes | {"ceil_mode": int(layer.ceil_mode)}, [graph.real[layer.input]]


def _pad(graph: RealGraph, layer: p.Pad) -> Operator:
    value = float(layer.value)
    if layer.output in graph.meanings:
        meaning = graph.meanings[layer.output]
        value = (value - meaning.zero_point) * float(meaning.scale)
    pads = graph.constant(f"{layer.name}.pads", np.array(layer.pads, np.int64))
    fill = graph.constant(f"{layer.name}.value", np.asarray(value, np.float32))
    return "Pad", {"mode": "constant"}, [graph.real[layer.input], pads, fill]


def _concat(graph: RealGraph, layer: p.Concat) -> Operator:
    return "Concat", {"axis": layer.axis}, [graph.real[name] for name in layer.inputs]


def _split(graph: RealGraph, layer: p.Split) -> Operator:
    sizes = graph.constant(f"{layer.name}.sizes", np.array(layer.sizes, np.int64))
    return "Split", {"axis": layer.axis}, [graph.real[layer.input], sizes]


def _reshape(graph: RealGraph, layer: p.Reshape) -> Operator:
    shape = graph.constant(f"{layer.name}.shape", np.array(layer.shape, np.int64))
    return "Reshape", {"allowzero": int(layer.allow_zero)}, [graph.real[layer.input], shape]


def _transpose(graph: RealGraph, layer: p.Transpose) -> Operator:
    return "Transpose", {"perm": list(layer.permutation)}, [graph.real[layer.input]]


MOVES: Mapping[type[p.Layer], Callable[[RealGraph, Any], Operator]] = {
    p.Concat: _concat,
    p.MaxPool: _max_pool,
    p.Pad: _pad,
    p.Reshape: _reshape,
    p.Split: _split,
    p.Transpose: _transpose,
}
