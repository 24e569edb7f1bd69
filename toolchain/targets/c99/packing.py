"""Weights at their own width: which width, which numbers, and how their bits lie.

A weight is stored as a code `u` of `b` bits: `w = low + step * u`, or `w = levels[u]` where the levels are not evenly
spaced. 16 codes take `b` half-words of 16 bits. With `f = 16 // b` fields in a half-word, field k at bit k b:

    codes 0 .. b f - 1   code i is field i % f of half-word i // f
    the other 16 % b     code i has bit h at bit i of half-word h

so that three bits take three bits: fifteen codes in five fields each, the sixteenth in the bits that are left. Blocks
of 256 weights hold 16 such groups side by side ("lanes"): weight `i * lanes + j` is code i of lane j, and half-word
`h * lanes + j` is half-word h of lane j. Unpacking is then the same shift and mask on 16 neighbours, which compilers
turn into vector instructions. The last block has as many lanes as are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLOCK", "CODES", "LANES", "Packed", "pack", "unpack"]

CODES = 16
"""Codes in a group, and bits in a half-word."""

LANES = 16
"""Groups side by side in a block."""

BLOCK = CODES * LANES

_PLAIN_BITS = 8


@dataclass(frozen=True, eq=False)
class Packed:
    """A layer's weights as they are stored.

    Attributes:
        bits: Width of a code, 1 to 8.
        count: Number of weights.
        data: uint16 half-words; or int8, the weights themselves, where `bits` is 8.
        low, step: `w = low + step * u`.
        levels: int8 `(2**bits,)`, `w = levels[u]`, or None where `low` and `step` say it.
    """

    bits: int
    count: int
    data: NDArray[np.uint16] | NDArray[np.int8]
    low: int = 0
    step: int = 1
    levels: NDArray[np.int8] | None = None

    @property
    def plain(self) -> bool:
        """Whether the weights are stored as they are, a byte each."""
        return self.data.dtype == np.int8

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return int(self.data.nbytes)


def _bits_for(codes: int) -> int:
    return max(1, (codes - 1).bit_length())


def pack(weights: NDArray[np.integer[Any]], *, plain: bool = False) -> Packed:
    """Pack weights, in the order in which they are read, at the smallest width that holds their levels.

    Args:
        weights: Integers of -128 to 127, any shape.
        plain: A byte for each, whatever they are.
    """
    flat = weights.reshape(-1).astype(np.int64)
    levels = np.unique(flat)
    low = int(levels[0]) if levels.size else 0
    step = int(np.gcd.reduce(np.diff(levels))) if levels.size > 1 else 1
    even = _bits_for(int(levels[-1] - low) // step + 1) if levels.size else 1
    listed = _bits_for(levels.size)
    bits = min(even, listed)
    if plain or bits >= _PLAIN_BITS:
        return Packed(_PLAIN_BITS, flat.size, flat.astype(np.int8))
    if even == bits:
        return Packed(bits, flat.size, _half_words((flat - low) // step, bits), low, step)
    table = np.zeros(1 << bits, np.int8)
    table[: levels.size] = levels
    return Packed(bits, flat.size, _half_words(np.searchsorted(levels, flat), bits), levels=table)


def _half_words(codes: NDArray[np.int64], bits: int) -> NDArray[np.uint16]:
    """The half-words of all blocks, one after another."""
    blocks = []
    for start in range(0, codes.size, BLOCK):
        block = codes[start : start + BLOCK]
        lanes = -(-block.size // CODES)
        padded = np.zeros(CODES * lanes, np.int64)
        padded[: block.size] = block
        groups = padded.reshape(CODES, lanes)
        words = np.zeros((bits, lanes), np.int64)
        fields = CODES // bits
        for code in range(CODES):
            if code < bits * fields:
                words[code // fields] |= groups[code] << (code % fields * bits)
                continue
            for half in range(bits):
                words[half] |= (groups[code] >> half & 1) << code
        blocks.append(words.reshape(-1).astype(np.uint16))
    return np.concatenate(blocks) if blocks else np.zeros(0, np.uint16)


def unpack(packed: Packed) -> NDArray[np.int64]:
    """The weights again, read bit by bit, in the order in which they were packed."""
    if packed.plain:
        return packed.data.astype(np.int64)
    codes = np.zeros(packed.count, np.int64)
    bits, fields, place = packed.bits, CODES // packed.bits, 0
    for start in range(0, packed.count, BLOCK):
        size = min(BLOCK, packed.count - start)
        lanes = -(-size // CODES)
        for i in range(size):
            code, lane = divmod(i, lanes)
            for bit in range(bits):
                if code < bits * fields:
                    half, at = code // fields, code % fields * bits + bit
                else:
                    half, at = bit, code
                codes[start + i] |= (int(packed.data[place + half * lanes + lane]) >> at & 1) << bit
        place += bits * lanes
    if packed.levels is not None:
        return packed.levels[codes].astype(np.int64)
    return packed.low + packed.step * codes
