"""Distances to the decision boundary, by bisection along directions, and what they say of pairs of classes.

For a correctly classified image x of class y and a direction d with max|d| = 1 the distance is

    r = min { t in [0, bound] : class of clip(x + t d, 0, 1) is not y }

found by bisection between 0 and `bound`, as Ding et al., "MMA Training: Direct Input Space Margin Maximization
through Adversarial Training" (2020), bisect along the direction of an attack. Where the class at `bound` is still
y, the distance is taken as `bound`. (The class may change more than once on the way; one change is found.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

    Logits = Callable[[Tensor], Tensor]

__all__ = ["Crossings", "class_directions", "crossings", "pair_margins", "quotas", "random_directions"]


@dataclass(frozen=True, eq=False)
class Crossings:
    """Where segments from images meet the boundary; M segments.

    Attributes:
        start: (M,) int64, which image a segment starts from.
        label: (M,) int64, that image's class y.
        other: (M,) int64, the class on the far side; where the boundary was not met, the class that the direction
            aims at, or y for a direction without aim.
        distance: (M,) float32, r, at most the bound.
        crossed: (M,) bool, whether the boundary was met.
        direction: (M, C, H, W) int8, d, of -1, 0 and 1.
    """

    start: Tensor
    label: Tensor
    other: Tensor
    distance: Tensor
    crossed: Tensor
    direction: Tensor

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def joined(cls, parts: list[Crossings]) -> Crossings:
        """Return the segments of all parts, in order."""
        return cls(
            *(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__),
        )


def class_directions(
    logits_of: Logits, pixels: Tensor, labels: Tensor, count: int
) -> list[tuple[Tensor, Tensor]]:
    """Return the steepest directions toward the `count` classes that are nearest by logit.

        d = sgn(grad over x of (z_j - z_y)),  j the class of the k-th largest other logit

    Args:
        logits_of: Maps pixels to float32 logits (N, classes).
        pixels: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64, y.
        count: How many classes, at most classes - 1.

    Returns:
        `count` pairs: d (N, C, H, W) int8, and the classes aimed at, (N,).
    """
    pixels = pixels.detach().requires_grad_()
    logits = logits_of(pixels)
    own = logits.gather(1, labels[:, None])
    others = logits.detach().scatter(1, labels[:, None], -torch.inf)
    found = []
    for rank in range(count):
        aims = others.topk(rank + 1).indices[:, rank]
        difference = (logits.gather(1, aims[:, None]) - own).sum()
        (gradient,) = torch.autograd.grad(difference, pixels, retain_graph=rank + 1 < count)
        found.append((gradient.sign().to(torch.int8), aims))
    return found


def random_directions(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Return random corners of the cube, int8 of -1 and 1."""
    return torch.randint(0, 2, shape, generator=generator, dtype=torch.int8) * 2 - 1


@torch.no_grad()
def crossings(
    logits_of: Logits,
    pixels: Tensor,
    labels: Tensor,
    direction: Tensor,
    aims: Tensor | None,
    *,
    bound: float,
    bisections: int,
) -> Crossings:
    """Find where each image's segment meets the boundary.

    Args:
        logits_of: Maps pixels to float32 logits.
        pixels: (N, C, H, W), each classified as its label.
        labels: (N,) int64.
        direction: (N, C, H, W) int8.
        aims: (N,) classes that the directions aim at, or None.
        bound: Largest distance, in pixels of [0, 1].
        bisections: Halvings; the distance found is at most `bound / 2**bisections` too large.
    """

    def classes(distance: Tensor) -> Tensor:
        points = (pixels + distance[:, None, None, None] * direction).clamp_(0, 1)
        return logits_of(points).argmax(1)

    low, high = torch.zeros(len(pixels)), torch.full((len(pixels),), bound)
    other = classes(high)
    crossed = other != labels
    for _ in range(bisections):
        middle = (low + high) / 2
        found = classes(middle)
        beyond = (found != labels) & crossed
        other = torch.where(beyond, found, other)
        high = torch.where(beyond, middle, high)
        low = torch.where(beyond | ~crossed, low, middle)
    other = other if aims is None else torch.where(crossed, other, aims)
    return Crossings(torch.arange(len(pixels)), labels, other, high, crossed, direction)


def pair_margins(found: Crossings, classes: int, bound: float) -> Tensor:
    """Return the mean distance for each pair (class y, class on the far side); `bound` where none was measured.

    Returns:
        (classes, classes) float64; the diagonal means nothing and holds `bound`.
    """
    pair = found.label * classes + found.other
    total = torch.zeros(classes * classes, dtype=torch.float64).index_add_(0, pair, found.distance.double())
    count = torch.bincount(pair, minlength=classes * classes)
    margins = torch.where(count > 0, total / count.clamp(min=1), bound).reshape(classes, classes)
    return margins.fill_diagonal_(bound)


def quotas(margins: Tensor, available: Tensor, total: int) -> Tensor:
    """Return how many new samples each pair of classes gets: in inverse proportion to its margin.

    Args:
        margins: (classes, classes), from `pair_margins`.
        available: (classes, classes) bool, pairs of which there are segments to place samples on.
        total: Of all pairs; rounded by largest remainders, ties to the lower pair.

    Returns:
        (classes, classes) int64 that sums to `total`; 0 on the diagonal and where nothing is available.
    """
    weight = torch.where(available, 1 / margins.clamp(min=1e-6), 0.0).fill_diagonal_(0.0).reshape(-1)
    if not bool(weight.any()):
        return torch.zeros_like(margins, dtype=torch.int64)
    exact = total * weight / weight.sum()
    quota = exact.floor().long()
    rest = total - int(quota.sum())
    largest = torch.argsort(exact - quota, descending=True, stable=True)[:rest]
    quota[largest] += 1
    return quota.reshape(margins.shape)
