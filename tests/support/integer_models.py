"""Integer models in ONNX's text format, and random codes, weights, biases and steps to fill them with."""

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from ohmfold.toolchain.reader import read_program

f32 = np.float32


def build(signature, body, opset=21, **constants):
    text = f'<ir_version: 10, opset_import: ["" : {opset}]>\n g {signature} {{ {body} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model


def read(model):
    return read_program(ir.from_proto(model))


def codes(*shape, seed=0, low=0, high=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def weights(*shape, seed=1):
    return codes(*shape, seed=seed, low=-60, high=61, dtype=np.int8)


def bias(*shape, seed=2):
    return codes(*shape, seed=seed, low=-5000, high=5000, dtype=np.int32)


def steps(*shape, seed=3, around=0.01):
    return (np.random.default_rng(seed).uniform(0.5, 1.5, shape) * around).astype(f32)


Z = {"z": np.uint8(0), "z7": np.uint8(7), "z128": np.uint8(128), "one": f32(1.0)}
