"""The witnesses that run another form of the artifact: packed weights, Q/DQ, QONNX.

A packed artifact promises every bit. Q/DQ and QONNX compute with real numbers and promise the bits where every scale
is a power of two; the form itself says whether it does (`ohmfold.bit_equal` in its metadata), and where it does not,
its witnesses are skipped with its own reason.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ModelError, TargetError
from ..targets import find_target
from ..witness import LEVELS, OnnxRuntime
from .witness_base import POW2_ONLY, Witness
from .witnesses import OnnxRuntimeWitness, comparable, written_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from ..artifact import Artifact

__all__ = ["Form", "FormWitness", "QonnxWitness", "form_witnesses"]


class Form:
    """One other form of an artifact, built on first use.

    Attributes:
        artifact: What it is a form of.
        name: Of the target that builds it.
    """

    def __init__(self, artifact: Artifact, name: str) -> None:
        self.artifact, self.name = artifact, name

    def refusal(self) -> str | None:
        """Why it cannot be built, or does not promise the bits."""
        try:
            metadata = self.metadata
        except TargetError as error:
            return str(error)
        promise = metadata.get("bit_equal")
        if promise is not None and not promise["everywhere"]:
            return f"bits are promised of power-of-two artifacts only: {promise['reasons'][0]}"
        return None

    @cached_property
    def model(self) -> bytes:
        """The form as a serialised ONNX model.

        Raises:
            TargetError: The artifact has no such form.
        """
        target = find_target(self.name)
        files = target.build(self.artifact, target.options()).files
        return next(content for name, content in files.items() if name.endswith(".onnx"))

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the form says about itself."""
        import onnx

        properties = onnx.load_model_from_string(self.model).metadata_props
        return {
            entry.key.removeprefix("ohmfold."): json.loads(entry.value)
            for entry in properties
            if entry.key in ("ohmfold.bit_equal", "ohmfold.codes")
        }


class FormWitness(OnnxRuntimeWitness):
    """A form in onnxruntime. One that computes with reals has codes under the program's names, and no accumulators."""

    def __init__(self, form: Form, level: str, *, exposed: bool) -> None:
        super().__init__(form.artifact.program, lambda: form.model, level, exposed=exposed, form=form.name)
        self._form = form
        if form.name != "packed":
            self.promise = POW2_ONLY

    def unavailable(self) -> str | None:
        """The form's own reason."""
        return self._form.refusal()

    def shared(self, names: Collection[str]) -> tuple[str, ...]:
        """Of these tensors those that the form has as the program does."""
        found = super().shared(names)
        codes = self._form.metadata.get("codes")
        if codes is None:
            return found
        return tuple(name for name in found if name in codes or name == self._form.artifact.program.logits)


class QonnxWitness(Witness):
    """A QONNX form in onnxruntime, each `Quant` written out in standard operators as its specification has it."""

    group = "qonnx"
    promise = POW2_ONLY

    def __init__(self, form: Form, level: str) -> None:
        self._form, self._level, self._program = form, level, form.artifact.program
        self.name = f"qonnx, onnxruntime {level}"

    def unavailable(self) -> str | None:
        """The form's own reason."""
        return self._form.refusal()

    def run(self, images: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Every tensor of codes, and the logits; see `Witness`."""
        spec = self._program.inputs[0]
        meaning = self._form.metadata["codes"].get(spec.name)
        pixels: NDArray[Any] = images.astype(np.float32)
        if meaning is None:
            pixels = pixels / np.float32(255)
        else:
            pixels = (pixels - np.float32(meaning["zero_point"])) * np.float32(meaning["scale"])
        found = self._session.run({spec.name: pixels})
        return {name: self._as_codes(name, found[name]) for name in self._names if name in found}

    def must_show(self, names: Collection[str]) -> Collection[str]:
        """What the form has under the program's names."""
        return [name for name in names if name in self._names]

    @cached_property
    def _names(self) -> tuple[str, ...]:
        known = {*self._form.metadata["codes"], self._program.logits}
        written = written_names(self._form.model)
        return tuple(name for name in comparable(self._program) if name in written and name in known)

    def _as_codes(self, name: str, real: NDArray[Any]) -> NDArray[Any]:
        """The codes that reals stand for; the quotients themselves where they are no codes."""
        meaning = self._form.metadata["codes"].get(name)
        if meaning is None:
            return real
        quotients: NDArray[Any] = real.astype(np.float64) / meaning["scale"] + meaning["zero_point"]
        dtype = self._program.tensors[name].dtype
        limits = np.iinfo(dtype)
        codes: NDArray[Any] = np.clip(quotients, limits.min, limits.max).astype(dtype)
        return codes if np.array_equal(codes, quotients) else quotients

    @cached_property
    def _session(self) -> OnnxRuntime:
        return OnnxRuntime(_with_standard_operators(self._form.model), self._level, 1, self._names)


def _with_standard_operators(model: bytes) -> bytes:
    """Write each `Quant` as Div, Add, Round (half to even), Clip, Sub, Mul.

    Raises:
        ModelError: One rounds in another way, or its width is no constant.
    """
    import onnx
    from onnx import helper, numpy_helper

    proto = onnx.load_model_from_string(model)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = []
    for node in proto.graph.node:
        if node.op_type != "Quant":
            nodes.append(node)
            continue
        settings = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
        x, scale, zero_point, bits = node.input
        if settings["rounding_mode"] != b"ROUND" or bits not in constants:
            raise ModelError(f"node '{node.name}': expected Quant of the mode ROUND and of a constant width")
        width, signed = int(numpy_helper.to_array(constants[bits]).item()), bool(settings["signed"])
        high = (1 << (width - signed)) - 1 - (settings["narrow"] if not signed else 0)
        low = -(1 << (width - 1)) + settings["narrow"] if signed else 0
        name = [
            f"{node.output[0]}/{step}"
            for step in ("low", "high", "divided", "shifted", "round", "clip", "sub")
        ]
        for limit, value in zip(name[:2], (low, high), strict=True):
            proto.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), limit))
        nodes += [
            helper.make_node("Div", [x, scale], [name[2]]),
            helper.make_node("Add", [name[2], zero_point], [name[3]]),
            helper.make_node("Round", [name[3]], [name[4]]),
            helper.make_node("Clip", [name[4], *name[:2]], [name[5]]),
            helper.make_node("Sub", [name[5], zero_point], [name[6]]),
            helper.make_node("Mul", [name[6], scale], [node.output[0]]),
        ]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return bytes(proto.SerializeToString())


def form_witnesses(artifact: Artifact) -> tuple[Witness, ...]:
    """The witnesses of this module."""
    found: list[Witness] = []
    for name in ("packed", "qdq"):
        form = Form(artifact, name)
        found += [FormWitness(form, level, exposed=True) for level in LEVELS]
        found.append(FormWitness(form, "all", exposed=False))
    qonnx = Form(artifact, "qonnx")
    return (*found, *(QonnxWitness(qonnx, level) for level in LEVELS))
