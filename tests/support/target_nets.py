"""Artifacts that targets are tried on, and a way to run every layer of a Q/DQ model by itself."""

import functools

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from ohmfold.models.checkpoints import load_model
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.compiler import compile as compile_artifact
from ohmfold.toolchain.recipe import Recipe

SIDE, CHANNELS, CLASSES = 8, 2, 3


def residual_net(*, anything=False, activation="Relu", seed=0):
    """conv - batch norm - relu - (conv, +) - relu - pool - depthwise - mean - fc - relu - fc, as a float model.

    Args:
        anything: Also what power-of-two scales cannot have or QONNX has no form for: a batch norm after the addition,
            a concatenation, a LeakyReLU, padding, an average over windows that differ.
        activation: Of the hidden dense layer.
        seed: Of the weights.
    """
    rng = np.random.default_rng(seed)
    arrays, nodes = {}, []

    def constant(name, array):
        arrays[name] = np.asarray(array, np.float32)
        return name

    def weights(name, *shape):
        return constant(name, rng.normal(0, 0.4, shape))

    def node(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes))
        return output

    def norm(x, output, channels=4):
        values = (
            rng.uniform(0.5, 1.5, channels),
            *rng.normal(0, 0.2, (2, channels)),
            rng.uniform(0.5, 2, channels),
        )
        return node(
            "BatchNormalization", [x, *(constant(f"{output}_{i}", v) for i, v in enumerate(values))], output
        )

    x = node("Conv", ["pixels", weights("w1", 4, CHANNELS, 3, 3), weights("b1", 4)], "c1", pads=[1] * 4)
    x = skip = node("Relu", [norm(x, "bn1")], "r1")
    x = node("Conv", [x, weights("w2", 4, 4, 3, 3), weights("b2", 4)], "c2", pads=[1] * 4)
    x = node("Add", [x, skip], "add")
    if anything:
        x = norm(x, "bn2")
    x = node("Relu", [x], "r2")
    if anything:
        leaky = node("LeakyRelu", [node("Conv", [x, weights("w4", 4, 4, 1, 1)], "c4")], "leaky", alpha=0.1)
        x = node("Concat", [x, leaky], "joined", axis=1)
        x = node("Conv", [x, weights("w5", 4, 8, 1, 1), weights("b5", 4)], "c5")
        x = node("AveragePool", [x], "averaged", kernel_shape=[3, 3], pads=[1] * 4)
        pads = numpy_helper.from_array(np.array([0, 0, 1, 0, 0, 0, 1, 0], np.int64), "pads")
        x = node("Pad", [x, "pads"], "padded")
    x = node("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = node("Conv", [x, weights("w3", 4, 1, 3, 3)], "c3", pads=[1] * 4, group=4)
    x = (
        node("GlobalAveragePool", [x], "mean")
        if not anything
        else node("MaxPool", [x], "mean", kernel_shape=[5, 4])
    )
    x = node("Flatten", [x], "flat")
    x = node("Gemm", [x, weights("w6", 6, 4), weights("b6", 6)], "fc1", transB=1)
    x = node(activation, [x], "hidden")
    node("Gemm", [x, weights("w7", CLASSES, 6), weights("b7", CLASSES)], "logits", transB=1)
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        initializers + ([pads] if anything else []),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ir.from_proto(model)


def some_images(count=24, shape=(CHANNELS, SIDE, SIDE), seed=1):
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    images[0], images[1] = 0, 255
    return images


@functools.cache
def residual_artifact(*, anything=False, activation="Relu", seed=0, **recipe):
    model = residual_net(anything=anything, activation=activation, seed=seed)
    return compile_artifact(model, some_images(seed=seed + 7), Recipe(**recipe))


@functools.cache
def digits_artifact(scales="float"):
    """The bundled MNIST CNN at 3 bits, calibrated on blobs."""
    return compile_artifact(load_model("mnist-cnn"), blobs(16), Recipe(scales=scales))


def blobs(count, seed=0):
    """Images `(count, 1, 28, 28)` of smooth blobs, mostly dark as digits are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28]
    centres, widths = rng.uniform(6, 22, (count, 3, 2)), rng.uniform(2, 20, (count, 3))
    far = (y - centres[..., 0, None, None]) ** 2 + (x - centres[..., 1, None, None]) ** 2
    return (255 * np.exp(-far / widths[..., None, None]).max(axis=1)).astype(np.uint8)[:, None]


def codes_of(artifact):
    """Names of the tensors of codes that layers write."""
    written = {name for layer in artifact.program.layers for name in layer.outputs}
    return [n for n, s in artifact.program.tensors.items() if n in written and s.dtype in (np.uint8, np.int8)]


def layer_by_layer(model: bytes, artifact: Artifact, trace) -> dict:
    """Run a Q/DQ model so that every layer reads the codes of `trace`; returns the codes that layers write.

    What QuantizeLinear (or a table) writes goes out under another name, and its readers are fed.
    """
    import onnxruntime as ort

    proto, names = onnx.load_model_from_string(model), set(codes_of(artifact))
    types = {np.dtype(np.uint8): TensorProto.UINT8, np.dtype(np.int8): TensorProto.INT8}
    for node in proto.graph.node:
        node.output[:] = [f"{name}.made" if name in names else name for name in node.output]
    for name in names:
        proto.graph.input.append(helper.make_tensor_value_info(name, types[trace[name].dtype], None))
        proto.graph.output.append(onnx.ValueInfoProto(name=f"{name}.made"))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pixels = artifact.program.inputs[0].name
    feed = {name: trace[name] for name in (*names, pixels)}
    return {name: session.run([f"{name}.made"], feed)[0] for name in names}
