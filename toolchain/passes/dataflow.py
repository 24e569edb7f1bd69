"""Which values of a canonical float graph become codes, and which of them must share a scale.

Every value is one of

- *codes*: it will be stored as uint8 codes, so a scale and a zero point belong to it;
- *raw*: it lives inside one layer (a convolution before its fused ReLU, an addition read by a batch norm) and
  never gets codes of its own;
- *logits*: it leaves the network as `float32(acc) * multiplier`.

Operators that only move or choose codes (pooling by maximum, reshaping, padding, concatenation) tie their inputs
and outputs to one scale: a *group*.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UnsupportedError
from ..graph import attribute, constant, real_consumers
from .canonicalise import tail_nodes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ACTIVATIONS", "CORE_OPS", "MOVES", "Dataflow", "activation_limits"]

CORE_OPS = frozenset({"Add", "AveragePool", "BatchNormalization", "Conv", "Gemm", "GlobalAveragePool"})
"""Operators that compute integers and requantise them."""

ACTIVATIONS = frozenset({"Clip", "LeakyRelu", "Relu"})
"""Element-wise functions: fused into the clamp of the layer before, or a table on codes."""

MOVES = frozenset(
    {"Concat", "Flatten", "MaxPool", "Pad", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators that hand codes on unchanged."""

_QUANTISERS = frozenset({"DequantizeLinear", "QuantizeLinear"})
_RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})


def activation_limits(node: ir.Node) -> tuple[float, float]:
    """Return the (lower, upper) limits of a Relu or Clip; LeakyRelu has none."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type == "LeakyRelu":
        return float("-inf"), float("inf")
    limits = []
    for position, default in ((1, -np.inf), (2, np.inf)):
        limit = constant(node.inputs[position]) if len(node.inputs) > position else None
        limits.append(float(default) if limit is None else float(limit.reshape(())))
    return limits[0], limits[1]


@dataclass(frozen=True, eq=False)
class Dataflow:
    """The reading of one graph; computed once, when nothing changes the graph any more.

    Attributes:
        model: The graph's model.
        clamps_at_limits: Whether scales will put an activation's upper limit on the outermost code, so that
            the clamp of the codes can stand for it; power-of-two scales are rounded up and do not.
    """

    model: ir.Model
    clamps_at_limits: bool = True

    @cached_property
    def tail(self) -> set[ir.Node]:
        """Nodes behind the logits."""
        return tail_nodes(self.model)

    @cached_property
    def body(self) -> list[ir.Node]:
        """Nodes up to the logits, in graph order; not the quantisers of weights and activations."""
        return [
            node for node in self.model.graph if node not in self.tail and node.op_type not in _QUANTISERS
        ]

    @cached_property
    def values(self) -> list[ir.Value]:
        """The input and every value that a body node makes."""
        return [
            self.model.graph.inputs[0],
            *(v for node in self.body for v in node.outputs if v.uses() or v.is_graph_output()),
        ]

    def leaves(self, value: ir.Value) -> bool:
        """Tell whether `value` is read by nothing but the tail and the outputs."""
        readers = real_consumers(value)
        return (value.is_graph_output() or bool(readers)) and all(r in self.tail for r in readers)

    @cached_property
    def logits(self) -> list[ir.Value]:
        """Values of the logits chain, source first: a core layer's output and its reshapings.

        Empty where the last layer is not a core layer: then codes are dequantised at the end.
        """
        ends = [
            value
            for value in self.values
            if value.is_graph_output() or any(r in self.tail for r in real_consumers(value))
        ]
        if not ends and self._ends_in_codes:
            return []
        if len(ends) != 1:
            names = ", ".join(str(v.name) for v in ends)
            raise UnsupportedError(f"the model has {len(ends)} results ({names}), expected one: the logits")
        chain = [ends[0]]
        if not self.leaves(ends[0]):
            return []
        while (
            (node := chain[0].producer()) is not None
            and node.op_type in _RESHAPES
            and node.inputs[0] is not None
        ):
            source = node.inputs[0]
            if source.is_graph_output() or len(real_consumers(source)) != 1:
                break
            chain.insert(0, source)
        producer = chain[0].producer()
        return chain if producer is not None and producer.op_type in CORE_OPS else []

    @property
    def _ends_in_codes(self) -> bool:
        """Whether the result is dequantised: the last layer's codes are the result, not its integers."""
        results = [v for node in self.model.graph if node.op_type == "DequantizeLinear" for v in node.outputs]
        return any(v.is_graph_output() or any(r in self.tail for r in real_consumers(v)) for v in results)

    @cached_property
    def nonnegative(self) -> set[ir.Value]:
        """Values that cannot be below zero, whatever the pixels are."""
        found = {self.model.graph.inputs[0]}
        for node in self.body:
            inputs = [v for v in node.inputs if v is not None and constant(v) is None]
            by_limit = node.op_type in ACTIVATIONS and activation_limits(node)[0] >= 0
            keeps = node.op_type in MOVES | {"Add", "AveragePool", "GlobalAveragePool"} | ACTIVATIONS
            if by_limit or (keeps and all(v in found for v in inputs)):
                found.update(node.outputs)
        return found

    @cached_property
    def upper_bounds(self) -> dict[ir.Value, float]:
        """Values with an upper limit by construction: pixels, Clip, and what is moved from them."""
        found = {self.model.graph.inputs[0]: 1.0}
        for node in self.body:
            inputs = [v for v in node.inputs if v is not None and constant(v) is None]
            if node.op_type in MOVES | ACTIVATIONS | {"AveragePool", "GlobalAveragePool"} and all(
                v in found for v in inputs
            ):
                bound = max(found[v] for v in inputs)
            elif node.op_type in ACTIVATIONS:
                bound = float("inf")
            else:
                continue
            if node.op_type in ACTIVATIONS:
                lower, upper = activation_limits(node)
                falling = node.op_type == "LeakyRelu" and float(attribute(node, "alpha", 0.01)) < 0
                bound = float("inf") if falling else max(min(bound, upper), lower)
            found.update(dict.fromkeys(node.outputs, bound))
        return found

    @cached_property
    def groups(self) -> dict[ir.Value, ir.Value]:
        """The representative of each value's group: values that share one scale."""
        parent = {value: value for value in self.values}

        def root(value: ir.Value) -> ir.Value:
            while parent[value] is not value:
                value = parent[value]
            return value

        pixels = self.model.graph.inputs[0]
        for node in self.body:
            if node.op_type not in MOVES:
                continue
            sources = [v for v in node.inputs if v is not None and v in parent]
            mixed = node.op_type == "Concat" and not all(root(v) is root(pixels) for v in sources)
            for value in (*sources, *(v for v in node.outputs if v in parent)):
                if mixed and root(value) is root(pixels):
                    continue
                anchor = node.outputs[0]
                # The pixels stay the representative of their group: their scale is given, not calibrated.
                if root(value) is root(pixels):
                    parent[root(anchor)] = root(value)
                elif root(value) is not root(anchor):
                    parent[root(value)] = root(anchor)
        return {value: root(value) for value in self.values}

    def members(self, value: ir.Value) -> list[ir.Value]:
        """All values of the group of `value`."""
        return [v for v in self.values if self.groups[v] is self.groups[value]]

    def signed(self, value: ir.Value) -> bool:
        """Tell whether the group of `value` needs negative numbers (zero point 128 instead of 0)."""
        return any(v not in self.nonnegative for v in self.members(value))

    @cached_property
    def fused(self) -> set[ir.Node]:
        """Activations that the clamp of the layer before them performs.

        Relu where its codes start at zero; Clip(0, upper) where besides nothing in its group passes `upper`.
        """
        found = set()
        for node in self.body:
            source = node.inputs[0] if node.inputs else None
            if node.op_type not in ("Relu", "Clip") or source is None or source.producer() is None:
                continue
            producer = source.producer()
            alone = not source.is_graph_output() and len(real_consumers(source)) == 1
            if (
                producer is None
                or producer.op_type not in CORE_OPS
                or not alone
                or self.signed(node.outputs[0])
            ):
                continue
            lower, upper = activation_limits(node)
            bounds = [self.upper_bounds.get(v, float("inf")) for v in self.members(node.outputs[0])]
            unlimited = upper == float("inf")
            if lower == 0 and max(bounds) <= upper and (unlimited or self.clamps_at_limits):
                found.add(node)
        return found

    def raw_use(self, value: ir.Value, reader: ir.Node) -> bool:
        """Tell whether `reader` takes the integers behind `value` instead of its codes."""
        producer = value.producer()
        if reader in self.fused:
            return True
        return producer is not None and producer.op_type == "Add" and reader.op_type == "BatchNormalization"

    @cached_property
    def coded(self) -> list[ir.Value]:
        """The values that get codes."""
        logits = set(self.logits)
        found = []
        for value in self.values:
            readers = real_consumers(value)
            if value in logits or (
                readers and not value.is_graph_output() and all(self.raw_use(value, r) for r in readers)
            ):
                continue
            found.append(value)
        return found
