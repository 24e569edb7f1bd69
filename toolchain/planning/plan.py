"""A plan: the steps that run a program on a batch, and the memory in which they do.

A batch is cut into pieces, one for a worker at a time, and a piece into chunks whose maps stay in the cache. The
dense layers at the end of a network run once for a whole piece, so that their weights are read once; what they
read lies in memory for the whole piece, and chunks write to their own part of it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ...kernels.conv_maps import SPARE_BYTES
from ...kernels.packing import aligned_empty
from .memory import ALIGNMENT, Lifetime, MemoryReport, live_bytes, place
from .steps import build_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from ...kernels.isa.base import InstructionSet
    from ..crossbar import Crossbar
    from ..program import Program
    from .steps import Step

    Arrays = dict[str, NDArray[Any]]
    Clock = Callable[[Step, float], None]

__all__ = ["CHUNK_BYTES", "PIECE_SAMPLES", "Plan"]

# Memory for the maps of one chunk (about a second-level cache), and the most samples it holds.
CHUNK_BYTES = 1 << 20
CHUNK_SAMPLES = 64
PIECE_SAMPLES = 512

# Memory, of the least possible, that may be spent on padding that need not be filled again for every chunk.
_ROOM_FOR_BORDERS = 1.25


@dataclass(eq=False)
class Frame:
    """What steps work on: one worker's memory, and the chunk that it holds.

    Attributes:
        views: For each value a flat array that begins at the chunk's first image.
        scratch: int32, of the kernels.
        first: Global index of the chunk's first image.
        arrays: Tensors that are arrays, by name.
        images: Images of the chunk.
    """

    views: list[NDArray[Any]]
    scratch: NDArray[np.int32]
    arrays: Arrays = field(default_factory=dict)
    images: int = 0
    first: int = 0


class Plan:
    """How the first layers of a program run, for tensors that somebody wants.

    Args:
        program: The program.
        stop: How many of its layers; each computes every sample by itself.
        keep: Tensors to return.
        isa: The instruction set.
        crossbar: What convolutions and dense layers run on; None for exact integers.

    Attributes:
        chunk: Samples that run at once through the convolutions.
        memory: What a worker allocates.

    Raises:
        ModelError: A layer's operands are inconsistent.
    """

    def __init__(
        self,
        program: Program,
        stop: int,
        keep: Collection[str],
        isa: InstructionSet,
        crossbar: Crossbar | None = None,
    ) -> None:
        self._steps = build_steps(program, stop, frozenset(keep), isa, crossbar)
        self._keep = frozenset(keep)
        self._scratch = isa.scratch_bytes // 4
        self.chunk = self._chunk_samples()
        lifetimes = self._lifetimes(self.chunk, PIECE_SAMPLES)
        least = live_bytes(lifetimes)
        self._offsets, self._size = place(self._undisturbed(lifetimes))
        self._filled = self._size <= _ROOM_FOR_BORDERS * least
        if not self._filled:
            self._offsets, self._size = place(lifetimes)
        self._chunked = self._without_borders(self._steps.chunked)
        self._whole = self._without_borders(self._steps.whole)
        self.memory = MemoryReport(self._size, least, self._steps.unplanned)
        # Workers that nobody uses; appending and popping are atomic, and safe after a fork.
        self._idle: list[Frame] = []

    def run(
        self, inputs: Mapping[str, NDArray[Any]], first_sample: int = 0, clock: Clock | None = None
    ) -> Arrays:
        """Run at most `PIECE_SAMPLES` samples; returns the tensors to keep, by name.

        Several threads may call this at once.

        Args:
            inputs: The program's inputs, by name.
            first_sample: Global index of the first sample: the read noise of a crossbar depends on it.
            clock: Is told what every step took, in seconds.
        """
        try:
            frame = self._idle.pop()
        except IndexError:
            frame = self._frame()
        views = frame.views
        try:
            return self._run(frame, inputs, first_sample, clock)
        finally:
            frame.views, frame.arrays = views, {}
            self._idle.append(frame)

    def _run(
        self, frame: Frame, inputs: Mapping[str, NDArray[Any]], first_sample: int, clock: Clock | None
    ) -> Arrays:
        steps = self._steps
        samples = next(iter(inputs.values())).shape[0]
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in self._keep}
        whole = frame.views
        for first in range(0, max(1, samples), self.chunk):
            frame.images, frame.first = min(self.chunk, samples - first), first_sample + first
            frame.arrays = {name: value[first : first + frame.images] for name, value in inputs.items()}
            if first:
                frame.views = [
                    view[first * width :] if width else view
                    for view, width in zip(whole, steps.shifts, strict=True)
                ]
            self._play(self._chunked, frame, parts, clock)
        frame.views, frame.images, frame.first, frame.arrays = whole, samples, first_sample, {}
        self._play(self._whole, frame, parts, clock)
        return {name: found[0] if len(found) == 1 else np.concatenate(found) for name, found in parts.items()}

    def _play(
        self,
        steps: tuple[Step, ...],
        frame: Frame,
        parts: dict[str, list[NDArray[Any]]],
        clock: Clock | None,
    ) -> None:
        """Run steps on the frame, and collect the arrays to keep."""
        if not steps:
            return
        for step in steps:
            try:
                if clock is None:
                    step.run(frame)
                else:
                    start = time.perf_counter()
                    step.run(frame)
                    clock(step, time.perf_counter() - start)
            except (TypeError, ValueError) as error:
                raise ModelError(f"layer {step.layer!r}: {error}") from error
        for name, found in parts.items():
            if name in frame.arrays:
                found.append(frame.arrays[name])

    def _frame(self) -> Frame:
        """Memory for one worker."""
        memory = aligned_empty(self._size + SPARE_BYTES)
        views = []
        for offset, value in zip(self._offsets, self._steps.values, strict=True):
            samples = PIECE_SAMPLES if value.crosses or not value.chunked else self.chunk
            room = memory[offset : offset + samples * value.place.image_bytes + SPARE_BYTES]
            views.append(room[:-SPARE_BYTES].view(np.int32) if value.place.form.sums else room)
        frame = Frame(views, aligned_empty(self._scratch, np.int32))
        if self._filled:
            for steps, samples in ((self._steps.chunked, self.chunk), (self._steps.whole, PIECE_SAMPLES)):
                frame.images = samples
                for step in steps:
                    if step.border:
                        step.run(frame)
        return frame

    def _undisturbed(self, lifetimes: list[Lifetime]) -> list[Lifetime]:
        """Lives in which no value ever overlaps the memory of a padded one, whose padding then stays."""
        last = max((lifetime.last for lifetime in lifetimes), default=0)
        return [
            replace(lifetime, first=0, last=last) if value.place.layout.padded else lifetime
            for lifetime, value in zip(lifetimes, self._steps.values, strict=True)
        ]

    def _without_borders(self, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        """The steps that run every time: padding that stays is filled once, when memory is allocated."""
        return tuple(step for step in steps if not (self._filled and step.border))

    def _lifetimes(self, chunk: int, piece: int) -> list[Lifetime]:
        """Size and life of every value; what crosses to the whole piece lives from the first step on."""
        found = []
        for value in self._steps.values:
            samples = chunk if value.chunked and not value.crosses else piece
            size = samples * value.place.image_bytes + SPARE_BYTES
            first = 0 if value.crosses else value.first
            found.append(Lifetime(-(-size // ALIGNMENT) * ALIGNMENT, first, value.last))
        return found

    def _chunk_samples(self) -> int:
        """How many samples' maps stay within `CHUNK_BYTES`."""
        one = [
            Lifetime(value.place.image_bytes, value.first, value.last)
            for value in self._steps.values
            if value.chunked and not value.crosses
        ]
        return max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, live_bytes(one))))
