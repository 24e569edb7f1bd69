"""Other executors of the same model, and the comparison of every tensor with theirs.

An emulator that only agrees with itself proves nothing. The witnesses here share no code with ours:
onnxruntime at each of its graph-optimisation levels and with several threads, and ONNX's own reference
evaluator. `certify` puts them beside the emulator; what it returns is what tables and reports print.

Exposing a tensor as a graph output keeps onnxruntime from fusing the nodes around it, so a model is
witnessed twice: tensor by tensor with everything exposed, and as it is, where only the outputs show.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx
import onnx_ir as ir

from ..errors import DataError, ModelError
from .comparison import Comparison, Difference, compare
from .decompose import decompose_q_linear_conv
from .foreign import read_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from .emulator import Emulator
    from .program import Program

__all__ = [
    "LEVELS",
    "Certificate",
    "Comparison",
    "Difference",
    "OnnxRuntime",
    "ReferenceOutcome",
    "certify",
    "compare",
    "run_onnxruntime",
    "run_reference_evaluator",
]

# onnxruntime's names of its graph-optimisation levels, from none to all.
_LEVEL_NAMES: Mapping[str, str] = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
LEVELS = tuple(_LEVEL_NAMES)

# onnxruntime prints what it also raises unless it logs fatal errors only.
_FATAL_ONLY = 4


class _Artifact(Protocol):
    """What `certify` needs of an artifact."""

    @property
    def program(self) -> Program: ...

    def to_bytes(self) -> bytes: ...


@dataclass(frozen=True, eq=False)
class Certificate:
    """One row of `certify`: what a witness is, how it was run, and what came of it.

    Attributes:
        witness: "onnxruntime" or "onnx reference".
        level: Graph-optimisation level, empty where the witness has none.
        threads: Number of intra-op threads.
        batch: Batch size.
        exposed: Whether every intermediate tensor was compared, or the graph's outputs alone.
        comparison: What was compared.
        skipped: Tensors that the witness cannot compute, with its reason.
    """

    witness: str
    level: str
    threads: int
    batch: int
    exposed: bool
    comparison: Comparison
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The witness in words, for tables."""
        parts = [self.witness, self.level, f"{self.threads} thread{'s' if self.threads > 1 else ''}"]
        parts.append("every tensor" if self.exposed else "outputs alone")
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True, eq=False)
class ReferenceOutcome:
    """What ONNX's reference evaluator computed, and what it could not, with the reason."""

    values: Mapping[str, NDArray[Any]]
    skipped: Mapping[str, str]


class OnnxRuntime:
    """An onnxruntime session on the CPU, kept for several batches.

    Args:
        model: Serialised ONNX model.
        level: Graph-optimisation level, one of `LEVELS`.
        threads: Intra-op threads.
        expose: Names of intermediate tensors to return beside the graph's outputs.

    Raises:
        ModelError: If onnxruntime refuses the model, or the level is unknown.
    """

    def __init__(
        self, model: bytes, level: str = "all", threads: int = 1, expose: Iterable[str] = ()
    ) -> None:
        import onnxruntime

        if level not in _LEVEL_NAMES:
            raise ModelError(f"unknown onnxruntime level {level!r}; expected one of {', '.join(LEVELS)}")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVEL_NAMES[level])
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        try:
            self._session = onnxruntime.InferenceSession(
                _exposing(model, expose), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"onnxruntime refuses the model: {_one_line(error)}") from error
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output by name.

        Raises:
            DataError: If the inputs do not fit the model.
        """
        try:
            values = self._session.run(list(self.outputs), dict(inputs))
        except Exception as error:
            raise DataError(
                f"onnxruntime cannot run the model on these inputs: {_one_line(error)}"
            ) from error
        return dict(zip(self.outputs, values, strict=True))


def run_onnxruntime(
    model: bytes,
    inputs: Mapping[str, NDArray[Any]],
    *,
    level: str = "all",
    threads: int = 1,
    expose: Iterable[str] = (),
) -> dict[str, NDArray[Any]]:
    """Run a model once in onnxruntime; arguments and errors as for `OnnxRuntime`."""
    return OnnxRuntime(model, level, threads, expose).run(inputs)


def run_reference_evaluator(
    model: bytes | onnx.ModelProto, inputs: Mapping[str, NDArray[Any]], expose: Iterable[str] | None = None
) -> ReferenceOutcome:
    """Run a model node by node in ONNX's reference evaluator.

    A QLinearConv is written out first (see `toolchain.decompose`): the evaluator's own has another
    arithmetic. The evaluator has gaps; a node that it cannot run is skipped, and so is every node that
    depends on it; the outcome names the tensors and the reason.

    Args:
        model: The model, serialised or not.
        inputs: Arrays by input name.
        expose: Names of the tensors to return; None for all of them.

    Raises:
        ModelError: If the evaluator cannot load the model.
    """
    from onnx.reference import ReferenceEvaluator

    original = _parsed(model) if isinstance(model, bytes) else model
    proto = decompose_q_linear_conv(original)
    try:
        evaluator = ReferenceEvaluator(proto)
    except Exception as error:
        raise ModelError(f"onnx's reference evaluator refuses the model: {_one_line(error)}") from error
    shapes = _inferred_shapes(proto)
    values: dict[str, Any] = {"": None, **inputs, **evaluator.rt_inits_}
    skipped: dict[str, str] = {}
    for node in evaluator.rt_nodes_:
        lost = next((name for name in node.input if name in skipped), None)
        if lost is not None:
            skipped.update(dict.fromkeys(node.output, skipped[lost]))
            continue
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                results = node.run(*(values[name] for name in node.input))
        except Exception as error:  # noqa: BLE001 - a gap of the witness, not of the model
            reason = f"{node.onnx_node.op_type}: {_one_line(error)}"
            skipped.update(dict.fromkeys(node.output, reason))
            continue
        wrong = _wrong_shape(node.output, results, shapes)
        if wrong is not None:
            skipped.update(dict.fromkeys(node.output, f"{node.onnx_node.op_type}: {wrong}"))
            continue
        values.update(zip(node.output, results, strict=False))
    written = [name for node in original.graph.node for name in node.output if name]
    wanted = set(written if expose is None else expose) | set(evaluator.output_names)
    return ReferenceOutcome(
        {name: np.asarray(values[name]) for name in written if name in wanted and name in values},
        {name: reason for name, reason in skipped.items() if name in wanted},
    )


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, list[int | None]]:
    """Shapes by ONNX's shape inference, None for free dimensions."""
    inferred = onnx.shape_inference.infer_shapes(model)
    return {
        value.name: [
            d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim
        ]
        for value in (*inferred.graph.value_info, *inferred.graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _wrong_shape(
    names: Iterable[str], results: Iterable[Any], shapes: Mapping[str, list[int | None]]
) -> str | None:
    """Say where the evaluator's result contradicts ONNX's own shape inference (it misreads some pads)."""
    for name, result in zip(names, results, strict=False):
        expected, found = shapes.get(name), np.shape(result)
        if expected is None:
            continue
        fits = len(expected) == len(found) and all(
            e in (None, f) for e, f in zip(expected, found, strict=True)
        )
        if not fits:
            return f"shape {found} where ONNX's shape inference says {expected}"
    return None


def certify(
    artifact: _Artifact | bytes,
    images: NDArray[Any],
    *,
    levels: Sequence[str] = LEVELS,
    threads: Sequence[int] = (1, 2),
    batch_sizes: Sequence[int] | None = None,
    reference: bool = False,
) -> tuple[Certificate, ...]:
    """Run the emulator and every other witness on the same images and compare all they compute.

    Args:
        artifact: An artifact, or a serialised ONNX model with one input.
        images: What the model's input takes, `(N, C, H, W)`.
        levels: onnxruntime's graph-optimisation levels, of `LEVELS`.
        threads: Thread counts for onnxruntime.
        batch_sizes: Sizes of the batches to run, each on the first images; None for all images at once.
        reference: Whether to ask ONNX's reference evaluator too (slow: it is plain Python).

    Returns:
        A row for each witness, level, thread count and batch size: first with every tensor exposed, then
        with the logits alone (and the graph's other outputs). What a float tail rounds, such as Softmax, is
        not compared.

    Raises:
        DataError: If there are fewer images than a batch size asks for, or none.
    """
    from .emulator import Emulator

    model = artifact if isinstance(artifact, bytes) else artifact.to_bytes()
    proto = _parsed(model)
    program = read_model(ir.from_proto(proto)) if isinstance(artifact, bytes) else artifact.program
    sizes = (len(images),) if batch_sizes is None else tuple(batch_sizes)
    if not len(images) or not sizes or min(sizes) < 1 or max(sizes) > len(images):
        raise DataError(
            f"batch sizes {sizes} need 1 to {len(images)} images; give more images or smaller batches"
        )
    if not threads or min(threads) < 1:
        raise DataError(f"thread counts {tuple(threads)}: expected whole numbers from 1")
    emulator = Emulator(program)
    feeds = {size: {program.inputs[0].name: images[:size]} for size in sizes}
    traces = {size: _exact_trace(emulator, images[:size]) for size in sizes}
    # Exposing every tensor keeps the emulator from fusing layers, as it keeps onnxruntime.
    results = [*(spec.name for spec in program.outputs), program.logits]
    outputs = [name for name in dict.fromkeys(results) if name in traces[sizes[0]]]
    fused = {size: emulator.trace(images[:size], outputs) for size in sizes}
    known = {name for node in proto.graph.node for name in node.output}
    rows: list[Certificate] = []
    for exposed, computed in ((True, traces), (False, fused)):
        expose = [name for name in (traces[sizes[0]] if exposed else outputs) if name in known]
        for level in levels:
            for count in threads:
                session = OnnxRuntime(model, level, count, expose)
                for size in sizes:
                    wanted = {name: computed[size][name] for name in [*expose, *outputs]}
                    found = compare(wanted, session.run(feeds[size]))
                    rows.append(Certificate("onnxruntime", level, count, size, exposed, found))
    if reference:
        rows.extend(_reference_row(model, feeds[size], traces[size], size, known) for size in sizes)
    return tuple(rows)


def _exact_trace(emulator: Emulator, images: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Every tensor that is defined to the bit."""
    trace = emulator.trace(images)
    return {name: array for name, array in trace.items() if name not in emulator.program.rounded}


def _reference_row(
    model: bytes,
    feed: Mapping[str, NDArray[Any]],
    trace: Mapping[str, NDArray[Any]],
    size: int,
    known: set[str],
) -> Certificate:
    outcome = run_reference_evaluator(model, feed)
    wanted = {name: array for name, array in trace.items() if name in known}
    found = compare(wanted, outcome.values, skip=outcome.skipped)
    skipped = {name: reason for name, reason in outcome.skipped.items() if name in wanted}
    return Certificate("onnx reference", "", 1, size, True, found, skipped)


def _parsed(model: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(model)
    except Exception as error:
        raise ModelError(f"the bytes are not an ONNX model: {_one_line(error)}") from error


def _exposing(model: bytes, names: Iterable[str]) -> bytes:
    """The model with more tensors among its outputs; onnxruntime infers their types itself."""
    wanted = list(names)
    if not wanted:
        return model
    proto = _parsed(model)
    present = {output.name for output in proto.graph.output}
    written = {name for node in proto.graph.node for name in node.output}
    for name in dict.fromkeys(wanted):
        if name not in present:
            if name not in written:
                raise ModelError(f"no node of the model writes the tensor {name!r} that is to be exposed")
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    return bytes(proto.SerializeToString())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
