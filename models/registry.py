"""Names of the architectures that commands and checkpoints refer to."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import RecipeError
from .cnn import MnistCnn
from .mobilenet import MobileNet
from .quantised import Quantised
from .resnet import PreActResNet
from .vgg import Vgg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

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

_WIDEST_STAGE = 64


def _wide_resnet32(width: int) -> Callable[[], nn.Module]:
    """Wide ResNet of depth 6 n + 2 with n = 5: Zagoruyko and Komodakis (2016), Table 1."""
    return partial(PreActResNet, (16 * width, 32 * width, _WIDEST_STAGE * width), 5, 10, 3, stem=16)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mnist-cnn": MnistCnn,
    "mnist-resnet8": partial(PreActResNet, (8, 16, 32), 1, 10, 1),
    "mnist-vgg": partial(Vgg, ((8, 8), (16, 16)), 10, 1, 28),
    "mnist-mobilenet": partial(MobileNet, ((1, 8, 2), (4, 16, 2), (4, 16, 1)), 10, 1, stem=8, head=32),
    "cifar-resnet8": partial(PreActResNet, (16, 32, 64), 1, 10, 3),
    "cifar-wrn32": _wide_resnet32(10),
    "cifar-vgg11": partial(Vgg, ((64,), (128,), (256, 256), (512, 512), (512, 512)), 10, 3, 32),
    "cifar-mobilenet": partial(MobileNet, _MOBILENET_V2, 10, 3, stem=32, head=1280),
}


_WIDE = re.compile(r"cifar-wrn32-([1-9]\d?)")
_INTEGER = re.compile(r"(.+)-w([2-8])")


def model_names() -> tuple[str, ...]:
    """Return the names of the registry and how those of its families are made."""
    return (*sorted(MODELS), "cifar-wrn32-WIDTH", "MODEL-wBITS")


def find_model(name: str) -> Callable[[], nn.Module] | None:
    """Return what builds a model, or None where there is none of that name.

    Besides the keys of `MODELS`: "cifar-wrn32-4" is the wide ResNet-32 of width 4 (1 to 99), and "mnist-cnn-w3"
    the integer network (`quantised.Quantised`) of "mnist-cnn" with weights of 3 bits (2 to 8).
    """
    if name in MODELS:
        return MODELS[name]
    if (wide := _WIDE.fullmatch(name)) is not None:
        return _wide_resnet32(int(wide[1]))
    if (integer := _INTEGER.fullmatch(name)) is not None and (build := find_model(integer[1])) is not None:
        return lambda: Quantised(build(), int(integer[2]))
    return None


def build_model(name: str, seed: int = 0) -> nn.Module:
    """Return an untrained model of the registry; the same seed gives the same weights.

    Args:
        name: See `find_model`.
        seed: Of the initial weights. The global generator is left as it was.

    Raises:
        RecipeError: There is no such model.
    """
    build = find_model(name)
    if build is None:
        raise RecipeError(f"model {name!r} is unknown, expected one of {', '.join(model_names())}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def matching_architecture(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first model of the registry that has tensors of just these names and shapes, or None."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in _candidates(tensors):
        build = find_model(name)
        if build is None:
            continue
        with torch.device("meta"):
            state = build().state_dict()
        if shapes == {key: tuple(tensor.shape) for key, tensor in state.items()}:
            return name
    return None


def _candidates(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Names that tensors may belong to: those of a family only where the tensors tell which member."""
    if "bits" in tensors:
        yield from (f"{name}-w{int(tensors['bits'])}" for name in MODELS if _names_of(name) <= set(tensors))
        return
    yield from MODELS
    if "fc.weight" in tensors and tensors["fc.weight"].ndim == 2:
        yield f"cifar-wrn32-{tensors['fc.weight'].shape[1] // _WIDEST_STAGE}"


def _names_of(name: str) -> set[str]:
    with torch.device("meta"):
        return set(MODELS[name]().state_dict())
