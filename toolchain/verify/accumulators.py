"""A program whose accumulators all show: what searches for ties and bounds look at.

A convolution or dense layer that requantises writes codes alone. Here it becomes two layers, the sums and their
requantisation, so that the emulator's trace holds every int32 accumulator. The bits are the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError
from ..analysis.ranges import INT32_LIMIT, accumulator_ranges
from ..emulator import Emulator
from ..judged import as_input
from ..program import Conv, Dense, Layer, Program, Requantise, TensorSpec, WeightedSum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from ..analysis.ranges import LayerRange
    from ..program import Requantisation

__all__ = ["Probe", "Site", "multiply_accumulates", "pixel_shape", "with_accumulators"]

# Images of which one accumulator, or all of them, are in memory at once.
PROBED, PIECE = 64, 16


@dataclass(frozen=True, eq=False)
class Site:
    """A place where accumulators become codes.

    Attributes:
        layer: Name of the layer in the model's program.
        accumulator: The int32 tensor that is read.
        bias: int32, added before the product, shaped to broadcast against one sample; None where there is none.
        requantisation: The product, the clamp and the rounding.
        low, high: The least and greatest sum, bias included, that a proof allows.
        unit: What divides every accumulator, before the bias is added.
    """

    layer: str
    accumulator: str
    bias: NDArray[np.int32] | None
    requantisation: Requantisation
    low: int
    high: int
    unit: int = 1

    def products(self, accumulators: NDArray[np.int32]) -> NDArray[np.float32]:
        """`float32(acc + bias) * M`, what is then clamped and rounded."""
        total = accumulators.astype(np.int64)
        if self.bias is not None:
            total = total + self.bias
        product: NDArray[np.float32] = (
            total.astype(np.int32).astype(np.float32) * self.requantisation.multiplier
        )
        return product


def with_accumulators(program: Program) -> Program:
    """Return the program with the sums of convolutions and dense layers as tensors of their own."""
    layers: list[Layer] = []
    tensors = dict(program.tensors)
    for layer in program.layers:
        if not isinstance(layer, Conv | Dense) or layer.requantisation is None:
            layers.append(layer)
            continue
        named = layer.accumulator if isinstance(layer, Dense) else None
        name = named or f"{layer.output}/accumulator"
        if named is None and name in tensors:
            raise ModelError(f"the model has a tensor named {name!r}, which accumulators need; rename it")
        tensors[name] = TensorSpec(name, np.dtype(np.int32), tensors[layer.output].shape)
        sums: Layer = replace(layer, outputs=(name,), requantisation=None)
        if isinstance(sums, Dense):
            sums = replace(sums, accumulator=None)
        layers.append(sums)
        layers.append(
            Requantise(
                name=f"{layer.name}/requantise",
                inputs=(name,),
                outputs=layer.outputs,
                bias=None,
                requantisation=layer.requantisation,
            )
        )
    return replace(program, layers=tuple(layers), tensors=tensors)


def multiply_accumulates(program: Program) -> int:
    """Multiply-accumulates for one image, of convolutions and dense layers."""
    total = 0
    for layer in program.weighted_layers():
        shape = program.tensors[layer.output].shape or ()
        positions = shape[2:] if isinstance(layer, Conv) else shape[1:-1]
        total += layer.weight.size * int(np.prod([d or 1 for d in positions], dtype=np.int64))
    return total


def pixel_shape(program: Program) -> tuple[int, ...]:
    """Shape of one image.

    Raises:
        ModelError: The program has several inputs, or an input of another form than a batch of images.
    """
    shape = program.inputs[0].shape if len(program.inputs) == 1 else None
    if not shape or len(shape) < 2:
        found = "; ".join(str(spec) for spec in program.inputs) or "none"
        raise ModelError(f"the model's input is {found}, expected one batch of images")
    sizes = tuple(d for d in shape[1:] if d is not None)
    if len(sizes) != len(shape) - 1:
        raise ModelError(f"the model's input is {program.inputs[0]}: the size of an image must be fixed")
    return sizes


def _filled(images: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The images, the last one repeated up to a multiple of `step`."""
    missing = -len(images) % step
    return images if not missing else np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])


def _up_to(program: Program, name: str) -> Program:
    """The program's layers up to the one that writes a tensor, which is its output."""
    last = next(i for i, layer in enumerate(program.layers) if name in layer.outputs)
    return replace(
        program, layers=program.layers[: last + 1], outputs=(program.tensors[name],), logits=None, codes=None
    )


class Probe:
    """The accumulators of a program for any images, by the emulator.

    Attributes:
        program: The program with its accumulators apart.
        sites: Where accumulators become codes, in order.
        ranges: Proved bounds, by the name of the layer.
    """

    def __init__(self, program: Program) -> None:
        self.program = with_accumulators(program)
        self.ranges: dict[str, LayerRange] = {
            found.layer: found for found in accumulator_ranges(self.program)
        }
        self.sites = tuple(self._sites())
        self._emulator = Emulator(self.program)

    def accumulators(self, images: NDArray[np.uint8], names: Iterable[str]) -> dict[str, NDArray[Any]]:
        """Tensors by name, for all images at once (a program of a fixed batch gets its last one filled up)."""
        filled = _filled(images, self.program.batch or 1)
        found = self._emulator.trace(as_input(filled, self.program.inputs[0]), tuple(names))
        return {name: array[: len(images)] for name, array in found.items()}

    def pieces(
        self, images: NDArray[np.uint8], names: Iterable[str]
    ) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
        """As `accumulators`, a few images at a time; with the index of the first."""
        wanted = tuple(dict.fromkeys(names))
        for start in range(0, len(images), PIECE):
            yield start, self.accumulators(images[start : start + PIECE], wanted)

    def one(self, images: NDArray[np.uint8], name: str, place: tuple[int | slice, ...]) -> NDArray[np.int64]:
        """One element of a tensor for each image, int64 `(N,)` or, where `place` leaves axes, `(N, ...)`.

        Only the layers up to the tensor's run.
        """
        emulator = Emulator(_up_to(self.program, name))
        step = self.program.batch or PROBED
        filled = _filled(images, step if self.program.batch else 1)
        parts = [
            emulator.trace(as_input(filled[start : start + step], self.program.inputs[0]), [name])[name][
                (slice(None), *place)
            ]
            for start in range(0, len(filled), step)
        ]
        return np.concatenate(parts)[: len(images)].astype(np.int64)

    def _sites(self) -> Iterable[Site]:
        producers = self.program.producers
        for layer in self.program.layers:
            if not isinstance(layer, Requantise):
                continue
            source = producers.get(layer.input)
            found = self.ranges.get(layer.name) or self.ranges.get("" if source is None else source.name)
            yield Site(
                layer=layer.name.removesuffix("/requantise"),
                accumulator=layer.input,
                bias=layer.bias,
                requantisation=layer.requantisation,
                low=-INT32_LIMIT if found is None else int(found.low.min(initial=0)),
                high=INT32_LIMIT if found is None else int(found.high.max(initial=0)),
                unit=math.gcd(*source.multipliers) or 1 if isinstance(source, WeightedSum) else 1,
            )
