"""`qdq`: the artifact as a Q/DQ model, for tools that read quantisation from QuantizeLinear and DequantizeLinear.

    codes --DequantizeLinear--> float layer --QuantizeLinear--> codes

QuantizeLinear writes each tensor of codes under its name in the artifact. Weights are int8 initialisers behind a
DequantizeLinear (ONNX has no 3-bit type: 3-bit codes lie in int8), biases int32 ones. The input stays what the
artifact takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from onnx import TensorProto

from .. import program as p
from .base import Built, Material, Options, Target
from .doubts import rounding_doubts, weight_doubts
from .real_graph import RealGraph, value_info, written
from .real_layers import check_real

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from ..artifact import Artifact
    from .scales import Meaning

__all__ = ["QdqOptions", "QdqTarget"]

FILE = "qdq.onnx"


class QdqOptions(Options):
    """The target has no settings."""


class QdqTarget(Target[QdqOptions]):
    """Float layers between QuantizeLinear and DequantizeLinear, int8 weights."""

    name: ClassVar[str] = "qdq"
    description: ClassVar[str] = "a Q/DQ model of standard ONNX, for tools such as TensorRT and OpenVINO"
    options = QdqOptions

    def check(self, artifact: Artifact, options: QdqOptions) -> None:  # noqa: ARG002 - it has none
        """Refuse layers without a form with reals."""
        check_real(artifact, self.name)

    def build(self, artifact: Artifact, options: QdqOptions, material: Material | None = None) -> Built:
        """Build `qdq.onnx`."""
        del material
        self.check(artifact, options)
        return written(_QdqGraph(artifact), FILE)


class _QdqGraph(RealGraph):
    target = "qdq"

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact)
        for reason in (*weight_doubts(self.program), *rounding_doubts(self.program)):
            self.doubt(reason)

    def input(self, spec: p.TensorSpec) -> tuple[onnx.ValueInfoProto, str]:
        """Codes (or floats), as the artifact takes them."""
        value = value_info(spec.name, spec.dtype, spec.shape)
        meaning = self.meanings.get(spec.name)
        return value, spec.name if meaning is None else self._dequantised(spec.name, meaning)

    def quantised(self, real: str, name: str, meaning: Meaning) -> str:
        """QuantizeLinear, DequantizeLinear."""
        self.node("QuantizeLinear", [real, *self._parameters(name, meaning)], [name])
        return self._dequantised(name, meaning)

    moved = quantised

    def weights(self, layer: p.Conv | p.Dense, step: NDArray[np.float32]) -> str:
        """An int8 initialiser behind DequantizeLinear."""
        codes = self.constant(f"{layer.name}.codes", layer.weight.astype(np.int8))
        operands = [codes, self.constant(f"{layer.name}.step", step)]
        operands.append(self.constant(f"{layer.name}.zero", np.zeros(step.shape, np.int8)))
        axis = {"axis": 0 if isinstance(layer, p.Conv) else 1} if step.ndim else {}
        return self.emit("DequantizeLinear", operands, f"{layer.name}.weight", **axis)

    def bias(self, layer: p.Conv | p.Dense, unit: NDArray[np.float32]) -> str:
        """An int32 initialiser behind DequantizeLinear."""
        codes = self.constant(f"{layer.name}.bias_codes", layer.bias)
        operands = [codes, self.constant(f"{layer.name}.bias_unit", unit)]
        axis: dict[str, Any] = {"axis": 0} if unit.ndim else {}
        return self.emit("DequantizeLinear", operands, f"{layer.name}.bias", **axis)

    def table(self, layer: p.Table) -> str:
        """Gather from the table, on the codes themselves."""
        index = self.emit("Cast", [layer.input], f"{layer.name}.index", to=TensorProto.INT32)
        if layer.table.dtype == np.int8:
            lowest = self.constant(f"{layer.name}.lowest", np.int32(-128))
            index = self.emit("Sub", [index, lowest], f"{layer.name}.place")
        table = self.constant(f"{layer.name}.table", layer.table)
        self.node("Gather", [table, index], [layer.output], axis=0)
        return self._dequantised(layer.output, self.meanings[layer.output])

    def _dequantised(self, codes: str, meaning: Meaning) -> str:
        return self.emit("DequantizeLinear", [codes, *self._parameters(codes, meaning)], f"{codes}.real")

    def _parameters(self, name: str, meaning: Meaning) -> list[str]:
        dtype = self.program.tensors[name].dtype
        scale = self.constant(f"{name}.scale", np.float32(meaning.scale))
        return [scale, self.constant(f"{name}.zero_point", np.asarray(meaning.zero_point, dtype))]
