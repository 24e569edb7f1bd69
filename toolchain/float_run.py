"""Run a float (or Q/DQ) model in onnxruntime and watch its intermediate values; the passes' own eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from ..errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["FloatRun"]

_BYTES_PER_BATCH = 256 << 20


class FloatRun:
    """A model with chosen values exposed, run batch by batch.

    onnxruntime is used with basic optimisations and one thread: its results then do not depend on how many
    cores there are, and so neither do the scales that are calibrated from them.

    Args:
        model: The model; not changed.
        names: Values to return beside the graph's outputs.
    """

    def __init__(self, model: ir.Model, names: Sequence[str]) -> None:
        import onnxruntime as ort

        proto = ir.to_proto(model)
        present = {output.name for output in proto.graph.output}
        self.names = list(dict.fromkeys(names))
        for name in self.names:
            if name not in present and name != model.graph.inputs[0].name:
                proto.graph.output.append(onnx.ValueInfoProto(name=name))
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = ort.InferenceSession(
                proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelError(f"onnxruntime refuses the model: {_one_line(error)}") from error
        self._input = self._session.get_inputs()[0].name

    def batches(self, pixels: NDArray[np.uint8], scale: float) -> Iterator[dict[str, NDArray[np.float32]]]:
        """Yield the exposed values for consecutive batches of `scale * pixels` in float32."""
        size = max(1, min(128, _BYTES_PER_BATCH // max(1, 64 * pixels[:1].nbytes * 4)))
        computed = [name for name in self.names if name != self._input]
        for start in range(0, len(pixels), size):
            values = np.float32(scale) * pixels[start : start + size].astype(np.float32)
            try:
                found = self._session.run(computed, {self._input: values}) if computed else []
            except Exception as error:
                raise ModelError(f"onnxruntime cannot run the model: {_one_line(error)}") from error
            results = dict(zip(computed, found, strict=True))
            if self._input in self.names:
                results[self._input] = values
            yield results


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
