"""Fold the normalisation at the model's entry into the first layers, and with it the scale of the pixels.

With x' = a x + b per input channel c, a first layer W x' + b0 becomes

    W'[o, c, ...] = a[c] W[o, c, ...]          b0'[o] = b0[o] + sum over c, ... of W[o, c, ...] b[c]

and its zero padding of x' becomes padding of x with -b[c] / a[c]. Pixels are uint8 codes, so the padding is the
nearest code, and the report says how far that is from the value. In power-of-two mode the pixels' scale is
2**-8 instead of 1/255, so the factor 256/255 goes into the weights the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ...errors import UnsupportedError
from ..graph import (
    add_initializer,
    attribute,
    constant,
    emit,
    note,
    real_consumers,
    replace_value,
    static_shape,
)
from .affine import Affine, affine_chain
from .fold_batch_norm import set_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["INPUT_SCALE", "FoldNormalisationPass"]

_NEAREST = 0.5 + 1e-6
INPUT_SCALE = "ohmfold.input_scale"
"""Metadata key: the value of one pixel code, which the calibration feeds the model with."""

_HOMOGENEOUS = ("Flatten", "LeakyRelu", "MaxPool", "Pad", "Relu", "Reshape", "Transpose")
"""Operators f with f(c x) = c f(x) for c > 0 (Pad pads with zero here)."""


def _first_layers(value: ir.Value, *, uniform: bool) -> list[ir.Node] | None:
    """Return the Conv and Gemm nodes that alone read `value`, or None if anything else reads it.

    A map that differs between channels passes through reshaping to dense layers; a `uniform` positive
    factor passes through every homogeneous operator.
    """
    if value.is_graph_output():
        return None
    found: list[ir.Node] = []
    for reader in real_consumers(value):
        if reader.op_type in ("Conv", "Gemm"):
            found.append(reader)
        elif reader.op_type in _HOMOGENEOUS if uniform else _flattens(reader):
            behind = _first_layers(reader.outputs[0], uniform=uniform)
            if behind is None or (not uniform and any(node.op_type == "Conv" for node in behind)):
                return None
            found.extend(behind)
        else:
            return None
    return found


def _fold_into(node: ir.Node, affine: Affine) -> None:
    weights = constant(node.inputs[1])
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if weights is None:
        raise UnsupportedError(f"layer '{node.name}': its weights are not constant")
    w = weights.astype(np.float64)
    if _is_uniform(affine):
        set_weights(node, w * affine.scale[0], bias)
        return
    if node.op_type == "Conv":
        groups = int(attribute(node, "group", 1))
        per_group = w.shape[1]
        channel = np.arange(w.shape[0])[:, None] // (w.shape[0] // groups) * per_group + np.arange(per_group)
        spread = (*channel.shape, *(1,) * (w.ndim - 2))
        scale, shift = affine.scale[channel].reshape(spread), affine.shift[channel].reshape(spread)
        axes: tuple[int, ...] = tuple(range(1, w.ndim))
    else:
        repeat = w.shape[0] // len(affine.scale)
        scale, shift = (np.repeat(v, repeat)[:, None] for v in (affine.scale, affine.shift))
        axes = (0,)
    new_bias = (w * shift).sum(axis=axes) + (0.0 if bias is None else bias.astype(np.float64))
    set_weights(node, w * scale, new_bias if bias is not None or affine.shift.any() else None)


def _flattens(node: ir.Node) -> bool:
    """Tell whether a node lines up the channels of a sample one after the other."""
    return node.op_type == "Flatten" and int(attribute(node, "axis", 1)) == 1


def _is_uniform(affine: Affine | None) -> bool:
    """Tell whether a map is one positive factor for all channels."""
    if affine is None:
        return True
    return bool((affine.scale == affine.scale[0]).all() and affine.scale[0] > 0 and not affine.shift.any())


def _can_pad(layers: list[ir.Node], affine: Affine) -> bool:
    """Tell whether a pixel code is near enough to the value that normalises to zero, where layers pad with it."""
    if (affine.scale == 0).any():
        return False
    pads = any(node.op_type == "Conv" and any(attribute(node, "pads")) for node in layers)
    codes, value = _pad_codes(affine, 255)
    return not pads or bool(np.abs(codes - value).max() <= _NEAREST)


def _pad_codes(affine: Affine, levels: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the pixel code nearest to the value that normalises to zero, and that value in codes."""
    value = levels * np.divide(-affine.shift, affine.scale)
    return np.clip(np.rint(value), 0, 255).astype(np.int64), value


def _pad_explicitly(model: ir.Model, node: ir.Node, codes: NDArray[np.int64], scale: float) -> None:
    """Move the padding of a convolution into Pad nodes that hold the given code in each channel."""
    pads = [int(p) for p in attribute(node, "pads")]
    half = len(pads) // 2
    full = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
    layer, graph, source = node.name or "conv", model.graph, node.inputs[0]
    if source is None:
        raise UnsupportedError(f"layer '{layer}': it has no input")
    amounts = add_initializer(graph, f"{layer}.pads", full)
    fills = sorted({int(c) for c in codes})
    values = {c: add_initializer(graph, f"{layer}.fill_{c}", np.array(c * scale, np.float32)) for c in fills}

    def pad(part: ir.Value | None, code: int, name: str) -> ir.Value:
        return emit(
            node, "Pad", [part, amounts, values[code]], {"mode": "constant"}, name=f"{layer}.pad",
            output=name, dtype=ir.DataType.FLOAT,
        )  # fmt: skip

    if len(fills) == 1:
        padded = pad(source, fills[0], f"{layer}.padded")
    else:
        names = [f"{layer}.channel_{c}" for c in range(len(codes))]
        sizes = add_initializer(graph, f"{layer}.split", np.ones(len(codes), np.int64))
        first = emit(
            node, "Split", [source, sizes], {"axis": 1}, name=f"{layer}.split", output=names,
            dtype=ir.DataType.FLOAT,
        )  # fmt: skip
        parts = first.producer().outputs  # type: ignore[union-attr]
        padded_parts = [pad(p, int(c), f"{n}.padded") for p, c, n in zip(parts, codes, names, strict=True)]
        padded = emit(
            node, "Concat", padded_parts, {"axis": 1}, name=f"{layer}.concat", output=f"{layer}.padded",
            dtype=ir.DataType.FLOAT,
        )  # fmt: skip
    node.replace_input_with(0, padded)
    node.attributes["pads"] = ir.AttrInt64s("pads", [0] * len(pads))


class FoldNormalisationPass(ir.passes.InPlacePass):
    """Fold what happens to the pixels before the first layers.

    1. A chain of arithmetic with constants (or a batch norm) at the input is folded into the convolutions
       and dense layers that read it.
    2. Where such a convolution pads and the map has a shift, the padding becomes explicit: per channel the
       pixel code nearest to -b/a, which must be within half a code.
    3. With `power_of_two` the factor 256/255 is folded the same way and the pixels' scale is 2**-8.

    A chain read by anything else stays, for the lowering to treat as a batch norm of its own; in
    power-of-two mode that is refused.
    """

    def __init__(self, *, power_of_two: bool = False) -> None:
        super().__init__()
        self.power_of_two = power_of_two

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Apply the rules."""
        pixels = model.graph.inputs[0]
        levels = 256 if self.power_of_two else 255
        model.metadata_props[INPUT_SCALE] = repr(float(np.float32(1 / levels)))
        chain, affine = affine_chain(pixels)
        end = chain[-1].outputs[0] if chain else pixels
        layers = _first_layers(end, uniform=_is_uniform(affine))
        if layers is not None and affine is not None and not _can_pad(layers, affine):
            layers = None
        if layers is None and self.power_of_two:
            readers = ", ".join(sorted({n.op_type for n in real_consumers(end)})) or "the output"
            raise UnsupportedError(
                f"scales = 'pow2': the pixels are read by {readers}; the factor 256/255 can only go into the weights "
                "of convolutions and dense layers that alone read the (normalised) pixels, padding with a code"
            )
        if layers is None or (affine is None and not self.power_of_two):
            if chain:
                note(
                    model,
                    "the normalisation at the entry stays: other layers read it, or no code pads like its zero",
                )
            return ir.passes.PassResult(model, modified=False)
        shape = static_shape(pixels)
        channels = shape[1] if shape is not None and len(shape) > 1 and shape[1] is not None else 1
        total = affine or Affine(np.ones(channels), np.zeros(channels))
        if self.power_of_two:
            total = Affine(np.full_like(total.scale, 256 / 255), np.zeros_like(total.shift)).then(total)
        self._fold(model, layers, total)
        if chain:
            replace_value(end, pixels)
            for node in reversed(chain):
                model.graph.remove(node, safe=True)
            note(model, f"folded the normalisation at the entry ({', '.join(n.op_type for n in chain)})")
        common.RemoveUnusedNodesPass()(model)
        common.ShapeInferencePass()(model)
        return ir.passes.PassResult(model, modified=True)

    def _fold(self, model: ir.Model, layers: list[ir.Node], total: Affine) -> None:
        levels = 256 if self.power_of_two else 255
        codes, wanted = _pad_codes(total, levels)
        for node in layers:
            _fold_into(node, total)
            if node.op_type == "Conv" and any(attribute(node, "pads")) and total.shift.any():
                _pad_explicitly(model, node, codes, 1 / levels)
                off = float(np.abs(codes - wanted).max())
                note(
                    model,
                    f"layer '{node.name}': pads with pixel codes {codes.tolist()}, the nearest to the value that "
                    f"normalises to zero (off by at most {off:.3g} codes)",
                )
