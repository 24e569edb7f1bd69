"""What every step of a plan must do for a batch: multiplications, and bytes that it cannot avoid reading.

    bytes = runs * weights + batch * codes

A step runs once for every chunk of the batch, or once for all of it (see `toolchain.planning.plan`). Weights count
one byte each, or half of one where a product of one row reads them in nibbles; codes one byte, sums four. Padding
and what is written do not count. Steps that fill padding are left out: they read nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ohmfold.errors import OhmfoldError
from ohmfold.kernels.packing import pack_nibbles
from ohmfold.toolchain.execution import batch_prefix
from ohmfold.toolchain.planning import PIECE_SAMPLES, Plan
from ohmfold.toolchain.planning.fuse import fuse
from ohmfold.toolchain.planning.nodes import ConvNode, DenseNode, ReshapeNode
from ohmfold.toolchain.planning.steps import build_steps

if TYPE_CHECKING:
    from ohmfold.kernels.isa.base import InstructionSet
    from ohmfold.toolchain.planning.forms import Form
    from ohmfold.toolchain.planning.nodes import Node
    from ohmfold.toolchain.program import Program

    Key = tuple[str, str]

__all__ = ["StepWork", "work_of"]


@dataclass(frozen=True)
class StepWork:
    """What a step must do for a batch.

    Attributes:
        products: Multiplications of codes and weights.
        bytes_read: See the module.
        bytes_at_once: Weights and codes of the largest run: what a cache must hold for it.
    """

    products: int
    bytes_read: int
    bytes_at_once: int


def work_of(program: Program, isa: InstructionSet, batch: int) -> dict[Key, StepWork]:
    """The work of the steps that compute something, by layer and kind, as `Emulator.profile` names them.

    Raises:
        OhmfoldError: The program has layers outside the plan, or the batch is more than a piece.
    """
    layers = len(program.layers)
    if batch_prefix(program) < layers or batch > PIECE_SAMPLES:
        raise OhmfoldError(f"the work of a batch of {batch} is known for planned layers and one piece alone")
    keep = frozenset(spec.name for spec in program.outputs)
    chunk = min(batch, Plan(program, layers, keep, isa).chunk)
    chunked = {(step.layer, step.kind) for step in build_steps(program, layers, keep, isa, None).chunked}
    fused = fuse(program, layers, keep)
    found = {}
    for node in fused.nodes:
        if isinstance(node, ReshapeNode) or any(name not in fused.forms for name in node.inputs):
            continue
        key = node.name, node.kind
        at_once = chunk if key in chunked else batch
        inputs = [fused.forms[name] for name in node.inputs]
        codes = sum(form.features * (4 if form.sums else 1) for form in inputs)
        weights = _weight_bytes(node, at_once)
        runs = -(-batch // at_once)
        if not fused.arrays.isdisjoint(node.inputs):
            found.setdefault((node.name, "layout"), StepWork(0, batch * codes, at_once * codes))
        found[key] = StepWork(
            batch * _products(node, inputs), runs * weights + batch * codes, weights + at_once * codes
        )
    return found


def _products(node: Node, inputs: list[Form]) -> int:
    """Multiplications for one image; those whose results a fused pooling drops count too."""
    if isinstance(node, ConvNode):
        outputs = node.infer(inputs)
        positions = 0 if outputs is None else outputs[0].positions * node.pool[0] * node.pool[1]
        return positions * int(node.layer.weight.size)
    return int(node.layer.weight.size) if isinstance(node, DenseNode) else 0


def _weight_bytes(node: Node, images: int) -> int:
    """Bytes of a step's weights."""
    if not isinstance(node, ConvNode | DenseNode):
        return 0
    weight = node.layer.weight
    if isinstance(node, DenseNode) and images == 1:
        in_nibbles = pack_nibbles(weight[np.newaxis, np.newaxis]) is not None
        return int(weight.size + 1) // 2 if in_nibbles else int(weight.size)
    return int(weight.size)
