"""From each kind of layer to steps: a table from the layer's type to the function that adds them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import program as p
from .builder import Builder, refuse, results_of, spread
from .packing import BLOCK, CODES, pack
from .steps import (
    AddWords,
    AveragePoolStep,
    Convolve,
    DenseStep,
    Logits,
    Look,
    LookPair,
    MaxPoolStep,
    Place,
    SpatialSumStep,
    SumStep,
    Window,
)
from .views import View, channels_last, row_major

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .packing import Packed

    Lowering = Callable[[Builder, Any], None]

__all__ = ["DEPTHWISE_CHANNELS", "LOWERINGS", "TILES", "scratch_bytes"]

DEPTHWISE_CHANNELS = 16
"""Channels of a depthwise convolution that are computed together."""

TILES = (4, 2, 1)
"""Output channels of a convolution that may be computed together, while their weights lie unpacked in RAM."""

_INT32 = (1 << 31) - 1
_LARGEST_CODE = 255


def _place(view: View) -> Place:
    return Place(view.buffer, view.first)


def _folded_bias(
    b: Builder, layer: p.Conv | p.Dense, rows: NDArray[np.int64], zero: int
) -> NDArray[np.int32] | None:
    """The bias for codes whose zero point is not subtracted: `bias - zero * sum(w)`, for weight rows `(O, K)`."""
    b.check_range(layer)
    bias = np.zeros(rows.shape[0], np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    folded = bias - zero * rows.sum(axis=1)
    if np.abs(folded).max(initial=0) > _INT32:
        raise refuse(layer, "its bias with the zero point folded in does not fit int32")
    if (np.abs(folded) + _LARGEST_CODE * np.abs(rows).sum(axis=1)).max(initial=0) > _INT32:
        b.wide = True
    return folded.astype(np.int32) if folded.any() else None


def _check_weights(layer: p.Conv | p.Dense) -> None:
    if layer.weight.size and (layer.weight.min() < -128 or layer.weight.max() > 127):
        raise refuse(layer, f"weights of {layer.weight.min()} to {layer.weight.max()} do not fit int8")


def _window(
    layer: p.Conv | p.MaxPool | p.AveragePool,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    kernel: tuple[int, ...],
    dilations: tuple[int, ...],
) -> Window:
    """Windows from a map `(C, ...)` to a map `(O, ...)`; a 1-D map gets a height of 1."""
    axes = len(kernel)
    if axes not in (1, 2) or any(len(shape) != axes + 1 for shape in shapes):
        raise refuse(layer, f"windows of {axes} axes over a map of shape {shapes[0]}; expected 1-D or 2-D")
    pad = 2 - axes
    begins = layer.pads[:axes]
    return Window(
        *(1,) * pad, *shapes[0][1:], *(1,) * pad, *shapes[1][1:], *(1,) * pad, *kernel,
        *(1,) * pad, *layer.strides, *(1,) * pad, *dilations, *(0,) * pad, *begins,
    )  # fmt: skip


def scratch_bytes(weights: Packed, rows: int) -> int:
    """Bytes that a step needs to unpack its weights: `rows` of them as they are used, and the block being unpacked."""
    return 0 if weights.plain else rows + min(BLOCK, -(-weights.count // CODES) * CODES)


def _conv(b: Builder, layer: p.Conv) -> None:
    b.codes(layer, layer.inputs)
    _check_weights(layer)
    x = b.as_map(layer, layer.input)
    outputs, group_in, *kernel = layer.weight.shape
    out_shape = b.sample_shape(layer, layer.output)
    window = _window(layer, (x.shape, out_shape), tuple(kernel), layer.dilations)
    results = results_of(channels_last(out_shape))
    depthwise = layer.groups > 1 and layer.groups == x.shape[0] == outputs
    # (O, kH, kW, C): in the order in which the map lies
    rows = np.moveaxis(layer.weight.astype(np.int64), 1, -1).reshape(outputs, -1)
    zero = b.stored_zero(layer.input, layer.input_zero_point)
    bias = _folded_bias(b, layer, rows, zero)
    if depthwise:  # per chunk of channels: (taps, channels)
        chunks = [rows[c : c + DEPTHWISE_CHANNELS].T for c in range(0, outputs, DEPTHWISE_CHANNELS)]
        order = np.concatenate([chunk.reshape(-1) for chunk in chunks])
    else:
        order = rows
    weights = pack(order, plain=b.plain)
    sinks = b.drains(layer, layer.output, results, layer.requantisation)
    taps = math.prod(kernel)
    b.steps.append(
        Convolve(
            layer=layer.name,
            reads=(x.buffer,),
            writes=tuple(sink.buffer for sink in sinks),
            scratch=scratch_bytes(weights, taps * (DEPTHWISE_CHANNELS if depthwise else group_in)),
            products=results.index.size * taps * group_in,
            results=results.index.size,
            source=_place(x),
            window=window,
            weights=weights,
            bias=bias,
            zero=zero,
            in_channels=x.shape[0],
            out_channels=outputs,
            groups=layer.groups,
            depthwise=depthwise,
            tile=1 if not weights.plain else TILES[0],
            sinks=sinks,
        )
    )


def _dense(b: Builder, layer: p.Dense) -> None:
    b.codes(layer, layer.inputs)
    _check_weights(layer)
    inputs, outputs = layer.weight.shape
    x = b.views[layer.input]
    rows = layer.weight.T.astype(np.int64)
    if len(x.shape) == 1 and (order := x.order) is not None:
        # The weights follow the codes as they lie, so that a flattened map need not be moved.
        stored = np.empty_like(rows)
        stored[:, order] = rows
    else:
        x, stored = b.as_rows(layer, layer.input), rows
    zero = b.stored_zero(layer.input, layer.input_zero_point)
    bias = _folded_bias(b, layer, rows, zero)
    weights = pack(stored, plain=b.plain)
    results = results_of(row_major((*x.shape[:-1], outputs)))
    sinks = b.drains(layer, layer.output, results, layer.requantisation, layer.accumulator)
    b.steps.append(
        DenseStep(
            layer=layer.name,
            reads=(x.buffer,),
            writes=tuple(sink.buffer for sink in sinks),
            scratch=scratch_bytes(weights, 0),
            products=results.index.size * inputs,
            results=results.index.size,
            source=_place(x),
            weights=weights,
            bias=bias,
            rows=math.prod(x.shape[:-1]),
            inputs=inputs,
            outputs=outputs,
            sinks=sinks,
        )
    )


def _weighted_sum(b: Builder, layer: p.WeightedSum) -> None:
    b.codes(layer, layer.inputs)
    b.check_range(layer)
    views, results = b.aligned(layer, layer.inputs)
    sinks = b.drains(layer, layer.output, results)
    b.steps.append(
        SumStep(
            layer=layer.name,
            reads=tuple(view.buffer for view in views),
            writes=tuple(sink.buffer for sink in sinks),
            products=results.index.size * len(views),
            results=results.index.size,
            sources=tuple(map(_place, views)),
            multipliers=layer.multipliers,
            zeros=tuple(
                b.stored_zero(name, zero) for name, zero in zip(layer.inputs, layer.zero_points, strict=True)
            ),
            places=results.places,
            channels=results.channels,
            sinks=sinks,
        )
    )


def _spatial_sum(b: Builder, layer: p.SpatialSum) -> None:
    b.codes(layer, layer.inputs)
    b.check_range(layer)
    x = b.as_map(layer, layer.input)
    if len(x.shape) not in (2, 3):
        raise refuse(
            layer, f"a sum over the places of a tensor of shape {x.shape}; expected a 1-D or 2-D map"
        )
    results = results_of(row_major((x.shape[0], *(1,) * (len(x.shape) - 1))))
    sinks = b.drains(layer, layer.output, results)
    b.steps.append(
        SpatialSumStep(
            layer=layer.name,
            reads=(x.buffer,),
            writes=tuple(sink.buffer for sink in sinks),
            results=results.index.size,
            source=_place(x),
            zero=b.stored_zero(layer.input, layer.input_zero_point),
            places=x.index.size // x.shape[0],
            channels=x.shape[0],
            sinks=sinks,
        )
    )


def _requantise(b: Builder, layer: p.Requantise) -> None:
    """Words that were stored because somebody else reads them too, or because they were moved."""
    if b.is_done(layer):
        return
    if b.kind_of(layer.input) != "words":
        raise refuse(layer, "its input is not int32")
    views, results = b.aligned(layer, layer.inputs)
    # Its own output alone: the words themselves are there already.
    sink = b.requantised(layer, layer.output, results, layer.requantisation, layer.bias)
    b.steps.append(
        AddWords(
            layer=layer.name,
            reads=(views[0].buffer,),
            writes=(sink.buffer,),
            results=results.index.size,
            source=_place(views[0]),
            bias=None,
            places=results.places,
            channels=results.channels,
            sinks=(sink,),
        )
    )


def _operator(b: Builder, layer: p.Operator) -> None:
    """The one operator that is built: the addition of int32 constants to an accumulator."""
    constants = [operand for operand in layer.operands if isinstance(operand, np.ndarray)]
    plain_sum = layer.op_type == "Add" and len(layer.operands) == 2 and len(constants) == 1
    if not plain_sum or b.program.tensors[layer.output].dtype != np.int32:
        raise refuse(layer, f"the operator {layer.op_type} has no C form")
    shape = b.sample_shape(layer, layer.output)
    constant = constants[0]
    while constant.ndim > len(shape) and constant.shape[0] == 1:
        constant = constant[0]
    if constant.ndim > len(shape) or b.views[layer.input].shape != shape:
        raise refuse(layer, f"constants of shape {constants[0].shape} change the shape of its input")
    b.check_sum(layer, layer.input, constant)
    views, results = b.aligned(layer, layer.inputs)
    sinks = b.drains(layer, layer.output, results)
    b.steps.append(
        AddWords(
            layer=layer.name,
            reads=(views[0].buffer,),
            writes=tuple(sink.buffer for sink in sinks),
            results=results.index.size,
            source=_place(views[0]),
            bias=spread(constant.astype(np.int32), results),
            places=results.places,
            channels=results.channels,
            sinks=sinks,
        )
    )


def _max_pool(b: Builder, layer: p.MaxPool) -> None:
    b.codes(layer, layer.inputs)
    x = b.as_map(layer, layer.input)
    target = b.new_tensor(layer, layer.output)
    b.steps.append(
        MaxPoolStep(
            layer=layer.name,
            reads=(x.buffer,),
            writes=(target.buffer,),
            results=target.index.size,
            source=_place(x),
            target=_place(target),
            window=_window(layer, (x.shape, target.shape), layer.kernel, layer.dilations),
            channels=x.shape[0],
        )
    )


def _average_pool(b: Builder, layer: p.AveragePool) -> None:
    b.codes(layer, layer.inputs)
    x = b.as_map(layer, layer.input)
    target = b.new_tensor(layer, layer.output)
    codes = np.arange(256) - b.stored_zero(layer.input, layer.input_zero_point)
    b.steps.append(
        AveragePoolStep(
            layer=layer.name,
            reads=(x.buffer,),
            writes=(target.buffer,),
            results=target.index.size,
            source=_place(x),
            target=_place(target),
            window=_window(layer, (x.shape, target.shape), layer.kernel, (1,) * len(layer.kernel)),
            channels=x.shape[0],
            reals=layer.input_scale * codes.astype(np.float32),
            include_padding=layer.count_include_pad,
            scale=np.float32(layer.output_scale),
            zero=np.float32(layer.output_zero_point),
            low=int(np.iinfo(layer.dtype).min),
        )
    )


def _stored_table(table: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
    """A table whose results are codes as they are stored."""
    return (table.astype(np.int64) - np.iinfo(table.dtype).min).astype(np.uint8).reshape(-1)


def _table(b: Builder, layer: p.Table) -> None:
    b.codes(layer, layer.inputs)
    views, results = b.aligned(layer, layer.inputs)
    target = b.new_tensor(layer, layer.output, results.index)
    b.steps.append(
        Look(
            layer=layer.name,
            reads=(views[0].buffer,),
            writes=(target.buffer,),
            results=results.index.size,
            source=_place(views[0]),
            target=_place(target),
            table=_stored_table(layer.table),
        )
    )


def _quantised_add(b: Builder, layer: p.QuantisedAdd) -> None:
    b.codes(layer, layer.inputs)
    views, results = b.aligned(layer, layer.inputs)
    target = b.new_tensor(layer, layer.output, results.index)
    b.steps.append(
        LookPair(
            layer=layer.name,
            reads=tuple(view.buffer for view in views),
            writes=(target.buffer,),
            results=results.index.size,
            sources=(_place(views[0]), _place(views[1])),
            target=_place(target),
            table=_stored_table(layer.table),
        )
    )


def _scale(b: Builder, layer: p.Scale) -> None:
    if b.kind_of(layer.input) != "words":
        raise refuse(layer, "its input is not int32")
    _logits(b, layer, layer.multiplier, np.zeros((), np.int32))


def _dequantise(b: Builder, layer: p.Dequantise) -> None:
    if layer.scale.dtype != np.float32:
        raise refuse(layer, f"its scale is {layer.scale.dtype}, expected float32")
    # Shaped against the whole tensor; a sample's shape is what broadcasts here.
    scale, zero = (
        a[0] if a.ndim > len(b.views[layer.input].shape) else a for a in (layer.scale, layer.zero_point)
    )
    _logits(b, layer, scale, zero.astype(np.int32) + (128 if b.is_signed(layer.input) else 0))


def _logits(b: Builder, layer: p.Layer, multiplier: NDArray[Any], zero: NDArray[Any]) -> None:
    view = b.as_rows(layer, layer.input)
    results = results_of(row_major((view.index.size,)))
    everywhere = [np.broadcast_to(a, view.shape).reshape(-1) for a in (multiplier, zero)]
    target = View(b.new_buffer("floats", view.index.size, "logits"), row_major(view.shape))
    b.views[layer.output] = target
    b.steps.append(
        Logits(
            layer=layer.name,
            reads=(view.buffer,),
            writes=(target.buffer,),
            results=view.index.size,
            source=_place(view),
            multiplier=spread(everywhere[0].astype(np.float32), results),
            zero=spread(everywhere[1].astype(np.int32), results),
        )
    )


LOWERINGS: dict[type[p.Layer], Lowering] = {
    p.AveragePool: _average_pool,
    p.Conv: _conv,
    p.Dense: _dense,
    p.Dequantise: _dequantise,
    p.MaxPool: _max_pool,
    p.Operator: _operator,
    p.QuantisedAdd: _quantised_add,
    p.Requantise: _requantise,
    p.Scale: _scale,
    p.SpatialSum: _spatial_sum,
    p.Table: _table,
    p.WeightedSum: _weighted_sum,
}
