"""Exact convolutions on arrays, 1-D and 2-D, with the requantisation if one is asked for.

Maps come and go as `(N, C, ...)`. They are brought into the channels-last, padded layout that the kernels read,
a block of images at a time, and back. (The emulator's plan keeps maps in that layout from layer to layer.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .codes import flip_of, map_codes
from .conv_maps import SPARE_BYTES, ConvMaps, check_operands, is_depthwise
from .depthwise import Depthwise
from .isa import chosen
from .layout import MapLayout
from .maps import FillBorder, PackMaps, UnpackMaps
from .packing import aligned_empty
from .requantise import requantise
from .windows import output_length, spatial_pads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .isa.base import InstructionSet
    from .requantise import CodeFormat

__all__ = ["Convolution"]

# Memory of one block of padded images.
_BLOCK_BYTES = 1 << 20


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
        isa: The instruction set; by default the one that `isa.chosen` tells.

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
        isa: InstructionSet | None = None,
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
        one = (1,) * (2 - axes)
        down, right = (*one, *strides)
        apart_down, apart_right = (*one, *dilations)
        self._axes = axes
        self._pads = ((0, 0),) * (2 - axes) + spatial_pads(pads)
        self._strides, self._dilations = (down, right), (apart_down, apart_right)
        self._weight = weight.reshape(*weight.shape[:2], *one, *weight.shape[2:])
        self._bias = bias
        self._groups = groups
        self._zero_point = input_zero_point
        self._codes = codes
        self._isa = isa or chosen()
        self._kernels: dict[tuple[Any, ...], tuple[MapLayout, ConvMaps | Depthwise, MapLayout]] = {}

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The layer's output for codes `(N, C, ...)`."""
        channels = self._groups * self._weight.shape[1]
        if x.ndim != self._axes + 2 or x.shape[1] != channels:
            raise ValueError(f"a convolution of {channels} channels takes (N, C, ...), not {x.shape}")
        flip = flip_of(x.dtype)
        if not 0 <= self._zero_point + flip <= 255:
            raise ValueError(f"zero point {self._zero_point} is not a code of {x.dtype}")
        size = (1,) * (2 - self._axes) + x.shape[2:]
        by_channel = self._codes is not None and self._by_channel(self._codes.multiplier)
        source, kernel, target = self._kernel((size[0], size[1]), flip, codes=by_channel)
        maps = np.ascontiguousarray(x).view(np.uint8).reshape(x.shape[0], channels, *size)
        out = np.empty(
            (x.shape[0], target.channels, target.height, target.width), np.uint8 if by_channel else np.int32
        )
        self._blocks(maps, flip, source, kernel, target, out)
        result = out.reshape(x.shape[0], target.channels, *out.shape[4 - self._axes :])
        if self._codes is None:
            return result
        if not by_channel:
            return requantise(result, None, self._codes)
        return result.view(self._codes.dtype)

    def _blocks(
        self,
        maps: NDArray[np.uint8],
        flip: int,
        source: MapLayout,
        kernel: ConvMaps | Depthwise,
        target: MapLayout,
        out: NDArray[Any],
    ) -> None:
        """Pack, multiply and unpack a block of images at a time."""
        images = maps.shape[0]
        block = max(1, min(images, _BLOCK_BYTES // source.image_bytes))
        padded = aligned_empty(block * source.image_bytes + SPARE_BYTES)
        dense = aligned_empty(block * target.codes, out.dtype)
        scratch = aligned_empty(self._isa.scratch_bytes // 4, np.int32)
        pack = PackMaps(source, flip)
        FillBorder(source)(padded, block)
        for first in range(0, images, block):
            part = maps[first : first + block]
            pack(part, padded, len(part))
            if isinstance(kernel, Depthwise):
                kernel(padded, dense, len(part))
            else:
                kernel(padded, dense, len(part), scratch)
            result = out[first : first + block]
            if out.dtype == np.uint8:
                UnpackMaps(target, 0 if self._codes is None else flip_of(np.dtype(self._codes.dtype)))(
                    dense, result, len(part)
                )
            else:
                shape = (len(part), target.height, target.width, target.channels)
                result[...] = dense[: len(part) * target.codes].reshape(shape).transpose(0, 3, 1, 2)

    def _by_channel(self, multiplier: NDArray[np.float32]) -> bool:
        """Whether a multiplier varies along the output channels at most, and not over positions."""
        if multiplier.size == 1:
            return True
        return multiplier.ndim == self._axes + 1 and multiplier.shape[0] == multiplier.size == len(
            self._weight
        )

    def _kernel(
        self, size: tuple[int, int], flip: int, *, codes: bool
    ) -> tuple[MapLayout, ConvMaps | Depthwise, MapLayout]:
        """The layouts and the kernel for maps of a size, made on first use."""
        key = (size, flip)
        if key not in self._kernels:
            outputs = self._weight.shape[0]
            settings = zip(
                size, self._weight.shape[2:], self._strides, self._pads, self._dilations, strict=True
            )
            height, width = (output_length(*setting) for setting in settings)
            (top, bottom), (left, right) = self._pads
            zero_point = self._zero_point + flip
            channels = self._groups * self._weight.shape[1]
            source = MapLayout(channels, *size, top, left, bottom, right, zero_point)
            target = MapLayout(outputs, height, width)
            map_format = map_codes(self._codes, outputs) if codes and self._codes is not None else None
            begins = (top, left)
            kernel: ConvMaps | Depthwise
            if is_depthwise(self._weight, self._groups):
                kernel = Depthwise(
                    self._weight[:, 0],
                    self._bias,
                    strides=self._strides,
                    begins=begins,
                    dilations=self._dilations,
                    zero_point=zero_point,
                    codes=map_format,
                    input=source,
                    output=target,
                )
            else:
                kernel = ConvMaps(
                    self._weight,
                    self._bias,
                    strides=self._strides,
                    begins=begins,
                    dilations=self._dilations,
                    groups=self._groups,
                    zero_point=zero_point,
                    codes=map_format,
                    input=source,
                    output=target,
                    isa=self._isa,
                )
            self._kernels[key] = (source, kernel, target)
        return self._kernels[key]
