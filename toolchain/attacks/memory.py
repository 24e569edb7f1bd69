"""How many images an attack may take at a time, from what a gradient of one takes of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .base import GradientSource

__all__ = ["LARGEST_BATCH", "batch_size_for"]

LARGEST_BATCH = 512
"""Beyond it nothing gets faster."""

# Peak memory of PGD over what the graph holds, for each image, batches of 64 to 256: 2.2 for the float MNIST network,
# 2.5 for its twin; 2.4 and 4.7 for the eight-layer residual network. A twin rounds, and rounding keeps copies.
_PEAK = 5.0
_ONE, _MORE = 1, 3


def batch_size_for(source: GradientSource | None, image_shape: Sequence[int], budget_bytes: int) -> int:
    """Return how many images an attack may take at a time, 1 to `LARGEST_BATCH`.

    What the graph of a gradient holds is counted on black images, one and three of them: the difference is what an
    image takes, without the weights. An attack's peak is taken for five times that.

    Args:
        source: The gradient source; None for attacks without, whose images weigh little.
        image_shape: Of one image, `(C, H, W)`.
        budget_bytes: What the attack may take.

    Raises:
        DataError: The budget is not positive.
    """
    if budget_bytes < 1:
        raise DataError(f"budget_bytes: found {budget_bytes}; expected at least 1")
    if source is None:
        return LARGEST_BATCH
    few, many = (_held(source, (count, *image_shape)) for count in (_ONE, _MORE))
    for_one = max(1.0, _PEAK * (many - few) / (_MORE - _ONE))
    return int(min(LARGEST_BATCH, max(1, budget_bytes // for_one)))


def _held(source: GradientSource, shape: tuple[int, ...]) -> int:
    """Bytes of the tensors that the graph of a batch holds, each once."""
    import torch

    from .gradient import device_of, frozen

    held: dict[int, tuple[int, Tensor]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # The tensor is held too, so that no other takes its place in memory.
        held[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.inference_mode(mode=False), torch.enable_grad(), frozen(source):
        pixels = torch.zeros(shape, device=device_of(source), requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            source(pixels)
    return sum(size for size, _ in held.values())
