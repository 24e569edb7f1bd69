"""What an ONNX file may hold before anything is made of it: text that is text, and weights that are there.

onnx's checker accepts a tensor whose dimensions promise other sizes than its data has. It looks neither into
attributes, functions and sparse tensors for data in other files, nor at text that is not UTF-8. Shape inference does
not come to an end on an Einsum whose equation has other letters than Latin ones.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import onnx
from google.protobuf.message import Message
from onnx import TensorProto, helper

from ..errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["check_content"]

_MOST_DIMENSIONS = 64
_NAMES = frozenset({"name", "op_type", "domain", "input", "output"})
_EQUATION = re.compile(rb"[A-Za-z., >-]*")
_BITS = {
    getattr(TensorProto, name): bits
    for name, bits in (
        ("BOOL", 8), ("INT8", 8), ("UINT8", 8), ("INT16", 16), ("UINT16", 16), ("INT32", 32), ("UINT32", 32),
        ("INT64", 64), ("UINT64", 64), ("FLOAT16", 16), ("BFLOAT16", 16), ("FLOAT", 32), ("DOUBLE", 64),
        ("COMPLEX64", 64), ("COMPLEX128", 128), ("FLOAT8E4M3FN", 8), ("FLOAT8E4M3FNUZ", 8), ("FLOAT8E5M2", 8),
        ("FLOAT8E5M2FNUZ", 8), ("FLOAT8E8M0", 8), ("INT4", 4), ("UINT4", 4), ("FLOAT4E2M1", 4), ("INT2", 2),
        ("UINT2", 2),
    )
    if hasattr(TensorProto, name)
}  # fmt: skip
# How many elements one entry of the typed fields holds, where it is not one.
_NUMBERS_OF_COMPLEX = 2


def check_content(model: onnx.ModelProto, origin: str) -> None:
    """Check every text and every tensor of a model, those in attributes, subgraphs and functions included.

    Raises:
        ModelError: A text is not UTF-8, a tensor lies in another file, or has other data than its dimensions say.
    """
    for message in _messages(model):
        for field, value in message.ListFields():
            texts = (value,) if isinstance(value, str | bytes) else value
            if field.type == field.TYPE_STRING and not all(isinstance(text, str) for text in texts):
                raise ModelError(
                    f"{origin}: {message.DESCRIPTOR.name}.{field.name} is not UTF-8: the file is damaged"
                )
            if field.name in _NAMES and field.type == field.TYPE_STRING:
                _check_names(texts, origin)
        if isinstance(message, TensorProto):
            _check_tensor(message, origin)
        elif isinstance(message, onnx.NodeProto) and message.op_type == "Einsum":
            _check_equation(message, origin)


def _messages(model: Any) -> Iterator[Any]:
    """Yield a message and all that it holds."""
    waiting = [model]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend((value,) if isinstance(value, Message) else value)


def _check_names(names: Iterable[Any], origin: str) -> None:
    """Names stand in messages of one line."""
    for name in names:
        if not name.isprintable():
            raise ModelError(f"{origin}: the name {name!r:.99} holds control characters; rename it")


def _check_equation(node: onnx.NodeProto, origin: str) -> None:
    """Refuse the equations of an Einsum on which onnx's shape inference does not come to an end."""
    for attribute in node.attribute:
        if attribute.name == "equation" and not _EQUATION.fullmatch(attribute.s):
            raise ModelError(f"{origin}: node {node.name!r:.99} (Einsum): {attribute.s!r:.99} is no equation")


def _check_tensor(tensor: TensorProto, origin: str) -> None:
    where = f"{origin}: tensor {tensor.name!r:.99}"
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise ModelError(
            f"{where} lies in another file; save the model with its weights inside "
            "(onnx.save_model(..., save_as_external_data=False))"
        )
    if tensor.data_type == TensorProto.STRING:
        return  # no operator that is read here takes text: it is refused with its node
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        raise ModelError(f"{where} is of type {tensor.data_type}, which the installed onnx does not know")
    if len(tensor.dims) > _MOST_DIMENSIONS or min(tensor.dims, default=0) < 0:
        raise ModelError(f"{where} has the dimensions {list(tensor.dims[:9])}; the file is damaged")
    count = math.prod(tensor.dims)
    found, expected, unit = _data_of(tensor, count, bits)
    if found != expected:
        raise ModelError(
            f"{where} has the dimensions {list(tensor.dims)}, {expected} {unit}, but its data has {found}: the file is "
            "damaged"
        )


def _data_of(tensor: TensorProto, count: int, bits: int) -> tuple[int, int, str]:
    """Return how much data a tensor has, how much it must have, and of what."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data), -(-count * bits // 8), "bytes"
    field = helper.tensor_dtype_to_field(tensor.data_type)
    entries = len(getattr(tensor, field))
    if tensor.data_type in (TensorProto.COMPLEX64, TensorProto.COMPLEX128):
        return entries, count * _NUMBERS_OF_COMPLEX, "numbers"
    return entries, -(-count * bits // 8) if bits < 8 else count, "numbers"
