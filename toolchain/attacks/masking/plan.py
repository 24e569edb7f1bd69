"""The plan of a probe: which attacks gather the evidence, how strong. It is data, `probe.toml`.

One `[[runs]]` for each attack, in the order in which they run:

    [[runs]]
    role = "iterative"          # what the attack is for (see `evidence.Role`)
    attack = "pgd"              # a name of the catalogue
    settings = { steps = 20 }
    times = 1                   # how often, each time from another seed
    radius_factor = 1.0         # of the radius that is asked about; "range": a radius that holds every image
    only_without = ""           # an attack of the same role; this run is made where that one could not be
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ....errors import RecipeError
from ..catalogue import ATTACKS, make_attack
from .evidence import Role  # noqa: TC001 - pydantic reads the annotations

__all__ = ["Plan", "PlannedRun", "default_plan"]

_FILE = "probe.toml"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PlannedRun(_Model):
    """One attack of the plan; fields as in the module's docstring."""

    role: Role
    attack: str
    settings: dict[str, Any] = Field(default_factory=dict)
    times: Annotated[int, Field(ge=1, le=1000)] = 1
    radius_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | Literal["range"] = 1.0
    only_without: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:  # here an error would leave the validation, and not say where in the file it is
            attack = make_attack(self.attack, **self.settings)
        except RecipeError as error:
            raise ValueError(str(error)) from None
        if self.role != "black-box" and attack.needs_gradient != (self.role != "noise"):
            along = "along a gradient" if attack.needs_gradient else "without a gradient"
            raise ValueError(f"the attack {self.attack!r} works {along}, and the role {self.role!r} does not")
        return self

    @property
    def calls(self) -> int:
        """Roughly how many times an image is shown to a model; for the progress alone."""
        settings = make_attack(self.attack, **self.settings).parameters(1)
        steps = settings.get("budget", 0) // 2 or settings.get("steps", 1) * settings.get("restarts", 1)
        return max(1, int(steps)) * self.times


class Plan(_Model):
    """The plan of a probe.

    Attributes:
        images: How many images are probed at most, the first ones.
        repeats: How many times the same images are asked about.
        runs: In the order in which they run.
    """

    images: Annotated[int, Field(ge=1)]
    repeats: Annotated[int, Field(ge=2)] = 2
    runs: tuple[PlannedRun, ...]

    @field_validator("runs", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(run.role == "iterative" for run in self.runs) > 1:
            raise ValueError(
                "more than one run has the role 'iterative'; everything else is held against one"
            )
        for run in self.runs:
            if run.only_without and run.only_without not in ATTACKS:
                raise ValueError(f"only_without names {run.only_without!r}, which is no attack")
        return self

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Read a plan.

        Raises:
            RecipeError: It is not TOML, or a field is unknown or wrong; names the field.
        """
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise RecipeError(f"the plan of a probe is not TOML: {error}") from None
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RecipeError(f"the plan of a probe: {where}: {first['msg']}") from None


def default_plan() -> Plan:
    """Return the shipped plan."""
    return Plan.from_toml((resources.files(__package__) / _FILE).read_text(encoding="utf-8"))
