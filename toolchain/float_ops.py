"""ONNX operators that a program runs as they are, in NumPy: float tails, and glue in models made by others.

Each is a function `(operands, attributes, outputs)`: the operands in order (None for an optional one left
out), the node's attributes, and how many outputs are asked for. It returns the outputs. The semantics are
those of opset 21; where an operator moved an attribute to an input over the years (Clip, Squeeze, ReduceSum,
Slice), both forms are understood.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Operands = tuple[Array | None, ...]
    Attributes = Mapping[str, Any]
    OperatorFunction = Callable[[Operands, Attributes, int], tuple[Array, ...]]

__all__ = ["ELEMENTWISE_OPERATORS", "EXACT_OPERATORS", "FLOAT_OPERATORS", "resolved_shape"]

# TensorProto.DataType numbers that NumPy has a type for.
ELEMENT_TYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
}


def _operand(operands: Operands, index: int) -> Array | None:
    return operands[index] if index < len(operands) else None


def _required(operands: Operands, index: int) -> Array:
    value = _operand(operands, index)
    if value is None:
        raise ValueError(f"operand {index} is missing")
    return value


def _integers(operands: Operands, index: int, attributes: Attributes, name: str) -> tuple[int, ...] | None:
    """A list of integers that is an operand in newer opsets and an attribute in older ones."""
    value = _operand(operands, index)
    found = attributes.get(name) if value is None else value
    return None if found is None else tuple(int(i) for i in np.asarray(found).reshape(-1))


def _unary(function: Callable[[Array], Array]) -> OperatorFunction:
    def run(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
        x = _required(operands, 0)
        with np.errstate(all="ignore"):
            return (np.asarray(function(x)).astype(x.dtype, copy=False),)

    return run


def _folded(function: Callable[[Array, Array], Array]) -> OperatorFunction:
    """A binary function, or a variadic one folded from the left."""

    def run(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
        result = _required(operands, 0)
        with np.errstate(all="ignore"):
            for index in range(1, len(operands)):
                result = np.asarray(function(result, _required(operands, index)))
        return (result,)

    return run


def _divide(a: Array, b: Array) -> Array:
    """IEEE division; integers truncate towards zero, and by zero they give zero."""
    if np.issubdtype(np.result_type(a, b), np.floating):
        return np.divide(a, b)
    quotient = np.floor_divide(a, b)
    remainder = a - quotient * b
    towards_zero = ((remainder != 0) & ((a < 0) != (b < 0)) & (b != 0)).astype(quotient.dtype)
    truncated: Array = quotient + towards_zero
    return truncated


def _leaky_relu(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    alpha = x.dtype.type(attributes.get("alpha", 0.01))
    return (np.where(x < 0, x * alpha, x),)


def _clip(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    bounds = []
    for index, name in ((1, "min"), (2, "max")):
        value = _operand(operands, index)
        value = attributes.get(name) if value is None else value
        bounds.append(None if value is None else np.asarray(value).astype(x.dtype).reshape(()))
    low, high = bounds
    if low is not None:
        x = np.maximum(x, low)
    return (x if high is None else np.minimum(x, high),)


def _identity(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    return (_required(operands, 0),)


def _dropout(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    training = _operand(operands, 2)
    if training is not None and bool(training):
        raise ValueError("Dropout in training mode is random")
    return (x, np.ones(x.shape, np.bool_))[:outputs]


def _cast(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    number = int(attributes["to"])
    if number not in ELEMENT_TYPES:
        raise ValueError(f"Cast to element type {number} is not supported")
    with np.errstate(all="ignore"):
        return (_required(operands, 0).astype(ELEMENT_TYPES[number]),)


def _flatten(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    axis = int(attributes.get("axis", 1))
    axis += x.ndim if axis < 0 else 0
    return (x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:])),)


def _squeeze(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    return (np.squeeze(x, _integers(operands, 1, attributes, "axes")),)


def _unsqueeze(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    axes = _integers(operands, 1, attributes, "axes")
    return (np.expand_dims(_required(operands, 0), axes or ()),)


def _arg(function: Callable[..., Array]) -> OperatorFunction:
    """ArgMax or ArgMin: int64, ties to the first index or, with `select_last_index`, to the last."""

    def run(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
        x = _required(operands, 0)
        axis = int(attributes.get("axis", 0))
        keep = bool(attributes.get("keepdims", 1))
        if attributes.get("select_last_index", 0):
            indices = x.shape[axis] - 1 - function(np.flip(x, axis), axis=axis, keepdims=keep)
        else:
            indices = function(x, axis=axis, keepdims=keep)
        return (np.asarray(indices).astype(np.int64),)

    return run


def _shifted(operands: Operands, attributes: Attributes) -> tuple[Array, int]:
    x = _required(operands, 0)
    axis = int(attributes.get("axis", -1))
    return x - x.max(axis=axis, keepdims=True), axis


def _softmax(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    shifted, axis = _shifted(operands, attributes)
    powers = np.exp(shifted)
    return (powers / powers.sum(axis=axis, keepdims=True),)


def _log_softmax(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    shifted, axis = _shifted(operands, attributes)
    return (shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)),)


def _sigmoid(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    result: Array = np.where(x < 0, decay, np.ones_like(decay)) / (1 + decay)
    return result


def _slice(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    starts = _integers(operands, 1, attributes, "starts") or ()
    ends = _integers(operands, 2, attributes, "ends") or ()
    axes = _integers(operands, 3, attributes, "axes") or tuple(range(len(starts)))
    steps = _integers(operands, 4, {}, "steps") or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = np.take(x, _positions(x.shape[axis], start, end, step), axis=axis)
    return (x,)


def _positions(length: int, start: int, end: int, step: int) -> NDArray[np.int64]:
    """The indices of one sliced axis, by ONNX's rules for negative and overlong bounds."""
    start += length if start < 0 else 0
    end += length if end < 0 else 0
    if step > 0:
        return np.arange(min(max(start, 0), length), min(max(end, 0), length), step, dtype=np.int64)
    return np.arange(min(max(start, 0), length - 1), min(max(end, -1), length - 1), step, dtype=np.int64)


def _gather(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    axis = int(attributes.get("axis", 0))
    return (np.take(_required(operands, 0), _required(operands, 1).astype(np.int64), axis=axis),)


def _reduce(function: Callable[..., Array], *, integers_only: bool) -> OperatorFunction:
    """ReduceSum, ReduceMax, ReduceMin. A sum of floats has no defined order and is refused."""

    def run(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
        x = _required(operands, 0)
        if integers_only and not np.issubdtype(x.dtype, np.integer):
            raise ValueError(f"a sum of {x.dtype} is not exact: its order is not defined")
        axes = _integers(operands, 1, attributes, "axes") or ()
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return (x,)
        keep = bool(attributes.get("keepdims", 1))
        return (np.asarray(function(x, axis=axes or None, keepdims=keep)).astype(x.dtype, copy=False),)

    return run


def _concat(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    arrays = [_required(operands, index) for index in range(len(operands))]
    return (np.concatenate(arrays, axis=int(attributes["axis"])),)


def _reshape(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    target = _integers(operands, 1, attributes, "shape") or ()
    return (x.reshape(resolved_shape(x.shape, target, allow_zero=bool(attributes.get("allowzero", 0)))),)


def resolved_shape(
    shape: tuple[int, ...], target: tuple[int, ...], *, allow_zero: bool = False
) -> tuple[int, ...]:
    """The shape that ONNX's Reshape gives: 0 copies a dimension unless `allow_zero`, -1 is inferred.

    Copied dimensions cancel before -1 is inferred, so that an empty batch keeps its other dimensions.
    """
    copied = {i for i, size in enumerate(target) if size == 0 and not allow_zero}
    sizes = [shape[i] if i in copied else size for i, size in enumerate(target)]
    if -1 in sizes:
        have = math.prod(size for i, size in enumerate(shape) if i not in copied)
        others = math.prod(size for i, size in enumerate(sizes) if size != -1 and i not in copied)
        sizes[sizes.index(-1)] = have // others if others else 0
    return tuple(sizes)


def _transpose(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    return (np.transpose(_required(operands, 0), attributes.get("perm")),)


_PAD_MODES: Mapping[str, Literal["edge", "reflect", "wrap"]] = {
    "edge": "edge",
    "reflect": "reflect",
    "wrap": "wrap",
}


def _pad(operands: Operands, attributes: Attributes, outputs: int) -> tuple[Array, ...]:  # noqa: ARG001
    x = _required(operands, 0)
    pads = _integers(operands, 1, attributes, "pads") or ()
    if any(pad < 0 for pad in pads):
        raise ValueError("Pad with negative pads is not supported")
    axes = [axis % x.ndim for axis in _integers(operands, 3, {}, "axes") or range(x.ndim)]
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        widths[axis] = (pads[i], pads[i + len(axes)])
    mode = attributes.get("mode", "constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode in _PAD_MODES:
        return (np.pad(x, widths, mode=_PAD_MODES[mode]),)
    if mode != "constant":
        raise ValueError(f"Pad mode {mode!r} is not supported")
    value = _operand(operands, 2)
    fill = attributes.get("value", 0) if value is None else value
    return (np.pad(x, widths, constant_values=np.asarray(fill).astype(x.dtype).reshape(())),)


_ELEMENTWISE: Mapping[str, OperatorFunction] = {
    "Abs": _unary(np.abs),
    "Add": _folded(np.add),
    "Cast": _cast,
    "Clip": _clip,
    "Div": _folded(_divide),
    "Dropout": _dropout,
    "Identity": _identity,
    "LeakyRelu": _leaky_relu,
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mul": _folded(np.multiply),
    "Neg": _unary(np.negative),
    "Relu": _unary(lambda x: np.maximum(x, x.dtype.type(0))),
    "Sqrt": _unary(np.sqrt),
    "Sub": _folded(np.subtract),
}

_MOVEMENTS: Mapping[str, OperatorFunction] = {
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "ReduceMax": _reduce(np.max, integers_only=False),
    "ReduceMin": _reduce(np.min, integers_only=False),
    "ReduceSum": _reduce(np.sum, integers_only=True),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}

_ROUNDED: Mapping[str, OperatorFunction] = {
    "LogSoftmax": _log_softmax,
    "Sigmoid": _unary(_sigmoid),
    "Softmax": _softmax,
    "Tanh": _unary(np.tanh),
}

FLOAT_OPERATORS: Mapping[str, OperatorFunction] = {**_ELEMENTWISE, **_MOVEMENTS, **_ROUNDED}
"""Every operator that can be run, by its ONNX name."""

ELEMENTWISE_OPERATORS: frozenset[str] = frozenset(_ELEMENTWISE)
"""Operators whose every output element depends on the elements at its own place alone."""

EXACT_OPERATORS: frozenset[str] = frozenset({**_ELEMENTWISE, **_MOVEMENTS})
"""Operators defined to the bit: single IEEE operations, integer arithmetic, and movements of data."""
