"""The Lipschitz constants of the weight error (Song, Fallon, Li, Eq. 2), layer by layer and multiplied together.

    |dW|_p = sup over |z|_p = 1 of |dW z|_p

For a convolution both of its unfolded matrix, as the paper has it, and of the operator that the layer is on its real
input size. Above 1, the error that a layer injects may be larger than the signal it reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from .weights import weight_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .quantised_layers import QuantisedLayer

__all__ = ["Lipschitz", "lipschitz", "product"]


@dataclass(frozen=True)
class Lipschitz:
    """Norms of dW.

    Attributes:
        spectral: p = 2 of the matrix; a convolution's is unfolded to `(O, I / groups * kH * kW)`.
        infinity: p = infinity of the same matrix.
        operator_spectral: p = 2 of the layer's operator; the matrix's own for a dense layer.
        operator_infinity: p = infinity of the operator. It is the matrix's unless every window reaches into padding.
    """

    spectral: float
    infinity: float
    operator_spectral: float
    operator_infinity: float


def lipschitz(layer: QuantisedLayer) -> Lipschitz:
    """Measure a layer's dW."""
    matrix = weight_error(layer.real, layer.dequantised)
    if layer.operator.kind == "dense":
        return Lipschitz(matrix.spectral, matrix.infinity, matrix.spectral, matrix.infinity)
    operator = layer.operator
    return Lipschitz(
        matrix.spectral,
        matrix.infinity,
        operator.spectral_norm(layer.error),
        operator.infinity_norm(layer.error),
    )


def product(found: Sequence[Lipschitz]) -> Lipschitz:
    """Return the products of the norms over all layers; 1 of none."""
    return Lipschitz(
        **{field.name: math.prod(getattr(one, field.name) for one in found) for field in fields(Lipschitz)}
    )
