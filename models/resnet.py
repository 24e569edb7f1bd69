"""Residual networks with pre-activation, of any width and depth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class PreActUnit(nn.Module):
    """bn - relu - conv 3x3 - bn - relu - conv 3x3, plus the input.

    Where stride or width change, the input comes through a 1x1 convolution of that stride, which reads
    what the first bn - relu gives.

    Source: He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks" (2016), Fig. 4(e).

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Of the first convolution and of the skip path.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        changes = stride != 1 or in_channels != channels
        self.skip = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride)), float32."""
        active = self.relu(self.bn1(x))
        skipped = x if self.skip is None else self.skip(active)
        out: Tensor = self.conv2(self.relu(self.bn2(self.conv1(active)))) + skipped
        return out


class PreActResNet(nn.Module):
    """Convolution, stages of `PreActUnit`, bn - relu, global average pool, dense.

    A wide ResNet of depth 6n + 2 and width k is `channels=(16k, 32k, 64k)`, `blocks_per_stage=n`, `stem=16`:
    Zagoruyko and Komodakis, "Wide Residual Networks" (2016), Table 1. Width 10 and n = 5 is the CIFAR-10
    network of Madry et al. (2018).

    Args:
        channels: Output channels of each stage; all stages but the first halve the image.
        blocks_per_stage: Units per stage.
        classes: Number of logits.
        in_channels: Channels of the image.
        stem: Channels of the first convolution; None for those of the first stage.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        blocks_per_stage: int = 1,
        classes: int = 10,
        in_channels: int = 3,
        stem: int | None = None,
    ) -> None:
        super().__init__()
        width = channels[0] if stem is None else stem
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        units = []
        for stage, out in enumerate(channels):
            for block in range(blocks_per_stage):
                units.append(PreActUnit(width, out, stride=2 if stage > 0 and block == 0 else 1))
                width = out
        self.units = nn.Sequential(*units)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, in_channels, H, W) float32 pixels in [0, 1]; returns (N, classes) float32 logits."""
        x = self.pool(self.relu(self.bn(self.units(self.conv(images)))))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits
