"""How each kind of layer runs: a table from the layer's type to a function that prepares it once.

Preparing packs weights and checks operands; what it returns runs the layer on arrays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError, UnsupportedError
from ..kernels.average import average_pool
from ..kernels.conv import Convolution
from ..kernels.dense import Dense as DenseKernel
from ..kernels.elementwise import look_up, look_up_pairs, weighted_sum
from ..kernels.pooling import max_pool, spatial_sum
from ..kernels.requantise import requantise
from . import program as p
from .codes import dequantise, quantise
from .float_ops import ELEMENTWISE_OPERATORS, FLOAT_OPERATORS, resolved_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from numpy.typing import NDArray

    Runner = Callable[[tuple[NDArray[Any], ...], Collection[str]], Mapping[str, NDArray[Any]]]

__all__ = ["batch_prefix", "prepare"]


def prepare(layer: p.Layer) -> Runner:
    """Prepare a layer to run.

    Returns:
        A function of the layer's inputs, in order, and the names of tensors that somebody wants (only then
        does a dense layer keep its accumulator); it returns the tensors by name.

    Raises:
        UnsupportedError: The layer is an operator that cannot be executed.
        ModelError: The layer's operands are inconsistent.
    """
    maker = _MAKERS.get(type(layer))
    if maker is None:
        raise UnsupportedError(f"layer {layer.name!r}: no way to run a {type(layer).__name__} is known")
    try:
        return maker(layer)
    except (TypeError, ValueError) as error:
        raise ModelError(f"layer {layer.name!r} ({type(layer).__name__}): {error}") from error


def _simple(layer: p.Layer, function: Callable[..., NDArray[Any]]) -> Runner:
    """A runner of a layer of one output."""

    def run(inputs: tuple[NDArray[Any], ...], wanted: Collection[str]) -> Mapping[str, NDArray[Any]]:  # noqa: ARG001
        return {layer.output: function(*inputs)}

    return run


def _conv(layer: p.Conv) -> Runner:
    return _simple(
        layer,
        Convolution(
            layer.weight,
            layer.bias,
            input_zero_point=layer.input_zero_point,
            strides=layer.strides,
            pads=layer.pads,
            dilations=layer.dilations,
            groups=layer.groups,
            codes=layer.requantisation,
        ),
    )


def _dense(layer: p.Dense) -> Runner:
    kernel = DenseKernel(
        layer.weight, layer.bias, input_zero_point=layer.input_zero_point, codes=layer.requantisation
    )

    def run(inputs: tuple[NDArray[Any], ...], wanted: Collection[str]) -> Mapping[str, NDArray[Any]]:
        x = inputs[0]
        rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
        shape = (*x.shape[:-1], kernel.shape[1])
        if layer.accumulator is None or layer.accumulator not in wanted:
            return {layer.output: kernel(rows).reshape(shape)}
        acc = kernel.accumulate(rows)
        return {layer.accumulator: acc.reshape(shape), layer.output: kernel.requantise(acc).reshape(shape)}

    return run


def _weighted_sum(layer: p.WeightedSum) -> Runner:
    return _simple(layer, lambda *inputs: weighted_sum(inputs, layer.multipliers, layer.zero_points))


def _spatial_sum(layer: p.SpatialSum) -> Runner:
    return _simple(layer, lambda x: spatial_sum(x, layer.input_zero_point))


def _requantise(layer: p.Requantise) -> Runner:
    return _simple(layer, lambda acc: requantise(acc, layer.bias, layer.requantisation))


def _scale(layer: p.Scale) -> Runner:
    return _simple(layer, lambda acc: acc.astype(np.float32) * layer.multiplier)


def dynamic_quantise(x: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Codes, scale and zero point of a whole tensor, as DynamicQuantizeLinear states them, in float32."""
    low = np.minimum(np.float32(0), x.min(initial=0)).astype(np.float32)
    high = np.maximum(np.float32(0), x.max(initial=0)).astype(np.float32)
    scale = (high - low) / np.float32(255) if high > low else np.float32(1)
    zero_point = np.asarray(np.rint(np.clip(-low / scale, np.float32(0), np.float32(255)))).astype(np.uint8)
    scale = np.asarray(scale, np.float32)
    return quantise(x, scale, zero_point), scale, zero_point


def _quantise(layer: p.Quantise) -> Runner:
    return _simple(layer, lambda x: quantise(x, layer.scale, layer.zero_point))


def _dequantise(layer: p.Dequantise) -> Runner:
    return _simple(layer, lambda x: dequantise(x, layer.scale, layer.zero_point))


def _dynamic_quantise(layer: p.DynamicQuantise) -> Runner:
    return lambda inputs, wanted: dict(zip(layer.outputs, dynamic_quantise(inputs[0]), strict=True))  # noqa: ARG005


def _max_pool(layer: p.MaxPool) -> Runner:
    settings = (layer.kernel, layer.strides, layer.pads, layer.dilations)
    return _simple(layer, lambda x: max_pool(x, *settings, ceil_mode=layer.ceil_mode))


def _average_pool(layer: p.AveragePool) -> Runner:
    def run(x: NDArray[Any]) -> NDArray[Any]:
        return average_pool(
            x,
            layer.kernel,
            layer.strides,
            layer.pads,
            ceil_mode=layer.ceil_mode,
            count_include_pad=layer.count_include_pad,
            input_scale=layer.input_scale,
            input_zero_point=layer.input_zero_point,
            output_scale=layer.output_scale,
            output_zero_point=layer.output_zero_point,
        )

    return _simple(layer, run)


def _quantised_add(layer: p.QuantisedAdd) -> Runner:
    return _simple(layer, lambda a, b: look_up_pairs(a, b, layer.table))


def _table(layer: p.Table) -> Runner:
    return _simple(layer, lambda x: look_up(x, layer.table))


def pad_constant(x: NDArray[Any], pads: tuple[int, ...], value: float) -> NDArray[Any]:
    """Constant padding over all axes, in ONNX's order; a negative pad cuts."""
    begins, ends = pads[: x.ndim], pads[x.ndim :]
    cuts = tuple(
        slice(max(0, -begin), length - max(0, -end))
        for begin, end, length in zip(begins, ends, x.shape, strict=True)
    )
    widths = [(max(0, begin), max(0, end)) for begin, end in zip(begins, ends, strict=True)]
    return np.pad(x[cuts], widths, constant_values=x.dtype.type(value))


def _pad(layer: p.Pad) -> Runner:
    return _simple(layer, lambda x: pad_constant(x, layer.pads, layer.value))


def _concat(layer: p.Concat) -> Runner:
    return _simple(layer, lambda *inputs: np.concatenate(inputs, axis=layer.axis))


def _split(layer: p.Split) -> Runner:
    cuts = np.cumsum(layer.sizes)[:-1]

    def run(inputs: tuple[NDArray[Any], ...], wanted: Collection[str]) -> Mapping[str, NDArray[Any]]:  # noqa: ARG001
        return dict(zip(layer.outputs, np.split(inputs[0], cuts, axis=layer.axis), strict=True))

    return run


def _reshape(layer: p.Reshape) -> Runner:
    return _simple(
        layer, lambda x: x.reshape(resolved_shape(x.shape, layer.shape, allow_zero=layer.allow_zero))
    )


def _transpose(layer: p.Transpose) -> Runner:
    return _simple(layer, lambda x: x.transpose(layer.permutation))


def _operator(layer: p.Operator) -> Runner:
    function = FLOAT_OPERATORS.get(layer.op_type)
    if function is None:
        known = ", ".join(sorted(FLOAT_OPERATORS))
        raise UnsupportedError(f"node {layer.name!r}: {layer.op_type} cannot be run; supported are {known}")

    def run(inputs: tuple[NDArray[Any], ...], wanted: Collection[str]) -> Mapping[str, NDArray[Any]]:  # noqa: ARG001
        tensors = dict(zip(layer.inputs, inputs, strict=True))
        operands = tuple(tensors[o] if isinstance(o, str) else o for o in layer.operands)
        return dict(zip(layer.outputs, function(operands, layer.attributes, len(layer.outputs)), strict=True))

    return run


_MAKERS: dict[type[p.Layer], Callable[[Any], Runner]] = {
    p.AveragePool: _average_pool,
    p.Concat: _concat,
    p.Conv: _conv,
    p.Dense: _dense,
    p.Dequantise: _dequantise,
    p.DynamicQuantise: _dynamic_quantise,
    p.MaxPool: _max_pool,
    p.Operator: _operator,
    p.Pad: _pad,
    p.Quantise: _quantise,
    p.QuantisedAdd: _quantised_add,
    p.Requantise: _requantise,
    p.Reshape: _reshape,
    p.Scale: _scale,
    p.SpatialSum: _spatial_sum,
    p.Split: _split,
    p.Table: _table,
    p.Transpose: _transpose,
    p.WeightedSum: _weighted_sum,
}


def _always(layer: Any) -> bool:  # noqa: ARG001
    return True


def _operator_keeps_samples(layer: p.Operator) -> bool:
    constants = [
        operand for operand in layer.operands if not isinstance(operand, str) and operand is not None
    ]
    return layer.op_type in ELEMENTWISE_OPERATORS and all(np.size(constant) == 1 for constant in constants)


# For each kind of layer, whether sample i of its outputs depends on sample i of its inputs alone.
_KEEPS_SAMPLES: dict[type[p.Layer], Callable[[Any], bool]] = {
    p.AveragePool: _always,
    p.Concat: lambda layer: layer.axis > 0,
    p.Conv: _always,
    p.Dense: _always,
    p.Dequantise: lambda layer: layer.scale.size == layer.zero_point.size == 1,
    p.MaxPool: _always,
    p.Operator: _operator_keeps_samples,
    p.Pad: lambda layer: layer.pads[0] == layer.pads[len(layer.pads) // 2] == 0,
    p.Quantise: lambda layer: layer.scale.size == layer.zero_point.size == 1,
    p.QuantisedAdd: _always,
    p.Requantise: _always,
    p.Reshape: lambda layer: layer.shape[:1] == (-1,) or (layer.shape[:1] == (0,) and not layer.allow_zero),
    p.Scale: _always,
    p.SpatialSum: _always,
    p.Split: lambda layer: layer.axis > 0,
    p.Table: _always,
    p.Transpose: lambda layer: layer.permutation[:1] == (0,),
    p.WeightedSum: _always,
}


def batch_prefix(program: p.Program) -> int:
    """How many of the first layers compute every sample by itself, so that a batch may be cut before them.

    0 for a program that has several inputs, or whose input's first dimension is not free.
    """
    if len(program.inputs) != 1 or not _batched(program.inputs[0]):
        return 0
    for index, layer in enumerate(program.layers):
        specs = [program.tensors.get(name) for name in (*layer.inputs, *layer.outputs) if name]
        ranks = {len(spec.shape) for spec in specs[: len(layer.inputs)] if spec and spec.shape}
        rule = _KEEPS_SAMPLES.get(type(layer))
        if rule is None or len(ranks) != 1 or not all(map(_batched, specs)) or not rule(layer):
            return index
    return len(program.layers)


def _batched(spec: p.TensorSpec | None) -> bool:
    """Whether a tensor's first dimension is the batch, and the only free one."""
    if spec is None or not spec.shape:
        return False
    return spec.shape[0] is None and None not in spec.shape[1:]
