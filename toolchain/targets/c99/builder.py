"""From a program to steps: which tensors are kept where, and what is computed without being kept.

An int32 accumulator whose readers only requantise it is never stored: each of its elements is turned into codes as
soon as it is there. A trace build hands it out all the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ....errors import UnsupportedError
from ...analysis.ranges import INT32_LIMIT, accumulator_ranges
from ...program import Layer, Program, Requantisation, Requantise, Reshape, Transpose
from .steps import Buffer, Copy, Place, Sink, Spread, Step
from .views import View, channels_last, loops, row_major

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .steps import Home, Kind

__all__ = ["Builder", "Results", "refuse", "spread"]

_KINDS: dict[np.dtype[Any], Kind] = {
    np.dtype(np.uint8): "codes",
    np.dtype(np.int8): "codes",
    np.dtype(np.int32): "words",
}


def refuse(layer: Layer, reason: str) -> UnsupportedError:
    """The error of a layer that has no C form."""
    return UnsupportedError(f"layer {layer.name!r} ({type(layer).__name__}) cannot be built as C: {reason}")


@dataclass(frozen=True, eq=False)
class Results:
    """The elements that a step computes in order: `places` times `channels`, and where the sample's lie in it."""

    index: NDArray[np.int64]
    places: int
    channels: int


def spread(values: NDArray[Any], results: Results) -> Spread:
    """Values that broadcast against one sample, by place and channel, without repeats where they repeat."""
    stored = np.empty(results.index.size, values.dtype)
    stored[results.index.reshape(-1)] = np.broadcast_to(values, results.index.shape).reshape(-1)
    table = stored.reshape(results.places, results.channels)
    by_channel = bool((table != table[:, :1]).any())
    by_place = bool((table != table[:1]).any())
    if by_channel and by_place:
        return Spread(stored, 1, results.channels)
    if by_channel:
        return Spread(table[0], 1, 0)
    if by_place:
        return Spread(table[:, 0], 0, 1)
    return Spread(table[0, :1], 0, 0)


@dataclass(eq=False)
class Builder:
    """Steps under construction.

    Attributes:
        program: What is built.
        plain: Whether weights get a byte each, whatever their width.
        buffers: All buffers; their numbers are places in this list.
        steps: The steps so far.
        views: Where each tensor lies.
        wide: Whether a partial sum may pass int32.
    """

    program: Program
    plain: bool
    buffers: list[Buffer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    wide: bool = False
    _done: set[int] = field(default_factory=set)
    _copies: dict[tuple[str, bool], View] = field(default_factory=dict)

    @cached_property
    def needed(self) -> tuple[Layer, ...]:
        """The layers that lead to the logits, in order: a Softmax behind them is left out."""
        wanted = {self.program.logits}
        found = []
        for layer in reversed(self.program.layers):
            if not wanted.isdisjoint(layer.outputs):
                wanted.update(layer.inputs)
                found.append(layer)
        return tuple(reversed(found))

    @cached_property
    def _bounds(self) -> dict[str, int]:
        return {entry.layer: entry.bound for entry in accumulator_ranges(self.program)}

    def check_range(self, layer: Layer) -> None:
        """Refuse an accumulator that is not proved to fit int32."""
        bound = self._bounds.get(layer.name, 0)
        if bound > INT32_LIMIT:
            raise refuse(layer, f"its accumulator can reach {bound}, beyond int32")

    def sample_shape(self, layer: Layer, name: str) -> tuple[int, ...]:
        """The shape of a tensor without its batch."""
        spec = self.program.tensors.get(name)
        if spec is None or not spec.shape or any(size is None for size in spec.shape[1:]):
            raise refuse(layer, f"the shape of {name!r} is not fixed, expected (N, ...) with N alone free")
        if spec.shape[0] not in (None, 1):
            raise refuse(layer, f"{name!r} is of {spec.shape[0]} samples, expected a free batch or one of 1")
        return tuple(int(size or 0) for size in spec.shape[1:])

    def is_signed(self, name: str) -> bool:
        """Whether a tensor's codes are int8, and so stored with 128 added."""
        return self.program.tensors[name].dtype == np.int8

    def stored_zero(self, name: str, zero_point: int) -> int:
        """A zero point as the stored codes have it."""
        return zero_point + (128 if self.is_signed(name) else 0)

    def new_buffer(self, kind: Kind, size: int, home: Home = "arena") -> int:
        """A new buffer's number."""
        self.buffers.append(Buffer(kind, size, home))
        return len(self.buffers) - 1

    def new_tensor(self, layer: Layer, name: str, index: NDArray[np.int64] | None = None) -> View:
        """A tensor in a buffer of its own: maps with their channels last, unless `index` says how it lies."""
        spec = self.program.tensors.get(name)
        kind = _KINDS.get(spec.dtype) if spec is not None else None
        if spec is None or kind is None:
            raise refuse(
                layer, f"{name!r} holds {spec.dtype if spec else 'no known type'}, not codes or int32"
            )
        index = channels_last(self.sample_shape(layer, name)) if index is None else index
        view = View(self.new_buffer(kind, index.size), index)
        self.views[name] = view
        return view

    def kind_of(self, name: str) -> Kind:
        """Codes or words."""
        return self.buffers[self.views[name].buffer].kind

    def codes(self, layer: Layer, names: Sequence[str]) -> None:
        """Refuse inputs that are not codes."""
        for name in names:
            if self.kind_of(name) != "codes":
                raise refuse(layer, f"its input {name!r} holds {self.program.tensors[name].dtype}, not codes")

    def as_map(self, layer: Layer, name: str) -> View:
        """The tensor with its channels last, copied if it does not lie so."""
        shape = self.views[name].shape
        return self._lying(layer, name, channels_last(shape), last=True)

    def as_rows(self, layer: Layer, name: str) -> View:
        """The tensor in the order of its axes, copied if it does not lie so."""
        return self._lying(layer, name, row_major(self.views[name].shape), last=False)

    def _lying(self, layer: Layer, name: str, index: NDArray[np.int64], *, last: bool) -> View:
        view = self.views[name]
        if view.lies_as(index):
            return view
        if (name, last) not in self._copies:
            source = self.buffers[view.buffer]
            copy = View(self.new_buffer(source.kind, index.size), index)
            self.copy(layer, view.index, view.buffer, copy.index, copy.buffer)
            self._copies[name, last] = copy
        return self._copies[name, last]

    def copy(
        self,
        layer: Layer,
        source: NDArray[np.int64],
        source_buffer: int,
        target: NDArray[np.int64],
        target_buffer: int,
        fill: int | None = None,
    ) -> None:
        """Add a step that copies elements from one buffer to another."""
        nest = loops(source, target, f"layer {layer.name!r}")
        start = int(np.argmin(target)) if target.size else 0
        self.steps.append(
            Copy(
                layer=layer.name,
                reads=(source_buffer,),
                writes=(target_buffer,),
                results=target.size,
                source=Place(source_buffer, int(source.reshape(-1)[start]) if source.size else 0),
                target=Place(target_buffer, int(target.reshape(-1)[start]) if target.size else 0),
                nest=nest,
                fill=fill,
            )
        )

    def aligned(self, layer: Layer, names: Sequence[str]) -> tuple[list[View], Results]:
        """The tensors so that element i of one belongs to element i of the others."""
        views = [self.views[name] for name in names]
        if len({view.shape for view in views}) != 1:
            raise refuse(layer, f"its inputs have the shapes {', '.join(str(v.shape) for v in views)}")
        index = views[0].index - views[0].first
        if any(view.order is None or not view.lies_as(index) for view in views):
            views = [self.as_map(layer, name) for name in names]
            index = channels_last(views[0].shape)
        return views, results_of(index)

    def drains(
        self, layer: Layer, output: str, results: Results, requantisation: Requantisation | None = None,
        accumulator: str | None = None,
    ) -> tuple[Sink, ...]:  # fmt: skip
        """What becomes of the accumulators of a layer: its own requantisation, its readers', or none.

        Args:
            layer: The layer that computes them.
            output: The tensor that it writes.
            results: Their order.
            requantisation: The layer's own, if it has one.
            accumulator: The accumulator's name beside it.
        """
        if requantisation is not None:
            kept = () if accumulator is None else (self._traced(accumulator, results),)
            return (*kept, self.requantised(layer, output, results, requantisation, None))
        readers = [reader for reader in self.needed if output in reader.inputs]
        fused = [reader for reader in readers if isinstance(reader, Requantise)]
        if len(fused) < len(readers) or not fused:
            first = Sink(self.new_tensor(layer, output, results.index).buffer)
        else:
            first = self._traced(output, results)
        sinks = [first]
        for reader in fused:
            sinks.append(self.requantised(reader, reader.output, results, reader.requantisation, reader.bias))
            self._done.add(id(reader))
        return tuple(sinks)

    def bound(self, name: str) -> int | None:
        """The largest magnitude that an int32 tensor can have, where it is proved."""
        producer = self.program.producers.get(name)
        while isinstance(producer, Reshape | Transpose):
            producer = self.program.producers.get(producer.input)
        return None if producer is None else self._bounds.get(producer.name)

    def _traced(self, name: str, results: Results) -> Sink:
        """A sink that a trace alone sees."""
        buffer = self.new_buffer("words", results.index.size, "trace")
        self.views[name] = View(buffer, results.index)
        return Sink(buffer)

    def requantised(
        self,
        layer: Layer,
        name: str,
        results: Results,
        requantisation: Requantisation,
        bias: NDArray[np.int32] | None,
    ) -> Sink:
        """A sink that requantises what `layer` reads, or its own accumulators, to its output."""
        if bias is not None:
            self.check_sum(layer, layer.input, bias)
        zero = requantisation.zero_point
        return Sink(
            self.new_tensor(layer, name, results.index).buffer,
            spread(requantisation.multiplier, results),
            None if bias is None else spread(bias, results),
            self.stored_zero(name, zero),
            requantisation.low - zero,
            requantisation.high - zero,
        )

    def check_sum(self, layer: Layer, name: str, bias: NDArray[Any]) -> None:
        """Refuse the addition of constants to int32 `name` unless it is proved to stay in int32."""
        bound = self.bound(name)
        if bound is None or bound + int(np.abs(bias.astype(np.int64)).max(initial=0)) > INT32_LIMIT:
            raise refuse(layer, "its sum with a constant is not proved to stay in int32")

    def is_done(self, layer: Layer) -> bool:
        """Whether a layer's results came out of the layer before it."""
        return id(layer) in self._done


def results_of(index: NDArray[np.int64]) -> Results:
    """Places and channels of elements that lie as `index` says."""
    shape, size = index.shape, index.size
    if not shape or not size:
        return Results(index, 1, size)
    channels = shape[0] if np.array_equal(index, channels_last(shape)) and len(shape) in (2, 3) else shape[-1]
    return Results(index, size // channels, channels)
