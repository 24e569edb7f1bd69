"""An artifact so small that a chip takes milliseconds, and images that its exact integers classify without a fault."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from ohmfold.models.image_data import Dataset
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.emulator import Emulator

SIDE, CLASSES = 4, 5

_TEXT = f"""
<ir_version: 10, opset_import: ["" : 21]>
tiny (uint8[N, 1, {SIDE}, {SIDE}] x) => (float[N, {CLASSES}] logits)
<int64[2] shape = {{0, -1}}, float step = {{0.5}}>
{{
    flat = Reshape(x, shape)
    acc = MatMulInteger(flat, w)
    real = Cast<to = 1>(acc)
    logits = Mul(real, step)
}}
"""


def tiny_artifact(seed=0):
    """16 pixels times 5 columns of weights from -3 to 3."""
    model = onnx.parser.parse_model(_TEXT)
    weight = np.random.default_rng(seed).integers(-3, 4, (SIDE * SIDE, CLASSES)).astype(np.int8)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return Artifact(ir.from_proto(model))


def tiny_data(artifact, count=40, seed=1):
    """Random images, with the classes that the exact integers give them."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 1, SIDE, SIDE), np.uint8)
    return Dataset("tiny", images, Emulator(artifact).predict(images))
