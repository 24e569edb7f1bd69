"""Small models to attack: a linear program with known answers, and a float network with a judge that runs it."""

import numpy as np
import torch
from torch import nn

from ohmfold.toolchain.attacks import Problem
from ohmfold.toolchain.program import Dense, Program, Reshape, Scale, TensorSpec

SHAPE = (1, 6, 6)


def linear_program(weight, shape=SHAPE, multiplier=2.0**-14):
    """A program of logits `codes @ weight * multiplier`; `weight` is int8 `(pixels, classes)`."""
    pixels, classes = weight.shape
    specs = [
        TensorSpec("pixels", np.dtype(np.uint8), (None, *shape)),
        TensorSpec("flat", np.dtype(np.uint8), (None, pixels)),
        TensorSpec("acc", np.dtype(np.int32), (None, classes)),
        TensorSpec("logits", np.dtype(np.float32), (None, classes)),
    ]
    layers = (
        Reshape(name="flatten", inputs=("pixels",), outputs=("flat",), shape=(0, -1)),
        Dense(
            name="dense",
            inputs=("flat",),
            outputs=("acc",),
            weight=weight,
            bias=None,
            input_zero_point=0,
            requantisation=None,
        ),
        Scale(name="scale", inputs=("acc",), outputs=("logits",), multiplier=np.float32(multiplier)),
    )
    return Program((specs[0],), (specs[3],), layers, {spec.name: spec for spec in specs}, "logits", "acc")


class _Affine(nn.Module):
    """`(x - shift) * scale`."""

    def __init__(self, shift, scale):
        super().__init__()
        self.shift, self.scale = shift, scale

    def forward(self, x):
        return (x - self.shift) * self.scale


def float_model(classes=5, scale=1.0, seed=0):
    """A small convolutional network on 1x6x6 pixels that tells all its classes; logits multiplied by `scale`."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        _Affine(0.5, 4.0), nn.Conv2d(1, 6, 3, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(96, 24, bias=False),
        nn.Tanh(), nn.Linear(24, classes, bias=False), _Affine(0.0, 4.0 * scale),
    )  # fmt: skip
    return model.eval()


class FloatJudge:
    """A float model as the judge; counts how often it was asked about each image that it was shown."""

    def __init__(self, model):
        self.model = model
        self.asked = 0

    def logits(self, images):
        self.asked += len(images)
        with torch.no_grad():
            return self.model(torch.from_numpy(images).float() / 255).numpy()

    def predict(self, images):
        return self.logits(images).argmax(axis=1)


class LabelJudge:
    """A judge that tells labels alone."""

    def __init__(self, model):
        self._judge = FloatJudge(model)

    @property
    def asked(self):
        return self._judge.asked

    def predict(self, images):
        return self._judge.predict(images)


def standing_images(judge, count, seed=1):
    """Random images, and the judge's labels of them."""
    images = np.random.default_rng(seed).integers(30, 226, (count, *SHAPE), np.uint8)
    return images, judge.predict(images)


def posed_problem(model, count=6, radius=20, seed=11, judge=None):
    """A problem whose images stand."""
    judge = judge or FloatJudge(model)
    images, labels = standing_images(judge, count)
    return Problem(model, judge, images, labels, radius, seed)
