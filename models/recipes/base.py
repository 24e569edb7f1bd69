"""`Method`: how one kind of training differs from another; the loop itself is `models.training`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..image_data import Dataset
    from ..network import Network
    from ..training import TrainingResult

__all__ = ["Method", "Run"]


class Run(Protocol):
    """One run of the training loop."""

    def __call__(
        self, network: nn.Module, images: Dataset, chosen: Method, stage: str = ""
    ) -> TrainingResult:
        """Train `network` on `images` by the method `chosen`; `stage` tells several runs apart."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A training method; its fields are its settings. This one is plain cross-entropy.

    What a method may decide:

    1. `prepare`: what becomes of the network before the run.
    2. `loss`: how a batch becomes a loss.
    3. `figures`: what is measured after each epoch, besides accuracy.
    4. `finish`: what is kept of the network after the run.
    5. `fit`: whether there is one run, or several.
    """

    name: ClassVar[str] = "standard"

    def prepare(self, model: nn.Module, data: Dataset) -> nn.Module:
        """Return the module to train, which may be `model` itself, changed in place."""
        del data
        return model

    def loss(self, network: Network, pixels: Tensor, labels: Tensor, done: float) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            network: What is trained.
            pixels: (N, C, H, W) float32 in [0, 1].
            labels: (N,) int64.
            done: Share of the run's steps that are done, in [0, 1).
        """
        del done
        return network.cross_entropy(network(pixels), labels)

    def figures(self, network: Network, test: Dataset) -> dict[str, float]:
        """Measure the network after an epoch, beyond its accuracy; by name."""
        del network, test
        return {}

    def finish(self, model: nn.Module) -> nn.Module:
        """Return what is kept of the trained module."""
        return model

    def fit(self, model: nn.Module, data: Dataset, seed: int, run: Run) -> TrainingResult:
        """Train; this one in a single run.

        Args:
            model: What to train.
            data: What to train on.
            seed: Of whatever the method draws besides.
            run: The loop.
        """
        del seed
        return run(model, data, self)

    def settings(self) -> dict[str, Any]:
        """Return name and settings as plain values, for a checkpoint or a model card."""
        return {"name": self.name, **asdict(self)}
