"""Weights as the tiles read them: `[group][panel of 16 columns][segment][k / 4][16][4]`, one layout for all.

A segment is padded with zeros to a multiple of the instruction set's `segment_bytes`, the columns to whole
panels. Weights beyond the range that an instruction set multiplies exactly are written as a sum,

    w = w_1 + w_2 + ...        every addend within the range

and every addend is a segment of its own that reads the same codes: the product stays exact, whatever the weight.

For products of one row, which wait for memory, a second copy holds two weights to a byte (`pack_nibbles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .isa.base import COLUMNS, STEP_BYTES
from .tile import NIBBLE_OFFSET

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .isa.base import InstructionSet

__all__ = ["PackedWeight", "aligned_empty", "pack_nibbles", "pack_weight"]

# Largest sum of int16 pairs, and the largest pair of codes.
_INT16_MAX, _PAIR_OF_CODES = 32767, 2 * 255
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """Packed weights of one or more groups.

    Attributes:
        data: int8, flat, aligned to 64 bytes; uint8 where it holds nibbles.
        depth: Steps of four k in each segment.
        terms: Addends of every weight; the segments' starts are repeated as often.
        burst: Steps between two widenings of int16 sums.
        columns: Columns of a group, without padding.
        panels: Panels of a group.
        panel_bytes: Bytes of a panel.
    """

    data: NDArray[Any]
    depth: int
    terms: int
    burst: int
    columns: int
    panels: int
    panel_bytes: int

    @property
    def group_bytes(self) -> int:
        """Bytes of a group's weights."""
        return self.panels * self.panel_bytes


def aligned_empty(size: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """An uninitialised one-dimensional array whose first element is aligned to 64 bytes."""
    kind = np.dtype(dtype)
    raw = np.empty(size * kind.itemsize + 64, np.uint8)
    first = -raw.ctypes.data % 64
    return raw[first : first + size * kind.itemsize].view(kind)


def _addends(weight: NDArray[Any], limits: tuple[int, int]) -> list[NDArray[np.int16]]:
    """Arrays within the limits that add up to the weights; one, if they are within them already."""
    rest = weight.astype(np.int16)
    parts: list[NDArray[np.int16]] = []
    while not parts or rest.any():
        part = np.clip(rest, *limits)
        parts.append(part)
        rest = rest - part
    return parts


def _blocks(weight: NDArray[Any], multiple: int) -> NDArray[np.int8]:
    """`(groups, segments, length, columns)` as `(groups, panels, segments, steps, 16, 4)`, padded with zeros."""
    groups, segments, length, columns = weight.shape
    depth = -(-length // multiple) * multiple
    panels = -(-columns // COLUMNS)
    full = np.zeros((groups, segments, depth, panels * COLUMNS), np.int8)
    full[:, :, :length, :columns] = weight
    return full.reshape(groups, segments, depth // 4, 4, panels, COLUMNS).transpose(0, 4, 1, 2, 5, 3)


def _burst(largest: int, depth: int) -> int:
    """Steps until int16 pair sums of weights up to `largest` could overflow, in bursts of similar length."""
    if not largest or not depth:
        return max(1, depth)
    longest = min(max(1, _INT16_MAX // (_PAIR_OF_CODES * largest)), depth)
    return -(-depth // -(-depth // longest))


def pack_weight(weight: NDArray[Any], isa: InstructionSet) -> PackedWeight:
    """Pack int8 or int16 weights `(groups, segments, length, columns)`."""
    parts = _addends(weight, isa.weight_range)
    whole = np.concatenate(parts, axis=1)
    blocks = _blocks(whole, isa.segment_bytes)
    _, panels, segments, depth = blocks.shape[:4]
    data = aligned_empty(blocks.size, np.int8)
    data.reshape(blocks.shape)[...] = blocks
    largest = int(np.abs(whole).max(initial=0))
    return PackedWeight(
        data,
        depth,
        len(parts),
        _burst(largest, depth),
        weight.shape[3],
        panels,
        segments * depth * STEP_BYTES,
    )


def pack_nibbles(weight: NDArray[Any]) -> PackedWeight | None:
    """Pack weights two to a byte; None where one is not within -8..7, or 16 times the sum could pass int32.

    The lower half of a byte is the weight of an even step plus 8, the upper half that of the odd step after it, as
    a signed number: without its lower half the byte is 16 times that weight (see `tile`).
    """
    if int(weight.min(initial=0)) < -NIBBLE_OFFSET or int(weight.max(initial=0)) >= NIBBLE_OFFSET:
        return None
    if weight.shape[1] * weight.shape[2] * 255 * 16 * NIBBLE_OFFSET > _INT32_MAX:
        return None
    blocks = _blocks(weight, 8)
    even = (blocks[:, :, :, 0::2] + NIBBLE_OFFSET).astype(np.uint8)
    both = even | (blocks[:, :, :, 1::2].view(np.uint8) << 4)
    _, panels, segments, pairs = both.shape[:4]
    data = aligned_empty(both.size)
    data.reshape(both.shape)[...] = both
    return PackedWeight(data, 2 * pairs, 1, 1, weight.shape[3], panels, segments * pairs * STEP_BYTES)
