"""Small programs of every kind of layer that a crossbar runs, drawn from a seed."""

import math

import numpy as np
from program_nets import INT8, UINT8, Net

from ohmfold.toolchain.program import Conv, Dense, MaxPool, Requantisation, Reshape, Scale


def requantised(acc, layer):
    """Codes of int32 sums: one float32 product, clipped, rounded half to even."""
    if layer.requantisation is None:
        return acc
    found = layer.requantisation
    f = acc.astype(np.float32) * found.multiplier
    assert f.dtype == np.float32
    clipped = np.clip(f, np.float32(found.low - found.zero_point), np.float32(found.high - found.zero_point))
    return (np.rint(clipped).astype(np.int64) + found.zero_point).astype(found.dtype)


class DrawnNet(Net):
    """A net of convolutions and dense layers, of signed and unsigned codes."""

    # Channels, height and width of the map that a reshape flattened.
    flattened = None

    def requantisation(self, reach, outputs, dtype):
        limits = np.iinfo(dtype)
        multiplier = (self.rng.uniform(0.3, 2, outputs) * 200 / reach).astype(np.float32)
        return Requantisation(multiplier, int(self.rng.integers(limits.min, limits.max + 1)), np.dtype(dtype))

    def convolve(self, outputs, kernel, *, groups=1, strides=1, pads=None, dilations=1, dtype=UINT8, most=3):
        channels, *space = self.shape
        rank = len(space)
        pads = (0,) * 2 * rank if pads is None else pads
        weight = self.rng.integers(-most, most + 1, (outputs, channels // groups, *kernel)).astype(np.int8)
        size = [
            (n + pads[i] + pads[rank + i] - (kernel[i] - 1) * dilations - 1) // strides + 1
            for i, n in enumerate(space)
        ]
        reach = most * 80 * math.sqrt(weight[0].size)
        found = self.requantisation(reach, (outputs, *[1] * rank), dtype)
        self.add(
            Conv,
            (outputs, *size),
            dtype=dtype,
            zero_point=found.zero_point,
            weight=weight,
            bias=self.rng.integers(-500, 500, outputs).astype(np.int32),
            input_zero_point=self.zero_point,
            strides=(strides,) * rank,
            pads=pads,
            dilations=(dilations,) * rank,
            groups=groups,
            requantisation=found,
        )

    def flatten(self):
        self.flattened = (*self.shape[:1], *(1,) * (3 - len(self.shape)), *self.shape[1:])
        self.add(Reshape, (math.prod(self.shape),), shape=(0, -1))

    def dense(self, outputs, *, dtype=None, most=3):
        weight = self.rng.integers(-most, most + 1, (self.shape[0], outputs)).astype(np.int8)
        found = (
            None
            if dtype is None
            else self.requantisation(most * 80 * math.sqrt(len(weight)), (outputs,), dtype)
        )
        self.add(
            Dense,
            (outputs,),
            dtype=np.int32 if found is None else dtype,
            zero_point=0 if found is None else found.zero_point,
            weight=weight,
            bias=None if found else self.rng.integers(-500, 500, outputs).astype(np.int32),
            input_zero_point=self.zero_point,
            requantisation=found,
        )

    def logits(self):
        sums = self.name
        return self.program(self.add(Scale, self.shape, dtype=np.float32, multiplier=np.float32(0.5)), sums)


def maps(seed=0, most=3):
    """Strides, padding, groups, signed codes, dilations, depthwise, pooling, a flattened map and a vector."""
    net = DrawnNet(np.random.default_rng(seed), (3, 10, 9))
    net.convolve(6, (3, 3), pads=(1, 1, 1, 1), dtype=INT8, most=most)
    net.convolve(8, (3, 2), groups=2, strides=2, pads=(1, 0, 0, 1), most=most)
    net.convolve(8, (2, 2), groups=8, dilations=2, dtype=INT8, most=most)
    window = {"kernel": (2, 2), "strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "ceil_mode": False}
    net.add(MaxPool, (8, 2, 2), **window)
    net.flatten()
    net.dense(7, dtype=UINT8, most=most)
    net.dense(4, most=most)
    return net.logits(), net.flattened


def lines(seed=0, most=3):
    """One spatial axis, and a dense layer on its flattened map."""
    net = DrawnNet(np.random.default_rng(seed), (2, 17))
    net.convolve(4, (3,), pads=(2, 1), strides=2, dtype=INT8, most=most)
    net.convolve(6, (2,), groups=2, dilations=2, dtype=UINT8, most=most)
    net.flatten()
    net.dense(3, most=most)
    return net.logits(), net.flattened


NETS = {"maps": maps, "lines": lines}
