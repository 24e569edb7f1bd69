"""Exact convolutions on codes, 1-D and 2-D, with the requantisation if one is asked for.

Maps come and go as `(N, C, ...)`. Inside, a block of images lies as int16, less its zero point, with the
padding in place (zeros), channels last within each group; there a kernel row is one contiguous segment, and
the convolution is `gemm.multiply` on a table of row starts. Depthwise layers, which have one column in a
group, run along the channels instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel
from .gemm import check_operands, multiply, output_stage, pack_weight, row_table, unsigned_view
from .requantise import ROUNDER, requantise
from .windows import output_length, spatial_pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .gemm import OutputStage
    from .requantise import CodeFormat

__all__ = ["Convolution"]

# A block of packed images stays in a second-level cache, and its tables of rows in the first.
BLOCK_BYTES = 1 << 18
BLOCK_ROWS = 4096

# Groups of one input channel and few outputs waste most of the 16 columns of a GEMM block.
DEPTHWISE_OUTPUTS = 4
DEPTHWISE_GROUPS = 8


@kernel
def _pack_images(
    x: Any, first: int, images: int, flip: Any, zero_point: Any, top: int, left: int, packed: Any
) -> None:
    """`packed[n, g, top + h, left + w, c] = x[first + n, g, c, h, w] - zero_point`; padding is left alone."""
    _, groups, channels, height, width = x.shape
    for n in range(images):
        for g in range(groups):
            for c in range(channels):
                for h in range(height):
                    for w in range(width):
                        code = np.int16(x[first + n, g, c, h, w] ^ flip)
                        packed[n, g, top + h, left + w, c] = code - zero_point


@kernel
def _depthwise(
    x: Any,
    x_starts: Any,
    taps: Any,
    weight: Any,
    bias: Any,
    multiplier: Any,
    low: Any,
    high: Any,
    zero: Any,
    out: Any,
    out_starts: Any,
    stride: int,
    rows: int,
) -> None:
    """Every channel by itself, all channels at once: `weight` is `(outputs of a channel, taps, channels)`.

    Channel c at row r is read from `x[x_starts[r] + taps[t] + c]`; its output j, the output channel
    `c * outputs + j`, is written to `out[out_starts[r] + (c * outputs + j) * stride]`.
    """
    outputs, _, channels = weight.shape
    acc = np.empty(channels, np.int32)
    for j in range(outputs):
        for r in range(rows):
            for c in range(channels):
                acc[c] = bias[j, c]
            for t in range(taps.shape[0]):
                start = x_starts[r] + taps[t]
                for c in range(channels):
                    acc[c] += np.int32(x[start + c]) * np.int32(weight[j, t, c])
            if multiplier is not None:
                for c in range(channels):
                    f = np.float32(acc[c]) * multiplier[j, c]
                    f = low if f < low else f
                    f = high if f > high else f
                    acc[c] = np.int32(f + ROUNDER - ROUNDER) + zero
            for c in range(channels):
                out[out_starts[r] + (c * outputs + j) * stride] = acc[c]


@dataclass(frozen=True)
class _Geometry:
    """Sizes of one call, in elements of the packed images `[image][group][height][width][channel]`."""

    output: tuple[int, int]
    padded: tuple[int, int]
    x_starts: NDArray[np.int64]
    image: int


class Convolution:
    """A convolution with its weights packed.

    Call it with codes `(N, C, L)` or `(N, C, H, W)` (uint8 or int8) for the output `(N, O, ...)`: codes if
    `codes` is given, int32 accumulators otherwise. Sums wrap modulo 2^32; that they do not is the caller's
    range proof.

    Args:
        weight: int8 or int16 `(O, C / groups, kL)` or `(O, C / groups, kH, kW)`, within -255..255.
        bias: int32 `(O,)`, or None.
        input_zero_point: Code of the input that stands for zero; what padding holds.
        strides, dilations: One number for each spatial axis.
        pads: Beginnings of all spatial axes, then their ends.
        groups: Number of groups.
        codes: Requantisation, or None; its multiplier is broadcast against one sample of the output.

    Raises:
        TypeError: An operand has the wrong element type.
        ValueError: An operand has the wrong shape or range.
    """

    def __init__(
        self,
        weight: NDArray[Any],
        bias: NDArray[np.int32] | None = None,
        *,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        input_zero_point: int = 0,
        groups: int = 1,
        codes: CodeFormat | None = None,
    ) -> None:
        axes = weight.ndim - 2
        if axes not in (1, 2) or min(weight.shape) < 1:
            raise ValueError(f"a convolution weight is (O, C, kL) or (O, C, kH, kW), not {weight.shape}")
        if not len(strides) == len(dilations) == len(pads) // 2 == axes:
            raise ValueError(
                f"strides {strides}, dilations {dilations} or pads {pads} are not for {axes} axes"
            )
        if groups < 1 or weight.shape[0] % groups:
            raise ValueError(f"{weight.shape[0]} outputs do not divide into {groups} groups")
        check_operands(weight, bias, weight.shape[0])
        one = axes == 1
        self._axes = axes
        self._pads = ((0, 0), *spatial_pads(pads)) if one else spatial_pads(pads)
        self._strides = (1, *strides) if one else strides
        self._dilations = (1, *dilations) if one else dilations
        self._weight = weight[:, :, np.newaxis] if one else weight
        self._groups = groups
        self._channels = groups * weight.shape[1]
        self._zero_point = input_zero_point
        self._codes = codes
        self._fused = codes is None or self._by_channel(codes.multiplier)
        few = weight.shape[0] // groups <= DEPTHWISE_OUTPUTS
        self._is_depthwise = weight.shape[1] == 1 and few and groups >= DEPTHWISE_GROUPS
        stage_codes = codes if self._fused else None
        if self._is_depthwise:
            outputs = weight.shape[0] // groups
            taps = self._weight.reshape(groups, outputs, -1).transpose(1, 2, 0)
            self._taps = np.ascontiguousarray(taps, np.int16)
            self._stage = output_stage(bias, stage_codes, groups, outputs, outputs)
        else:
            self._packed = pack_weight(self._segments())
            columns, padded = self._packed.columns, self._packed.padded
            self._stage = output_stage(bias, stage_codes, groups, columns, padded)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The layer's output for codes `(N, C, ...)`."""
        if x.ndim != self._axes + 2 or x.shape[1] != self._channels:
            raise ValueError(f"a convolution of {self._channels} channels takes (N, C, ...), not {x.shape}")
        maps = x[:, :, np.newaxis] if self._axes == 1 else x
        data, flip, zero_point = unsigned_view(maps, self._zero_point)
        geometry = self._geometry(maps.shape[2:])
        outputs = self._weight.shape[0]
        out = self._stage.empty((x.shape[0], outputs, *geometry.output))
        positions = math.prod(geometry.output)
        by_memory = BLOCK_BYTES // max(1, 2 * geometry.image)
        block = max(1, min(by_memory, BLOCK_ROWS // positions, x.shape[0]))
        packed = self._scratch(block, geometry)
        images = np.arange(block, dtype=np.int64)[:, np.newaxis]
        x_starts = row_table(images * geometry.image + geometry.x_starts)
        out_starts = (images * (outputs * positions) + np.arange(positions)).reshape(-1)
        grouped = data.reshape(x.shape[0], *packed.shape[1:2], packed.shape[4], *maps.shape[2:])
        for first in range(0, x.shape[0], block):
            count = min(block, x.shape[0] - first)
            top, left = self._pads[0][0], self._pads[1][0]
            _pack_images(grouped, first, count, flip, zero_point, top, left, packed)
            target = out[first : first + count].reshape(-1)
            self._multiply(packed, x_starts, target, out_starts, positions, count * positions)
        result = self._stage.finish(out)
        if self._axes == 1:
            result = result[:, :, 0]
        if not self._fused and self._codes is not None:
            return requantise(result, None, self._codes)
        return result

    def _by_channel(self, multiplier: NDArray[np.float32]) -> bool:
        """Whether a multiplier varies along the output channels at most, and not over positions."""
        if multiplier.size == 1:
            return True
        return multiplier.ndim == self._axes + 1 and multiplier.shape[0] == multiplier.size == len(
            self._weight
        )

    def _segments(self) -> NDArray[Any]:
        """The weights as `(groups, segments, length, columns)`; a segment is a kernel row, or one tap."""
        outputs, channels, height, width = self._weight.shape
        taps = self._weight.reshape(self._groups, outputs // self._groups, channels, height, width)
        ordered = taps.transpose(0, 3, 4, 2, 1)
        segments = height if self._dilations[1] == 1 else height * width
        return ordered.reshape(self._groups, segments, -1, outputs // self._groups)

    def _geometry(self, shape: tuple[int, ...]) -> _Geometry:
        """Where each output position starts in a packed image of `shape` (height, width)."""
        kernel_shape = self._weight.shape[2:]
        settings = zip(shape, kernel_shape, self._strides, self._pads, self._dilations, strict=True)
        height, width = (output_length(*setting) for setting in settings)
        padded = (shape[0] + sum(self._pads[0]), shape[1] + sum(self._pads[1]))
        pixel = self._channels if self._is_depthwise else self._channels // self._groups
        down = np.arange(height, dtype=np.int64) * (self._strides[0] * padded[1] * pixel)
        across = np.arange(width, dtype=np.int64) * (self._strides[1] * pixel)
        image = self._channels * padded[0] * padded[1]
        return _Geometry((height, width), padded, (down[:, np.newaxis] + across).reshape(-1), image)

    def _tap_starts(self, width: int, pixel: int, *, rows: bool) -> NDArray[np.int64]:
        """Where each kernel row (or each tap) starts, counted from its position's start."""
        kernel_height, kernel_width = self._weight.shape[2:]
        down = np.arange(kernel_height, dtype=np.int64) * (self._dilations[0] * width * pixel)
        if rows:
            return down
        across = np.arange(kernel_width, dtype=np.int64) * (self._dilations[1] * pixel)
        return (down[:, np.newaxis] + across).reshape(-1)

    def _scratch(self, block: int, geometry: _Geometry) -> NDArray[np.int16]:
        """Zeroed packed images `(block, groups, height, width, channels)`, one element spare at the end.

        The last pair of a segment of odd length reads one element further; its weight is zero.
        """
        groups = 1 if self._is_depthwise else self._groups
        shape = (block, groups, *geometry.padded, self._channels // groups)
        return np.zeros(math.prod(shape) + 1, np.int16)[:-1].reshape(shape)

    def _multiply(
        self,
        packed: NDArray[np.int16],
        x_starts: NDArray[np.int64],
        out: NDArray[Any],
        out_starts: NDArray[np.int64],
        positions: int,
        rows: int,
    ) -> None:
        """Run the kernel that suits the layer on one block of packed images."""
        stage: OutputStage = self._stage
        height, width, pixel = packed.shape[2:]
        limits = (stage.low, stage.high, stage.zero)
        if self._is_depthwise:
            taps = self._tap_starts(width, pixel, rows=False)
            shape = (self._channels, -1)
            bias = np.ascontiguousarray(stage.bias.reshape(shape).T)
            multiplier = stage.multiplier
            if multiplier is not None:
                multiplier = np.ascontiguousarray(multiplier.reshape(shape).T)
            _depthwise(
                packed.reshape(-1),
                x_starts,
                taps,
                self._taps,
                bias,
                multiplier,
                *limits,
                out,
                out_starts,
                positions,
                rows,
            )
            return
        segments = self._tap_starts(width, pixel, rows=self._dilations[1] == 1)
        columns = self._packed.columns
        multiply(
            packed.reshape(-1),
            x_starts,
            height * width * pixel,
            segments,
            self._packed.pairs,
            self._packed.data,
            columns,
            stage.bias,
            stage.multiplier,
            *limits,
            out,
            out_starts,
            columns * positions,
            positions,
            rows,
            self._groups,
        )
