"""Adversarial training of the integer network itself, so that it is robust as deployed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..quantised import Quantised
from ..quantisers import outermost_code
from .adversarial import Adversarial

if TYPE_CHECKING:
    from torch import nn

    from ..image_data import Dataset

__all__ = ["Hardened"]


@dataclass(frozen=True, kw_only=True)
class Hardened(Adversarial):
    """Adversarial training in which network and attack both see codes: `models.quantised.Quantised`.

    A float network that is trained adversarially and rounded afterwards loses more than others do (the paper,
    Figure 1). Here weights have `bits` bits and activations 8 from the first step on, their steps and limits are
    learned, and what the attack climbs is the loss of the integer network.

    Attributes:
        bits: Width of the weight codes, 2 to 8.

    Raises:
        RecipeError: A setting is out of its range.
    """

    name: ClassVar[str] = "hardened"

    bits: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        outermost_code(self.bits)

    def prepare(self, model: nn.Module, data: Dataset) -> nn.Module:
        """Return the integer network of the same weights; one that is integer already goes on."""
        if isinstance(model, Quantised):
            return model
        return Quantised.of(super().prepare(model, data), self.bits, data)
