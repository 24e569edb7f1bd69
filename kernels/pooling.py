"""Maximum pooling and spatial sums."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel
from .codes import unsigned_view
from .windows import output_length, spatial_pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["max_pool", "spatial_sum"]


@kernel
def _max_pool(
    x: Any, kernel: Any, strides: Any, begins: Any, dilations: Any, lowest: Any, row: Any, out: Any
) -> None:
    """`(planes, H, W)` to `(planes, OH, OW)`: down the columns into `row`, in vectors, then along it."""
    planes, height, width = x.shape
    for plane in range(planes):
        for y in range(out.shape[1]):
            for column in range(width):
                row[column] = lowest
            for ky in range(kernel[0]):
                source = y * strides[0] - begins[0] + ky * dilations[0]
                if 0 <= source < height:
                    for column in range(width):
                        row[column] = max(row[column], x[plane, source, column])
            for position in range(out.shape[2]):
                best = lowest
                for kx in range(kernel[1]):
                    source = position * strides[1] - begins[1] + kx * dilations[1]
                    if 0 <= source < width:
                        best = max(best, row[source])
                out[plane, y, position] = best


@kernel
def _sum_planes(x: Any, flip: Any, zero_point: Any, out: Any) -> None:
    """Sum of `(planes, P)` codes less the zero point."""
    for plane in range(x.shape[0]):
        total = np.int32(0)
        for i in range(x.shape[1]):
            total = np.int32(total + np.int32(x[plane, i] ^ flip))
        out[plane] = np.int32(total - np.int32(zero_point) * np.int32(x.shape[1]))


def max_pool(
    x: NDArray[Any],
    kernel_shape: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    *,
    ceil_mode: bool = False,
) -> NDArray[Any]:
    """Maximum over windows; padding holds the lowest value of the element type.

    Args:
        x: `(N, C, L)` or `(N, C, H, W)` of any integer or floating type; floats hold no NaN.
        kernel_shape: Size of the window along each spatial axis.
        strides: Step of the window along each spatial axis.
        pads: Beginnings of all spatial axes, then their ends.
        dilations: Distance of neighbouring elements of a window along each spatial axis.
        ceil_mode: Whether a last window that is not whole counts.

    Returns:
        An array of the element type of `x`, `(N, C, ...)`.

    Raises:
        ValueError: The settings are not for the axes of `x`, or a window does not fit.
    """
    axes = x.ndim - 2
    if (
        axes not in (1, 2)
        or not len(kernel_shape) == len(strides) == len(dilations) == len(pads) // 2 == axes
    ):
        raise ValueError(f"pooling takes (N, C, L) or (N, C, H, W) and settings for its axes, not {x.shape}")
    ends = spatial_pads(pads)
    windows = tuple(
        output_length(*setting, ceil_mode=ceil_mode)
        for setting in zip(x.shape[2:], kernel_shape, strides, ends, dilations, strict=True)
    )
    fill = (1,) * (2 - axes)
    none = (0,) * (2 - axes)
    out = np.empty(x.shape[:2] + windows, x.dtype)
    if out.size:
        lowest = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
        width = x.shape[-1]
        _max_pool(
            np.ascontiguousarray(x).reshape(-1, *fill, *x.shape[2:]),
            fill + kernel_shape,
            fill + strides,
            none + tuple(begin for begin, _ in ends),
            fill + dilations,
            x.dtype.type(lowest),
            np.empty(width, x.dtype),
            out.reshape(-1, *fill, *windows),
        )
    return out


def spatial_sum(x: NDArray[Any], zero_point: int) -> NDArray[np.int32]:
    """Sum over the spatial axes of `x - zero_point`, axes kept with length 1.

    Args:
        x: uint8 or int8 `(N, C, ...)`.
        zero_point: The code that stands for zero.

    Returns:
        int32 `(N, C, 1, ...)`.

    Raises:
        TypeError: The codes are neither uint8 nor int8.
        ValueError: `x` has no spatial axis, or so many elements that the sum could pass int32.
    """
    if x.ndim < 3:
        raise ValueError(f"a spatial sum takes (N, C, ...), not {x.shape}")
    size = math.prod(x.shape[2:])
    if size * 255 > np.iinfo(np.int32).max:
        raise ValueError(f"a sum of {size} codes can pass int32")
    data, flip, zero = unsigned_view(x, zero_point)
    out = np.zeros(x.shape[:2] + (1,) * (x.ndim - 2), np.int32)
    if x.size:
        _sum_planes(data.reshape(-1, size), flip, zero, out.reshape(-1))
    return out
