"""Whether reals have a program's bits: what can stand against it, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import program as p
from ..analysis.ranges import FLOAT32_EXACT, accumulator_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..program import Layer, Program

__all__ = ["bound_doubts", "is_power_of_two", "rounding_doubts", "weight_doubts"]

# Exponents of scales with which no product of a few of them leaves the normal float32 numbers.
_LARGEST_EXPONENT = 40
# Weights above this magnitude can saturate the int16 pairs of u8 x s8 kernels on processors without VNNI.
_SATURATING = 64
# Beyond this magnitude codes are clamped, whatever becomes of the bits below.
_CLAMPED = 256


def is_power_of_two(values: Any) -> bool:
    """Whether all values are powers of two, a negative sign allowed, of moderate size."""
    fractions, exponents = np.frexp(np.abs(np.asarray(values, np.float64)))
    return bool((fractions == 0.5).all() and (np.abs(exponents) <= _LARGEST_EXPONENT).all())


def bound_doubts(program: Program) -> Iterator[str]:
    """Accumulators and biases that float32 may not hold exactly."""
    for found in accumulator_ranges(program):
        if not found.exact_in_float32:
            yield f"the accumulator of layer '{found.layer}' can reach {found.bound}, past 2^24"
    for layer in program.layers:
        bias = getattr(layer, "bias", None)
        if bias is not None and np.abs(bias.astype(np.int64)).max(initial=0) >= FLOAT32_EXACT:
            yield f"a bias of layer '{layer.name}' passes 2^24"


def weight_doubts(program: Program) -> Iterator[str]:
    """Weights that processors without VNNI may saturate, once a runtime fuses Q/DQ to integer kernels."""
    for layer in program.weighted_layers():
        if np.abs(layer.weight.astype(np.int16)).max(initial=0) > _SATURATING:
            yield f"weights of layer '{layer.name}' pass 64, and u8 x s8 kernels saturate them without VNNI"


def rounding_doubts(program: Program) -> Iterator[str]:
    """Requantisations that may round otherwise where the zero point is added before the rounding.

    With M = 2^-k and a zero point z that sum is (acc + z 2^k) 2^-k: exact while the bracket has at most 24 bits,
    and of no consequence where the code is clamped.
    """
    bounds = {found.layer: found.bound for found in accumulator_ranges(program)}
    for layer in program.layers:
        requantisation = getattr(layer, "requantisation", None)
        if requantisation is None or requantisation.zero_point == 0:
            continue
        smallest = float(np.abs(requantisation.multiplier.astype(np.float64)).min(initial=np.inf))
        unit, bound = _unit_and_bound(program, layer, bounds)
        if smallest <= 0 or not np.isfinite(smallest):
            yield f"a multiplier of layer '{layer.name}' is zero"
            continue
        inverse = 1 / (smallest * unit)
        reach = min(bound / unit, _CLAMPED * inverse)
        if reach + abs(requantisation.zero_point) * inverse >= FLOAT32_EXACT or requantisation.zero_point % 2:
            yield f"the sum of layer '{layer.name}' and its zero point needs more than 24 bits, or has an odd one"


def _unit_and_bound(program: Program, layer: Layer, bounds: dict[str, int]) -> tuple[int, float]:
    """A power of two that divides the accumulator, and the largest magnitude that it has."""
    if layer.name in bounds:
        return 1, bounds[layer.name]
    source = program.producers.get(layer.input)
    bound = bounds.get(source.name, np.inf) if source is not None else np.inf
    if isinstance(source, p.WeightedSum):
        common = int(np.gcd.reduce(np.abs(np.array(source.multipliers, np.int64)))) or 1
        return common & -common, bound
    return 1, bound
