"""The emulator: a Program run exactly, on kernels that know integers only.

The layers that compute every sample by itself run by a plan (see `toolchain.planning`), piece by piece, on a few
threads (the kernels release the GIL); neither the cut nor the number of threads changes a bit. The layers after
the first that mixes samples run once, on the whole batch.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError, HardwareError, ModelError, OhmfoldError
from ..kernels.isa import chosen, find
from .execution import batch_prefix, prepare
from .planning import PIECE_SAMPLES, MemoryReport, Plan
from .program import Conv, Dense, Program
from .source import program_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from .crossbar import Crossbar
    from .execution import Runner
    from .hardware import Hardware
    from .planning.steps import Step
    from .program import TensorSpec
    from .source import HasProgram

    Arrays = dict[str, NDArray[Any]]

__all__ = ["Emulator", "StepTime"]

# Plans that are kept, for callers that ask for different tensors in turn.
PLANS = 8


class StepTime(NamedTuple):
    """What one step of a plan took, in seconds, and what it does."""

    layer: str
    kind: str
    seconds: float


class Emulator:
    """Runs a program bit by bit as the device would.

    An emulator may be called from several threads at once, and in forked children.

    Args:
        source: A program, an artifact, or the path of an artifact's file.
        threads: How many threads run pieces of a batch; by default the processors that this process may use.
        isa: Name of the instruction set, one of `ohmfold.kernels.isa.available()`; by default the one that
            `OHMFOLD_ISA` names, or else the best.
        hardware: A crossbar that convolutions and dense layers run on: a profile, the name of a preset, or the path
            of a TOML file. None: exact integers.
        seed: Which chip of that profile: everything random about it is drawn from the seed.
        progress: Called while a chip with wire resistance is made, with how many of a layer's tiles are solved and how
            many there are.
        keep_tiles: Whether those tiles are kept on disk, for the next emulator of the same chip.
        calibration: Images whose first 512 set the limits of the chip's converters, where the profile calibrates
            them.
        windows: What a calibration found before (`crossbar.windows`), instead of images.

    Attributes:
        program: The program that runs.
        isa: Name of the instruction set.
        crossbar: The chip, where there is one.

    Raises:
        ModelError: The file cannot be read as an artifact.
        UnsupportedError: The program holds an operator that cannot be executed.
        MissingDependencyError: This machine lacks the instruction set.
        HardwareError: The profile is not one, or cannot hold the program.
        OhmfoldError: `threads` is less than 1, or no instruction set has this name.
    """

    program: Program

    def __init__(
        self,
        source: Program | HasProgram | str | Path,
        *,
        threads: int | None = None,
        isa: str | None = None,
        hardware: Hardware | str | Path | None = None,
        seed: int = 0,
        calibration: NDArray[Any] | None = None,
        windows: Mapping[str, tuple[int, int]] | None = None,
        progress: Callable[[int, int], None] | None = None,
        keep_tiles: bool = True,
    ) -> None:
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise OhmfoldError(f"found {threads!r} threads; the emulator needs a whole number, at least 1")
        self.program = program_of(source)
        self.threads = threads or _available_processors()
        self._isa = chosen() if isa is None else find(isa)
        self.isa = self._isa.name
        self._last_use = self.program.last_use()
        self._read = frozenset(name for layer in self.program.layers for name in layer.inputs)
        self._prefix = batch_prefix(self.program)
        self._rest: tuple[Runner, ...] = tuple(
            prepare(layer) for layer in self.program.layers[self._prefix :]
        )
        self.crossbar: Crossbar | None = None
        if hardware is not None:
            from .crossbar import Crossbar
            from .hardware import Hardware, load_hardware

            profile = hardware if isinstance(hardware, Hardware) else load_hardware(str(hardware))
            self.crossbar = Crossbar(
                profile,
                self.program,
                seed,
                self.threads,
                progress=progress,
                keep_tiles=keep_tiles,
                windows=dict(windows or {}),
            )
            self._calibrate(self.crossbar, calibration)
        self._plans: dict[frozenset[str], Plan] = {}
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        if self._prefix:
            outputs = [spec.name for spec in self.program.outputs]
            self._plan(frozenset(outputs if self.program.logits is None else [self.program.logits]))

    @property
    def memory(self) -> MemoryReport:
        """Activation memory that one thread allocates to compute the program's outputs.

        Raises:
            OhmfoldError: No layer of the program computes every sample by itself.
        """
        if not self._prefix:
            raise OhmfoldError("the program's layers mix samples; they run on arrays, without a plan")
        return self._plan(frozenset(spec.name for spec in self.program.outputs)).memory

    def __call__(self, images: NDArray[Any], *, first_sample: int = 0) -> NDArray[np.float32]:
        """Logits of a batch.

        Args:
            images: `(N, C, H, W)` of the program's input type (uint8 pixels, or float32); N may be 0. A
                program of a fixed batch runs a multiple of it batch by batch.
            first_sample: Global index of the first image. The read noise of a crossbar depends on it, and on
                nothing else of the batch.

        Returns:
            float32 `(N, classes)`.

        Raises:
            DataError: The images have another shape or element type.
            OhmfoldError: The program has no logits.
        """
        return self._one(images, self._logits_name(), first_sample)

    def codes(self, images: NDArray[Any], *, first_sample: int = 0) -> NDArray[np.int32]:
        """The integers behind the logits: int32 `(N, classes)`; arguments and errors as in a call."""
        if self.program.codes is None:
            raise OhmfoldError("the program has no integers behind its logits; use run() or trace()")
        return self._one(images, self.program.codes, first_sample).astype(np.int32, copy=False)

    def predict(self, images: NDArray[Any], *, first_sample: int = 0) -> NDArray[np.int64]:
        """The class of each image, int64 `(N,)`: the largest logit, ties to the lowest class.

        The float32 logits decide, not the integers behind them: so does every other runtime of the artifact.
        """
        scores = self(images, first_sample=first_sample)
        if scores.shape[0] == 0:
            return np.zeros(0, np.int64)
        classes: NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64, copy=False)
        return classes

    def run(self, inputs: Mapping[str, NDArray[Any]], *, first_sample: int = 0) -> Arrays:
        """The graph's outputs by name, for any number of inputs.

        Raises:
            DataError: An input is missing, unknown, or of another shape or element type.
        """
        return self._evaluate(inputs, [spec.name for spec in self.program.outputs], first_sample)

    def profile(self, images: NDArray[Any]) -> tuple[StepTime, ...]:
        """How long every planned step takes for a batch, on one thread, in the order in which they run.

        Raises:
            DataError: The images have another shape or element type.
            OhmfoldError: No layer of the program computes every sample by itself.
        """
        if not self._prefix:
            raise OhmfoldError("the program's layers mix samples; they run on arrays, without a plan")
        inputs = _check_inputs(self.program.inputs, self._named(images))
        plan = self._plan(frozenset(spec.name for spec in self.program.outputs))
        seconds: dict[tuple[str, str], float] = {}

        def clock(step: Step, taken: float) -> None:
            key = step.layer, step.kind
            seconds[key] = seconds.get(key, 0.0) + taken

        for first in range(0, len(images), PIECE_SAMPLES):
            piece = {name: value[first : first + PIECE_SAMPLES] for name, value in inputs.items()}
            plan.run(piece, first, clock)
        return tuple(StepTime(layer, kind, taken) for (layer, kind), taken in seconds.items())

    def trace(
        self, images: NDArray[Any], names: Iterable[str] | None = None, *, first_sample: int = 0
    ) -> Arrays:
        """Tensors by their names in the model; all of them, inputs and dense accumulators too, by default.

        Args:
            images: As in a call.
            names: Which tensors.
            first_sample: As in a call.

        Raises:
            DataError: The images have another shape or element type, or no tensor has such a name.
        """
        known = self._tensor_names()
        wanted = known if names is None else list(names)
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise DataError(f"no tensor is named {unknown[0]!r}; the program writes {', '.join(known)}")
        return self._evaluate(self._named(images), wanted, first_sample)

    def _one(self, images: NDArray[Any], name: str, first_sample: int) -> NDArray[Any]:
        return self._evaluate(self._named(images), [name], first_sample)[name]

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

    def _evaluate(
        self, inputs: Mapping[str, NDArray[Any]], names: Collection[str], first_sample: int = 0
    ) -> Arrays:
        """Check the inputs, run the planned layers and then those that need the whole batch."""
        if (parts := _fixed_batches(self.program, inputs)) is not None:
            size = len(next(iter(parts[0].values())))
            found = [
                self._evaluate(part, names, first_sample + index * size) for index, part in enumerate(parts)
            ]
            return _joined(found, size)
        tensors = _check_inputs(self.program.inputs, inputs)
        wanted = frozenset(names)
        if self._prefix:
            tensors = self._pieces(self._plan(wanted), tensors, first_sample)
        if self._rest:
            tensors = self._layers(tensors, wanted)
        return {name: tensors[name] for name in names}

    def _pieces(self, plan: Plan, inputs: Arrays, first_sample: int) -> Arrays:
        """Run the planned layers on pieces of the batch, on the threads."""
        samples = next(iter(inputs.values())).shape[0]
        size = max(1, min(PIECE_SAMPLES, -(-samples // self.threads)))
        if samples <= size:
            return plan.run(inputs, first_sample)
        pieces = [
            {name: value[start : start + size] for name, value in inputs.items()}
            for start in range(0, samples, size)
        ]
        samples_before = range(first_sample, first_sample + samples, size)
        if self.threads == 1:
            parts = list(map(plan.run, pieces, samples_before))
        else:
            parts = list(self._executor().map(plan.run, pieces, samples_before))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _calibrate(self, chip: Crossbar, calibration: NDArray[Any] | None) -> None:
        """Refuse programs that cannot run on a crossbar; set the limits of a calibrated chip's converters."""
        outside = [layer for layer in self.program.layers[self._prefix :] if isinstance(layer, Conv | Dense)]
        if outside and self.program.batch is not None:
            raise HardwareError(
                f"the program takes batches of {self.program.batch} alone; a crossbar needs one whose batch is free"
            )
        if outside:
            raise HardwareError(
                f"layer {outside[0].name!r} follows one that mixes samples, and cannot run on a crossbar"
            )
        if not chip.hardware.calibrated or calibration is None:
            return
        inputs = _check_inputs(self.program.inputs, self._named(calibration))
        keep = _crossing(self.program, self._prefix, [spec.name for spec in self.program.outputs])

        def run(crossbar: Crossbar) -> None:
            plan = Plan(self.program, self._prefix, keep, self._isa, crossbar)
            plan.run({name: value[:PIECE_SAMPLES] for name, value in inputs.items()})

        chip.calibrate(run)

    def _plan(self, names: frozenset[str]) -> Plan:
        """The plan that leads to some tensors, made on first use."""
        plan = self._plans.get(names)
        if plan is None:
            keep = _crossing(self.program, self._prefix, names)
            plan = Plan(self.program, self._prefix, keep, self._isa, self.crossbar)
            if len(self._plans) >= PLANS:
                self._plans = {}
            self._plans[names] = plan
        return plan

    def _executor(self) -> ThreadPoolExecutor:
        """The threads; a forked child, in which its parent's do not run, gets its own."""
        process = os.getpid()
        if self._pool is None or self._pool[0] != process:
            self._pool = process, ThreadPoolExecutor(self.threads, "ohmfold-emulator")
        return self._pool[1]

    def _layers(self, tensors: Arrays, keep: frozenset[str]) -> Arrays:
        """Run the layers that the plan leaves; free each tensor after its last use; return those in `keep`."""
        live = dict(tensors)
        wanted = keep | self._read
        for index, runner in enumerate(self._rest, self._prefix):
            layer = self.program.layers[index]
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


def _crossing(program: Program, prefix: int, names: Collection[str]) -> frozenset[str]:
    """Tensors of the planned prefix that are wanted or that the rest of the program reads."""
    read = {name for layer in program.layers[prefix:] for name in layer.inputs}
    known = {spec.name for spec in program.inputs}
    for layer in program.layers[:prefix]:
        known.update(layer.outputs)
        if isinstance(layer, Dense) and layer.accumulator is not None:
            known.add(layer.accumulator)
    return frozenset((read | set(names)) & known)


def _check_inputs(specs: tuple[TensorSpec, ...], inputs: Mapping[str, NDArray[Any]]) -> Arrays:
    """The inputs as contiguous arrays in the program's order.

    Raises:
        DataError: An input is missing, unknown, or of another shape or element type.
    """
    checked: Arrays = {}
    for spec in specs:
        if spec.name not in inputs:
            raise DataError(f"the input {spec} is missing")
        value = np.asarray(inputs[spec.name])
        if value.dtype != spec.dtype or not _fits(value.shape, spec.shape):
            raise DataError(f"found {value.dtype}{list(value.shape)}; the program's input is {spec}")
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise DataError(f"the input {spec.name} holds NaN; every value must be a number")
        checked[spec.name] = np.ascontiguousarray(value) if value.ndim else value
    if len(inputs) > len(checked):
        unknown = min(set(inputs) - checked.keys())
        raise DataError(f"found an input {unknown!r}; the program's are {', '.join(s.name for s in specs)}")
    return checked


def _fits(found: tuple[int, ...], expected: tuple[int | None, ...] | None) -> bool:
    """Whether a shape is one that a specification allows."""
    if expected is None:
        return True
    if found[1:] == expected[1:] and expected[:1] == (None,):
        return len(found) == len(expected)  # nearly always, and at a tenth of the time of what follows
    if len(found) != len(expected):
        return False
    return all(want is None or want == have for want, have in zip(expected, found, strict=True))
