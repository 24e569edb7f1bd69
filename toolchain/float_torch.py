"""A float ONNX classifier as a torch module: what an attack differentiates where a model came as a file.

The graph is brought to the compiler's canonical form first (`toolchain.passes`), so that few operators are left; a
mu-law map that it carries is folded into its weights, which changes no function. Softmax and the like behind the
logits are left out: attacks want logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DataError, UnsupportedError
from ..kernels.average import window_counts, window_extents
from .artifact import load_model_file
from .float_model import prepare_float_model
from .float_ops import resolved_shape
from .graph import attribute, constant
from .passes import CanonicalisePass, FoldConstantsPass, FoldMuLawPass, NameLayersPass, apply
from .passes.canonicalise import tail_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import onnx_ir as ir

    Operator = Callable[[ir.Node, list[Tensor]], Tensor]

__all__ = ["FloatModule"]


class FloatModule(nn.Module):
    """A float model as a torch module: float32 pixels in [0, 1] `(N, ...)` to logits `(N, classes)`, differentiable.

    Args:
        model: A float ONNX file, or an `onnx_ir.Model`, which is not changed.

    Raises:
        ModelError: The file cannot be read.
        UnsupportedError: The model holds an operator that the compiler does not take either, or has more than one
            result.
    """

    def __init__(self, model: str | Path | ir.Model) -> None:
        super().__init__()
        import onnx_ir as ir

        graph = model.clone() if isinstance(model, ir.Model) else load_model_file(model)[0]
        prepare_float_model(graph)
        for make in (NameLayersPass, FoldMuLawPass, FoldConstantsPass, CanonicalisePass):
            apply(make(), graph)
        tail = tail_nodes(graph)
        self._nodes = [node for node in graph.graph if node not in tail]
        self._input = str(graph.graph.inputs[0].name)
        self._logits = _logits(graph, tail)
        self._shape = tuple(d if isinstance(d, int) else None for d in graph.graph.inputs[0].shape or ())
        self._constants: dict[str, str] = {}
        for node in self._nodes:
            if node.op_type not in _OPERATORS:
                raise UnsupportedError(
                    f"node {node.name!r} ({node.op_type}) has no gradient here; give the model as a checkpoint"
                )
            for value in node.inputs:
                array = constant(value)
                if value is not None and array is not None and str(value.name) not in self._constants:
                    self._constants[str(value.name)] = f"constant_{len(self._constants)}"
                    self.register_buffer(self._constants[str(value.name)], torch.tensor(np.asarray(array)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of float32 pixels in [0, 1].

        Raises:
            DataError: The pixels are not of the model's input shape.
        """
        expected = self._shape
        if len(expected) != pixels.ndim or any(
            e is not None and e != d for e, d in zip(expected[1:], pixels.shape[1:], strict=True)
        ):
            raise DataError(f"found pixels of shape {tuple(pixels.shape)}; the float model takes {expected}")
        tensors: dict[str, Tensor] = {self._input: pixels}
        for node in self._nodes:
            operands = [self._operand(value, tensors) for value in node.inputs if value is not None]
            tensors[str(node.outputs[0].name)] = _OPERATORS[node.op_type](node, operands)
        return tensors[self._logits]

    def _operand(self, value: ir.Value, tensors: Mapping[str, Tensor]) -> Tensor:
        name = str(value.name)
        if name in self._constants:
            found: Tensor = getattr(self, self._constants[name])
            return found
        return tensors[name]


def _logits(model: ir.Model, tail: set[ir.Node]) -> str:
    """The one value that leads out of the network proper."""
    made = {value for node in model.graph if node not in tail for value in node.outputs}
    ends = [
        value for value in made if value.is_graph_output() or any(use.node in tail for use in value.uses())
    ]
    if len(ends) != 1:
        raise UnsupportedError(f"the float model has {len(ends)} results, expected one: the logits")
    return str(ends[0].name)


def _windows(node: ir.Node) -> dict[str, Any]:
    kernel, strides, dilations, pads = (
        tuple(attribute(node, name)) for name in ("kernel_shape", "strides", "dilations", "pads")
    )
    return {"kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads}


def _torch_pads(widths: list[tuple[int, int]]) -> list[int]:
    return [pad for pair in reversed(widths) for pad in pair]


def _conv(node: ir.Node, operands: list[Tensor]) -> Tensor:
    windows = _windows(node)
    axes = len(windows["kernel"])
    pads = windows["pads"]
    widths = list(zip(pads[:axes], pads[axes:], strict=True))
    convolve: Callable[..., Tensor] = functional.conv1d if axes == 1 else functional.conv2d
    x, weight, *bias = operands
    even = all(begin == end for begin, end in widths)
    if not even:
        x = functional.pad(x, _torch_pads(widths))
    return convolve(
        x,
        weight,
        bias[0] if bias else None,
        windows["strides"],
        pads[:axes] if even else 0,
        windows["dilations"],
        attribute(node, "group", 1),
    )


def _max_pool(node: ir.Node, operands: list[Tensor]) -> Tensor:
    (x,), windows = operands, _windows(node)
    widths = _widths(node, x, windows)
    pool: Callable[..., Tensor] = functional.max_pool1d if x.ndim == 3 else functional.max_pool2d
    padded = functional.pad(x, _torch_pads(widths), value=-float("inf"))
    return pool(padded, windows["kernel"], windows["strides"], 0, windows["dilations"])


def _widths(node: ir.Node, x: Tensor, windows: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Padding of each axis of space, with what `ceil_mode` adds at the end."""
    extents = tuple((k - 1) * d + 1 for k, d in zip(windows["kernel"], windows["dilations"], strict=True))
    _, widths = window_extents(
        tuple(x.shape[2:]),
        extents,
        windows["strides"],
        windows["pads"],
        ceil_mode=bool(attribute(node, "ceil_mode", 0)),
    )
    return list(widths)


def _average_pool(node: ir.Node, operands: list[Tensor]) -> Tensor:
    (x,), windows = operands, _windows(node)
    if any(dilation != 1 for dilation in windows["dilations"]):
        raise UnsupportedError(f"node {node.name!r} (AveragePool): its windows are dilated")
    widths = _widths(node, x, windows)
    counts = window_counts(
        tuple(x.shape[2:]),
        windows["kernel"],
        windows["strides"],
        windows["pads"],
        ceil_mode=bool(attribute(node, "ceil_mode", 0)),
        count_include_pad=bool(attribute(node, "count_include_pad", 0)),
    )
    padded = functional.pad(x, _torch_pads(widths))
    pool: Callable[..., Tensor] = functional.avg_pool1d if x.ndim == 3 else functional.avg_pool2d
    mean = pool(padded, windows["kernel"], windows["strides"])
    size = float(np.prod(windows["kernel"]))
    return mean * torch.as_tensor(size / np.asarray(counts, np.float64), dtype=x.dtype, device=x.device)


def _pad(_node: ir.Node, operands: list[Tensor]) -> Tensor:
    pads = [int(pad) for pad in operands[1].tolist()]
    axes = len(pads) // 2
    return functional.pad(operands[0], _torch_pads(list(zip(pads[:axes], pads[axes:], strict=True))))


def _clip(node: ir.Node, operands: list[Tensor]) -> Tensor:
    low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    high = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return operands[0].clamp(
        None if low is None else float(low.reshape(())), None if high is None else float(high.reshape(()))
    )


def _batch_norm(node: ir.Node, operands: list[Tensor]) -> Tensor:
    x, weight, bias, mean, variance = operands
    return functional.batch_norm(
        x, mean, variance, weight, bias, training=False, eps=float(attribute(node, "epsilon", 1e-5))
    )


def _gemm(_node: ir.Node, operands: list[Tensor]) -> Tensor:
    product = operands[0] @ operands[1]
    return product + operands[2] if len(operands) > 2 else product


def _reshape(node: ir.Node, operands: list[Tensor]) -> Tensor:
    target = tuple(int(size) for size in operands[1].tolist())
    shape = tuple(operands[0].shape)
    return operands[0].reshape(
        resolved_shape(shape, target, allow_zero=bool(attribute(node, "allowzero", 0)))
    )


def _axes(operands: list[Tensor], rank: int) -> list[int]:
    return sorted(int(axis) % rank for axis in operands[1].tolist())


def _squeeze(_node: ir.Node, operands: list[Tensor]) -> Tensor:
    x = operands[0]
    for axis in reversed(_axes(operands, x.ndim)):
        x = x.squeeze(axis)
    return x


def _unsqueeze(_node: ir.Node, operands: list[Tensor]) -> Tensor:
    x = operands[0]
    for axis in _axes(operands, x.ndim + len(operands[1])):
        x = x.unsqueeze(axis)
    return x


def _flatten(node: ir.Node, operands: list[Tensor]) -> Tensor:
    x, axis = operands[0], int(attribute(node, "axis", 1))
    axis += x.ndim if axis < 0 else 0
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _transpose(node: ir.Node, operands: list[Tensor]) -> Tensor:
    order = attribute(node, "perm")
    return operands[0].permute(*(order if order is not None else range(operands[0].ndim)[::-1]))


_OPERATORS: Mapping[str, Operator] = {
    "Add": lambda _, x: x[0] + x[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Concat": lambda node, x: torch.cat(x, dim=int(attribute(node, "axis"))),
    "Conv": _conv,
    "Div": lambda _, x: x[0] / x[1],
    "Dropout": lambda _, x: x[0],
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _, x: x[0].mean(dim=tuple(range(2, x[0].ndim)), keepdim=True),
    "Identity": lambda _, x: x[0],
    "LeakyRelu": lambda node, x: functional.leaky_relu(x[0], float(attribute(node, "alpha", 0.01))),
    "MaxPool": _max_pool,
    "Mul": lambda _, x: x[0] * x[1],
    "Pad": _pad,
    "Relu": lambda _, x: functional.relu(x[0]),
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Sub": lambda _, x: x[0] - x[1],
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
