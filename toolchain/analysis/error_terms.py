"""What an attack and what quantisation change at a layer's output (Song, Fallon, Li, Eq. 1), on real inputs.

    delta = (W + dW)(x + dx) - W x  =  W dx  +  dW x  +  dW dx
                                       attack  quantisation  cross

with x the layer's input on clean images and x + dx that on attacked ones, both in the *float* model: what earlier
layers' quantisation does to x is not in it. Biases cancel.

The inputs are the float32 values of the model in onnxruntime; everything after is float64. dx and dW are differences
rounded once, which is exact but where magnitudes differ by more than 2**29. The observed difference is computed from
W + dW (code * step, exact) and x + dx as they are, and not from the terms: the terms sum to it up to the rounding of
five sums of K products, at each output by at most

    (K + 8) u (|W + dW| |x + dx| + |W| |x| + |W| |dx| + |dW| |x| + |dW| |dx|),        u = 2**-53,

K the number of products of one output. The largest gap seen is part of the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .operators import LayerOperator
    from .quantised_layers import LayerNetwork, QuantisedLayer

__all__ = ["ErrorTerms", "Terms", "error_terms", "terms_of"]

_BYTES_PER_BATCH = 256 << 20
_LARGEST_BATCH = 128


@dataclass(frozen=True, eq=False)
class Terms:
    """Eq. 1 on a batch, each float64 `(N, ...)`.

    Attributes:
        signal: W x.
        attack: W dx.
        quantisation: dW x.
        cross: dW dx.
        observed: (W + dW)(x + dx) - W x, computed without the terms.
    """

    signal: NDArray[np.float64]
    attack: NDArray[np.float64]
    quantisation: NDArray[np.float64]
    cross: NDArray[np.float64]
    observed: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum of the three terms."""
        return self.attack + self.quantisation + self.cross


@dataclass(frozen=True)
class ErrorTerms:
    """Eq. 1 of one layer: means over the images of Euclidean lengths.

    Attributes:
        input: Of x.
        input_change: Of dx.
        signal: Of W x.
        attack: Of W dx.
        quantisation: Of dW x.
        cross: Of dW dx.
        observed: Of the whole difference delta.
        rounding: The largest length, over the images, of observed less the sum of the terms, as a share of
            |(W + dW)(x + dx)| + |W x|; 0 where both are 0.
    """

    input: float
    input_change: float
    signal: float
    attack: float
    quantisation: float
    cross: float
    observed: float
    rounding: float

    def relative(self, term: str) -> float | None:
        """Return a mean length as a share of that of W x; None where W x is 0 on every image."""
        length: float = getattr(self, term)
        return length / self.signal if self.signal > 0 else None


def terms_of(
    operator: LayerOperator,
    weights: NDArray[np.float64],
    quantised: NDArray[np.float64],
    clean: NDArray[np.float64],
    attacked: NDArray[np.float64],
) -> Terms:
    """Compute Eq. 1.

    Args:
        operator: The layer's geometry.
        weights: W.
        quantised: W + dW.
        clean: x, `(N, *operator.input_shape)`.
        attacked: x + dx.
    """
    error, change = quantised - weights, attacked - clean
    signal = operator.apply(weights, clean)
    return Terms(
        signal=signal,
        attack=operator.apply(weights, change),
        quantisation=operator.apply(error, clean),
        cross=operator.apply(error, change),
        observed=operator.apply(quantised, attacked) - signal,
    )


@dataclass(eq=False)
class _Sums:
    """Running sums of lengths over batches."""

    lengths: dict[str, float] = field(default_factory=dict)
    rounding: float = 0.0

    def add(self, layer: QuantisedLayer, clean: NDArray[np.float64], attacked: NDArray[np.float64]) -> None:
        terms = terms_of(layer.operator, layer.weights, layer.dequantised, clean, attacked)
        lengths = {
            name: _lengths(getattr(terms, name))
            for name in ("signal", "attack", "quantisation", "cross", "observed")
        }
        lengths |= {"input": _lengths(clean), "input_change": _lengths(attacked - clean)}
        for name, found in lengths.items():
            self.lengths[name] = self.lengths.get(name, 0.0) + float(found.sum())
        whole = _lengths(terms.observed + terms.signal) + lengths["signal"]
        gap = _lengths(terms.observed - terms.total)
        share = np.divide(gap, whole, out=np.zeros_like(gap), where=whole > 0)
        self.rounding = max(self.rounding, float(share.max(initial=0.0)))


def error_terms(
    network: LayerNetwork,
    clean: NDArray[np.uint8],
    attacked: NDArray[np.uint8],
    progress: Callable[[float], None] | None = None,
) -> tuple[ErrorTerms, ...]:
    """Measure Eq. 1 at every layer.

    Args:
        network: The float model's layers.
        clean: uint8 pixel codes `(N, *network.image_shape)`, at least one image.
        attacked: The same images attacked.
        progress: Told the share that is done.

    Returns:
        One for each layer, in order.

    Raises:
        DataError: The images are not of that form.
        ModelError: onnxruntime cannot run the model.
    """
    for name, images in (("clean", clean), ("attacked", attacked)):
        if images.dtype != np.uint8 or images.shape[1:] != network.image_shape or not len(images):
            raise DataError(
                f"{name} images: found {images.dtype}{images.shape}; expected at least one of uint8 "
                f"{network.image_shape}, which the artifact takes"
            )
    if len(clean) != len(attacked):
        raise DataError(f"found {len(clean)} clean and {len(attacked)} attacked images; expected as many")
    batch = _batch_size(network)
    sums = [_Sums() for _ in network.layers]
    done = 0
    for before, after in zip(network.inputs(clean, batch), network.inputs(attacked, batch), strict=True):
        for layer, running in zip(network.layers, sums, strict=True):
            running.add(layer, before[layer.input].astype(np.float64), after[layer.input].astype(np.float64))
        done += len(next(iter(before.values())))
        if progress is not None:
            progress(done / len(clean))
    return tuple(
        ErrorTerms(
            **{name: total / len(clean) for name, total in running.lengths.items()}, rounding=running.rounding
        )
        for running in sums
    )


def _batch_size(network: LayerNetwork) -> int:
    """As many images as keep what all layers read, twice, within bounds."""
    values = sum(int(np.prod(layer.operator.input_shape)) for layer in network.layers)
    return max(1, min(_LARGEST_BATCH, _BYTES_PER_BATCH // max(1, 2 * 4 * values)))


def _lengths(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """The Euclidean length of each sample."""
    return np.asarray(np.linalg.norm(array.reshape(len(array), -1), axis=1))
