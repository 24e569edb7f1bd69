"""The witnesses that need nothing but Python: emulators, the twin, onnxruntime, ONNX's reference evaluator.

`witnesses_of` lists all of a model's, those of compiled C and of other forms too. A witness prepares itself on
first use, so that listing them costs nothing.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RangeError, UnsupportedError
from ...kernels.isa import MODELS, available
from ..emulator import Emulator
from ..judged import as_input
from ..witness import LEVELS, OnnxRuntime, run_reference_evaluator
from .witness_base import LOGITS, SLOW, Witness

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    from ..artifact import Artifact
    from ..program import Program
    from ..twin import Twin

__all__ = [
    "EmulatorWitness",
    "EvaluatorWitness",
    "OnnxRuntimeWitness",
    "SharedTwin",
    "TwinWitness",
    "comparable",
    "python_witnesses",
    "written_names",
]


def comparable(program: Program) -> tuple[str, ...]:
    """The tensors that are defined to the bit, in the program's order; its input is given, not computed."""
    from ..program import Dense

    names = []
    for layer in program.layers:
        if isinstance(layer, Dense) and layer.accumulator is not None:
            names.append(layer.accumulator)
        names.extend(name for name in layer.outputs if name)
    return tuple(name for name in dict.fromkeys(names) if name not in program.rounded)


def outputs_of(program: Program) -> tuple[str, ...]:
    """The logits and the outputs, of those that are defined to the bit."""
    wanted = [*(spec.name for spec in program.outputs), *([program.logits] if program.logits else [])]
    exact = set(comparable(program))
    return tuple(name for name in dict.fromkeys(wanted) if name in exact)


class EmulatorWitness(Witness):
    """The emulator on one instruction set: every tensor, or fused, where only the outputs show."""

    group = "emulator"

    def __init__(self, program: Program, isa: str, *, fused: bool) -> None:
        self._program, self._isa, self._fused = program, isa, fused
        self.name = f"emulator, {isa}{', fused' if fused else ''}"
        if fused:
            self.promise = LOGITS
        self._names = outputs_of(program) if fused else comparable(program)

    def run(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Witness`."""
        return self._emulator.trace(as_input(images, self._program.inputs[0]), self._names)

    def is_trace_of(self, other: Emulator) -> bool:
        """Whether it is nothing but that emulator again, every tensor apart."""
        return not self._fused and other.program is self._program and other.isa == self._isa

    def must_show(self, names: Collection[str]) -> Collection[str]:
        """Of a fused plan the outputs."""
        return [name for name in names if name in self._names]

    @cached_property
    def _emulator(self) -> Emulator:
        return Emulator(self._program, isa=self._isa)


class SharedTwin:
    """A program's twin, built once for the witness and for the search that climbs its gradient."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __call__(self) -> Twin:
        """The twin.

        Raises:
            UnsupportedError, RangeError: The program has none.
            ExactnessError: Its own test fails.
        """
        return self._twin

    @cached_property
    def _twin(self) -> Twin:
        from ..twin import Twin

        return Twin(self._program)


class TwinWitness(Witness):
    """The twin's forward pass; its floats have to be the integers."""

    group = name = "twin"

    def __init__(self, program: Program, twin: Callable[[], Twin]) -> None:
        self._program, self._twin = program, twin

    def unavailable(self) -> str | None:
        """A program whose logits depend on what has no derivative has no twin."""
        try:
            self._twin()
        except (UnsupportedError, RangeError) as refusal:
            return str(refusal)
        return None

    def run(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Witness`."""
        import torch

        with torch.no_grad():
            trace = self._twin().trace(torch.from_numpy(images.astype(np.float32) / np.float32(255)))
        return {name: self._typed(name, tensor.numpy()) for name, tensor in trace.items()}

    def must_show(self, names: Collection[str]) -> Collection[str]:
        """What the logits depend on: the twin leaves out what follows them."""
        stages: list[Any] = list(self._twin().stages)
        shown = {name for stage in stages for name in stage.outputs}
        return [name for name in names if name in shown]

    def _typed(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Floats as the integers that they hold; as they are, of another type and so different, where they do not."""
        spec = self._program.tensors.get(name)
        dtype = np.dtype(np.int32) if spec is None else spec.dtype
        if dtype.kind == "f":
            return values
        limits = np.iinfo(dtype)
        if values.size and not (limits.min <= values.min() and values.max() <= limits.max):
            return values
        typed = values.astype(dtype)
        return typed if np.array_equal(typed, values) else values


class OnnxRuntimeWitness(Witness):
    """onnxruntime at one of its levels, with every tensor exposed or as the model is.

    Args:
        program: What the model is read as.
        model: The serialised model, of the program's tensor names.
        level: onnxruntime's graph-optimisation level.
        exposed: Whether every tensor is made an output, which keeps onnxruntime from fusing.
        threads: Intra-op threads.
        form: The group, and in the name what kind of model it is.
    """

    def __init__(
        self,
        program: Program,
        model: Callable[[], bytes],
        level: str,
        *,
        exposed: bool,
        threads: int = 1,
        form: str = "",
    ) -> None:
        self._program, self._model = program, model
        self._level, self._exposed, self._threads = level, exposed, threads
        self.group = form or "onnxruntime"
        words = [
            form,
            f"onnxruntime {level}",
            "" if exposed else "fused",
            f"{threads} threads" if threads > 1 else "",
        ]
        self.name = ", ".join(word for word in words if word)
        if not exposed:
            self.promise = LOGITS

    def run(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Witness`."""
        found = self._session.run({self._program.inputs[0].name: as_input(images, self._program.inputs[0])})
        return {name: found[name] for name in self._names if name in found}

    def must_show(self, names: Collection[str]) -> Collection[str]:
        """What the model names (a form of the model may lack some of the program's tensors)."""
        return [name for name in names if name in self._names]

    def shared(self, names: Collection[str]) -> tuple[str, ...]:
        """Of these tensors those that the model has under their names."""
        written = written_names(self._model())
        return tuple(name for name in names if name in written)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return self.shared(comparable(self._program) if self._exposed else outputs_of(self._program))

    @cached_property
    def _session(self) -> OnnxRuntime:
        return OnnxRuntime(self._model(), self._level, self._threads, self._names)


def written_names(model: bytes) -> frozenset[str]:
    """The tensors that a serialised model's nodes write."""
    import onnx

    return frozenset(name for node in onnx.load_model_from_string(model).graph.node for name in node.output)


class EvaluatorWitness(Witness):
    """ONNX's reference evaluator: plain Python, with gaps that the report names."""

    group = name = "onnx reference evaluator"
    pace = SLOW

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        self._gaps: dict[str, str] = {}

    def unavailable(self) -> str | None:
        """Q/DQ models mean onnxruntime's fused arithmetic, which the evaluator's node by node differs from."""
        if runs_fused_only(self._artifact):
            return "the model's Q/DQ patterns mean fused integer arithmetic; the evaluator runs them node by node"
        return None

    def run(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """See `Witness`."""
        spec = self._artifact.program.inputs[0]
        outcome = run_reference_evaluator(self._artifact.to_bytes(), {spec.name: as_input(images, spec)})
        self._gaps.update(outcome.skipped)
        return outcome.values

    def must_show(self, names: Collection[str]) -> Collection[str]:
        """What nodes of the model write, but for its gaps."""
        written = written_names(self._artifact.to_bytes())
        return [name for name in names if name in written and name not in self._gaps]

    @property
    def not_computed(self) -> Mapping[str, str]:
        """Its gaps."""
        exact = set(comparable(self._artifact.program))
        return {name: reason for name, reason in self._gaps.items() if name in exact}


def runs_fused_only(artifact: Artifact) -> bool:
    """Whether the model was made by others with Q/DQ patterns: onnxruntime's lower levels disagree on their ties."""
    return not artifact.compiled_here and any(
        node.op_type == "DequantizeLinear" for node in artifact.model.graph
    )


def python_witnesses(artifact: Artifact, twin: Callable[[], Twin] | None = None) -> tuple[Witness, ...]:
    """The witnesses of this module, in the order in which reports show them."""
    program = artifact.program
    sets = (*available(), *(isa.name for isa in MODELS))
    levels = LEVELS[LEVELS.index("extended") :] if runs_fused_only(artifact) else LEVELS
    return (
        *(EmulatorWitness(program, isa, fused=fused) for isa in sets for fused in (False, True)),
        *(OnnxRuntimeWitness(program, artifact.to_bytes, level, exposed=True) for level in levels),
        *(
            OnnxRuntimeWitness(program, artifact.to_bytes, level, exposed=False, threads=2)
            for level in levels
        ),
        EvaluatorWitness(artifact),
        TwinWitness(program, twin or SharedTwin(program)),
    )
