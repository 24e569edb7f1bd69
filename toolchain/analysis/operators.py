"""A layer as a linear operator on one sample: what it does, its adjoint, and its norms.

With A the operator of a layer's weights (no bias) on an input of a fixed shape, the norms of Eq. 2 of the paper are

    |A|_2 = the largest singular value           |A|_inf = the largest sum of magnitudes of a row

A dense layer's A is its matrix. A convolution's has a row for every channel and place of the output, with stride,
padding and dilation of the layer. Its |A|_2 can pass that of the unfolded matrix `(O, I / groups * kH * kW)`, by at
most the square root of the number of windows that a value lies in; and it can be smaller, where windows reach into
padding, or with groups, which the unfolded matrix puts on the same columns though they read different channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ...errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Linear = Callable[[NDArray[np.float64]], NDArray[np.float64]]

__all__ = ["RESIDUAL", "LayerOperator", "largest_singular_value"]

RESIDUAL = 1e-8
"""Lanczos iteration stops where |A'A v - t v| <= RESIDUAL t: then t is this near, relatively, to a squared singular
value, and its root to half of it."""

_DENSE_UP_TO = 64
"""An operator with a side of at most this is written out as a matrix and decomposed whole."""
_LANCZOS_VECTORS = 40


@dataclass(frozen=True)
class LayerOperator:
    """The geometry of a layer with weights.

    Attributes:
        kind: What the weights mean: `(O, I / groups, k...)` of a convolution, `(K, N)` of a dense layer.
        input_shape: Of one sample: `(C, H, W)` or `(C, L)` of a convolution, `(K,)` of a dense layer.
        strides, dilations: One number for each axis of space; empty for a dense layer.
        pads: Zeros before each axis of space, then after each; empty for a dense layer.
        groups: Of a convolution.
    """

    kind: Literal["conv", "dense"]
    input_shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    groups: int = 1

    def apply(self, weights: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `W x`, without a bias.

        Args:
            weights: float64, see `kind`.
            x: float64 `(N, *input_shape)`.

        Raises:
            DataError: `x` is not of that shape.
        """
        if x.shape[1:] != self.input_shape:
            raise DataError(
                f"the layer's input has shape {x.shape[1:]} a sample; expected {self.input_shape}"
            )
        if self.kind == "dense":
            return np.asarray(x @ weights)
        import torch
        from torch.nn import functional

        convolve: Callable[..., torch.Tensor] = functional.conv1d if self._axes == 1 else functional.conv2d
        widths = [pad for pair in reversed(self._widths) for pad in pair]
        padded = functional.pad(torch.from_numpy(np.ascontiguousarray(x)), widths)
        kernel = torch.from_numpy(np.ascontiguousarray(weights))
        with torch.no_grad():
            y = convolve(padded, kernel, None, self.strides, 0, self.dilations, self.groups)
        return np.asarray(y.numpy())

    def adjoint(self, weights: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `W' y`, float64 `(N, *input_shape)`, for `y` of the shape that `apply` returns."""
        if self.kind == "dense":
            return np.asarray(y @ weights.T)
        import torch
        from torch.nn import grad

        spread: Callable[..., torch.Tensor] = grad.conv1d_input if self._axes == 1 else grad.conv2d_input
        space = [
            begin + size + end for size, (begin, end) in zip(self.input_shape[1:], self._widths, strict=True)
        ]
        with torch.no_grad():
            padded = spread(
                (len(y), self.input_shape[0], *space),
                torch.from_numpy(np.ascontiguousarray(weights)),
                torch.from_numpy(np.ascontiguousarray(y)),
                self.strides,
                0,
                self.dilations,
                self.groups,
            ).numpy()
        inner = (
            slice(begin, begin + size)
            for size, (begin, _) in zip(self.input_shape[1:], self._widths, strict=True)
        )
        return np.asarray(padded[(slice(None), slice(None), *inner)])

    def spectral_norm(self, weights: NDArray[np.float64]) -> float:
        """Return |A|_2 (see `largest_singular_value` for its accuracy)."""
        peak = float(np.abs(weights).max(initial=0.0))
        if peak == 0.0:
            return 0.0
        scaled = weights / peak  # so that squares neither overflow nor vanish
        output_shape = self.apply(scaled, np.zeros((1, *self.input_shape))).shape[1:]
        return peak * largest_singular_value(
            lambda x: self.apply(scaled, x.reshape(-1, *self.input_shape)).reshape(len(x), -1),
            lambda y: self.adjoint(scaled, y.reshape(-1, *output_shape)).reshape(len(y), -1),
            (math.prod(output_shape), math.prod(self.input_shape)),
        )

    def infinity_norm(self, weights: NDArray[np.float64]) -> float:
        """Return |A|_inf: a row's sum of magnitudes is what |W| makes of an input of ones."""
        return float(self.apply(np.abs(weights), np.ones((1, *self.input_shape))).max(initial=0.0))

    @property
    def _axes(self) -> int:
        return len(self.strides)

    @property
    def _widths(self) -> list[tuple[int, int]]:
        """Padding of each axis of space: before, after."""
        return list(zip(self.pads[: self._axes], self.pads[self._axes :], strict=True))


def largest_singular_value(forward: Linear, adjoint: Linear, shape: tuple[int, int]) -> float:
    """Return the largest singular value of an operator that is given by what it does.

    Small ones are written out and decomposed by LAPACK. The others go through Lanczos iteration (ARPACK) on A'A or
    AA', the smaller, from one fixed random vector, until the residual is within `RESIDUAL`. The start is random
    because a regular one (all ones) can be orthogonal to the vector that is sought: convolutions are symmetric.

    Args:
        forward: Rows `(N, n)` to rows `(N, m)`, float64.
        adjoint: Rows `(N, m)` to rows `(N, n)`.
        shape: `(m, n)`.
    """
    m, n = shape
    if min(m, n) <= _DENSE_UP_TO:
        matrix = forward(np.eye(n)) if n <= m else adjoint(np.eye(m))
        return float(np.linalg.svd(matrix, compute_uv=False)[0]) if matrix.size else 0.0
    from scipy.sparse.linalg import LinearOperator, eigsh

    first, second, side = (forward, adjoint, n) if n <= m else (adjoint, forward, m)
    gram = LinearOperator((side, side), lambda v: second(first(v.reshape(1, -1))).ravel(), dtype=np.float64)
    (square,) = eigsh(
        gram,
        k=1,
        which="LA",
        v0=np.random.default_rng(0).standard_normal(side),
        ncv=min(side, _LANCZOS_VECTORS),
        tol=RESIDUAL,
        return_eigenvectors=False,
    )
    return math.sqrt(max(float(square), 0.0))
