"""Projected gradient descent that looks for a usable gradient: what an attacker does who suspects masking.

Large logits saturate the softmax, and the cross-entropy loses its gradient long before the model is robust (Carlini
and Wagner 2017, arXiv:1608.04644, section VII; Athalye et al. 2018, arXiv:1802.00420). Losses that do not change with
the logits' scale, or the cross-entropy of logits divided by a temperature, get it back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from ...errors import RecipeError
from .base import Attack, Found, Problem
from .epsilon import PIXEL_HIGH, project
from .norms import ORDER
from .protocols import predicted
from .settings import check_count, check_positive

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from .epsilon import Norm
    from .gradient import Posed

    LossFunction = Callable[[Tensor, Tensor], Tensor]

__all__ = ["AdaptivePGD"]

Loss = Literal["cross-entropy", "margin", "dlr"]

# At this probability of the label the cross-entropy still has a tenth of its largest gradient.
_USABLE = 0.9
# Powers of two, up to logits that float32 can barely tell apart.
_LARGEST_TEMPERATURE = 2.0**40
_SMALLEST = 1e-12
# A step starts at half the ball's width and falls to almost nothing along a cosine.
_FIRST_STEP = 1.0
_MOMENTUM = 0.75


@dataclass(frozen=True)
class AdaptivePGD(Attack):
    """Descents with momentum from several starts, on a loss whose gradient does not vanish; each image's best is kept.

    The loss of each sample, of logits `Z`, label `y` and temperature `T`:

        cross-entropy   -log softmax(Z / T)[y]
        margin          max over i != y of Z[i] - Z[y]
        dlr             (max over i != y of Z[i] - Z[y]) / (Z[1st] - Z[3rd])        (Croce and Hein 2020, eq. 6)

    With temperature "search", `T` is for each sample and step the least power of two, 1 or more, at which the label's
    probability is at most 0.9. The first start is the clean image, the others are random. After each descent the judge
    decides which images still stand; the others are done.

    Of 60 digits within 25 codes on the twin of the plain MNIST network, two descents of 50 steps left 30 % with the
    cross-entropy and 43 % with either other loss, whose gradients know two or three classes.

    Attributes:
        loss: "cross-entropy", "margin" or "dlr" (which needs three classes; the margin takes its place for fewer).
        temperature: The divisor of the logits for the cross-entropy, or "search".
        steps: Of a descent.
        restarts: Descents, at most.
    """

    name: ClassVar[str] = "adaptive-pgd"
    norms: ClassVar[tuple[Norm, ...]] = ("inf", "2")

    loss: Loss = "cross-entropy"
    temperature: float | Literal["search"] = "search"
    steps: int = 100
    restarts: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count(self.name, "steps", self.steps)
        check_count(self.name, "restarts", self.restarts)
        if self.loss not in get_args(Loss):
            raise RecipeError(
                f"{self.name}: loss is {self.loss!r}; expected one of {', '.join(get_args(Loss))}"
            )
        if self.temperature != "search":
            check_positive(self.name, "temperature", self.temperature, 'number, or "search"')

    def run(self, problem: Problem) -> Found:
        """Return codes: each image's best iterate by the judge, or by the source where the judge finds none."""
        import torch

        from .gradient import IterateRecorder, Posed, posed

        count = len(problem.images)
        best, least = problem.images.copy(), np.full(count, np.inf, np.float32)
        rows: list[NDArray[np.float32]] = []
        left = np.arange(count)
        with posed(problem) as task:
            for restart in range(self.restarts):
                index = torch.from_numpy(left).to(task.pixels.device)
                part = Posed(task.model, task.pixels[index], task.labels[index], task.classes)
                recorder = IterateRecorder(part.model, part.pixels, part.labels)
                last = self._descend(recorder, part, problem.radius, start_random=restart > 0)
                margins = recorder.margins()
                rows.append(_spread(margins, left, rows[-1][-1] if rows else np.full(count, np.nan)))
                codes = recorder.codes()
                standing = np.ones(len(left), np.bool_)
                for candidate in (codes, last):
                    inside = project(candidate, problem.images[left], problem.radius, self.norm)
                    wrong = predicted(problem.judge, inside, len(left)) != problem.labels[left]
                    taken = standing & wrong
                    best[left[taken]] = inside[taken]
                    standing &= ~wrong
                nearer = standing & (margins.min(axis=0) < least[left])
                best[left[nearer]], least[left[nearer]] = codes[nearer], margins.min(axis=0)[nearer]
                left = left[standing]
                if not len(left):
                    break
        return Found(best, margins=np.concatenate(rows))

    def _descend(
        self, model: Callable[[Tensor], Tensor], task: Posed, radius_codes: float, *, start_random: bool
    ) -> NDArray[np.uint8]:
        import torch
        from cleverhans.torch.utils import clip_eta

        from .gradient import rounded

        radius, order = radius_codes / PIXEL_HIGH, ORDER[self.norm]
        clean = task.pixels
        loss = self._loss(task.classes)

        def inside(pixels: Tensor) -> Tensor:
            change: Tensor = clip_eta(pixels - clean, order, radius)
            return (clean + change).clamp(0.0, 1.0)

        x = inside(_random_start(clean, radius, self.norm)) if start_random else clean
        before = x
        for step in range(self.steps):
            entry = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(loss(model(entry), task.labels).sum(), entry)
            length = _FIRST_STEP * radius * (1 + math.cos(math.pi * step / self.steps)) / 2
            moved = inside(x + length * self._direction(gradient))
            if step:
                # Heavy ball, as in APGD: three quarters of the new step, a quarter of the last.
                moved = inside(x + _MOMENTUM * (moved - x) + (1 - _MOMENTUM) * (x - before))
            before, x = x, moved.detach()
        with torch.no_grad():
            model(x)
        return rounded(x)

    def _direction(self, gradient: Tensor) -> Tensor:
        if self.norm == "inf":
            return gradient.sign()
        # Scaled first: squares of small gradients underflow.
        axes = tuple(range(1, gradient.ndim))
        gradient = gradient / gradient.abs().amax(axes, keepdim=True).clamp_min(_SMALLEST**3)
        return gradient / gradient.square().sum(axes, keepdim=True).sqrt().clamp_min(_SMALLEST)

    def _loss(self, classes: int) -> LossFunction:
        if self.loss == "cross-entropy":
            return self._cross_entropy
        return _dlr if self.loss == "dlr" and classes >= 3 else _margin

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        from torch.nn.functional import cross_entropy

        temperature = (
            _usable_temperature(logits.detach(), labels)[:, None]
            if self.temperature == "search"
            else self.temperature
        )
        return cross_entropy(logits / temperature, labels, reduction="none")


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    from .gradient import margins_of

    return -margins_of(logits, labels)


def _dlr(logits: Tensor, labels: Tensor) -> Tensor:
    top = logits.topk(3, dim=1).values
    return _margin(logits, labels) / (top[:, 0] - top[:, 2] + _SMALLEST)


def _usable_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    """Return for each sample the least power of two at which the label's probability is at most 0.9, `(N,)`."""
    import torch

    temperature = torch.ones(len(logits), device=logits.device)
    while True:
        likely = torch.softmax(logits / temperature[:, None], 1).gather(1, labels[:, None])[:, 0] > _USABLE
        likely &= temperature < _LARGEST_TEMPERATURE
        if not likely.any():
            return temperature
        temperature = torch.where(likely, temperature * 2, temperature)


def _random_start(clean: Tensor, radius: float, norm: Norm) -> Tensor:
    import torch

    if norm == "inf":
        return clean + torch.empty_like(clean).uniform_(-radius, radius)
    noise = torch.randn_like(clean)
    axes = tuple(range(1, clean.ndim))
    return clean + radius * noise / noise.square().sum(axes, keepdim=True).sqrt()


def _spread(
    margins: NDArray[np.float32], columns: NDArray[np.intp], last: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The margins of all samples: those that were done stay where they ended."""
    whole = np.repeat(last[None].astype(np.float32), len(margins), axis=0)
    whole[:, columns] = margins
    return whole
