"""How many windows fit: the output length that convolutions and poolings share."""

from __future__ import annotations

__all__ = ["output_length", "spatial_pads"]


def spatial_pads(pads: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """`(begin, end)` of each spatial axis from ONNX's order (all beginnings, then all ends).

    Raises:
        ValueError: A pad is negative, or the number of pads is odd.
    """
    if len(pads) % 2 or any(pad < 0 for pad in pads):
        raise ValueError(f"pads are two numbers from 0 for each spatial axis, not {pads}")
    axes = len(pads) // 2
    return tuple(zip(pads[:axes], pads[axes:], strict=True))


def output_length(
    length: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int, *, ceil_mode: bool = False
) -> int:
    """Number of windows along one axis.

    `floor((length + pads - (dilation * (kernel - 1) + 1)) / stride) + 1`. With `ceil_mode` the division
    rounds up, and a last window that would start in the end padding is dropped (ONNX, MaxPool).

    Raises:
        ValueError: The axis is shorter than one window, or a setting is not positive.
    """
    if min(kernel, stride, dilation) < 1:
        raise ValueError(f"kernel {kernel}, stride {stride} and dilation {dilation} are at least 1")
    room = length + sum(pads) - (dilation * (kernel - 1) + 1)
    if room < 0:
        raise ValueError(f"an axis of {length} with pads {pads} is shorter than a window of {kernel}")
    if not ceil_mode:
        return room // stride + 1
    windows = -(-room // stride) + 1
    return windows - 1 if (windows - 1) * stride >= length + pads[0] else windows
