"""`packed`: the artifact with its weights at their own width, unpacked by standard operators.

A layer's codes have few levels: 3-bit weights seven. Each code is stored as the number of its level, in planes of 4,
2 and 1 bits that sum to the width, eight codes after another in one byte for each bit of the width:

    plane of p bits      byte j holds codes 8/p j, 8/p j + 1, ..., the first in the lowest bits
    3 bits               a plane of 2 bits (the low ones) and a plane of 1: 3 bytes for 8 weights

and the graph makes the int8 weights of it again, under their old name:

    plane   = BitwiseAnd(BitShift<RIGHT>(bytes (M, 1), shifts (8/p,)), 2^p - 1), reshaped to one axis
    number  = BitwiseOr of the planes, each shifted to its place; cut to the number of weights
    weights = Reshape(Gather(levels, Cast<int32>(number)), shape)

Nothing of it depends on the input, so that a runtime computes it once when it loads the model: onnxruntime from its
level `basic` on. At `disabled` it unpacks at every run; the bits are the same. The rest of the file is the artifact.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ...errors import TargetError
from .base import Built, Material, Options, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..artifact import Artifact

__all__ = ["PackedOptions", "PackedTarget", "pack_planes", "packed_width"]

FILE = "packed.onnx"

# Where operators have their weights.
_WEIGHTS = {"ConvInteger": 1, "MatMulInteger": 1, "QLinearConv": 3, "QLinearMatMul": 3}
_PLANES = (4, 2, 1)
_WIDEST = sum(_PLANES)
_OLDEST_OPSET = 18  # of BitwiseAnd
# Bytes that unpacking adds to a file, nodes and names: fewer weights than save as much stay as they are.
_UNPACKING = 1500


class PackedOptions(Options):
    """The target has no settings."""


class PackedTarget(Target[PackedOptions]):
    """The artifact itself, its weights packed."""

    name: ClassVar[str] = "packed"
    description: ClassVar[str] = (
        "the artifact with weights packed at their own width: same bits, standard ONNX"
    )
    options = PackedOptions

    def check(self, artifact: Artifact, options: PackedOptions) -> None:  # noqa: ARG002 - it has none
        """Refuse models of an old opset, and those that hold nothing to pack."""
        opset = artifact.model.opset_imports.get("", 0)
        if opset < _OLDEST_OPSET:
            raise TargetError(
                f"the model is of opset {opset}, and unpacking needs {_OLDEST_OPSET} or newer (BitwiseAnd); convert it "
                "with onnx.version_converter"
            )
        if not any(True for _ in _packable(onnx.load_model_from_string(artifact.to_bytes()))):
            raise TargetError(
                "the model holds no weights that packing makes smaller: of less than 8 bits, and a few thousand of them"
            )

    def build(self, artifact: Artifact, options: PackedOptions, material: Material | None = None) -> Built:
        """Build `packed.onnx`."""
        del material
        self.check(artifact, options)
        whole = artifact.to_bytes()
        model = onnx.load_model_from_string(whole)
        packed = _pack(model)
        records = {"target": self.name, "artifact_sha256": artifact.sha256, "packed": packed}
        for key, value in records.items():
            model.metadata_props.add(key=f"ohmfold.{key}", value=json.dumps(value, sort_keys=True))
        content = bytes(model.SerializeToString(deterministic=True))
        share = len(content) / len(whole)
        summary = {"weights": packed, "artifact_bytes": len(whole), "share": share}
        return Built(
            {FILE: content}, summary, (f"{share:.3f} times the size of the artifact, the same bits",)
        )


def packed_width(levels: int) -> int:
    """Bits of the number of a level."""
    return max(1, (levels - 1).bit_length())


def pack_planes(numbers: NDArray[np.uint8], width: int) -> dict[int, NDArray[np.uint8]]:
    """Pack numbers below 2^width.

    Args:
        numbers: uint8 `(N,)`.
        width: 1 to 7.

    Returns:
        By its bits, each plane: uint8 `(ceil(N / 8) * bits, 1)`.
    """
    padded = np.zeros(-(-numbers.size // 8) * 8, np.uint8)
    padded[: numbers.size] = numbers
    planes = {}
    for bits, place in _places(width):
        part = ((padded >> place) & ((1 << bits) - 1)).reshape(-1, 8 // bits)
        shifted = part << np.arange(0, 8, bits, dtype=np.uint8)
        planes[bits] = np.bitwise_or.reduce(shifted, axis=1, dtype=np.uint8).reshape(-1, 1)
    return planes


def _places(width: int) -> Iterator[tuple[int, int]]:
    """The planes of a width, and where each stands in a number; the low bits first."""
    place = 0
    for bits in _PLANES:
        if width & bits:
            yield bits, place
            place += bits


def _packable(model: onnx.ModelProto) -> Iterator[tuple[TensorProto, NDArray[Any], NDArray[Any]]]:
    """Weights that are worth packing: their initialiser, codes and levels."""
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    seen: set[str] = set()
    for node in model.graph.node:
        position = _WEIGHTS.get(node.op_type)
        tensor = None if position is None or node.domain else initializers.get(node.input[position])
        if (
            tensor is None
            or tensor.name in seen
            or tensor.data_type not in (TensorProto.INT8, TensorProto.UINT8)
        ):
            continue
        seen.add(tensor.name)
        codes = numpy_helper.to_array(tensor)
        levels = np.unique(codes)
        width = packed_width(len(levels))
        if width <= _WIDEST and codes.size * (8 - width) / 8 > _UNPACKING:
            yield tensor, codes, levels


def _pack(model: onnx.ModelProto) -> dict[str, dict[str, int]]:
    """Pack weights in place; return width and sizes of what was packed, by the weights' name."""
    graph, packed = model.graph, {}
    writer = _Unpacking(graph)
    for tensor, codes, levels in list(_packable(model)):
        width = packed_width(len(levels))
        planes = pack_planes(np.searchsorted(levels, codes.reshape(-1)).astype(np.uint8), width)
        graph.initializer.remove(tensor)
        writer.unpack(tensor.name, planes, width, levels, codes.shape)
        stored = sum(plane.size for plane in planes.values())
        packed[tensor.name] = {"bits": width, "weights": int(codes.size), "bytes": int(stored)}
    nodes = [*writer.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return packed


class _Unpacking:
    """Writes the unpacking of weights into a graph; constants that several share are written once."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._taken = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
        self._taken |= {name for node in graph.node for name in (*node.input, *node.output)}
        self._shared: dict[str, str] = {}

    def unpack(
        self,
        name: str,
        planes: dict[int, NDArray[np.uint8]],
        width: int,
        levels: NDArray[Any],
        shape: tuple[int, ...],
    ) -> None:
        """Write the nodes that make the weights `name`."""
        count = int(np.prod(shape))
        parts = []
        for bits, place in _places(width):
            stored = self._constant(f"{name}.plane_{bits}", planes[bits])
            shifts = self._share(f"unpack.shifts_{bits}", np.arange(0, 8, bits, dtype=np.uint8))
            mask = self._share(f"unpack.mask_{bits}", np.array((1 << bits) - 1, np.uint8))
            part = self._emit("BitShift", [stored, shifts], f"{name}.shifted_{bits}", direction="RIGHT")
            part = self._emit("BitwiseAnd", [part, mask], f"{name}.masked_{bits}")
            part = self._emit("Reshape", [part, self._ints("flat", [-1])], f"{name}.part_{bits}")
            if place:
                shift = self._share(f"unpack.place_{place}", np.array(place, np.uint8))
                part = self._emit("BitShift", [part, shift], f"{name}.placed_{bits}", direction="LEFT")
            parts.append(part)
        number = parts[0]
        for part in parts[1:]:
            number = self._emit("BitwiseOr", [number, part], f"{name}.number")
        if count % 8:
            ends = [self._ints("start", [0]), self._constant(f"{name}.count", np.array([count], np.int64))]
            number = self._emit("Slice", [number, *ends], f"{name}.cut")
        index = self._emit("Cast", [number], f"{name}.index", to=TensorProto.INT32)
        table = self._constant(f"{name}.levels", levels)
        values = self._emit("Gather", [table, index], f"{name}.values")
        target = self._constant(f"{name}.shape", np.array(shape, np.int64))
        self.nodes.append(helper.make_node("Reshape", [values, target], [name]))

    def _emit(self, op: str, inputs: list[str], wanted: str, **attributes: Any) -> str:
        name = self._free(wanted)
        # Without a name of its own, which would add a tenth to what unpacking takes: its output tells what it is.
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def _ints(self, what: str, values: list[int]) -> str:
        return self._share(f"unpack.{what}", np.array(values, np.int64))

    def _share(self, wanted: str, array: NDArray[Any]) -> str:
        if wanted not in self._shared:
            self._shared[wanted] = self._constant(wanted, array)
        return self._shared[wanted]

    def _constant(self, wanted: str, array: NDArray[Any]) -> str:
        name = self._free(wanted)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _free(self, wanted: str) -> str:
        name, count = wanted, 0
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
