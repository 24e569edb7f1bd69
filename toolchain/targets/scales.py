"""What codes mean: a scale and a zero point for every tensor of codes, so that integers can be written as reals.

A program needs no scales: it holds the multipliers M = s_x s_w / s_y alone. Forms that compute with reals need s_x,
s_w and s_y themselves. Activations' scales are in the metadata of artifacts that ohmfold compiled; what is not there
is free to choose, up to what layers say of each other:

    codes that are only moved (pooled, padded, concatenated, reshaped)   share one scale and zero point
    an addition m_a (a - z_a) + m_b (b - z_b)                            s_a : s_b = m_a : m_b
    its requantisation by M                                              s_y = s_a / (m_a M)
    an average over n positions, requantised by M                        s_y = s_x / (n M)
    a convolution whose step s_w the model tells                         s_y = s_x s_w / M

A choice that breaks one of these costs a multiplication where the graph is written, never correctness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import TargetError
from .. import program as p

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..artifact import Artifact
    from ..program import Layer, Program

__all__ = ["Meaning", "meanings_of", "positions_of"]

# Scale of codes about which nothing is known: a power of two, so that no exactness is lost.
_FREE_SCALE = np.float32(2.0**-8)
_CODES = ".codes"
_MOVES = (p.MaxPool, p.Concat, p.Pad, p.Reshape, p.Split, p.Transpose)


class Meaning(NamedTuple):
    """Codes stand for `(code - zero_point) * scale`."""

    scale: np.float32
    zero_point: int


@dataclass(frozen=True)
class _Ratio:
    """`scale of second = ratio * scale of first`."""

    first: str
    second: str
    ratio: float


def meanings_of(artifact: Artifact) -> dict[str, Meaning]:
    """Return the meaning of every tensor of codes of an artifact's program.

    Raises:
        TargetError: Two layers read the same codes with different zero points.
    """
    program = artifact.program
    codes = [name for name, spec in program.tensors.items() if spec.dtype in (np.uint8, np.int8)]
    group = _groups(program, codes)
    scales: dict[str, np.float32] = {}
    for name, scale in _told(artifact):
        if name in group:
            scales.setdefault(group[name], scale)
    ratios = [r for r in _ratios(program) if r.first in group and r.second in group]
    for name in sorted(codes, key=_order(program).__getitem__):
        _spread(scales, ratios, group)
        scales.setdefault(group[name], _FREE_SCALE)
    zero_points = _zero_points(program, group)
    return {name: Meaning(scales[group[name]], zero_points.get(group[name], 0)) for name in codes}


def positions_of(program: Program, name: str) -> int | None:
    """How many spatial positions a map has; None where its size is not known."""
    shape = program.tensors[name].shape
    sizes = None if shape is None else shape[2:]
    if sizes is None:
        return None
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _order(program: Program) -> dict[str, int]:
    """When a tensor is made: inputs first, then layer after layer."""
    names = [spec.name for spec in program.inputs]
    names += [name for layer in program.layers for name in layer.outputs]
    order = {name: index for index, name in enumerate(names)}
    return {name: order.get(name, -1) for name in program.tensors}


def _groups(program: Program, codes: list[str]) -> dict[str, str]:
    """For each tensor of codes the representative of those that share its scale."""
    parent = {name: name for name in codes}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for layer in program.layers:
        if isinstance(layer, _MOVES):
            members = [name for name in (*layer.inputs, *layer.outputs) if name in parent]
            for other in members[1:]:
                parent[find(other)] = find(members[0])
    return {name: find(name) for name in codes}


def _told(artifact: Artifact) -> Iterator[tuple[str, np.float32]]:
    """Scales that the model states: those of quantisers of floats, then those of the compiler's metadata."""
    for layer in artifact.program.layers:
        if isinstance(layer, p.Quantise) and layer.scale.size == 1:
            yield layer.output, np.float32(layer.scale.reshape(()))
        if isinstance(layer, p.Dequantise) and layer.scale.size == 1:
            yield layer.input, np.float32(layer.scale.reshape(()))
    activations = artifact.metadata().get("activations", {})
    for name, record in activations.items() if isinstance(activations, dict) else ():
        scale = record.get("scale") if isinstance(record, dict) else None
        if isinstance(scale, int | float) and 0 < np.float32(scale) < np.inf:
            yield name, np.float32(scale)
            yield f"{name}{_CODES}", np.float32(scale)


def _ratios(program: Program) -> Iterator[_Ratio]:
    """What layers say of the scales of what they read and write."""
    for layer in program.layers:
        if isinstance(layer, p.WeightedSum) and min(layer.multipliers) > 0:
            for name, multiplier in zip(layer.inputs[1:], layer.multipliers[1:], strict=True):
                yield _Ratio(layer.inputs[0], name, multiplier / layer.multipliers[0])
        if isinstance(layer, p.Conv) and layer.requantisation is not None and layer.weight_scale is not None:
            step, first = layer.weight_scale.flat[0], layer.requantisation.multiplier.flat[0]
            if first > 0 and step > 0:
                yield _Ratio(layer.input, layer.output, float(step) / float(first))
        if isinstance(layer, p.Requantise) and layer.bias is None:
            yield from _after_sum(program, layer)


def _after_sum(program: Program, layer: p.Requantise) -> Iterator[_Ratio]:
    multiplier = layer.requantisation.multiplier
    source: Layer | None = program.producers.get(layer.input)
    if multiplier.size != 1 or not float(multiplier.flat[0]) > 0:
        return
    factor = float(multiplier.flat[0])
    if isinstance(source, p.WeightedSum) and min(source.multipliers) > 0:
        largest = int(np.argmax(source.multipliers))
        yield _Ratio(source.inputs[largest], layer.output, 1 / (source.multipliers[largest] * factor))
    if isinstance(source, p.SpatialSum) and (count := positions_of(program, source.input)):
        yield _Ratio(source.input, layer.output, 1 / (count * factor))


def _spread(scales: dict[str, np.float32], ratios: list[_Ratio], group: dict[str, str]) -> None:
    """Follow ratios from what has a scale to what has none."""
    found = True
    while found:
        found = False
        for known, other, ratio in ((group[x], group[y], r) for e in ratios for x, y, r in _both_ways(e)):
            if known in scales and other not in scales:
                scale = np.float32(float(scales[known]) * ratio)
                if 0 < scale < np.inf:
                    scales[other], found = scale, True


def _both_ways(edge: _Ratio) -> tuple[tuple[str, str, float], tuple[str, str, float]]:
    return (edge.first, edge.second, edge.ratio), (edge.second, edge.first, 1 / edge.ratio)


def _zero_points(program: Program, group: dict[str, str]) -> dict[str, int]:
    """The zero point of each group, as every layer that writes or reads its codes has it."""
    found: dict[str, int] = {}
    for layer in program.layers:
        for name, zero_point in _stated(layer):
            known = found.setdefault(group.get(name, name), zero_point)
            if known != zero_point:
                raise TargetError(
                    f"layer '{layer.name}': it takes {zero_point} for the zero of '{name}', another layer takes "
                    f"{known}; codes with two meanings have no form with reals"
                )
    return found


def _stated(layer: Layer) -> Iterator[tuple[str, int]]:
    """Names and zero points of the codes that a layer reads and writes, as far as it states them."""
    match layer:
        case p.Conv() | p.Dense() | p.SpatialSum():
            yield layer.input, layer.input_zero_point
        case p.WeightedSum():
            yield from zip(layer.inputs, layer.zero_points, strict=True)
        case p.Quantise() if layer.zero_point.size == 1:
            yield layer.output, int(layer.zero_point.reshape(()))
        case p.Dequantise() if layer.zero_point.size == 1:
            yield layer.input, int(layer.zero_point.reshape(()))
    requantisation: Any = getattr(layer, "requantisation", None)
    if requantisation is not None:
        yield layer.output, requantisation.zero_point
