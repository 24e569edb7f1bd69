"""Mutations of ONNX models by field: numbers, names, dimensions, data, nodes of other operators, weights elsewhere."""

from __future__ import annotations

import struct
from functools import cache
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from .plain import EDGES, mutated_bytes
from .trees import mutated_json

if TYPE_CHECKING:
    from random import Random

__all__ = ["OUTSIDE", "mutated_metadata", "mutated_onnx"]

OUTSIDE = (
    "../outside.bin",
    "../../etc/hostname",
    "/etc/hostname",
    "link.bin",
    "sub/../../outside.bin",
    "",
    "\x00",
)
"""Where a model may claim that its weights lie; a symbolic link `link.bin` leads out of an input's folder."""

_TEXTS = (
    "", "x", "N", "a" * 5000, "é\N{SNOWMAN}", "com.microsoft", "ai.onnx.ml", "AUTO_PAD", "SAME_UPPER", "\x00", "loop",
)  # fmt: skip
_HUGE = (
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Range",
    "OneHot",
    "Resize",
    "Pad",
    "RandomNormal",
    "EyeLike",
    "Reshape",
)
_FLOATS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), float("-inf"), 1e38, 1e-45, 0.5)


def mutated_onnx(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return a model after one to three mutations of its fields, or of its bytes."""
    if rng.random() < 0.25:
        return mutated_bytes(rng, data, other)
    model = onnx.ModelProto()
    model.ParseFromString(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _SHAPES[rng.choices(range(len(_SHAPES)), _WEIGHTS)[0]](rng, model)
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except (ValueError, DecodeError):  # a required form was broken: the bytes alone can be
        return mutated_bytes(rng, data, other)


def mutated_metadata(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return an artifact whose metadata are other ones."""
    model = onnx.ModelProto()
    model.ParseFromString(data)
    own = [entry for entry in model.metadata_props if entry.key.startswith("ohmfold.")]
    if not own:
        return mutated_onnx(rng, data, other)
    entry = rng.choice(own)
    kind = rng.randrange(4)
    if kind <= 1 and entry.value[:1] == "{":
        entry.value = mutated_json(rng, entry.value.encode()).decode("utf-8", "replace")
    elif kind == 2:
        strange = ("9" * 5000, "[" * 90000, "²", "NaN", "[1", '["a", 1]', "{}")
        entry.value = rng.choice((*_TEXTS, *map(str, EDGES), *strange))
    else:
        entry.key = rng.choice(("ohmfold.schema", "ohmfold.notes", "ohmfold.recipe", "ohmfold.", "other"))
    return bytes(model.SerializeToString(deterministic=True))


def _field(rng: Random, model: onnx.ModelProto) -> None:
    """Another value in any field."""
    message, field, value = rng.choice(_fields(model))
    if _is_repeated(field):
        _repeated(rng, message, field, value)
    elif field.message_type is not None:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(rng, field, value))


def _repeated(rng: Random, message: Any, field: Any, values: Any) -> None:
    kind = rng.randrange(4)
    at = rng.randrange(len(values))
    if kind == 0:
        del values[at]
    elif kind == 1:
        if field.message_type is not None:
            values.add().CopyFrom(values[at])
        else:
            values.append(values[at])
    elif kind == 2 and field.message_type is None:
        values[at] = _scalar(rng, field, values[at])
    elif kind == 2 and len(values) > 1:
        copy = type(values[at])()
        copy.CopyFrom(values[rng.randrange(len(values))])
        values[at].CopyFrom(copy)
    elif rng.random() < 0.3:
        message.ClearField(field.name)


def _scalar(rng: Random, field: Any, value: Any) -> Any:
    kind = field.cpp_type
    if kind == field.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64, field.CPPTYPE_INT32, field.CPPTYPE_UINT32):
        bits = 64 if kind in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
        signed = kind in (field.CPPTYPE_INT64, field.CPPTYPE_INT32)
        number = rng.choice(EDGES) if rng.random() < 0.6 else rng.randrange(30)
        number &= (1 << bits) - 1
        return number - (1 << bits) if signed and number >> (bits - 1) else number
    if kind in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(_FLOATS)
    if kind == field.CPPTYPE_BOOL:
        return not value
    if field.type == field.TYPE_BYTES:
        return mutated_bytes(rng, value)
    return rng.choice(_TEXTS) if rng.random() < 0.5 else value[: len(value) // 2]


def _rename(rng: Random, model: onnx.ModelProto) -> None:
    """A node reads or writes another tensor of the graph: cycles, names twice, constants fed."""
    names = [name for node in model.graph.node for name in (*node.input, *node.output)] or [""]
    names += [tensor.name for tensor in model.graph.initializer]
    nodes = [node for node in model.graph.node if node.input and node.output]
    if nodes:
        node = rng.choice(nodes)
        row = rng.choice((node.input, node.output))
        row[rng.randrange(len(row))] = rng.choice(names)


def _operator(rng: Random, model: onnx.ModelProto) -> None:
    """A node becomes another operator, or one is put before it."""
    schema = rng.choice(_schemas())
    op = rng.choice(_HUGE) if rng.random() < 0.3 else schema.name
    if not model.graph.node:
        return
    node = rng.choice(model.graph.node)
    if rng.random() < 0.5 or not node.input:
        node.op_type = op
        node.domain = schema.domain if op == schema.name else ""
        return
    at = rng.randrange(len(node.input))
    values = [tensor.name for tensor in model.graph.initializer] + [node.input[at]]
    inputs = [node.input[at], *(rng.choice(values) for _ in range(rng.randrange(3)))]
    if rng.random() < 0.5:
        inputs = inputs[1:] or inputs
    inserted = helper.make_node(op, inputs, [f"inserted{rng.randrange(1000)}"])
    for name, form in schema.attributes.items() if op == schema.name else ():
        if form.required or rng.random() < 0.2:
            _give(rng, inserted, name, form)
    node.input[at] = inserted.output[0]
    nodes = [inserted, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _give(rng: Random, node: onnx.NodeProto, name: str, form: Any) -> None:
    kinds = onnx.defs.OpSchema.AttrType
    number = rng.choice((0, 1, -1, 2, rng.choice(EDGES)))
    values: dict[Any, Any] = {
        kinds.INT: number, kinds.INTS: [number, 1], kinds.FLOAT: rng.choice(_FLOATS), kinds.FLOATS: [1.0, 2.0],
        kinds.STRING: rng.choice(_TEXTS), kinds.STRINGS: ["a"],
        kinds.TENSOR: helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0]), kinds.GRAPH: onnx.GraphProto(),
    }  # fmt: skip
    if form.type in values:
        node.attribute.append(helper.make_attribute(name, values[form.type]))


def _numbers(rng: Random, model: onnx.ModelProto) -> None:
    """Small integer constants, such as the shapes of a Reshape, get other values or another length."""
    tensors = [t for t in model.graph.initializer if t.data_type == TensorProto.INT64 and t.raw_data]
    if not tensors:
        _dimensions(rng, model)
        return
    tensor = rng.choice(tensors)
    count = max(1, rng.choice((len(tensor.raw_data) // 8, 1, 2, 3, 70)))
    values = [rng.choice(EDGES[:-2]) if rng.random() < 0.5 else rng.randrange(-2, 9) for _ in range(count)]
    tensor.raw_data = struct.pack(f"<{count}q", *(min(v, (1 << 63) - 1) for v in values))
    del tensor.dims[:]
    tensor.dims.append(count)


def _dimensions(rng: Random, model: onnx.ModelProto) -> None:
    """A tensor, an input or an output has other dimensions or another type."""
    if model.graph.initializer and rng.random() < 0.6:
        tensor = rng.choice(model.graph.initializer)
        if tensor.dims and rng.random() < 0.7:
            tensor.dims[rng.randrange(len(tensor.dims))] = _scalar(rng, _dims_field(), 0)
        elif rng.random() < 0.5:
            tensor.dims.append(rng.choice((0, 1, -1, 1 << 40)))
        else:
            tensor.data_type = rng.randrange(28)
        return
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if values:
        shape = rng.choice(values).type.tensor_type.shape
        if not shape.dim or rng.random() < 0.2:
            shape.dim.add()
        shape.dim[rng.randrange(len(shape.dim))].dim_value = rng.choice(EDGES[:-3])


def _elsewhere(rng: Random, model: onnx.ModelProto) -> None:
    """Weights that are said to lie in another file; in constants and subgraphs too."""
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[rng.choice((1, 4, 1 << 40))])
    if model.graph.initializer and rng.random() < 0.5:
        tensor = rng.choice(model.graph.initializer)
        tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=rng.choice(OUTSIDE))
    if rng.random() < 0.5:
        tensor.external_data.add(
            key=rng.choice(("offset", "length")), value=rng.choice(("0", "-1", str(1 << 45), "x"))
        )
    if rng.random() < 0.6:
        node = helper.make_node("Constant", [], ["far"], value=tensor)
        target = rng.choice(model.graph.node) if model.graph.node else None
        if target is not None and target.input:
            target.input[rng.randrange(len(target.input))] = "far"
        nodes = [node, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
    elif rng.random() < 0.5:
        sparse = model.graph.sparse_initializer.add(dims=[4])
        sparse.values.CopyFrom(tensor)
        sparse.indices.CopyFrom(tensor)


def _nested(rng: Random, model: onnx.ModelProto) -> None:
    """Subgraphs in subgraphs, or functions, which may call themselves."""
    if rng.random() < 0.5:
        graph = onnx.GraphProto(name="inner")
        for _ in range(rng.choice((1, 5, 30))):
            outer = onnx.GraphProto(name="inner")
            other = graph if rng.random() < 0.1 else onnx.GraphProto()
            outer.node.append(helper.make_node("If", ["x"], ["y"], then_branch=graph, else_branch=other))
            graph = outer
        model.graph.node.extend(graph.node)
        return
    function = model.functions.add(name="F", domain="own")
    function.opset_import.add(domain="", version=21)
    function.opset_import.add(domain="own", version=1)
    function.input.append("a")
    function.output.append("b")
    function.node.append(
        helper.make_node(rng.choice(("Relu", "F")), ["a"], ["b"], domain=rng.choice(("", "own")))
    )
    model.opset_import.add(domain="own", version=1)
    if model.graph.node:
        node = rng.choice(model.graph.node)
        node.op_type, node.domain = "F", "own"


def _versions(rng: Random, model: onnx.ModelProto) -> None:
    """Another opset or version of the format."""
    if model.opset_import and rng.random() < 0.8:
        rng.choice(model.opset_import).version = rng.choice((*range(1, 29), *EDGES[:-4]))
    else:
        model.ir_version = rng.choice((1, 3, 4, 7, 10, 13, 99, (1 << 62)))


_SHAPES = (_field, _rename, _operator, _numbers, _dimensions, _elsewhere, _nested, _versions)
_WEIGHTS = (8, 3, 4, 3, 3, 1, 0.5, 0.7)


@cache
def _schemas() -> list[Any]:
    return sorted(onnx.defs.get_all_schemas(), key=lambda schema: (schema.domain, schema.name))


def _dims_field() -> Any:
    return TensorProto.DESCRIPTOR.fields_by_name["dims"]


def _is_repeated(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", None) if hasattr(field, "is_repeated") else field.label == 3)


def _fields(model: Any) -> list[tuple[Any, Any, Any]]:
    """Every field that is set, as its message, its descriptor and its value."""
    found: list[tuple[Any, Any, Any]] = []
    waiting = [model]
    while waiting:
        message = waiting.pop()
        for field, value in message.ListFields():
            found.append((message, field, value))
            if field.message_type is not None:
                waiting.extend(value if _is_repeated(field) else [value])
    return found
