"""From a program to the stages of its twin, with the range of every tensor of integers on the way.

The ranges decide which float holds a layer's sums (`toolchain.twin_layers`), and whether any sum can leave
int32, which no witness of the program could follow.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import RangeError, UnsupportedError
from .program import (
    AveragePool,
    Concat,
    Conv,
    Dense,
    Dequantise,
    Layer,
    MaxPool,
    Operator,
    Pad,
    Program,
    Quantise,
    QuantisedAdd,
    Requantise,
    Reshape,
    Scale,
    SpatialSum,
    Split,
    Table,
    Transpose,
    WeightedSum,
)
from .twin_foreign import AveragePoolStage, QuantisedAddStage
from .twin_layers import (
    AddConstantStage,
    ConvStage,
    DenseStage,
    PlainStage,
    QuantiseStage,
    Range,
    RequantiseStage,
    ScaleStage,
    Stage,
    TableStage,
    Weighted,
    concat,
    farthest,
    max_pool_codes,
    pad_codes,
    reshape,
    spatial_sum,
    split,
    sum_dtype,
    weighted_sum,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


__all__ = ["build_stages"]

INT32_HIGH = 2**31 - 1


def _symmetric(layer: Layer, bound: int) -> Range:
    if bound > INT32_HIGH:
        raise RangeError(
            f"{layer.name}: its accumulator can reach {bound}, past the int32 that the hardware holds "
            f"({INT32_HIGH}); use fewer weight bits or a smaller layer"
        )
    return -bound, bound


class _Builder:
    """Builds stages in order and keeps, for every tensor of integers, the range that it can take."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.ranges: dict[str, Range] = {}

    def range_of(self, name: str) -> Range:
        """The range of an integer tensor: as computed, or else all that its type holds."""
        if name not in self.ranges:
            limits = np.iinfo(self.program.tensors[name].dtype)
            self.ranges[name] = (int(limits.min), int(limits.max))
        return self.ranges[name]

    def is_integer(self, name: str) -> bool:
        return bool(np.issubdtype(self.program.tensors[name].dtype, np.integer))

    def passed_on(self, layer: Layer, *, also: int | None = None) -> None:
        """Give the outputs the hull of the inputs' ranges (and of one more value)."""
        if self.is_integer(layer.input):
            found = [self.range_of(name) for name in layer.inputs]
            found += [] if also is None else [(also, also)]
            hull = min(low for low, _ in found), max(high for _, high in found)
            self.ranges.update(dict.fromkeys(layer.outputs, hull))

    def spatial_axes(self, layer: Conv | MaxPool, axes: int) -> None:
        if axes not in (1, 2):
            raise UnsupportedError(f"{layer.name}: {axes} spatial axes; the twin runs layers of 1 or 2")

    def conv(self, layer: Conv) -> Stage:
        self.spatial_axes(layer, len(layer.strides))
        return self.weighted(layer, ConvStage(layer, self.range_of(layer.input)))

    def dense(self, layer: Dense) -> Stage:
        return self.weighted(layer, DenseStage(layer, self.range_of(layer.input)))

    def weighted(self, layer: Conv | Dense, stage: Weighted) -> Stage:
        reach = _symmetric(layer, stage.bound)
        if layer.requantisation is None:
            self.ranges[layer.output] = reach
        return stage

    def weighted_sum(self, layer: WeightedSum) -> Stage:
        terms = zip(layer.inputs, layer.multipliers, layer.zero_points, strict=True)
        bound = sum(abs(m) * farthest(self.range_of(name), z) for name, m, z in terms)
        self.ranges[layer.output] = _symmetric(layer, bound)
        return PlainStage(layer, partial(weighted_sum, layer=layer, dtype=sum_dtype(bound)))

    def spatial_sum(self, layer: SpatialSum) -> Stage:
        shape = self.program.tensors[layer.input].shape
        bound = INT32_HIGH
        if shape is not None and None not in shape[2:]:
            positions = int(np.prod([d for d in shape[2:] if d is not None], dtype=np.int64))
            bound = positions * farthest(self.range_of(layer.input), layer.input_zero_point)
        self.ranges[layer.output] = _symmetric(layer, bound)
        return PlainStage(layer, partial(spatial_sum, layer=layer, dtype=sum_dtype(bound)))

    def operator(self, layer: Operator) -> Stage:
        """An int32 constant added to integers, as a batch norm before the logits leaves it; nothing else."""
        constants = [np.asarray(o) for o in layer.operands if isinstance(o, np.ndarray)]
        integers = len(layer.inputs) == 1 and self.program.tensors[layer.input].dtype == np.int32
        if layer.op_type != "Add" or len(constants) != 1 or not integers or constants[0].dtype != np.int32:
            raise _no_counterpart(layer)
        bound = farthest(self.range_of(layer.input), 0) + int(
            np.abs(constants[0].astype(np.int64)).max(initial=0)
        )
        self.ranges[layer.output] = _symmetric(layer, bound)
        return AddConstantStage(layer, constants[0], bound)

    def requantise(self, layer: Requantise) -> Stage:
        bound = farthest(self.range_of(layer.input), 0)
        if layer.bias is not None:
            bound += int(np.abs(layer.bias.astype(np.int64)).max(initial=0))
        _symmetric(layer, bound)
        return RequantiseStage(layer, bound)

    def scale(self, layer: Scale) -> Stage:
        return ScaleStage(
            layer, layer.multiplier, np.zeros((), np.int64), farthest(self.range_of(layer.input), 0)
        )

    def dequantise(self, layer: Dequantise) -> Stage:
        self.float32_scale(layer)
        zero_point = layer.zero_point.astype(np.int64)
        bound = farthest(self.range_of(layer.input), 0) + int(np.abs(zero_point).max(initial=0))
        return ScaleStage(layer, layer.scale, zero_point, bound)

    def quantise(self, layer: Quantise) -> Stage:
        self.float32_scale(layer)
        return QuantiseStage(layer, self.range_of(layer.output))

    def float32_scale(self, layer: Quantise | Dequantise) -> None:
        if layer.scale.dtype != np.float32:
            raise UnsupportedError(
                f"{layer.name}: a scale of {layer.scale.dtype}; the twin computes in float32"
            )

    def table(self, layer: Table) -> Stage:
        found, expected = self.program.tensors[layer.input].dtype, layer.table.dtype
        if found != expected:
            raise UnsupportedError(f"{layer.name}: a table of {expected} over {found}; expected one type")
        return TableStage(layer)

    def average_pool(self, layer: AveragePool) -> Stage:
        return AveragePoolStage(layer)

    def quantised_add(self, layer: QuantisedAdd) -> Stage:
        return QuantisedAddStage(layer)

    def max_pool(self, layer: MaxPool) -> Stage:
        self.spatial_axes(layer, len(layer.kernel))
        dtype = self.program.tensors[layer.input].dtype
        lowest = float(np.iinfo(dtype).min) if self.is_integer(layer.input) else -float("inf")
        return PlainStage(layer, partial(max_pool_codes, layer=layer, lowest=lowest))

    def pad(self, layer: Pad) -> Stage:
        self.passed_on(layer, also=int(layer.value) if self.is_integer(layer.input) else None)
        return PlainStage(layer, partial(pad_codes, layer=layer))

    def concat(self, layer: Concat) -> Stage:
        self.passed_on(layer)
        return PlainStage(layer, partial(concat, axis=layer.axis))

    def split(self, layer: Split) -> Stage:
        self.passed_on(layer)
        return PlainStage(layer, partial(split, layer=layer))

    def reshape(self, layer: Reshape) -> Stage:
        self.passed_on(layer)
        return PlainStage(layer, partial(reshape, layer=layer))

    def transpose(self, layer: Transpose) -> Stage:
        self.passed_on(layer)
        return PlainStage(layer, partial(torch.permute, dims=layer.permutation))


_BUILDERS: Mapping[type[Layer], Callable[[_Builder, Any], Stage]] = {
    Conv: _Builder.conv,
    Dense: _Builder.dense,
    WeightedSum: _Builder.weighted_sum,
    SpatialSum: _Builder.spatial_sum,
    Operator: _Builder.operator,
    Requantise: _Builder.requantise,
    Scale: _Builder.scale,
    Quantise: _Builder.quantise,
    Dequantise: _Builder.dequantise,
    MaxPool: _Builder.max_pool,
    AveragePool: _Builder.average_pool,
    QuantisedAdd: _Builder.quantised_add,
    Table: _Builder.table,
    Pad: _Builder.pad,
    Concat: _Builder.concat,
    Split: _Builder.split,
    Reshape: _Builder.reshape,
    Transpose: _Builder.transpose,
}


def _no_counterpart(layer: Layer) -> UnsupportedError:
    what = getattr(layer, "op_type", type(layer).__name__)
    return UnsupportedError(
        f"{layer.name} ({what}): the logits depend on it and it has no exact differentiable "
        f"counterpart; the twin runs {', '.join(sorted(kind.__name__ for kind in _BUILDERS))}"
    )


def build_stages(program: Program, layers: Sequence[Layer]) -> Iterator[Stage]:
    """Yield one stage for each of the `layers` of a program, which must be in the program's order.

    Raises:
        UnsupportedError: A layer has no differentiable counterpart.
        RangeError: An accumulator can pass 2^31 - 1.
    """
    builder = _Builder(program)
    for layer in layers:
        build = _BUILDERS.get(type(layer))
        if build is None:
            raise _no_counterpart(layer)
        yield build(builder, layer)
