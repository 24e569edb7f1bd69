"""What a gradient source is like, apart from any attack: its gradients, whether it repeats, what its outputs are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..gradient import posed

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ..base import GradientSource, Problem

__all__ = ["Differentiable", "Logarithms", "gradients_at", "logits_of", "probabilities"]

# float32 softmaxes of some thousand classes add up to 1 within this.
_SUM_SLACK = 1e-3


class Differentiable(nn.Module):
    """A gradient source with a gradient, be it zero: where no gradient reaches the pixels, they are added times 0.

    Without it an attack would refuse a model that is detached somewhere; here that is evidence.

    Args:
        source: From float32 pixels in [0, 1] to logits.
    """

    def __init__(self, source: GradientSource) -> None:
        super().__init__()
        # A module becomes a part of this one, so that attacks see its device, mode and parameters.
        self.source = source

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the source's logits."""
        logits = self.source(pixels)
        if pixels.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            logits = logits + 0 * pixels.flatten(1).sum(1, keepdim=True)
        return logits


class Logarithms(nn.Module):
    """A gradient source of probabilities, its outputs taken back to logits: `log p`, p at least float32's least.

    The softmax of `log p` is p, so that a loss on logits means what it does elsewhere.

    Args:
        source: From float32 pixels in [0, 1] to probabilities.
    """

    def __init__(self, source: GradientSource) -> None:
        super().__init__()
        self.source = source

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logarithms of the source's outputs."""
        outputs = self.source(pixels)
        return outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()


def gradients_at(problem: Problem) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Look at the gradient of the cross-entropy with respect to the pixels, at the images of a problem.

    Returns:
        For each image the share of entries that are exactly zero, float64 `(N,)`, and whether all are finite, bool
        `(N,)`.
    """
    source = problem.gradient_source
    with posed(problem) as task:
        entry = task.pixels.clone().requires_grad_()
        # The source itself: what attacks see takes a gradient that is not finite as 0.
        loss = cross_entropy(source(entry), task.labels, reduction="sum")  # type: ignore[misc]
        (gradient,) = torch.autograd.grad(loss, entry)
        flat = gradient.flatten(1)
        zero = (flat == 0).to(torch.float64).mean(1).cpu().numpy()
        finite = torch.isfinite(flat).all(1).cpu().numpy()
    return np.asarray(zero, np.float64), np.asarray(finite, np.bool_)


def logits_of(problem: Problem, times: int = 1) -> NDArray[np.float32]:
    """Return the gradient source's logits of the images of a problem, asked several times, `(times, N, classes)`."""
    with posed(problem) as task, torch.no_grad():
        found = [task.model(task.pixels).cpu().numpy() for _ in range(times)]
    return np.asarray(np.stack(found), np.float32)


def probabilities(outputs: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which rows of `(N, classes)` are probabilities: none below 0, and their sum 1."""
    total = outputs.astype(np.float64).sum(axis=1)
    return np.asarray((outputs >= 0).all(axis=1) & (np.abs(total - 1) <= _SUM_SLACK))
