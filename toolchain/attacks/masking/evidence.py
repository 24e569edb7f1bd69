"""What a probe found out about a model, image by image: the only thing that the checks of the verdict see.

Nothing here holds a model, so that evidence can be kept, compared, and made by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ....errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["ROLES", "Evidence", "Gradients", "ProbeRun", "Repeats", "Role"]

Role = Literal[
    "single-step",
    "iterative",
    "doubled-steps",
    "restart",
    "other-descent",
    "noise",
    "ladder",
    "unbounded",
    "adaptive",
    "black-box",
    "parent",
]
"""What an attack of the probe is for:

| role | what it is |
|---|---|
| `single-step` | one step along the gradient of the cross-entropy |
| `iterative` | the white-box attack that everything else is held against: many steps along that gradient |
| `doubled-steps`, `restart` | the same with twice the steps; from other random starts |
| `other-descent` | another way down the same loss: the descent of the adaptive attacks |
| `noise` | random images of the ball |
| `ladder` | the iterative attack at other radii |
| `unbounded` | the iterative attack at a radius that holds every image |
| `adaptive` | losses that do not vanish with the scale of the logits: the margin, a searched temperature |
| `black-box` | no gradient of the model: queries, or the gradient of a substitute |
| `parent` | the gradient of the float model that the artifact was made from, or of the one without a mu-law map |
"""

ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, eq=False)
class ProbeRun:
    """What one attack of the probe left.

    Attributes:
        role: What it was for.
        name: The attack's name, with its gradient source where that is not the model itself.
        radius: In codes.
        settings: As they were used.
        attacked: Which images it was run on, bool `(N,)`; the others had fallen before, or were wrong from the start.
        standing: Which of those are still right, bool `(N,)`, False where not attacked.
        kept_earlier: Whose adversarial image is an earlier iterate, since the last one failed, bool `(N,)`.
        margins: `label's logit - largest other` on the gradient source, float32 `(iterates, N)`, NaN where not
            attacked; None where the attack has no such record.
    """

    role: Role
    name: str
    radius: float
    settings: Mapping[str, Any]
    attacked: NDArray[np.bool_]
    standing: NDArray[np.bool_]
    kept_earlier: NDArray[np.bool_]
    margins: NDArray[np.float32] | None = None

    @property
    def fallen(self) -> NDArray[np.bool_]:
        """Which images it turned, bool `(N,)`."""
        return np.asarray(self.attacked & ~self.standing)


@dataclass(frozen=True, eq=False)
class Gradients:
    """What the gradient of the cross-entropy with respect to the pixels is like at one image of each sample.

    Attributes:
        where: "at clean images", or where an attack ended.
        seen: Which samples were looked at, bool `(N,)`.
        zero: Share of the gradient's entries that are exactly zero, float64 `(N,)`.
        finite: Whether every entry is finite, bool `(N,)`.
    """

    where: str
    seen: NDArray[np.bool_]
    zero: NDArray[np.float64]
    finite: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Repeats:
    """What asking again for the same images brought.

    Attributes:
        asked: How many times the judge was asked.
        judge: For which images its logits (or labels, of a judge that tells no more) changed when it was asked in the
            same order, bool `(N,)`.
        order: For which images its label changed when it was asked in another order, bool `(N,)`.
        source: For which images the gradient source's logits changed, bool `(N,)`.
        noise_seed: The seed of a judge whose read noise is part of its profile, and differs from image to image by
            their place; None for a judge of exact integers.
    """

    asked: int
    judge: NDArray[np.bool_]
    order: NDArray[np.bool_]
    source: NDArray[np.bool_]
    noise_seed: int | None = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that a probe found.

    Attributes:
        clean_correct: Which images the judge gets right without an attack, bool `(N,)`. Shares are of these.
        norm, radius: The ball that is asked about, in codes.
        runs: The attacks of the probe, in the order in which they ran.
        gradients: At the clean images, and where the iterative attack ended.
        repeats: None where nothing was asked twice.
        probabilities: For which images the gradient source's outputs are probabilities (none below 0, their sum 1),
            bool `(N,)`; None where there is no gradient source.
        skipped: Runs of the plan that could not be made, by role and attack ("black-box square"), and why.
    """

    clean_correct: NDArray[np.bool_]
    norm: str
    radius: float
    runs: tuple[ProbeRun, ...] = ()
    gradients: tuple[Gradients, ...] = ()
    repeats: Repeats | None = None
    probabilities: NDArray[np.bool_] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.clean_correct.shape
        if len(shape) != 1 or self.clean_correct.dtype != np.bool_ or not shape[0]:
            raise DataError(
                f"clean_correct: found {self.clean_correct.dtype}{shape}; expected bool(N,), N at least 1"
            )
        for name, array in self._arrays():
            if array.shape[-1:] != shape:
                raise DataError(
                    f"{name}: found shape {array.shape}; expected one value for each of {shape[0]} images"
                )
        for run in self.runs:
            if run.role not in ROLES:
                raise DataError(f"{run.name}: unknown role {run.role!r}; expected one of {', '.join(ROLES)}")
            if np.any(run.attacked & ~self.clean_correct) or np.any(run.standing & ~run.attacked):
                raise DataError(
                    f"{run.name} ({run.role}): attacked images must be right before it, and standing ones attacked"
                )

    @property
    def count(self) -> int:
        """How many images are right without an attack."""
        return int(np.count_nonzero(self.clean_correct))

    def having(self, *roles: Role) -> tuple[ProbeRun, ...]:
        """The runs of these roles."""
        return tuple(run for run in self.runs if run.role in roles)

    def left_by(self, *roles: Role) -> NDArray[np.bool_]:
        """Which images withstood every run of these roles, bool `(N,)`; of no run, all that are right."""
        standing = self.clean_correct.copy()
        for run in self.having(*roles):
            standing &= ~run.fallen
        return standing

    def _arrays(self) -> list[tuple[str, NDArray[Any]]]:
        """Every array that has a value for each image, with its name."""
        found: list[tuple[str, NDArray[Any] | None]] = [("probabilities", self.probabilities)]
        for run in self.runs:
            names = ("attacked", "standing", "kept_earlier", "margins")
            found += [(f"{name} of {run.name} ({run.role})", getattr(run, name)) for name in names]
        for gradients in self.gradients:
            parts = ("seen", "zero", "finite")
            found += [(f"{name} of gradients {gradients.where}", getattr(gradients, name)) for name in parts]
        if self.repeats is not None:
            found += [
                (f"repeats.{name}", getattr(self.repeats, name)) for name in ("judge", "order", "source")
            ]
        return [(name, array) for name, array in found if array is not None]
