"""The matrix kernel alone, in products a second, and the most that the multiplying instruction can do.

The peak of an instruction set is a loop of one instruction on registers, with as many independent sums as hide
its latency: 24 for `vpdpbusd` (64 products each), 4 for `tdpbusd` (16384 each). AVX2 and the portable kernel
multiply by several instructions; they have no such figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from ohmfold.kernels import isa
from ohmfold.kernels.codes import MapCodes
from ohmfold.kernels.conv_maps import SPARE_BYTES, ConvMaps
from ohmfold.kernels.emit import Loop, at, const, integers, load, pointer, splat, store
from ohmfold.kernels.isa.amx import TileInstructions
from ohmfold.kernels.layout import MapLayout
from ohmfold.kernels.packing import aligned_empty

from .machine import alternate

if TYPE_CHECKING:
    from collections.abc import Callable

    from llvmlite import ir

    from ohmfold.kernels.isa.amx import TileUnit

__all__ = [
    "BUFFER_BYTES",
    "SHAPES",
    "KernelRow",
    "Peak",
    "measure_kernel",
    "measure_peak",
    "tile_loop",
    "vector_loop",
]

SHAPES = ((256, 784, 1024), (256, 3136, 1024))
BUFFER_BYTES = 1 << 14

_SUMS = integers(32, 16)
_VECTOR_SUMS, _VECTOR_PRODUCTS, _VECTOR_TURNS = 24, 64, 100_000
_TILE_SUMS, _TILE_PRODUCTS, _TILE_TURNS = 4, 16 * 16 * 64, 20_000
_TILE_BYTES = 1024


@dataclass(frozen=True)
class Peak:
    """What one core does of one instruction alone, in 10^9 products a second."""

    isa: str
    instruction: str
    gmacs: float


@dataclass(frozen=True)
class KernelRow:
    """The kernel on `rows x depth` codes times `depth x columns` weights of 3 bits, on one thread.

    Attributes:
        isa: The instruction set.
        rows, depth, columns: Of the product.
        ms: Median milliseconds, requantisation included.
        gmacs: 10^9 products a second.
        share: Of the instruction's peak; None where there is none.
    """

    isa: str
    rows: int
    depth: int
    columns: int
    ms: float
    gmacs: float
    share: float | None


def vector_loop(dot: Callable[..., ir.Value]) -> Callable[[int, Any], None]:
    """A compiled loop of `turns` times 24 dot products; the sum of all sums is left in the buffer's first 64 bytes.

    Args:
        dot: An instruction set's. The codes are at the buffer's first byte, the weights at byte 64.
    """

    @intrinsic
    def turn(typing_context: Any, turns: Any, buffer: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            base = pointer(context, builder, signature.args[1], arguments[1])
            codes, weights = load(builder, base, 0, _SUMS, 64), load(builder, base, 64, _SUMS, 64)
            zeros = [splat(_SUMS, 0)] * _VECTOR_SUMS
            with Loop(builder, arguments[0], zeros) as loop:
                loop.carry([dot(builder, total, codes, weights) for total in loop.values])
            total = loop.results[0]
            for other in loop.results[1:]:
                total = builder.add(total, other)
            store(builder, total, base, 0, 64)
            return context.get_dummy_value()

        return types.void(types.int64, buffer), generate

    @numba.njit(nogil=True)
    def run(turns: int, buffer: Any) -> None:
        turn(turns, buffer)

    compiled: Callable[[int, Any], None] = run
    return compiled


def tile_loop(unit: TileUnit) -> Callable[[int, Any], None]:
    """A compiled loop of `turns` times four tile products; the four sums are left in the buffer's first 4 KiB.

    Args:
        unit: The instructions, or a model of them. Two tiles of codes are at byte 0 of the buffer, two of weights
            at byte 2048; what lies behind them is scratch, 16 KiB in all.
    """

    @intrinsic
    def turn(typing_context: Any, turns: Any, buffer: Any) -> Any:  # noqa: ARG001
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
            base = pointer(context, builder, signature.args[1], arguments[1])
            unit.configure(builder)
            zeros = at(builder, base, _TILE_SUMS * _TILE_BYTES)
            store(builder, splat(_SUMS, 0), zeros, 0, 64)
            for tile in range(_TILE_SUMS):
                unit.load(builder, base, tile, zeros, const(0))
                unit.load(builder, base, _TILE_SUMS + tile, at(builder, base, _TILE_BYTES * tile), const(64))
            with Loop(builder, arguments[0]):
                for total, (codes, weights) in enumerate(((4, 6), (4, 7), (5, 6), (5, 7))):
                    unit.multiply(builder, base, total, codes, weights)
            for tile in range(_TILE_SUMS):
                unit.store(builder, base, tile, at(builder, base, _TILE_BYTES * tile), const(64))
            unit.release(builder)
            return context.get_dummy_value()

        return types.void(types.int64, buffer), generate

    @numba.njit(nogil=True)
    def run(turns: int, buffer: Any) -> None:
        turn(turns, buffer)

    compiled: Callable[[int, Any], None] = run
    return compiled


def measure_peak(name: str, repeats: int) -> Peak | None:
    """Time the multiplying instruction of an instruction set that this machine has; None where it has no one such."""
    if name == "amx":
        run, products, turns, instruction = (
            tile_loop(TileInstructions()), _TILE_SUMS * _TILE_PRODUCTS, _TILE_TURNS, "tdpbusd",
        )  # fmt: skip
    elif name == "vnni":
        run, products, turns, instruction = (
            vector_loop(isa.find(name).dot), _VECTOR_SUMS * _VECTOR_PRODUCTS, _VECTOR_TURNS, "vpdpbusd",
        )  # fmt: skip
    else:
        return None
    buffer = aligned_empty(BUFFER_BYTES)
    buffer[:] = 1
    ms = alternate({name: partial(run, turns, buffer)}, repeats)[name]
    return Peak(name, instruction, products * turns / ms / 1e6)


def measure_kernel(name: str, shape: tuple[int, int, int], repeats: int, peak: Peak | None) -> KernelRow:
    """Time the product of a dense layer, `kernels.gemm.multiply`, with requantisation to uint8.

    Raises:
        SystemExit: Its codes are not NumPy's.
    """
    rows, depth, columns = shape
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    weight = rng.integers(-3, 4, (columns, depth)).astype(np.int8)
    multiplier = np.full(columns, 1 / 64, np.float32)
    kind = isa.find(name)
    dense = ConvMaps(
        weight[:, :, np.newaxis, np.newaxis], None, zero_point=0, codes=MapCodes(multiplier, 0),
        input=MapLayout(depth), output=MapLayout(columns), isa=kind,
    )  # fmt: skip
    x, out = aligned_empty(codes.size + SPARE_BYTES), aligned_empty(rows * columns)
    x[: codes.size], x[codes.size :] = codes.reshape(-1), 0
    run = partial(dense, x, out, rows, aligned_empty(kind.scratch_bytes // 4, np.int32))
    sums = codes.astype(np.float64) @ weight.T.astype(np.float64)  # below 2^53: exact
    expected = np.rint(np.clip(sums.astype(np.float32) * multiplier, 0, 255)).astype(np.uint8)
    out[:] = ~expected.reshape(-1)
    run()
    if not np.array_equal(out.reshape(rows, columns), expected):
        raise SystemExit(f"error: the kernel of {name} is not exact on {rows} x {depth} x {columns}")
    ms = alternate({name: run}, repeats)[name]
    gmacs = rows * depth * columns / ms / 1e6
    return KernelRow(name, rows, depth, columns, ms, gmacs, None if peak is None else gmacs / peak.gmacs)
