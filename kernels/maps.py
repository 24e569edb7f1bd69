"""Moving the codes of channels-last maps: packing, padding, concatenation, and element-wise tables.

    pack    out[n, y, x, c] = x[n, c, y, x] ^ flip
    copy    out[n, y, x, first + c] = x[n, y, x, c]
    table   out = table[x]        out = table[a, b]

All of them read and write the unpadded area alone; `FillBorder` writes the padding alone. Arrays of maps are flat
uint8 and begin with image 0 (see `layout`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel
from .layout import MapLayout
from .map_moves import copy_rows, flip_rows, interleave_rows, separate_rows
from .map_runs import CODES, Walk, check_array, check_layout, walk
from .map_tables import look_up_pair_rows, look_up_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CopyMaps", "FillBorder", "PackMaps", "PairTableMaps", "TableMaps", "UnpackMaps"]


def _pixels(*maps: MapLayout) -> Walk:
    """How to go through maps of different channels, pixel by pixel; places are in bytes."""
    steps = walk(*(replace(each, channels=1) for each in maps))
    places = tuple(
        (image * each.channels, origin * each.channels, row * each.channels)
        for each, (image, origin, row) in zip(maps, steps.places, strict=True)
    )
    return replace(steps, places=places)


class _Planes:
    """What packing and unpacking share.

    A map of one channel or of one pixel lies the same way in both orders: its rows are copied.
    """

    def __init__(self, layout: MapLayout, flip: int) -> None:
        check_layout(layout)
        if flip not in (0, 128):
            raise ValueError(f"codes are flipped by 0 or 128, not {flip}")
        self._flip, self._channels = np.uint8(flip), layout.channels
        self._plane = layout.height * layout.width
        self._size, self._image_bytes = layout.codes, layout.image_bytes
        self._same = layout.channels == 1 or self._plane == 1
        dense = MapLayout(layout.channels, layout.height, layout.width)
        if self._same:
            self._steps = walk(dense, layout)
        else:
            pixels = _pixels(dense, layout)
            image, padded = pixels.places
            # A row of a plane is as long as a row of pixels, its channels lie elsewhere.
            self._steps = replace(pixels, places=((image[0], 0, layout.width), padded))

    def _flat(self, planes: NDArray[Any], images: int) -> NDArray[Any]:
        if not planes.flags.c_contiguous:
            raise ValueError(f"an array of planes is contiguous, not of strides {planes.strides}")
        flat = planes.reshape(-1)
        check_array(flat, CODES, images, self._size)
        return flat


class PackMaps(_Planes):
    """`out[n, y, x, c] = source[n, c, y, x] ^ flip`.

    Args:
        output: The map that is written; its padding is not.
        flip: 0, or 128 where the source's codes are signed.

    Raises:
        ValueError: `flip` is another number, or a size is none.
    """

    def __init__(self, output: MapLayout, flip: int) -> None:
        super().__init__(output, flip)

    def __call__(self, source: NDArray[np.uint8], out: NDArray[np.uint8], images: int) -> None:
        """Pack `images` images.

        Args:
            source: uint8, contiguous `(N, C, H, W)` of any shape: the bytes of the codes.
            out: The map, which is another array.
            images: Their number.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        x = self._flat(source, images)
        check_array(out, CODES, images, self._image_bytes)
        steps = self._steps
        dense, padded = steps.places
        if self._same:
            flip_rows(x, *dense, out, *padded, self._flip, steps.rows, *steps.turns(images))
            return
        image, _, row = dense
        turns = (steps.rows, images, steps.run)
        interleave_rows(x, image, row, self._plane, out, *padded, self._channels, self._flip, *turns)


class UnpackMaps(_Planes):
    """`out[n, c, y, x] = x[n, y, x, c] ^ flip`; the inverse of `PackMaps`.

    Args:
        input: The map that is read.
        flip: 0, or 128 where the codes that are written are signed.

    Raises:
        ValueError: `flip` is another number, or a size is none.
    """

    def __init__(self, input: MapLayout, flip: int) -> None:  # noqa: A002 - what it is called at every map
        super().__init__(input, flip)

    def __call__(self, x: NDArray[np.uint8], out: NDArray[np.uint8], images: int) -> None:
        """Unpack `images` images.

        Args:
            x: The map.
            out: uint8, contiguous `(N, C, H, W)` of any shape, another array.
            images: Their number.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        planes = self._flat(out, images)
        check_array(x, CODES, images, self._image_bytes)
        steps = self._steps
        dense, padded = steps.places
        if self._same:
            flip_rows(x, *padded, planes, *dense, self._flip, steps.rows, *steps.turns(images))
            return
        image, _, row = dense
        turns = (steps.rows, images, steps.run)
        separate_rows(x, *padded, self._channels, planes, image, row, self._plane, self._flip, *turns)


@kernel
def _fill_border(
    out: Any, fill: Any, image: int, origin: int, row: int, rows: int, run: int, images: int
) -> None:
    """Before the first run of an image, between every two, and after the last."""
    for n in range(images):
        end = n * image
        for y in range(rows):
            begin = n * image + origin + y * row
            for i in range(end, begin):
                out[i] = fill
            end = begin + run
        for i in range(end, (n + 1) * image):
            out[i] = fill


class FillBorder:
    """Write a map's `fill` into its padding, and nothing else.

    Raises:
        ValueError: A size of the map is none.
    """

    def __init__(self, layout: MapLayout) -> None:
        steps = walk(layout)
        self._padded, self._fill = layout.padded, np.uint8(layout.fill)
        self._settings = (*steps.places[0], steps.rows, steps.run)

    def __call__(self, out: NDArray[np.uint8], images: int) -> None:
        """Fill the padding of `images` images.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        check_array(out, CODES, images, self._settings[0])
        if self._padded:
            _fill_border(out, self._fill, *self._settings, images)


class CopyMaps:
    """`out[n, y, x, first_channel + c] = x[n, y, x, c]`: one operand of a concatenation.

    Args:
        input: The map that is read.
        output: The map that is written, of the same height and width.
        first_channel: Where the channels go.

    Raises:
        ValueError: The sizes differ, or the channels do not fit.
    """

    def __init__(self, input: MapLayout, output: MapLayout, first_channel: int) -> None:  # noqa: A002 - as above
        check_layout(input)
        check_layout(output)
        if not 0 <= first_channel <= output.channels - input.channels:
            raise ValueError(
                f"{input.channels} channels do not fit into {output.channels} from channel {first_channel} on"
            )
        self._same = input.channels == output.channels
        self._steps = steps = walk(input, output) if self._same else _pixels(input, output)
        self._sizes = (input.image_bytes, output.image_bytes)
        (image, origin, row) = steps.places[1]
        self._source, self._target = steps.places[0], (image, origin + first_channel, row)
        self._channels = (input.channels, output.channels)

    def __call__(self, x: NDArray[np.uint8], out: NDArray[np.uint8], images: int) -> None:
        """Copy `images` images of `x` into `out`, which is another array.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        check_array(x, CODES, images, self._sizes[0])
        check_array(out, CODES, images, self._sizes[1])
        turns = self._steps.turns(images)
        if self._same:
            flip_rows(x, *self._source, out, *self._target, np.uint8(0), self._steps.rows, *turns)
            return
        read, written = self._channels
        copy_rows(x, *self._source, read, out, *self._target, written, self._steps.rows, *turns)


class TableMaps:
    """`out = table[x]`.

    Args:
        table: uint8 `(256,)`.
        input: The map that is read.
        output: The map that is written, of the same size.

    Raises:
        ValueError: The table has another shape or type, or the sizes differ.
    """

    def __init__(self, table: NDArray[np.uint8], input: MapLayout, output: MapLayout) -> None:  # noqa: A002 - as above
        self._table = _check_table(table, (256,))
        self._steps = walk(input, output)

    def __call__(self, x: NDArray[np.uint8], out: NDArray[np.uint8], images: int) -> None:
        """Look up `images` images of `x`; `out` may be `x`, if the layouts are the same.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        steps = self._steps
        source, target = steps.places
        check_array(x, CODES, images, source[0])
        check_array(out, CODES, images, target[0])
        look_up_rows(x, *source, self._table, out, *target, steps.rows, *steps.turns(images))


def _check_table(table: NDArray[Any], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A table, flat."""
    if table.dtype != np.uint8 or table.shape != shape:
        raise ValueError(f"a table is uint8 {shape}, not {table.dtype} {table.shape}")
    return table.flatten()


class PairTableMaps:
    """`out = table[a, b]`.

    Args:
        table: uint8 `(256, 256)`.
        inputs: The two maps that are read.
        output: The map that is written, of the same size.

    Raises:
        ValueError: The table has another shape or type, or the sizes differ.
    """

    def __init__(
        self, table: NDArray[np.uint8], inputs: tuple[MapLayout, MapLayout], output: MapLayout
    ) -> None:
        if len(inputs) != 2:
            raise ValueError(f"a table of pairs takes two maps, not {len(inputs)}")
        self._table = _check_table(table, (256, 256))
        self._steps = walk(*inputs, output)

    def __call__(
        self, a: NDArray[np.uint8], b: NDArray[np.uint8], out: NDArray[np.uint8], images: int
    ) -> None:
        """Look up `images` images of `a` and `b`; `out` may be either, if the layouts are the same.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        steps = self._steps
        for array, place in zip((a, b, out), steps.places, strict=True):
            check_array(array, CODES, images, place[0])
        first, second, target = steps.places
        turns = steps.turns(images)
        look_up_pair_rows(a, *first, b, *second, self._table, out, *target, steps.rows, *turns)
