"""Depthwise convolution, exact, from one channels-last map into the next, requantised if asked for.

    acc[y, x, c]  = sum over (i, j) of (in[sy y + dy i - ty, sx x + dx j - tx, c] - z) * w[c, i, j]  + bias[c]
    code[y, x, c] = rint(clip(float32(acc) * M[c], -zy, 255 - zy)) + zy            half to even

Every channel is by itself, and a vector is a run of channels of one pixel (see `depthwise_rows`). The term
-z * sum(w) is part of the bias.

Where 255 * sum |w[c]| <= 65535 holds for every channel, sums of 16 bits are enough (1.3 to 1.5 times as fast as
int32 on a Zen 4 core with AVX-512): with N the sum of the negative weights' magnitudes,

    u = sum over taps of x * w  +  255 N        lies in 0..65535
    acc = u - (255 N + z * sum(w) - bias)

and u below the exponent of 2^23 is the float32 2^23 + u: one exact subtraction makes it float32(acc), without a
conversion. Rounding as in `drain` leaves an integer in the low half of the float32, and the limits are applied to
int16. That needs a proof that biases and products are small (`_is_narrow`). Other sums are int32, which wrap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .conv_maps import check_operands
from .depthwise_rows import LARGEST_CODE, UNIT, Form, FormArgument, Sizes, convolve
from .map_runs import CODES, SUMS, check_array, check_layout
from .packing import aligned_empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .codes import MapCodes
    from .layout import MapLayout

__all__ = ["Depthwise"]

# Windows at a time, and channels of a vector; a map of fewer channels takes a half or a quarter of them.
WINDOWS, LANES, FEWEST_LANES = 4, 32, 8

# Kernel widths and strides whose kernel rows are segments; of others every tap is one.
ROW_TAPS, ROW_STRIDES = (3, 5), (1, 2)

UINT16_MAX = 65535

# Up to here 2^23 plus a term is a float32, and a rounded product plus a zero point an int16.
LARGEST_TERM, LARGEST_PRODUCT = 1 << 22, 32256


class Depthwise:
    """A depthwise convolution between two layouts, prepared once.

    Args:
        weight: int8 or int16 `(C, kH, kW)`, within -255..255.
        bias: int32 `(C,)`, or None.
        strides, dilations: Down and across.
        begins: Padding of this convolution above and to the left. The input may hold more of it.
        zero_point: Code of the input that stands for zero, and that its padding holds.
        codes: Requantisation; None for int32 accumulators, `[image][y][x][channel]` without padding.
        input: Layout of the input.
        output: Layout of the output; its size tells the number of windows.

    Attributes:
        narrow: Whether the sums have 16 bits.
        spare_bytes: How far beyond the last image of its input the kernel may read; at most 7.

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
        zero_point: int,
        codes: MapCodes | None,
        input: MapLayout,  # noqa: A002 - the input is what it is
        output: MapLayout,
    ) -> None:
        _check(weight, bias, codes, zero_point, input, output)
        channels, *kernel_shape = weight.shape
        _check_reach(
            input, (output.height, output.width), kernel_shape, strides, begins, dilations, zero_point
        )
        taps = weight.reshape(channels, -1).T.astype(np.int64)
        folded = -zero_point * taps.sum(axis=0)
        if bias is not None:
            folded = folded + bias
        self.narrow = _is_narrow(taps, folded, codes)
        lanes = LANES
        while lanes > max(channels, FEWEST_LANES):
            lanes //= 2
        rows = kernel_shape[1] in ROW_TAPS and strides[1] in ROW_STRIDES and dilations[1] == 1
        length = kernel_shape[1] if rows else 1
        form = Form(
            narrow=self.narrow,
            codes=codes is not None,
            taps=length,
            stride=strides[1] if rows else 1,
            windows=min(WINDOWS, output.width),
            lanes=lanes,
            kept=min(lanes, channels),
        )
        self.spare_bytes = lanes - form.kept
        down = np.arange(kernel_shape[0])[:, np.newaxis] * (dilations[0] * input.row_bytes)
        across = np.arange(0, kernel_shape[1], length) * (dilations[1] * channels)
        self._kind = CODES if form.codes else SUMS
        self._image_sizes = (input.image_bytes, output.image_bytes)
        self._form = FormArgument(form)
        self._operands = (
            np.ascontiguousarray((down + across).reshape(-1), np.int64),
            *_pack_operands(taps, folded, codes, form),
            Sizes(
                x_image=input.image_bytes,
                x_row=strides[0] * input.row_bytes,
                x_first=(input.top - begins[0]) * input.row_bytes + (input.left - begins[1]) * channels,
                pixel=channels * (1 if rows else strides[1]),
                out_image=output.image_bytes,
                out_row=output.row_bytes,
                out_first=output.origin,
                channels=channels,
                height=output.height,
                width=output.width,
            ),
        )

    def __call__(self, x: NDArray[np.uint8], out: NDArray[Any], images: int) -> None:
        """Run on flat arrays that begin at image 0.

        Args:
            x: uint8, with `spare_bytes` behind the last image.
            out: uint8 codes or int32 accumulators; of codes, the unpadded area alone is written.
            images: Number of images.

        Raises:
            TypeError: An array has the wrong element type.
            ValueError: An array is not flat, or too short.
        """
        x_size, out_size = self._image_sizes
        check_array(x, CODES, images, x_size)
        check_array(out, self._kind, images, out_size)
        if images * x_size + self.spare_bytes > x.size and images:
            raise ValueError(
                f"{images} images and {self.spare_bytes} bytes do not lie in an array of {x.size}"
            )
        convolve(self._form, x, out, images, *self._operands)


def _check(
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    codes: MapCodes | None,
    zero_point: int,
    source: MapLayout,
    target: MapLayout,
) -> None:
    """Refuse operands that do not belong together."""
    if weight.ndim != 3 or min(weight.shape) < 1:
        raise ValueError(f"a depthwise weight is (C, kH, kW), not {weight.shape}")
    channels = weight.shape[0]
    check_operands(weight, bias, channels)
    check_layout(source)
    check_layout(target)
    if source.channels != channels or target.channels != channels:
        raise ValueError(f"a depthwise weight of {weight.shape} does not lead from {source} to {target}")
    if not 0 <= zero_point <= LARGEST_CODE:
        raise ValueError(f"zero point {zero_point} is not an unsigned code")
    if codes is None:
        if target.padded:
            raise ValueError("accumulators are written without padding")
        return
    if codes.multiplier.dtype != np.float32:
        raise TypeError(f"a requantisation multiplier is float32, not {codes.multiplier.dtype}")
    if codes.multiplier.shape != (channels,) or not np.isfinite(codes.multiplier).all():
        raise ValueError(f"a multiplier is finite and of shape ({channels},), not {codes.multiplier!r}")
    if not 0 <= codes.zero_point <= LARGEST_CODE:
        raise ValueError(f"zero point {codes.zero_point} is not an unsigned code")


def _check_reach(
    layout: MapLayout,
    counts: tuple[int, int],
    taps: list[int],
    strides: tuple[int, int],
    begins: tuple[int, int],
    dilations: tuple[int, int],
    zero_point: int,
) -> None:
    """Refuse windows that reach beyond the padding, or into one that does not stand for zero."""
    room = ((layout.top, layout.height, layout.bottom), (layout.left, layout.width, layout.right))
    for (before, size, after), count, length, stride, begin, dilation in zip(
        room, counts, taps, strides, begins, dilations, strict=True
    ):
        last = (count - 1) * stride - begin + (length - 1) * dilation
        if not 0 <= begin <= before or last >= size + after or min(stride, dilation) < 1:
            raise ValueError(
                f"{count} windows of {length} (stride {stride}, dilation {dilation}, begin {begin}) do not fit "
                f"{before} + {size} + {after} rows or columns"
            )
        if (begin or last >= size) and layout.fill != zero_point:
            raise ValueError(f"windows read padding of {layout.fill}, and {zero_point} stands for zero")


def _lifts(taps: NDArray[np.int64]) -> NDArray[np.int64]:
    """255 N: what added to a channel's sum of products makes it at least zero."""
    lifts: NDArray[np.int64] = -LARGEST_CODE * np.minimum(taps, 0).sum(axis=0)
    return lifts


def _is_narrow(taps: NDArray[np.int64], bias: NDArray[np.int64], codes: MapCodes | None) -> bool:
    """Whether 16-bit sums, and what is done to them, are exact; `bias` holds the zero point's term."""
    largest = LARGEST_CODE * np.abs(taps).sum(axis=0)
    if int(largest.max()) > UINT16_MAX:
        return False
    if codes is None:
        return True
    term = _lifts(taps) - bias
    acc = np.maximum(np.abs(term), np.abs(largest - term))
    products = acc * np.abs(codes.multiplier.astype(np.float64))
    return bool(np.abs(term).max() <= LARGEST_TERM and products.max() <= LARGEST_PRODUCT)


def _pack(values: NDArray[Any], form: Form) -> NDArray[Any]:
    """`(rows, C)` as `[block of lanes][row][lane]`; the last block ends with the last channel."""
    rows, channels = values.shape
    padded = np.zeros((rows, max(channels, form.lanes)), values.dtype)
    padded[:, :channels] = values
    firsts = np.minimum(np.arange(0, channels, form.lanes), padded.shape[1] - form.lanes)
    packed = padded[:, firsts[:, np.newaxis] + np.arange(form.lanes)].transpose(1, 0, 2)
    out = aligned_empty(packed.size, values.dtype)
    out.reshape(packed.shape)[...] = packed
    return out


def _pack_operands(
    taps: NDArray[np.int64], bias: NDArray[np.int64], codes: MapCodes | None, form: Form
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32], np.int32]:
    """Weight, term, multiplier and zero point as `convolve` takes them; int32 wraps, as sums do."""
    lifts = _lifts(taps)
    rows = np.vstack([lifts if form.narrow else bias, taps])
    weight = _pack(rows.astype(np.int16 if form.narrow else np.int32), form)
    term = lifts - bias
    terms = (UNIT + term).astype(np.float32) if form.codes else term.astype(np.int32)
    multiplier = np.zeros(bias.size, np.float32) if codes is None else codes.multiplier
    packed = [_pack(values[np.newaxis], form) for values in (terms, multiplier)]
    if form.narrow and form.codes:
        pairs = [values.reshape(-1, form.lanes // 2, 2).transpose(0, 2, 1) for values in packed]
        packed = [np.ascontiguousarray(values).reshape(-1) for values in pairs]
    return weight, packed[0], packed[1], np.int32(0 if codes is None else codes.zero_point)
