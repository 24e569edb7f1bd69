"""Trainable quantisers: weights and activations that are codes going forward and real numbers going back.

Rounding passes its gradient as if it were not there ("straight-through": Bengio, Leonard, Courville, 2013).
A step is learned as in Esser et al., "Learned Step Size Quantization" (2020):

    q = clip(rint(W / step), -L, L)        W ~ step q,  L = 2**(b-1) - 1
    d(step q) / d step = q - W / step inside the clip, q outside

which is what the chain rule gives when `rint` passes gradients. A learned quantity is its first value times a
factor that starts at 1, so that one learning rate suits steps of any size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .checks import require_integer

__all__ = [
    "FakeQuantise",
    "Learned",
    "best_step",
    "outermost_code",
    "quantise_layers",
    "requantise",
    "round_straight_through",
]

_LEAST_FACTOR = 2.0**-10
_CANDIDATES = 64
_SAMPLED = 65536


class _Round(torch.autograd.Function):
    """Round half to even; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        del ctx
        return gradients[0]


def round_straight_through(x: Tensor) -> Tensor:
    """Round half to even, with the gradient of the identity."""
    rounded: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return rounded


class _Requantise(torch.autograd.Function):
    """See `requantise`."""

    @staticmethod
    def forward(ctx: Any, products: Tensor, bias: Tensor, multiplier: Tensor, highest: int) -> Tensor:
        total = (products + bias).float()
        scaled = total * multiplier
        codes = scaled.clamp(0, highest)
        ctx.trained = bias.requires_grad or multiplier.requires_grad
        ctx.save_for_backward(codes == scaled, multiplier, bias, *((total,) if ctx.trained else ()))
        ctx.dtype = products.dtype
        return codes.round_().to(torch.bfloat16 if products.dtype == torch.bfloat16 else torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        inside, multiplier, bias, *total = ctx.saved_tensors
        passed = gradients[0] * inside
        to_products = (passed * multiplier).to(ctx.dtype)
        if not ctx.trained:
            return to_products, None, None, None
        to_multiplier = (passed.float() * total[0]).sum()
        return to_products, to_products.float().sum_to_size(bias.shape), to_multiplier, None


def requantise(products: Tensor, bias: Tensor, multiplier: Tensor, highest: int) -> Tensor:
    """Return `rint(clip((products + bias) M, 0, highest))`, straight through inside the clip, ends included.

    One node where autograd would keep five: attacks in the training loop spend much of their time here.

    Args:
        products: Sums of products of codes: float32, float64 where float32 would not be exact, or bfloat16.
        bias: float32 that broadcasts to the shape of `products`.
        multiplier: M, float32 of shape (), above 0.
        highest: The largest code, at most 255.

    Returns:
        Codes, float32 or bfloat16 as `products`: with 8 bits of significand it holds them too.
    """
    codes: Tensor = _Requantise.apply(products, bias, multiplier, highest)  # type: ignore[no-untyped-call]
    return codes


def outermost_code(bits: int) -> int:
    """Return L: codes of `bits` bits are the integers -L to L.

    Raises:
        RecipeError: `bits` is not 2 to 8.
    """
    require_integer("bits", bits, 2)
    require_integer("8 - bits", 8 - bits, 0)
    return int(2 ** (bits - 1) - 1)


def best_step(weight: Tensor, outermost: int) -> Tensor:
    """Return the step of least squared error among 64 even shares of max|W| / L, float32 of shape ().

    The error is that of all weights, or of 65,536 evenly spread ones where there are more.
    """
    weight = weight.detach().double().reshape(-1)
    shares = torch.arange(1, _CANDIDATES + 1, dtype=torch.float64) / _CANDIDATES
    largest = weight.abs().max().clamp(min=torch.finfo(torch.float32).tiny)
    steps = shares * largest / outermost
    if len(weight) > _SAMPLED:
        weight = weight[torch.linspace(0, len(weight) - 1, _SAMPLED, dtype=torch.float64).round().long()]
    errors = [
        (weight - step * torch.round(weight / step).clamp(-outermost, outermost)).square().sum()
        for step in steps
    ]
    return torch.take(steps, torch.stack(errors).argmin()).float()


class Learned(nn.Module):
    """A positive float32 number that is trained: `initial * factor`, one IEEE product.

    Args:
        initial: Its first value.
    """

    def __init__(self, initial: Tensor | float) -> None:
        super().__init__()
        self.initial: Tensor
        self.register_buffer("initial", torch.as_tensor(initial, dtype=torch.float32))
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self) -> Tensor:
        """Return the number, shape ()."""
        return self.initial * self.factor.clamp(min=_LEAST_FACTOR)


class FakeQuantise(nn.Module):
    """The paper's quantiser as a parametrisation, for training through it: step = max|W| / L per tensor.

    Args:
        bits: Width of the codes, 2 to 8.

    Raises:
        RecipeError: `bits` is another number.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.outermost = outermost_code(bits)

    def forward(self, weight: Tensor) -> Tensor:
        """Return `step * q`, in the shape of the weight; the step is taken as constant going back."""
        largest = weight.detach().abs().max().clamp(min=torch.finfo(weight.dtype).tiny)
        step = largest / self.outermost
        return step * round_straight_through(weight / step)


def quantise_layers(module: nn.Module, bits: int) -> nn.Module:
    """Let every convolution and dense layer compute with `FakeQuantise`d weights, in place."""
    for layer in list(module.modules()):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(layer, "weight", FakeQuantise(bits))
    return module
