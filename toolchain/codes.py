"""Between float32 numbers and codes: the arithmetic of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["dequantise", "quantise"]


def quantise(x: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any]) -> NDArray[Any]:
    """`saturate(rint(x / scale) + zero_point)`: one float32 division, rounding half to even."""
    limits = np.iinfo(zero_point.dtype)
    zero = zero_point.astype(np.float32)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        quotient = x.astype(np.float32, copy=False) / scale.astype(np.float32, copy=False)
    clipped = np.clip(quotient, np.float32(limits.min) - zero, np.float32(limits.max) - zero)
    return (np.rint(clipped) + zero).astype(zero_point.dtype)


def dequantise(x: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any]) -> NDArray[Any]:
    """`(x - zero_point) * scale`: the difference exact, cast once, one product."""
    difference = x.astype(np.int64) - zero_point.astype(np.int64)
    result: NDArray[Any] = difference.astype(np.float32).astype(scale.dtype, copy=False) * scale
    return result
