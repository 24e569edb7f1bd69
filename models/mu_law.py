"""The mu-law map of weights, and the parametrisation that puts it on layers of a model.

Source: Song, Fallon, Li, "Improving Adversarial Robustness in Weight-quantized Neural Networks", Eq. 3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

DOMAINS = ("literal", "normalised")


def mu_law(w: Tensor, mu: float = 255.0) -> Tensor:
    """Compress: F(w) = sgn(w) ln(1 + mu |w|) / ln(1 + mu)  (Eq. 3a), with sgn(0) = 0.

    Args:
        w: Floating point, any shape, meant for -1 <= w <= 1 (larger values map beyond 1).
        mu: Above 0; the larger, the more the values near 0 are spread.

    Returns:
        Tensor of the shape and dtype of `w`. Its gradient is mu / ((1 + mu |w|) ln(1 + mu)), except that it
        is 0 at exactly 0, where autograd takes |w| to be flat.
    """
    return torch.sign(w) * torch.log1p(mu * torch.abs(w)) / math.log1p(mu)


def mu_law_inverse(y: Tensor, mu: float = 255.0) -> Tensor:
    """Expand: F^-1(y) = sgn(y) ((1 + mu)^|y| - 1) / mu  (Eq. 3b).

    Args:
        y: Floating point, any shape, meant for -1 <= y <= 1.
        mu: Above 0.

    Returns:
        Tensor of the shape and dtype of `y`.
    """
    return torch.sign(y) * torch.expm1(torch.abs(y) * math.log1p(mu)) / mu


class MuLaw(nn.Module):
    """The mu-law map as a parametrisation: the layer computes with F(weight).

    `torch.nn.utils.parametrize.register_parametrization(layer, "weight", MuLaw(255.0))` leaves the trained
    weights where they are (`layer.parametrizations.weight.original`) and makes `layer.weight` their image,
    so an exported graph carries the map as operators. There is deliberately no `right_inverse`: with one,
    registering would move the original so that `layer.weight` stays what it was.

    Domains:

    1. "literal": F(w), as in the paper; |w| <= 1 is required, and checked by `apply_mu_law`.
    2. "normalised": s F(w / s) with s = max|w| of the tensor; all-zero weights stay zero.

    Args:
        mu: Above 0 and finite; the paper uses 255.
        domain: "literal" or "normalised".

    Raises:
        RecipeError: `mu` or `domain` is not one of these.
    """

    def __init__(self, mu: float = 255.0, domain: str = "literal") -> None:
        super().__init__()
        if not (isinstance(mu, int | float) and not isinstance(mu, bool) and 0 < mu < math.inf):
            raise RecipeError(f"mu of the mu-law is {mu!r}, expected a finite number above 0, such as 255")
        if domain not in DOMAINS:
            raise RecipeError(f"domain of the mu-law is {domain!r}, expected one of {', '.join(DOMAINS)}")
        self.mu = float(mu)
        self.domain = domain

    def forward(self, w: Tensor) -> Tensor:
        """Map weights of any shape; float, same shape and dtype out."""
        if self.domain == "literal":
            return mu_law(w, self.mu)
        # max() and not amax(): the ONNX exporter of torch 2.13 cannot translate amax over all axes.
        s = torch.abs(w).max().clamp(min=torch.finfo(w.dtype).tiny)
        return s * mu_law(w / s, self.mu)

    def extra_repr(self) -> str:
        """Show the settings in the printed module."""
        return f"mu={self.mu:g}, domain={self.domain!r}"


def apply_mu_law(module: nn.Module, layers: Mapping[str, float], domain: str = "literal") -> nn.Module:
    """Put the mu-law map on the weights of named layers, in place.

    Args:
        module: The model.
        layers: mu by layer name, such as `{"fc2": 255.0}`.
        domain: "literal" or "normalised".

    Returns:
        `module`.

    Raises:
        RecipeError: A layer is unknown, has no weight or is mapped already; in the literal domain, a
            weight is not within -1..1. Nothing is changed then.
    """
    maps = {name: (_layer(module, name, domain), MuLaw(mu, domain)) for name, mu in layers.items()}
    for layer, mapping in maps.values():
        parametrize.register_parametrization(layer, "weight", mapping)
    return module


def _layer(module: nn.Module, name: str, domain: str) -> nn.Module:
    weights = {
        path: weight for path, layer in module.named_modules() if (weight := _weight(layer)) is not None
    }
    if name not in weights:
        raise RecipeError(f"mu-law: no layer {name!r} with weights, expected one of {', '.join(weights)}")
    layer = module.get_submodule(name)
    if parametrize.is_parametrized(layer, "weight"):
        raise RecipeError(
            f"mu-law: the weights of layer {name!r} are parametrised already, expected plain ones"
        )
    largest = float(weights[name].detach().abs().max())
    if domain == "literal" and not largest <= 1.0:
        raise RecipeError(
            f"mu-law: layer {name!r} has max|w| = {largest:.6g}, the literal domain needs |w| <= 1: "
            "use domain='normalised' or clip the weights"
        )
    return layer


def _weight(layer: nn.Module) -> Tensor | None:
    """The weights of a convolution or dense layer; batch norms, whose weights have one axis, have none."""
    weight = getattr(layer, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.ndim > 1 else None
