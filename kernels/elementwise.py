"""Element-wise kernels on codes: the weighted sum of a residual addition, and the 256-entry table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel
from .gemm import unsigned_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["look_up", "weighted_sum"]


@kernel
def _add_weighted(x: Any, flip: Any, zero_point: Any, multiplier: Any, out: Any) -> None:
    """`out += multiplier * (x - zero_point)`."""
    for i in range(x.shape[0]):
        out[i] += multiplier * (np.int32(x[i] ^ flip) - np.int32(zero_point))


@kernel
def _look_up(x: Any, table: Any, out: Any) -> None:
    """`out = table[x]`."""
    for i in range(x.shape[0]):
        out[i] = table[x[i]]


def weighted_sum(
    inputs: Sequence[NDArray[Any]], multipliers: Sequence[int], zero_points: Sequence[int]
) -> NDArray[np.int32]:
    """`sum_i multipliers[i] * (inputs[i] - zero_points[i])`, int32.

    Args:
        inputs: One or two arrays of codes (uint8 or int8) of shapes that broadcast against each other.
        multipliers: One integer for each input.
        zero_points: One code for each input.

    Raises:
        TypeError: The codes are neither uint8 nor int8.
        ValueError: The numbers of arguments differ, or the sum could pass int32.
    """
    if not 1 <= len(inputs) <= 2 or not len(inputs) == len(multipliers) == len(zero_points):
        raise ValueError("a weighted sum takes one or two inputs, each with a multiplier and a zero point")
    if sum(abs(multiplier) for multiplier in multipliers) * 255 > np.iinfo(np.int32).max:
        raise ValueError(f"a sum with multipliers {tuple(multipliers)} can pass int32")
    shape = np.broadcast_shapes(*(x.shape for x in inputs))
    out = np.zeros(shape, np.int32)
    for x, multiplier, zero_point in zip(inputs, multipliers, zero_points, strict=True):
        data, flip, zero = unsigned_view(np.broadcast_to(x, shape), zero_point)
        _add_weighted(data.reshape(-1), flip, zero, np.int32(multiplier), out.reshape(-1))
    return out


def look_up(x: NDArray[np.uint8], table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`table[x]` for uint8 codes of any shape and a table of 256 uint8 codes.

    Raises:
        TypeError: An array is not uint8.
        ValueError: The table does not have 256 entries.
    """
    if x.dtype != np.uint8 or table.dtype != np.uint8:
        raise TypeError(f"a table maps uint8 to uint8, not {x.dtype} to {table.dtype}")
    if table.shape != (256,):
        raise ValueError(f"a table has 256 entries, not shape {table.shape}")
    out = np.empty(x.shape, np.uint8)
    _look_up(np.ascontiguousarray(x).reshape(-1), np.ascontiguousarray(table), out.reshape(-1))
    return out
