"""From nodes to steps: which value every step reads and writes, and how values lie in memory.

1. A tensor lies with the padding that its readers want, the largest on each side. A reader that wants another
   code in the padding gets a copy of its own.
2. Padding is written before the tensor is: its memory may have held something else a moment ago.
3. A tensor that is an array is brought into its layout before its first reader; one that array nodes read, or that
   somebody wants, becomes an array as soon as it is written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ...kernels.layout import MapLayout
from ...kernels.maps import CopyMaps, FillBorder, PackMaps, UnpackMaps
from ..execution import prepare
from .forms import Place
from .fuse import fuse
from .nodes import ArrayNode, DenseNode, LogitsNode, Node, ReshapeNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...kernels.isa.base import InstructionSet
    from ..crossbar import Crossbar
    from ..program import Program
    from .forms import Padding
    from .fuse import FusedProgram
    from .plan import Frame

    Run = Callable[[Frame], None]

__all__ = ["Step", "Steps", "Value", "build_steps"]


@dataclass(frozen=True, eq=False)
class Step:
    """What runs.

    Attributes:
        run: The step itself.
        layer: For which layer.
        kind: What it does, in a word or two.
        array_reads: Arrays that it reads.
        dense: Whether it is a dense layer.
        border: Whether it fills padding, which stays as long as no other value's memory overlaps.
    """

    run: Run
    layer: str
    kind: str
    array_reads: tuple[str, ...] = ()
    dense: bool = False
    border: bool = False


@dataclass(eq=False)
class Value:
    """A tensor in planned memory.

    Attributes:
        place: Its form and layout.
        first, last: The steps that write it first and read it last.
        chunked: Whether chunks write it.
        crosses: Whether the whole piece reads what chunks write.
    """

    place: Place
    first: int
    last: int
    chunked: bool = True
    crosses: bool = False


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a plan.

    Attributes:
        chunked: Steps that run for every chunk.
        whole: Steps that run once for all samples of a piece.
        values: What they read and write, by number.
        shifts: Elements of an image for values that cross from the chunks to the piece, else 0.
        unplanned: Layers that run on arrays.
    """

    chunked: tuple[Step, ...]
    whole: tuple[Step, ...]
    values: tuple[Value, ...]
    shifts: list[int]
    unplanned: tuple[str, ...]


def build_steps(
    program: Program, stop: int, keep: frozenset[str], isa: InstructionSet, crossbar: Crossbar | None
) -> Steps:
    """The steps of the first `stop` layers, which make arrays of the tensors in `keep`.

    Raises:
        ModelError: A layer's operands are inconsistent.
        UnsupportedError: A layer is an operator that cannot be executed.
    """
    builder = _Builder(program, keep, isa, fuse(program, stop, keep, crossbar))
    for node in builder.fused.nodes:
        try:
            builder.add(node)
        except (TypeError, ValueError) as error:
            raise ModelError(f"layer {node.name!r}: {error}") from error
    return builder.finish()


@dataclass(eq=False)
class _Builder:
    program: Program
    keep: frozenset[str]
    isa: InstructionSet
    fused: FusedProgram
    steps: list[Step] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    # The value of each tensor, and the copies with other padding.
    numbers: dict[str, int] = field(default_factory=dict)
    copies: dict[tuple[int, int], int] = field(default_factory=dict)
    written_at: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.aliases = {
            node.outputs[0]: node.inputs[0] for node in self.fused.nodes if isinstance(node, ReshapeNode)
        }
        array_nodes = [node for node in self.fused.nodes if isinstance(node, ArrayNode)]
        self.wanted_arrays = self.keep | {name for node in array_nodes for name in node.inputs}
        self.paddings: dict[str, list[Padding]] = {}
        for node in self.fused.nodes:
            if isinstance(node, ArrayNode | ReshapeNode):
                continue
            forms = [self.fused.forms[name] for name in node.inputs]
            for name, padding in zip(node.inputs, node.padding(forms), strict=True):
                if padding is not None and any(padding.sides):
                    self.paddings.setdefault(self.root(name), []).append(padding)
        self.written_at.update({spec.name: -1 for spec in self.program.inputs})

    def root(self, name: str) -> str:
        """The tensor that a reshaped one is another name of."""
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def add(self, node: Node) -> None:
        """The steps of one node."""
        if isinstance(node, ArrayNode):
            self._add_arrays(node)
        elif isinstance(node, LogitsNode):
            self._add_logits(node)
        elif isinstance(node, ReshapeNode):
            self.numbers[node.outputs[0]] = self._number(node.inputs[0], node.name)
            self._make_array(node.outputs[0], node.name)
        else:
            self._add_kernel(node)

    def _add_arrays(self, node: ArrayNode) -> None:
        runner = prepare(node.layer)
        wanted = frozenset(node.outputs)

        def run(frame: Frame) -> None:
            inputs = tuple(frame.arrays[name] for name in node.inputs)
            frame.arrays.update(runner(inputs, wanted))

        self.steps.append(Step(run, node.name, node.kind, node.inputs))
        self.written_at.update(dict.fromkeys(node.outputs, len(self.steps) - 1))

    def _add_logits(self, node: LogitsNode) -> None:
        number = self._number(node.inputs[0], node.name)
        product = node.scaled(self.values[number].place, self.isa)
        name, columns = node.outputs[0], node.layer.weight.shape[1]

        def run(frame: Frame) -> None:
            out = np.empty((frame.images, columns), np.float32)
            product(frame.views[number], out.reshape(-1), frame.images, frame.scratch)
            frame.arrays[name] = out

        self._append(Step(run, node.name, node.kind, dense=True), [number], [])
        self.written_at[name] = len(self.steps) - 1

    def _add_kernel(self, node: Node) -> None:
        forms = [self.fused.forms[name] for name in node.inputs]
        reads = [
            self._padded(self._number(name, node.name), padding, node.name)
            for name, padding in zip(node.inputs, node.padding(forms), strict=True)
        ]
        writes = [self._new(name, node.name) for name in node.outputs]
        sources = [self.values[number].place for number in reads]
        targets = [self.values[number].place for number in writes]
        kernel = node.make(sources, targets, self.isa)

        if len(reads) == len(writes) == 1:
            source, target = reads[0], writes[0]

            def run(frame: Frame) -> None:
                views = frame.views
                kernel((views[source],), (views[target],), frame.images, frame)

        else:

            def run(frame: Frame) -> None:
                xs, outs = ([frame.views[number] for number in numbers] for numbers in (reads, writes))
                kernel(xs, outs, frame.images, frame)

        self._append(Step(run, node.name, node.kind, dense=isinstance(node, DenseNode)), reads, writes)
        for name in node.outputs:
            self._make_array(name, node.name)

    def _append(self, step: Step, reads: list[int], writes: list[int]) -> None:
        self.steps.append(step)
        for number in (*reads, *writes):
            self.values[number].last = len(self.steps) - 1

    def _new(self, name: str, layer: str) -> int:
        """A value for a tensor that is about to be written, its padding filled."""
        paddings = self.paddings.get(name, [])
        fills = [padding for padding in paddings if padding.fill == paddings[0].fill]
        return self._value(Place(self.fused.forms[name], _layout(self.fused.forms[name], fills)), layer, name)

    def _value(self, place: Place, layer: str, name: str | None = None) -> int:
        number = len(self.values)
        self.values.append(Value(place, len(self.steps), len(self.steps)))
        if name is not None:
            self.numbers[name] = number
        if place.layout.padded:
            fill = FillBorder(place.layout)
            step = Step(lambda frame: fill(frame.views[number], frame.images), layer, "padding", border=True)
            self._append(step, [], [number])
        return number

    def _number(self, name: str, layer: str) -> int:
        """The value of a tensor, brought from an array if it is one."""
        if name in self.numbers:
            return self.numbers[name]
        number = self._new(name, layer)
        form = self.fused.forms[name]
        if form.sums:

            def run(frame: Frame) -> None:
                x = frame.arrays[name].reshape(frame.images, form.channels, form.positions)
                out = frame.views[number][: x.size].reshape(frame.images, form.positions, form.channels)
                out[...] = x.transpose(0, 2, 1)

        else:
            pack = PackMaps(self.values[number].place.layout, form.flip)

            def run(frame: Frame) -> None:
                x = frame.arrays[name]
                if x.dtype != np.uint8 or not x.flags.c_contiguous:
                    x = np.ascontiguousarray(x).view(np.uint8)
                pack(x, frame.views[number], frame.images)

        self._append(Step(run, layer, "layout", (name,)), [], [number])
        return number

    def _padded(self, number: int, padding: Padding | None, layer: str) -> int:
        """The value itself, or a copy of it, if its padding holds another code than wanted."""
        layout = self.values[number].place.layout
        if padding is None or not any(padding.sides) or layout.fill == padding.fill:
            return number
        key = (number, padding.fill)
        if key not in self.copies:
            place = self.values[number].place
            name = next(self.root(name) for name, found in self.numbers.items() if found == number)
            fills = [one for one in self.paddings[name] if one.fill == padding.fill]
            copy = self._value(Place(place.form, _layout(place.form, fills)), layer)
            kernel = CopyMaps(layout, self.values[copy].place.layout, 0)

            def run(frame: Frame) -> None:
                kernel(frame.views[number], frame.views[copy], frame.images)

            self._append(Step(run, layer, "layout"), [number], [copy])
            self.copies[key] = copy
        return self.copies[key]

    def _make_array(self, name: str, layer: str) -> None:
        """Rule 3, for a tensor that was just written."""
        if name not in self.wanted_arrays or name in self.written_at:
            return
        number = self.numbers[name]
        place = self.values[number].place
        form = place.form
        spec = self.program.tensors.get(name)
        # The one tensor without a specification is a dense layer's accumulator.
        shape = (form.channels,) if spec is None or spec.shape is None else spec.shape[1:]
        signed = np.dtype(np.int8 if form.flip else np.uint8)
        unpack = None if form.sums else UnpackMaps(place.layout, form.flip)

        def run(frame: Frame) -> None:
            images, view = frame.images, frame.views[number]
            if unpack is None:
                sums = view[: images * form.features]
                if form.positions > 1:
                    sums = sums.reshape(images, form.positions, form.channels).transpose(0, 2, 1)
                result = np.array(sums, order="C")
            else:
                result = np.empty((images, form.features), np.uint8)
                unpack(view, result, images)
                result = result.view(signed)
            frame.arrays[name] = result.reshape(images, *shape)

        self._append(Step(run, layer, "layout"), [number], [])
        self.written_at[name] = len(self.steps) - 1

    def finish(self) -> Steps:
        """Cut the steps into those of the chunks and those of the whole piece."""
        cut = self._cut()
        for value in self.values:
            value.chunked = value.first < cut
            value.crosses = value.chunked and value.last >= cut
        shifts = [
            (value.place.form.features if value.place.form.sums else value.place.image_bytes)
            if value.crosses
            else 0
            for value in self.values
        ]
        arrays = tuple(node.name for node in self.fused.nodes if isinstance(node, ArrayNode))
        return Steps(tuple(self.steps[:cut]), tuple(self.steps[cut:]), tuple(self.values), shifts, arrays)

    def _cut(self) -> int:
        """The first dense layer, if vectors alone follow and no array crosses; else the end."""
        cut = next((i for i, step in enumerate(self.steps) if step.dense), len(self.steps))
        maps = any(value.first >= cut and value.place.form.positions > 1 for value in self.values)
        crossing = any(self.written_at[name] < cut for step in self.steps[cut:] for name in step.array_reads)
        return len(self.steps) if maps or crossing else cut


def _layout(form: Any, paddings: list[Padding]) -> MapLayout:
    """The layout of a map with the largest padding on each side."""
    if not paddings:
        return MapLayout(*form.size)
    top, left, bottom, right = map(max, zip(*(padding.sides for padding in paddings), strict=True))
    channels, height, width = form.size
    return MapLayout(channels, height, width, top, left, bottom, right, paddings[0].fill)
