"""What the gradient attacks share: a model that can be attacked without a trace, and seeded randomness."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...errors import DataError
from .epsilon import PIXEL_HIGH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from .base import GradientSource, Problem

__all__ = ["attack_with"]


def attack_with(
    problem: Problem, algorithm: Callable[[GradientSource, Tensor, Tensor], Tensor]
) -> NDArray[np.float32]:
    """Run `algorithm(model, pixels, labels) -> pixels` on a batch; leave no trace in model or generators.

    Parameters get no gradients, batch norms no statistics, and the global generators no draws.

    Raises:
        DataError: The gradient source is missing, returns no logits, or knows fewer classes than the labels.
    """
    model = problem.gradient_source
    if model is None:
        raise DataError("this attack needs a gradient: give it a twin or another torch model")
    device = _device(model)
    pixels = torch.from_numpy(problem.images).to(device).float() / PIXEL_HIGH
    labels = torch.from_numpy(problem.labels).to(device)
    with torch.inference_mode(mode=False), torch.enable_grad(), _frozen(model), _seeded(device, problem.seed):
        _check_logits(model, pixels, labels)
        attacked = algorithm(model, pixels, labels)
    # cleverhans returns a tensor that still hangs on its graph.
    return np.asarray(attacked.detach().cpu().numpy(), np.float32)


def _device(model: GradientSource) -> torch.device:
    if isinstance(model, torch.nn.Module):
        for tensor in chain(model.parameters(), model.buffers()):
            return tensor.device
    return torch.device("cpu")


def _check_logits(model: GradientSource, pixels: Tensor, labels: Tensor) -> None:
    with torch.no_grad():
        logits = model(pixels[:1])
    if logits.ndim != 2 or len(logits) != 1:
        raise DataError(
            f"the model returned shape {tuple(logits.shape)} for one image; expected (1, classes)"
        )
    highest = int(labels.max())
    if highest >= logits.shape[1]:
        raise DataError(f"labels: found {highest}; the model knows the classes 0 to {logits.shape[1] - 1}")


@contextmanager
def _frozen(model: GradientSource) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters, for as long as the context lasts."""
    if not isinstance(model, torch.nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    trained = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, requires_grad in trained:
            parameter.requires_grad_(requires_grad)
        for module, training in modes:
            module.training = training


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the device's global generator, which cleverhans draws from, and restore it afterwards."""
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
