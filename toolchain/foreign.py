"""Integer models made by anybody, read: Q/DQ patterns are lowered first, computed shapes and weights made constant.

It stands above the passes and the reader: the passes use the reader to check what they wrote, and a model made by
others needs passes before the reader can take it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from .reader import read_program
from .unpack import BIT_OPERATORS, unpack_weights

if TYPE_CHECKING:
    from .program import Program

__all__ = ["read_model"]

SHAPE_ARITHMETIC = frozenset({"Shape", "Size", "ConstantOfShape"})


def read_model(model: ir.Model) -> Program:
    """Read an integer model, ours or another's; the model is not changed.

    Raises:
        UnsupportedError: Part of it cannot be run exactly.
        ModelError: It is broken.
    """
    return read_program(_settled(model))


def _settled(model: ir.Model) -> ir.Model:
    """The model itself, or a copy in which integer operators stand for Q/DQ and what is computed once is constant.

    Exporters compute the target of a Reshape from the batch size, by a chain of Shape, Gather and Concat; packed
    weights are unpacked by operators on bits (see `targets.packed`).
    """
    names = {node.op_type for node in model.graph}
    if not names.isdisjoint(BIT_OPERATORS):
        model = ir.from_proto(ir.to_proto(model))
        unpack_weights(model)
    computes_shapes = not names.isdisjoint(SHAPE_ARITHMETIC)
    if not computes_shapes and "DequantizeLinear" not in names:
        return model
    # The passes need what only models of this kind need, and some of it takes a second to import.
    from .passes.apply import apply
    from .passes.fold_constants import FoldConstantsPass
    from .passes.lower_qdq import LowerQdqPass, is_qdq

    if not computes_shapes and not is_qdq(model):
        return model
    copy = ir.from_proto(ir.to_proto(model))
    apply(LowerQdqPass() if is_qdq(copy) else FoldConstantsPass(), copy)
    return copy
