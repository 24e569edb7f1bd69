"""`Recipe`: every setting of a compilation, as one frozen, validated tree that survives a TOML round trip."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from ..errors import RecipeError

__all__ = ["LayerOptions", "Recipe", "WeightOptions"]

Bits = Annotated[int, Field(ge=1, le=8, strict=True)]
Levels = Literal["linear", "full-range", "log2"]
Step = Literal["max", "mse"] | Annotated[float, Field(ge=1e-30, le=1e30, strict=True)]
Granularity = Literal["tensor", "channel"]
Mu = Annotated[float, Field(gt=0, allow_inf_nan=False)]

LOG2_BITS = range(2, 5)
"""Widths of base-2 logarithmic levels: 4 bits reach 64, the last magnitude that int16 pairs cannot saturate."""


def _one_line(error: ValidationError) -> str:
    """Return the first fault of a validation error, and how many more there are, as one line."""
    first, *rest = error.errors()
    where = ".".join(str(part) for part in first["loc"]) or "recipe"
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown field; see Recipe's documentation for the fields that exist{more}"
    return f"{where}: {first['msg']}, found {first['input']!r}{more}"


class _Settings(BaseModel):
    """A frozen group of settings whose faults are raised as `RecipeError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(_one_line(error)) from None


class WeightOptions(_Settings):
    """How the weights of one layer become codes (complete: every field has a value)."""

    weight_bits: Bits = 3
    levels: Levels = "linear"
    step: Step = "max"
    granularity: Granularity = "tensor"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.levels == "log2" and self.weight_bits not in LOG2_BITS:
            raise ValueError(f"levels 'log2' exist for 2 to 4 bits, not {self.weight_bits}")
        if self.levels == "full-range" and self.weight_bits == 1:
            raise ValueError("levels 'full-range' need at least 2 bits; 1 bit is always -1 and +1")
        return self


class LayerOptions(_Settings):
    """Overrides for one layer; fields left out are taken from the recipe."""

    weight_bits: Bits | None = None
    levels: Levels | None = None
    step: Step | None = None
    granularity: Granularity | None = None


def _layer_options(where: str, value: Any) -> Any:
    """Build the options of one layer from a table; a fault is reported under the layer's name."""
    if not isinstance(value, dict):
        return value
    try:
        return LayerOptions(**value)
    except RecipeError as error:
        raise RecipeError(f"{where}.{error}") from None


class Recipe(_Settings):
    """How a float model becomes an integer artifact.

    Attributes:
        weight_bits: Width of the weight codes, 1 to 8. At 1 bit the codes are -1 and +1.
        levels: `linear`: `-L..L` with `L = 2**(bits-1) - 1`; `full-range`: `-2**(bits-1)..L`;
            `log2`: 0 and plus or minus powers of two (2 to 4 bits).
        step: `max`: the largest |w| falls on the outermost level; `mse`: the step of least squared error;
            or the step itself, as a number (a learned one, say).
        granularity: One step for each `tensor` (as in the paper) or for each output `channel`.
        first_layer: Overrides for the first layer with weights.
        last_layer: Overrides for the last layer with weights.
        layers: Overrides for layers by name; they win over `first_layer` and `last_layer`.
        mu_law: Layers whose weights go through the mu-law map (paper, Eq. 3a), with their `mu`.
        mu_law_domain: `literal`: the weights themselves, |w| <= 1; `normalised`: w / max|w|, scaled back.
        bias_correction: Shift each bias by the mean error that weight quantisation causes on the
            calibration images.
        calibration: Activation ranges: `min-max`, `percentile`, `mse` (least squared error), or `limits`: the
            upper limits that the network itself clips at (learned ones, say), `min-max` where it does not.
        percentile: Share of activations, in percent, that `calibration="percentile"` keeps in range.
        scales: `float`, or `pow2`: every scale a power of two, so that no multiplier is left.
        input: `uint8`: the artifact takes the sensor's pixel codes; `float32`: it takes pixels in [0, 1]
            and quantises them itself.
    """

    weight_bits: Bits = 3
    levels: Levels = "linear"
    step: Step = "max"
    granularity: Granularity = "tensor"
    first_layer: LayerOptions | None = None
    last_layer: LayerOptions | None = None
    layers: dict[str, LayerOptions] = Field(default_factory=dict)
    mu_law: dict[str, Mu] = Field(default_factory=dict)
    mu_law_domain: Literal["literal", "normalised"] = "literal"
    bias_correction: bool = False
    calibration: Literal["min-max", "percentile", "mse", "limits"] = "min-max"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    scales: Literal["float", "pow2"] = "float"
    input: Literal["uint8", "float32"] = "uint8"

    @field_validator("layers", mode="before")
    @classmethod
    def _named_layers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: _layer_options(f"layers.{name}", options) for name, options in value.items()}

    @field_validator("first_layer", "last_layer", mode="before")
    @classmethod
    def _placed_layer(cls, value: Any, info: ValidationInfo) -> Any:
        return _layer_options(str(info.field_name), value)

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.weight_options("", is_first=True, is_last=True)
        for name in ("", *self.layers):
            options = self.weight_options(name)
            if self.scales == "pow2" and isinstance(options.step, float):
                raise ValueError("a step given as a number cannot be kept with scales = 'pow2'")
        return self

    def weight_options(self, layer: str, *, is_first: bool = False, is_last: bool = False) -> WeightOptions:
        """Return the options of one layer: the recipe's, overridden by position, then by name."""
        values = {name: getattr(self, name) for name in WeightOptions.model_fields}
        for applies, overrides in (
            (is_first, self.first_layer),
            (is_last, self.last_layer),
            (True, self.layers.get(layer)),
        ):
            if applies and overrides is not None:
                values.update(overrides.model_dump(exclude_none=True))
        return WeightOptions(**values)

    def to_toml(self) -> str:
        """Return the recipe as TOML text; `from_toml` reads it back."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read a recipe from TOML text.

        Raises:
            RecipeError: The text is not TOML, or a field is unknown, mistyped or out of range.
        """
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"the recipe is not TOML: {error}") from None
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a recipe from a TOML file (see `from_toml`)."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the recipe {path}: {error}") from None
        return cls.from_toml(text)
