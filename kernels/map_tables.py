"""Tables of codes: `out = table[x]` and `out = table[256 a + b]`, over rows of maps.

Where the processor permutes bytes of two vectors by a third (AVX512-VBMI), four of them hold a table of 256 codes;
elsewhere, and for what is left of a run, entries are looked up one by one. Nothing here checks bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import types

from .cache import kernel
from .emit import I8, I64, Loop, at, call, const, integers, load, pointer, splat, store
from .map_runs import address, each_vector, emitted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llvmlite import ir

__all__ = ["look_up_pair_rows", "look_up_rows"]

_WIDEST = 64  # lanes of a vector
_BLOCK = 8  # entries that are looked up one by one in a turn

number = types.int64


def _look_up_wide(builder: ir.IRBuilder, table: ir.Value, codes: ir.Value) -> ir.Value:
    """64 entries of a table: two permutations of 128 entries each, by the codes' lower seven bits."""
    kind = codes.type
    quarters = [load(builder, table, 64 * k, kind) for k in range(4)]
    lower, upper = (
        call(builder, "llvm.x86.avx512.vpermi2var.qi.512", kind, [quarters[k], codes, quarters[k + 1]])
        for k in (0, 2)
    )
    return builder.select(builder.icmp_signed("<", codes, splat(kind, 0)), upper, lower)


@emitted
def _look_up(
    typing_context: Any,  # noqa: ARG001
    x: Any,
    source: Any,  # noqa: ARG001
    table: Any,
    out: Any,
    target: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
) -> Any:
    """`out[target + i] = table[x[source + i]]` for i below `count`; the table has 256 entries."""
    signature = types.void(x, number, table, out, number, number)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        x, source, table, out, target, count = arguments
        here = address(context, builder, signature.args[0], x, source)
        entries = pointer(context, builder, signature.args[2], table)
        there = address(context, builder, signature.args[3], out, target)
        _, _, features = context.codegen().magic_tuple()
        done: ir.Value = const(0)
        if "+avx512vbmi" in features.split(","):
            done = builder.and_(count, const(-_WIDEST))
            with Loop(builder, builder.lshr(count, const(6))) as block:
                offset = builder.mul(block.index, const(_WIDEST))
                codes = load(builder, here, offset, integers(8, _WIDEST))
                store(builder, _look_up_wide(builder, entries, codes), there, offset)
        _emit_look_up(
            builder, [at(builder, here, done)], entries, at(builder, there, done), builder.sub(count, done)
        )
        return context.get_dummy_value()

    return signature, generate


@emitted
def _look_up_pairs(
    typing_context: Any,  # noqa: ARG001
    a: Any,
    first: Any,  # noqa: ARG001
    b: Any,
    second: Any,  # noqa: ARG001
    table: Any,
    out: Any,
    target: Any,  # noqa: ARG001
    count: Any,  # noqa: ARG001
) -> Any:
    """`out[target + i] = table[256 * a[first + i] + b[second + i]]` for i below `count`."""
    signature = types.void(a, number, b, number, table, out, number, number)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        a, first, b, second, table, out, target, count = arguments
        inputs = [
            address(context, builder, signature.args[0], a, first),
            address(context, builder, signature.args[2], b, second),
        ]
        entries = pointer(context, builder, signature.args[4], table)
        there = address(context, builder, signature.args[5], out, target)
        _emit_look_up(builder, inputs, entries, there, count)
        return context.get_dummy_value()

    return signature, generate


def _emit_look_up(
    builder: ir.IRBuilder, inputs: Sequence[ir.Value], table: ir.Value, out: ir.Value, count: ir.Value
) -> None:
    """Look up one entry after the other, in blocks; the codes of all inputs are the digits of its number."""

    def body(lanes: int, offset: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
        for lane in range(lanes):
            place = builder.add(offset, const(lane))
            entry: ir.Value = const(0)
            for x in inputs:
                code = builder.zext(load(builder, x, place, I8), I64)
                entry = builder.or_(builder.shl(entry, const(8)), code)
            store(builder, load(builder, table, entry, I8), out, place)
        return values

    each_vector(builder, count, _BLOCK, [], body)


@kernel
def look_up_rows(
    x: Any,
    image: int,
    origin: int,
    row: int,
    table: Any,
    out: Any,
    out_image: int,
    out_origin: int,
    out_row: int,
    rows: int,
    images: int,
    count: int,
) -> None:
    """`count` codes of every row; a map is given as in `map_moves`."""
    for n in range(images):
        for y in range(rows):
            source, target = n * image + origin + y * row, n * out_image + out_origin + y * out_row
            _look_up(x, source, table, out, target, count)


@kernel
def look_up_pair_rows(
    a: Any,
    a_image: int,
    a_origin: int,
    a_row: int,
    b: Any,
    b_image: int,
    b_origin: int,
    b_row: int,
    table: Any,
    out: Any,
    out_image: int,
    out_origin: int,
    out_row: int,
    rows: int,
    images: int,
    count: int,
) -> None:
    """As `look_up_rows`, of two maps."""
    for n in range(images):
        for y in range(rows):
            first, second = n * a_image + a_origin + y * a_row, n * b_image + b_origin + y * b_row
            target = n * out_image + out_origin + y * out_row
            _look_up_pairs(a, first, b, second, table, out, target, count)
