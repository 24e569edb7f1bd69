"""MobileNet-like networks: depthwise convolutions, ReLU6, inverted residuals with linear bottlenecks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Block(NamedTuple):
    """One row of a MobileNet's table: expansion factor (1 for none), output channels, stride."""

    expansion: int
    channels: int
    stride: int


class InvertedResidual(nn.Module):
    """1x1 expansion - depthwise 3x3 - linear 1x1 projection, plus the input where its shape is kept.

    Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks"
    (2018), Fig. 4(d). With expansion 1 the first 1x1 convolution is left out, which is the depthwise
    separable convolution of MobileNetV1 (Howard et al., 2017) with a linear output.

    Args:
        in_channels: Channels of the input.
        block: Expansion, output channels and stride.
    """

    def __init__(self, in_channels: int, block: Block) -> None:
        super().__init__()
        hidden = in_channels * block.expansion
        layers: list[nn.Module] = []
        if block.expansion != 1:
            layers += _conv_bn_relu6(in_channels, hidden, kernel=1)
        layers += _conv_bn_relu6(hidden, hidden, stride=block.stride, groups=hidden)
        layers += [nn.Conv2d(hidden, block.channels, 1, bias=False), nn.BatchNorm2d(block.channels)]
        self.layers = nn.Sequential(*layers)
        self.adds_input = block.stride == 1 and in_channels == block.channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride)), float32."""
        out: Tensor = self.layers(x)
        return x + out if self.adds_input else out


class MobileNet(nn.Module):
    """conv 3x3, inverted residuals, conv 1x1 (each bn - relu6), global average pool, dense.

    Args:
        blocks: The inverted residuals in order, as `Block` or (expansion, channels, stride).
        classes: Number of logits.
        in_channels: Channels of the image.
        stem: Channels of the first convolution.
        stem_stride: Its stride.
        head: Channels of the last convolution.
    """

    def __init__(
        self,
        blocks: Sequence[Block | tuple[int, int, int]] = ((1, 16, 1), (4, 24, 2), (4, 24, 1)),
        classes: int = 10,
        in_channels: int = 3,
        *,
        stem: int = 16,
        stem_stride: int = 1,
        head: int = 64,
    ) -> None:
        super().__init__()
        layers = _conv_bn_relu6(in_channels, stem, stride=stem_stride)
        width = stem
        for block in (Block(*row) for row in blocks):
            layers.append(InvertedResidual(width, block))
            width = block.channels
        layers += _conv_bn_relu6(width, head, kernel=1)
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(head, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify (N, in_channels, H, W) float32 pixels in [0, 1]; returns (N, classes) float32 logits."""
        logits: Tensor = self.fc(torch.flatten(self.pool(self.features(images)), 1))
        return logits


def _conv_bn_relu6(
    in_channels: int, channels: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    convolution = nn.Conv2d(
        in_channels, channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(channels), nn.ReLU6()]
