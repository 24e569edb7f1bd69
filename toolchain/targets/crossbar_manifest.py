"""What `image.json` of a crossbar image says: which chip, which layers, which arrays of `image.npz`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ArrayRow", "DigitalRow", "LayerImage", "LimitsRow", "Manifest"]

Size = Annotated[int, Field(ge=0, lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Word = Annotated[str, Field(pattern=r"^layer[0-9]{4,6}\.(levels|offset|multiplier|bias)$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ArrayRow(_Record):
    """One array of `image.npz`: element type and shape."""

    dtype: Literal["uint8", "int32", "float32"]
    shape: Annotated[list[Size], Field(max_length=5)]

    @property
    def bytes(self) -> int:
        """Size of its values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class LimitsRow(_Record):
    """A converter: `code = clip(rint(p / step), low, high)`, p and step in units of 2^-F of a level."""

    low: Int64
    high: Int64
    step: Annotated[int, Field(ge=1, lt=2**63)]


class LayerImage(_Record):
    """A convolution or dense layer on its tiles.

    Attributes:
        index, name: The layer's number in the program, and its name.
        levels, offset: Names of its arrays: levels of the cells (see `crossbar_layout`), and what is added to the
            sums of the array, int32 `(groups, columns)`: the bias less `zero_point` times the sums of the weights.
        weight_bits: Width of the weights' codes.
        rows, columns, groups: Weight matrices `(rows, columns)`, one for each group. Row `(y width + x) channels + c`
            is kernel row y, kernel column x, channel c of the group; of a dense layer, row and column of the map that
            was flattened.
        kernel: Height and width of the kernel (or of the flattened map).
        channels: Of a group's input.
        slices, row_tiles, column_tiles, groups_per_tile, tiles: As the mapping has them.
        zero_point: The input code that stands for zero, as the converters at the rows get it.
        flip: 128 where the input's codes are int8 and get their highest bit flipped before they are applied.
        converters: Of its columns; None for ideal ones.
        window: Lowest and highest column sum that a calibration found, in units; None where nothing was calibrated.
    """

    index: Size
    name: Name
    levels: Word
    offset: Word
    weight_bits: Annotated[int, Field(ge=1, le=9)]
    rows: Annotated[int, Field(ge=1, lt=2**31)]
    columns: Annotated[int, Field(ge=1, lt=2**31)]
    groups: Annotated[int, Field(ge=1, lt=2**31)]
    kernel: Annotated[list[Size], Field(min_length=2, max_length=2)]
    channels: Size
    slices: Size
    row_tiles: Size
    column_tiles: Size
    groups_per_tile: Size
    tiles: Size
    zero_point: Annotated[int, Field(ge=0, le=255)]
    flip: Literal[0, 128]
    converters: LimitsRow | None
    window: Annotated[list[Int64], Field(min_length=2, max_length=2)] | None


class DigitalRow(_Record):
    """What a layer multiplies its int32 sums by, and what it makes of them.

    Attributes:
        index, name, kind: Of the layer in the program.
        multiplier: Name of its array, float32, shaped to broadcast against the sums of one image.
        bias: Name of its array, int32; None without. Of a layer on tiles it is part of the layer's `offset`.
        zero_point, dtype: Of the codes that come out; None for logits.
    """

    index: Size
    name: Name
    kind: Literal["Conv", "Dense", "Requantise", "Scale"]
    multiplier: Word
    bias: Word | None
    zero_point: Annotated[int, Field(ge=-128, le=255)] | None
    dtype: Literal["uint8", "int8"] | None


class Manifest(_Record):
    """The whole of `image.json`.

    Attributes:
        kind, schema_version: That it is one, and of which version.
        artifact_sha256: Of the artifact whose weights these are.
        seed: The chip whose converters these are.
        hardware: The profile, field by field.
        layers: Layers on tiles, in the order of the program.
        digital: Layers with multipliers, likewise.
        arrays: Every array of `image.npz` by its name.
    """

    kind: Literal["ohmfold crossbar image"] = "ohmfold crossbar image"
    schema_version: Literal[1] = 1
    artifact_sha256: Sha256
    seed: Int64
    hardware: dict[str, Any]
    layers: list[LayerImage]
    digital: list[DigitalRow]
    arrays: dict[Word, ArrayRow]
