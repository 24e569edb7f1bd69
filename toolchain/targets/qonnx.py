"""`qonnx`: the artifact in QONNX, the dialect of FINN and hls4ml, whose one operator `Quant` rounds to a grid.

    Quant(x, s, z, bits) = (clip(rint(x / s + z), low, high) - z) s        domain qonnx.custom_op.general

Every tensor keeps its name in the artifact and holds the real values of its codes, float32. Weights are real values
behind a `Quant` of their own width: 3-bit weights say 3. Codes with the zero point 128 become signed ones with the
zero point 0, which is what these tools take. The input is float32: pixel codes times the input's scale.

Source of the operator: github.com/fastmachinelearning/qonnx, docs/qonnx-custom-ops.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import TargetError
from .. import program as p
from ..float_model import OPSET
from .base import Built, Material, Options, Target
from .real_graph import RealGraph, value_info, written
from .real_layers import check_real

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from ..artifact import Artifact
    from .scales import Meaning

__all__ = ["DOMAIN", "QonnxOptions", "QonnxTarget"]

FILE = "qonnx.onnx"
DOMAIN = "qonnx.custom_op.general"
_HALF = 128


class QonnxOptions(Options):
    """The target has no settings."""


class QonnxTarget(Target[QonnxOptions]):
    """Float layers and `Quant` nodes, weights at their own width."""

    name: ClassVar[str] = "qonnx"
    description: ClassVar[str] = "a QONNX model, weights at their own width, for FINN and hls4ml"
    options = QonnxOptions

    def check(self, artifact: Artifact, options: QonnxOptions) -> None:  # noqa: ARG002 - it has none
        """Refuse layers without a form with reals, and tables."""
        check_real(artifact, self.name)
        for layer in artifact.program.layers:
            if isinstance(layer, p.Table):
                raise TargetError(
                    f"layer '{layer.name}' (Table): a function given as a table of 256 codes (a LeakyReLU, say) has no "
                    "form in QONNX; build qdq, or use ReLU"
                )

    def build(self, artifact: Artifact, options: QonnxOptions, material: Material | None = None) -> Built:
        """Build `qonnx.onnx`."""
        del material
        self.check(artifact, options)
        return written(_QonnxGraph(artifact), FILE)


def weight_width(codes: NDArray[Any]) -> tuple[int, bool]:
    """The smallest width of signed integers that holds some codes, and whether its lowest is left out (narrow)."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    bits = 2
    while low < -(1 << (bits - 1)) or high >= 1 << (bits - 1):
        bits += 1
    return bits, low > -(1 << (bits - 1))


class _QonnxGraph(RealGraph):
    target = "qonnx"
    domains = (("", OPSET), (DOMAIN, 1))

    def input(self, spec: p.TensorSpec) -> tuple[onnx.ValueInfoProto, str]:
        """Real values, float32; quantised to the codes that the artifact takes."""
        value = value_info(spec.name, np.dtype(np.float32), spec.shape)
        meaning = self.meanings.get(spec.name)
        if meaning is None:
            return value, spec.name
        return value, self._quant(spec.name, self.free(f"{spec.name}.quantised"), spec.dtype, meaning)

    def quantised(self, real: str, name: str, meaning: Meaning) -> str:
        """Quant."""
        return self._quant(real, name, self.program.tensors[name].dtype, meaning)

    def moved(self, real: str, name: str, meaning: Meaning) -> str:
        """Nothing: what was only moved lies on the grid."""
        del meaning
        self.node("Identity", [real], [name])
        return name

    def weights(self, layer: p.Conv | p.Dense, step: NDArray[np.float32]) -> str:
        """Real values behind a Quant of the codes' own width."""
        if step.ndim:
            per_row = (-1, *(1,) * (layer.weight.ndim - 1))
            step = step.reshape(per_row if isinstance(layer, p.Conv) else (1, -1))
        bits, narrow = weight_width(layer.weight)
        real = self.constant(f"{layer.name}.real", layer.weight.astype(np.float32) * step)
        operands = [real, self.constant(f"{layer.name}.step", step)]
        operands += [
            self.constant(f"{layer.name}.{key}", np.float32(x)) for key, x in (("zero", 0), ("bits", bits))
        ]
        return self.emit("Quant", operands, f"{layer.name}.weight", **_attributes(signed=True, narrow=narrow))

    def bias(self, layer: p.Conv | p.Dense, unit: NDArray[np.float32]) -> str:
        """Real values."""
        assert layer.bias is not None  # noqa: S101 - the caller has looked
        return self.constant(f"{layer.name}.bias", layer.bias.astype(np.float32) * unit)

    def table(self, layer: p.Table) -> str:
        """Refused by `QonnxTarget.check`."""
        raise TargetError(f"layer '{layer.name}' (Table): it has no form in QONNX")

    def _quant(self, real: str, output: str, dtype: np.dtype[Any], meaning: Meaning) -> str:
        """Emit the Quant of 8-bit codes; those that are symmetric about 128 become signed ones about 0."""
        symmetric = meaning.zero_point - np.iinfo(dtype).min == _HALF
        zero_point = 0 if symmetric else meaning.zero_point
        if zero_point:
            self.doubt(f"the zero point of '{output}' is {zero_point}, and Quant adds it before it rounds")
        operands = [real]
        for key, value in (("scale", meaning.scale), ("zero_point", zero_point), ("bits", 8)):
            operands.append(self.constant(f"{output}.{key}", np.float32(value)))
        signed = symmetric or dtype == np.int8
        self.node("Quant", operands, [output], **_attributes(signed=signed, narrow=False))
        return output


def _attributes(*, signed: bool, narrow: bool) -> dict[str, Any]:
    return {"domain": DOMAIN, "signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"}
