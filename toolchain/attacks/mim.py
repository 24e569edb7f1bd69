"""The momentum iterative method (Dong et al. 2018, arXiv:1710.06081); cleverhans's torch side lacks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .epsilon import PIXEL_HIGH
from .norms import ORDER
from .pgd import Descent
from .settings import check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Found, Problem
    from .gradient import Posed

__all__ = ["MIM"]

# A gradient of nothing but zeros stays one.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class MIM(Descent):
    """Steps along an accumulated gradient, from the clean image.

    With the cross-entropy `J` of image `x` and label `y`, decay `mu`, step `a` and the mean over a sample's pixels:

        g[0] = 0
        g[t + 1] = mu g[t] + grad J(x[t], y) / mean |grad J(x[t], y)|
        x[t + 1] = clip(x[t] + a sign(g[t + 1])), to the ball and to [0, 1]

    With norm "2" the step is `a g / |g|`. The paper divides by the sum where this divides by the mean, as cleverhans
    v2.1 did; the sign is the same.

    Attributes:
        decay: `mu`, of the accumulated gradient.
    """

    name: ClassVar[str] = "mim"
    random_start: ClassVar[bool] = False

    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.name, "decay", self.decay, zero=True)

    def run(self, problem: Problem) -> Found:
        """Return float32 pixels in [0, 1]."""
        import torch
        from cleverhans.torch.utils import clip_eta, optimize_linear
        from torch.nn.functional import cross_entropy

        from .gradient import attack_with

        radius, step = problem.radius / PIXEL_HIGH, self.used_step(problem.radius) / PIXEL_HIGH
        order = ORDER[self.norm]

        def algorithm(task: Posed) -> Tensor:
            x, accumulated = task.pixels, torch.zeros_like(task.pixels)
            axes = tuple(range(1, x.ndim))
            for _ in range(self.steps):
                entry = x.detach().requires_grad_()
                # The sum, so that no sample's gradient shrinks with the size of the batch.
                loss = cross_entropy(task.model(entry), task.labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, entry)
                scale = gradient.abs().mean(axes, keepdim=True).clamp_min(_SMALLEST)
                accumulated = self.decay * accumulated + gradient / scale
                moved = x + optimize_linear(accumulated, step, order)
                x = (task.pixels + clip_eta(moved - task.pixels, order, radius)).clamp(0.0, 1.0)
            return x

        return attack_with(problem, algorithm)
