"""Signed and unsigned codes as one: the kernels know unsigned ones alone.

A signed code q is held as q + 128 (the same byte with its highest bit flipped) and its zero point z as z + 128:
no difference q - z changes, so no sum does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .requantise import code_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .requantise import CodeFormat

__all__ = ["SIGN", "MapCodes", "code_multiplier", "flip_of", "map_codes", "unsigned_view"]

SIGN = 128


@dataclass(frozen=True, eq=False)
class MapCodes:
    """How accumulators become unsigned codes: see `drain`.

    Attributes:
        multiplier: float32 `(channels,)`.
        zero_point: The code that stands for zero.
    """

    multiplier: NDArray[np.float32]
    zero_point: int

    @property
    def limits(self) -> tuple[np.float32, np.float32, np.int32]:
        """`low - z`, `high - z` and `z`."""
        return np.float32(-self.zero_point), np.float32(255 - self.zero_point), np.int32(self.zero_point)


def flip_of(dtype: np.dtype[Any]) -> int:
    """What is flipped in every code of a type, and added to its zero point: 128 for int8, 0 for uint8.

    Raises:
        TypeError: The codes are neither uint8 nor int8.
    """
    if dtype not in (np.uint8, np.int8):
        raise TypeError(f"codes are uint8 or int8, not {dtype}")
    return SIGN if dtype == np.int8 else 0


def unsigned_view(x: NDArray[Any], zero_point: int) -> tuple[NDArray[np.uint8], np.uint8, np.int16]:
    """See 8-bit codes as bytes.

    Returns:
        The contiguous bytes, what to flip in each for the unsigned code, and the unsigned zero point.

    Raises:
        TypeError: The codes are neither uint8 nor int8.
        ValueError: The zero point is not a code.
    """
    flip = flip_of(x.dtype)
    if not 0 <= zero_point + flip <= 255:
        raise ValueError(f"zero point {zero_point} is not a code of {x.dtype}")
    return np.ascontiguousarray(x).view(np.uint8), np.uint8(flip), np.int16(zero_point + flip)


def code_multiplier(codes: CodeFormat, channels: int) -> NDArray[np.float32]:
    """The multiplier of each channel, float32 `(channels,)`.

    Raises:
        TypeError, ValueError: See `requantise.code_limits`.
        ValueError: The multiplier has neither one value nor one for each channel.
    """
    code_limits(codes)
    if codes.multiplier.size not in (1, channels):
        raise ValueError(f"a multiplier is () or ({channels},), not {codes.multiplier.shape}")
    spread = np.broadcast_to(codes.multiplier.reshape(-1), (channels,))
    return np.ascontiguousarray(spread)


def map_codes(codes: CodeFormat, channels: int) -> MapCodes:
    """A requantisation to signed or unsigned codes as one to unsigned codes; errors as in `code_multiplier`."""
    return MapCodes(code_multiplier(codes, channels), codes.zero_point + flip_of(np.dtype(codes.dtype)))
