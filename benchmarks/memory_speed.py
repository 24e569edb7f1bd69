"""How fast one core reads, by where the bytes lie: buffers that fit each level of the caches, and one that fits none.

A buffer is read again and again in vectors of 64 bytes, which are added up: with four sums no addition waits for
another, and a processor loads as fast as it can.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba
from numba import types
from numba.extending import intrinsic

from ohmfold.kernels.emit import Loop, at, const, integers, load, pointer, splat, store
from ohmfold.kernels.packing import aligned_empty

from .machine import alternate

if TYPE_CHECKING:
    from llvmlite import ir

__all__ = ["BLOCK_BYTES", "BUFFERS", "Level", "cache_sizes", "measure_level", "read"]

# Level, and the size of a buffer that fits it on nearly every processor of the last ten years.
BUFFERS = {"L1": 24 << 10, "L2": 512 << 10, "L3": 8 << 20, "memory": 256 << 20}

_SUMS = integers(32, 16)
_VECTORS, _CHAINS = 8, 4

# What one turn of the loop reads; a buffer is a multiple of it.
BLOCK_BYTES = 64 * _VECTORS

# What one call reads at least, so that its own time does not count.
_LEAST_BYTES = 32 << 20


@dataclass(frozen=True)
class Level:
    """How fast one core reads a buffer again and again.

    Attributes:
        name: The level of the caches that it is meant to fit.
        buffer_bytes: Size of the buffer.
        gbs: 10^9 bytes a second.
    """

    name: str
    buffer_bytes: int
    gbs: float


@intrinsic
def _read(typing_context: Any, buffer: Any, blocks: Any, turns: Any) -> Any:  # noqa: ARG001
    """Add up all vectors of a buffer; the sum is left in its first 64 bytes."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        _, blocks, turns = arguments
        base = pointer(context, builder, signature.args[0], arguments[0])
        zeros = [splat(_SUMS, 0)] * _CHAINS
        with Loop(builder, turns, zeros) as turn:
            with Loop(builder, blocks, turn.values) as block:
                sums = list(block.values)
                here = at(builder, base, builder.mul(block.index, const(BLOCK_BYTES)))
                for vector in range(_VECTORS):
                    chain = vector % _CHAINS
                    sums[chain] = builder.add(sums[chain], load(builder, here, 64 * vector, _SUMS, 64))
                block.carry(sums)
            turn.carry(block.results)
        total = turn.results[0]
        for other in turn.results[1:]:
            total = builder.add(total, other)
        store(builder, total, base, 0, 64)
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.int64), generate


@numba.njit(nogil=True)
def read(buffer: Any, blocks: int, turns: int) -> None:
    """Read `blocks` blocks of `BLOCK_BYTES`, `turns` times.

    Args:
        buffer: uint8, aligned to 64 bytes; the sum of its vectors of int32 is left in the first.
        blocks: Size of the buffer.
        turns: How often it is read.
    """
    _read(buffer, blocks, turns)


def measure_level(name: str, buffer_bytes: int, repeats: int) -> Level:
    """Time the reading of a buffer of a multiple of `BLOCK_BYTES`."""
    buffer = aligned_empty(buffer_bytes)
    buffer[:] = 1
    turns = max(1, _LEAST_BYTES // buffer_bytes)
    ms = alternate({name: partial(read, buffer, buffer_bytes // BLOCK_BYTES, turns)}, repeats)[name]
    return Level(name, buffer_bytes, buffer_bytes * turns / ms / 1e6)


def cache_sizes() -> dict[str, str]:
    """The sizes of the first processor's data caches, as Linux tells them; empty elsewhere."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size = ((folder / name).read_text().strip() for name in ("type", "level", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = size
    return found
