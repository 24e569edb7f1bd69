"""Check that the artifact is what the format promises."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from ...errors import ModelError
from ..float_model import IR_VERSION, OPSET
from ..reader import read_program

__all__ = ["CheckPass"]


class CheckPass(ir.passes.InPlacePass):
    """Verify an artifact; change nothing.

    1. Opset 21, IR version 10, standard `ai.onnx` operators only.
    2. One input with a free batch, uint8 (or float32 where the recipe says so).
    3. onnx's own checker, with full shape inference and type checks, accepts it.
    4. The reader turns it into a `Program`, so the emulator can run it.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Check rule after rule."""
        if model.opset_imports.get("") != OPSET or model.ir_version != IR_VERSION:
            raise ModelError(
                f"the artifact has opset {model.opset_imports.get('')} and IR {model.ir_version}, "
                f"expected {OPSET} and {IR_VERSION}"
            )
        foreign = sorted({f"{node.domain}::{node.op_type}" for node in model.graph if node.domain})
        if foreign:
            raise ModelError(f"the artifact holds operators outside ai.onnx: {', '.join(foreign)}")
        pixels = model.graph.inputs[0]
        if len(model.graph.inputs) != 1 or pixels.dtype not in (ir.DataType.UINT8, ir.DataType.FLOAT):
            raise ModelError(
                f"the artifact's input is {pixels.dtype}, expected one input of uint8 or float32"
            )
        try:
            onnx.checker.check_model(ir.to_proto(model), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            first = str(error).strip().splitlines()[0]
            raise ModelError(f"onnx's checker refuses the artifact: {first}") from error
        read_program(model)
        return ir.passes.PassResult(model, modified=False)
