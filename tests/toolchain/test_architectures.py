"""Architectures as their users write them: fire modules, dense blocks, post-activation residuals, 1-D signals."""

import numpy as np
import pytest
import torch
from torch import nn

import ohmfold
from ohmfold.errors import ExactnessError
from ohmfold.toolchain.witness import certify


class Fire(nn.Module):
    def __init__(self, channels, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.narrow = nn.Conv2d(squeezed, expanded, 1)
        self.wide = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.narrow(x)), torch.relu(self.wide(x))], 1)


class SqueezeNet(nn.Module):
    """Convolutional classifier: the logits are a global average."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(16, 4, 8),
            Fire(16, 4, 16), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(32, 8, 16),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(32, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1))
        )

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


class DenseNet(nn.Module):
    """Batch norms that follow concatenations, so that no convolution can take them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4, 3, padding=1, bias=False))
            for c in (8, 12, 16)
        )
        self.transition = nn.Sequential(nn.BatchNorm2d(20), nn.ReLU(), nn.Conv2d(20, 10, 1), nn.AvgPool2d(2))
        self.classifier = nn.Linear(640, 10)

    def forward(self, x):
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.classifier(self.transition(x).flatten(1))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.skip = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    """Post-activation, with ImageNet's normalisation at the entry and Softmax at the end."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            Block(8, 8, 1), Block(8, 16, 2), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        x = self.features((x - self.mean) / self.std)
        return torch.softmax(self.classifier(torch.flatten(x, 1)), -1)


class LeNet5(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


class Signal(nn.Module):
    """1-D: dilated depthwise convolutions, LeakyReLU, ReLU6, batch norm on features."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(2, 8, 5, padding=2), nn.BatchNorm1d(8), nn.LeakyReLU(0.1), nn.MaxPool1d(2),
            nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8), nn.BatchNorm1d(8), nn.ReLU6(), nn.AvgPool1d(2),
            nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5),
        )  # fmt: skip

    def forward(self, x):
        return self.body(x)


class Ensemble(nn.Module):
    """The mean of two heads: logits that are a residual addition."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(192, 5), nn.Linear(192, 5)])

    def forward(self, x):
        x = torch.flatten(x, 1)
        return (self.heads[0](x) + self.heads[1](x)) * 0.5


class PooledNorm(nn.Module):
    """A batch norm on pooled features as the logits."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(self.conv(x).mean((2, 3)))


class Shifted(nn.Module):
    """Zero padding of shifted pixels: no pixel code stands for its zero."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.dense = nn.Linear(384, 4)

    def forward(self, x):
        return self.dense(torch.relu(self.conv(x + 0.5)).flatten(1))


def ending(*layers):
    """A network whose last layer is not a product."""
    return lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4), *layers)


def convolution_to_the_end():
    """Logits at several positions, with a step for each channel."""
    return nn.Sequential(nn.Conv2d(3, 4, 7), nn.Flatten())


def average_to_the_end():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AvgPool2d(6), nn.Flatten())


def maximum_to_the_end():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(6), nn.Flatten())


CASES = [
    (Ensemble, (3, 8, 8)), (PooledNorm, (3, 8, 8)), (Shifted, (3, 8, 8)), (ending(nn.ReLU()), (3, 8, 8)),
    (ending(nn.LeakyReLU(0.2)), (3, 8, 8)), (convolution_to_the_end, (3, 8, 8)), (average_to_the_end, (3, 8, 8)),
    (maximum_to_the_end, (3, 8, 8)),
    (SqueezeNet, (3, 32, 32)), (DenseNet, (3, 16, 16)), (ResNet, (3, 32, 32)), (LeNet5, (1, 28, 28)), (Signal, (2, 32)),
]  # fmt: skip


def settled(kind, shape):
    torch.manual_seed(0)
    module = kind().train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.rand(8, *shape))
    return module.eval()


@pytest.mark.parametrize(("kind", "shape"), CASES, ids=lambda value: getattr(value, "__name__", ""))
def test_users_architectures_compile_and_every_witness_agrees(kind, shape):
    module = settled(kind, shape)
    images = np.random.default_rng(0).integers(0, 256, (16, *shape)).astype(np.uint8)
    artifact = ohmfold.compile(module, images, ohmfold.Recipe(weight_bits=8, granularity="channel"))
    assert all(row.comparison.equal for row in certify(artifact, images, batch_sizes=(1, 7)))
    emulator, twin = ohmfold.Emulator(artifact), ohmfold.Twin(artifact)
    pixels = torch.from_numpy(images).float() / 255
    assert torch.equal(twin(pixels), torch.from_numpy(emulator(images)))
    with torch.no_grad():
        wanted = module(pixels).numpy()
    got = emulator.run({"pixels": images})["logits"]
    # 8-bit weights and activations: a few percent of the spread of the logits, never another function.
    assert np.abs(got - wanted).max() < 0.25 * np.ptp(wanted)


def test_relu6_limits_in_power_of_two_mode_too():
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 8, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(512, 5)
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(4)  # most values are beyond 6
    images = np.random.default_rng(0).integers(0, 256, (32, 3, 12, 12)).astype(np.uint8)
    recipe = ohmfold.Recipe(weight_bits=8, granularity="channel", scales="pow2")
    artifact = ohmfold.compile(module, images, recipe)
    with torch.no_grad():
        wanted = module(torch.from_numpy(images).float() / 255).numpy()
    noise = np.square(ohmfold.Emulator(artifact)(images) - wanted).sum()
    assert noise < 0.01 * np.square(wanted).sum()


def test_an_export_that_changes_the_function_is_refused():
    module = nn.Sequential(nn.AvgPool2d(2, 2, divisor_override=3), nn.Flatten(), nn.Linear(48, 4))
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 8)).astype(np.uint8)
    with pytest.raises(ExactnessError, match="differs from torch"):
        ohmfold.compile(module, images)
