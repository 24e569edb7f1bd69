"""The nodes between products: pooling, sums, requantisation, tables, concatenation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...kernels.codes import flip_of
from ...kernels.map_pooling import MaxPoolMaps, SpatialSumMaps
from ...kernels.map_sums import AddMaps, MapRequantise, RequantiseSums, SumMaps
from ...kernels.maps import CopyMaps, PairTableMaps, TableMaps
from ...kernels.windows import output_length, spatial_pads
from .forms import Form
from .nodes import Node, map_codes_of, pair_of, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ...kernels.isa.base import InstructionSet
    from .. import program as p
    from .forms import Place
    from .nodes import Forms, FrameLike, Kernel, Places, Views

__all__ = [
    "AddNode",
    "ConcatNode",
    "MaxPoolNode",
    "PairTableNode",
    "RequantiseNode",
    "SpatialSumNode",
    "SumNode",
    "TableNode",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPoolNode(Node):
    """Maximum over windows of codes."""

    kind: ClassVar[str] = "pooling"
    layer: p.MaxPool

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """As many windows as fit."""
        (form,) = inputs
        if form is None or form.sums:
            return None
        layer = self.layer
        pads = spatial_pads(layer.pads)
        settings = zip(
            (form.height, form.width),
            pair_of(layer.kernel, 1),
            pair_of(layer.strides, 1),
            ((0, 0), pads[0]) if len(pads) == 1 else pads,
            pair_of(layer.dilations, 1),
            strict=True,
        )
        counts = [output_length(*setting, ceil_mode=layer.ceil_mode) for setting in settings]
        return (replace(form, height=counts[0], width=counts[1]),)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        layer = self.layer
        pool = MaxPoolMaps(
            pair_of(layer.kernel, 1),
            pair_of(layer.strides, 1),
            pair_of(tuple(begin for begin, _ in spatial_pads(layer.pads)), 0),
            pair_of(layer.dilations, 1),
            inputs[0].layout,
            outputs[0].layout,
        )
        return lambda xs, outs, images, _: pool(xs[0], outs[0], images)


def _same_size(inputs: Forms) -> Form | None:
    """The one form of all inputs, if they are codes and of one size."""
    forms = [form for form in inputs if form is not None and not form.sums]
    sizes = {form.size for form in forms}
    return forms[0] if len(forms) == len(inputs) and len(sizes) == 1 else None


def _unsigned_zero_points(layer: p.WeightedSum, inputs: Sequence[Place]) -> tuple[int, ...]:
    return tuple(z + place.form.flip for z, place in zip(layer.zero_points, inputs, strict=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class AddNode(Node):
    """A residual addition with the requantisations of its sum, in one pass."""

    kind: ClassVar[str] = "addition"
    layer: p.WeightedSum
    results: tuple[p.Requantise, ...]

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """Codes of the size of the inputs."""
        form = _same_size(inputs)
        if form is None or any(not self._by_channel(result, form) for result in self.results):
            return None
        return tuple(replace(form, flip=flip_of(result.requantisation.dtype)) for result in self.results)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        results = []
        for result, place in zip(self.results, outputs, strict=True):
            codes = map_codes_of(result.requantisation, place.form)
            bias = np.zeros((), np.int32) if result.bias is None else result.bias
            results.append(
                MapRequantise(spread(bias, place.form), codes.multiplier, codes.zero_point, place.layout)
            )
        add = AddMaps(
            self.layer.multipliers,
            _unsigned_zero_points(self.layer, inputs),
            tuple(place.layout for place in inputs),
            tuple(results),
        )
        return lambda xs, outs, images, _: add(*xs, *outs, images)

    def _by_channel(self, result: p.Requantise, form: Form) -> bool:
        parameters = (result.requantisation.multiplier, result.bias)
        return all(value is None or spread(value, form).ndim == 1 for value in parameters)


@dataclass(frozen=True, eq=False, kw_only=True)
class SumNode(Node):
    """A weighted sum whose int32 values themselves are wanted."""

    kind: ClassVar[str] = "addition"
    layer: p.WeightedSum

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """Sums of the size of the inputs."""
        form = _same_size(inputs)
        return None if form is None else (replace(form, flip=0, sums=True),)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        zero_points = _unsigned_zero_points(self.layer, inputs)
        add = SumMaps(self.layer.multipliers, zero_points, tuple(place.layout for place in inputs))
        return lambda xs, outs, images, _: add(*xs, outs[0], images)


@dataclass(frozen=True, eq=False, kw_only=True)
class RequantiseNode(Node):
    """int32 sums to codes."""

    kind: ClassVar[str] = "requantisation"
    bias: NDArray[np.int32] | None
    requantisation: p.Requantisation

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """Codes of the size of the sums."""
        (form,) = inputs
        if form is None or not form.sums:
            return None
        return (replace(form, flip=flip_of(self.requantisation.dtype), sums=False),)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        form = inputs[0].form
        bias = np.zeros((), np.int32) if self.bias is None else self.bias
        requantise = RequantiseSums(
            form.channels,
            form.positions,
            spread(bias, form),
            spread(self.requantisation.multiplier, form),
            self.requantisation.zero_point + flip_of(self.requantisation.dtype),
            outputs[0].layout,
        )
        return lambda xs, outs, images, _: requantise(xs[0], outs[0], images)


@dataclass(frozen=True, eq=False, kw_only=True)
class SpatialSumNode(Node):
    """The sum over all pixels."""

    kind: ClassVar[str] = "spatial sum"
    layer: p.SpatialSum

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """Sums of one pixel."""
        (form,) = inputs
        return None if form is None or form.sums else (Form(form.channels, sums=True),)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        zero_point = self.layer.input_zero_point + inputs[0].form.flip
        add = SpatialSumMaps(zero_point, inputs[0].layout)
        return lambda xs, outs, images, _: add(xs[0], outs[0], images)


@dataclass(frozen=True, eq=False, kw_only=True)
class TableNode(Node):
    """A table of 256 codes."""

    kind: ClassVar[str] = "table"
    layer: p.Table

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """The same form."""
        (form,) = inputs
        return None if form is None or form.sums else (form,)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        table = _unsigned_table(self.layer.table)
        look_up = TableMaps(table, inputs[0].layout, outputs[0].layout)
        return lambda xs, outs, images, _: look_up(xs[0], outs[0], images)


@dataclass(frozen=True, eq=False, kw_only=True)
class PairTableNode(Node):
    """A table over two tensors of codes."""

    kind: ClassVar[str] = "table"
    layer: p.QuantisedAdd

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """The form of both."""
        form = _same_size(inputs)
        return None if form is None or len(set(inputs)) != 1 else (form,)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        table = _unsigned_table(self.layer.table)
        look_up = PairTableMaps(table, (inputs[0].layout, inputs[1].layout), outputs[0].layout)
        return lambda xs, outs, images, _: look_up(xs[0], xs[1], outs[0], images)


def _unsigned_table(table: NDArray[Any]) -> NDArray[np.uint8]:
    """A table's codes as unsigned ones; its index, the code less the lowest, is unsigned already."""
    unsigned: NDArray[np.uint8] = np.ascontiguousarray(table).view(np.uint8) ^ np.uint8(flip_of(table.dtype))
    return unsigned


@dataclass(frozen=True, eq=False, kw_only=True)
class ConcatNode(Node):
    """Channels of several maps side by side."""

    kind: ClassVar[str] = "concatenation"
    layer: p.Concat

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """All channels."""
        forms = [form for form in inputs if form is not None and not form.sums]
        same = {(form.height, form.width, form.flip) for form in forms}
        if self.layer.axis != 1 or len(forms) != len(inputs) or len(same) != 1:
            return None
        return (replace(forms[0], channels=sum(form.channels for form in forms)),)

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:  # noqa: ARG002
        """See `kernels.maps`."""
        copies, first = [], 0
        for place in inputs:
            copies.append(CopyMaps(place.layout, outputs[0].layout, first))
            first += place.form.channels

        def run(xs: Views, outs: Views, images: int, _: FrameLike) -> None:
            for copy, x in zip(copies, xs, strict=True):
                copy(x, outs[0], images)

        return run
