"""`Network`: what a training method sees of the module that it trains."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

__all__ = ["Network", "pixels_of"]


@dataclass(frozen=True, eq=False)
class Network:
    """A module with the precision and the loss of its run.

    Attributes:
        module: Takes (N, C, H, W) float32 pixels in [0, 1], returns (N, classes) logits.
        half: Run it under bfloat16 autocast, images in channels_last.
        label_smoothing: Of the cross-entropy.
    """

    module: nn.Module
    half: bool = False
    label_smoothing: float = 0.0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 logits."""
        if self.half:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.half):
            logits: Tensor = self.module(pixels)
        return logits.float()

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean cross-entropy of the run."""
        return functional.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the module in evaluation mode for a while: no batch norm moves, nothing is dropped."""
        was_training = self.module.training
        self.module.eval()
        try:
            yield
        finally:
            self.module.train(was_training)


def pixels_of(images: Tensor) -> Tensor:
    """Return uint8 pixel codes as float32 in [0, 1]."""
    return images.to(torch.float32) / 255.0
