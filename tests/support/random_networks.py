"""Small float ONNX classifiers drawn over the whole list of supported operators."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Builder:
    """A graph under construction: nodes, initialisers, and the shape of every value without its batch."""

    rng: np.random.Generator
    nodes: list = field(default_factory=list)
    initializers: list = field(default_factory=list)
    shapes: dict = field(default_factory=dict)

    def constant(self, array) -> str:
        name = f"const_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weights(self, *shape, scale=1.0) -> str:
        return self.constant((scale * self.rng.standard_normal(shape)).astype(np.float32))

    def node(self, op_type, inputs, shape, **attributes) -> str:
        output = f"value_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op_type, inputs, [output], f"node_{len(self.nodes)}", **attributes)
        )
        self.shapes[output] = tuple(shape)
        return output

    def model(self, result: str, image: tuple, opset: int = 21) -> onnx.ModelProto:
        pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", *image])
        logits = helper.make_tensor_value_info(result, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "random", [pixels], [logits], self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _windowed(size, kernel, stride, dilation, begin, end, *, ceil=False):
    """Number of windows; 0 where none fits, or where versions of ceil_mode differ in the last one."""
    reach = (kernel - 1) * dilation + 1
    room = size + begin + end - reach
    if room < 0:
        return 0
    steps = -(-room // stride) if ceil else room // stride
    return 0 if ceil and steps * stride >= size + begin else steps + 1


def _pick_windows(draw, size, *, largest_pad=2, dilated=True):
    rank = len(size)
    kernel = [draw(st.integers(1, min(3, n))) for n in size]
    dilation = [draw(st.sampled_from([1, 1, 2])) if dilated else 1 for _ in size]
    stride = [draw(st.sampled_from([1, 1, 2])) for _ in size]
    limits = [min(largest_pad, k - 1) if largest_pad < 2 else largest_pad for k in kernel]
    pads = [draw(st.integers(0, limits[i % rank])) for i in range(2 * rank)]
    return kernel, stride, dilation, pads


def _sizes(size, kernel, stride, dilation, pads, *, ceil=False):
    rank = len(size)
    return [
        _windowed(size[i], kernel[i], stride[i], dilation[i], pads[i], pads[rank + i], ceil=ceil)
        for i in range(rank)
    ]


def conv(draw, b, x):
    channels, *size = b.shapes[x]
    kernel, stride, dilation, pads = _pick_windows(draw, size)
    out = _sizes(size, kernel, stride, dilation, pads)
    if min(out) < 1:
        return x
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    outputs = groups * draw(st.integers(1, max(1, 6 // groups)))
    inputs = [x, b.weights(outputs, channels // groups, *kernel, scale=0.4)]
    if draw(st.booleans()):
        inputs.append(b.weights(outputs, scale=0.2))
    return b.node(
        "Conv", inputs, (outputs, *out), kernel_shape=kernel, strides=stride, dilations=dilation, pads=pads,
        group=groups,
    )  # fmt: skip


def same_conv(draw, b, x):
    channels, *size = b.shapes[x]
    kernel = [3 if n >= 2 else 1 for n in size]
    pads = [k // 2 for k in kernel] * 2
    inputs = [x, b.weights(channels, channels, *kernel, scale=0.4), b.weights(channels, scale=0.2)]
    return b.node("Conv", inputs, (channels, *size), kernel_shape=kernel, pads=pads)


def batch_norm(draw, b, x):
    channels = b.shapes[x][0]
    gamma = b.rng.uniform(-1.5, 1.5, channels)
    gamma[draw(st.integers(0, channels - 1))] *= draw(st.sampled_from([1.0, 1e-7, 0.0]))
    parameters = [
        gamma,
        b.rng.normal(size=channels),
        b.rng.normal(size=channels),
        b.rng.uniform(0.2, 2, channels),
    ]
    return b.node(
        "BatchNormalization", [x, *(b.constant(p.astype(np.float32)) for p in parameters)], b.shapes[x]
    )


def relu(draw, b, x):
    return b.node("Relu", [x], b.shapes[x])


def clip(draw, b, x):
    low, high = draw(st.sampled_from([(0.0, 6.0), (0.0, 0.5), (-1.0, 1.0), (0.0, None), (-0.5, None)]))
    inputs = [x, b.constant(np.float32(low))]
    if high is not None:
        inputs.append(b.constant(np.float32(high)))
    return b.node("Clip", inputs, b.shapes[x])


def leaky_relu(draw, b, x):
    return b.node("LeakyRelu", [x], b.shapes[x], alpha=draw(st.sampled_from([0.01, 0.1, 0.3])))


def max_pool(draw, b, x):
    channels, *size = b.shapes[x]
    kernel, stride, dilation, pads = _pick_windows(draw, size, largest_pad=1)
    ceil = draw(st.booleans()) and max(dilation) == 1
    out = _sizes(size, kernel, stride, dilation, pads, ceil=ceil)
    if min(out) < 1:
        return x
    return b.node(
        "MaxPool", [x], (channels, *out), kernel_shape=kernel, strides=stride, dilations=dilation, pads=pads,
        ceil_mode=int(ceil),
    )  # fmt: skip


def average_pool(draw, b, x):
    channels, *size = b.shapes[x]
    kernel, stride, dilation, pads = _pick_windows(draw, size, largest_pad=1, dilated=False)
    out = _sizes(size, kernel, stride, dilation, pads)
    if min(out) < 1:
        return x
    return b.node(
        "AveragePool", [x], (channels, *out), kernel_shape=kernel, strides=stride, pads=pads,
        count_include_pad=int(draw(st.booleans())),
    )  # fmt: skip


def residual(draw, b, x):
    """Pre- or post-activation: x + f(x), the batch norms and activations anywhere."""
    y = draw(st.sampled_from([batch_norm, relu, same_conv]))(draw, b, x)
    y = same_conv(draw, b, y)
    if draw(st.booleans()):
        y = batch_norm(draw, b, y)
    z = b.node("Add", [x, y] if draw(st.booleans()) else [y, x], b.shapes[x])
    follow = draw(st.sampled_from([None, relu, batch_norm, "both"]))
    if follow == "both":
        normalised = relu(draw, b, batch_norm(draw, b, z))
        return b.node("Add", [z, same_conv(draw, b, normalised)], b.shapes[z])
    return z if follow is None else follow(draw, b, z)


def concat(draw, b, x):
    other = draw(st.sampled_from([same_conv, relu, leaky_relu]))(draw, b, x)
    parts = [x, other] if draw(st.booleans()) else [other, x, other]
    channels = sum(b.shapes[p][0] for p in parts)
    return b.node("Concat", parts, (channels, *b.shapes[x][1:]), axis=1)


def zero_pad(draw, b, x):
    channels, *size = b.shapes[x]
    pads = [draw(st.integers(0, 2)) for _ in range(2 * len(size))]
    full = [0, 0, *pads[: len(size)], 0, 0, *pads[len(size) :]]
    shape = [n + pads[i] + pads[len(size) + i] for i, n in enumerate(size)]
    return b.node("Pad", [x, b.constant(np.array(full, np.int64))], (channels, *shape))


def transpose(draw, b, x):
    shape = b.shapes[x]
    if len(shape) != 3:
        return x
    return b.node("Transpose", [x], (shape[0], shape[2], shape[1]), perm=[0, 1, 3, 2])


def scale_channels(draw, b, x):
    channels, *size = b.shapes[x]
    factor = b.rng.uniform(0.3, 2, (channels, *[1] * len(size))).astype(np.float32)
    return b.node(draw(st.sampled_from(["Mul", "Div", "Add", "Sub"])), [x, b.constant(factor)], b.shapes[x])


def identity(draw, b, x):
    return b.node(draw(st.sampled_from(["Identity", "Dropout"])), [x], b.shapes[x])


STEPS = [
    conv, conv, batch_norm, relu, relu, clip, leaky_relu, max_pool, average_pool, residual, residual, concat, zero_pad,
    transpose, scale_channels, identity,
]  # fmt: skip


def _head(draw, b, x):
    channels, *size = b.shapes[x]
    kinds = ["flatten", "reshape", "mean", "pool", "pool-only", "conv"]
    if not any(node.op_type == "Conv" for node in b.nodes):
        kinds.remove("pool-only")  # a network without any weights is refused
    kind = draw(st.sampled_from(kinds))
    if kind == "conv":
        y = b.node("Conv", [x, b.weights(3, channels, *[1] * len(size))], (3, *size))
        y = b.node("GlobalAveragePool", [y], (3, *[1] * len(size)))
        return b.node("Flatten", [y], (3,), axis=1)
    if kind in ("mean", "pool", "pool-only"):
        axes = b.constant(np.arange(2, 2 + len(size)))
        if kind == "mean":
            flat = b.node("ReduceMean", [x, axes], (channels,), keepdims=0)
        else:
            pooled = b.node("GlobalAveragePool", [x], (channels, *[1] * len(size)))
            flat = b.node("Flatten", [pooled], (channels,), axis=1)
        if kind == "pool-only":
            return flat
    else:
        features = channels * int(np.prod(size))
        if kind == "flatten":
            flat = b.node("Flatten", [x], (features,), axis=1)
        else:
            flat = b.node("Reshape", [x, b.constant(np.array([-1, features], np.int64))], (features,))
    features = b.shapes[flat][0]
    if draw(st.booleans()):
        flat = b.node("Relu", [_dense(draw, b, flat, 5)], (5,))
    return _dense(draw, b, flat, draw(st.integers(2, 4)))


def _dense(draw, b, x, outputs):
    features = b.shapes[x][0]
    if draw(st.booleans()):
        inputs = [x, b.weights(outputs, features, scale=0.5)]
        if draw(st.booleans()):
            inputs.append(b.weights(outputs))
        return b.node("Gemm", inputs, (outputs,), transB=1)
    y = b.node("MatMul", [x, b.weights(features, outputs, scale=0.5)], (outputs,))
    return b.node("Add", [y, b.weights(outputs)], (outputs,)) if draw(st.booleans()) else y


@st.composite
def networks(draw):
    """Draw (float model, uint8 images (7, C, H, W) or (7, C, L))."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    rank = draw(st.sampled_from([2, 2, 2, 1]))
    image = (draw(st.integers(1, 3)), *(draw(st.integers(3, 8)) for _ in range(rank)))
    b.shapes["pixels"] = image
    x = "pixels"
    if draw(st.booleans()):
        shape = (1, image[0], *[1] * rank)
        x = b.node("Sub", [x, b.constant(b.rng.uniform(0, 0.6, shape).astype(np.float32))], image)
        x = b.node("Div", [x, b.constant(b.rng.uniform(0.2, 1, shape).astype(np.float32))], image)
    x = draw(st.sampled_from([conv, conv, conv, max_pool, identity, batch_norm, zero_pad]))(draw, b, x)
    for _ in range(draw(st.integers(1, 5))):
        x = draw(st.sampled_from(STEPS))(draw, b, x)
    x = _head(draw, b, x)
    tail = draw(st.sampled_from([None, None, "Softmax", "ArgMax"]))
    if tail is not None:
        x = b.node(tail, [x], b.shapes[x], axis=1)
    images = b.rng.integers(0, 256, (7, *image)).astype(np.uint8)
    images[0], images[1] = 0, 255
    model = b.model(x, image)
    if tail == "ArgMax":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return model, images


@st.composite
def recipes(draw):
    """Draw the settings of a recipe, as keyword arguments."""
    bits = draw(st.integers(1, 8))
    levels = ["linear"] + (["full-range"] if bits > 1 else []) + (["log2"] if 2 <= bits <= 4 else [])
    return {
        "weight_bits": bits,
        "levels": draw(st.sampled_from(levels)),
        "step": draw(st.sampled_from(["max", "mse"])),
        "granularity": draw(st.sampled_from(["tensor", "channel"])),
        "calibration": draw(st.sampled_from(["min-max", "percentile", "mse"])),
        "bias_correction": draw(st.booleans()),
        "input": draw(st.sampled_from(["uint8", "uint8", "float32"])),
    }
