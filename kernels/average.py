"""Average pooling of codes in float32, in the order of additions that onnxruntime's QLinearAveragePool has.

Integer models made by others average dequantised values. A float sum depends on its order, so the order is
part of the arithmetic: tap by tap, row by row. All windows take the same tap at once, which keeps every
window's order and leaves the loop over taps alone to Python.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .windows import output_length, spatial_pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["average_pool", "window_counts", "window_extents"]


def window_extents(
    lengths: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    *,
    ceil_mode: bool,
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Number of windows along each spatial axis, and the padding (begin, end) that holds all of them.

    Raises:
        ValueError: The settings are not for as many axes, or a window does not fit.
    """
    given = spatial_pads(pads)
    counts = tuple(
        output_length(length, size, stride, pad, 1, ceil_mode=ceil_mode)
        for length, size, stride, pad in zip(lengths, kernel_shape, strides, given, strict=True)
    )
    ends = (
        max(0, (count - 1) * stride + size - length - pad[0])
        for count, stride, size, length, pad in zip(
            counts, strides, kernel_shape, lengths, given, strict=True
        )
    )
    return counts, tuple((pad[0], end) for pad, end in zip(given, ends, strict=True))


def window_counts(
    lengths: tuple[int, ...],
    kernel_shape: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    *,
    ceil_mode: bool,
    count_include_pad: bool,
) -> NDArray[np.float32]:
    """By what each window's sum is divided, float32 of the shape of the windows."""
    windows, widths = window_extents(lengths, kernel_shape, strides, pads, ceil_mode=ceil_mode)
    if count_include_pad:
        return np.full(windows, math.prod(kernel_shape), np.float32)
    inside = np.ones((), np.int64)
    for length, size, stride, count, (begin, _) in zip(
        lengths, kernel_shape, strides, windows, widths, strict=True
    ):
        starts = np.arange(count) * stride - begin
        taken = np.minimum(starts + size, length) - np.maximum(starts, 0)
        inside = inside[..., np.newaxis] * taken
    return inside.astype(np.float32)


def average_pool(
    x: NDArray[Any],
    kernel_shape: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    *,
    ceil_mode: bool,
    count_include_pad: bool,
    input_scale: np.float32,
    input_zero_point: int,
    output_scale: np.float32,
    output_zero_point: int,
) -> NDArray[Any]:
    """Average codes over windows; the formula is that of `toolchain.program.AveragePool`.

    Args:
        x: uint8 or int8 `(N, C, L)` or `(N, C, H, W)`.
        kernel_shape: Size of the window along each spatial axis.
        strides: Step of the window along each spatial axis.
        pads: Beginnings of all spatial axes, then their ends.
        ceil_mode: Whether a last window that is not whole counts.
        count_include_pad: Whether padding counts in the divisor.
        input_scale: Scale of the codes of `x`.
        input_zero_point: Their code for zero.
        output_scale: Scale of the codes that result.
        output_zero_point: Their code for zero.

    Returns:
        Codes of the type of `x`.

    Raises:
        ValueError: The settings are not for the axes of `x`, or a window does not fit.
    """
    lengths = x.shape[2:]
    windows, widths = window_extents(lengths, kernel_shape, strides, pads, ceil_mode=ceil_mode)
    real = (x.astype(np.int32) - np.int32(input_zero_point)).astype(np.float32) * input_scale
    # Adding zero for padding changes no sum.
    padded = np.pad(real, ((0, 0), (0, 0), *widths))
    total = np.zeros((*x.shape[:2], *windows), np.float32)
    for tap in itertools.product(*map(range, kernel_shape)):
        taken = tuple(
            slice(start, start + (count - 1) * stride + 1, stride)
            for start, count, stride in zip(tap, windows, strides, strict=True)
        )
        total += padded[(slice(None), slice(None), *taken)]
    counts = window_counts(
        lengths, kernel_shape, strides, pads, ceil_mode=ceil_mode, count_include_pad=count_include_pad
    )
    result = (total / counts) / output_scale + np.float32(output_zero_point)
    limits = np.iinfo(x.dtype)
    return np.clip(np.rint(result), limits.min, limits.max).astype(x.dtype)
