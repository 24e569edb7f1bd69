"""Small networks to analyse, and the matrix of a layer's operator spelled out product by product."""

import numpy as np

from ohmfold.toolchain.analysis.operators import LayerOperator
from ohmfold.toolchain.passes.fold_mu_law import mu_law

from .small_models import parsed

SHAPE = (2, 6, 6)
MU = 255.0

# Shifts of whole pixel codes (102 and 153): the padding of the normalised pixels is then a code exactly.
NET = """
net (float[N, 2, 6, 6] pixels) => (float[N, 3] logits)
<float[2, 1, 1] shift = {0.4, 0.6}>
{
    centred = Sub (pixels, shift)
    a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (centred, first__weight, first__bias)
    n = BatchNormalization (a, gamma, beta, mean, variance)
    b = Relu (n)
    c = Conv <kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 0, 1], group = 2> (b, second__weight)
    d = Relu (c)
    e = Flatten (d)
    logits = Gemm (e, last__weight, last__bias)
}
"""


def small_network(seed=7):
    """Normalisation, convolution, batch norm, a grouped convolution of odd padding, a dense layer."""
    random = np.random.default_rng(seed)

    def normal(scale, *shape):
        return random.normal(0, scale, shape).astype(np.float32)

    return parsed(
        NET,
        first__weight=normal(0.3, 4, 2, 3, 3),
        first__bias=normal(0.1, 4),
        gamma=random.uniform(0.5, 1.5, 4).astype(np.float32),
        beta=normal(0.1, 4),
        mean=normal(0.1, 4),
        variance=random.uniform(0.5, 1.5, 4).astype(np.float32),
        second__weight=normal(0.3, 4, 2, 3, 2),
        last__weight=normal(0.2, 72, 3),
        last__bias=normal(0.1, 3),
    )


def some_images(count=40, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)).astype(np.uint8)


def mapped(weights):
    """Eq. 3a of the paper."""
    return mu_law(weights, MU)


def spelled_out(operator: LayerOperator, weights: np.ndarray) -> np.ndarray:
    """The operator as a matrix `(outputs, inputs)`, written by loops from the definition of a convolution."""
    if operator.kind == "dense":
        return np.array([[weights[k, n] for k in range(weights.shape[0])] for n in range(weights.shape[1])])
    channels, *size = operator.input_shape
    kernel = weights.shape[2:]
    axes = len(size)
    places = [
        (size[i] + operator.pads[i] + operator.pads[axes + i] - (kernel[i] - 1) * operator.dilations[i] - 1)
        // operator.strides[i]
        + 1
        for i in range(axes)
    ]
    matrix = np.zeros((weights.shape[0], *places, channels, *size))
    per_group = channels // operator.groups
    outputs = weights.shape[0] // operator.groups
    for o in range(weights.shape[0]):
        for place in np.ndindex(*places):
            for c in range(per_group):
                for tap in np.ndindex(*kernel):
                    at = tuple(
                        p * s + t * d - b
                        for p, s, t, d, b in zip(
                            place,
                            operator.strides,
                            tap,
                            operator.dilations,
                            operator.pads[:axes],
                            strict=True,
                        )
                    )
                    if all(0 <= a < n for a, n in zip(at, size, strict=True)):
                        matrix[(o, *place, o // outputs * per_group + c, *at)] += weights[(o, c, *tap)]
    return matrix.reshape(weights.shape[0] * int(np.prod(places)), channels * int(np.prod(size)))
