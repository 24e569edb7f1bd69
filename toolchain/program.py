"""The typed reading of an integer model: what runs, layer by layer, in the order it runs.

A `Program` is what the emulator, the differentiable twin, the analyses and the targets share. It holds no
ONNX: the reader (`toolchain.reader`) turns a model into it once, and everything downstream works on these
small frozen dataclasses. Tensors are named as in the model, so that any of them can be compared with the
same tensor of any other witness.

The arithmetic of every integer layer, in NumPy's terms (all integers exact, every float operation a single
IEEE float32 operation, rounding half to even):

    acc   = sum(w * (x - x_zero_point)) + bias                               int32
    f     = float32(acc) * multiplier                                        float32
    codes = rint(clip(f, low - zero_point, high - zero_point)) + zero_point  uint8 or int8

which is the arithmetic of onnxruntime's integer kernels, and of the `ai.onnx` operators QLinearConv and
MatMulInteger -> Add -> Cast -> Mul -> QuantizeLinear with a scale of 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

__all__ = [
    "AveragePool",
    "Concat",
    "Conv",
    "Dense",
    "Dequantise",
    "DynamicQuantise",
    "Layer",
    "MaxPool",
    "Operator",
    "Pad",
    "Program",
    "Quantise",
    "QuantisedAdd",
    "Requantisation",
    "Requantise",
    "Reshape",
    "Scale",
    "SpatialSum",
    "Split",
    "Table",
    "TensorSpec",
    "Transpose",
    "WeightedSum",
]

type_uint8 = np.dtype(np.uint8)


@dataclass(frozen=True)
class TensorSpec:
    """Name, element type and shape of one tensor. A dimension of `None` is free (the batch)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        dims = "?" if self.shape is None else ", ".join("N" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype}[{dims}]"


@dataclass(frozen=True, eq=False)
class Requantisation:
    """From an int32 accumulator to codes: one float32 product, clamped and rounded half to even.

    Attributes:
        multiplier: float32, `M`. Shaped to broadcast against one sample of the accumulator: `()` for a
            whole tensor, `(C, 1, 1)` per channel of a 2-D map, `(N,)` per column of a dense layer,
            `(1, H, W)` per position.
        zero_point: The code that stands for zero.
        dtype: uint8 or int8, the type of the codes.
    """

    multiplier: NDArray[np.float32]
    zero_point: int
    dtype: np.dtype[Any] = type_uint8

    @property
    def low(self) -> int:
        """The lowest code."""
        return int(np.iinfo(self.dtype).min)

    @property
    def high(self) -> int:
        """The highest code."""
        return int(np.iinfo(self.dtype).max)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """What every layer has: a name for reports, the tensors that it reads and the tensors that it writes."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def input(self) -> str:
        """The first (usually only) tensor read."""
        return self.inputs[0]

    @property
    def output(self) -> str:
        """The first (usually only) tensor written."""
        return self.outputs[0]


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Layer):
    """Integer convolution, 1-D or 2-D (QLinearConv, or ConvInteger when `requantisation` is None).

    Attributes:
        weight: Weight codes less their zero point, `(O, C / groups, kH, kW)` or `(O, C / groups, kL)`;
            int8, or int16 where a foreign zero point takes them out of int8.
        bias: int32 `(O,)`, or None.
        input_zero_point: Code of the input that stands for zero; also what padding holds.
        strides, dilations: One integer for each spatial axis.
        pads: ONNX order: the beginnings of all spatial axes, then their ends.
        groups: Number of groups.
        weight_scale: float32 `(O,)` or `()`, the step of the weight codes, where the model tells it (for
            reports; the arithmetic needs `requantisation` alone).
        requantisation: None when the int32 accumulator itself is the output.
    """

    weight: NDArray[np.integer[Any]]
    bias: NDArray[np.int32] | None
    input_zero_point: int
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int
    requantisation: Requantisation | None
    weight_scale: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Layer):
    """Integer matrix product `x @ weight` over the last axis of `x` (MatMulInteger, QLinearMatMul).

    Attributes:
        weight: Weight codes less their zero point, `(K, N)`; int8 or int16 as in `Conv`.
        bias: int32 `(N,)`, or None.
        input_zero_point: Code of the input that stands for zero.
        accumulator: Name under which the model knows the int32 accumulator (bias added), where it does and
            it is not itself the output.
        requantisation: None when the int32 accumulator itself is the output.
        weight_scale: float32 `(N,)` or `()`, where the model tells it.
    """

    weight: NDArray[np.integer[Any]]
    bias: NDArray[np.int32] | None
    input_zero_point: int
    requantisation: Requantisation | None
    accumulator: str | None = None
    weight_scale: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightedSum(Layer):
    """`sum_i multipliers[i] * (x_i - zero_points[i])` over one or two tensors of codes, in int32.

    The residual addition, and (with one input) the entry of a batch norm that stands alone. Its int32
    output may be requantised more than once.
    """

    multipliers: tuple[int, ...]
    zero_points: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpatialSum(Layer):
    """`sum over the spatial axes of (x - input_zero_point)`, int32, axes kept with length 1."""

    input_zero_point: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Requantise(Layer):
    """int32 `acc` (+ int32 `bias`, shaped to broadcast against one sample) -> codes."""

    bias: NDArray[np.int32] | None
    requantisation: Requantisation


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Layer):
    """int32 `acc` -> float32 `float32(acc) * multiplier`: how logits leave the integer world."""

    multiplier: NDArray[np.float32]


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantise(Layer):
    """float32 -> codes: `saturate(rint(x / scale) + zero_point)` (QuantizeLinear; it divides).

    `scale` and `zero_point` are shaped to broadcast against the whole input, batch axis included.
    """

    scale: NDArray[np.floating[Any]]
    zero_point: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dequantise(Layer):
    """Codes -> float32: `(x - zero_point) * scale` (DequantizeLinear); shapes as in `Quantise`."""

    scale: NDArray[np.floating[Any]]
    zero_point: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class DynamicQuantise(Layer):
    """float32 -> (uint8 codes, float32 scale, uint8 zero point) of the whole tensor (DynamicQuantizeLinear)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Layer):
    """Maximum over windows, on codes (or floats); padding holds the lowest value. Windows as in `Conv`."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePool(Layer):
    """Average over windows in float32, as onnxruntime's QLinearAveragePool computes it (models made by others).

        d = input_scale * float32(x - input_zero_point)
        f = (sum of d over the window, row by row, one float32 addition after another) / count
        y = saturate(rint(f / output_scale + output_zero_point))

    Attributes:
        count_include_pad: Whether `count` is the size of the window, or else the number of its positions
            that lie inside the map.
        dtype: uint8 or int8, of the codes on both sides.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool
    input_scale: np.float32
    input_zero_point: int
    output_scale: np.float32
    output_zero_point: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantisedAdd(Layer):
    """Sum of two tensors of codes in float32, as onnxruntime's QLinearAdd computes it (models made by others).

        m_i   = float32(scale_i / output_scale)
        fixed = output_zero_point - fma(m_0, z_0, m_1 * z_1)
        y     = saturate(rint(fma(x_0, m_0, fma(x_1, m_1, fixed))))

    where `fma(a, b, c)` is a * b + c rounded once: the arithmetic of x86 processors with AVX2. Two codes have
    65,536 pairs, and the table holds the result of each. (The additions that our compiler writes are
    `WeightedSum`, which needs no float.)

    Attributes:
        multipliers: float32 m_0 and m_1.
        zero_points: z_0 and z_1.
        table: `(256, 256)`, `y = table[x_0 - lowest, x_1 - lowest]`, of the codes' type.
    """

    multipliers: tuple[np.float32, np.float32]
    zero_points: tuple[int, int]
    output_zero_point: int
    table: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Table(Layer):
    """`y = table[x - lowest]` on codes: any element-wise function (LeakyReLU, Clip, a change of scale).

    Attributes:
        table: `(256,)`, uint8 or int8 as the codes on both sides are; `lowest` is the lowest code.
    """

    table: NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Layer):
    """Constant padding. `pads` in ONNX order over *all* axes, batch included; `value` is a code."""

    pads: tuple[int, ...]
    value: int | float


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Layer):
    """Concatenation of codes that share one scale and zero point."""

    axis: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Split(Layer):
    """Split along `axis` into pieces of `sizes`."""

    axis: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Reshape(Layer):
    """Reshape. `shape` as ONNX means it: 0 copies a dimension (unless `allow_zero`), -1 is inferred."""

    shape: tuple[int, ...]
    allow_zero: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Transpose(Layer):
    """Permutation of the axes, batch included."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Operator(Layer):
    """Any other `ai.onnx` operator that is run as it is: float tails (Softmax, ArgMax) and foreign glue.

    Attributes:
        op_type: The ONNX operator.
        attributes: Its attributes, as plain Python values and arrays.
        operands: Its inputs in order: a tensor's name, a constant, or None for an optional one left out.
        exact: Whether the result is defined to the bit (element-wise IEEE operations, shape operations) or
            only up to rounding (Softmax).
    """

    op_type: str
    attributes: Mapping[str, Any]
    operands: tuple[str | NDArray[Any] | None, ...]
    exact: bool = True


@dataclass(frozen=True, eq=False)
class Program:
    """An integer model as the tuple of its layers, in an order in which they can run.

    Attributes:
        inputs: The graph's inputs. An artifact has one: uint8 pixels `(N, C, H, W)` (or float32).
        outputs: The graph's outputs.
        layers: What runs.
        tensors: Element type and shape of every tensor that a layer reads or writes.
        logits: Name of the float32 logits, or None for a model that has none (a single operator, say).
        codes: Name of the integers behind the logits, where `Scale` or `Dequantise` makes the logits.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    layers: tuple[Layer, ...]
    tensors: Mapping[str, TensorSpec] = field(repr=False)
    logits: str | None = None
    codes: str | None = None

    @cached_property
    def batch(self) -> int | None:
        """The number of samples that the program takes at once, None where it is free or no one input tells.

        A model exported with a batch of 1 runs a larger batch one sample after another.
        """
        shape = self.inputs[0].shape if len(self.inputs) == 1 else None
        return shape[0] if shape else None

    @cached_property
    def producers(self) -> Mapping[str, Layer]:
        """The layer that writes each tensor."""
        return {name: layer for layer in self.layers for name in layer.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Layer, ...]]:
        """The layers that read each tensor."""
        readers: dict[str, list[Layer]] = {}
        for layer in self.layers:
            for name in layer.inputs:
                readers.setdefault(name, []).append(layer)
        return {name: tuple(found) for name, found in readers.items()}

    @cached_property
    def rounded(self) -> frozenset[str]:
        """Tensors that are defined only up to rounding: what `Operator`s such as Softmax write, and what follows."""
        names: set[str] = set()
        for layer in self.layers:
            inexact = isinstance(layer, Operator) and not layer.exact
            if inexact or not names.isdisjoint(layer.inputs):
                names.update(layer.outputs)
        return frozenset(names)

    def weighted_layers(self) -> Iterator[Conv | Dense]:
        """The layers that hold weights, in order."""
        for layer in self.layers:
            if isinstance(layer, Conv | Dense):
                yield layer

    def last_use(self) -> Mapping[str, int]:
        """For each tensor, the index of the last layer that reads it (outputs: one past the end)."""
        last = {name: i for i, layer in enumerate(self.layers) for name in layer.inputs}
        last.update({spec.name: len(self.layers) for spec in self.outputs})
        return last
