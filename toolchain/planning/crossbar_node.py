"""A convolution or dense layer on a crossbar, as a step of the plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ...kernels.gather import gather_rows
from ...kernels.packing import aligned_empty
from .. import program as p
from .nodes import ConvNode, DenseNode, FrameLike, Node

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ...kernels.crossbar import CrossbarProduct
    from ...kernels.isa.base import InstructionSet
    from ..crossbar import Crossbar
    from .forms import Form, Padding, Place
    from .nodes import Forms, Kernel, Views

__all__ = ["CrossbarNode", "Observed"]

# Rows that are gathered at a time.
_BLOCK_ROWS = 384


class Observed(NamedTuple):
    """Rows of codes that an array is about to read, as an observer of the crossbar is shown them.

    Attributes:
        layer: Name of the array's layer.
        product: The array.
        packed: The rows, as the array takes them.
        rows: Their number.
        first_sample: Index of the first for the read noise.
    """

    layer: str
    product: CrossbarProduct
    packed: NDArray[np.uint8]
    rows: int
    first_sample: int


@dataclass(frozen=True, eq=False, kw_only=True)
class CrossbarNode(Node):
    """The sums of a layer's array, int32.

    The rows of the array are the layer's taps in the order of memory: kernel row, kernel column, channel of the
    group; a dense layer's are those of the flattened map.
    """

    kind: ClassVar[str] = "crossbar"
    layer: p.Conv | p.Dense
    crossbar: Crossbar
    packs: ClassVar[bool] = True

    def infer(self, inputs: Forms) -> tuple[Form, ...] | None:
        """As of the exact layer, always sums."""
        found = self._exact().infer(inputs)
        return None if found is None else tuple(replace(form, flip=0, sums=True) for form in found)

    def padding(self, inputs: Sequence[Form]) -> tuple[Padding | None, ...]:
        """The exact layer's."""
        return self._exact().padding(inputs)

    def make(self, inputs: Sequence[Place], outputs: Sequence[Place], isa: InstructionSet) -> Kernel:
        """Gather rows of codes, a block at a time, and read the array."""
        (source,), (target,) = inputs, outputs
        weight, groups, window = self._weight(source.form)
        layout = source.layout
        programmed = self.crossbar.layer(self.layer, weight, groups, source.form.flip, isa)
        taps = window.taps(layout.row_bytes, layout.channels)
        starts = window.starts(layout, target.form)
        columns, positions = weight.shape[0] // groups, target.form.positions
        observer = self.crossbar.observer
        channels, image = weight.shape[1], layout.image_bytes

        def run(xs: Views, outs: Views, images: int, frame: FrameLike) -> None:
            x, out = xs[0], outs[0].reshape(-1, groups, columns)
            rows = images * positions
            for group in range(groups):
                product = programmed.products[group]
                places = product.positions.reshape(-1, channels)
                for first in range(0, rows, _BLOCK_ROWS):
                    count = min(_BLOCK_ROWS, rows - first)
                    packed = aligned_empty(product.packed_rows(count) * product.stride + 64)
                    packed[...] = 0
                    gather_rows(
                        x, image, group * channels, starts, taps, places, channels, first, count, packed, product.stride
                    )  # fmt: skip
                    sample = frame.first * positions + first
                    if observer is not None:
                        observer(Observed(self.layer.name, product, packed, count, sample))
                    out[first : first + count, group] = programmed(group, packed, count, sample)

        return run

    def _exact(self) -> Node:
        common: dict[str, Any] = {"name": self.name, "inputs": self.inputs, "outputs": self.outputs}
        if isinstance(self.layer, p.Conv):
            return ConvNode(**common, layer=self.layer, requantisation=None)
        return DenseNode(**common, layer=self.layer, requantisation=None)

    def _weight(self, form: Form) -> tuple[NDArray[Any], int, _Window]:
        """The weights `(O, C / groups, kH, kW)`, the groups, and the windows."""
        layer = self.layer
        if isinstance(layer, p.Dense):
            weight = layer.weight.T.reshape(-1, *form.size)
            return weight, 1, _Window((form.height, form.width), (1, 1), (0, 0), (1, 1))
        exact = ConvNode(
            name=self.name, inputs=self.inputs, outputs=self.outputs, layer=layer, requantisation=None
        )
        _, kernel, strides, pads, dilations = zip(*exact.windows(form), strict=True)
        weight = layer.weight.reshape(*layer.weight.shape[:2], *kernel)
        begins = (pads[0][0], pads[1][0])
        return weight, layer.groups, _Window(kernel, strides, begins, dilations)


@dataclass(frozen=True)
class _Window:
    """Sizes down and across of a convolution's windows."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    begins: tuple[int, int]
    dilations: tuple[int, int]

    def taps(self, row: int, pixel: int) -> NDArray[np.int64]:
        """Where every tap is, from its window's start."""
        down = np.arange(self.kernel[0]) * (self.dilations[0] * row)
        across = np.arange(self.kernel[1]) * (self.dilations[1] * pixel)
        return np.ascontiguousarray((down[:, np.newaxis] + across).reshape(-1), np.int64)

    def starts(self, layout: Any, target: Form) -> NDArray[np.int64]:
        """Where the window of every position of an image starts."""
        y = (layout.top - self.begins[0] + np.arange(target.height) * self.strides[0]) * layout.row_bytes
        x = (layout.left - self.begins[1] + np.arange(target.width) * self.strides[1]) * layout.channels
        return np.ascontiguousarray((y[:, np.newaxis] + x).reshape(-1), np.int64)
