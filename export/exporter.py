"""PyTorch module -> float ONNX (`torch.export` based, opset 21, IR 10, free batch), and its check."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from ..errors import ExactnessError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import nn

__all__ = ["ExportCheck", "check_export", "export_module"]

logger = logging.getLogger(__name__)

OPSET = 21
IR_VERSION = 10
_COLOUR = re.compile("\x1b\\[[0-9;]*m")
INPUT_NAME = "pixels"
OUTPUT_NAME = "logits"

RELATIVE_TOLERANCE = 1e-4
"""How far onnxruntime's float32 logits may lie from torch's, as a share of the largest |logit|.

Both sum the same float32 products in different orders; a four-layer network differs by a few 1e-7, a
32-layer one by a few 1e-6. A wrong operator or a lost weight differs by far more than 1e-4.
"""


@dataclass(frozen=True)
class ExportCheck:
    """What comparing torch with onnxruntime on the same images found.

    Attributes:
        images: How many images were compared.
        largest_difference: The largest |difference| of a logit.
        largest_logit: The largest |logit|, the scale of that difference.
        same_labels: On how many images both choose the same class.
    """

    images: int
    largest_difference: float
    largest_logit: float
    same_labels: int


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's progress marks, deprecation warnings and log lines off the user's terminal."""
    onnx_logger = logging.getLogger("torch.onnx")
    level = onnx_logger.level
    onnx_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        onnx_logger.setLevel(level)


def export_module(module: nn.Module, input_shape: tuple[int, ...]) -> ir.Model:
    """Export a classifier to float ONNX.

    The module is exported in evaluation mode, without the exporter's optimisations: batch norms and weight
    parametrisations arrive as they are, for the compiler's own passes to fold.

    Args:
        module: Takes float32 pixels in [0, 1] `(N, *input_shape)`, returns logits `(N, classes)`.
        input_shape: Shape of one sample, such as `(1, 28, 28)`.

    Returns:
        The model: input `pixels`, output `logits`, both with a free batch dimension.

    Raises:
        ModelError: torch cannot export the module; carries torch's own first line.
    """
    import torch

    example = torch.zeros(2, *input_shape)
    try:
        with _evaluating(module), _quiet_exporter():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                optimize=False,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("N")},),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                verbose=False,
            )
    except Exception as error:
        raise ModelError(
            f"torch cannot export {type(module).__name__} for inputs of shape {tuple(input_shape)}: "
            f"{_cause(error)}"
        ) from error
    if program is None:  # pragma: no cover - only with an option that is not used here
        raise ModelError(f"torch exported nothing for {type(module).__name__}")
    model = program.model
    model.ir_version = IR_VERSION
    model.producer_name = "ohmfold"
    model.producer_version = None
    _own_everything(model)
    _separate_names(model.graph)
    return model


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in evaluation mode, and every part of it back into the mode that it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _cause(error: BaseException) -> str:
    """Return the first line of the innermost exception, without terminal colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = _COLOUR.sub("", str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _own_everything(model: ir.Model) -> None:
    """Copy the weights, which share torch's memory, and drop the exporter's notes on sources and versions."""
    graph = model.graph
    for value in graph.initializers.values():
        if value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().copy(), name=value.name)
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    for owner in (model, graph, *graph, *values):
        owner.metadata_props.clear()
    for owner in (model, graph, *graph):
        owner.doc_string = None


def _separate_names(graph: ir.Graph) -> None:
    """Rename node outputs that share a name with a parameter.

    torch names the output of `x.mean(...)` "mean" even where the module has a buffer of that name; ONNX has
    one name space for both.
    """
    taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph:
        for value in node.outputs:
            name, count = value.name, 0
            while value.name in taken:
                count += 1
                value.name = f"{name}_{count}"
            taken.add(value.name)


def check_export(module: nn.Module, model: ir.Model, images: NDArray[np.uint8]) -> ExportCheck:
    """Run the same pixels through torch and through the exported model in onnxruntime.

    Args:
        module: The module that was exported.
        model: What `export_module` returned for it.
        images: uint8 `(N, C, H, W)`.

    Returns:
        The differences found.

    Raises:
        ExactnessError: A logit differs by more than `RELATIVE_TOLERANCE` of the largest logit.
    """
    import onnxruntime as ort
    import torch

    pixels = images.astype(np.float32) / np.float32(255)
    with _evaluating(module), torch.no_grad():
        expected = module(torch.from_numpy(pixels)).numpy()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (got,) = session.run(None, {session.get_inputs()[0].name: pixels})
    if got.shape != expected.shape:
        raise ExactnessError(f"the exported model returns shape {got.shape}, torch returns {expected.shape}")
    difference = float(np.abs(got - expected).max(initial=0.0))
    largest = float(np.abs(expected).max(initial=0.0))
    if not difference <= RELATIVE_TOLERANCE * max(largest, 1e-30):
        raise ExactnessError(
            f"the exported model differs from torch by {difference:.3g} where logits reach {largest:.3g}; "
            f"float rounding alone stays below {RELATIVE_TOLERANCE:g} of that"
        )
    same = int((got.argmax(-1) == expected.argmax(-1)).sum()) if got.ndim == 2 else 0
    return ExportCheck(len(images), difference, largest, same)
