"""Several processes that train one network, started by `torchrun`: gradients are averaged over gloo.

Every process holds the whole network and draws the same batches; each computes the gradient of its own share,
one all-reduce adds the shares up. `DistributedDataParallel` does the same for a network that is run forward
once a step; an attack in the loop runs it many times, and needs no sums on the way.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

__all__ = ["Processes", "joined_processes"]

_STARTED_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0; number 0 writes files and shows progress.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, chosen: Tensor) -> Tensor:
        """Return this process's part of a batch; the first has the largest."""
        return chosen[self.rank :: self.count]

    def average(self, module: nn.Module, weight: float) -> None:
        """Replace each gradient by the sum over processes of `weight` times theirs.

        Args:
            module: Whose gradients; parameters that this process's share did not reach count as zero.
            weight: This process's share of the batch; all of them sum to 1.
        """
        if self.count == 1:
            return
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        parts = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * weight
            for parameter in parameters
        ]
        flat = torch.cat([part.reshape(-1) for part in parts])
        distributed.all_reduce(flat)
        for parameter, part in zip(
            parameters, torch.split(flat, [p.numel() for p in parameters]), strict=True
        ):
            parameter.grad = part.reshape(parameter.shape).clone(memory_format=torch.preserve_format)

    def agree(self, module: nn.Module) -> None:
        """Give every process the first one's buffers: batch norms saw different images."""
        if self.count == 1:
            return
        for buffer in module.buffers():
            distributed.broadcast(buffer, src=0)

    def sum(self, value: float) -> float:
        """Return the sum of a number over all processes."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total)

    def wait(self) -> None:
        """Go on when every process is here: a file that the first one writes is then there."""
        if self.count > 1:
            distributed.barrier()


@contextlib.contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the processes that `torchrun` started, for the block; without it, yield one process alone."""
    if not all(name in os.environ for name in _STARTED_BY_TORCHRUN):
        yield Processes()
        return
    distributed.init_process_group("gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
