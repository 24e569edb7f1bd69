"""The exact integer matrix product that dense layers and convolutions share.

Activations less their zero point lie as int16 in one flat scratch array. A row of the product is a list of
equal segments of it (one for a dense layer, one per kernel row of a convolution: an implicit GEMM). Weights
are packed once for `pairs.multiply_rows`; a segment of odd length is padded with a zero weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel
from .pairs import COLUMNS, ROWS, multiply_row, multiply_rows
from .requantise import ROUNDER, code_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .requantise import CodeFormat

__all__ = [
    "OutputStage",
    "PackedWeight",
    "check_operands",
    "multiply",
    "output_stage",
    "pack_weight",
    "row_table",
    "unsigned_view",
]


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """Weights of one or more groups as `pairs.multiply_rows` reads them.

    Attributes:
        data: int16, flat: `[group][block of 16 columns][segment][pair][16 columns][2]`.
        pairs: Pairs in each segment.
        columns: Columns of a group, without padding.
        padded: Columns of a group, a multiple of 16.
    """

    data: NDArray[np.int16]
    pairs: int
    columns: int
    padded: int


@dataclass(frozen=True, eq=False)
class OutputStage:
    """What follows the product: a bias and the requantisation, per column, padded like the weights.

    Attributes:
        bias: int32, flat.
        multiplier: float32, flat, or None where the accumulators themselves are the output.
        low, high: The lowest and the highest code less the zero point.
        zero: The zero point.
        dtype: Element type of the output.
    """

    bias: NDArray[np.int32]
    multiplier: NDArray[np.float32] | None
    low: np.float32
    high: np.float32
    zero: np.int32
    dtype: np.dtype[Any]

    def empty(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """An output as the kernels write it: int32, or codes as uint8 whatever their sign."""
        return np.empty(shape, np.int32 if self.multiplier is None else np.uint8)

    def finish(self, out: NDArray[Any]) -> NDArray[Any]:
        """The output with its own element type."""
        return out.view(self.dtype)


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


def unsigned_view(x: NDArray[Any], zero_point: int) -> tuple[NDArray[np.uint8], np.uint8, np.int16]:
    """See 8-bit codes as uint8, so that the kernels are compiled once for both signs.

    Returns:
        The contiguous bytes, the mask to flip in each (128 for int8), and the zero point of what results.

    Raises:
        TypeError: The codes are neither uint8 nor int8.
        ValueError: The zero point is not a code.
    """
    if x.dtype not in (np.uint8, np.int8):
        raise TypeError(f"codes are uint8 or int8, not {x.dtype}")
    shift = 128 if x.dtype == np.int8 else 0
    if not 0 <= zero_point + shift <= 255:
        raise ValueError(f"zero point {zero_point} is not a code of {x.dtype}")
    return np.ascontiguousarray(x).view(np.uint8), np.uint8(shift), np.int16(zero_point + shift)


def pack_weight(weight: NDArray[Any]) -> PackedWeight:
    """Pack weights `(groups, segments, length, columns)` for the kernel; odd lengths get a zero."""
    groups, segments, length, columns = weight.shape
    pairs = -(-length // 2)
    padded = -(-columns // COLUMNS) * COLUMNS
    full = np.zeros((groups, segments, 2 * pairs, padded), np.int16)
    full[:, :, :length, :columns] = weight
    blocks = full.reshape(groups, segments, pairs, 2, padded // COLUMNS, COLUMNS)
    data = np.ascontiguousarray(blocks.transpose(0, 4, 1, 2, 5, 3)).reshape(-1)
    return PackedWeight(data, pairs, columns, padded)


def _columns(values: NDArray[Any], groups: int, columns: int, padded: int) -> NDArray[Any]:
    """Spread one value per output over groups of padded columns, flat."""
    full = np.zeros((groups, padded), values.dtype)
    full[:, :columns] = np.broadcast_to(values, (groups * columns,)).reshape(groups, columns)
    return full.reshape(-1)


def output_stage(
    bias: NDArray[np.int32] | None, codes: CodeFormat | None, groups: int, columns: int, padded: int
) -> OutputStage:
    """Prepare a bias and a per-column requantisation (`codes.multiplier` has one or all outputs' values)."""
    outputs = np.zeros((), np.int32) if bias is None else bias
    spread = _columns(outputs, groups, columns, padded)
    if codes is None:
        return OutputStage(spread, None, np.float32(0), np.float32(0), np.int32(0), np.dtype(np.int32))
    low, high, zero = code_limits(codes)
    multiplier = _columns(codes.multiplier.reshape(-1), groups, columns, padded)
    return OutputStage(spread, multiplier, low, high, zero, np.dtype(codes.dtype))


def row_table(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row starts as `multiply` reads them: flat, the last one repeated up to a multiple of four."""
    flat = starts.reshape(-1)
    return np.concatenate([flat, np.repeat(flat[-1:], -flat.size % ROWS)])


@kernel
def _store_rows(
    acc: Any, rows: int, columns: int, bias: Any, out: Any, starts: Any, first: int, base: int, stride: int
) -> None:
    """Write a block of accumulators plus bias: `out[starts[row] + base + column * stride]`."""
    for c in range(columns):
        for r in range(rows):
            out[starts[first + r] + base + c * stride] = acc[r * COLUMNS + c] + bias[c]


@kernel
def _round_block(acc: Any, rows: int, bias: Any, multiplier: Any, low: Any, high: Any, zero: Any) -> None:
    """Turn a block of accumulators into codes, in place, along the columns."""
    for r in range(rows):
        for c in range(COLUMNS):
            f = np.float32(np.int32(acc[r * COLUMNS + c] + bias[c])) * multiplier[c]
            f = low if f < low else f
            f = high if f > high else f
            acc[r * COLUMNS + c] = np.int32(f + ROUNDER - ROUNDER) + zero


@kernel
def multiply(
    x: Any,
    x_starts: Any,
    x_group: int,
    segments: Any,
    pairs: int,
    weight: Any,
    columns: int,
    bias: Any,
    multiplier: Any,
    low: Any,
    high: Any,
    zero: Any,
    out: Any,
    out_starts: Any,
    out_group: int,
    stride: int,
    rows: int,
    groups: int,
) -> None:
    """The product of every group, its bias and (unless `multiplier` is None) its requantisation.

    Row r of group g is read from `x[x_starts[r] + g * x_group]` on; its column c is written to
    `out[out_starts[r] + g * out_group + c * stride]`. `x_starts` repeats its last entry up to a multiple of
    four. `bias` and `multiplier` are padded to whole blocks of columns in every group.
    """
    acc = np.empty(ROWS * COLUMNS, np.int32)
    no_bias = np.zeros(COLUMNS, np.int32)
    blocks = (columns + COLUMNS - 1) // COLUMNS
    panel_size = segments.shape[0] * pairs * 2 * COLUMNS
    for block in range(groups * blocks):
        group = block // blocks
        column = (block - group * blocks) * COLUMNS
        width = min(COLUMNS, columns - column)
        block_bias = bias[block * COLUMNS : (block + 1) * COLUMNS]
        base = group * out_group + column * stride
        for row in range(0, rows, ROWS):
            height = min(ROWS, rows - row)
            if height == 1:
                multiply_row(
                    x, group * x_group, x_starts, row, segments, pairs, weight, block * panel_size, acc
                )
            else:
                multiply_rows(
                    x, group * x_group, x_starts, row, segments, pairs, weight, block * panel_size, acc
                )
            if multiplier is None:
                _store_rows(acc, height, width, block_bias, out, out_starts, row, base, stride)
            else:
                block_multiplier = multiplier[block * COLUMNS : (block + 1) * COLUMNS]
                _round_block(acc, height, block_bias, block_multiplier, low, high, zero)
                _store_rows(acc, height, width, no_bias, out, out_starts, row, base, stride)
