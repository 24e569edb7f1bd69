"""Images whose accumulators meet rounding ties: where rint, round-half-away and a fused product part.

A product `f = float32(acc) * M` ties where its fractional part is exactly one half inside the clamp. With
multipliers that are powers of two every 2^n-th accumulator does. With any other, the float32 product has to round
to a half, which few accumulators do; where none of the tried images meets one, the nearest is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .accumulators import Probe, Site
    from .first_layer import FirstLayer

__all__ = ["TieResult", "search_ties", "tie_distances", "tie_sums"]

# Accumulators that one round of the search looks at, over all its images.
_ELEMENTS = 20_000_000
_IMAGES_PER_ROUND = (8, 128)
# Ties tried for one channel of the first layer.
_TIES_TRIED = 16


@dataclass(frozen=True)
class TieResult:
    """What the search found at one layer.

    Attributes:
        layer: The layer that requantises.
        possible: Whether any sum ties that its proved bounds, biases and common divisors allow.
        ties: How many accumulators of the image at `image` tie.
        nearest: Distance of the nearest product to a half, 0 where one ties; None where every product is clamped.
        image: Index of the image; None where there was no room for it.
    """

    layer: str
    possible: bool
    ties: int
    nearest: float | None
    image: int | None


class _Best(NamedTuple):
    """The best image for one layer: most ties, then the smallest distance."""

    ties: int
    nearest: float
    image: NDArray[np.uint8] | None

    def better(self, ties: int, nearest: float) -> bool:
        return self.image is None or (ties, -nearest) > (self.ties, -self.nearest)


def tie_distances(site: Site, accumulators: NDArray[np.int32]) -> NDArray[np.float32]:
    """How far each product is from the nearest half inside the clamp; infinite where it is clamped."""
    r = site.requantisation
    f = site.products(accumulators)
    inside = (f > np.float32(r.low - r.zero_point)) & (f < np.float32(r.high - r.zero_point))
    distance: NDArray[np.float32] = np.where(
        inside, np.abs(f - np.floor(f) - np.float32(0.5)), np.float32(np.inf)
    )
    return distance


def tie_sums(multiplier: np.float32, site: Site) -> NDArray[np.int64]:
    """Every sum (bias included) within the site's bounds whose product ties, near each half's quotient."""
    if multiplier == 0:
        return np.zeros(0, np.int64)
    r = site.requantisation
    halves = np.arange(r.low - r.zero_point, r.high - r.zero_point) + 0.5
    near = np.rint(halves / np.float64(multiplier))
    # Beyond int32 there is no sum, and int64 could not hold the quotient by a tiny multiplier.
    kept = np.abs(near) < 2**31
    candidates = np.unique(near[kept].astype(np.int64)[:, np.newaxis] + np.arange(-1, 2))
    candidates = candidates[(candidates >= site.low) & (candidates <= site.high)]
    f = candidates.astype(np.float32) * multiplier
    inside = (f > r.low - r.zero_point) & (f < r.high - r.zero_point)
    tied: NDArray[np.int64] = candidates[inside & (f - np.floor(f) == np.float32(0.5))]
    return tied


def _possible(site: Site) -> bool:
    """Whether a sum ties that the bounds allow, and that some channel's bias and multiples of the unit can make."""
    bias = np.zeros((), np.int32) if site.bias is None else site.bias
    multipliers, biases = np.broadcast_arrays(site.requantisation.multiplier, bias)
    pairs = set(zip(multipliers.reshape(-1).tolist(), (biases.reshape(-1) % site.unit).tolist(), strict=True))
    return any((tie_sums(np.float32(m), site) % site.unit == rest).any() for m, rest in pairs)


def search_ties(
    probe: Probe,
    seeds: NDArray[np.uint8],
    first: FirstLayer | None,
    rounds: int,
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], tuple[TieResult, ...]]:
    """Return one image for each layer that requantises, and what it meets there.

    The seeds are looked at, then images that make the first layer tie (they can be solved for), then in rounds
    images that change a few pixels of the best ones, until every layer that can tie does or the rounds are over.

    Args:
        probe: The program's accumulators.
        seeds: uint8 `(N, ...)`, at least one.
        first: The first layer as an affine map, if it is one.
        rounds: The most rounds.
        generator: Draws the changes.
    """
    if not probe.sites:
        return seeds[:0], ()
    batch = _images_per_round(probe, seeds)
    best = [_Best(0, float("inf"), None) for _ in probe.sites]
    possible = [_possible(site) for site in probe.sites]
    for start in range(0, min(len(seeds), 2 * batch), batch):
        _look(probe, seeds[start : start + batch], best)
    if first is not None and (solved := _solve_first(probe, first, generator)) is not None:
        _look(probe, solved, best)
    for _ in range(rounds):
        open_sites = [one.image for one, can in zip(best, possible, strict=True) if can and not one.ties]
        if not open_sites:
            break
        bases = [image for image in open_sites if image is not None] or [seeds[0]]
        _look(probe, _changed(bases, batch, generator), best)
    images = [one.image for one in best if one.image is not None]
    rows = tuple(
        TieResult(site.layer, can, one.ties, None if np.isinf(one.nearest) else float(one.nearest), index)
        for index, (site, can, one) in enumerate(zip(probe.sites, possible, best, strict=True))
    )
    return np.stack(images), rows


def _images_per_round(probe: Probe, seeds: NDArray[np.uint8]) -> int:
    """As many images as `_ELEMENTS` allows."""
    one = probe.accumulators(seeds[:1], dict.fromkeys(site.accumulator for site in probe.sites))
    elements = max(1, sum(array.size for array in one.values()))
    return int(np.clip(_ELEMENTS // elements, *_IMAGES_PER_ROUND))


def _look(probe: Probe, images: NDArray[np.uint8], best: list[_Best]) -> None:
    """Update the best image of each layer."""
    found = probe.accumulators(images, dict.fromkeys(site.accumulator for site in probe.sites))
    for index, site in enumerate(probe.sites):
        distances = tie_distances(site, found[site.accumulator]).reshape(len(images), -1)
        ties = np.count_nonzero(distances == 0, axis=1)
        nearest = distances.min(axis=1, initial=np.inf)
        # By ties, then by the smallest distance.
        chosen = int(np.lexsort((nearest, -ties))[0])
        if best[index].better(int(ties[chosen]), float(nearest[chosen])):
            best[index] = _Best(int(ties[chosen]), float(nearest[chosen]), images[chosen].copy())


def _changed(
    bases: Sequence[NDArray[np.uint8]], count: int, generator: np.random.Generator
) -> NDArray[np.uint8]:
    """Images that differ from the bases, taken in turn, in some pixels: a few of them or many."""
    images = np.stack([bases[index % len(bases)] for index in range(count)])
    flat = images.reshape(count, -1)
    shares = generator.choice([0.02, 0.2, 0.8], size=(count, 1))
    replaced = generator.random(flat.shape) < shares
    flat[replaced] = generator.integers(0, 256, np.count_nonzero(replaced))
    return images


def _solve_first(probe: Probe, first: FirstLayer, generator: np.random.Generator) -> NDArray[np.uint8] | None:
    """Images for which one accumulator of the first layer is a sum that ties; one for each channel at most."""
    site = next((site for site in probe.sites if site.accumulator == first.tensor), None)
    if site is None or site.bias is not None:
        return None
    r = site.requantisation
    channels = len(first.offset)
    shape = (channels, *[1] * (np.ndim(r.multiplier) - 1))
    if np.size(r.multiplier) not in (1, channels):
        return None
    multipliers = np.broadcast_to(r.multiplier, shape if np.ndim(r.multiplier) else (channels,)).reshape(
        channels
    )
    images = []
    for channel, multiplier in enumerate(multipliers):
        sums = tie_sums(multiplier, site)
        for total in generator.permutation(sums)[:_TIES_TRIED]:
            image = first.solve(channel, int(total), generator)
            if image is not None:
                images.append(image)
                break
    return np.stack(images) if images else None
