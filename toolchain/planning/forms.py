"""In which form a tensor lies between steps: a map of codes channels last, int32 sums, or a plain array."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...kernels.layout import MapLayout
    from ..program import TensorSpec

__all__ = ["Form", "Padding", "Place", "form_of"]


@dataclass(frozen=True)
class Form:
    """Size of one image of a tensor that lies channels last.

    A tensor of two axes `(N, K)` is a map of K channels and one pixel, or a flattened map, whose features are
    numbered channel by channel as ONNX flattens it: `k = (c * height + y) * width + x`.

    Attributes:
        channels, height, width: Of the map.
        flip: 128 for signed codes, which are held with the highest bit flipped; 0 otherwise.
        sums: Whether it holds int32 and not codes.
    """

    channels: int
    height: int = 1
    width: int = 1
    flip: int = 0
    sums: bool = False

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def positions(self) -> int:
        """Pixels of an image."""
        return self.height * self.width

    @property
    def features(self) -> int:
        """Values of an image."""
        return math.prod(self.size)


@dataclass(frozen=True)
class Padding:
    """What a layer wants around its input: rows above, columns to the left, below, right, and their code."""

    top: int
    left: int
    bottom: int
    right: int
    fill: int

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """Top, left, bottom, right."""
        return self.top, self.left, self.bottom, self.right


def form_of(spec: TensorSpec | None) -> Form | None:
    """The form that a tensor of the program can take; None where it must stay an array.

    That is: `(N, C, H, W)`, `(N, C, L)` or `(N, K)` of 8-bit codes or int32, the batch alone free.
    """
    if spec is None or spec.shape is None or not 2 <= len(spec.shape) <= 4:
        return None
    if spec.dtype not in (np.uint8, np.int8, np.int32):
        return None
    sizes = [size for size in spec.shape[1:] if size is not None]
    if spec.shape[0] is not None or len(sizes) != len(spec.shape) - 1 or 0 in sizes:
        return None
    height = sizes[1] if len(sizes) == 3 else 1
    width = sizes[-1] if len(sizes) > 1 else 1
    return Form(sizes[0], height, width, 128 if spec.dtype == np.int8 else 0, spec.dtype == np.int32)


@dataclass(frozen=True)
class Place:
    """A tensor between steps: its form and, for codes, how it lies in memory."""

    form: Form
    layout: MapLayout

    @property
    def image_bytes(self) -> int:
        """Memory of one image."""
        return 4 * self.form.features if self.form.sums else self.layout.image_bytes
