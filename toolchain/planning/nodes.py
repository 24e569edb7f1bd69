"""What runs as one step: a layer, or a few that one kernel computes together.

Each kind of node says in which form its outputs come (`infer`: None where its kernel does not fit), what padding
it wants around its inputs (`padding`), and makes its kernel for given layouts (`make`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ...kernels.codes import MapCodes, flip_of
from ...kernels.conv_maps import ConvMaps, is_depthwise
from ...kernels.depthwise import Depthwise
from ...kernels.layout import MapLayout
from ...kernels.map_pooling import MaxPoolMaps, SpatialSumMaps
from ...kernels.map_sums import AddMaps, MapRequantise, RequantiseSums, SumMaps
from ...kernels.maps import CopyMaps, PairTableMaps, TableMaps
from ...kernels.windows import output_length, spatial_pads
from .forms import Form, Padding, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ...kernels.isa.base import InstructionSet
    from .. import program as p

    Views = Sequence[NDArray[Any]]
    Kernel = Callable[[Views, Views, int, "FrameLike"], None]
    Forms = Sequence[Form | None]

__all__ = [
    "AddNode",
    "ArrayNode",
    "ConcatNode",
    "ConvNode",
    "DenseNode",
    "FrameLike",
    "LogitsNode",
    "MaxPoolNode",
    "Node",
    "PairTableNode",
    "RequantiseNode",
    "ReshapeNode",
    "SpatialSumNode",
    "SumNode",
    "TableNode",
]


class FrameLike(Protocol):
    """What a kernel may need to know of where it runs.

    Attributes:
        scratch: int32, aligned to 64 bytes, of the instruction set's size.
        first: Global index of the first image.
    """

    scratch: NDArray[np.int32]
    first: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Node(ABC):
    """A step of the plan.

    Attributes:
        name: The layer's, for reports and errors.
        inputs, outputs: Tensors read and written.
        kind: What the step does, in a word or two, for reports.
        packs: Whether it is worth bringing an input that is an array into the layout of the kernels.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kind: ClassVar[str]
    packs: ClassVar[bool] = False

    @abstractmethod
    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """The forms of the outputs; None if these inputs do not fit the kernel."""

    def padding(self, inputs: Sequence[Form]) -> tuple[Padding | None, ...]:
        """What padding each input needs; None for any."""
        return (None,) * len(inputs)

    @abstractmethod
    def make(self, inputs: Sequence[Place], outputs: Sequence[Place], isa: InstructionSet) -> Kernel:
        """The kernel for these layouts: it takes the views of its inputs and outputs, images and the frame."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ArrayNode(Node):
    """A layer that runs on arrays, outside the planned memory (see `toolchain.execution`)."""

    kind: ClassVar[str] = "arrays"
    layer: p.Layer

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:  # noqa: ARG002
        """Never in a form."""
        return None

    def make(self, inputs: Any, outputs: Any, isa: Any) -> Kernel:
        """Not a kernel."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, kw_only=True)
class ReshapeNode(Node):
    """A reshape that moves nothing: a flattened map, or the map of one."""

    kind: ClassVar[str] = "reshape"
    layer: p.Reshape
    result: Form

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """The same map under another name."""
        (form,) = inputs
        if form is None or form.features != self.result.features or form.sums:
            return None
        flat = self.result.positions == 1
        return (form,) if flat or self.result.size == form.size else None

    def make(self, inputs: Any, outputs: Any, isa: Any) -> Kernel:
        """Not a kernel: both names are one tensor."""
        raise NotImplementedError


def _pair(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    """Settings of one or two spatial axes for two."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def _kernel(layer: p.Conv) -> tuple[int, int]:
    """Height and width of a convolution's kernel."""
    return _pair(layer.weight.shape[2:], 1)


def _spread(values: NDArray[Any], form: Form) -> NDArray[Any]:
    """Values that broadcast against one sample, as `(channels,)` or else `(positions, channels)`."""
    if values.size == 1:
        return np.ascontiguousarray(np.broadcast_to(values.reshape(-1), (form.channels,)))
    if values.ndim == 1:
        return np.ascontiguousarray(values)
    axes = (1,) * (3 - values.ndim)
    shaped = values.reshape(values.shape[0], *axes, *values.shape[1:])
    full = np.broadcast_to(shaped, form.size)
    if shaped.shape[1:] == (1, 1):
        return np.ascontiguousarray(full[:, 0, 0])
    return np.ascontiguousarray(full.reshape(form.channels, -1).T)


def _codes(requantisation: p.Requantisation, form: Form) -> MapCodes:
    """The requantisation of a layer whose multiplier varies along the channels at most."""
    multiplier = _spread(requantisation.multiplier, form)
    return MapCodes(multiplier, requantisation.zero_point + flip_of(requantisation.dtype))


@dataclass(frozen=True, eq=False, kw_only=True)
class ConvNode(Node):
    """A convolution, and the maximum over windows that follows it where `pool` is not (1, 1)."""

    layer: p.Conv
    requantisation: p.Requantisation | None
    pool: tuple[int, int] = (1, 1)
    packs: ClassVar[bool] = True

    @property
    def depthwise(self) -> bool:
        """Whether every channel is convolved by itself."""
        return is_depthwise(self.layer.weight, self.layer.groups)

    @property
    def kind(self) -> str:  # type: ignore[override]
        """A depthwise convolution is no matrix product."""
        return "depthwise convolution" if self.depthwise else "matrix product"

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """The windows that fit, less what the pooling leaves out."""
        (form,) = inputs
        layer = self.layer
        if form is None or form.sums or form.channels != layer.weight.shape[1] * layer.groups:
            return None
        height, width = (
            output_length(*setting) // window
            for setting, window in zip(self.windows(form), self.pool, strict=True)
        )
        flip = 0 if self.requantisation is None else flip_of(self.requantisation.dtype)
        return (Form(layer.weight.shape[0], height, width, flip, self.requantisation is None),)

    def padding(self, inputs: Sequence[Form]) -> tuple[Padding | None, ...]:
        """The convolution's; at the end no more than the windows reach."""
        (form,) = inputs
        layer = self.layer
        begins, ends = [], []
        for length, taps, stride, (begin, end), dilation in self.windows(form):
            count = output_length(length, taps, stride, (begin, end), dilation)
            reach = (count - 1) * stride - begin + (taps - 1) * dilation
            begins.append(begin)
            ends.append(max(0, reach - length + 1))
        return (Padding(begins[0], begins[1], ends[0], ends[1], layer.input_zero_point + form.flip),)

    def make(self, inputs: Sequence[Place], outputs: Sequence[Place], isa: InstructionSet) -> Kernel:
        """See `kernels.conv_maps` and `kernels.depthwise`."""
        layer = self.layer
        (source,), (target,) = inputs, outputs
        codes = None if self.requantisation is None else _codes(self.requantisation, target.form)
        pads = spatial_pads(layer.pads)
        weight = layer.weight.reshape(*layer.weight.shape[:2], *_kernel(layer))
        settings: dict[str, Any] = {
            "strides": _pair(layer.strides, 1),
            "begins": _pair(tuple(begin for begin, _ in pads), 0),
            "dilations": _pair(layer.dilations, 1),
            "zero_point": layer.input_zero_point + source.form.flip,
            "codes": codes,
            "input": source.layout,
            "output": target.layout,
        }
        if self.depthwise:
            separate = Depthwise(weight[:, 0], layer.bias, **settings)
            return lambda xs, outs, images, _: separate(xs[0], outs[0], images)
        product = ConvMaps(weight, layer.bias, groups=layer.groups, pool=self.pool, isa=isa, **settings)
        return lambda xs, outs, images, frame: product(xs[0], outs[0], images, frame.scratch)

    def windows(self, form: Form) -> list[tuple[int, int, int, tuple[int, int], int]]:
        """Length, taps, stride, pads and dilation of both axes."""
        layer = self.layer
        pads = spatial_pads(layer.pads)
        both = ((0, 0), pads[0]) if len(pads) == 1 else (pads[0], pads[1])
        return list(
            zip(
                (form.height, form.width),
                _kernel(layer),
                _pair(layer.strides, 1),
                both,
                _pair(layer.dilations, 1),
                strict=True,
            )
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseNode(Node):
    """A dense layer on a vector, or on a flattened map: the convolution whose kernel covers the map."""

    kind: ClassVar[str] = "matrix product"
    layer: p.Dense
    requantisation: p.Requantisation | None
    packs: ClassVar[bool] = True

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """A vector."""
        (form,) = inputs
        if form is None or form.sums or form.features != self.layer.weight.shape[0]:
            return None
        flip = 0 if self.requantisation is None else flip_of(self.requantisation.dtype)
        return (Form(self.layer.weight.shape[1], 1, 1, flip, self.requantisation is None),)

    def make(self, inputs: Sequence[Place], outputs: Sequence[Place], isa: InstructionSet) -> Kernel:
        """See `kernels.conv_maps`."""
        (source,), (target,) = inputs, outputs
        codes = None if self.requantisation is None else _codes(self.requantisation, target.form)
        product = self.product(source, target.layout, isa, codes=codes)
        return lambda xs, outs, images, frame: product(xs[0], outs[0], images, frame.scratch)

    def product(self, source: Place, target: MapLayout, isa: InstructionSet, **settings: Any) -> ConvMaps:
        """The layer as a convolution."""
        return ConvMaps(
            self.layer.weight.T.reshape(-1, *source.form.size),
            self.layer.bias,
            zero_point=self.layer.input_zero_point + source.form.flip,
            input=source.layout,
            output=target,
            isa=isa,
            **settings,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class LogitsNode(DenseNode):
    """A dense layer whose sums leave as float32, times one number for each column: an array, in no form."""

    scale: NDArray[np.float32]

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """Nothing that lies in planned memory."""
        return () if super().infer(inputs) else None

    def scaled(self, source: Place, isa: InstructionSet) -> ConvMaps:
        """The product, for a float32 array `(N, columns)`."""
        columns = self.layer.weight.shape[1]
        scale = np.broadcast_to(self.scale.reshape(-1), (columns,))
        return self.product(source, MapLayout(columns), isa, codes=None, scale=np.ascontiguousarray(scale))


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
            _pair(layer.kernel, 1),
            _pair(layer.strides, 1),
            ((0, 0), pads[0]) if len(pads) == 1 else pads,
            _pair(layer.dilations, 1),
            strict=True,
        )
        counts = [output_length(*setting, ceil_mode=layer.ceil_mode) for setting in settings]
        return (replace(form, height=counts[0], width=counts[1]),)

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
        """See `kernels.maps`."""
        layer = self.layer
        pool = MaxPoolMaps(
            _pair(layer.kernel, 1),
            _pair(layer.strides, 1),
            _pair(tuple(begin for begin, _ in spatial_pads(layer.pads)), 0),
            _pair(layer.dilations, 1),
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

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
        """See `kernels.maps`."""
        results = []
        for result, place in zip(self.results, outputs, strict=True):
            codes = _codes(result.requantisation, place.form)
            bias = np.zeros((), np.int32) if result.bias is None else result.bias
            results.append(
                MapRequantise(_spread(bias, place.form), codes.multiplier, codes.zero_point, place.layout)
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
        return all(value is None or _spread(value, form).ndim == 1 for value in parameters)


@dataclass(frozen=True, eq=False, kw_only=True)
class SumNode(Node):
    """A weighted sum whose int32 values themselves are wanted."""

    kind: ClassVar[str] = "addition"
    layer: p.WeightedSum

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """Sums of the size of the inputs."""
        form = _same_size(inputs)
        return None if form is None else (replace(form, flip=0, sums=True),)

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],  # noqa: ARG002
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
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

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
        """See `kernels.maps`."""
        form = inputs[0].form
        bias = np.zeros((), np.int32) if self.bias is None else self.bias
        requantise = RequantiseSums(
            form.channels,
            form.positions,
            _spread(bias, form),
            _spread(self.requantisation.multiplier, form),
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

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],  # noqa: ARG002
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
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

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
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

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
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

    def make(
        self,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
        isa: InstructionSet,  # noqa: ARG002
    ) -> Kernel:
        """See `kernels.maps`."""
        copies, first = [], 0
        for place in inputs:
            copies.append(CopyMaps(place.layout, outputs[0].layout, first))
            first += place.form.channels

        def run(xs: Views, outs: Views, images: int, _: FrameLike) -> None:
            for copy, x in zip(copies, xs, strict=True):
                copy(x, outs[0], images)

        return run
