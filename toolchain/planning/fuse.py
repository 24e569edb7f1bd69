"""From a program's layers to the nodes of a plan: which layers become one step, and in which form tensors lie.

1. A convolution followed by nothing but a maximum over windows that do not overlap is one step with it, if the
   windows are small, no multiplier is negative (the maximum and the requantisation then commute) and nobody wants
   the convolution's own output.
2. A weighted sum followed by nothing but one or two requantisations is one step with them, if nobody wants the
   sum itself.
3. A convolution whose multiplier varies over positions, and a dense layer whose accumulator somebody wants, are
   two steps: the sums and their requantisation.
4. A dense layer followed by nothing but the scale that makes logits of its sums is one step with it, if nobody
   wants the sums.
5. A reshape that flattens a map is no step: the map has two names.
6. Whatever fits no kernel (and a layer whose input would have to be brought into a layout for little gain) runs on
   arrays.
7. On a crossbar, a convolution or dense layer is the sums of its array and their requantisation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import HardwareError
from ...kernels.conv_maps import is_depthwise, pools_in_drain
from .. import program as p
from .crossbar_node import CrossbarNode
from .forms import Form, form_of
from .map_nodes import (
    AddNode,
    ConcatNode,
    MaxPoolNode,
    PairTableNode,
    RequantiseNode,
    SpatialSumNode,
    SumNode,
    TableNode,
)
from .nodes import ArrayNode, ConvNode, DenseNode, LogitsNode, Node, ReshapeNode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..crossbar import Crossbar

__all__ = ["FusedProgram", "fuse"]

# The tensor between the two steps of rule 3 has no name in the model.
_SUMS_OF = "\0sums of "


@dataclass
class FusedProgram:
    """Nodes in the order in which they run, and the forms of tensors.

    Attributes:
        nodes: The nodes.
        forms: Tensors that lie channels last. One that is an array as well is brought there.
        arrays: Tensors that some array node writes, and the program's inputs.
    """

    nodes: list[Node] = field(default_factory=list)
    forms: dict[str, Form] = field(default_factory=dict)
    arrays: set[str] = field(default_factory=set)


def fuse(
    program: p.Program, stop: int, keep: Collection[str], crossbar: Crossbar | None = None
) -> FusedProgram:
    """The nodes of the first `stop` layers; tensors in `keep` are computed as they are.

    Raises:
        HardwareError: A convolution or dense layer cannot run on the crossbar.
    """
    fuser = _Fuser(program, stop, frozenset(keep), crossbar)
    for layer in program.layers[:stop]:
        if id(layer) not in fuser.done:
            rule = _RULES.get(type(layer))
            if rule is None or not rule(fuser, layer):
                fuser.run_on_arrays(layer)
    return fuser.fused


class _Fuser:
    """The state of `fuse`; every rule says whether it applied."""

    def __init__(
        self, program: p.Program, stop: int, keep: frozenset[str], crossbar: Crossbar | None
    ) -> None:
        self.program = program
        self.crossbar = crossbar
        self.inside = {id(layer) for layer in program.layers[:stop]}
        self.keep = keep
        self.done: set[int] = set()
        self.fused = FusedProgram(arrays={spec.name for spec in program.inputs})

    def run_on_arrays(self, layer: p.Layer) -> None:
        """Rule 6."""
        names = [name for name in layer.outputs if name]
        if isinstance(layer, p.Dense) and layer.accumulator in self.keep:
            names.append(str(layer.accumulator))
        self.fused.nodes.append(
            ArrayNode(name=layer.name, inputs=layer.inputs, outputs=tuple(names), layer=layer)
        )
        self.fused.arrays.update(names)

    def add(self, *nodes: Node) -> bool:
        """Add nodes that run one after another, if every one's inputs fit its kernel."""
        known = dict(self.fused.forms)
        for node in nodes:
            forms = []
            for name in node.inputs:
                form = known.get(name)
                if form is None and node.packs:
                    form = form_of(self.program.tensors.get(name))
                forms.append(form)
            outputs = node.infer(forms)
            if outputs is None:
                return False
            known.update(
                {name: form for name, form in zip(node.inputs, forms, strict=True) if form is not None}
            )
            known.update(zip(node.outputs, outputs, strict=bool(outputs)))
        self.fused.nodes.extend(nodes)
        self.fused.forms.update(known)
        return True

    def only_readers(self, name: str, kind: type[p.Layer]) -> list[Any]:
        """All readers of a tensor that nobody else wants, if they are of one kind and inside the plan."""
        readers = self.program.consumers.get(name, ())
        fits = all(isinstance(layer, kind) and id(layer) in self.inside for layer in readers)
        return list(readers) if fits and name not in self.keep else []

    def on_crossbar(self, layer: p.Conv | p.Dense, middle: str, crossbar: Crossbar) -> bool:
        """Rule 7."""
        requantisation = layer.requantisation
        target = layer.output if requantisation is None else middle
        node = CrossbarNode(
            name=layer.name, inputs=layer.inputs, outputs=(target,), layer=layer, crossbar=crossbar
        )
        rest = [] if requantisation is None else [_requantise_sums(layer, middle, requantisation)]
        if not self.add(node, *rest):
            raise HardwareError(
                f"layer {layer.name!r} ({type(layer).__name__}) cannot run on a crossbar: its input is not a batch of "
                "maps or vectors of codes"
            )
        return True

    def conv(self, layer: p.Conv) -> bool:
        """Rules 1, 3 and 7."""
        requantisation = layer.requantisation
        if self.crossbar is not None:
            return self.on_crossbar(layer, _SUMS_OF + layer.output, self.crossbar)
        common: dict[str, Any] = {"name": layer.name, "inputs": layer.inputs, "layer": layer}
        if requantisation is not None and not _by_channel(layer, requantisation):
            middle = _SUMS_OF + layer.output
            sums = ConvNode(**common, outputs=(middle,), requantisation=None)
            return self.add(sums, _requantise_sums(layer, middle, requantisation))
        readers = self.only_readers(layer.output, p.MaxPool)
        if len(readers) == 1 and _pools(layer, readers[0]):
            window = (1, *readers[0].kernel)[-2:]
            outputs = readers[0].outputs
            node = ConvNode(
                **common, outputs=outputs, requantisation=requantisation, pool=(window[0], window[1])
            )
            if self.add(node):
                self.done.add(id(readers[0]))
                return True
        return self.add(ConvNode(**common, outputs=layer.outputs, requantisation=requantisation))

    def dense(self, layer: p.Dense) -> bool:
        """Rules 3, 4 and 7."""
        if self.crossbar is not None:
            kept = layer.accumulator in self.keep
            middle = str(layer.accumulator) if kept else _SUMS_OF + layer.output
            return self.on_crossbar(layer, middle, self.crossbar)
        spec = self.program.tensors.get(layer.input)
        if spec is None or spec.shape is None or len(spec.shape) != 2:
            return False
        common: dict[str, Any] = {"name": layer.name, "inputs": layer.inputs, "layer": layer}
        if layer.accumulator in self.keep and layer.requantisation is not None:
            middle = str(layer.accumulator)
            sums = DenseNode(**common, outputs=(middle,), requantisation=None)
            return self.add(sums, _requantise_sums(layer, middle, layer.requantisation))
        readers = self.only_readers(layer.output, p.Scale)
        if len(readers) == 1 and layer.requantisation is None and readers[0].multiplier.ndim <= 1:
            scale = np.asarray(readers[0].multiplier, np.float32)
            outputs = readers[0].outputs
            if self.add(LogitsNode(**common, outputs=outputs, requantisation=None, scale=scale)):
                self.done.add(id(readers[0]))
                self.fused.arrays.update(outputs)
                return True
        return self.add(DenseNode(**common, outputs=layer.outputs, requantisation=layer.requantisation))

    def weighted_sum(self, layer: p.WeightedSum) -> bool:
        """Rule 2."""
        readers = self.only_readers(layer.output, p.Requantise)
        common: dict[str, Any] = {"name": layer.name, "inputs": layer.inputs, "layer": layer}
        if 1 <= len(readers) <= 2:
            outputs = tuple(reader.output for reader in readers)
            if self.add(AddNode(**common, outputs=outputs, results=tuple(readers))):
                self.done.update(id(reader) for reader in readers)
                return True
        return self.add(SumNode(**common, outputs=layer.outputs))

    def requantise(self, layer: p.Requantise) -> bool:
        """Sums that lie channels last."""
        node = RequantiseNode(
            name=layer.name,
            inputs=layer.inputs,
            outputs=layer.outputs,
            bias=layer.bias,
            requantisation=layer.requantisation,
        )
        return self.add(node)

    def reshape(self, layer: p.Reshape) -> bool:
        """Rule 5."""
        result = form_of(self.program.tensors.get(layer.output))
        if result is None:
            return False
        return self.add(
            ReshapeNode(
                name=layer.name, inputs=layer.inputs, outputs=layer.outputs, layer=layer, result=result
            )
        )

    def one_to_one(self, layer: Any) -> bool:
        """A layer that is one node."""
        kind = _ONE_TO_ONE[type(layer)]
        return self.add(kind(name=layer.name, inputs=layer.inputs, outputs=layer.outputs, layer=layer))


def _requantise_sums(layer: p.Layer, source: str, requantisation: p.Requantisation) -> Node:
    return RequantiseNode(
        name=layer.name, inputs=(source,), outputs=layer.outputs, bias=None, requantisation=requantisation
    )


def _by_channel(layer: p.Conv, requantisation: p.Requantisation) -> bool:
    """Whether the multiplier has one value, or one for each output channel."""
    multiplier = requantisation.multiplier
    return multiplier.size == 1 or multiplier.size == multiplier.shape[0] == len(layer.weight)


def _pools(conv: p.Conv, pool: p.MaxPool) -> bool:
    """Whether rule 1 holds for a pooling that is the only reader."""
    window = (1, *pool.kernel)[-2:]
    separate = not any(pool.pads) and set(pool.dilations) == {1} and pool.strides == pool.kernel
    return (
        separate
        and not pool.ceil_mode
        and not is_depthwise(conv.weight, conv.groups)
        and conv.requantisation is not None
        and pools_in_drain((window[0], window[1]), conv.requantisation.multiplier)
    )


_ONE_TO_ONE: dict[type[p.Layer], Callable[..., Node]] = {
    p.Concat: ConcatNode,
    p.MaxPool: MaxPoolNode,
    p.QuantisedAdd: PairTableNode,
    p.SpatialSum: SpatialSumNode,
    p.Table: TableNode,
}

_RULES: dict[type[p.Layer], Callable[[_Fuser, Any], bool]] = {
    p.Conv: _Fuser.conv,
    p.Dense: _Fuser.dense,
    p.Requantise: _Fuser.requantise,
    p.Reshape: _Fuser.reshape,
    p.WeightedSum: _Fuser.weighted_sum,
    **dict.fromkeys(_ONE_TO_ONE, _Fuser.one_to_one),
}
