"""A program written with real numbers: float layers between quantisers, as Q/DQ and QONNX have them.

Every tensor of codes has a meaning (see `scales`), every int32 accumulator a unit u, so that

    codes         real = (code - z) s
    accumulator   real = acc u            u = s_x s_w of a product, s_a / m_a of an addition, s_x / n of an average
    requantised   code = saturate(rint((real M s_y / u) / s_y) + z_y)

Where u is chosen as M s_y, which the step s_w of a layer's weights is free for, nothing is multiplied in between.

When every scale is a power of two and every accumulator stays below 2^24, all of these reals are integers of at most
24 bits times a power of two: each float32 operation is exact, in any order, and the codes are those of the program,
bit for bit. `RealGraph.doubts` tells what stands against it.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..float_model import IR_VERSION, OPSET
from .base import Built
from .doubts import bound_doubts, is_power_of_two
from .real_layers import emit_layer
from .scales import Meaning, meanings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .. import program as p
    from ..artifact import Artifact

__all__ = ["RealGraph", "value_info", "written"]

# A factor this near to one is the rounding of a multiplier to float32.
_ROUNDING = 2.0**-20


class RealGraph(ABC):
    """Walks a program and emits its graph; the quantisers are a subclass's.

    Attributes:
        program: What is written.
        meanings: Scale and zero point of each tensor of codes.
        real: Name of the real value of each tensor that has been emitted.
        units: Unit of each accumulator that has been emitted, shaped to broadcast against one sample.
        doubts: Why the graph need not have the program's bits, a sentence each; empty: it has.
    """

    target: str
    domains: tuple[tuple[str, int], ...] = (("", OPSET),)

    def __init__(self, artifact: Artifact) -> None:
        self.program = artifact.program
        self.meanings = meanings_of(artifact)
        self.real: dict[str, str] = {}
        self.units: dict[str, NDArray[Any]] = {}
        self.doubts: list[str] = []
        self._artifact_sha256 = artifact.sha256
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._taken = set(self.program.tensors)

    @abstractmethod
    def input(self, spec: p.TensorSpec) -> tuple[onnx.ValueInfoProto, str]:
        """The graph's input, and the name of its real value."""

    @abstractmethod
    def quantised(self, real: str, name: str, meaning: Meaning) -> str:
        """Emit the quantiser that makes the codes `name` of a real value; return the name of their real value."""

    @abstractmethod
    def moved(self, real: str, name: str, meaning: Meaning) -> str:
        """As `quantised`, of codes that were only moved: no rounding is due."""

    @abstractmethod
    def weights(self, layer: p.Conv | p.Dense, step: NDArray[np.float32]) -> str:
        """Emit a layer's weights, of one step or of one for each channel; return the name of their real value."""

    @abstractmethod
    def bias(self, layer: p.Conv | p.Dense, unit: NDArray[np.float32]) -> str:
        """Emit a layer's bias, in one unit or in one for each channel; return the name of its real value."""

    @abstractmethod
    def table(self, layer: p.Table) -> str:
        """Emit a table on codes; return the name of the result's real value."""

    def model(self) -> onnx.ModelProto:
        """Write the whole program.

        Raises:
            TargetError: It moves or averages something that has no form with reals.
        """
        inputs = []
        for spec in self.program.inputs:
            value, self.real[spec.name] = self.input(spec)
            inputs.append(value)
        for layer in self.program.layers:
            emit_layer(self, layer)
        outputs = [value_info(spec.name, spec.dtype, spec.shape) for spec in self.program.outputs]
        nodes = _without_identities(self._nodes, {spec.name for spec in self.program.outputs})
        graph = helper.make_graph(nodes, "ohmfold", inputs, outputs, self._initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in self.domains],
            ir_version=IR_VERSION,
            producer_name="ohmfold",
        )
        for reason in bound_doubts(self.program):
            self.doubt(reason)
        for key, value in self.metadata().items():
            model.metadata_props.add(key=f"ohmfold.{key}", value=json.dumps(value, sort_keys=True))
        return model

    def metadata(self) -> dict[str, Any]:
        """What the model says about itself, once it is written."""
        return {
            "target": self.target,
            "artifact_sha256": self._artifact_sha256,
            "bit_equal": {
                "everywhere": not self.doubts,
                "otherwise": "up to float rounding" if self.doubts else None,
                "reasons": self.doubts,
            },
            "codes": {
                name: {"scale": float(meaning.scale), "zero_point": meaning.zero_point}
                for name, meaning in sorted(self.meanings.items())
            },
        }

    def exact(self, what: str, values: Any) -> None:
        """Note a doubt unless all values are powers of two."""
        if not is_power_of_two(values):
            self.doubt(f"{what} is not a power of two")

    def doubt(self, reason: str) -> None:
        """Note why bits may differ, once."""
        if reason not in self.doubts:
            self.doubts.append(reason)

    def constant(self, wanted: str, array: Any) -> str:
        """Register an initialiser under a free name; return that."""
        name = self.free(wanted)
        self._initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = "", **attributes: Any
    ) -> None:
        """Emit a node; the names of its outputs are free or a tensor's own."""
        name = f"{next(filter(None, outputs), op)}.{op}"
        self._nodes.append(
            helper.make_node(op, list(inputs), list(outputs), name=name, domain=domain, **attributes)
        )

    def emit(self, op: str, inputs: Sequence[str], wanted: str, **attributes: Any) -> str:
        """Emit a node of one output under a free name; return that."""
        name = self.free(wanted)
        self.node(op, inputs, [name], **attributes)
        return name

    def free(self, wanted: str) -> str:
        """Return a name that nothing has: the one wanted, or with a number."""
        name, count = wanted, 0
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name

    def requantised(
        self,
        layer: p.Layer,
        real: str,
        unit: NDArray[Any],
        requantisation: p.Requantisation,
        bias: NDArray[np.int32] | None,
    ) -> None:
        """Emit the way from an accumulator's real value to codes."""
        meaning = self.meanings[layer.output]
        scale = requantisation.multiplier.astype(np.float64) * np.float64(meaning.scale)
        self.exact(f"the multiplier of layer '{layer.name}'", requantisation.multiplier)
        self.exact(f"the scale of '{layer.output}'", meaning.scale)
        real = self.multiplied(layer, real, scale / unit)
        if bias is not None:
            shift = self.constant(f"{layer.name}.shift", (bias * scale).astype(np.float32))
            real = self.emit("Add", [real, shift], f"{layer.output}.shifted")
        self.real[layer.output] = self.quantised(real, layer.output, meaning)

    def multiplied(self, layer: p.Layer, real: str, factor: Any) -> str:
        """Emit a multiplication, unless it is by one up to float32 rounding; return the name of the product."""
        values = np.asarray(factor, np.float64)
        if (np.abs(values - 1) < _ROUNDING).all():
            return real
        values = values.reshape(()) if values.size == 1 else values
        self.exact(f"a factor of layer '{layer.name}'", values)
        name = self.constant(f"{layer.name}.factor", values.astype(np.float32))
        return self.emit("Mul", [real, name], f"{layer.output}.scaled")


def written(graph: RealGraph, file: str) -> Built:
    """Return a graph as one file, with what its metadata promise."""
    content = graph.model().SerializeToString(deterministic=True)
    found = graph.metadata()["bit_equal"]
    note = (
        "bit-equal: every scale is a power of two and every sum is exact in float32"
        if found["everywhere"]
        else f"equal up to float rounding only: {found['reasons'][0]}"
    )
    return Built({file: bytes(content)}, {"bit_equal": found}, (note,))


def value_info(name: str, dtype: np.dtype[Any], shape: tuple[int | None, ...] | None) -> onnx.ValueInfoProto:
    """An input or output of a graph; a free dimension is the batch, `N`."""
    dims = None if shape is None else ["N" if size is None else size for size in shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), dims)


def _without_identities(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes, those before an Identity under the name behind it where nothing else reads their result."""
    readers: dict[str, int] = {}
    producers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    kept = []
    for node in nodes:
        source = node.input[0] if node.op_type == "Identity" else ""
        if source in producers and readers[source] == 1 and source not in outputs:
            producer = producers[source]
            producer.output[list(producer.output).index(source)] = node.output[0]
        else:
            kept.append(node)
    return kept
