"""What quantisation does to the weights of a layer: the error as a signal, and as an operator.

The operator norms are the paper's measure of how much a layer can amplify the error that its quantisation
injects (Song, Fallon, Li, "The Quantization Error Amplification Effect and the Lipschitz Constant", Eq. 2):

    |dW|_p = sup over |z|_p = 1 of |dW z|_p,        dW = W - step * q

with p = 2 the largest singular value, and with p = infinity the largest 1-norm of a row. Above 1, the error
that the layer injects may be larger than the signal it reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["WeightError", "weight_error"]


_ITERATIVE_FROM = 32
"""Smaller sides than this are decomposed whole: Lanczos iteration gains nothing there."""


@dataclass(frozen=True)
class WeightError:
    """How far quantised weights are from the real ones.

    Attributes:
        snr_db: 10 log10(|W|^2 / |dW|^2); None where there is no error, or no weight but zero.
        spectral: Eq. 2 with p = 2.
        infinity: Eq. 2 with p = infinity.
    """

    snr_db: float | None
    spectral: float
    infinity: float


def weight_error(weights: NDArray[np.floating[Any]], dequantised: NDArray[np.float64]) -> WeightError:
    """Measure the error of one layer's weights, in float64.

    Args:
        weights: The real weights: `(O, I / groups, kH, kW)` or `(O, I / groups, kL)` of a convolution, which
            is unfolded to the matrix `(O, I / groups * kH * kW)`; or `(K, N)` of a dense layer, whose rows
            are its N outputs.
        dequantised: `step * q`, of the same shape.

    Raises:
        DataError: The shapes differ, or are not those of a layer's weights.
    """
    if weights.shape != dequantised.shape or weights.ndim < 2:
        raise DataError(
            f"found weights {weights.shape} and dequantised weights {dequantised.shape}; "
            "expected the same shape, with at least 2 axes"
        )
    real = _rows(weights.astype(np.float64))
    error = real - _rows(dequantised.astype(np.float64))
    signal, noise = float(np.square(real).sum()), float(np.square(error).sum())
    snr = 10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None
    return WeightError(snr, _largest_singular_value(error), float(np.abs(error).sum(axis=1).max(initial=0.0)))


def _rows(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """One row for each output."""
    return weights.T if weights.ndim == 2 else weights.reshape(len(weights), -1)


def _largest_singular_value(matrix: NDArray[np.float64]) -> float:
    """SciPy's Lanczos iteration for large matrices, LAPACK for small ones; scaled first, so that squares fit."""
    peak = float(np.abs(matrix).max(initial=0.0))
    if peak == 0.0:
        return 0.0
    scaled = matrix / peak
    if min(scaled.shape) < _ITERATIVE_FROM:
        return peak * float(np.linalg.svd(scaled, compute_uv=False)[0])
    from scipy.sparse.linalg import svds

    # A fixed start, so that the same weights give the same digits; and a random one, since a regular one can be
    # orthogonal to the singular vector that is sought, which is then not found.
    start = np.random.default_rng(0).standard_normal(min(scaled.shape))
    (largest,) = svds(scaled, k=1, v0=start, return_singular_vectors=False)
    return peak * float(largest)
