"""Rows of codes, gathered from a padded map, side by side: what an explicit matrix product reads."""

from __future__ import annotations

from typing import Any

from .cache import kernel

__all__ = ["gather_rows"]


@kernel
def gather_rows(
    x: Any,
    image: int,
    shift: int,
    starts: Any,
    taps: Any,
    places: Any,
    channels: int,
    first: int,
    rows: int,
    out: Any,
    stride: int,
) -> None:
    """`out[r * stride + places[t, c]] = x[image r / P * image + starts[r % P] + taps[t] + shift + c]`.

    Row r, counted from `first`, is position `r % P` of image `r / P`, with P the number of `starts`.
    """
    positions = starts.shape[0]
    for r in range(rows):
        index = first + r
        source = (index // positions) * image + starts[index % positions] + shift
        for t in range(taps.shape[0]):
            begin = source + taps[t]
            if places[t, channels - 1] - places[t, 0] == channels - 1:
                target = r * stride + places[t, 0]
                for c in range(channels):
                    out[target + c] = x[begin + c]
            else:
                for c in range(channels):
                    out[r * stride + places[t, c]] = x[begin + c]
