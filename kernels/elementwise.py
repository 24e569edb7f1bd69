"""Element-wise kernels on codes: sums of two tensors, by multipliers or by a table, and the 256-entry table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel
from .codes import unsigned_view

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["look_up", "look_up_pairs", "weighted_sum"]


@kernel
def _add_weighted(x: Any, flip: Any, zero_point: Any, multiplier: Any, out: Any) -> None:
    """`out += multiplier * (x - zero_point)`."""
    for i in range(x.shape[0]):
        out[i] += multiplier * (np.int32(x[i] ^ flip) - np.int32(zero_point))


@kernel
def _look_up(x: Any, flip: Any, table: Any, out: Any) -> None:
    """`out = table[x - lowest]`."""
    for i in range(x.shape[0]):
        out[i] = table[x[i] ^ flip]


@kernel
def _look_up_pairs(a: Any, b: Any, flip: Any, table: Any, out: Any) -> None:
    """`out = table[256 * (a - lowest) + (b - lowest)]`."""
    for i in range(a.shape[0]):
        out[i] = table[(np.int64(a[i] ^ flip) << 8) | np.int64(b[i] ^ flip)]


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


def look_up(x: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """`table[x - lowest]` for codes of any shape and a table of 256 codes of the same type.

    Raises:
        TypeError: The codes are neither uint8 nor int8, or the table is of another type.
        ValueError: The table does not have 256 entries.
    """
    if x.dtype != table.dtype:
        raise TypeError(f"a table maps codes to codes of one type, not {x.dtype} to {table.dtype}")
    if table.shape != (256,):
        raise ValueError(f"a table has 256 entries, not shape {table.shape}")
    data, flip, _ = unsigned_view(x, 0)
    out = np.empty(x.shape, np.uint8)
    _look_up(data.reshape(-1), flip, np.ascontiguousarray(table).view(np.uint8), out.reshape(-1))
    return out.view(x.dtype)


def look_up_pairs(a: NDArray[Any], b: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """`table[a - lowest, b - lowest]` for two tensors of codes of one shape and type.

    Raises:
        TypeError: The codes are neither uint8 nor int8, or the three types differ.
        ValueError: The shapes differ, or the table is not `(256, 256)`.
    """
    if not a.dtype == b.dtype == table.dtype:
        raise TypeError(f"a table of pairs takes codes of one type, not {a.dtype}, {b.dtype}, {table.dtype}")
    if a.shape != b.shape or table.shape != (256, 256):
        raise ValueError(f"found codes of shapes {a.shape} and {b.shape} and a table of {table.shape}")
    first, flip, _ = unsigned_view(a, 0)
    second, _, _ = unsigned_view(b, 0)
    entries = np.ascontiguousarray(table).view(np.uint8).reshape(-1)
    out = np.empty(a.shape, np.uint8)
    _look_up_pairs(first.reshape(-1), second.reshape(-1), flip, entries, out.reshape(-1))
    return out.view(a.dtype)
