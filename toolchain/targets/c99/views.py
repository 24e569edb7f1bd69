"""Where a tensor's elements lie in a buffer, and copies as nests of loops.

A buffer is a plain array of one sample. A `View` says for each element of a tensor which element of a buffer holds
it, so that Reshape, Transpose and Split cost nothing. Maps are kept with their channels last:

    element (c, y, x) of (C, H, W)  lies at  (y W + x) C + c

because a window of a convolution then reads whole runs of memory. Everything else lies in the order of its axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ....errors import UnsupportedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Loop", "View", "channels_last", "loops", "row_major"]

_MAP_RANKS = (2, 3)  # (C, L) and (C, H, W)


@dataclass(frozen=True, eq=False)
class View:
    """One sample of a tensor.

    Attributes:
        buffer: Number of the buffer.
        index: int64, of the sample's shape: the element of the buffer that holds each element of the tensor.
    """

    buffer: int
    index: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """The sample's shape, without the batch."""
        return self.index.shape

    @property
    def first(self) -> int:
        """The lowest element of the buffer that it takes."""
        return int(self.index.min()) if self.index.size else 0

    @property
    def order(self) -> NDArray[np.int64] | None:
        """Elements counted from `first`, where the view fills a range of its buffer without gaps; else None."""
        order = self.index.reshape(-1) - self.first
        return order if np.array_equal(np.sort(order), np.arange(order.size)) else None

    def lies_as(self, index: NDArray[np.int64]) -> bool:
        """Whether its elements lie in the order that `index` says, from `first` on."""
        return np.array_equal(self.index - self.first, index)


def row_major(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The index of a tensor that lies in the order of its axes."""
    return np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64).reshape(shape)


def channels_last(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """The index of a map with its channels last; of any other tensor, that of its axes' order."""
    if len(shape) not in _MAP_RANKS:
        return row_major(shape)
    return np.moveaxis(row_major((*shape[1:], shape[0])), -1, 0)


@dataclass(frozen=True)
class Loop:
    """One loop of a copy: how often it runs, and by how much source and target move each time."""

    count: int
    source: int
    target: int


def loops(source: NDArray[np.int64], target: NDArray[np.int64], what: str) -> tuple[Loop, ...]:
    """The nest of loops, outermost first, that copies element `source[i]` to element `target[i]` for every i.

    Args:
        source: int64, any shape.
        target: int64, of that shape. The copy starts at its lowest element.
        what: Named in the error.

    Raises:
        UnsupportedError: The elements do not lie in steps that loops can follow.
    """
    moves = np.stack([source.reshape(-1), target.reshape(-1)])
    moves = moves[:, np.argsort(moves[1], kind="stable")]
    nest: list[Loop] = []
    while moves.shape[1] > 1:
        step = moves[:, 1] - moves[:, 0]
        steady = (np.diff(moves, axis=1) == step[:, None]).all(axis=0)
        count = moves.shape[1] if steady.all() else int(np.argmin(steady)) + 1
        if moves.shape[1] % count:
            raise UnsupportedError(f"{what}: its elements lie in no order that loops can follow")
        parts = moves.reshape(2, -1, count)
        if not np.array_equal(parts, parts[:, :, :1] + step[:, None, None] * np.arange(count)):
            raise UnsupportedError(f"{what}: its elements lie in no order that loops can follow")
        nest.insert(0, Loop(count, int(step[0]), int(step[1])))
        moves = parts[:, :, 0]
    return tuple(nest)
