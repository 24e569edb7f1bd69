"""Small ONNX models from ONNX's text format, and a runner for float models."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import numpy_helper

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'


def parsed(text, **arrays) -> ir.Model:
    """Parse a graph and bind `arrays` as initialisers; `fc__weight` becomes the name `fc.weight`."""
    model = onnx.parser.parse_model(HEADER + text)
    for name, array in arrays.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name.replace("__", ".")))
    for node in model.graph.node:
        node.input[:] = [name.replace("__", ".") for name in node.input]
    return ir.from_proto(model)


def run_float(model: ir.Model, **inputs):
    """Run a model in onnxruntime without optimisations; return its first output."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]


def operators(model: ir.Model) -> list[str]:
    """Return the operator of each node in order."""
    return [node.op_type for node in model.graph]
