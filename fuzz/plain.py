"""Mutations that know nothing of a format: bytes flipped, inserted, cut and spliced; numbers at the edges of types."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

__all__ = ["EDGES", "LARGEST_INPUT", "mutated_bytes", "mutated_text"]

LARGEST_INPUT = 1 << 20
"""Inputs are cut here: a reader's time and memory are held against the size of its input."""

EDGES = (
    0, 1, 2, 3, -1, -2, 7, 8, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31,
    (1 << 32) - 1, 1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1, -(1 << 31), -(1 << 63),
)  # fmt: skip
"""Integers where types, sizes and signs change."""

_WIDTHS = (("B", 1), ("H", 2), ("I", 4), ("Q", 8))
_WORDS = (
    "nan",
    "inf",
    "-inf",
    "1e999",
    "null",
    "true",
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    ",",
    ":",
    "=",
    "\n",
    "#",
    "..",
)


def mutated_bytes(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return `data` after one to four mutations.

    Args:
        rng: Where choices come from.
        data: What is mutated.
        other: A second file to splice with.
    """
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        _mutate_once(rng, found, other)
    return bytes(found[:LARGEST_INPUT])


def mutated_text(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Return a text after mutations of its lines, words and bytes."""
    choice = rng.random()
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if choice < 0.2:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif choice < 0.35:
        del lines[at]
    elif choice < 0.6:
        place = rng.randrange(len(lines[at]) + 1)
        word = rng.choice(_WORDS) if rng.random() < 0.7 else str(rng.choice(EDGES))
        lines[at] = lines[at][:place] + word.encode() + lines[at][place + rng.randrange(4) :]
    else:
        return mutated_bytes(rng, data, other)
    return b"\n".join(lines)


def _mutate_once(rng: Random, data: bytearray, other: bytes) -> None:
    size = len(data)
    place = rng.randrange(size + 1)
    span = min(size - place, int(2 ** rng.uniform(0, 10)))
    kind = rng.randrange(9)
    if kind == 0 and place < size:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1 and place < size:
        data[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 2:
        data[place:place] = rng.randbytes(int(2 ** rng.uniform(0, 6)))
    elif kind == 3:
        del data[place : place + span]
    elif kind == 4:
        data[place:place] = data[place : place + span]
    elif kind == 5:
        letter, width = rng.choice(_WIDTHS)
        value = rng.choice(EDGES) & ((1 << 8 * width) - 1)
        data[place : place + width] = struct.pack(rng.choice("<>") + letter, value)
    elif kind == 6:
        del data[place:]
    elif kind == 7 and other:
        start = rng.randrange(len(other))
        data[place : place + span] = other[start : start + max(span, 1)]
    else:
        target = rng.randrange(size + 1)
        block = bytes(data[place : place + span])
        data[target : target + span] = block
