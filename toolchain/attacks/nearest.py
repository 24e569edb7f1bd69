"""Remembers the nearest adversarial iterate of an attack that looks for small changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .epsilon import PIXEL_HIGH
from .gradient import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .base import GradientSource

__all__ = ["NearestRecorder"]


class NearestRecorder:
    """A gradient source that remembers each sample's nearest iterate that it got wrong, distances after rounding.

    Args:
        model: From pixels to logits.
        images: uint8 `(N, ...)`: the clean images.
        labels: int64 `(N,)`.
    """

    def __init__(self, model: GradientSource, images: NDArray[np.uint8], labels: Tensor) -> None:
        self._model = model
        self._images = images
        self._labels = labels
        self._targets = images.astype(np.float32)
        self._least = np.full(len(images), np.iinfo(np.int64).max)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits of an iterate of the whole batch."""
        logits = self._model(pixels)
        wrong = np.flatnonzero((logits.detach().argmax(1) != self._labels).cpu().numpy())
        if len(wrong):
            chosen = pixels.detach()[torch.from_numpy(wrong).to(pixels.device)]
            change = (rounded(chosen).astype(np.int64) - self._images[wrong]).reshape(len(wrong), -1)
            squares = np.einsum("ni,ni->n", change, change)
            better = squares < self._least[wrong]
            self._least[wrong[better]] = squares[better]
            self._targets[wrong[better]] = (chosen * PIXEL_HIGH).cpu().numpy()[better]
        return logits

    def targets(self) -> NDArray[np.float32]:
        """The nearest wrong iterates, in codes, not yet rounded; clean images where there is none."""
        return self._targets
