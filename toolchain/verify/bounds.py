"""Images that drive accumulators towards the bounds that were proved of them.

The first layer reaches its bounds by construction (`first_layer`). Deeper layers see only what the layers before
them let through: there the twin's gradient climbs, image by image, in steps of the gradient's sign that halve.
How close it came is reported; a bound that is not reached is still a bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program import Conv, Dense, WeightedSum
from .accumulators import multiply_accumulates
from .first_layer import HIGH, centre_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..program import Layer, Program
    from ..twin import Twin
    from .accumulators import Probe
    from .first_layer import FirstLayer

__all__ = ["BoundResult", "Target", "search_bounds", "targets_of"]

# Multiply-accumulates that the ascent may cost: some 10 s of one core. A step backwards costs two forwards.
_BUDGET = 200_000_000_000
_STEPS = (4, 24)
# Images whose gradients are in memory at once.
_CLIMBING = 16
# Share of the pixels that stay in a step.
_RESTING = 0.3


@dataclass(frozen=True)
class Target:
    """One accumulator and one end of its range.

    Attributes:
        layer: The layer that sums.
        tensor: Its accumulators in the program that shows them all.
        place: Index in one sample.
        greatest: Whether the greatest or the least value is wanted.
        bound: What was proved of that end, bias included.
    """

    layer: str
    tensor: str
    place: tuple[int, ...]
    greatest: bool
    bound: int


@dataclass(frozen=True)
class BoundResult:
    """How close one accumulator came.

    Attributes:
        layer, channel, end: Which ("greatest" or "least").
        bound: The proved end.
        reached: What the emulator computed on the image.
        image: Index among the images that were found.
    """

    layer: str
    channel: int
    end: str
    bound: int
    reached: int
    image: int

    @property
    def share(self) -> float:
        """`reached / bound`; 1 where the bound is 0 and was reached."""
        if not self.bound:
            return 1.0 if not self.reached else 0.0
        return self.reached / self.bound


def targets_of(probe: Probe, most: int) -> tuple[Target, ...]:
    """Both ends of the widest channel of each layer that sums, in the middle of its map; at most `most`, spread."""
    found: list[Target] = []
    for layer in probe.program.layers:
        proved = probe.ranges.get(layer.name)
        if not isinstance(layer, Conv | Dense | WeightedSum) or proved is None:
            continue
        channel = 0 if isinstance(layer, WeightedSum) else proved.worst_channel
        place = _place(probe.program, layer, channel)
        if place is None:
            continue
        # The proof holds with and without the bias; an accumulator always has it.
        bias = 0 if isinstance(layer, WeightedSum) or layer.bias is None else int(layer.bias[channel])
        high = int(proved.high[channel]) + min(bias, 0)
        low = int(proved.low[channel]) + max(bias, 0)
        found.append(Target(layer.name, layer.output, place, True, high))
        found.append(Target(layer.name, layer.output, place, False, low))
    if len(found) <= most:
        return tuple(found)
    return tuple(found[i] for i in np.unique(np.linspace(0, len(found) - 1, most).astype(int)))


def _place(program: Program, layer: Layer, channel: int) -> tuple[int, ...] | None:
    """The index of a channel's accumulator in one sample; None where the shape is not known."""
    shape = (program.tensors[layer.output].shape or ())[1:]
    if not shape or None in shape:
        return None
    if isinstance(layer, Dense):  # its channels lie on the last axis
        return (*((d or 1) // 2 for d in shape[:-1]), channel)
    return (channel, *centre_of(program, layer.output))


def search_bounds(
    probe: Probe,
    targets: Sequence[Target],
    twin: Twin | None,
    first: FirstLayer | None,
    seeds: NDArray[np.uint8],
    generator: np.random.Generator,
) -> tuple[NDArray[np.uint8], tuple[BoundResult, ...]]:
    """Return one image for each target, and how close it came.

    Args:
        probe: The program's accumulators; they are what is reported.
        targets: What to drive where.
        twin: Gives gradients; None leaves deeper layers at the best of the seeds.
        first: The first layer as an affine map, if it is one.
        seeds: uint8 images to start from, at least one.
        generator: Draws new starts where a gradient is zero.
    """
    if not targets:
        return seeds[:0], ()
    images = _best_seeds(probe, targets, seeds)
    climbing = []
    for index, target in enumerate(targets):
        if first is not None and target.layer == first.layer:
            images[index] = first.extreme(_channel(probe, target), greatest=target.greatest)
        else:
            climbing.append(index)
    if twin is not None and climbing:
        work = 3 * len(climbing) * max(1, multiply_accumulates(twin.program))
        steps = int(np.clip(_BUDGET // work, *_STEPS))
        for start in range(0, len(climbing), _CLIMBING):
            some = climbing[start : start + _CLIMBING]
            images[some] = _climb(twin, [targets[i] for i in some], images[some], steps, generator)
    return images, _judged(probe, targets, images)


def _channel(probe: Probe, target: Target) -> int:
    layer = probe.program.producers[target.tensor]
    return target.place[-1] if isinstance(layer, Dense) else target.place[0]


def _best_seeds(probe: Probe, targets: Sequence[Target], seeds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """For each target the seed that comes closest."""
    chosen, values = np.zeros(len(targets), int), np.full(len(targets), -np.inf)
    for start, found in probe.pieces(seeds, (target.tensor for target in targets)):
        for index, target in enumerate(targets):
            here = np.array([sample[target.place] for sample in found[target.tensor]], np.float64)
            here = here if target.greatest else -here
            if here.max() > values[index]:
                chosen[index], values[index] = start + int(here.argmax()), here.max()
    return seeds[chosen]


def _judged(probe: Probe, targets: Sequence[Target], images: NDArray[np.uint8]) -> tuple[BoundResult, ...]:
    reached: list[int] = []
    for start, found in probe.pieces(images, (target.tensor for target in targets)):
        here = targets[start : start + len(found[targets[0].tensor])]
        reached += [int(found[target.tensor][(index, *target.place)]) for index, target in enumerate(here)]
    return tuple(
        BoundResult(
            layer=target.layer,
            channel=_channel(probe, target),
            end="greatest" if target.greatest else "least",
            bound=target.bound,
            reached=reached[index],
            image=index,
        )
        for index, target in enumerate(targets)
    )


def _climb(
    twin: Twin,
    targets: Sequence[Target],
    start: NDArray[np.uint8],
    steps: int,
    generator: np.random.Generator,
) -> NDArray[np.uint8]:
    """Follow the sign of each image's own gradient, in pixel codes; return the best codes seen."""
    import torch

    stages: dict[str, Any] = {stage.layer.name: stage for stage in map(_stage, twin.stages)}
    signs = np.array([1 if target.greatest else -1 for target in targets])
    codes, best = start.copy(), start.copy()
    value, slope = np.full(len(targets), -np.inf), np.zeros(start.shape, np.float32)
    size = np.full(len(targets), HIGH)
    for _ in range(steps):
        pixels = (torch.from_numpy(codes).to(torch.float32) / HIGH).requires_grad_()
        trace = twin.trace(pixels)
        found = [_element(stages, trace, target, index) for index, target in enumerate(targets)]
        total = torch.stack([element * int(sign) for element, sign in zip(found, signs, strict=True)])
        if total.requires_grad:
            # Each image has a target of its own: the sum's gradient is that of every one of them.
            total.sum().backward()  # type: ignore[no-untyped-call]
        gradient = np.zeros(codes.shape, np.float32) if pixels.grad is None else pixels.grad.numpy()
        better = total.detach().numpy() > value
        best[better], value[better] = codes[better], total.detach().numpy()[better]
        slope[better] = gradient[better]
        size = np.where(better, size, np.maximum(size // 2, 1))
        step = np.sign(slope) * size.reshape(-1, *[1] * (codes.ndim - 1))
        # Where nothing is left to climb, a step aside.
        flat = ~np.abs(slope).reshape(len(codes), -1).any(axis=1)
        step[flat] = generator.integers(-HIGH, HIGH, step[flat].shape, endpoint=True)
        # Not every pixel moves: the sign tells nothing of how they act together.
        step[generator.random(step.shape) < _RESTING] = 0
        codes = np.clip(best + step.astype(np.int64), 0, HIGH).astype(np.uint8)
    return best


def _element(stages: dict[str, Any], trace: dict[str, Any], target: Target, index: int) -> Any:
    """A target's accumulator on the image of that index, with its gradient; 0 where the logits do not need it."""
    import torch

    stage = stages.get(target.layer)
    if stage is None:
        return torch.zeros((), dtype=torch.float64)
    if isinstance(stage.layer, WeightedSum):
        return trace[stage.layer.output][(index, *target.place)].to(torch.float64)
    # The twin's own trace holds codes; the sums before them are computed once more, of this image alone.
    sums = stage.accumulate(trace[stage.layer.input][index : index + 1])
    return sums[(0, *target.place)].to(torch.float64)


def _stage(module: Any) -> Any:
    """A member of `Twin.stages`, which a `ModuleList` types as any module."""
    return module
