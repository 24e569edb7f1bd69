"""Give every layer with weights the name that its user knows."""

from __future__ import annotations

import re
from collections import Counter

import onnx_ir as ir

from ...errors import ModelError
from ..graph import constant

__all__ = ["WEIGHTED_OPS", "NameLayersPass", "constant_cone", "layers_with_weights"]

WEIGHTED_OPS = ("Conv", "Gemm", "MatMul")
_SUFFIX = re.compile(r"(\.parametrizations\.weight\.original\d*|\.weight|_weight|\.W|_W)$")


def constant_cone(value: ir.Value | None) -> tuple[list[ir.Node], list[ir.Value]] | None:
    """Return the nodes and initializers from which `value` is computed, or None if a graph input is among them."""
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, None] = {}
    pending = [value]
    while pending:
        current = pending.pop()
        if current is None:
            continue
        producer = current.producer()
        if producer is not None:
            if producer not in nodes:
                nodes[producer] = None
                pending.extend(producer.inputs)
        elif constant(current) is not None:
            leaves[current] = None
        else:
            return None
    return list(nodes), list(leaves)


def layers_with_weights(model: ir.Model) -> list[ir.Node]:
    """Return the Conv, Gemm and MatMul nodes whose second operand is constant, in graph order."""
    return [
        node
        for node in model.graph
        if node.domain == "" and node.op_type in WEIGHTED_OPS and constant_cone(node.inputs[1]) is not None
    ]


def _name_from_weights(node: ir.Node) -> str:
    """Return the module path that the weights carry, or the node's own name."""
    cone = constant_cone(node.inputs[1])
    tensors = [leaf for leaf in (cone[1] if cone else []) if leaf.shape is not None and len(leaf.shape) > 1]
    if len(tensors) == 1 and tensors[0].name and _SUFFIX.search(tensors[0].name):
        return _SUFFIX.sub("", tensors[0].name)
    return node.name or node.outputs[0].name or node.op_type.lower()


class NameLayersPass(ir.passes.InPlacePass):
    """Name Conv, Gemm and MatMul nodes after the module that holds their weights.

    1. Weights called `features.3.weight` (or a parametrised original) make the layer `features.3`.
    2. Weights without such a name leave the node its own name.
    3. Layers that share weights get `#2`, `#3`, ... from the second use on, and so do other nodes of one name.
    """

    def requires(self, model: ir.Model) -> None:
        """Refuse an integer model, and one without any layer that has constant weights."""
        for value in model.graph.inputs:
            if value.dtype is not None and value.dtype.is_integer():
                raise ModelError(
                    f"input '{value.name}' has type {value.dtype}, expected float32 pixels in [0, 1]; integer models "
                    "are run, not compiled"
                )
        if not layers_with_weights(model):
            raise ModelError(
                "the model has no Conv, Gemm or MatMul with constant weights: there is nothing to compile"
            )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rename the nodes."""
        seen: Counter[str] = Counter()
        modified = False
        for node in layers_with_weights(model):
            name = _name_from_weights(node)
            seen[name] += 1
            name = name if seen[name] == 1 else f"{name}#{seen[name]}"
            modified |= node.name != name
            node.name = name
        _separate_others(model)
        return ir.passes.PassResult(model, modified)


def _separate_others(model: ir.Model) -> None:
    """Give nodes without weights names that no other node has."""
    layers = set(layers_with_weights(model))
    taken = {node.name for node in layers}
    for node in model.graph:
        if node in layers:
            continue
        wanted, count = node.name or node.op_type, 1
        name = wanted
        while name in taken:
            count += 1
            name = f"{wanted}#{count}"
        node.name = name
        taken.add(name)
