"""The inner product of the exact GEMM: int16 pairs into int32, four or one rows by sixteen columns.

For rows r and columns c it computes

    acc[r, c] = sum over segments s, pairs p of
                x[row r + segment s + 2p]     * w[s, p, c, 0]
              + x[row r + segment s + 2p + 1] * w[s, p, c, 1]

Weights lie as `[segment][pair][16 columns][2]`, so that one vector holds one pair for eight columns; a pair
of activations is broadcast against it. On AVX2 the multiply-add of pairs is `vpmaddwd`. Elsewhere the same is
said in plain vector LLVM IR, which every target lowers. `vpmaddwd` overflows in one case only, four factors
of -32768: callers hold both operands within -255..255.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as numba_cgutils
from numba.extending import intrinsic

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COLUMNS", "ROWS", "multiply_row", "multiply_rows"]

cgutils: Any = numba_cgutils  # its functions carry no annotations

ROWS = 4
COLUMNS = 16

_LANES = 8
_VECTORS = COLUMNS // _LANES
_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_WORDS = ir.VectorType(_I16, 2 * _LANES)
_SUMS = ir.VectorType(_I32, _LANES)


def _has_avx2(context: Any) -> bool:
    """Whether the code that Numba generates may use AVX2; an intrinsic without its feature aborts."""
    _, _, features = context.codegen().magic_tuple()
    return "+avx2" in features.split(",")


def _multiply_pairs(context: Any, builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """`a[2i] * b[2i] + a[2i + 1] * b[2i + 1]` of two vectors of int16, in int32."""
    if _has_avx2(context):
        function_type = ir.FunctionType(_SUMS, [_WORDS, _WORDS])
        function = cgutils.get_or_insert_function(builder.module, function_type, "llvm.x86.avx2.pmadd.wd")
        return builder.call(function, [a, b])
    wide = ir.VectorType(_I32, 2 * _LANES)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (
        builder.shuffle_vector(
            products, products, ir.Constant(_SUMS, [2 * lane + first for lane in range(_LANES)])
        )
        for first in (0, 1)
    )
    return builder.add(even, odd)


def _load(builder: ir.IRBuilder, pointer: ir.Value, index: ir.Value, kind: ir.Type) -> ir.Value:
    """Load `kind` from an int16 pointer at an element index; int16 alignment."""
    address = builder.gep(pointer, [index])
    return builder.load(builder.bitcast(address, kind.as_pointer()), align=2)


def _broadcast(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A pair of int16, held in one int32, in every lane of a vector of int16."""
    undefined = ir.Constant(_SUMS, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_I32, 0))
    lanes = builder.shuffle_vector(first, undefined, ir.Constant(_SUMS, [0] * _LANES))
    return builder.bitcast(lanes, _WORDS)


def _multiplier(rows: int) -> Callable[..., Any]:
    """The code generator of `multiply_rows` (four rows) and `multiply_row` (one)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, base, offsets, first, segments, pairs, weight, panel, acc = arguments

        def data(position: int, value: ir.Value) -> ir.Value:
            return context.make_array(signature.args[position])(context, builder, value).data

        def constant(value: int) -> ir.Constant:
            return ir.Constant(_I64, value)

        x_data, weight_data, acc_data = data(0, x), data(6, weight), data(8, acc)
        offsets_data, segments_data = data(2, offsets), data(4, segments)
        segments_array = context.make_array(signature.args[4])(context, builder, segments)
        count = builder.extract_value(segments_array.shape, 0)

        starts = []
        for row in range(rows):
            address = builder.gep(offsets_data, [builder.add(first, constant(row))])
            starts.append(builder.add(base, builder.load(address)))
        zero = ir.Constant(_SUMS, [0] * _LANES)
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(_VECTORS)] for _ in range(rows)]
        for vector in (v for row_sums in sums for v in row_sums):
            builder.store(zero, vector)  # alloca_once_value stores in the entry block alone
        position = cgutils.alloca_once_value(builder, panel)
        builder.store(panel, position)

        with cgutils.for_range(builder, count, intp=_I64) as segment_loop:
            shift = builder.load(builder.gep(segments_data, [segment_loop.index]))
            row_starts = [builder.add(start, shift) for start in starts]
            with cgutils.for_range(builder, pairs, intp=_I64) as pair_loop:
                here = builder.load(position)
                step = builder.shl(pair_loop.index, constant(1))
                weights = [
                    _load(builder, weight_data, builder.add(here, constant(v * 2 * _LANES)), _WORDS)
                    for v in range(_VECTORS)
                ]
                for row in range(rows):
                    pair = _load(builder, x_data, builder.add(row_starts[row], step), _I32)
                    activations = _broadcast(builder, pair)
                    for v in range(_VECTORS):
                        product = _multiply_pairs(context, builder, activations, weights[v])
                        builder.store(builder.add(builder.load(sums[row][v]), product), sums[row][v])
                builder.store(builder.add(here, constant(2 * COLUMNS)), position)

        for row in range(rows):
            for v in range(_VECTORS):
                address = builder.gep(acc_data, [constant(row * COLUMNS + v * _LANES)])
                target = builder.bitcast(address, _SUMS.as_pointer())
                builder.store(builder.load(sums[row][v]), target, align=4)
        return context.get_dummy_value()

    return generate


def _signature(x: Any, offsets: Any, segments: Any, weight: Any, acc: Any) -> Any:
    return types.void(x, types.int64, offsets, types.int64, segments, types.int64, weight, types.int64, acc)


def _multiply_rows(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    base: Any,  # noqa: ARG001
    offsets: Any,
    first: Any,  # noqa: ARG001
    segments: Any,
    pairs: Any,  # noqa: ARG001
    weight: Any,
    panel: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """Four rows by sixteen columns; see the module.

    Args:
        typing_context: Numba's; not an argument of the call.
        x: int16, one dimension: the activations less their zero point.
        base: Element of `x` that the rows' offsets count from.
        offsets: int64: where each row starts.
        first: Index into `offsets` of the first of the four rows.
        segments: int64: where each segment starts, counted from its row's start.
        pairs: Pairs in each segment.
        weight: int16, one dimension: packed weights.
        panel: Element of `weight` at which these sixteen columns start.
        acc: int32 `(ROWS * COLUMNS,)`, written.
    """
    return _signature(x, offsets, segments, weight, acc), _multiplier(ROWS)


def _multiply_row(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    base: Any,  # noqa: ARG001
    offsets: Any,
    first: Any,  # noqa: ARG001
    segments: Any,
    pairs: Any,  # noqa: ARG001
    weight: Any,
    panel: Any,  # noqa: ARG001
    acc: Any,
) -> Any:
    """One row by sixteen columns, for a row that is left over or a batch of one."""
    return _signature(x, offsets, segments, weight, acc), _multiplier(1)


multiply_rows: Any = intrinsic(_multiply_rows)
multiply_row: Any = intrinsic(_multiply_row)
