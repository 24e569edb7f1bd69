"""Exact convolutions on codes, channels last, as one implicit matrix product; a dense layer is one of them.

    acc[o, y, x] = sum over c, i, j of  w[o, c, i, j] * (q[c, y sy + i dy, x sx + j dx] - z)  +  bias[o]

The input lies padded in memory (see `layout`), so the codes under one kernel row are one contiguous segment and
nothing is copied: a row of the product is a table of starts, an output position each. The zero point is folded:

    acc = sum w q + (bias - z sum w)                      modulo 2^32, as every sum here

A dense layer on a flattened map is the convolution whose kernel covers the map. A maximum over windows that do
not overlap can be fused: the table lists the positions of one window side by side, and the drain takes the
maximum of their sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .drain import LARGEST_BOUNDED
from .gemm import multiply, multiply_row
from .isa.base import COLUMNS
from .packing import PackedWeight, pack_nibbles, pack_weight
from .tile import ROW_PANELS, Tile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # Arguments before the input, between input and output, and behind the output.
    _Call = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]

    from .codes import MapCodes
    from .isa.base import InstructionSet
    from .layout import MapLayout

__all__ = ["SPARE_BYTES", "ConvMaps", "check_operands", "is_depthwise", "pools_in_drain"]

# A kernel may read this much beyond the last image of its input.
SPARE_BYTES = 64

# Compiled functions, called with tuples of arguments that are made once.
_MULTIPLY: Any = multiply
_MULTIPLY_ROW: Any = multiply_row

# Rows of the tables, which are shared by blocks of whole images: enough that short tiles are rare.
_BLOCK_ROWS = 192

# Rows of a pooling window that both tiles of every instruction set divide into.
_POOLS = (1, 2, 4)


def check_operands(weight: NDArray[Any], bias: NDArray[Any] | None, outputs: int) -> None:
    """Refuse weights and biases that the kernels cannot multiply exactly.

    Raises:
        TypeError: The weight is neither int8 nor int16, or the bias is not int32.
        ValueError: A weight lies outside -255..255, or the bias is not `(outputs,)`.
    """
    if weight.dtype not in (np.int8, np.int16):
        raise TypeError(f"weights are int8 or int16, not {weight.dtype}")
    if weight.dtype == np.int16 and weight.size and max(-int(weight.min()), int(weight.max())) > 255:
        raise ValueError("an int16 weight lies outside -255..255: it is no 8-bit code less a zero point")
    if bias is not None and bias.dtype != np.int32:
        raise TypeError(f"a bias is int32, not {bias.dtype}")
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"a bias has shape ({outputs},), not {bias.shape}")


def is_depthwise(weight: NDArray[Any], groups: int) -> bool:
    """Whether every channel is convolved by itself, into one channel."""
    return bool(weight.shape[1] == 1 and weight.shape[0] == groups > 1)


def pools_in_drain(window: tuple[int, int], multiplier: NDArray[np.float32]) -> bool:
    """Whether the maximum over windows of this size may be taken before the requantisation."""
    return window[0] * window[1] in _POOLS and bool((multiplier >= 0).all())


class ConvMaps:
    """A convolution between two layouts, prepared once.

    Args:
        weight: int8 or int16 `(O, C / groups, kH, kW)`, within -255..255.
        bias: int32 `(O,)`, or None.
        strides, dilations: Down and across.
        begins: Padding of this convolution above and to the left. The input may hold more of it.
        groups: Number of groups.
        zero_point: Code of the input that stands for zero, and that its padding holds.
        codes: Requantisation; None for int32 accumulators, `[image][y][x][channel]` without padding.
        scale: float32 `(O,)`, without `codes` alone: the output is `float32(acc) * scale`, likewise.
        pool: Height and width of the windows whose maximum is the output (see `pools_in_drain`).
        input: Layout of the input.
        output: Layout of the output; its size tells the number of windows.
        isa: The instruction set.

    Attributes:
        products: Multiplications for one image.

    Raises:
        TypeError: An operand has the wrong element type.
        ValueError: An operand has the wrong shape or range, or a window reaches beyond the input's padding.
    """

    def __init__(
        self,
        weight: NDArray[Any],
        bias: NDArray[np.int32] | None,
        *,
        strides: tuple[int, int] = (1, 1),
        begins: tuple[int, int] = (0, 0),
        dilations: tuple[int, int] = (1, 1),
        groups: int = 1,
        zero_point: int,
        codes: MapCodes | None,
        scale: NDArray[np.float32] | None = None,
        pool: tuple[int, int] = (1, 1),
        input: MapLayout,  # noqa: A002 - the input is what it is
        output: MapLayout,
        isa: InstructionSet,
    ) -> None:
        outputs, channels, *kernel = weight.shape
        check_operands(weight, bias, outputs)
        if outputs % groups or input.channels != channels * groups or output.channels != outputs:
            raise ValueError(
                f"a weight of {weight.shape} in {groups} groups does not lead from {input} to {output}"
            )
        if codes is not None and scale is not None:
            raise ValueError("an output is codes or scaled accumulators, not both")
        if codes is None and output.padded:
            raise ValueError("accumulators are written without padding")
        positions = (output.height * pool[0], output.width * pool[1])
        _check_reach(input, positions, (kernel[0], kernel[1]), strides, begins, dilations)
        self._positions = positions[0] * positions[1]
        self.products = self._positions * weight.size
        columns = outputs // groups
        taps, segments = _segments(weight, groups, dilations, input)
        packed = pack_weight(taps, isa)
        images = max(1, _BLOCK_ROWS // self._positions)
        x_starts = _row_starts(images, positions, pool, strides, begins, input)
        out_starts = output.origin + _image_starts(images, output)
        folded = _padded(_folded_bias(weight, bias, zero_point), groups, packed)
        factors = scale if codes is None else codes.multiplier
        multiplier = None if factors is None else _padded(factors, groups, packed)
        stage = (folded, multiplier, *_limits(weight, bias, zero_point, codes))
        self._calls: list[_Call] = [
            (
                (tile, *isa.heights, tile.vectors, tile.pool),
                (
                    channels,
                    images * input.image_bytes,
                    x_starts,
                    np.tile(segments, packed.terms),
                    packed.depth,
                    packed.data,
                    packed.panel_bytes,
                    packed.burst,
                    first,
                    last,
                    packed.panels,
                    columns,
                    groups,
                    *stage,
                ),
                (0, columns, images * output.image_bytes, out_starts, images * self._positions),
            )
            for tile, first, last in _tiles(isa, isa.widths, packed.panels, pool[0] * pool[1])
        ]
        nibbles = pack_nibbles(taps) if self._positions == 1 else None
        self._row_calls: list[_Call] = [
            (
                (tile, tile.vectors),
                (
                    channels,
                    x_starts,
                    segments,
                    nibbles.depth,
                    nibbles.data,
                    nibbles.panel_bytes,
                    first,
                    last,
                    nibbles.panels,
                    columns,
                    groups,
                    *stage,
                ),
                (0, columns, out_starts),
            )
            for tile, first, last in _tiles(isa, ROW_PANELS, packed.panels)
            if nibbles is not None
        ]

    def __call__(
        self, x: NDArray[np.uint8], out: NDArray[Any], images: int, scratch: NDArray[np.int32]
    ) -> None:
        """Run on flat arrays that begin at image 0.

        Args:
            x: uint8, with `SPARE_BYTES` behind the last image.
            out: uint8 codes, int32 accumulators or float32.
            images: Number of images.
            scratch: int32, aligned to 64 bytes, of `isa.scratch_bytes`.
        """
        rows = images * self._positions
        if rows == 1 and self._row_calls:
            for before, between, behind in self._row_calls:
                _MULTIPLY_ROW(*before, x, *between, out, *behind, scratch)
        else:
            for before, between, behind in self._calls:
                _MULTIPLY(*before, x, *between, out, *behind, rows, scratch)


def _check_reach(
    layout: MapLayout,
    positions: tuple[int, int],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    begins: tuple[int, int],
    dilations: tuple[int, int],
) -> None:
    """Refuse windows that reach beyond the padding that the input holds."""
    room = ((layout.top, layout.height, layout.bottom), (layout.left, layout.width, layout.right))
    for (before, size, after), count, taps, stride, begin, dilation in zip(
        room, positions, kernel, strides, begins, dilations, strict=True
    ):
        last = (count - 1) * stride - begin + (taps - 1) * dilation
        if begin > before or last >= size + after or min(count, stride, dilation) < 1:
            raise ValueError(
                f"{count} windows of {taps} (stride {stride}, dilation {dilation}, begin {begin}) do not fit "
                f"{before} + {size} + {after} rows or columns"
            )


def _segments(
    weight: NDArray[Any], groups: int, dilations: tuple[int, int], layout: MapLayout
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The weights as `(groups, segments, length, columns)`, and where each segment starts from its row's start.

    A tap is a segment; taps that are neighbours in memory become one.
    """
    outputs, length, height, width = weight.shape
    ordered = weight.reshape(groups, outputs // groups, length, height, width).transpose(0, 3, 4, 2, 1)
    step_down, step_across = dilations[0] * layout.row_bytes, dilations[1] * layout.channels
    starts = np.arange(height)[:, np.newaxis] * step_down + np.arange(width) * step_across
    if width == 1 or step_across == length:
        starts, length = starts[:, :1], length * width
        if height == 1 or step_down == length:
            starts, length = starts[:1], length * height
    taps = ordered.reshape(groups, starts.size, length, outputs // groups)
    return taps, np.ascontiguousarray(starts.reshape(-1), np.int64)


def _row_starts(
    images: int,
    positions: tuple[int, int],
    pool: tuple[int, int],
    strides: tuple[int, int],
    begins: tuple[int, int],
    layout: MapLayout,
) -> NDArray[np.int64]:
    """Where the window of every position starts; the positions of a pooling window side by side."""
    y = np.arange(positions[0]).reshape(-1, pool[0])
    x = np.arange(positions[1]).reshape(-1, pool[1])
    rows = (layout.top - begins[0] + y * strides[0]) * layout.row_bytes
    columns = (layout.left - begins[1] + x * strides[1]) * layout.channels
    starts = (rows[:, np.newaxis, :, np.newaxis] + columns[np.newaxis, :, np.newaxis, :]).reshape(-1)
    all_images = np.arange(images)[:, np.newaxis] * layout.image_bytes + starts
    return np.ascontiguousarray(all_images.reshape(-1), np.int64)


def _image_starts(images: int, layout: MapLayout) -> NDArray[np.int64]:
    """Where every pixel of the output is, counted from the first."""
    rows = np.arange(layout.height, dtype=np.int64)[:, np.newaxis] * layout.row_bytes
    pixels = (rows + np.arange(layout.width) * layout.channels).reshape(-1)
    starts = np.arange(images, dtype=np.int64)[:, np.newaxis] * layout.image_bytes + pixels
    return np.ascontiguousarray(starts.reshape(-1))


def _folded_bias(weight: NDArray[Any], bias: NDArray[np.int32] | None, zero_point: int) -> NDArray[np.int32]:
    """`bias - z * sum w`, modulo 2^32."""
    sums = weight.sum(axis=(1, 2, 3), dtype=np.int64)
    folded = -zero_point * sums + (0 if bias is None else bias.astype(np.int64))
    wrapped: NDArray[np.int32] = folded.astype(np.uint64).astype(np.uint32).view(np.int32)
    return wrapped


def _limits(
    weight: NDArray[Any], bias: NDArray[np.int32] | None, zero_point: int, codes: MapCodes | None
) -> tuple[np.float32 | None, np.float32 | None, np.int32]:
    """The limits of the requantisation; no lower and upper one where no input can bring f to 2^22 (see `drain`)."""
    if codes is None:
        return None, None, np.int32(0)
    low, high, zero = codes.limits
    largest = max(zero_point, 255 - zero_point) * np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3))
    if bias is not None:
        largest += np.abs(bias.astype(np.int64))
    # Twice the bound: float32 rounds acc and the product by less than a millionth each.
    bound = 2.0 * (largest * np.abs(codes.multiplier.astype(np.float64))).max(initial=0)
    return (None, None, zero) if bound <= LARGEST_BOUNDED else (low, high, zero)


def _padded(values: NDArray[Any], groups: int, packed: PackedWeight) -> NDArray[Any]:
    """One value per output, spread over whole panels."""
    full = np.zeros((groups, packed.panels * COLUMNS), values.dtype)
    full[:, : packed.columns] = np.broadcast_to(values, (groups * packed.columns,)).reshape(groups, -1)
    return full.reshape(-1)


def _tiles(
    isa: InstructionSet, widths: tuple[int, ...], panels: int, pool: int = 1
) -> tuple[tuple[Tile, int, int], ...]:
    """The tile and the range of panels of every call: wide ones first, what is left by narrow ones."""
    calls = []
    first = 0
    for width in widths:
        last = first + (panels - first) // width * width
        if last > first:
            calls.append((Tile(isa, width, pool), first, last))
        first = last
    return tuple(calls)
