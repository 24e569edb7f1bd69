"""An ONNX graph as plain data: what is left of a model once names, types and constants are settled.

The lifting functions need four things of a model: nodes in an order in which they can run, attributes as
Python values, constants as arrays, and the type of every tensor. `plain_graph` makes them from an
`onnx_ir.Model` without touching it, so that no lifting function has to know where a constant came from or
whether a name stands behind a chain of `Identity` nodes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from ...errors import ModelError, UnsupportedError
from ..program import TensorSpec
from .contrib import CONTRIB_LIFTERS, DOMAIN
from .contrib_types import infer_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Graph", "Node", "plain_graph"]

DEFAULT_DOMAINS = ("", "ai.onnx")
LONGEST_REASON = 200


@dataclass(frozen=True, eq=False)
class Node:
    """One node.

    Attributes:
        name: Its name, or (where the model gives none) the name of its first output.
        op_type: The operator; one of another domain than `ai.onnx` carries the domain in front.
        opset: Version of `ai.onnx` that gives the operator its meaning.
        inputs: Names; None where an optional input is left out. Trailing ones are absent.
        outputs: Names; None where an optional output is left out.
        attributes: Numbers, strings, tuples of them, or arrays.
    """

    name: str
    op_type: str
    opset: int
    inputs: tuple[str | None, ...]
    outputs: tuple[str | None, ...]
    attributes: Mapping[str, Any]

    @property
    def output(self) -> str:
        """The first output; every operator read here has one."""
        return str(self.outputs[0])

    def input(self, index: int) -> str | None:
        """Name of the input at `index`, None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def refusal(self, reason: str) -> UnsupportedError:
        """The error that names node, op and reason, for the caller to raise."""
        return UnsupportedError(f"node {self.name!r} ({self.op_type}): {reason}")


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order, constants apart.

    Attributes:
        inputs: What the caller feeds: the graph's inputs less those that have an initializer.
        outputs: Names of the graph's outputs.
        nodes: Every node that an output depends on, and that is no constant.
        constants: Initializers and constant nodes.
        specs: Element type and shape of each tensor whose type is known.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray[Any]]
    specs: Mapping[str, TensorSpec]

    @cached_property
    def readers(self) -> Counter[str]:
        """How many node inputs and graph outputs read each tensor."""
        found = Counter(name for node in self.nodes for name in node.inputs if name is not None)
        found.update(self.outputs)
        return found


def plain_graph(model: ir.Model) -> Graph:
    """Settle names, order, types and constants of `model`, which stays as it is.

    Raises:
        ModelError: If shape inference or a constant's data shows the model to be broken.
        UnsupportedError: If a node is of another domain or has no plain attributes.
    """
    inferred = _typed(model)
    graph = inferred.graph
    opset = graph.opset_imports.get("", 0)
    if opset > onnx.defs.onnx_opset_version():
        raise UnsupportedError(
            f"the model is written in ai.onnx opset {opset}; the installed onnx knows up to "
            f"{onnx.defs.onnx_opset_version()}: update onnx, or convert the model with onnx.version_converter"
        )
    specs = {str(value.name): spec for value in _values(graph) if (spec := _spec(value)) is not None}
    constants = {name: _array(name, value.const_value) for name, value in graph.initializers.items()}
    outputs = tuple(str(value.name) for value in graph.outputs)

    aliases: dict[str, str] = {}
    nodes: list[Node] = []
    for raw in graph:
        node = _plain_node(raw, opset, aliases)
        if node.op_type == "Constant":
            constants[node.output] = _constant_value(node)
        elif _passes_through(node, constants):
            source = str(node.inputs[0])
            if source in constants:
                constants[node.output] = constants[source]
            elif node.output in outputs:
                nodes.append(Node(node.name, "Identity", opset, (source,), (node.output,), {}))
            else:
                aliases[node.output] = source
        else:
            nodes.append(node)

    inputs = tuple(
        _input_spec(value, specs) for value in graph.inputs if value.name not in graph.initializers
    )
    needed = _needed(nodes, outputs)
    _check_sources(needed, outputs, {spec.name for spec in inputs} | set(constants))
    return Graph(inputs, outputs, needed, constants, specs)


def _typed(model: ir.Model) -> ir.Model:
    """A copy of the model with functions inlined, nodes sorted and types inferred."""
    try:
        copy = ir.from_proto(ir.to_proto(model))
        if copy.functions:
            common.InlinePass()(copy)
        copy.graph.sort()
        return ir.from_proto(infer_types(ir.to_proto(copy)))
    except (ValueError, TypeError, RuntimeError, OSError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise ModelError(
            f"the model is not a valid ONNX graph: {reason}; check it with onnx.checker"
        ) from error


def _values(graph: ir.Graph) -> list[ir.Value]:
    found = [*graph.inputs, *graph.initializers.values()]
    found.extend(value for node in graph for value in node.outputs)
    return found


def _spec(value: ir.Value) -> TensorSpec | None:
    """Type of a value, or None where the model and shape inference leave it open."""
    if not isinstance(value.type, ir.TensorType) or value.dtype in {None, ir.DataType.UNDEFINED}:
        return None
    shape = value.shape
    dims = None if shape is None else tuple(d if isinstance(d, int) else None for d in shape.dims)
    return TensorSpec(str(value.name), np.dtype(value.dtype.numpy()), dims)


def _input_spec(value: ir.Value, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    spec = specs.get(str(value.name))
    if spec is None:
        raise UnsupportedError(f"graph input {value.name!r} is {value.type}: expected a tensor of known type")
    return spec


def _array(name: str, tensor: ir.TensorProtocol | None) -> NDArray[Any]:
    if tensor is None:
        raise ModelError(f"initializer {name!r} has no data")
    try:
        return np.asarray(tensor.numpy())
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"initializer {name!r} cannot be read: {error}") from error


def _plain_node(raw: ir.Node, opset: int, aliases: Mapping[str, str]) -> Node:
    outputs = tuple(value.name or None for value in raw.outputs)
    name = raw.name or next((output for output in outputs if output), raw.op_type)
    inputs = [None if value is None else value.name or None for value in raw.inputs]
    while inputs and inputs[-1] is None:
        inputs.pop()
    op_type = raw.op_type
    if raw.domain not in DEFAULT_DOMAINS:
        op_type = f"{raw.domain}.{raw.op_type}"
        if op_type not in CONTRIB_LIFTERS:
            others = ", ".join(key.partition(f"{DOMAIN}.")[2] for key in sorted(CONTRIB_LIFTERS))
            raise UnsupportedError(
                f"node {name!r} ({op_type}): this operator of domain {raw.domain!r} is not read, since it "
                f"cannot be run exactly; expected ai.onnx operators, or {others} of {DOMAIN}"
            )
    else:
        _check_form(name, raw, opset)
    attributes = {key: _attribute(name, raw.op_type, attr) for key, attr in raw.attributes.items()}
    resolved = tuple(None if entry is None else aliases.get(entry, entry) for entry in inputs)
    return Node(name, op_type, opset, resolved, outputs, attributes)


def _check_form(name: str, raw: ir.Node, opset: int) -> None:
    """Hold the node against its operator's schema: number of inputs, presence and types of attributes."""
    try:
        schema = onnx.defs.get_schema(raw.op_type, opset, "")
    except onnx.defs.SchemaError:
        return  # no such operator: the reader refuses it with the list of those that it reads
    missing = [key for key, form in schema.attributes.items() if form.required and key not in raw.attributes]
    unknown = [key for key in raw.attributes if key not in schema.attributes]
    types: dict[str, Any] = {key: form.type for key, form in schema.attributes.items()}
    wrong = [key for key, found in raw.attributes.items() if int(found.type) != types.get(key, found.type)]
    for keys, fault in ((missing, "is missing"), (unknown, "is unknown"), (wrong, "is of the wrong type")):
        if keys:
            raise ModelError(f"node {name!r} ({raw.op_type}): attribute {keys[0]!r} {fault} in opset {opset}")
    if not schema.min_input <= len(raw.inputs) <= schema.max_input:
        raise ModelError(
            f"node {name!r} ({raw.op_type}): found {len(raw.inputs)} inputs; expected {schema.min_input} to "
            f"{schema.max_input}"
        )


def _attribute(node: str, op_type: str, attribute: ir.Attr) -> Any:
    """An attribute as a number, a string, a tuple of them, or an array."""
    if attribute.is_ref() or attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
        raise UnsupportedError(
            f"node {node!r} ({op_type}): attribute {attribute.name!r} holds a graph or a reference; "
            "operators with subgraphs are not read"
        )
    if attribute.type == ir.AttributeType.TENSOR:
        return np.asarray(attribute.as_tensor().numpy())
    value = attribute.value
    return value if isinstance(value, int | float | str) else tuple(value)


_CONSTANT_TYPES: Mapping[str, Any] = {
    "value": None,
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def _constant_value(node: Node) -> NDArray[Any]:
    for key, dtype in _CONSTANT_TYPES.items():
        if key in node.attributes:
            return np.asarray(node.attributes[key], dtype=dtype)
    raise node.refusal(f"holds {sorted(node.attributes)}; expected a dense numeric tensor")


def _passes_through(node: Node, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the node hands its first input on: Identity, and Dropout when it does not train."""
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout":
        return False
    if len(node.outputs) > 1 and node.outputs[1] is not None:
        raise node.refusal("its mask output is used; only its inference form, without a mask, is read")
    training = node.input(2)
    if training is not None and (training not in constants or constants[training].any()):
        raise node.refusal("training_mode is not a constant false; export the model for inference")
    return True


def _needed(nodes: list[Node], outputs: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes that an output depends on, in the order given."""
    wanted = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            kept.append(node)
            wanted.update(name for name in node.inputs if name is not None)
    return tuple(reversed(kept))


def _check_sources(nodes: tuple[Node, ...], outputs: tuple[str, ...], known: set[str]) -> None:
    """Every tensor that is read is fed, held or written."""
    written = known.union(name for node in nodes for name in node.outputs if name is not None)
    for node in nodes:
        for name in node.inputs:
            if name is not None and name not in written:
                raise ModelError(f"node {node.name!r} ({node.op_type}) reads {name!r}, which nothing writes")
    for name in outputs:
        if name not in written:
            raise ModelError(f"nothing writes the graph output {name!r}")
