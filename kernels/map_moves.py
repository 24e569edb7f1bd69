"""Rows of channels-last maps copied, interleaved from planes and separated into them.

Nothing here checks bounds. A map is an array, the distance of its images, its origin and the distance of its rows,
in bytes; `flip` is uint8, 0 or 128. Squares of codes and chunks of channels may overlap, so a code may be written
twice: an output must not overlap its input, except in `flip_rows`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types

from .cache import kernel
from .emit import Loop, at, broadcast, const, integers, load, store
from .map_runs import address, each_chunk, each_vector, emitted

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["copy_rows", "flip_rows", "interleave_rows", "separate_rows"]

_WIDEST = 64  # lanes of a vector
_TILE = 16  # rows and columns that are transposed at once

_COLOURS = 3  # planes that are interleaved and separated by shuffles

number = types.int64


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, lanes: Sequence[int]) -> ir.Value:
    """Lanes of two vectors, those of `b` counted on from those of `a`."""
    return builder.shuffle_vector(a, b, ir.Constant(integers(32, len(lanes)), list(lanes)))


@emitted
def _flip_run(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    out: Any,
    target: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
    flip: Any,
) -> Any:
    """`out[target + i] = x[source + i] ^ flip` for i below `count`."""
    signature = types.void(x, number, out, number, number, flip)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, out, target, count, flip = arguments
        here = address(context, builder, signature.args[0], x, source)
        there = address(context, builder, signature.args[2], out, target)

        def body(lanes: int, offset: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
            codes = load(builder, here, offset, integers(8, lanes))
            store(builder, builder.xor(codes, broadcast(builder, flip, lanes)), there, offset)
            return values

        each_vector(builder, count, _WIDEST, [], body)
        return context.get_dummy_value()

    return signature, generate


def _three(builder: ir.IRBuilder, vectors: Sequence[ir.Value], picks: Sequence[tuple[int, int]]) -> ir.Value:
    """Lanes of three vectors: `picks` are the vector and the lane of each."""
    size = len(picks)
    both = _shuffle(builder, vectors[0], vectors[1], [which % 2 * size + lane for which, lane in picks])
    merged = [size + lane if which == 2 else j for j, (which, lane) in enumerate(picks)]
    return _shuffle(builder, both, vectors[2], merged)


@emitted
def _interleave(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    plane: Any,  # noqa: ARG001
    out: Any,
    target: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
    flip: Any,
) -> Any:
    """`out[target + 3 i + c] = x[source + c * plane + i] ^ flip` for i below `count` and c below 3."""
    signature = types.void(x, number, number, out, number, number, flip)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, plane, out, target, count, flip = arguments
        here = address(context, builder, signature.args[0], x, source)
        planes = [at(builder, here, builder.mul(plane, const(c))) for c in range(_COLOURS)]
        there = address(context, builder, signature.args[3], out, target)

        def body(lanes: int, offset: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
            mask = broadcast(builder, flip, lanes)
            vectors = [builder.xor(load(builder, each, offset, mask.type), mask) for each in planes]
            place = at(builder, there, builder.mul(offset, const(_COLOURS)))
            for part in range(_COLOURS):
                codes = range(part * lanes, (part + 1) * lanes)
                picks = [(code % _COLOURS, code // _COLOURS) for code in codes]
                store(builder, _three(builder, vectors, picks), place, part * lanes)
            return values

        each_vector(builder, count, _WIDEST, [], body)
        return context.get_dummy_value()

    return signature, generate


@emitted
def _separate(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    out: Any,
    target: Any,  # noqa: ARG001
    plane: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
    flip: Any,
) -> Any:
    """`out[target + c * plane + i] = x[source + 3 i + c] ^ flip` for i below `count` and c below 3."""
    signature = types.void(x, number, out, number, number, number, flip)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, out, target, plane, count, flip = arguments
        here = address(context, builder, signature.args[0], x, source)
        there = address(context, builder, signature.args[2], out, target)
        planes = [at(builder, there, builder.mul(plane, const(c))) for c in range(_COLOURS)]

        def body(lanes: int, offset: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
            mask = broadcast(builder, flip, lanes)
            place = at(builder, here, builder.mul(offset, const(_COLOURS)))
            vectors = [
                builder.xor(load(builder, place, part * lanes, mask.type), mask) for part in range(_COLOURS)
            ]
            for c, each in enumerate(planes):
                picks = [divmod(_COLOURS * i + c, lanes) for i in range(lanes)]
                store(builder, _three(builder, vectors, picks), each, offset)
            return values

        each_vector(builder, count, _WIDEST, [], body)
        return context.get_dummy_value()

    return signature, generate


def _transpose_tile(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of a square of codes: each stage interleaves the first half of its rows with the second."""
    size = len(rows)
    halves = [[lane // 2 + lane % 2 * size for lane in range(begin, begin + size)] for begin in (0, size)]
    stage = size
    while stage > 1:
        rows = [_shuffle(builder, rows[i // 2], rows[i // 2 + size // 2], halves[i % 2]) for i in range(size)]
        stage //= 2
    return rows


@emitted
def _transpose(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    distance: Any,  # noqa: ARG001
    rows: Any,  # noqa: ARG001
    out: Any,
    target: Any,  # noqa: ARG001
    out_distance: Any,  # noqa: ARG001
    columns: Any,  # noqa: ARG001
    flip: Any,
) -> Any:
    """`out[target + j * out_distance + i] = x[source + i * distance + j] ^ flip` for i < `rows`, j < `columns`."""
    signature = types.void(x, number, number, number, out, number, number, number, flip)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, distance, rows, out, target, out_distance, columns, flip = arguments
        here = address(context, builder, signature.args[0], x, source)
        there = address(context, builder, signature.args[4], out, target)

        def tile(across: ir.VectorType, corner: list[ir.Value]) -> None:
            i, j = corner
            place = at(builder, here, builder.add(builder.mul(i, distance), j))
            goal = at(builder, there, builder.add(builder.mul(j, out_distance), i))
            mask = broadcast(builder, flip, across.count)
            lines = [
                builder.xor(load(builder, place, builder.mul(distance, const(k)), across), mask)
                for k in range(across.count)
            ]
            for k, column in enumerate(_transpose_tile(builder, lines)):
                store(builder, column, goal, builder.mul(out_distance, const(k)))

        each_chunk(builder, [rows, columns], _TILE, tile)
        return context.get_dummy_value()

    return signature, generate


@emitted
def _copy_pixels(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    channels: Any,  # noqa: ARG001
    out: Any,
    target: Any,  # noqa: ARG001
    distance: Any,  # noqa: ARG001
    pixels: Any,  # noqa: ARG001
) -> Any:
    """`out[target + p * distance + c] = x[source + p * channels + c]` for p < `pixels` and c < `channels`."""
    signature = types.void(x, number, number, out, number, number, number)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, channels, out, target, distance, pixels = arguments
        here = address(context, builder, signature.args[0], x, source)
        there = address(context, builder, signature.args[3], out, target)

        def chunk(kind: ir.VectorType, offsets: list[ir.Value]) -> None:
            with Loop(builder, pixels) as pixel:
                codes = load(builder, at(builder, here, offsets[0]), builder.mul(pixel.index, channels), kind)
                store(builder, codes, at(builder, there, offsets[0]), builder.mul(pixel.index, distance))

        each_chunk(builder, [channels], _WIDEST, chunk)
        return context.get_dummy_value()

    return signature, generate


@kernel
def flip_rows(
    x: Any,
    image: int,
    origin: int,
    row: int,
    out: Any,
    out_image: int,
    out_origin: int,
    out_row: int,
    flip: Any,
    rows: int,
    images: int,
    count: int,
) -> None:
    """`count` codes of every row, flipped."""
    for n in range(images):
        for y in range(rows):
            source, target = n * image + origin + y * row, n * out_image + out_origin + y * out_row
            _flip_run(x, source, out, target, count, flip)


@kernel
def interleave_rows(
    x: Any,
    image: int,
    row: int,
    plane: int,
    out: Any,
    out_image: int,
    out_origin: int,
    out_row: int,
    channels: int,
    flip: Any,
    rows: int,
    images: int,
    pixels: int,
) -> None:
    """Rows of planes, `plane` bytes apart, to rows of pixels."""
    for n in range(images):
        for y in range(rows):
            source, target = n * image + y * row, n * out_image + out_origin + y * out_row
            if channels == _COLOURS:
                _interleave(x, source, plane, out, target, pixels, flip)
            else:
                _transpose(x, source, plane, channels, out, target, channels, pixels, flip)


@kernel
def separate_rows(
    x: Any,
    image: int,
    origin: int,
    row: int,
    channels: int,
    out: Any,
    out_image: int,
    out_row: int,
    plane: int,
    flip: Any,
    rows: int,
    images: int,
    pixels: int,
) -> None:
    """Rows of pixels to rows of planes, `plane` bytes apart."""
    for n in range(images):
        for y in range(rows):
            source, target = n * image + origin + y * row, n * out_image + y * out_row
            if channels == _COLOURS:
                _separate(x, source, out, target, plane, pixels, flip)
            else:
                _transpose(x, source, channels, pixels, out, target, plane, channels, flip)


@kernel
def copy_rows(
    x: Any,
    image: int,
    origin: int,
    row: int,
    channels: int,
    out: Any,
    out_image: int,
    out_origin: int,
    out_row: int,
    out_channels: int,
    rows: int,
    images: int,
    pixels: int,
) -> None:
    """Rows of pixels to the first of the channels of wider pixels."""
    for n in range(images):
        for y in range(rows):
            source, target = n * image + origin + y * row, n * out_image + out_origin + y * out_row
            _copy_pixels(x, source, channels, out, target, out_channels, pixels)
