"""The same network with its dense layers as onnxruntime has them fastest: one QGemm each.

An artifact holds standard operators only, so a dense layer is a chain of five, of which onnxruntime fuses none:

    y = QuantizeLinear(Cast(MatMulInteger(x, W, z_x, z_w) + b) * M, 1, z_y)

`com.microsoft.QGemm` computes all of it in one, with the same float32 product and the same rounding:

    y = round(clamp(float32((x - z_x) (W - z_w) + b) * (s_x s_w / s_y))) + z_y        s_x = 1, s_w = M, s_y = 1

and, without s_y and z_y, the float32 product itself: the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from ohmfold.toolchain.graph import (
    add_initializer,
    constant,
    emit,
    graph_of,
    replace_value,
    sole_consumer,
    static_shape,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["dense_as_qgemm"]

_DOMAIN = "com.microsoft"


def dense_as_qgemm(model: ir.Model) -> tuple[ir.Model, int]:
    """Return a copy whose dense layers are QGemm, and how many there are; other layers stay as they are."""
    copy = ir.from_proto(ir.to_proto(model))
    products = [node for node in copy.graph if node.op_type == "MatMulInteger"]
    count = sum(_rewritten(node) for node in products)
    if count:
        copy.graph.opset_imports[_DOMAIN] = 1
        common.RemoveUnusedNodesPass()(copy)
    return copy, count


def _rewritten(product: ir.Node) -> bool:
    """Put a QGemm in the place of a dense layer's chain, where it is one; say whether it was."""
    x, *constants = product.inputs
    weight, x_zero, w_zero = (constant(value) for value in constants) if len(constants) == 3 else (None,) * 3
    if weight is None or weight.ndim != 2 or x_zero is None or w_zero is None or w_zero.size != 1:
        return False
    if x is None or len(static_shape(x) or ()) != 2:
        return False
    value, bias = _with_bias(product.outputs[0], weight.shape[1])
    cast = sole_consumer(value, "Cast")
    rescale = sole_consumer(cast.outputs[0], "Mul") if cast is not None else None
    multiplier = constant(rescale.inputs[1]) if rescale is not None else None
    if rescale is None or multiplier is None or multiplier.shape not in ((), (1,), weight.shape[1:]):
        return False
    _emit(product, (x_zero, w_zero), bias, multiplier, rescale.outputs[0])
    return True


def _with_bias(products: ir.Value, columns: int) -> tuple[ir.Value, NDArray[Any] | None]:
    """The accumulator behind a product, and the bias that was added."""
    add = sole_consumer(products, "Add")
    if add is None:
        return products, None
    bias = next((found for value in add.inputs if (found := constant(value)) is not None), None)
    if bias is None or bias.shape != (columns,):
        return products, None
    return add.outputs[0], bias


def _emit(
    product: ir.Node,
    zeros: tuple[NDArray[Any], NDArray[Any]],
    bias: NDArray[Any] | None,
    multiplier: NDArray[Any],
    scaled: ir.Value,
) -> None:
    """Emit QGemm before the product, for the codes if `scaled` is only requantised by 1, else for `scaled`."""
    graph, name = graph_of(product), product.name or "dense"
    x_zero, w_zero = zeros

    def put(what: str, array: NDArray[Any]) -> ir.Value:
        return add_initializer(graph, f"{name}.qgemm.{what}", array)

    one, scale = put("one", np.ones((), np.float32)), multiplier.reshape(() if multiplier.size == 1 else -1)
    operands = [
        product.inputs[0], one, put("input_zero_point", x_zero.reshape(())),
        product.inputs[1], put("scale", scale), put("weight_zero_point", np.full(scale.shape, w_zero, w_zero.dtype)),
        None if bias is None else put("bias", bias),
    ]  # fmt: skip
    target, dtype = scaled, ir.DataType.FLOAT
    quantise = sole_consumer(scaled, "QuantizeLinear")
    if quantise is not None and constant(quantise.inputs[1]) == np.float32(1):
        target, dtype = quantise.outputs[0], ir.DataType.UINT8
        operands += [one, quantise.inputs[2]]
    wanted = str(target.name)
    target.name = f"{wanted}.replaced"
    result = emit(
        product, "QGemm", operands, name=f"{name}.qgemm", output=wanted, dtype=dtype, domain=_DOMAIN
    )
    result.shape = target.shape
    replace_value(target, result)
