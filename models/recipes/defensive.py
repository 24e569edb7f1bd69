"""Defensive quantisation: weights whose rows stay orthogonal, so that a layer does not amplify what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ..checks import require_number
from ..quantisers import outermost_code
from .qat import Qat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..network import Network

__all__ = ["Defensive", "orthogonality"]


def orthogonality(module: nn.Module) -> Tensor:
    """Return sum over layers of || G - I ||_F^2, G the Gram matrix of the shorter side of W.

    W is the layer's (outputs, everything else) matrix: for a convolution the unfolded kernel. With G = I all
    its singular values are 1.
    """
    total = torch.zeros(())
    for layer in module.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.ndim > 1:
            matrix = weight.reshape(len(weight), -1)
            if len(matrix) > matrix.shape[1]:
                matrix = matrix.T
            total = total + (matrix @ matrix.T - torch.eye(len(matrix))).square().sum()
    return total


@dataclass(frozen=True, kw_only=True)
class Defensive(Qat):
    """Cross-entropy plus beta / 2 times `orthogonality`, through weights of `bits` bits.

    Source: Lin, Gan, Han, "Defensive Quantization: When Efficiency Meets Robustness" (2019), after the Parseval
    networks of Cisse et al. (2017). The paper names it among its "other attempts".

    Attributes:
        beta: Weight of the regularisation.
        bits: Width of the weight codes, 2 to 8.

    Raises:
        RecipeError: A setting is out of its range.
    """

    name: ClassVar[str] = "defensive"

    beta: float = 3e-4

    def __post_init__(self) -> None:
        outermost_code(self.bits)
        require_number("beta", self.beta, 0.0)

    def loss(self, network: Network, pixels: Tensor, labels: Tensor, done: float) -> Tensor:
        """Return cross-entropy and regularisation."""
        return super().loss(network, pixels, labels, done) + self.beta / 2 * orthogonality(network.module)
