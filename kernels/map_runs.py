"""Walks over padded maps: which codes lie in one run, and the vector loops over a run or over channels.

    code i of row y of image n:   byte n * image + origin + y * row + i       0 <= i < run

The rows of several maps are one run where none has padding on its left or right, and all images are one where
none has any. The loops end in ever shorter vectors: no byte outside a run is read or written.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba.extending import intrinsic

from .emit import Loop, at, const, integers, pointer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llvmlite import ir
    from numpy.typing import NDArray

    from .layout import MapLayout

__all__ = [
    "CODES",
    "SUMS",
    "Walk",
    "address",
    "check_array",
    "check_layout",
    "each_chunk",
    "each_vector",
    "emitted",
    "walk",
]

CODES, SUMS = np.dtype(np.uint8), np.dtype(np.int32)


def emitted(function: Callable[..., Any]) -> Any:
    """Numba's `intrinsic`; its annotations do not say that a caller leaves out the first argument."""
    return intrinsic(function)


def address(context: Any, builder: ir.IRBuilder, kind: Any, array: ir.Value, place: ir.Value) -> ir.Value:
    """The address `place` bytes from the beginning of a Numba array."""
    return at(builder, pointer(context, builder, kind, array), place)


@dataclass(frozen=True)
class Walk:
    """How kernels go through the codes of several maps of one size, whatever their padding.

    Attributes:
        rows: Runs of an image.
        run: Codes of a run.
        joined: Whether all images are one run.
        places: Distance of two images, origin, and distance of two runs, for each map.
    """

    rows: int
    run: int
    joined: bool
    places: tuple[tuple[int, int, int], ...]

    def turns(self, images: int) -> tuple[int, int]:
        """What a kernel loops over for so many images: how many times the rows, and the codes of each."""
        return (1, images * self.run) if self.joined else (images, self.run)


def walk(*maps: MapLayout) -> Walk:
    """How to go through maps together.

    Raises:
        ValueError: They differ in channels, height or width, or one has a size that no map has.
    """
    first = maps[0]
    for each in maps:
        check_layout(each)
        if (each.channels, each.height, each.width) != (first.channels, first.height, first.width):
            raise ValueError(f"maps have the same channels, height and width, not {first} and {each}")
    dense = not any(each.left or each.right for each in maps)
    joined = not any(each.padded for each in maps)
    places = tuple((each.image_bytes, each.origin, each.row_bytes) for each in maps)
    run = first.width * first.channels
    return Walk(1, run * first.height, joined, places) if dense else Walk(first.height, run, joined, places)


def check_layout(layout: MapLayout) -> None:
    """Refuse sizes that no map has.

    Raises:
        ValueError: A length is not positive, a padding is negative, or the fill is not a code.
    """
    if min(layout.channels, layout.height, layout.width) < 1:
        raise ValueError(f"channels, height and width of a map are at least 1, not {layout}")
    if min(layout.top, layout.left, layout.bottom, layout.right) < 0 or not 0 <= layout.fill <= 255:
        raise ValueError(f"padding is not negative and its fill lies in 0..255, not {layout}")


def check_array(array: NDArray[Any], kind: np.dtype[Any], images: int, size: int) -> None:
    """Refuse what a kernel, which checks no bounds, could not go through.

    Raises:
        TypeError: The element type is not `kind`.
        ValueError: The array is not flat, not contiguous, or has no room for images of `size` elements.
    """
    if array.dtype != kind:
        raise TypeError(f"found an array of {array.dtype}, expected {kind}")
    if array.ndim != 1 or not array.flags.c_contiguous:
        raise ValueError(f"the array of a map is flat and contiguous, not of shape {array.shape}")
    if not 0 <= images * size <= array.size:
        raise ValueError(f"{images} images of {size} elements do not lie in an array of {array.size}")


def each_vector(
    builder: ir.IRBuilder,
    count: ir.Value,
    widest: int,
    values: Sequence[ir.Value],
    body: Callable[[int, ir.Value, list[ir.Value]], Sequence[ir.Value]],
) -> None:
    """Emit a loop over `count` elements (not negative) in vectors of `widest` lanes, then each shorter one.

    `body(lanes, offset, values)` returns the values that the next vector is given.
    """
    lanes = widest
    while lanes:
        turns = builder.lshr(count, const(lanes.bit_length() - 1))
        start: ir.Value = const(0)
        if lanes < widest:
            turns = builder.and_(turns, const(1))
            start = builder.and_(count, const(-2 * lanes))
        with Loop(builder, turns, values) as loop:
            offset = builder.add(start, builder.mul(loop.index, const(lanes)))
            loop.carry(body(lanes, offset, loop.values))
        values = loop.results
        lanes //= 2


def each_chunk(
    builder: ir.IRBuilder,
    lengths: Sequence[ir.Value],
    largest: int,
    body: Callable[[ir.VectorType, list[ir.Value]], None],
) -> None:
    """Emit `body(vector of codes, offsets)` for vectors, or squares of them, that cover `lengths` exactly.

    All have as many lanes as the largest power of two, up to `largest`, that fits every length. The last along
    an axis may overlap the one before it, so what `body` writes must not depend on how often it runs.
    """
    size = largest
    while size:
        fits = [builder.icmp_signed(">=", length, const(size)) for length in lengths]
        chosen = functools.reduce(builder.and_, fits)
        if size < largest:
            wider = [builder.icmp_signed(">=", length, const(2 * size)) for length in lengths]
            chosen = builder.and_(chosen, builder.not_(functools.reduce(builder.and_, wider)))
        with builder.if_then(chosen):
            _each_offset(builder, lengths, size, [], functools.partial(body, integers(8, size)))
        size //= 2


def _each_offset(
    builder: ir.IRBuilder,
    lengths: Sequence[ir.Value],
    size: int,
    offsets: list[ir.Value],
    body: Callable[[list[ir.Value]], None],
) -> None:
    """Loops over steps of `size` along every axis that is left."""
    if not lengths:
        body(offsets)
        return
    length, *rest = lengths
    last = builder.sub(length, const(size))
    count = builder.lshr(builder.add(length, const(size - 1)), const(size.bit_length() - 1))
    with Loop(builder, count) as chunk:
        offset = builder.mul(chunk.index, const(size))
        beyond = builder.icmp_signed(">", offset, last)
        _each_offset(builder, rest, size, [*offsets, builder.select(beyond, last, offset)], body)
