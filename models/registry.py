"""Names of the architectures that commands and checkpoints refer to."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import RecipeError
from .cnn import MnistCnn
from .mobilenet import MobileNet
from .resnet import PreActResNet
from .vgg import Vgg

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

ZOO = Path(__file__).parent / "zoo"

_MOBILENET_V2 = (
    [(1, 16, 1)]
    + [(6, 24, 1)] * 2
    + [(6, 32, 2)] + [(6, 32, 1)] * 2
    + [(6, 64, 2)] + [(6, 64, 1)] * 3
    + [(6, 96, 1)] * 3
    + [(6, 160, 2)] + [(6, 160, 1)] * 2
    + [(6, 320, 1)]
)  # fmt: skip

MODELS: dict[str, Callable[[], nn.Module]] = {
    "mnist-cnn": MnistCnn,
    "mnist-resnet8": partial(PreActResNet, (8, 16, 32), 1, 10, 1),
    "mnist-vgg": partial(Vgg, ((8, 8), (16, 16)), 10, 1, 28),
    "mnist-mobilenet": partial(MobileNet, ((1, 8, 2), (4, 16, 2), (4, 16, 1)), 10, 1, stem=8, head=32),
    "cifar-resnet8": partial(PreActResNet, (16, 32, 64), 1, 10, 3),
    "cifar-wrn32": partial(PreActResNet, (160, 320, 640), 5, 10, 3, stem=16),
    "cifar-vgg11": partial(Vgg, ((64,), (128,), (256, 256), (512, 512), (512, 512)), 10, 3, 32),
    "cifar-mobilenet": partial(MobileNet, _MOBILENET_V2, 10, 3, stem=32, head=1280),
}


def build_model(name: str, seed: int = 0) -> nn.Module:
    """Return an untrained model of the registry; the same seed gives the same weights.

    Args:
        name: A key of `MODELS`.
        seed: Of the initial weights. The global generator is left as it was.

    Raises:
        RecipeError: There is no such model.
    """
    if name not in MODELS:
        raise RecipeError(f"model {name!r} is unknown, expected one of {', '.join(sorted(MODELS))}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MODELS[name]()


def matching_architecture(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first model of the registry that has tensors of just these names and shapes, or None."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, build in MODELS.items():
        with torch.device("meta"):
            state = build().state_dict()
        if shapes == {key: tuple(tensor.shape) for key, tensor in state.items()}:
            return name
    return None
