"""Maximum pooling and spatial sums of channels-last maps, in vectors over the channels.

    out[n, y, x, c] = max over i, j of  x[n, y * s_0 - b_0 + i * d_0, x * s_1 - b_1 + j * d_1, c]
    sum[n, c]       = sum over y, x of  (x[n, y, x, c] - z)

with kernel taps i, j, strides s, beginnings b and dilations d, of taps inside the map.

A tap outside the map is replaced by its window's nearest tap inside, which changes no maximum: every window then
has the same number of taps, whose places are two tables, and padding is never read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from .cache import kernel
from .emit import I64, Loop, at, broadcast, const, integers, load, pointer, store
from .map_runs import CODES, SUMS, check_array, check_layout, each_chunk, emitted, walk

if TYPE_CHECKING:
    from llvmlite import ir
    from numpy.typing import NDArray

    from .layout import MapLayout

__all__ = ["MaxPoolMaps", "SpatialSumMaps"]

# Windows whose loops over taps are unrolled; they are nearly all that networks have.
_UNROLLED = (2, 3)

# Channels of the longest vector.
_WIDEST = 64


def _emit_taps(
    builder: ir.IRBuilder,
    source: ir.Value,
    kind: ir.VectorType,
    rows: ir.Value,
    height: ir.Value,
    columns: ir.Value,
    width: ir.Value,
) -> ir.Value:
    """The maximum over a window of any size; `rows` and `columns` are the addresses of its taps' places."""
    lowest = broadcast(builder, kind.element(0), kind.count)
    with Loop(builder, height, [lowest]) as i:
        row = at(builder, source, load(builder, rows, builder.mul(i.index, const(8)), I64, 8))
        with Loop(builder, width, i.values) as j:
            place = load(builder, columns, builder.mul(j.index, const(8)), I64, 8)
            j.carry([_greater(builder, j.values[0], load(builder, row, place, kind))])
        i.carry(j.results)
    best: ir.Value = i.results[0]
    return best


def _greater(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The greater of two vectors of unsigned codes."""
    return builder.select(builder.icmp_unsigned(">", a, b), a, b)


@emitted
def _max_row(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    rows: Any,
    first: Any,  # noqa: ARG001
    height: Any,  # noqa: ARG001
    columns: Any,
    width: Any,  # noqa: ARG001
    windows: Any,  # noqa: ARG001
    channels: Any,  # noqa: ARG001
    out: Any,
    target: Any,  # noqa: ARG001
) -> Any:
    """One row of windows: `rows[first:][:height]` and `columns[window, :width]` are the places of their taps."""
    number = types.int64
    signature = types.void(x, number, rows, number, number, columns, number, number, number, out, number)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, rows, first, height, columns, width, windows, channels, out, target = arguments
        kinds = signature.args
        origin = at(builder, pointer(context, builder, kinds[0], x), source)
        rows = at(builder, pointer(context, builder, kinds[2], rows), builder.mul(first, const(8)))
        columns = pointer(context, builder, kinds[5], columns)
        goal = at(builder, pointer(context, builder, kinds[9], out), target)

        def unrolled(kind: ir.VectorType, offset: ir.Value, size: int) -> None:
            start = at(builder, origin, offset)
            lines = [at(builder, start, load(builder, rows, 8 * i, I64, 8)) for i in range(size)]
            with Loop(builder, windows) as window:
                table = at(builder, columns, builder.mul(window.index, const(8 * size)))
                places = [load(builder, table, 8 * j, I64, 8) for j in range(size)]
                taps = [load(builder, line, place, kind) for place in places for line in lines]
                best = taps[0]
                for tap in taps[1:]:
                    best = _greater(builder, best, tap)
                store(builder, best, goal, builder.add(builder.mul(window.index, channels), offset))

        def looped(kind: ir.VectorType, offset: ir.Value) -> None:
            start = at(builder, origin, offset)
            with Loop(builder, windows) as window:
                table = at(builder, columns, builder.mul(builder.mul(window.index, width), const(8)))
                best = _emit_taps(builder, start, kind, rows, height, table, width)
                store(builder, best, goal, builder.add(builder.mul(window.index, channels), offset))

        def chunk(kind: ir.VectorType, offset: ir.Value) -> None:
            other = builder.append_basic_block("other")
            end = builder.append_basic_block("end")
            square = builder.icmp_signed("==", width, height)
            switch = builder.switch(builder.select(square, width, const(0)), other)
            for size in _UNROLLED:
                block = builder.append_basic_block(f"window{size}")
                switch.add_case(const(size), block)
                builder.position_at_end(block)
                unrolled(kind, offset, size)
                builder.branch(end)
            builder.position_at_end(other)
            looped(kind, offset)
            builder.branch(end)
            builder.position_at_end(end)

        each_chunk(builder, [channels], _WIDEST, lambda kind, offsets: chunk(kind, offsets[0]))
        return context.get_dummy_value()

    return signature, generate


@kernel
def _max_pool(
    x: Any,
    image: int,
    origin: int,
    rows: Any,
    columns: Any,
    channels: int,
    out: Any,
    out_image: int,
    out_origin: int,
    out_row: int,
    images: int,
) -> None:
    """`rows` is `(output height, taps)` and `columns` `(output width, taps)`."""
    for n in range(images):
        for y in range(rows.shape[0]):
            _max_row(
                x, n * image + origin, rows, y * rows.shape[1], rows.shape[1], columns, columns.shape[1],
                columns.shape[0], channels, out, n * out_image + out_origin + y * out_row,
            )  # fmt: skip


@kernel
def _clear(out: Any, places: Any, channels: int, image: int, images: int) -> None:
    """Write the lowest code to the pixels at `places` of every image."""
    for n in range(images):
        for i in range(places.shape[0]):
            for c in range(channels):
                out[n * image + places[i] + c] = 0


def _taps(
    length: int, windows: int, kernel: int, stride: int, begin: int, dilation: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Positions `(windows, kernel)` of the taps along one axis, and which windows lie outside the map."""
    taps = np.arange(windows)[:, None] * stride - begin + np.arange(kernel) * dilation
    inside = (taps >= 0) & (taps < length)
    low = np.where(inside, taps, length).min(axis=1, keepdims=True)
    high = np.where(inside, taps, -1).max(axis=1, keepdims=True)
    empty: NDArray[np.bool_] = np.logical_not(inside.any(axis=1))
    return np.where(empty[:, None], 0, taps.clip(low, high)).astype(np.int64), empty


class MaxPoolMaps:
    """The maximum over windows, clipped at the map's edges; 0, the lowest code, where one lies outside.

    Args:
        kernel: Height and width of a window.
        strides: Steps from window to window.
        begins: Padding above and on the left.
        dilations: Distances of neighbouring taps.
        input: The map that is read; its padding is not.
        output: The map that is written; its height and width are the number of windows.

    Raises:
        ValueError: A setting is no size, or the channels differ.
    """

    def __init__(
        self,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        begins: tuple[int, int],
        dilations: tuple[int, int],
        input: MapLayout,  # noqa: A002 - what it is called at every map
        output: MapLayout,
    ) -> None:
        check_layout(input)
        check_layout(output)
        if any(len(setting) != 2 for setting in (kernel, strides, begins, dilations)):
            raise ValueError("pooling takes two numbers in each setting, one for each axis")
        if min(*kernel, *strides, *dilations) < 1:
            raise ValueError(f"kernel {kernel}, strides {strides} and dilations {dilations} are at least 1")
        if min(begins) < 0:
            raise ValueError(f"padding is not negative, not {begins}")
        if input.channels != output.channels:
            raise ValueError(f"pooling changes no channels, not {input.channels} to {output.channels}")
        settings = zip(kernel, strides, begins, dilations, strict=True)
        lengths = ((input.height, output.height), (input.width, output.width))
        (rows, no_row), (columns, no_column) = (
            _taps(*pair, *setting) for pair, setting in zip(lengths, settings, strict=True)
        )
        self._rows, self._columns = rows * input.row_bytes, columns * input.channels
        y, x = np.nonzero(no_row[:, None] | no_column)
        self._outside = output.origin + y * output.row_bytes + x * output.channels
        self._channels = input.channels
        self._source = (input.image_bytes, input.origin)
        self._target = (output.image_bytes, output.origin, output.row_bytes)

    def __call__(self, x: NDArray[np.uint8], out: NDArray[np.uint8], images: int) -> None:
        """Pool `images` images of `x` into `out`, which is another array.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        source, target = self._source, self._target
        check_array(x, CODES, images, source[0])
        check_array(out, CODES, images, target[0])
        _max_pool(x, *source, self._rows, self._columns, self._channels, out, *target, images)
        if self._outside.size:
            _clear(out, self._outside, self._channels, target[0], images)


@emitted
def _sum_pixels(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    rows: Any,  # noqa: ARG001
    row_bytes: Any,  # noqa: ARG001
    pixels: Any,  # noqa: ARG001
    channels: Any,  # noqa: ARG001
    initial: Any,
    out: Any,
    target: Any,  # noqa: ARG001
) -> Any:
    """One image: every channel's sum over `rows` runs of `pixels`, plus the int32 `initial`."""
    number = types.int64
    signature = types.void(x, number, number, number, number, number, initial, out, number)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, rows, row_bytes, pixels, channels, initial, out, target = arguments
        origin = at(builder, pointer(context, builder, signature.args[0], x), source)
        goal = at(builder, pointer(context, builder, signature.args[7], out), builder.mul(target, const(4)))

        def chunk(kind: ir.VectorType, offset: ir.Value) -> None:
            sums = integers(32, kind.count)
            start = at(builder, origin, offset)
            with Loop(builder, rows, [broadcast(builder, initial, kind.count)]) as row:
                line = at(builder, start, builder.mul(row.index, row_bytes))
                with Loop(builder, pixels, row.values) as pixel:
                    codes = load(builder, line, builder.mul(pixel.index, channels), kind)
                    pixel.carry([builder.add(pixel.values[0], builder.zext(codes, sums))])
                row.carry(pixel.results)
            store(builder, row.results[0], goal, builder.mul(offset, const(4)), 4)

        each_chunk(builder, [channels], _WIDEST, lambda kind, offsets: chunk(kind, offsets[0]))
        return context.get_dummy_value()

    return signature, generate


@kernel
def _sum_images(
    x: Any,
    image: int,
    origin: int,
    row_bytes: int,
    rows: int,
    pixels: int,
    channels: int,
    initial: Any,
    out: Any,
    images: int,
) -> None:
    for n in range(images):
        _sum_pixels(x, n * image + origin, rows, row_bytes, pixels, channels, initial, out, n * channels)


class SpatialSumMaps:
    """`out[n, c] = sum over positions of (x - zero_point)`, int32.

    Args:
        zero_point: The (unsigned) code that stands for zero.
        input: The map that is read.

    Raises:
        ValueError: The zero point is not a code, or the sum could pass int32.
    """

    def __init__(self, zero_point: int, input: MapLayout) -> None:  # noqa: A002 - as above
        if not 0 <= zero_point <= 255:
            raise ValueError(f"zero point {zero_point} is not in 0..255")
        steps = walk(input)
        positions = input.height * input.width
        if positions * 255 > np.iinfo(np.int32).max:
            raise ValueError(f"a sum of {positions} codes can pass int32")
        self._image_bytes, self._channels = input.image_bytes, input.channels
        self._settings = (*steps.places[0], steps.rows, steps.run // input.channels, input.channels)
        self._initial = np.int32(-zero_point * positions)

    def __call__(self, x: NDArray[np.uint8], out: NDArray[np.int32], images: int) -> None:
        """Sum `images` images of `x` into `out`, `[image][channel]`.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        check_array(x, CODES, images, self._image_bytes)
        check_array(out, SUMS, images, self._channels)
        _sum_images(x, *self._settings, self._initial, out, images)
