"""Sums of channels-last maps and their requantisation: residual additions, and int32 sums that become codes.

    acc  = sum_i m_i * (x_i - z_i)                            int32; or sums that are given
    f    = float32(acc + bias[c]) * M[c]
    code = rint(clip(f, 0 - z, 255 - z)) + z                  half to even

One pass: the accumulator stays in registers, and every output is written from it. The zero points of the inputs
are part of the bias. Runs of a map are longer than its channels, so a vector holds the end of one pixel and the
beginning of the next: the tables of bias and multiplier are repeated as far as a vector may reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types

from .cache import kernel
from .drain import emit_codes
from .emit import F32, I32, I64, at, broadcast, const, floats, integers, load, pointer, store
from .layout import MapLayout
from .map_runs import CODES, SUMS, check_array, each_vector, emitted, walk

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir
    from numpy.typing import NDArray

__all__ = ["AddMaps", "MapRequantise", "RequantiseSums", "SumMaps"]

# Lanes of the longest vector.
_WIDEST = 32

# Words of a table before the bias: low - z, high - z, z, and room for alignment.
_HEAD = 16

# Numbers of each map in `places`: distance of images, origin, distance of runs, and one that differs.
_PLACE = 4


@dataclass(frozen=True, eq=False)
class MapRequantise:
    """How sums become the codes of a map.

    Attributes:
        bias: int32 `(C,)`, added before the product.
        multiplier: float32 `(C,)`.
        zero_point: The (unsigned) code that stands for zero.
        output: The map that is written.
    """

    bias: NDArray[np.int32]
    multiplier: NDArray[np.float32]
    zero_point: int
    output: MapLayout


def _bits(value: float) -> int:
    """The int32 that has the bits of a float32."""
    return int(np.float32(value).view(np.int32))


def _repeats(size: int) -> int:
    """How often a table is repeated, so that no vector is longer than it."""
    return -(-_WIDEST // size)


def _table(
    bias: NDArray[Any], multiplier: NDArray[Any], zero_point: int, output: MapLayout, constant: int
) -> NDArray[np.int32]:
    """What turns sums into codes: limits, `bias + constant` and multiplier, flat int32.

    Raises:
        TypeError: The bias is not int32 or the multiplier not float32.
        ValueError: A shape is neither `(C,)` nor `(positions, C)`, a multiplier is not finite, or the zero
            point is not a code.
    """
    channels, positions = output.channels, output.height * output.width
    if bias.dtype != np.int32 or multiplier.dtype != np.float32:
        raise TypeError(f"a bias is int32 and a multiplier float32, not {bias.dtype} and {multiplier.dtype}")
    for values in (bias, multiplier):
        if values.shape not in ((channels,), (positions, channels)):
            raise ValueError(
                f"a bias and a multiplier have shape ({channels},) or ({positions}, {channels}), not {values.shape}"
            )
    if not np.isfinite(multiplier).all():
        raise ValueError("a requantisation multiplier is not finite")
    if not 0 <= zero_point <= 255:
        raise ValueError(f"zero point {zero_point} is not in 0..255")
    head = np.zeros(_HEAD, np.int32)
    head[:3] = _bits(0 - zero_point), _bits(255 - zero_point), zero_point
    # An int32 addition wraps, so the order in which the constants are added makes no difference.
    shifted = (bias.astype(np.int64) + constant).astype(np.int32)
    shape = np.broadcast_shapes(bias.shape, multiplier.shape)
    parts = [head]
    for values in (shifted, multiplier.view(np.int32)):
        flat = np.broadcast_to(values, shape).reshape(-1)
        parts.append(np.resize(flat, flat.size * _repeats(flat.size) + _WIDEST))
    return np.concatenate(parts)


def _elements(builder: ir.IRBuilder, context: Any, kind: Any, value: ir.Value) -> list[ir.Value]:
    """The addresses of a tuple's arrays."""
    return [
        pointer(context, builder, array, builder.extract_value(value, i))
        for i, array in enumerate(kind.types)
    ]


@emitted
def _run_of_sums(
    typing_context: Any,  # noqa: ARG001
    inputs: Any,
    outputs: Any,
    tables: Any,
    places: Any,
    period: Any,  # noqa: ARG001
    image: Any,  # noqa: ARG001
    row: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
) -> Any:
    """One run of all maps.

    Args:
        typing_context: Numba's; not an argument of the call.
        inputs: A tuple of arrays: one or two of codes, or one of int32 sums.
        outputs: A tuple of arrays: codes, or int32 sums.
        tables: A tuple of int32 arrays: for each output of codes what `_table` makes, for each of sums the
            number that is added.
        places: int64: for each input and output where its runs are, in elements; then the multiplier of an input,
            the distance of an output's rows in its table.
        period: After how many elements the tables repeat, at least `_WIDEST`.
        image: The image.
        row: The run of the image.
        count: Elements of the run.
    """
    number = types.int64
    signature = types.void(inputs, outputs, tables, places, number, number, number, number)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        inputs, outputs, tables, places, period, image, row, count = arguments
        kinds = signature.args
        numbers_of_maps = pointer(context, builder, kinds[3], places)
        kinds_of_maps = [*kinds[0].types, *kinds[1].types]
        maps = _elements(builder, context, kinds[0], inputs) + _elements(builder, context, kinds[1], outputs)
        parameters = _elements(builder, context, kinds[2], tables)
        sources = len(kinds[0].types)
        addresses, extras = [], []
        for index, (kind, base) in enumerate(zip(kinds_of_maps, maps, strict=True)):
            distance, origin, step, extra = (
                load(builder, numbers_of_maps, 8 * (_PLACE * index + part), I64, 8) for part in range(_PLACE)
            )
            place = builder.add(builder.mul(image, distance), builder.mul(row, step))
            size = kind.dtype.bitwidth // 8
            addresses.append(at(builder, base, builder.mul(builder.add(place, origin), const(size))))
            extras.append(extra)
        factors = [builder.trunc(extra, I32) for extra in extras[:sources]]
        first = builder.mul(row, extras[-1])
        limits = [
            [
                load(builder, table, 0, F32, 4),
                load(builder, table, 4, F32, 4),
                load(builder, table, 8, I32, 4),
            ]
            if kind.dtype == types.uint8
            else [load(builder, table, 0, I32, 4)]
            for kind, table in zip(kinds[1].types, parameters, strict=True)
        ]
        multipliers = builder.mul(builder.add(period, const(_WIDEST)), const(4))

        def body(lanes: int, offset: ir.Value, values: list[ir.Value]) -> Sequence[ir.Value]:
            sums = integers(32, lanes)
            acc: Any = None
            for kind, address, factor in zip(kinds[0].types, addresses, factors, strict=False):
                if kind.dtype == types.int32:
                    acc = load(builder, address, builder.mul(offset, const(4)), sums, 4)
                    continue
                codes = builder.zext(load(builder, address, offset, integers(8, lanes)), sums)
                term = builder.mul(codes, broadcast(builder, factor, lanes))
                acc = term if acc is None else builder.add(acc, term)
            phase = values[0]
            words = builder.add(builder.mul(phase, const(4)), const(4 * _HEAD))
            for address, table, numbers in zip(addresses[sources:], parameters, limits, strict=True):
                ends = [broadcast(builder, value, lanes) for value in numbers]
                if len(ends) == 1:
                    store(builder, builder.add(acc, ends[0]), address, builder.mul(offset, const(4)), 4)
                    continue
                total = builder.add(acc, load(builder, table, words, sums, 4))
                factor = load(builder, table, builder.add(words, multipliers), floats(lanes), 4)
                codes = emit_codes(builder, total, factor, (ends[0], ends[1], ends[2]))
                store(builder, codes, address, offset)
            phase = builder.add(phase, const(lanes))
            rest = builder.sub(phase, period)
            return [builder.select(builder.icmp_signed("<", rest, const(0)), phase, rest)]

        each_vector(builder, count, _WIDEST, [first], body)
        return context.get_dummy_value()

    return signature, generate


@kernel
def _sums(
    inputs: Any, outputs: Any, tables: Any, places: Any, period: int, rows: int, images: int, count: int
) -> None:
    for n in range(images):
        for y in range(rows):
            _run_of_sums(inputs, outputs, tables, places, period, n, y, count)


def _dense(layout: MapLayout) -> MapLayout:
    """The layout of sums: that of a map without padding."""
    return MapLayout(layout.channels, layout.height, layout.width)


class AddMaps:
    """The weighted sum of one or two maps, as codes of one or two other maps, or as it is.

    Args:
        multipliers: One integer for each input.
        zero_points: One (unsigned) code for each input.
        inputs: The maps that are read; they have the same channels, height and width.
        results: What is written, one or two: codes, or for None the int32 sum, flat and without padding.

    Raises:
        TypeError: See `_table`.
        ValueError: The numbers of arguments or the sizes of the maps differ, the sum could pass int32, or see
            `_table`.
    """

    def __init__(
        self,
        multipliers: tuple[int, ...],
        zero_points: tuple[int, ...],
        inputs: tuple[MapLayout, ...],
        results: tuple[MapRequantise | None, ...],
    ) -> None:
        if not 1 <= len(inputs) <= 2 or not len(inputs) == len(multipliers) == len(zero_points):
            raise ValueError("a sum takes one or two maps, each with a multiplier and a zero point")
        if not 1 <= len(results) <= 2:
            raise ValueError(f"a sum has one or two results, not {len(results)}")
        if sum(abs(multiplier) for multiplier in multipliers) * 255 > np.iinfo(np.int32).max:
            raise ValueError(f"a sum with multipliers {multipliers} can pass int32")
        if any(not 0 <= zero_point <= 255 for zero_point in zero_points):
            raise ValueError(f"zero points {zero_points} are not all in 0..255")
        outputs = [_dense(inputs[0]) if result is None else result.output for result in results]
        maps = [*inputs, *outputs]
        steps = walk(*maps)
        constant = -sum(m * z for m, z in zip(multipliers, zero_points, strict=True))
        self._walk, self._inputs = steps, len(inputs)
        self._kinds: list[np.dtype[Any]] = [CODES] * len(inputs) + [
            SUMS if result is None else CODES for result in results
        ]
        self._sizes = [layout.image_bytes for layout in maps]
        self._tables = tuple(
            np.array([constant], np.int32)
            if result is None
            else _table(
                _per_channel(result.bias),
                _per_channel(result.multiplier),
                result.zero_point,
                result.output,
                constant,
            )
            for result in results
        )
        extras = [*multipliers, *(0 for _ in results)]
        self._places = np.array(
            [(*p, e) for p, e in zip(steps.places, extras, strict=True)], np.int64
        ).reshape(-1)
        self._period = inputs[0].channels * _repeats(inputs[0].channels)

    def __call__(self, *operands: Any) -> None:
        """`(a, out, images)`, `(a, b, out, images)`, `(a, b, first, second, images)`: arrays, then the number.

        An output may be the array of an input whose layout it has.

        Raises:
            TypeError, ValueError: Arrays are missing, or see `check_array`.
        """
        *arrays, images = operands
        if len(arrays) != len(self._kinds):
            raise ValueError(f"found {len(arrays)} arrays, expected {len(self._kinds)}: inputs, then outputs")
        for array, kind, size in zip(arrays, self._kinds, self._sizes, strict=True):
            check_array(array, kind, images, size)
        turns, count = self._walk.turns(images)
        inputs, outputs = tuple(arrays[: self._inputs]), tuple(arrays[self._inputs :])
        _sums(inputs, outputs, self._tables, self._places, self._period, self._walk.rows, turns, count)


def _per_channel(values: NDArray[Any]) -> NDArray[Any]:
    """A bias or a multiplier of an addition.

    Raises:
        ValueError: It is not `(C,)`.
    """
    if values.ndim != 1:
        raise ValueError(
            f"an addition has a bias and a multiplier for each channel, not of shape {values.shape}"
        )
    return values


class SumMaps(AddMaps):
    """`out = sum_i multipliers[i] * (x_i - zero_points[i])`, int32 `[image][y][x][c]`; see `AddMaps`."""

    def __init__(
        self, multipliers: tuple[int, ...], zero_points: tuple[int, ...], inputs: tuple[MapLayout, ...]
    ) -> None:
        super().__init__(multipliers, zero_points, inputs, (None,))


class RequantiseSums:
    """Codes of int32 sums that lie as `[image][position][channel]`.

    Args:
        channels, positions: Of the sums.
        bias: int32 `(C,)`, or `(positions, C)`: one for each position.
        multiplier: float32, of either shape.
        zero_point: The (unsigned) code that stands for zero.
        output: The map that is written.

    Raises:
        TypeError: See `_table`.
        ValueError: The output has other channels or positions, or see `_table`.
    """

    def __init__(
        self,
        channels: int,
        positions: int,
        bias: NDArray[np.int32],
        multiplier: NDArray[np.float32],
        zero_point: int,
        output: MapLayout,
    ) -> None:
        steps = walk(_dense(output), output)
        if (channels, positions) != (output.channels, output.height * output.width):
            raise ValueError(f"{positions} positions of {channels} channels are not the map {output}")
        self._walk = steps
        self._sizes = (channels * positions, output.image_bytes)
        self._tables = (_table(bias, multiplier, zero_point, output, 0),)
        flat = channels * (positions if 2 in (bias.ndim, multiplier.ndim) else 1)
        self._period = flat * _repeats(flat)
        source, target = steps.places
        self._places = np.array([*source, 1, *target, source[2] if flat > channels else 0], np.int64)

    def __call__(self, sums: NDArray[np.int32], out: NDArray[np.uint8], images: int) -> None:
        """Requantise the sums of `images` images into `out`.

        Raises:
            TypeError, ValueError: See `check_array`.
        """
        check_array(sums, SUMS, images, self._sizes[0])
        check_array(out, CODES, images, self._sizes[1])
        turns, count = self._walk.turns(images)
        _sums((sums,), (out,), self._tables, self._places, self._period, self._walk.rows, turns, count)
