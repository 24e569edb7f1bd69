"""The layers of the differentiable twin: integer layers, computed by torch on floats that hold integers.

A float32 holds every integer below 2^24 and a float64 every integer below 2^53. A sum of integer products
whose terms add up, in absolute value, to less than that is exact in any order of summation, so torch's
convolutions and matrix products return the integers of the contract (`toolchain.program`) as long as the
back end adds and multiplies and does nothing cleverer. Each stage therefore knows the bound of its sum

    bound[c] = sum |w[c]| * max |x - x_zero_point| + |bias[c]|

and works in float64 where the bound reaches 2^24. Backwards, rounding is the identity ("straight-through"),
a clamp passes the gradient inside its bounds, ends included, and products pass their natural factors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .program import (
    Conv,
    Dense,
    Layer,
    MaxPool,
    Pad,
    Quantise,
    Requantisation,
    Requantise,
    Reshape,
    SpatialSum,
    Split,
    Table,
    WeightedSum,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

__all__ = [
    "ConvStage",
    "DenseStage",
    "PlainStage",
    "QuantiseStage",
    "Range",
    "RequantiseStage",
    "ScaleStage",
    "Stage",
    "TableStage",
    "Weighted",
    "concat",
    "farthest",
    "max_pool_codes",
    "pad_codes",
    "reshape",
    "round_straight_through",
    "spatial_sum",
    "split",
    "sum_dtype",
    "weighted_sum",
]

FLOAT32_INTEGERS = 2**24

Range = tuple[int, int]


class _Round(torch.autograd.Function):
    """Round half to even; the gradient passes as if nothing had been rounded."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Nothing is kept: the backward pass is the identity."""

    @staticmethod
    def backward(_ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


class _Requantise(torch.autograd.Function):
    """`rint(clip(acc * M, low, high)) + z`, and the product; the gradient passes inside the clamp, ends included.

    One node instead of autograd's four, since attacks spend much of their time here. Backwards one kernel of torch's
    does what a mask of booleans would (which costs a comparison and a conversion): that of hardtanh, whose bounds are
    excluded, so that it gets the next numbers outside of ours.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        accumulator: Tensor, multiplier: Tensor, low: int, high: int, zero_point: int
    ) -> tuple[Tensor, Tensor]:
        product = accumulator * multiplier
        codes = product.clamp(low, high).round_()
        return codes.add_(zero_point) if zero_point else codes, product

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[1], output[1])
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # else the product, which nobody reads, gets a gradient of zeros
        ctx.bounds = _below(inputs[2]), -_below(-inputs[3])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        if gradients[0] is None:
            return None, None, None, None, None
        multiplier, product = ctx.saved_tensors
        passed = torch.ops.aten.hardtanh_backward(gradients[0], product, *ctx.bounds)
        return passed * multiplier, None, None, None, None


def _below(bound: int) -> float:
    """The next float32 below an integer; below 0 the next one that no processor flushes to 0."""
    if bound == 0:
        return -float(np.finfo(np.float32).tiny)
    return float(np.nextafter(np.float32(bound), np.float32(-np.inf)))


def round_straight_through(x: Tensor) -> Tensor:
    """Round half to even with the gradient of the identity."""
    rounded: Tensor = _Round.apply(x)  # type: ignore[no-untyped-call]
    return rounded


def _buffer(array: NDArray[Any], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(np.asarray(array), dtype=dtype)


def farthest(codes: Range, zero_point: int) -> int:
    """The largest |x - zero_point| over the range."""
    return max(abs(codes[0] - zero_point), abs(codes[1] - zero_point))


def sum_dtype(bound: int) -> torch.dtype:
    """The float type in which sums up to `bound` are exact."""
    return torch.float32 if bound < FLOAT32_INTEGERS else torch.float64


class Stage(nn.Module):
    """One layer of the twin: reads the tensors `inputs`, returns those named `outputs`, in order."""

    def __init__(self, layer: Layer, outputs: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.inputs = layer.inputs
        self.outputs = layer.outputs if outputs is None else outputs


class _Codes(nn.Module):
    """`rint(clip(float32(acc) * M, low - z, high - z)) + z`: from accumulators to codes."""

    multiplier: Tensor

    def __init__(self, requantisation: Requantisation) -> None:
        super().__init__()
        self.zero_point = requantisation.zero_point
        self.low = requantisation.low - self.zero_point
        self.high = requantisation.high - self.zero_point
        self.register_buffer("multiplier", _buffer(requantisation.multiplier))

    def forward(self, accumulator: Tensor) -> Tensor:
        codes: Tensor
        codes, _ = _Requantise.apply(  # type: ignore[no-untyped-call]
            accumulator.to(torch.float32), self.multiplier, self.low, self.high, self.zero_point
        )
        return codes


class Weighted(Stage):
    """A convolution or dense layer.

    Attributes:
        bound: Largest absolute value that any partial sum of an accumulator can take.
        codes: Lowest and highest code of the input.
    """

    weight: Tensor
    bias: Tensor | None
    layer: Conv | Dense

    def __init__(self, layer: Conv | Dense, codes: Range, outputs: tuple[str, ...]) -> None:
        super().__init__(layer, outputs)
        weight = layer.weight.astype(np.int64)
        sums = np.abs(weight).sum(axis=0 if isinstance(layer, Dense) else tuple(range(1, weight.ndim)))
        reach = sums * farthest(codes, layer.input_zero_point)
        if layer.bias is not None:
            reach = reach + np.abs(layer.bias.astype(np.int64))
        self.codes = codes
        self.bound = int(reach.max(initial=0))
        dtype = sum_dtype(self.bound)
        # A dense layer's weight is kept as torch wants it, (N, K).
        self.register_buffer("weight", _buffer(weight.T if isinstance(layer, Dense) else weight, dtype))
        self.register_buffer("bias", None if layer.bias is None else _buffer(layer.bias, dtype))
        self.to_codes = None if layer.requantisation is None else _Codes(layer.requantisation)

    def use_float64(self) -> None:
        """Compute this layer's sums in float64 from now on."""
        self.weight = self.weight.to(torch.float64)
        self.bias = None if self.bias is None else self.bias.to(torch.float64)

    def accumulate(self, x: Tensor) -> Tensor:
        """Return the accumulators, bias added, in the layer's own float type."""
        x = x.to(self.weight.dtype)
        return self._sum(x - self.layer.input_zero_point if self.layer.input_zero_point else x)

    def _sum(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the layer's output and, where the model names it apart, the accumulator."""
        accumulator = self.accumulate(x)
        if self.to_codes is None:
            return (accumulator,)
        return (self.to_codes(accumulator), accumulator)[: len(self.outputs)]


class ConvStage(Weighted):
    """A convolution, 1-D or 2-D."""

    layer: Conv

    def __init__(self, layer: Conv, codes: Range) -> None:
        super().__init__(layer, codes, layer.outputs)
        axes = len(layer.strides)
        begins, ends = layer.pads[:axes], layer.pads[axes:]
        # Once the zero point is subtracted, padding is zero, which torch adds itself where it is even.
        self.even_padding = begins if begins == ends else (0,) * axes
        self.uneven_padding = None if begins == ends else _torch_pads(begins, ends)
        self.convolve: Callable[..., Tensor] = functional.conv1d if axes == 1 else functional.conv2d

    def _sum(self, x: Tensor) -> Tensor:
        if self.uneven_padding is not None:
            x = functional.pad(x, self.uneven_padding)
        layer = self.layer
        return self.convolve(
            x, self.weight, self.bias, layer.strides, self.even_padding, layer.dilations, layer.groups
        )


class DenseStage(Weighted):
    """A matrix product over the last axis, and the accumulator's own name where it has one."""

    layer: Dense

    def __init__(self, layer: Dense, codes: Range) -> None:
        named = layer.requantisation is not None and layer.accumulator is not None
        super().__init__(layer, codes, (*layer.outputs, str(layer.accumulator)) if named else layer.outputs)

    def _sum(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class RequantiseStage(Stage):
    """Accumulators, plus a bias, to codes."""

    bias: Tensor | None

    def __init__(self, layer: Requantise, bound: int) -> None:
        super().__init__(layer)
        self.dtype = sum_dtype(bound)
        self.register_buffer("bias", None if layer.bias is None else _buffer(layer.bias, self.dtype))
        self.to_codes = _Codes(layer.requantisation)

    def forward(self, accumulator: Tensor) -> tuple[Tensor, ...]:
        """Return the codes."""
        if self.bias is not None:
            accumulator = accumulator.to(self.dtype) + self.bias
        return (self.to_codes(accumulator),)


class AddConstantStage(Stage):
    """An int32 constant added to accumulators."""

    constant: Tensor

    def __init__(self, layer: Layer, constant: NDArray[np.int32], bound: int) -> None:
        super().__init__(layer)
        self.register_buffer("constant", _buffer(constant, sum_dtype(bound)))

    def forward(self, accumulator: Tensor) -> tuple[Tensor, ...]:
        """Return the sums."""
        return (accumulator.to(self.constant.dtype) + self.constant,)


class ScaleStage(Stage):
    """`float32(x - zero_point) * scale`, for `Scale` (zero point 0) and `Dequantise`."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, layer: Layer, scale: NDArray[Any], zero_point: NDArray[Any], bound: int) -> None:
        super().__init__(layer)
        self.register_buffer("scale", _buffer(scale))
        self.register_buffer("zero_point", _buffer(zero_point, sum_dtype(bound)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the float32 product."""
        # Zero is added last: a sum of zeros may be -0, and no integer is.
        return (((x - self.zero_point) + 0.0).to(torch.float32) * self.scale,)


class QuantiseStage(Stage):
    """`rint(clip(x / scale, low - z, high - z)) + z`: from float32 to codes."""

    scale: Tensor
    zero_point: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, layer: Quantise, codes: Range) -> None:
        super().__init__(layer)
        zero_point = layer.zero_point.astype(np.int64)
        self.register_buffer("scale", _buffer(layer.scale))
        self.register_buffer("zero_point", _buffer(zero_point))
        self.register_buffer("low", _buffer(codes[0] - zero_point))
        self.register_buffer("high", _buffer(codes[1] - zero_point))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the codes."""
        ratio = torch.clamp(x / self.scale, self.low, self.high)
        return (round_straight_through(ratio) + self.zero_point,)


class TableStage(Stage):
    """A look-up; its gradient is the table's central difference (one-sided at its two ends)."""

    table: Tensor
    slope: Tensor

    def __init__(self, layer: Table) -> None:
        super().__init__(layer)
        self.lowest = int(np.iinfo(layer.table.dtype).min)
        self.register_buffer("table", _buffer(layer.table))
        self.register_buffer("slope", _buffer(np.gradient(layer.table.astype(np.float64))))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the codes."""
        index = x.detach().long() - self.lowest
        # x - x is exactly zero: the second term carries the gradient and leaves the value alone.
        return (self.table[index] + self.slope[index] * (x - x.detach()),)


class PlainStage(Stage):
    """A layer without weights: `function(*inputs)`, one tensor or several."""

    def __init__(self, layer: Layer, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__(layer)
        self.function = function

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the function's tensors."""
        result = self.function(*tensors)
        return (result,) if isinstance(result, Tensor) else tuple(result)


def _torch_pads(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Return the pads in torch's order: the last axis first, its beginning before its end."""
    return [p for pair in zip(reversed(begins), reversed(ends), strict=True) for p in pair]


def max_pool_codes(x: Tensor, *, layer: MaxPool, lowest: float) -> Tensor:
    """Maximum over windows; the gradient goes to the (first) maximum. `lowest` is what padding holds."""
    axes = len(layer.kernel)
    pool: Callable[..., Tensor] = functional.max_pool1d if axes == 1 else functional.max_pool2d
    begins, ends = list(layer.pads[:axes]), list(layer.pads[axes:])
    half = [k // 2 for k in layer.kernel]
    if begins == ends and not layer.ceil_mode and all(p <= h for p, h in zip(begins, half, strict=True)):
        return pool(x, layer.kernel, layer.strides, begins, layer.dilations)
    for i, (k, s, d) in enumerate(zip(layer.kernel, layer.strides, layer.dilations, strict=True)):
        if layer.ceil_mode:
            size, extent = x.shape[2 + i] + begins[i], (k - 1) * d + 1
            windows = -(-(size + ends[i] - extent) // s) + 1
            # A window that would start in the padding at the end does not count.
            windows -= (windows - 1) * s >= size
            ends[i] = (windows - 1) * s + extent - size
    padded = functional.pad(x, _torch_pads(begins, ends), value=-float("inf"))
    # A window that holds nothing but padding yields the lowest code.
    return pool(padded, layer.kernel, layer.strides, 0, layer.dilations).clamp(min=lowest)


def pad_codes(x: Tensor, *, layer: Pad) -> Tensor:
    """Constant padding over all axes."""
    axes = len(layer.pads) // 2
    return functional.pad(x, _torch_pads(layer.pads[:axes], layer.pads[axes:]), value=layer.value)


def weighted_sum(*tensors: Tensor, layer: WeightedSum, dtype: torch.dtype) -> Tensor:
    """`sum_i m_i (x_i - z_i)`, in a float type that holds it; every partial sum is an integer that it holds, too."""
    shifted = [x.to(dtype) - z if z else x.to(dtype) for x, z in zip(tensors, layer.zero_points, strict=True)]
    total = shifted[0] * layer.multipliers[0]
    for x, multiplier in zip(shifted[1:], layer.multipliers[1:], strict=True):
        total = torch.add(total, x, alpha=multiplier)
    return total


def spatial_sum(x: Tensor, *, layer: SpatialSum, dtype: torch.dtype) -> Tensor:
    """`sum (x - z)` over the spatial axes, in a float type that holds it."""
    return (x.to(dtype) - layer.input_zero_point).sum(dim=tuple(range(2, x.ndim)), keepdim=True)


def reshape(x: Tensor, *, layer: Reshape) -> Tensor:
    """Reshape as ONNX means it, for an empty batch too."""
    copied = [i for i, d in enumerate(layer.shape) if d == 0 and not layer.allow_zero]
    shape = [x.shape[i] if i in copied else d for i, d in enumerate(layer.shape)]
    if -1 in shape:
        # Copied axes cancel out, which leaves -1 defined for an empty batch too.
        total = int(np.prod([d for i, d in enumerate(x.shape) if i not in copied], dtype=np.int64))
        known = int(np.prod([d for i, d in enumerate(shape) if d != -1 and i not in copied], dtype=np.int64))
        shape[shape.index(-1)] = total // max(known, 1)
    return x.reshape(shape)


def concat(*tensors: Tensor, axis: int) -> Tensor:
    """Concatenation along `axis`."""
    return torch.cat(tensors, dim=axis)


def split(x: Tensor, *, layer: Split) -> tuple[Tensor, ...]:
    """The pieces of `x` along the layer's axis."""
    return tuple(torch.split(x, list(layer.sizes), dim=layer.axis))
