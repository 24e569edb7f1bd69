"""What a verification runs: real images, random ones, extremes, and images searched to hit ties and bounds."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError, RangeError, UnsupportedError
from .accumulators import Probe, pixel_shape
from .bounds import BoundResult, search_bounds, targets_of
from .first_layer import HIGH, first_layer
from .ties import TieResult, search_ties

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ..program import Program
    from ..twin import Twin

__all__ = ["KINDS", "Inputs", "extremes", "given_inputs", "make_inputs", "random_images"]

KINDS = ("real", "random", "extreme", "bound", "tie")

# Fewest and most rounds of looking for ties: with more images to find, more are worth it.
TIE_ROUNDS = (6, 24)
SEEDS = 48
# So many of each kind come first, in turn: slow witnesses run some ten images.
_IN_TURN = 2
# Of the images, at most this share is each of: extremes, bounds, ties.
_SPECIAL_SHARE = 8


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images, mixed so that the first ones of any number hold every kind.

    Attributes:
        images: uint8 `(N, ...)`.
        kinds: Of each image, one of `KINDS`, or "given".
        bounds, ties: What the searches found.
        search_seconds: How long they took.
        seed: Of what was drawn; None for a user's own images.
        notes: What was left out, and why.
    """

    images: NDArray[np.uint8]
    kinds: tuple[str, ...]
    bounds: tuple[BoundResult, ...] = ()
    ties: tuple[TieResult, ...] = ()
    search_seconds: float = 0.0
    seed: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many images of each kind."""
        return Counter(self.kinds)


def given_inputs(program: Program, images: NDArray[np.uint8]) -> Inputs:
    """A user's own images, in their order.

    Raises:
        DataError: They are not uint8 images of the program's shape, or none, or no multiple of a fixed batch.
    """
    images = _checked(np.asarray(images), pixel_shape(program))
    if program.batch is not None and len(images) % program.batch:
        raise DataError(
            f"the program takes batches of {program.batch}, and {len(images)} images are no multiple of it"
        )
    return Inputs(images, ("given",) * len(images))


def make_inputs(
    program: Program,
    count: int,
    real: NDArray[np.uint8] | None = None,
    *,
    seed: int = 0,
    twin: Callable[[], Twin] | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> Inputs:
    """Return `count` images: at most an eighth each of extremes, bounds and ties, the rest real and random.

    Args:
        program: What they are for.
        count: How many; rounded up to a multiple of a fixed batch.
        real: uint8 images of the program's shape; the first are taken. None: random ones take their place.
        seed: Of everything random.
        twin: Makes the twin, whose gradient drives deeper layers to their bounds; None, or a program that has none:
            the best of random images.
        progress: Told the step and the share that is done.

    Raises:
        DataError: The real images have another shape or type, or `count` is below 1.
        ModelError: The program does not take one batch of images.
    """
    if count < 1:
        raise DataError(f"found {count} images to make, expected at least 1")
    if program.batch:
        count = -(-count // program.batch) * program.batch
    generator = np.random.default_rng(seed)
    shape = pixel_shape(program)
    if real is not None:
        real = _checked(real, shape)
    special = count // _SPECIAL_SHARE
    nothing = np.empty((0, *shape), np.uint8)
    if not special:
        notes = (f"fewer than {_SPECIAL_SHARE} images: nothing was searched",)
        found = _Searched(nothing, (), nothing, (), 0.0, notes)
    else:
        found = _search(
            program, special, _seeds(real, shape, generator), twin, generator, progress or _silent
        )
    parts = {
        "extreme": extremes(shape)[:special],
        "bound": found.bound_images,
        "tie": found.tie_images,
    }
    rest = count - sum(map(len, parts.values()))
    parts["real"] = nothing if real is None else real[: rest - rest // 3]
    parts["random"] = random_images(shape, rest - len(parts["real"]), generator)
    images, kinds, places = _mixed(parts)
    return Inputs(
        images,
        kinds,
        tuple(replace(row, image=places["bound"][row.image]) for row in found.bounds),
        tuple(
            row if row.image is None else replace(row, image=places["tie"][row.image]) for row in found.ties
        ),
        found.seconds,
        seed,
        found.notes,
    )


@dataclass(frozen=True, eq=False)
class _Searched:
    bound_images: NDArray[np.uint8]
    bounds: tuple[BoundResult, ...]
    tie_images: NDArray[np.uint8]
    ties: tuple[TieResult, ...]
    seconds: float
    notes: tuple[str, ...]


def _search(
    program: Program,
    most: int,
    seeds: NDArray[np.uint8],
    twin: Callable[[], Twin] | None,
    generator: np.random.Generator,
    progress: Callable[[str, float], None],
) -> _Searched:
    """At most `most` images towards bounds, and as many towards ties."""
    start = time.perf_counter()
    notes = []
    progress("looking for bounds", 0.0)
    probe = Probe(program)
    first = first_layer(probe, generator)
    if first is None:
        notes.append(
            "the first layer with weights was not read off the pixels; it is searched like the others"
        )
    made = None
    try:
        made = None if twin is None else twin()
    except (UnsupportedError, RangeError) as refusal:
        notes.append(f"bounds of deeper layers were not climbed to, only sampled: {refusal}")
    targets = targets_of(probe, most)
    bound_images, bounds = search_bounds(probe, targets, made, first, seeds, generator)
    progress("looking for ties", 0.6)
    tie_images, ties = search_ties(probe, seeds, first, int(np.clip(most // 4, *TIE_ROUNDS)), generator)
    # Where there is no room for all, layers that tie come first, and of these the early ones.
    kept = sorted(range(len(ties)), key=lambda index: (not ties[index].ties, index))[:most]
    tie_images = tie_images[kept]
    ties = tuple(replace(row, image=kept.index(i) if i in kept else None) for i, row in enumerate(ties))
    progress("looking for ties", 1.0)
    return _Searched(bound_images, bounds, tie_images, ties, time.perf_counter() - start, tuple(notes))


def _silent(step: str, fraction: float) -> None:
    del step, fraction


def _checked(images: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        expected = ", ".join(map(str, shape))
        raise DataError(
            f"found images {images.dtype}{list(images.shape)}, expected uint8[N, {expected}] with N above 0"
        )
    return np.ascontiguousarray(images)


def extremes(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """All 0, all 255, checkerboards, stripes, single bright and dark pixels, and a ramp, uint8 `(12, ...)`."""
    index = np.indices(shape)
    space = index[1:].sum(axis=0) if len(shape) > 1 else index[0]
    centre, corner = tuple(d // 2 for d in shape), tuple(0 for _ in shape)
    dark = np.zeros(shape, np.uint8)
    bright = np.full(shape, HIGH, np.uint8)
    spots = []
    for background, value in ((dark, HIGH), (bright, 0)):
        for place in (centre, corner):
            spot = background.copy()
            spot[place] = value
            spots.append(spot)
    made = [
        dark,
        bright,
        np.where(space % 2, HIGH, 0),
        np.where(space % 2, 0, HIGH),
        np.where(index[-1] % 2, HIGH, 0),
        np.where(index[-2 if len(shape) > 1 else -1] % 2, HIGH, 0),
        np.where(space % 2, 127, 128),
        np.arange(np.prod(shape)).reshape(shape) % (HIGH + 1),
        *spots,
    ]
    return np.stack([image.astype(np.uint8) for image in made])


def random_images(shape: tuple[int, ...], count: int, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Random images in turn of any codes, of 0 and 255 alone, dark but for a few pixels, and with little contrast."""
    images = generator.integers(0, HIGH, (count, *shape), np.uint8, endpoint=True)
    images[1::4] = np.where(images[1::4] < 128, 0, HIGH)
    images[2::4] = np.where(generator.random(images[2::4].shape) < 0.1, images[2::4], 0)
    images[3::4] = 96 + images[3::4] // 8
    return images


def _seeds(
    real: NDArray[np.uint8] | None, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.uint8]:
    """What the searches start from."""
    made = random_images(shape, SEEDS, generator)
    return made if real is None else np.concatenate([real[: SEEDS // 2], made[: SEEDS // 2]])


def _mixed(
    parts: Mapping[str, NDArray[np.uint8]],
) -> tuple[NDArray[np.uint8], tuple[str, ...], dict[str, list[int]]]:
    """All images: the first of each kind in turn, then every kind spread evenly; and where those of each kind went."""

    def key(kind: str, i: int) -> tuple[float, int, int]:
        if i < _IN_TURN:
            return (i - _IN_TURN, KINDS.index(kind), i)
        rest = len(parts[kind]) - _IN_TURN
        return ((i - _IN_TURN + 0.5) / rest, KINDS.index(kind), i)

    order = sorted(key(kind, i) for kind, images in parts.items() for i in range(len(images)))
    places: dict[str, list[int]] = {kind: [0] * len(images) for kind, images in parts.items()}
    for new, (_, kind, old) in enumerate(order):
        places[KINDS[kind]][old] = new
    mixed = np.stack([parts[KINDS[kind]][old] for _, kind, old in order])
    return mixed, tuple(KINDS[kind] for _, kind, _ in order), places
