"""What the generated program does, step by step: small frozen dataclasses between the layers and their C code.

All codes are stored as bytes of 0 to 255: an int8 code q is kept as q + 128, and its zero point with it, so that
every step knows one kind of code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .packing import Packed
    from .views import Loop

__all__ = [
    "AddWords",
    "AveragePoolStep",
    "Buffer",
    "Convolve",
    "Copy",
    "DenseStep",
    "Logits",
    "Look",
    "LookPair",
    "MaxPoolStep",
    "Place",
    "Sink",
    "SpatialSumStep",
    "Spread",
    "Step",
    "SumStep",
    "Window",
]

Kind = Literal["codes", "words", "floats"]
Home = Literal["arena", "pixels", "logits", "trace"]


@dataclass(frozen=True)
class Buffer:
    """An array of one sample.

    Attributes:
        kind: codes (a byte each), words (int32) or floats (float32).
        size: Number of elements.
        home: The arena, the caller's pixels or logits; or nowhere but in a trace.
    """

    kind: Kind
    size: int
    home: Home = "arena"

    @property
    def bytes(self) -> int:
        """Its size in bytes."""
        return self.size * (1 if self.kind == "codes" else 4)


@dataclass(frozen=True)
class Place:
    """A buffer, and the element at which something in it begins."""

    buffer: int
    first: int = 0


@dataclass(frozen=True, eq=False)
class Spread:
    """A value for each (place, channel): `values[channel * by_channel + place * by_place]`."""

    values: NDArray[Any]
    by_channel: int
    by_place: int


@dataclass(frozen=True, eq=False)
class Sink:
    """Where an accumulator goes: kept as it is, or (where it has a multiplier) requantised to a code.

    `zero`, `low` and `high` are those of the stored codes, the limits less the zero point.
    """

    buffer: int
    multiplier: Spread | None = None
    bias: Spread | None = None
    zero: int = 0
    low: int = 0
    high: int = 0


@dataclass(frozen=True)
class Window:
    """Windows over a map. A 1-D map has a height of 1."""

    in_height: int
    in_width: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    dilation_height: int
    dilation_width: int
    pad_top: int
    pad_left: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Step:
    """What every step has.

    Attributes:
        layer: The layer that it is of.
        reads, writes: Numbers of buffers.
        scratch: Bytes that it needs while it runs.
        products: Multiply-accumulates.
        results: Elements that it writes.
    """

    layer: str
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    scratch: int = 0
    products: int = 0
    results: int = 0


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolve(Step):
    """A convolution; `bias` has the input's zero point folded in. `tile` output channels are computed together."""

    source: Place
    window: Window
    weights: Packed
    bias: NDArray[np.int32] | None
    zero: int
    in_channels: int
    out_channels: int
    groups: int
    depthwise: bool
    tile: int
    sinks: tuple[Sink, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class DenseStep(Step):
    """`rows` products of a row of `inputs` codes with a matrix stored by output; `bias` as in `Convolve`."""

    source: Place
    weights: Packed
    bias: NDArray[np.int32] | None
    rows: int
    inputs: int
    outputs: int
    sinks: tuple[Sink, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class SumStep(Step):
    """`sum_i multipliers[i] * (x_i - zeros[i])`, element by element."""

    sources: tuple[Place, ...]
    multipliers: tuple[int, ...]
    zeros: tuple[int, ...]
    places: int
    channels: int
    sinks: tuple[Sink, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class AddWords(Step):
    """int32 words, plus a constant where `bias` is one, to sinks."""

    source: Place
    bias: Spread | None
    places: int
    channels: int
    sinks: tuple[Sink, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class SpatialSumStep(Step):
    """The sum over all places of (x - zero), for each channel."""

    source: Place
    zero: int
    places: int
    channels: int
    sinks: tuple[Sink, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPoolStep(Step):
    """The largest code of each window; 0 where a window holds nothing but padding."""

    source: Place
    target: Place
    window: Window
    channels: int


@dataclass(frozen=True, eq=False, kw_only=True)
class AveragePoolStep(Step):
    """An average in float32: `reals[x]` added up in order, divided by the count, then by `scale`; plus `zero`.

    `low` is the lowest code, -128 or 0, which is stored as 0.
    """

    source: Place
    target: Place
    window: Window
    channels: int
    reals: NDArray[np.float32]
    include_padding: bool
    scale: np.float32
    zero: np.float32
    low: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Look(Step):
    """`table[x]`."""

    source: Place
    target: Place
    table: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class LookPair(Step):
    """`table[256 a + b]`."""

    sources: tuple[Place, Place]
    target: Place
    table: NDArray[np.uint8]


@dataclass(frozen=True, eq=False, kw_only=True)
class Copy(Step):
    """A nest of loops that copies elements; before it, the whole target is set to `fill` where that is not None."""

    source: Place
    target: Place
    nest: tuple[Loop, ...]
    fill: int | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Logits(Step):
    """`float32(x - zero) * multiplier`, one product."""

    source: Place
    multiplier: Spread
    zero: Spread
