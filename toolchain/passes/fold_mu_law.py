"""Fold mu-law maps of weights: the map is computed once, in float64, and rounded once to float32.

    F(w) = sgn(w) ln(1 + mu |w|) / ln(1 + mu)          (Song, Fallon, Li, Eq. 3a)

in the `literal` domain on the weights themselves (|w| <= 1), in the `normalised` one as s F(w / s) with
s = max|w| of the tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from ...errors import RecipeError, UnsupportedError
from ..graph import add_initializer, check_finite, constant, graph_of, note
from .name_layers import constant_cone, layers_with_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["FoldMuLawPass", "mu_law"]

_AGREEMENT = 1e-4
"""The exported subgraph is float32, ours float64: they may differ by float32 rounding, not by the formula."""


def mu_law(weights: NDArray[np.floating], mu: float, domain: str = "literal") -> NDArray[np.float32]:
    """Return F(w) of Eq. 3a, computed in float64 and rounded once to float32.

    Args:
        weights: Any shape.
        mu: Above 0.
        domain: `literal` or `normalised`.
    """
    w = weights.astype(np.float64)
    peak = 1.0 if domain == "literal" else float(np.abs(w).max(initial=0.0)) or 1.0
    mapped = np.sign(w) * np.log1p(mu * np.abs(w / peak)) / np.log1p(mu)
    rounded: NDArray[np.float32] = (peak * mapped).astype(np.float32)
    return rounded


def _operands(node: ir.Node, op_type: str) -> tuple[ir.Value | None, ir.Value | None]:
    """Return the (computed, constant scalar) operands of the producer of `node`'s first input, if it fits."""
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if producer is None or producer.op_type != op_type:
        return None, None
    return producer.inputs[0], producer.inputs[1]


def _scalar(value: ir.Value | None) -> float | None:
    """Return the number behind a constant scalar, through Constant, Cast and CastLike nodes."""
    while value is not None and value.producer() is not None:
        node = value.producer()
        if node is not None and node.op_type == "Constant":
            tensor = node.attributes.get("value")
            array = tensor.value.numpy() if tensor is not None else None
            return float(array) if array is not None and array.size == 1 else None
        if node is None or node.op_type not in ("Cast", "CastLike"):
            return None
        value = node.inputs[0]
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def _find_mu(nodes: list[ir.Node]) -> tuple[float, str] | None:
    """Return (mu, domain) if the nodes contain Log(1 + mu |v|), with v the weights or weights / scale."""
    logs = [node for node in nodes if node.op_type == "Log"]
    if len(logs) != 1 or not any(node.op_type == "Sign" for node in nodes):
        return None
    for product in _operands(logs[0], "Add"):
        multiply = product.producer() if product is not None else None
        if multiply is None or multiply.op_type != "Mul":
            continue
        for magnitude, factor in (tuple(multiply.inputs), tuple(multiply.inputs)[::-1]):
            absolute = magnitude.producer() if magnitude is not None else None
            mu = _scalar(factor)
            if absolute is None or absolute.op_type != "Abs" or mu is None:
                continue
            source = absolute.inputs[0]
            scaled = source is not None and source.producer() is not None
            return mu, "normalised" if scaled else "literal"
    return None


def _evaluate(value: ir.Value, nodes: list[ir.Node], leaves: list[ir.Value]) -> NDArray[np.float64]:
    """Compute a constant subgraph with ONNX's reference evaluator."""
    wanted = set(nodes)
    ordered = [ir.to_proto(node) for node in value.producer().graph if node in wanted]  # type: ignore[union-attr]
    arrays = [onnx.numpy_helper.from_array(leaf.const_value.numpy(), leaf.name) for leaf in leaves]  # type: ignore[union-attr]
    output = onnx.helper.make_tensor_value_info(str(value.name), onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(ordered, "mu_law", [], [output], arrays)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    (result,) = ReferenceEvaluator(model).run(None, {})
    return np.asarray(result, dtype=np.float64)


def _check_literal(layer: str, weights: NDArray[np.floating]) -> None:
    largest = float(np.abs(weights).max(initial=0.0))
    if largest > 1.0:
        raise RecipeError(
            f"layer '{layer}': max|w| = {largest:.6g}, the literal mu-law map is defined for |w| <= 1; "
            "use mu_law_domain = 'normalised', or train with smaller weights"
        )


class FoldMuLawPass(ir.passes.InPlacePass):
    """Replace mu-law maps of weights by the mapped weights.

    1. A constant subgraph that ends in a layer's weights and contains Sign, Abs and Log(1 + mu|.|) is taken
       for a mu-law map; its values must agree with Eq. 3a, else it is refused.
    2. Layers named in `mu_law` are mapped as if their weights carried the map. A layer that already carries
       one is refused: the map would be applied twice.

    Refused: weights with |w| > 1 in the literal domain, NaN, infinity, unknown layer names.
    """

    def __init__(self, mu_law: Mapping[str, float] | None = None, domain: str = "literal") -> None:
        super().__init__()
        self.mu_law = dict(mu_law or {})
        self.domain = domain

    def requires(self, model: ir.Model) -> None:
        """Refuse names of layers that do not exist."""
        known = [node.name or "" for node in layers_with_weights(model)]
        for name in self.mu_law:
            if name not in known:
                raise RecipeError(
                    f"mu_law: no layer '{name}'; the layers with weights are {', '.join(known)}"
                )

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold every map that is found, then apply those that the recipe asks for."""
        modified = False
        for node in layers_with_weights(model):
            layer = node.name or ""
            folded = self._fold_subgraph(node)
            if folded and layer in self.mu_law:
                raise RecipeError(
                    f"mu_law: the weights of layer '{layer}' carry a mu-law map already; leave it out of the recipe"
                )
            if folded:
                note(model, f"layer '{layer}': the mu-law map in the graph was folded into the weights")
            elif layer in self.mu_law:
                self._map_layer(node, self.mu_law[layer])
                note(model, f"layer '{layer}': mu-law map, mu = {self.mu_law[layer]:g}, domain {self.domain}")
            modified |= folded or layer in self.mu_law
        return ir.passes.PassResult(model, modified)

    def _fold_subgraph(self, node: ir.Node) -> bool:
        weights = node.inputs[1]
        cone = constant_cone(weights)
        found = _find_mu(cone[0]) if cone is not None else None
        if weights is None or cone is None or found is None:
            return False
        nodes, leaves = cone
        originals = [leaf for leaf in leaves if leaf.shape is not None and len(leaf.shape) > 1]
        original = constant(originals[0]) if len(originals) == 1 else None
        layer = node.name or ""
        if original is None:
            raise UnsupportedError(f"layer '{layer}': its weights mix several tensors in a mu-law map")
        check_finite(layer, "weight", original)
        mu, domain = found
        if domain == "literal":
            _check_literal(layer, original)
        mapped = mu_law(original, mu, domain)
        exported = _evaluate(weights, nodes, leaves)
        transposed = any(n.op_type == "Transpose" for n in nodes)
        mapped = mapped.T if transposed else mapped
        if exported.shape != mapped.shape or np.abs(exported - mapped).max(initial=0.0) > _AGREEMENT * max(
            1.0, float(np.abs(mapped).max(initial=0.0))
        ):
            raise UnsupportedError(
                f"layer '{layer}': its weights pass through a logarithmic map that is not Eq. 3a with mu = {mu:g}; "
                "only the mu-law map is folded"
            )
        node.replace_input_with(1, add_initializer(graph_of(node), f"{layer}.weight", mapped))
        return True

    def _map_layer(self, node: ir.Node, mu: float) -> None:
        layer = node.name or ""
        weights = constant(node.inputs[1])
        if weights is None:
            raise UnsupportedError(
                f"mu_law: the weights of layer '{layer}' are computed in the graph, expected a plain initializer"
            )
        check_finite(layer, "weight", weights)
        if self.domain == "literal":
            _check_literal(layer, weights)
        mapped = mu_law(weights, mu, self.domain)
        node.replace_input_with(1, add_initializer(graph_of(node), f"{layer}.weight", mapped))
