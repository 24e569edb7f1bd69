"""The emulator: a Program run exactly, on kernels that know integers only.

Batches are cut into chunks so that the intermediate maps of one chunk stay small, and chunks run on a few
threads (the kernels release the GIL). Every sample is computed by itself, so neither the cut nor the number
of threads changes a bit. The layers after the first that mixes samples run once, on the whole batch.
"""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, ModelError, OhmfoldError
from .execution import batch_prefix, prepare
from .program import Dense, Program
from .source import program_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .execution import Runner
    from .program import TensorSpec
    from .source import HasProgram

    Arrays = dict[str, NDArray[Any]]

__all__ = ["Emulator"]

# Memory for the tensors of one chunk, and the most samples it holds.
CHUNK_BYTES = 1 << 24
CHUNK_SAMPLES = 128


class Emulator:
    """Runs a program bit by bit as the device would.

    An emulator may be called from several threads at once.

    Args:
        source: A program, an artifact, or the path of an artifact's file.
        threads: How many threads run chunks of a batch; by default the processors that this process may use.

    Attributes:
        program: The program that runs.

    Raises:
        ModelError: The file cannot be read as an artifact.
        UnsupportedError: The program holds an operator that cannot be executed.
        OhmfoldError: `threads` is less than 1.
    """

    program: Program

    def __init__(self, source: Program | HasProgram | str | Path, *, threads: int | None = None) -> None:
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise OhmfoldError(f"found {threads!r} threads; the emulator needs a whole number, at least 1")
        self.program = program_of(source)
        self.threads = threads or _available_processors()
        self._last_use = self.program.last_use()
        self._read = frozenset(name for layer in self.program.layers for name in layer.inputs)
        self._runners: tuple[Runner, ...] = tuple(prepare(layer) for layer in self.program.layers)
        self._prefix = batch_prefix(self.program)
        self._chunk = _chunk_samples(self.program)

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of a batch.

        Args:
            images: `(N, C, H, W)` of the program's input type (uint8 pixels, or float32); N may be 0. A
                program of a fixed batch runs a multiple of it batch by batch.

        Returns:
            float32 `(N, classes)`.

        Raises:
            DataError: The images have another shape or element type.
            OhmfoldError: The program has no logits.
        """
        return self._one(images, self._logits_name())

    def codes(self, images: NDArray[Any]) -> NDArray[np.int32]:
        """The integers behind the logits: int32 `(N, classes)`; arguments and errors as in a call."""
        if self.program.codes is None:
            raise OhmfoldError("the program has no integers behind its logits; use run() or trace()")
        return self._one(images, self.program.codes).astype(np.int32, copy=False)

    def predict(self, images: NDArray[Any]) -> NDArray[np.int64]:
        """The class of each image, int64 `(N,)`: the largest logit, ties to the lowest class.

        The float32 logits decide, not the integers behind them: so does every other runtime of the artifact.
        """
        scores = self(images)
        if scores.shape[0] == 0:
            return np.zeros(0, np.int64)
        classes: NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64, copy=False)
        return classes

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """The graph's outputs by name, for any number of inputs.

        Raises:
            DataError: An input is missing, unknown, or of another shape or element type.
        """
        return self._evaluate(inputs, [spec.name for spec in self.program.outputs])

    def trace(self, images: NDArray[Any], names: Iterable[str] | None = None) -> Arrays:
        """Tensors by their names in the model; all of them, inputs and dense accumulators too, by default.

        Args:
            images: As in a call.
            names: Which tensors.

        Raises:
            DataError: The images have another shape or element type, or no tensor has such a name.
        """
        known = self._tensor_names()
        wanted = known if names is None else list(names)
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise DataError(f"no tensor is named {unknown[0]!r}; the program writes {', '.join(known)}")
        return self._evaluate(self._named(images), wanted)

    def _one(self, images: NDArray[Any], name: str) -> NDArray[Any]:
        return self._evaluate(self._named(images), [name])[name]

    def _named(self, images: NDArray[Any]) -> Arrays:
        if len(self.program.inputs) != 1:
            raise OhmfoldError(f"the program has {len(self.program.inputs)} inputs; use run()")
        return {self.program.inputs[0].name: images}

    def _logits_name(self) -> str:
        if self.program.logits is None:
            raise OhmfoldError("the program has no logits; use run()")
        return self.program.logits

    def _tensor_names(self) -> list[str]:
        names = [spec.name for spec in self.program.inputs]
        for layer in self.program.layers:
            if isinstance(layer, Dense) and layer.accumulator is not None:
                names.append(layer.accumulator)
            names.extend(name for name in layer.outputs if name)
        return list(dict.fromkeys(names))

    def _evaluate(self, inputs: Mapping[str, NDArray[Any]], names: Collection[str]) -> Arrays:
        """Check the inputs, run the chunks and then the layers that need the whole batch."""
        if (parts := _fixed_batches(self.program, inputs)) is not None:
            return _joined(
                [self._evaluate(part, names) for part in parts], len(next(iter(parts[0].values())))
            )
        checked = _check_inputs(self.program.inputs, inputs)
        if not self._prefix:
            return self._layers(checked, 0, len(self._runners), frozenset(names))
        batch = next(iter(checked.values()))
        samples = batch.shape[0]
        carried = _crossing(self.program, self._prefix, names)
        size = max(1, min(self._chunk, -(-samples // self.threads)))
        pieces = [
            {name: value[start : start + size] for name, value in checked.items()}
            for start in range(0, max(1, samples), size)
        ]

        def run_prefix(piece: Arrays) -> Arrays:
            return self._layers(piece, 0, self._prefix, carried)

        if len(pieces) == 1 or self.threads == 1:
            parts = [run_prefix(piece) for piece in pieces]
        else:
            with ThreadPoolExecutor(min(self.threads, len(pieces)), "ohmfold-emulator") as pool:
                parts = list(pool.map(run_prefix, pieces))
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return self._layers(joined, self._prefix, len(self._runners), frozenset(names))

    def _layers(self, tensors: Arrays, first: int, last: int, keep: frozenset[str]) -> Arrays:
        """Run layers `first` to `last - 1`; free each tensor after its last use; return those in `keep`."""
        live = dict(tensors)
        wanted = keep | self._read
        for index in range(first, last):
            layer, runner = self.program.layers[index], self._runners[index]
            try:
                live.update(runner(tuple(live[name] for name in layer.inputs), wanted))
            except (TypeError, ValueError) as error:
                raise ModelError(f"layer {layer.name!r} ({type(layer).__name__}): {error}") from error
            for name in (*layer.inputs, *layer.outputs):
                if name not in keep and self._last_use.get(name, -1) <= index:
                    live.pop(name, None)
        return {name: live[name] for name in live if name in keep}


def _fixed_batches(program: Program, inputs: Mapping[str, NDArray[Any]]) -> list[Arrays] | None:
    """The input cut to the batch that the program takes; None where it fits, or cannot be cut to it."""
    if program.batch is None or len(inputs) != 1:
        return None
    name, value = next((name, np.asarray(value)) for name, value in inputs.items())
    samples = len(value) if value.ndim else 0
    if program.batch < 1 or samples <= program.batch or samples % program.batch:
        return None
    cuts = range(0, samples, program.batch)
    return [{name: value[start : start + program.batch]} for start in cuts]


def _joined(results: list[Arrays], batch: int) -> Arrays:
    """The results of batches as those of one.

    Raises:
        DataError: A tensor does not hold one entry for each sample.
    """
    for name, value in results[0].items():
        if value.shape[:1] != (batch,):
            raise DataError(
                f"the program takes batches of {batch}, and its tensor {name!r} of shape {value.shape} does not "
                f"hold one entry for each sample; give {batch} at a time"
            )
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def _available_processors() -> int:
    """How many processors this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _chunk_samples(program: Program) -> int:
    """How many samples fit a chunk: one layer's tensors, by the program's shapes, within `CHUNK_BYTES`."""

    def sample_bytes(name: str) -> int:
        spec = program.tensors.get(name)
        if spec is None or spec.shape is None:
            return 0
        return math.prod(d for d in spec.shape[1:] if d is not None) * spec.dtype.itemsize

    largest = max(
        (sum(map(sample_bytes, (*layer.inputs, *layer.outputs))) for layer in program.layers), default=0
    )
    return max(1, min(CHUNK_SAMPLES, CHUNK_BYTES // max(1, largest)))


def _crossing(program: Program, prefix: int, names: Collection[str]) -> frozenset[str]:
    """Tensors of the chunked prefix that are wanted or that the rest of the program reads."""
    read = {name for layer in program.layers[prefix:] for name in layer.inputs}
    return frozenset(read | set(names))


def _check_inputs(specs: tuple[TensorSpec, ...], inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """The inputs as contiguous arrays in the program's order.

    Raises:
        DataError: An input is missing, unknown, or of another shape or element type.
    """
    unknown = sorted(set(inputs) - {spec.name for spec in specs})
    if unknown:
        raise DataError(
            f"found an input {unknown[0]!r}; the program's are {', '.join(s.name for s in specs)}"
        )
    checked = {}
    for spec in specs:
        if spec.name not in inputs:
            raise DataError(f"the input {spec} is missing")
        value = np.asarray(inputs[spec.name])
        fits = spec.shape is None or (
            value.ndim == len(spec.shape)
            and all(want is None or want == have for want, have in zip(spec.shape, value.shape, strict=True))
        )
        if value.dtype != spec.dtype or not fits:
            raise DataError(f"found {value.dtype}{list(value.shape)}; the program's input is {spec}")
        if np.issubdtype(value.dtype, np.floating) and np.isnan(value).any():
            raise DataError(f"the input {spec.name} holds NaN; every value must be a number")
        checked[spec.name] = np.ascontiguousarray(value) if value.ndim else value
    return checked
