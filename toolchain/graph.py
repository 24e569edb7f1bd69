"""Small helpers on `onnx_ir` graphs that the passes share: constants, attributes, insertion, naming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from ..errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "add_initializer",
    "attribute",
    "check_finite",
    "constant",
    "emit",
    "graph_of",
    "note",
    "notes_of",
    "producer_of",
    "real_consumers",
    "replace_value",
    "settle_names",
    "sole_consumer",
    "static_shape",
    "unique_name",
]

NOTES = "ohmfold.notes"
_WANTED = "ohmfold.wanted_name"


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the array behind an initializer, or None for anything that is computed or fed."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return np.asarray(value.const_value.numpy())


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return an attribute's plain value, or `default` where the node does not set it."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def producer_of(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Return the node that makes `value` if it is of one of `op_types` in the standard domain."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.domain == "" and node.op_type in op_types else None


def real_consumers(value: ir.Value) -> list[ir.Node]:
    """Return the nodes that read `value`, each once, in the order of the graph's uses."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def sole_consumer(value: ir.Value, *op_types: str) -> ir.Node | None:
    """Return the one reader of `value` if there is exactly one, of `op_types`, and it is no graph output."""
    readers = real_consumers(value)
    if value.is_graph_output() or len(readers) != 1 or readers[0].op_type not in op_types:
        return None
    return readers[0]


def static_shape(value: ir.Value) -> tuple[int | None, ...] | None:
    """Return the shape with None for symbolic dimensions, or None where the rank is unknown."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else None for d in value.shape)


def graph_of(node: ir.Node) -> ir.Graph:
    """Return the graph that holds `node`."""
    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"node {node.name} is in no graph")
    return node.graph


def unique_name(graph: ir.Graph, wanted: str) -> str:
    """Return `wanted`, or `wanted_1`, `wanted_2`, ... if a value of that name exists already."""
    taken = set(graph.initializers) | {v.name for v in graph.inputs}
    taken |= {v.name for node in graph for v in node.outputs}
    return _free_name(taken, wanted)


def _free_name(taken: set[str | None], wanted: str) -> str:
    name, count = wanted, 0
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name


def add_initializer(graph: ir.Graph, name: str, array: NDArray[Any] | np.generic) -> ir.Value:
    """Register `array` as an initializer under `name` (made unique) and return its value."""
    name = unique_name(graph, name)
    tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    value = ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def emit(
    anchor: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    name: str,
    output: str | Sequence[str],
    dtype: ir.DataType | None = None,
    domain: str = "",
) -> ir.Value:
    """Insert a node before `anchor` and return its first output.

    Args:
        anchor: A node of the graph.
        op_type: An operator.
        inputs: Its inputs.
        attributes: Its attributes as plain values.
        name: The node's name; made unique (the anchor's own name may be taken over).
        output: Name of its output, or names of its outputs; made unique.
        dtype: Element type of the outputs, where the caller knows it.
        domain: The operator's domain; by default the standard one.
    """
    graph = graph_of(anchor)
    names = [output] if isinstance(output, str) else list(output)
    type_ = None if dtype is None else ir.TensorType(dtype)
    node_name = _free_name({n.name for n in graph if n is not anchor}, name)
    values = [ir.Value(name=unique_name(graph, n), type=type_) for n in names]
    node = ir.Node(
        domain,
        op_type,
        inputs,
        ir.convenience.convert_attributes(attributes or {}),
        outputs=values,
        name=node_name,
    )
    node.meta[_WANTED] = name
    for value, wanted in zip(values, names, strict=True):
        value.meta[_WANTED] = wanted
    graph.insert_before(anchor, node)
    return values[0]


def settle_names(graph: ir.Graph) -> None:
    """Give emitted nodes and values the names they were emitted under, where those are free by now.

    While a pass replaces a node by another, both exist and the new one has to carry a number.
    """
    for node in graph:
        wanted = node.meta.pop(_WANTED, None)
        if wanted is not None:
            node.name = _free_name({n.name for n in graph if n is not node}, wanted)
        for value in node.outputs:
            wanted = value.meta.pop(_WANTED, None)
            if wanted is not None and not value.is_graph_output():
                value.name = f"{value.name}.renamed"
                value.name = unique_name(graph, wanted)


def replace_value(old: ir.Value, new: ir.Value) -> None:
    """Let every reader of `old`, the graph's outputs included, read `new`."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def check_finite(layer: str, kind: str, array: NDArray[Any]) -> None:
    """Refuse NaN and infinity.

    Raises:
        ModelError: `array` holds one; names the layer and the first place.
    """
    if np.isfinite(array).all():
        return
    place = np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)
    at = ", ".join(str(int(i)) for i in place)
    raise ModelError(
        f"layer '{layer}': {kind} [{at}] is {array[place]}, expected finite numbers; "
        "the model cannot be compiled until it is trained or loaded properly"
    )


def note(model: ir.Model, text: str) -> None:
    """Add a line to the compile report that travels in the model's metadata."""
    lines = notes_of(model)
    if text not in lines:
        model.metadata_props[NOTES] = "\n".join([*lines, text])


def notes_of(model: ir.Model) -> list[str]:
    """Return the lines of the compile report."""
    text = model.metadata_props.get(NOTES, "")
    return text.split("\n") if text else []
