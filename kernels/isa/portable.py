"""Plain vector IR, which LLVM lowers for every processor (SSE2, NEON, or scalar code).

The bytes of a vector of int32 are seen as int16 lanes: `w << 8 >> 8` and `w >> 8` (arithmetic shifts) are the
even and the odd weights, `x & 255` and `x >> 8` (logical) the even and the odd codes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..emit import integers, splat
from .base import COLUMNS
from .pairs import PairProducts

if TYPE_CHECKING:
    from llvmlite import ir

__all__ = ["Portable"]

_PAIRS, _SUMS = integers(16, 2 * COLUMNS), integers(32, COLUMNS)


class Portable(PairProducts):
    """See the module."""

    name = "portable"
    features: tuple[str, ...] = ()
    lanes = COLUMNS

    def pairs(self, builder: ir.IRBuilder, x: ir.Value, w: ir.Value) -> ir.Value:
        """Two int16 products and their sum."""
        byte, low = splat(_PAIRS, 8), splat(_PAIRS, 255)
        codes, weights = builder.bitcast(x, _PAIRS), builder.bitcast(w, _PAIRS)
        even = builder.mul(builder.and_(codes, low), builder.ashr(builder.shl(weights, byte), byte))
        odd = builder.mul(builder.lshr(codes, byte), builder.ashr(weights, byte))
        return builder.add(even, odd)

    def widen(self, builder: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
        """The lower half of each int32, sign-extended, plus the upper half."""
        half = splat(_SUMS, 16)
        both = builder.bitcast(pairs, _SUMS)
        return builder.add(builder.ashr(builder.shl(both, half), half), builder.ashr(both, half))
