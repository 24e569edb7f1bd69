"""Exact dense layers on codes: `(x - z) @ weight + bias`, and the requantisation if one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel
from .gemm import check_operands, multiply, output_stage, pack_weight, row_table, unsigned_view
from .requantise import requantise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .requantise import CodeFormat

__all__ = ["Dense"]

# Rows packed at a time: 64 rows of K = 3136 are 400 KB of int16 and stay in a second-level cache.
BLOCK_ROWS = 64

ONE_SEGMENT = np.zeros(1, np.int64)


@kernel
def _pack_rows(x: Any, first: int, rows: int, flip: Any, zero_point: Any, stride: int, packed: Any) -> None:
    """Rows of codes less their zero point, each padded to an even length."""
    for r in range(rows):
        for k in range(x.shape[1]):
            packed[r * stride + k] = np.int16(x[first + r, k] ^ flip) - zero_point


class Dense:
    """A dense layer with its weights packed.

    Call it with codes `(M, K)` (uint8 or int8) for the output `(M, N)`: codes if `codes` is given, int32
    accumulators otherwise. Sums wrap modulo 2^32; that they do not is the caller's range proof.

    Args:
        weight: int8 or int16 `(K, N)`, within -255..255.
        bias: int32 `(N,)`, or None.
        input_zero_point: Code of the input that stands for zero.
        codes: Requantisation, or None; its multiplier is a scalar or `(N,)`.

    Raises:
        TypeError: An operand has the wrong element type.
        ValueError: An operand has the wrong shape or range.
    """

    def __init__(
        self,
        weight: NDArray[Any],
        bias: NDArray[np.int32] | None = None,
        *,
        input_zero_point: int = 0,
        codes: CodeFormat | None = None,
    ) -> None:
        if weight.ndim != 2:
            raise ValueError(f"a dense weight is (K, N), not {weight.shape}")
        self.shape = (int(weight.shape[0]), int(weight.shape[1]))
        check_operands(weight, bias, self.shape[1])
        if codes is not None and codes.multiplier.size not in (1, self.shape[1]):
            raise ValueError(f"a multiplier is () or ({self.shape[1]},), not {codes.multiplier.shape}")
        self.input_zero_point = input_zero_point
        self.codes = codes
        self._packed = pack_weight(weight[np.newaxis, np.newaxis])
        columns, padded = self._packed.columns, self._packed.padded
        self._plain = output_stage(bias, None, 1, columns, padded)
        self._stage = output_stage(bias, codes, 1, columns, padded)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The layer's output for codes `(M, K)`."""
        return self._run(x, self._stage)

    def accumulate(self, x: NDArray[Any]) -> NDArray[np.int32]:
        """The int32 accumulators `(M, N)`, bias included, whatever the layer's output is."""
        return self._run(x, self._plain)

    def requantise(self, acc: NDArray[np.int32]) -> NDArray[Any]:
        """Codes from accumulators (returned as they are by a layer without requantisation)."""
        return acc if self.codes is None else requantise(acc, None, self.codes)

    def _run(self, x: NDArray[Any], stage: Any) -> NDArray[Any]:
        if x.ndim != 2 or x.shape[1] != self.shape[0]:
            raise ValueError(f"a dense input is (M, {self.shape[0]}), not {x.shape}")
        data, flip, zero_point = unsigned_view(x, self.input_zero_point)
        columns = self.shape[1]
        length = 2 * self._packed.pairs
        out = stage.empty((x.shape[0], columns))
        block = min(BLOCK_ROWS, x.shape[0])
        scratch = np.zeros(block * length, np.int16)
        rows = np.arange(block, dtype=np.int64)
        x_starts = row_table(rows * length)
        for first in range(0, x.shape[0] if columns else 0, BLOCK_ROWS):
            count = min(block, x.shape[0] - first)
            _pack_rows(data, first, count, flip, zero_point, length, scratch)
            multiply(
                scratch,
                x_starts,
                0,
                ONE_SEGMENT,
                self._packed.pairs,
                self._packed.data,
                columns,
                stage.bias,
                stage.multiplier,
                stage.low,
                stage.high,
                stage.zero,
                out.reshape(-1),
                (rows + first) * columns,
                0,
                1,
                count,
                1,
            )
        result: NDArray[Any] = stage.finish(out)
        return result
