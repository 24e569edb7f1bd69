"""Programs by hand that end in a dense layer and logits."""

import numpy as np
from program_nets import INT32, UINT8, Net

from ohmfold.toolchain import program as p


def requantisation(multiplier, zero_point=0, dtype=UINT8):
    return p.Requantisation(np.asarray(multiplier, np.float32), zero_point, dtype)


def finish(net, *, multiplier=0.013):
    """Dense layer and logits."""
    features = int(np.prod(net.shape))
    if len(net.shape) > 1:
        net.add(p.Reshape, (features,), shape=(0, features))
    weight = net.rng.integers(-3, 4, (features, 5)).astype(np.int8)
    codes = net.add(
        p.Dense, (5,), dtype=INT32, weight=weight, bias=net.rng.integers(-99, 99, 5).astype(np.int32),
        input_zero_point=net.zero_point, requantisation=None,
    )  # fmt: skip
    logits = net.add(p.Scale, (5,), dtype=np.float32, multiplier=np.float32(multiplier))
    return net.program(logits, codes)


def conv(net, outputs, *, kernel=(3, 3), pads=(0, 0, 0, 0), strides=(1, 1), dilations=(1, 1), groups=1, levels=3,
         requantise=None, bias=True):  # fmt: skip
    channels, *size = net.shape
    rank = len(size)
    places = [
        (size[i] + pads[i] + pads[rank + i] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i in range(rank)
    ]
    weight = net.rng.integers(-levels, levels + 1, (outputs, channels // groups, *kernel)).astype(np.int8)
    return net.add(
        p.Conv, (outputs, *places), dtype=requantise.dtype if requantise else INT32,
        zero_point=requantise.zero_point if requantise else 0, weight=weight,
        bias=net.rng.integers(-500, 500, outputs).astype(np.int32) if bias else None, input_zero_point=net.zero_point,
        strides=tuple(strides), pads=tuple(pads), dilations=tuple(dilations), groups=groups, requantisation=requantise,
    )  # fmt: skip


def conv_net():
    """A convolution, a pool, a depthwise convolution, a dense layer."""
    net = Net(np.random.default_rng(0), (2, 9, 9))
    conv(net, 8, pads=(1, 1, 1, 1), requantise=requantisation(0.02))
    net.add(
        p.MaxPool,
        (8, 5, 5),
        kernel=(2, 2),
        strides=(2, 2),
        pads=(0, 0, 1, 1),
        dilations=(1, 1),
        ceil_mode=False,
    )
    conv(net, 8, pads=(1, 1, 1, 1), groups=8, requantise=requantisation(0.05, 128))
    return finish(net)
