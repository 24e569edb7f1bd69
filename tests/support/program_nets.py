"""Programs built by hand, layer after layer."""

from dataclasses import dataclass, field

import numpy as np
import torch

from ohmfold.toolchain.program import Program, TensorSpec

UINT8, INT8, INT32, FLOAT32 = (np.dtype(t) for t in (np.uint8, np.int8, np.int32, np.float32))


@dataclass
class Net:
    """A program under construction: the tensor at its end, as codes of `(C, H, W)`, and its zero point."""

    rng: np.random.Generator
    shape: tuple[int, ...]
    name: str = "pixels"
    dtype: np.dtype = UINT8
    zero_point: int = 0
    layers: list = field(default_factory=list)
    tensors: dict = field(default_factory=dict)

    def __post_init__(self):
        self.tensors[self.name] = TensorSpec(self.name, self.dtype, (None, *self.shape))

    def new(self, dtype, shape):
        name = f"t{len(self.tensors)}"
        self.tensors[name] = TensorSpec(name, np.dtype(dtype), (None, *shape))
        return name

    def add(self, kind, shape, /, *, dtype=None, zero_point=None, inputs=None, **fields):
        dtype = self.dtype if dtype is None else np.dtype(dtype)
        name = self.new(dtype, shape)
        self.layers.append(
            kind(name=f"layer_{name}", inputs=inputs or (self.name,), outputs=(name,), **fields)
        )
        self.name, self.shape, self.dtype = name, tuple(shape), dtype
        self.zero_point = self.zero_point if zero_point is None else zero_point
        return name

    def program(self, logits, codes=None):
        spec = self.tensors["pixels"]
        return Program((spec,), (self.tensors[logits],), tuple(self.layers), self.tensors, logits, codes)


def images_for(program, batch, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (batch, *program.inputs[0].shape[1:]), np.uint8)
    images[1:3] = np.array([0, 255], np.uint8)[: len(images[1:3])].reshape(-1, *[1] * (images.ndim - 1))
    return images


def pixels_of(images):
    return torch.from_numpy(images).float() / 255


def same_bits(found, expected):
    return found.dtype == torch.float32 and np.array_equal(
        found.detach().numpy().view(np.int32), expected.view(np.int32)
    )
