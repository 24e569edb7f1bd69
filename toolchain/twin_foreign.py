"""Stages of the twin for the layers that only models made by others have."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..kernels.average import window_counts, window_extents
from .twin_layers import Stage, round_straight_through

if TYPE_CHECKING:
    from .program import AveragePool, QuantisedAdd

__all__ = ["AveragePoolStage", "QuantisedAddStage"]


class AveragePoolStage(Stage):
    """Average over windows in float32, in the order of additions that `AveragePool` states."""

    layer: AveragePool
    input_scale: Tensor
    output_scale: Tensor

    def __init__(self, layer: AveragePool) -> None:
        super().__init__(layer)
        limits = np.iinfo(layer.dtype)
        self.low, self.high = int(limits.min), int(limits.max)
        self.register_buffer("input_scale", torch.tensor(layer.input_scale))
        self.register_buffer("output_scale", torch.tensor(layer.output_scale))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the codes; the gradient passes inside the clamp, ends included."""
        layer, lengths = self.layer, tuple(x.shape[2:])
        settings = (lengths, layer.kernel, layer.strides, layer.pads)
        windows, widths = window_extents(*settings, ceil_mode=layer.ceil_mode)
        counts = window_counts(
            *settings, ceil_mode=layer.ceil_mode, count_include_pad=layer.count_include_pad
        )
        real = (x - layer.input_zero_point) * self.input_scale
        padded = functional.pad(real, [pad for pair in reversed(widths) for pad in pair])
        total = torch.zeros((*x.shape[:2], *windows), device=x.device)
        for tap in itertools.product(*map(range, layer.kernel)):
            taken = tuple(
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(tap, windows, layer.strides, strict=True)
            )
            total = total + padded[(slice(None), slice(None), *taken)]
        average = total / torch.as_tensor(counts, device=x.device)
        shifted = average / self.output_scale + float(layer.output_zero_point)
        return (round_straight_through(shifted.clamp(self.low, self.high)),)


class QuantisedAddStage(Stage):
    """The sum by its table of pairs; the gradient is the multipliers', inside the clamp."""

    table: Tensor
    layer: QuantisedAdd

    def __init__(self, layer: QuantisedAdd) -> None:
        super().__init__(layer)
        limits = np.iinfo(layer.table.dtype)
        self.low, self.high = int(limits.min), int(limits.max)
        self.multipliers = tuple(float(m) for m in layer.multipliers)
        self.register_buffer("table", torch.tensor(layer.table.reshape(-1), dtype=torch.float32))

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """Return the codes."""
        layer, held = self.layer, (a.detach(), b.detach())
        terms = zip(self.multipliers, held, layer.zero_points, strict=True)
        real = sum((m * (x - z) for m, x, z in terms), torch.tensor(float(layer.output_zero_point)))
        inside = (real >= self.low) & (real <= self.high)
        codes = self.table[(held[0].long() - self.low) * 256 + held[1].long() - self.low]
        # x - x is exactly zero: these terms carry the gradient and leave the value alone.
        for m, x, constant in zip(self.multipliers, (a, b), held, strict=True):
            codes = codes + (inside * m) * (x - constant)
        return (codes,)
