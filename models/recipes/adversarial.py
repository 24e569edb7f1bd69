"""Adversarial training: the loss of images that an attack has changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch.nn import functional

from ...errors import RecipeError
from ..attack import Pgd
from ..checks import require_integer, require_number
from ..network import pixels_of
from ..thresholds import start_with_thresholds
from .base import Method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..image_data import Dataset
    from ..network import Network

__all__ = ["Adversarial"]

_JUDGED_STEPS = 40
_JUDGED_REACH = 4 / 3
_JUDGED_BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Adversarial(Method):
    """min over weights of E[max over |d| <= epsilon of loss(x + d, y)], the maximum found by PGD.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks" (2018), Eq. 2.1. The
    defaults are theirs for MNIST; fewer and longer steps (5 of 0.1) cost a seventh. Attacks are made in
    evaluation mode.

    Attributes:
        epsilon: Radius of the L-infinity ball, of pixels in [0, 1].
        step: Length of a step of the attack.
        steps: How many. One of 1.25 epsilon is the fast schedule of Wong et al. (2020).
        stripes: Share of the images of a batch whose attack starts at stripes (`models.attack.Pgd`).
        trades: Weight of the loss of Zhang et al., "Theoretically Principled Trade-off between Robustness and
            Accuracy" (2019), Eq. 5: the cross-entropy of the clean images plus `trades` times the divergence
            KL(clean || attacked), which the attack climbs too; their beta (6). 0 for Madry's loss.
        warm_up: Share of the run during which epsilon grows from 0, in proportion.
        clean: Weight of the loss of the images as they are, beside that of the attacked ones; 0 to 1.
        threshold_gain: Let the first convolution start as thresholds of this slope (`models.thresholds`); 0
            to leave it as it is.
        judged: After each epoch, accuracy under 40 steps is measured on this many test images.

    Raises:
        RecipeError: A setting is out of its range.
    """

    name: ClassVar[str] = "adversarial"

    epsilon: float = 0.3
    step: float = 0.01
    steps: int = 40
    warm_up: float = 0.0
    stripes: float = 0.0
    trades: float = 0.0
    clean: float = 0.0
    threshold_gain: float = 0.0
    judged: int = 0

    def __post_init__(self) -> None:
        self.attack  # noqa: B018 - checks epsilon, step and steps
        require_number("warm_up", self.warm_up, 0.0, below=1.0)
        require_number("trades", self.trades, 0.0)
        require_number("clean", self.clean, 0.0, below=1.0)
        require_number("threshold_gain", self.threshold_gain, 0.0)
        if self.trades and self.clean:
            raise RecipeError("clean and trades exclude each other: with trades, clean images have weight 1")
        require_integer("judged", self.judged, 0)

    @property
    def attack(self) -> Pgd:
        """The attack of the training loop."""
        return Pgd(epsilon=self.epsilon, step=self.step, steps=self.steps, stripes=self.stripes)

    def prepare(self, model: nn.Module, data: Dataset) -> nn.Module:
        """Let the first convolution start as thresholds, where that is asked for."""
        del data
        if self.threshold_gain:
            start_with_thresholds(model, self.threshold_gain, self.epsilon)
        return model

    def loss(self, network: Network, pixels: Tensor, labels: Tensor, done: float) -> Tensor:
        """Return the loss of the attacked images, and of the clean ones by their weight; or that of TRADES."""
        share = min(1.0, done / self.warm_up) if self.warm_up else 1.0
        if self.trades:
            return self._trades(network, pixels, labels, share)
        attacked = pixels
        if share > 0:
            with network.evaluating():
                attacked = self.attack(network, pixels, labels, share)
        loss = network.cross_entropy(network(attacked), labels)
        if not self.clean:
            return loss
        return (1 - self.clean) * loss + self.clean * network.cross_entropy(network(pixels), labels)

    def _trades(self, network: Network, pixels: Tensor, labels: Tensor, share: float) -> Tensor:
        attacked = pixels
        if share > 0:
            with network.evaluating():
                with torch.no_grad():
                    likely = network(pixels).softmax(1)
                attacked = self.attack(network, pixels, likely, share)
        clean, moved = network(pixels), network(attacked)
        divergence = functional.kl_div(
            moved.log_softmax(1), clean.log_softmax(1), reduction="batchmean", log_target=True
        )
        return network.cross_entropy(clean, labels) + self.trades * divergence

    def figures(self, network: Network, test: Dataset) -> dict[str, float]:
        """Return the accuracy under PGD with 40 steps on the first `judged` images."""
        if not self.judged:
            return {}
        step = _JUDGED_REACH * self.epsilon / _JUDGED_STEPS
        attack = Pgd(epsilon=self.epsilon, step=step, steps=_JUDGED_STEPS)
        count, correct = min(self.judged, len(test)), 0
        with network.evaluating():
            for first in range(0, count, _JUDGED_BATCH):
                chosen = slice(first, min(first + _JUDGED_BATCH, count))
                pixels = pixels_of(torch.from_numpy(test.images[chosen]))
                labels = torch.from_numpy(test.labels[chosen])
                attacked = attack(network, pixels, labels)
                with torch.no_grad():
                    correct += int((network(attacked).argmax(1) == labels).sum())
        return {"pgd_accuracy": correct / count}
