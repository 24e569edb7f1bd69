"""A toy problem and toy networks that every training method learns within a second or two."""

import numpy as np
import torch
from torch import nn

from ohmfold.models.image_data import Dataset

SIDE, CLASSES = 8, 4


def toy_data(count: int = 160, seed: int = 0, high: int = 100) -> Dataset:
    """Noise below `high` with one bright quarter, which is the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, high, (count, 1, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, count)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 255 - high
    return Dataset("toy", images, labels)


class ToyChain(nn.Module):
    """Convolution, pool, dense: a plain chain like the MNIST CNN's."""

    def __init__(self, channels: int = 6, hidden: int = 16, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, kernel, padding=kernel // 2)
        self.fc1 = nn.Linear(channels * (SIDE // 2) ** 2, hidden)
        self.fc2 = nn.Linear(hidden, CLASSES)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.flatten(self.pool(self.relu(self.conv(images))), 1)
        return self.fc2(self.relu(self.fc1(x)))


def toy_chain(seed: int = 0, **sizes: int) -> ToyChain:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ToyChain(**sizes)
