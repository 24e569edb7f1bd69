"""How maps lie in memory between kernels: channels last, padded, one image after another.

    byte of (image n, y, x, channel c) = n * image_bytes + origin + y * row_bytes + x * channels + c

for y from -top to height + bottom - 1 and x from -left to width + right - 1. The padding is that of the next
layer, which then reads every window without a test; it holds the layer's code for zero. Codes are unsigned: a
signed code q is held as q + 128, and its zero point 128 higher, which changes no difference of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MapLayout"]


@dataclass(frozen=True)
class MapLayout:
    """Sizes of one image of a map of codes, in bytes. A vector is a map of height 1 and width 1.

    Attributes:
        channels, height, width: Of the map without padding.
        top, left, bottom, right: Padding.
        fill: The (unsigned) code that padding holds.
    """

    channels: int
    height: int = 1
    width: int = 1
    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    fill: int = 0

    @property
    def row_bytes(self) -> int:
        """Distance of two rows."""
        return (self.left + self.width + self.right) * self.channels

    @property
    def image_bytes(self) -> int:
        """Distance of two images."""
        return (self.top + self.height + self.bottom) * self.row_bytes

    @property
    def origin(self) -> int:
        """Where pixel (0, 0) is."""
        return self.top * self.row_bytes + self.left * self.channels

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return bool(self.top or self.left or self.bottom or self.right)

    @property
    def codes(self) -> int:
        """Codes of one image, without padding."""
        return self.channels * self.height * self.width
