"""From int32 accumulators to 8-bit codes, by one float32 product.

    f    = float32(acc + bias) * M                            one IEEE product
    code = rint(clip(f, low - z, high - z)) + z               half to even

A clamped `f` lies within -255..255, where adding and taking away 1.5 * 2^23 rounds to the nearest integer,
half to even, in two float32 additions: the same as `rint`, on vectors, on every target.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .cache import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ROUNDER", "CodeFormat", "code_limits", "requantise"]

ROUNDER = np.float32(1.5 * 2**23)


class CodeFormat(Protocol):
    """How an accumulator becomes codes.

    Attributes:
        multiplier: float32, broadcast against one sample of the accumulator.
        zero_point: The code that stands for zero.
        dtype: uint8 or int8.
    """

    @property
    def multiplier(self) -> NDArray[np.float32]:
        """See the class."""

    @property
    def zero_point(self) -> int:
        """See the class."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """See the class."""


def code_limits(codes: CodeFormat) -> tuple[np.float32, np.float32, np.int32]:
    """`low - z`, `high - z` (float32) and `z` (int32) of a code format.

    Raises:
        TypeError: The codes are neither uint8 nor int8, or the multiplier is not float32.
        ValueError: The zero point is not a code, or a multiplier is not finite.
    """
    if codes.dtype not in (np.uint8, np.int8):
        raise TypeError(f"codes are uint8 or int8, not {codes.dtype}")
    if codes.multiplier.dtype != np.float32:
        raise TypeError(f"a requantisation multiplier is float32, not {codes.multiplier.dtype}")
    if not np.isfinite(codes.multiplier).all():
        raise ValueError("a requantisation multiplier is not finite")
    limits = np.iinfo(codes.dtype)
    if not limits.min <= codes.zero_point <= limits.max:
        raise ValueError(f"zero point {codes.zero_point} is not a code of {codes.dtype}")
    low, high = limits.min - codes.zero_point, limits.max - codes.zero_point
    return np.float32(low), np.float32(high), np.int32(codes.zero_point)


@kernel
def round_codes(acc: Any, bias: Any, multiplier: Any, low: Any, high: Any, zero: Any, out: Any) -> None:
    """One run of accumulators, element by element; `out` is uint8 and takes the low eight bits."""
    for i in range(acc.shape[0]):
        f = np.float32(np.int32(acc[i] + bias[i])) * multiplier[i]
        f = low if f < low else f
        f = high if f > high else f
        out[i] = np.uint8(np.int32(f + ROUNDER - ROUNDER) + zero)


@kernel
def _requantise_rows(acc: Any, bias: Any, multiplier: Any, low: Any, high: Any, zero: Any, out: Any) -> None:
    """`acc` and `out` are (R, P); row r uses `bias` and `multiplier` number r modulo their length."""
    for r in range(acc.shape[0]):
        b = bias[r % bias.shape[0]]
        m = multiplier[r % multiplier.shape[0]]
        for p in range(acc.shape[1]):
            f = np.float32(np.int32(acc[r, p] + b)) * m
            f = low if f < low else f
            f = high if f > high else f
            out[r, p] = np.uint8(np.int32(f + ROUNDER - ROUNDER) + zero)


@kernel
def _requantise_positions(
    acc: Any, bias: Any, multiplier: Any, low: Any, high: Any, zero: Any, out: Any
) -> None:
    """`acc` and `out` are (N, P); element p of each row uses `bias[p]` and `multiplier[p]`."""
    for n in range(acc.shape[0]):
        round_codes(acc[n], bias, multiplier, low, high, zero, out[n])


def _leading(parameter: NDArray[Any], sample: tuple[int, ...]) -> bool:
    """Whether a parameter varies along the sample's first axis at most."""
    if parameter.size == 1:
        return True
    return parameter.ndim == len(sample) and parameter.size == parameter.shape[0] == sample[0]


def requantise(acc: NDArray[np.int32], bias: NDArray[np.int32] | None, codes: CodeFormat) -> NDArray[Any]:
    """Requantise accumulators to codes.

    Args:
        acc: int32 `(N, ...)`, or `()`: a sample without a batch axis.
        bias: int32, broadcast against one sample and added before the product, or None.
        codes: The multiplier (broadcast likewise), zero point and type of the codes.

    Returns:
        Codes of the shape of `acc`.

    Raises:
        TypeError: An array has the wrong element type.
        ValueError: A multiplier or a bias does not broadcast against one sample.
    """
    if acc.dtype != np.int32:
        raise TypeError(f"accumulators are int32, not {acc.dtype}")
    if bias is not None and bias.dtype != np.int32:
        raise TypeError(f"a bias is int32, not {bias.dtype}")
    low, high, zero = code_limits(codes)
    sample = acc.shape[1:]
    multiplier = codes.multiplier
    bias = np.zeros((), np.int32) if bias is None else bias
    out = np.empty(acc.shape, np.uint8)
    acc = np.ascontiguousarray(acc)
    if acc.size:
        if _leading(multiplier, sample) and _leading(bias, sample):
            channels = max(multiplier.size, bias.size)
            rows = acc.shape[0] * channels
            _requantise_rows(
                acc.reshape(rows, -1),
                np.ascontiguousarray(bias.reshape(-1)),
                np.ascontiguousarray(multiplier.reshape(-1)),
                low,
                high,
                zero,
                out.reshape(rows, -1),
            )
        else:
            size = math.prod(sample)
            _requantise_positions(
                acc.reshape(-1, size),
                np.ascontiguousarray(np.broadcast_to(bias, sample)).reshape(-1),
                np.ascontiguousarray(np.broadcast_to(multiplier, sample)).reshape(-1),
                low,
                high,
                zero,
                out.reshape(-1, size),
            )
    return out.view(codes.dtype)
