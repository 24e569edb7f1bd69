"""Layers that only move codes: views where they can be, copies where they cannot."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import program as p
from .builder import Builder, refuse
from .views import View

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["MOVES"]


def _axis(layer: p.Concat | p.Split, rank: int) -> int:
    """The axis within a sample of rank `rank - 1`."""
    axis = layer.axis + rank if layer.axis < 0 else layer.axis
    if axis < 1:
        raise refuse(layer, "it joins or cuts the batch")
    return axis - 1


def _view(b: Builder, name: str, source: View, index: NDArray[np.int64]) -> None:
    b.views[name] = View(source.buffer, index)


def _reshape(b: Builder, layer: p.Reshape) -> None:
    source, shape = b.views[layer.input], b.sample_shape(layer, layer.output)
    if source.index.size != int(np.prod(shape, dtype=np.int64)):
        raise refuse(layer, f"it makes {shape} of samples of {source.shape}, and so mixes them")
    _view(b, layer.output, source, source.index.reshape(shape))


def _transpose(b: Builder, layer: p.Transpose) -> None:
    if layer.permutation[:1] != (0,):
        raise refuse(layer, "it moves the batch axis")
    source = b.views[layer.input]
    _view(b, layer.output, source, source.index.transpose([axis - 1 for axis in layer.permutation[1:]]))


def _split(b: Builder, layer: p.Split) -> None:
    source = b.views[layer.input]
    axis = _axis(layer, source.index.ndim + 1)
    cuts = list(itertools.accumulate(layer.sizes))[:-1]
    for name, index in zip(layer.outputs, np.split(source.index, cuts, axis=axis), strict=True):
        if name:
            _view(b, name, source, index)


def _concat(b: Builder, layer: p.Concat) -> None:
    target = b.new_tensor(layer, layer.output)
    axis = _axis(layer, target.index.ndim + 1)
    start = 0
    for name in layer.inputs:
        source = b.views[name]
        length = source.shape[axis]
        place = np.take(target.index, range(start, start + length), axis=axis)
        b.copy(layer, source.index, source.buffer, place, target.buffer)
        start += length


def _pad(b: Builder, layer: p.Pad) -> None:
    b.codes(layer, layer.inputs)
    source, target = b.views[layer.input], b.new_tensor(layer, layer.output)
    rank = source.index.ndim + 1
    if layer.pads[0] or layer.pads[rank]:
        raise refuse(layer, "it pads the batch")
    inside: list[slice] = []
    kept: list[slice] = []
    for axis, length in enumerate(source.shape, 1):
        begin, size = layer.pads[axis], target.shape[axis - 1]
        first, last = max(0, -begin), min(length, size - begin)
        kept.append(slice(first, last))
        inside.append(slice(first + begin, last + begin))
    b.copy(
        layer,
        source.index[tuple(kept)],
        source.buffer,
        target.index[tuple(inside)],
        target.buffer,
        b.stored_zero(layer.input, int(layer.value)),
    )


MOVES: dict[type[p.Layer], Callable[[Builder, Any], None]] = {
    p.Concat: _concat,
    p.Pad: _pad,
    p.Reshape: _reshape,
    p.Split: _split,
    p.Transpose: _transpose,
}
