"""What the gradient attacks share: a model that can be attacked without a trace, and seeded randomness."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import DataError
from .base import Found
from .epsilon import PIXEL_HIGH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from .base import GradientSource, Problem

__all__ = [
    "IterateRecorder",
    "Posed",
    "attack_with",
    "device_of",
    "frozen",
    "known_classes",
    "margins_of",
    "posed",
    "rounded",
    "seeded",
]

logger = logging.getLogger(__name__)

_NO_GRADIENT = (
    "the logits of the gradient source do not depend on its pixels by anything differentiable; "
    "give a twin or another model"
)


@dataclass(frozen=True, eq=False)
class Posed:
    """A problem in torch, as long as the attack lasts.

    Attributes:
        model: The gradient source: from pixels to logits, with gradients for the pixels alone, which are finite.
        pixels: float32 in [0, 1], `(N, ...)`: the clean images.
        labels: int64 `(N,)`.
        classes: How many logits an image has.
    """

    model: GradientSource
    pixels: Tensor
    labels: Tensor
    classes: int


def attack_with(problem: Problem, algorithm: Callable[[Posed], Tensor], *, record: bool = True) -> Found:
    """Run `algorithm(posed) -> pixels` on a batch; leave no trace in model or generators.

    Parameters get no gradients, batch norms no statistics, and the global generators no draws. A gradient that is
    not finite is taken as 0, with a warning.

    Args:
        problem: The batch.
        algorithm: What to run.
        record: Whether every call of the model is one iterate of the whole batch. The best one is then kept, and the
            margins of all are; one more call judges the last.

    Raises:
        DataError: The gradient source is missing, returns no logits or none that depend on the pixels, or knows
            fewer classes than the labels.
    """
    with posed(problem) as task:
        if not record:
            return Found(_array(algorithm(task)))
        recorder = IterateRecorder(task.model, task.pixels, task.labels)
        attacked = algorithm(Posed(recorder, task.pixels, task.labels, task.classes)).detach()
        with torch.no_grad():
            recorder(attacked)
        return Found(_array(attacked), recorder.codes(), recorder.margins())


@contextmanager
def posed(problem: Problem) -> Iterator[Posed]:
    """Pose a problem in torch: gradients on, parameters and generators guarded, the global seed the problem's.

    Raises:
        DataError: As `attack_with`.
    """
    source = problem.gradient_source
    if source is None:
        raise DataError("this attack needs a gradient: give it a twin or another torch model")
    device = device_of(source)
    pixels = torch.from_numpy(problem.images).to(device).float() / PIXEL_HIGH
    labels = torch.from_numpy(problem.labels).to(device)
    guarded = _Guarded(source)
    classes = known_classes(source, problem.images[:1])
    highest = int(problem.labels.max())
    if highest >= classes:
        raise DataError(f"labels: found {highest}; the model knows the classes 0 to {classes - 1}")
    with torch.inference_mode(mode=False), torch.enable_grad(), frozen(source), seeded(problem.seed, device):
        yield Posed(guarded, pixels, labels, classes)
    if guarded.not_finite:
        logger.warning(
            "%d gradients of the model were not finite and were taken as 0: is it masking?",
            guarded.not_finite,
        )


class IterateRecorder:
    """A gradient source that remembers, for each sample, the iterate with the least margin.

    On the twin, whose logits are the device's own, a negative margin *is* success.

    Args:
        model: From pixels to logits.
        pixels: float32 `(N, ...)`: the clean images.
        labels: int64 `(N,)`.
    """

    def __init__(self, model: GradientSource, pixels: Tensor, labels: Tensor) -> None:
        self._model = model
        self._labels = labels
        self._best = pixels.detach().clone()
        self._least = torch.full(labels.shape, torch.inf, device=labels.device)
        self._margins: list[Tensor] = []

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits of an iterate of the whole batch."""
        logits = self._model(pixels)
        margins = margins_of(logits.detach(), self._labels)
        self._margins.append(margins)
        better = margins < self._least
        self._least = torch.where(better, margins, self._least)
        self._best[better] = pixels.detach()[better]
        return logits

    def codes(self) -> NDArray[np.uint8]:
        """The best iterates, rounded to pixel codes."""
        return rounded(self._best)

    def margins(self) -> NDArray[np.float32]:
        """The margins of all iterates, `(iterates, N)`."""
        return _array(torch.stack(self._margins))


def margins_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Return `label's logit - largest other`, `(N,)`; negative where an image is misclassified."""
    index = labels[:, None]
    others = logits.scatter(1, index, -torch.inf)
    return logits.gather(1, index)[:, 0] - others.amax(1)


def rounded(pixels: Tensor) -> NDArray[np.uint8]:
    """Return pixels in [0, 1] as uint8 codes, rounded as the twin rounds them."""
    codes = torch.round((pixels.detach() * PIXEL_HIGH).clamp(0, PIXEL_HIGH))
    return np.asarray(codes.to(torch.uint8).cpu().numpy())


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global generators, which libraries draw from, and restore them afterwards."""
    on_gpu = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class _Guarded:
    """A gradient source of which nothing but the pixels gets a gradient, whatever is closed over."""

    def __init__(self, model: GradientSource) -> None:
        self.model = model
        self.not_finite = 0

    def __call__(self, pixels: Tensor) -> Tensor:
        logits: Tensor = _InputGradient.apply(pixels, self)  # type: ignore[no-untyped-call]
        return logits


class _InputGradient(torch.autograd.Function):
    """The model as one node of the graph, whose backward pass asks for the gradient of its input alone."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, guarded: _Guarded) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return guarded.model(pixels).detach()
        with torch.enable_grad():
            entry = pixels.detach().requires_grad_()
            logits = guarded.model(entry)
        if not logits.requires_grad:
            raise DataError(_NO_GRADIENT)
        ctx.graph, ctx.guarded = (entry, logits), guarded
        return logits.detach()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        entry, logits = ctx.graph
        # What an attack keeps of its iterates must not keep their graphs.
        ctx.graph = None
        (gradient,) = torch.autograd.grad(logits, entry, upstream, allow_unused=True)
        if gradient is None:
            raise DataError(_NO_GRADIENT)
        finite = torch.isfinite(gradient)
        if not finite.all():
            ctx.guarded.not_finite += int((~finite).sum())
            gradient = torch.where(finite, gradient, torch.zeros_like(gradient))
        return gradient, None


def _array(pixels: Tensor) -> NDArray[np.float32]:
    # cleverhans returns a tensor that still hangs on its graph.
    return np.asarray(pixels.detach().cpu().numpy(), np.float32)


def device_of(model: GradientSource) -> torch.device:
    """Where a model's parameters are; the processor for a function."""
    if isinstance(model, torch.nn.Module):
        for tensor in chain(model.parameters(), model.buffers()):
            return tensor.device
    return torch.device("cpu")


def known_classes(model: GradientSource, image: NDArray[np.uint8]) -> int:
    """Return how many logits a model gives one image, uint8 `(1, ...)`.

    Raises:
        DataError: What it returns is no row of logits.
    """
    pixels = torch.from_numpy(image).to(device_of(model)).float() / PIXEL_HIGH
    with torch.no_grad(), frozen(model):
        logits = model(pixels)
    if logits.ndim != 2 or len(logits) != 1:
        raise DataError(
            f"the model returned shape {tuple(logits.shape)} for one image; expected (1, classes)"
        )
    return int(logits.shape[1])


@contextmanager
def frozen(model: GradientSource) -> Iterator[None]:
    """Evaluation mode, and no parameter that wants a gradient, for as long as the context lasts."""
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
