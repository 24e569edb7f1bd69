"""The state of one reading: layers written so far, and values that are known but not yet written.

ONNX spells one requantisation as four or five nodes (Cast, Sub, Mul, Add, QuantizeLinear). Whether such a
node is part of a layer shows only at its end, so the reader interprets them abstractly: the value behind a
name is kept as an expression over an integer tensor until somebody either completes a layer with it or
needs the value itself. In the second case `materialise` writes the layer that computes it, so that no
graph is refused for not looking like the ones our compiler writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import ModelError
from ..float_ops import ELEMENT_TYPES, EXACT_OPERATORS, FLOAT_OPERATORS
from ..program import Operator, Scale, TensorSpec, WeightedSum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..program import Layer
    from .graph import Graph, Node

__all__ = ["Biased", "Expression", "Lifting", "Real", "Term", "per_sample"]

type_int32 = np.dtype(np.int32)
type_float32 = np.dtype(np.float32)


@dataclass(frozen=True)
class Term:
    """`multiplier * (codes - zero_point)` in `dtype` (int32 or int64), of the shape of `codes`."""

    codes: str
    dtype: np.dtype[Any]
    zero_point: int = 0
    multiplier: int = 1


@dataclass(frozen=True, eq=False)
class Biased:
    """int32 `accumulator + bias`; the bias broadcasts against one sample."""

    accumulator: str
    bias: NDArray[np.int32]
    dtype: ClassVar[np.dtype[Any]] = type_int32


@dataclass(frozen=True, eq=False)
class Real:
    """float32 `float32(accumulator + bias) * multiplier`; None leaves a step out.

    `total` is the name under which the model knows `accumulator + bias`.
    """

    accumulator: str
    bias: NDArray[np.int32] | None
    total: str
    multiplier: NDArray[np.float32] | None = None
    dtype: ClassVar[np.dtype[Any]] = type_float32


Expression = Term | Biased | Real


class Lifting:
    """Layers, pending expressions and types of the graph that is being read."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layers: list[Layer] = []
        self.pending: dict[str, Expression] = {}
        self._specs: dict[str, TensorSpec] = dict(graph.specs)

    # What the operands are.

    def spec(self, name: str) -> TensorSpec:
        """Type of a tensor; its shape is None where unknown.

        Raises:
            ModelError: If not even its element type is known.
        """
        if name in self.graph.constants:
            array = self.graph.constants[name]
            return TensorSpec(name, array.dtype, array.shape)
        if name not in self._specs:
            raise ModelError(
                f"the element type of tensor {name!r} is unknown: shape inference stopped before it"
            )
        return self._specs[name]

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Shape of a tensor, None where its rank is unknown."""
        return self.spec(name).shape if name in self.graph.constants or name in self._specs else None

    def is_constant(self, name: str | None) -> bool:
        """Whether the model itself holds the value."""
        return name is not None and name in self.graph.constants

    def constant(self, node: Node, index: int, what: str) -> NDArray[Any]:
        """The constant at an input.

        Raises:
            UnsupportedError: If the input is absent or computed when the model runs.
        """
        found = self.optional_constant(node, index, what)
        if found is None:
            raise node.refusal(f"{what} (input {index}) is missing")
        return found

    def optional_constant(self, node: Node, index: int, what: str) -> NDArray[Any] | None:
        """The constant at an input, None where the input is left out."""
        name = node.input(index)
        if name is None:
            return None
        if not self.is_constant(name):
            raise node.refusal(f"{what} ({name!r}) is not a constant; only constant ones can be run exactly")
        return self.graph.constants[name]

    def optional_integers(self, node: Node, index: int, what: str) -> tuple[int, ...] | None:
        """The constant list of integers at an input, None where the input is left out."""
        found = self.optional_constant(node, index, what)
        if found is not None and (found.ndim != 1 or found.dtype not in _LIST_TYPES):
            raise node.refusal(f"{what} is {found.dtype}{list(found.shape)}; expected a list of int64")
        return None if found is None else tuple(int(value) for value in found)

    def integers(self, node: Node, index: int, what: str) -> tuple[int, ...]:
        """The constant list of integers at an input."""
        self.constant(node, index, what)
        return self.optional_integers(node, index, what) or ()

    def tensor(self, node: Node, index: int = 0) -> str:
        """Name of a computed operand, written by a layer from here on."""
        name = node.input(index)
        if name is None:
            raise node.refusal(f"input {index} is missing")
        if self.is_constant(name):
            raise node.refusal(
                f"input {index} ({name!r}) is a constant; fold the constants of the model first"
            )
        self.materialise(name)
        return name

    # What becomes of them.

    def write(self, layer: Layer, dtype: np.dtype[Any] | type | None = None) -> None:
        """Append a layer. `dtype` is its outputs' element type, which shape inference may not know."""
        if dtype is not None:
            for name in layer.outputs:
                self.declare(name, dtype)
        self.layers.append(layer)

    def hold(self, name: str, expression: Expression) -> None:
        """Keep the value of `name` as an expression."""
        self.pending[name] = expression
        self.declare(name, expression.dtype)

    def declare(
        self, name: str, dtype: np.dtype[Any] | type, shape: tuple[int | None, ...] | None = None
    ) -> None:
        """Say the element type (and shape) of a tensor, which shape inference may not know."""
        known = self._specs[name].shape if name in self._specs else None
        self._specs[name] = TensorSpec(name, np.dtype(dtype), shape if known is None else known)

    def producer(self, name: str) -> int | None:
        """Index of the layer that writes a tensor; None for a graph input."""
        return next((i for i, layer in enumerate(self.layers) if name in layer.outputs), None)

    def materialise(self, name: str) -> None:
        """Write the layer that computes a pending expression; do nothing for any other name."""
        found = self.pending.pop(name, None)
        if isinstance(found, Term):
            self._write_term(name, found)
        elif isinstance(found, Biased):
            self._write_operator(name, "Add", (found.accumulator, found.bias), type_int32)
        elif isinstance(found, Real):
            self._write_real(name, found)

    def accumulator(self, name: str) -> tuple[str, NDArray[np.int32] | None] | None:
        """An int32 value as a written tensor and a pending bias; None if it is not int32."""
        found = self.pending.get(name)
        if isinstance(found, Biased):
            return found.accumulator, found.bias
        if self.is_constant(name) or self.spec(name).dtype != type_int32:
            return None
        self.materialise(name)
        return name, None

    def operator(self, node: Node) -> None:
        """Write the node as it is, for the NumPy operators to run.

        Raises:
            UnsupportedError: If they do not include it.
        """
        if node.op_type not in FLOAT_OPERATORS:
            raise node.refusal("it is not part of a pattern that is read, and is not run on its own")
        for name in node.inputs:
            if name is not None:
                self.materialise(name)
        operands = tuple(self.graph.constants.get(name, name) if name else None for name in node.inputs)
        outputs = tuple(name for name in node.outputs if name is not None)
        if len(outputs) < len(node.outputs):
            raise node.refusal("an output before the last one is left out, which is not read")
        for name in (*filter(None, node.inputs), *outputs):
            if self.spec(name).dtype not in _NUMPY_TYPES:
                raise node.refusal(f"tensor {name!r} is {self.spec(name).dtype}, which is not read")
        first = self.spec(str(node.inputs[0])).dtype
        if node.op_type == "ReduceSum" and not np.issubdtype(first, np.integer):
            raise node.refusal(f"a sum of {first} depends on its order and cannot be run exactly")
        self.write(_operator(node.name, node.op_type, node.attributes, operands, outputs))

    def write_output(self, name: str) -> None:
        """See to it that a graph output is written, be it a constant."""
        self.materialise(name)
        if self.is_constant(name):
            constant = self.graph.constants[name]
            self._write_operator(name, "Identity", (constant,), constant.dtype)

    def _write_term(self, name: str, term: Term) -> None:
        if term.dtype != type_int32:
            self._write_operator(name, "Cast", (term.codes,), term.dtype, to=_ONNX_INT64)
            return
        layer = WeightedSum(
            name=name,
            inputs=(term.codes,),
            outputs=(name,),
            multipliers=(term.multiplier,),
            zero_points=(term.zero_point,),
        )
        self.write(layer, type_int32)

    def _write_real(self, name: str, real: Real) -> None:
        self.materialise(real.total)
        if real.multiplier is None:
            self._write_operator(name, "Cast", (real.total,), type_float32, to=_ONNX_FLOAT)
            return
        layer = Scale(name=name, inputs=(real.total,), outputs=(name,), multiplier=real.multiplier)
        self.write(layer, type_float32)

    def _write_operator(
        self,
        name: str,
        op_type: str,
        operands: tuple[str | NDArray[Any] | None, ...],
        dtype: np.dtype[Any],
        **attributes: int,
    ) -> None:
        self.write(_operator(name, op_type, attributes, operands, (name,)), dtype)


_LIST_TYPES = (np.dtype(np.int64), type_int32)
_NUMPY_TYPES = frozenset(ELEMENT_TYPES.values())
_ONNX_FLOAT = 1
_ONNX_INT64 = 7


def _operator(
    name: str,
    op_type: str,
    attributes: Mapping[str, Any],
    operands: Sequence[str | NDArray[Any] | None],
    outputs: tuple[str, ...],
) -> Operator:
    inputs = tuple(dict.fromkeys(operand for operand in operands if isinstance(operand, str)))
    return Operator(
        name=name,
        inputs=inputs,
        outputs=outputs,
        op_type=op_type,
        attributes=attributes,
        operands=tuple(operands),
        exact=op_type in EXACT_OPERATORS,
    )


def per_sample(constant: NDArray[Any], shape: tuple[int | None, ...] | None) -> NDArray[Any] | None:
    """A constant that broadcasts against a tensor of `shape`, reshaped to broadcast against one sample.

    Axes of length 1 in front go. None where it cannot be said without knowing the batch, or where the
    constant would enlarge the tensor.
    """
    if constant.size == 1 and (shape is None or constant.ndim <= len(shape)):
        return constant.reshape(())
    if shape is None or constant.ndim > len(shape):
        return None
    if constant.ndim == len(shape):
        if constant.shape[0] != 1:
            return None
        constant = constant[0]
    fits = (length in (1, of) for length, of in zip(constant.shape[::-1], shape[:0:-1], strict=False))
    return constant if all(fits) else None
