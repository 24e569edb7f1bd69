"""AutoAttack's attacks that follow gradients (Croce and Hein 2020, arXiv:2003.01690), from the package pyautoattack."""

from __future__ import annotations

import logging
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import DataError, MissingDependencyError
from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH
from .norms import PYAUTOATTACK
from .settings import check_count, check_positive

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from .epsilon import Norm
    from .gradient import Posed
    from .protocols import Judge

__all__ = ["APGDCE", "APGDT", "FABT", "pyautoattack"]

logger = logging.getLogger(__name__)

# The targeted DLR loss divides by a difference of the first, third and fourth largest logit.
_TARGETED_DLR_CLASSES = 4


def pyautoattack(module: str) -> ModuleType:
    """Return a module of the package.

    Raises:
        MissingDependencyError: It is not installed.
    """
    from importlib import import_module

    try:
        return import_module(f"pyautoattack.{module}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "pyautoattack":
            raise
        raise MissingDependencyError(
            "AutoAttack's attacks need the package pyautoattack, which is not installed: "
            "pip install 'ohmfold[autoattack]'"
        ) from None


@dataclass(frozen=True)
class _FromPackage(Attack):
    """One of the package's attack objects, made for a batch and asked to perturb it.

    Attributes:
        steps: Iterations of each run.
        restarts: Runs, each on what still stands.
    """

    norms: ClassVar[tuple[Norm, ...]] = ("inf", "2")

    steps: int = 100
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "steps", self.steps)
        check_count(self.name, "restarts", self.restarts)

    def check(self, judge: Judge, image_shape: tuple[int, ...], classes: int | None) -> None:  # noqa: ARG002
        """Refuse to run without the package."""
        pyautoattack("autopgd_base")

    @abstractmethod
    def make(self, task: Posed, radius: float, seed: int) -> Any:
        """Return the package's object for a radius in unit pixels."""

    def run(self, problem: Problem) -> Found:
        """Return float32 pixels in [0, 1]: clean ones where the package found nothing."""
        from .gradient import attack_with

        def algorithm(task: Posed) -> Tensor:
            attack = self.make(task, problem.radius / PIXEL_HIGH, problem.seed)
            return _finite(attack.perturb(task.pixels.clone(), task.labels), task.pixels, self.name)

        return attack_with(problem, algorithm, record=False)


@dataclass(frozen=True)
class _APGD(_FromPackage):
    """Auto-PGD: steps with momentum, halved where progress stalls.

    Attributes:
        rho: Share of steps that must have gained for the step to keep its length.
    """

    rho: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, "rho", self.rho)

    def _arguments(self, radius: float, seed: int) -> dict[str, Any]:
        return {
            "n_iter": self.steps,
            "n_restarts": self.restarts,
            "norm": PYAUTOATTACK[self.norm],
            "eps": radius,
            "rho": self.rho,
            "seed": seed,
            "logger": logger,
        }


@dataclass(frozen=True)
class APGDCE(_APGD):
    """Auto-PGD on the cross-entropy."""

    name: ClassVar[str] = "apgd-ce"

    def make(self, task: Posed, radius: float, seed: int) -> Any:
        """Return `APGDAttack`."""
        return pyautoattack("autopgd_base").APGDAttack(task.model, **self._arguments(radius, seed))


@dataclass(frozen=True)
class APGDT(_APGD):
    """Auto-PGD on the targeted difference of logits ratio, towards the likeliest other classes in turn.

    Attributes:
        targets: How many classes; at most all others.
    """

    name: ClassVar[str] = "apgd-t"

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "targets", self.targets)

    def check(self, judge: Judge, image_shape: tuple[int, ...], classes: int | None) -> None:
        """Refuse fewer classes than the loss divides by."""
        super().check(judge, image_shape, classes)
        if classes is not None and classes < _TARGETED_DLR_CLASSES:
            raise DataError(
                f"{self.name}: the model knows {classes} classes; its loss needs at least {_TARGETED_DLR_CLASSES}"
            )

    def make(self, task: Posed, radius: float, seed: int) -> Any:
        """Return `APGDAttack_targeted`."""
        return pyautoattack("autopgd_base").APGDAttack_targeted(
            task.model,
            n_target_classes=min(self.targets, task.classes - 1),
            **self._arguments(radius, seed),
        )


@dataclass(frozen=True)
class FABT(_FromPackage):
    """Fast adaptive boundary attack: the nearest point of the boundary to each of the likeliest other classes.

    Attributes:
        targets: How many classes; at most all others.
    """

    name: ClassVar[str] = "fab-t"

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "targets", self.targets)

    def make(self, task: Posed, radius: float, seed: int) -> Any:
        """Return `FABAttack_PT`."""
        return pyautoattack("fab_pt").FABAttack_PT(
            task.model,
            norm=PYAUTOATTACK[self.norm],
            n_restarts=self.restarts,
            n_iter=self.steps,
            eps=radius,
            seed=seed,
            targeted=True,
            n_target_classes=min(self.targets, task.classes - 1),
        )


def _finite(attacked: Tensor, clean: Tensor, name: str) -> Tensor:
    """Attacked pixels, clean ones where a vanished gradient was divided by."""
    import torch

    good = torch.isfinite(attacked).flatten(1).all(1)
    if good.all():
        return attacked
    logger.warning("%s: %d images came to nothing: is a gradient 0?", name, int((~good).sum()))
    return torch.where(good.reshape(-1, *[1] * (attacked.ndim - 1)), attacked, clean)
