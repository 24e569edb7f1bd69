"""VGG-like networks: stacks of 3x3 convolutions with batch norm, max pools between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Vgg(nn.Module):
    """Stages of conv 3x3 - bn - relu, each closed by a max pool 2; then one dense layer.

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition"
    (2015), Table 1, with batch norm and without the two wide dense layers, as is usual on small images.

    Args:
        stages: Output channels of each convolution, by stage: `((64,), (128,), (256, 256), (512, 512),
            (512, 512))` is VGG-11.
        classes: Number of logits.
        in_channels: Channels of the image.
        image_size: Height and width of the image, at least 2 to the number of stages.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]] = ((16,), (32,)),
        classes: int = 10,
        in_channels: int = 3,
        image_size: int = 32,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = in_channels
        for stage in stages:
            for channels in stage:
                layers += [
                    nn.Conv2d(width, channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                ]
                width = channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(width * (image_size >> len(stages)) ** 2, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, in_channels, S, S) float32 pixels in [0, 1], S = image_size; returns (N, classes)."""
        logits: Tensor = self.fc(torch.flatten(self.features(images), 1))
        return logits
