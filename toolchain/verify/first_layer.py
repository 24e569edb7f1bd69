"""The first layer with weights as an affine map of the pixel codes, read off by probing.

Where only movements (padding, reshaping, transposing) lie before a layer, each of its accumulators is

    acc[c] = offset[c] + sum_i weight[c, i] * x[i],      x[i] in 0..255, pixel i

and the image that drives it to either end is known from the signs of the weights. The weights are what the
accumulator changes by when one pixel changes by one: this holds for any order of the pixels and any padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .. import program as p
from .accumulators import pixel_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .accumulators import Probe

__all__ = ["FirstLayer", "centre_of", "first_layer"]

HIGH = 255
# Probing takes an image for each pixel: a second for 32 x 32 colour images.
LARGEST_IMAGE = 8192
_MOVEMENTS = (p.Pad, p.Reshape, p.Transpose, p.Concat, p.Split, p.Quantise)
_CHECKED = 8


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The accumulators of a layer at one place.

    Attributes:
        layer, tensor: Names of the layer and of its accumulators.
        place: Where in a channel's map.
        weight: int64 `(channels, pixels)`.
        offset: int64 `(channels,)`, the accumulators of the image that is all 0.
        image: Shape of an image.
    """

    layer: str
    tensor: str
    place: tuple[int, ...]
    weight: NDArray[np.int64]
    offset: NDArray[np.int64]
    image: tuple[int, ...]

    def extreme(self, channel: int, *, greatest: bool) -> NDArray[np.uint8]:
        """The image that drives a channel's accumulator to its greatest or least."""
        weight = self.weight[channel]
        wanted = weight > 0 if greatest else weight < 0
        return np.where(wanted, HIGH, 0).astype(np.uint8).reshape(self.image)

    def solve(self, channel: int, total: int, generator: np.random.Generator) -> NDArray[np.uint8] | None:
        """An image for which a channel's accumulator is exactly `total`; None where none was found.

        Random codes leave a rest; pixels take it up one after another, those of the largest weights first, so
        that those of the smallest fill the last gap.
        """
        weight = self.weight[channel]
        x = generator.integers(0, HIGH, weight.size, endpoint=True)
        rest = total - int(self.offset[channel]) - int(weight @ x)
        order = generator.permutation(np.flatnonzero(weight))
        for i in order[np.argsort(-np.abs(weight[order]), kind="stable")]:
            w = int(weight[i])
            wanted = int(x[i]) + (abs(rest) // abs(w)) * (1 if (rest > 0) == (w > 0) else -1)
            changed = min(max(wanted, 0), HIGH)
            rest -= w * (changed - int(x[i]))
            x[i] = changed
            if not rest:
                solved: NDArray[np.uint8] = x.astype(np.uint8).reshape(self.image)
                return solved
        return None


def centre_of(program: p.Program, name: str) -> tuple[int, ...]:
    """The place in the middle of a tensor's map, behind its channels: `()` where there is no map."""
    shape = program.tensors[name].shape or ()
    return tuple((d or 1) // 2 for d in shape[2:])


def first_layer(probe: Probe, generator: np.random.Generator) -> FirstLayer | None:
    """The first convolution or dense layer as an affine map; None where it is not one, or images are too large."""
    program = probe.program
    pixels = int(np.prod(pixel_shape(program)))
    layer = next((layer for layer in program.layers if isinstance(layer, p.Conv | p.Dense)), None)
    # A dense layer over the last axis of a map has its channels elsewhere.
    flat = layer is not None and (
        isinstance(layer, p.Conv) or len(program.tensors[layer.output].shape or ()) == 2
    )
    if layer is None or not flat or pixels > LARGEST_IMAGE:
        return None
    if not _only_moves(program, layer):
        return None
    image, place = pixel_shape(program), centre_of(program, layer.output)
    reached: tuple[int | slice, ...] = (slice(None), *place)
    offset = probe.one(np.zeros((1, *image), np.uint8), layer.output, reached)[0]
    single = np.eye(pixels, dtype=np.uint8).reshape(pixels, *image)
    weight = (probe.one(single, layer.output, reached) - offset).T
    found = FirstLayer(layer.name, layer.output, place, np.ascontiguousarray(weight), offset, image)
    return found if _is_affine(probe, found, generator) else None


def _only_moves(program: p.Program, layer: p.Layer) -> bool:
    waiting = [layer.input]
    while waiting:
        producer = program.producers.get(waiting.pop())
        if producer is None:
            continue
        if not isinstance(producer, _MOVEMENTS):
            return False
        waiting.extend(producer.inputs)
    return True


def _is_affine(probe: Probe, found: FirstLayer, generator: np.random.Generator) -> bool:
    """Quantising a float input is a movement only if its scale gives the codes back."""
    images = generator.integers(0, HIGH, (_CHECKED, *found.image), np.uint8, endpoint=True)
    images[0] = HIGH
    computed = found.offset + images.reshape(_CHECKED, -1).astype(np.int64) @ found.weight.T
    return np.array_equal(probe.one(images, found.tensor, (slice(None), *found.place)), computed)
