"""From real weights to codes: levels, steps and rounding, in float64 with one rounding at the end.

With `b` bits the levels are

    linear      q = clip(rint(W / step), -L, L)             L = 2**(b-1) - 1,  step = max|W| / L
    full-range  q = clip(rint(W / step), -2**(b-1), L)                         step = max|W| / 2**(b-1)
    log2        q in {0, +-1, +-2, ..., +-2**(2**(b-1) - 2)}, the nearest      step = max|W| / largest q
    1 bit       q = -1 or +1 (sign of W, +1 for 0)                             step = mean|W|

per tensor or per output channel, as in the paper ("Quantization") with the seven levels -3..3 at 3 bits. The
step may also be the one of least squared error, or given. Steps are float32; a step of an all-zero tensor is 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .recipe import WeightOptions

__all__ = ["QuantisedWeights", "levels_of", "power_of_two_at_least", "quantise_weights", "round_to_levels"]

_COARSE_STEPS = 128
_FINE_STEPS = 64
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class QuantisedWeights:
    """Codes and steps: `W ~ codes * step`.

    Attributes:
        codes: int8, the shape of the weights.
        step: float32, `()` for one step or `(channels,)`.
        axis: The axis of the output channels, or None for one step.
    """

    codes: NDArray[np.int8]
    step: NDArray[np.float32]
    axis: int | None

    def dequantised(self) -> NDArray[np.float64]:
        """Return `codes * step` in float64."""
        return self.codes * _spread(self.step.astype(np.float64), self.codes.ndim, self.axis)


def levels_of(bits: int, kind: Literal["linear", "full-range", "log2"]) -> NDArray[np.int64]:
    """Return the codes of `bits` bits in ascending order."""
    if bits == 1:
        return np.array([-1, 1])
    if kind == "log2":
        magnitudes = 2 ** np.arange(2 ** (bits - 1) - 1)
        return np.concatenate((-magnitudes[::-1], [0], magnitudes))
    highest = 2 ** (bits - 1) - 1
    lowest = -highest - 1 if kind == "full-range" else -highest
    return np.arange(lowest, highest + 1)


def round_to_levels(scaled: NDArray[np.float64], levels: NDArray[np.int64]) -> NDArray[np.int8]:
    """Round `W / step` to the nearest level.

    Evenly spaced levels round half to even (`rint`). Unevenly spaced ones take the level nearest in value,
    and of two equally near ones the smaller in magnitude; -1 and +1 alone take the sign, +1 for zero.
    """
    if len(levels) == 2:
        return np.where(scaled < 0, -1, 1).astype(np.int8)
    if np.all(np.diff(levels) == 1):
        return np.clip(np.rint(scaled), levels[0], levels[-1]).astype(np.int8)
    magnitudes = levels[levels >= 0].astype(np.float64)
    boundaries = (magnitudes[:-1] + magnitudes[1:]) / 2
    index = np.searchsorted(boundaries, np.abs(scaled), side="left")
    return (np.sign(scaled) * magnitudes[index]).astype(np.int8)


def power_of_two_at_least(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the smallest power of two that is not below each positive value (exact at powers of two)."""
    mantissa, exponent = np.frexp(value)
    return np.ldexp(1.0, np.where(mantissa == 0.5, exponent - 1, exponent))


def quantise_weights(
    weights: NDArray[Any], options: WeightOptions, *, channel_axis: int, power_of_two: bool = False
) -> QuantisedWeights:
    """Quantise the weights of one layer.

    Args:
        weights: Real weights of any shape; taken to float64.
        options: Width, levels, step and granularity.
        channel_axis: The axis of the output channels.
        power_of_two: Round each step to a power of two (up for `max`; the better neighbour for `mse`).

    Returns:
        Codes and steps.
    """
    levels = levels_of(options.weight_bits, options.levels)
    per_channel = options.granularity == "channel"
    axis = channel_axis if per_channel else None
    w = weights.astype(np.float64)
    rows = (
        np.moveaxis(w, channel_axis, 0).reshape(w.shape[channel_axis], -1)
        if per_channel
        else w.reshape(1, -1)
    )
    step = _steps(rows, options, levels, power_of_two=power_of_two)
    rounded: NDArray[np.float32] = np.where(step < _TINY, 1.0, step).astype(np.float32)
    codes = round_to_levels(rows / rounded.astype(np.float64)[:, None], levels)
    if per_channel:
        moved = np.moveaxis(w, channel_axis, 0).shape
        return QuantisedWeights(np.moveaxis(codes.reshape(moved), 0, channel_axis).copy(), rounded, axis)
    return QuantisedWeights(codes.reshape(w.shape), rounded.reshape(()), axis)


def _steps(
    rows: NDArray[np.float64], options: WeightOptions, levels: NDArray[np.int64], *, power_of_two: bool
) -> NDArray[np.float64]:
    """Return one step for each row of `(channels, weights)`."""
    if isinstance(options.step, float):
        return np.full(len(rows), options.step)
    outermost = float(np.abs(levels).max())
    largest: NDArray[np.float64] = np.abs(rows).max(axis=1, initial=0.0) / outermost
    steps: NDArray[np.float64]
    if options.weight_bits == 1:
        steps = np.abs(rows).mean(axis=1) if rows.shape[1] else largest
    elif options.step == "mse":
        steps = np.array(
            [_least_squares_step(row, top, levels) for row, top in zip(rows, largest, strict=True)]
        )
    else:
        steps = largest
    if not power_of_two:
        return steps
    above = power_of_two_at_least(np.maximum(steps, _TINY))
    if options.step == "max" and options.weight_bits > 1:
        return above
    candidates = np.stack((above / 2, above))
    errors = np.array(
        [[_squared_error(row, s, levels) for row, s in zip(rows, scale, strict=True)] for scale in candidates]
    )
    chosen: NDArray[np.float64] = candidates[errors.argmin(axis=0), np.arange(len(rows))]
    return chosen


def _least_squares_step(row: NDArray[np.float64], largest: float, levels: NDArray[np.int64]) -> float:
    """Return the step of least squared error in (0, largest]: a grid, then a finer one around its best."""
    if largest == 0.0:
        return 0.0
    coarse = largest * np.arange(1, _COARSE_STEPS + 1) / _COARSE_STEPS
    best = coarse[np.argmin([_squared_error(row, step, levels) for step in coarse])]
    width = largest / _COARSE_STEPS
    fine = best + width * np.linspace(-1, 1, _FINE_STEPS + 1)
    fine = np.append(fine[(fine > 0) & (fine <= largest)], best)
    return float(fine[np.argmin([_squared_error(row, step, levels) for step in fine])])


def _squared_error(row: NDArray[np.float64], step: float, levels: NDArray[np.int64]) -> float:
    return float(np.square(row - step * round_to_levels(row / step, levels)).sum())


def _spread(step: NDArray[np.float64], ndim: int, axis: int | None) -> NDArray[np.float64]:
    """Shape per-channel steps so that they broadcast along `axis` of an array of `ndim` axes."""
    if axis is None:
        return step
    shape = [1] * ndim
    shape[axis] = -1
    return step.reshape(shape)
