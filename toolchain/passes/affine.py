"""What batch norms and arithmetic with constants have in common: y = a x + b per channel, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ModelError
from ..graph import attribute, check_finite, constant, sole_consumer, static_shape

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

__all__ = ["AFFINE_OPS", "Affine", "affine_chain", "affine_of"]

AFFINE_OPS = ("BatchNormalization", "Add", "Sub", "Mul", "Div")


@dataclass(frozen=True, eq=False)
class Affine:
    """`y = scale * x + shift` with float64 arrays of shape `(channels,)`."""

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    def then(self, after: Affine) -> Affine:
        """Return the map that applies `self` first and `after` second."""
        return Affine(after.scale * self.scale, after.scale * self.shift + after.shift)


def _per_channel(array: NDArray[np.floating], rank: int, channels: int) -> NDArray[np.float64] | None:
    """Return a constant operand as `(channels,)` if it varies along axis 1 at most."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(d != 1 for i, d in enumerate(shape) if i != 1) or shape[1] not in (1, channels):
        return None
    return np.broadcast_to(array.astype(np.float64).reshape(-1), (channels,)).copy()


def affine_of(node: ir.Node) -> tuple[ir.Value, Affine] | None:
    """Read a node as an affine map per channel.

    A batch norm is `a = gamma / sqrt(var + epsilon)`, `b = beta - a mean`; Add, Sub, Mul and Div count where
    one operand is a constant that is a scalar or varies along the channel axis alone.

    Returns:
        The computed input and the map, or None where the node is no such map.

    Raises:
        ModelError: A parameter is NaN or infinite, or a batch norm is in training mode.
    """
    if node.domain != "" or node.op_type not in AFFINE_OPS or node.inputs[0] is None:
        return None
    layer = node.name or node.op_type
    if node.op_type == "BatchNormalization":
        return _batch_norm(node, layer)
    left, right = node.inputs[0], node.inputs[1]
    if right is None:
        return None
    swapped = constant(left) is not None
    value, operand = (right, constant(left)) if swapped else (left, constant(right))
    shape = static_shape(value)
    if operand is None or shape is None or len(shape) < 2 or shape[1] is None or operand.dtype.kind != "f":
        return None
    c = _per_channel(operand, len(shape), shape[1])
    if c is None or (swapped and node.op_type == "Div"):
        return None
    check_finite(layer, "constant", c)
    one, zero = np.ones_like(c), np.zeros_like(c)
    if node.op_type == "Div" and not c.all():
        raise ModelError(f"node '{layer}': divides by a constant that holds 0")
    table = {
        "Add": lambda: Affine(one, c),
        "Sub": lambda: Affine(-one, c) if swapped else Affine(one, -c),
        "Mul": lambda: Affine(c, zero),
        "Div": lambda: Affine(one / c, zero),
    }
    return value, table[node.op_type]()


def _batch_norm(node: ir.Node, layer: str) -> tuple[ir.Value, Affine] | None:
    parameters = [constant(value) for value in node.inputs[1:5]]
    if any(p is None for p in parameters) or node.inputs[0] is None:
        return None
    if attribute(node, "training_mode", 0):
        raise ModelError(
            f"node '{layer}': BatchNormalization in training mode; export the module after eval()"
        )
    names = ("gamma", "beta", "running mean", "running variance")
    gamma, beta, mean, variance = (p.astype(np.float64) for p in parameters if p is not None)
    for name, p in zip(names, (gamma, beta, mean, variance), strict=True):
        check_finite(layer, name, p)
    scale = gamma / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    check_finite(layer, "gamma / sqrt(variance + epsilon)", scale)
    return node.inputs[0], Affine(scale, beta - scale * mean)


def affine_chain(value: ir.Value) -> tuple[list[ir.Node], Affine | None]:
    """Follow affine maps from `value` for as long as each has no other reader.

    Returns:
        The nodes and their composition; no nodes and None where none follows.
    """
    nodes: list[ir.Node] = []
    total: Affine | None = None
    while True:
        node = sole_consumer(value, *AFFINE_OPS)
        found = affine_of(node) if node is not None else None
        if node is None or found is None or found[0] is not value:
            return nodes, total
        nodes.append(node)
        total = found[1] if total is None else total.then(found[1])
        value = node.outputs[0]
