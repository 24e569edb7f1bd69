"""Exact dense layers on arrays: `(x - z) @ weight + bias`, and the requantisation if one is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .codes import SIGN, code_multiplier, map_codes, unsigned_view
from .conv_maps import SPARE_BYTES, ConvMaps
from .isa import chosen
from .layout import MapLayout
from .packing import aligned_empty
from .requantise import requantise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .isa.base import InstructionSet
    from .requantise import CodeFormat

__all__ = ["Dense"]


class Dense:
    """A dense layer with its weights packed.

    Call it with codes `(M, K)` (uint8 or int8) for the output `(M, N)`: codes if `codes` is given, int32
    accumulators otherwise. Sums wrap modulo 2^32; that they do not is the caller's range proof.

    Args:
        weight: int8 or int16 `(K, N)`, within -255..255.
        bias: int32 `(N,)`, or None.
        input_zero_point: Code of the input that stands for zero.
        codes: Requantisation, or None; its multiplier is a scalar or `(N,)`.
        isa: The instruction set; by default the one that `isa.chosen` tells.

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
        isa: InstructionSet | None = None,
    ) -> None:
        if weight.ndim != 2:
            raise ValueError(f"a dense weight is (K, N), not {weight.shape}")
        self.shape = (int(weight.shape[0]), int(weight.shape[1]))
        if codes is not None:
            code_multiplier(codes, self.shape[1])
        self.codes = codes
        self._weight = np.ascontiguousarray(weight.T)[:, :, np.newaxis, np.newaxis]
        self._bias = bias
        self._isa = isa or chosen()
        self._zero_point = input_zero_point
        self._kernels: dict[tuple[bool, bool], ConvMaps] = {}
        self._kernel(np.dtype(np.uint8 if input_zero_point >= 0 else np.int8), plain=codes is None)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        """The layer's output for codes `(M, K)`."""
        return self._run(x, plain=self.codes is None)

    def accumulate(self, x: NDArray[Any]) -> NDArray[np.int32]:
        """The int32 accumulators `(M, N)`, bias included, whatever the layer's output is."""
        return self._run(x, plain=True)

    def requantise(self, acc: NDArray[np.int32]) -> NDArray[Any]:
        """Codes from accumulators (returned as they are by a layer without requantisation)."""
        return acc if self.codes is None else requantise(acc, None, self.codes)

    def _kernel(self, dtype: np.dtype[Any], *, plain: bool) -> ConvMaps:
        """The kernel for codes of a type, with or without the requantisation, made on first use."""
        signed = dtype == np.int8
        if (signed, plain) not in self._kernels:
            codes = None if plain or self.codes is None else map_codes(self.codes, self.shape[1])
            self._kernels[signed, plain] = ConvMaps(
                self._weight,
                self._bias,
                zero_point=self._zero_point + (SIGN if signed else 0),
                codes=codes,
                input=MapLayout(self.shape[0]),
                output=MapLayout(self.shape[1]),
                isa=self._isa,
            )
        return self._kernels[signed, plain]

    def _run(self, x: NDArray[Any], *, plain: bool) -> NDArray[Any]:
        if x.ndim != 2 or x.shape[1] != self.shape[0]:
            raise ValueError(f"a dense input is (M, {self.shape[0]}), not {x.shape}")
        data, flip, _ = unsigned_view(x, self._zero_point)
        source = aligned_empty(x.size + SPARE_BYTES)
        np.bitwise_xor(data.reshape(-1), flip, out=source[: x.size])
        out = np.empty((x.shape[0], self.shape[1]), np.int32 if plain else np.uint8)
        if out.size:
            scratch = aligned_empty(self._isa.scratch_bytes // 4, np.int32)
            self._kernel(x.dtype, plain=plain)(source, out.reshape(-1), x.shape[0], scratch)
        if plain or self.codes is None or self.codes.dtype == np.uint8:
            return out
        out ^= np.uint8(SIGN)
        return out.view(np.int8)
