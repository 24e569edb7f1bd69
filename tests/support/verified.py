"""Small artifacts to verify, with every kind of layer that matters, and copies of them with one wrong weight."""

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import numpy_helper
from torch import nn

import ohmfold
from ohmfold.toolchain.artifact import Artifact

SIDE = 8
_WEIGHTS = {"QLinearConv": 3, "MatMulInteger": 1}


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.conv(x))


@cache
def artifact(scales="float", *, residual=False):
    """conv (1 -> 4) - pool - [residual] - fc1 (48) - fc2 (5), 3 bits; fc1 is large enough to be packed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        middle = [Residual()] if residual else []
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), *middle, nn.Flatten(),
            nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 5),
        )  # fmt: skip
    images = np.random.default_rng(0).integers(0, 256, (32, 1, SIDE, SIDE), np.uint8)
    return ohmfold.compile(module.eval(), images, ohmfold.Recipe(weight_bits=3, scales=scales))


def with_one_wrong_weight(original, layer):
    """A copy whose weighted layer of that number has one weight off by one; and the layer in the program."""
    model = onnx.load_model_from_string(original.to_bytes())
    nodes = [node for node in model.graph.node if node.op_type in _WEIGHTS]
    name = nodes[layer].input[_WEIGHTS[nodes[layer].op_type]]
    tensor = next(t for t in model.graph.initializer if t.name == name)
    weight = numpy_helper.to_array(tensor).copy()
    flat = weight.reshape(-1)
    flat[flat.size // 2] += 1 if flat[flat.size // 2] < 3 else -1
    tensor.CopyFrom(numpy_helper.from_array(weight, name))
    return Artifact(ir.from_proto(model)), list(original.program.weighted_layers())[layer]


def real_images(count=12, seed=1):
    """Smooth images: what a data set would give."""
    rng = np.random.default_rng(seed)
    x = np.linspace(0, 3, SIDE)
    waves = [np.outer(np.sin(x * a + b), np.cos(x * c)) for a, b, c in rng.uniform(0, 3, (count, 3))]
    return ((np.stack(waves)[:, None] + 1) * 127).astype(np.uint8)
