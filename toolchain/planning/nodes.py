"""What runs as one step: a layer, or a few that one kernel computes together.

Each kind of node says in which form its outputs come (`infer`: None where its kernel does not fit), what padding
it wants around its inputs (`padding`), and makes its kernel for given layouts (`make`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ...kernels.codes import MapCodes, flip_of
from ...kernels.conv_maps import ConvMaps, is_depthwise
from ...kernels.depthwise import Depthwise
from ...kernels.layout import MapLayout
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
    Places = Sequence[Place]

__all__ = [
    "ArrayNode",
    "ConvNode",
    "DenseNode",
    "FrameLike",
    "LogitsNode",
    "Node",
    "ReshapeNode",
    "map_codes_of",
    "pair_of",
    "spread",
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
    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:
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


def pair_of(values: tuple[int, ...], fill: int) -> tuple[int, int]:
    """Settings of one or two spatial axes for two."""
    return (fill, values[0]) if len(values) == 1 else (values[0], values[1])


def _kernel(layer: p.Conv) -> tuple[int, int]:
    """Height and width of a convolution's kernel."""
    return pair_of(layer.weight.shape[2:], 1)


def spread(values: NDArray[Any], form: Form) -> NDArray[Any]:
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


def map_codes_of(requantisation: p.Requantisation, form: Form) -> MapCodes:
    """The requantisation of a layer whose multiplier varies along the channels at most."""
    multiplier = spread(requantisation.multiplier, form)
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

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:
        """See `kernels.conv_maps` and `kernels.depthwise`."""
        layer = self.layer
        (source,), (target,) = inputs, outputs
        codes = None if self.requantisation is None else map_codes_of(self.requantisation, target.form)
        pads = spatial_pads(layer.pads)
        weight = layer.weight.reshape(*layer.weight.shape[:2], *_kernel(layer))
        settings: dict[str, Any] = {
            "strides": pair_of(layer.strides, 1),
            "begins": pair_of(tuple(begin for begin, _ in pads), 0),
            "dilations": pair_of(layer.dilations, 1),
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
                pair_of(layer.strides, 1),
                both,
                pair_of(layer.dilations, 1),
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

    def make(self, inputs: Places, outputs: Places, isa: InstructionSet) -> Kernel:
        """See `kernels.conv_maps`."""
        (source,), (target,) = inputs, outputs
        codes = None if self.requantisation is None else map_codes_of(self.requantisation, target.form)
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
