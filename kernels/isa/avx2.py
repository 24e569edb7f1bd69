"""AVX2: `vpmaddubsw` gives the pair sums of 32 products, `vpmaddwd` with ones adds them up into int32.

`vpmaddubsw` saturates its int16 sums; weights of at most 64 cannot get there (255 * 64 * 2 = 32,640), and the
packing splits larger ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..emit import call, integers, splat
from .pairs import PairProducts

if TYPE_CHECKING:
    from llvmlite import ir

__all__ = ["Avx2"]

_LANES = 8
_CODES, _PAIRS, _SUMS = integers(8, 4 * _LANES), integers(16, 2 * _LANES), integers(32, _LANES)


class Avx2(PairProducts):
    """See the module."""

    name = "avx2"
    features: tuple[str, ...] = ("avx2",)
    lanes = _LANES

    def pairs(self, builder: ir.IRBuilder, x: ir.Value, w: ir.Value) -> ir.Value:
        """`vpmaddubsw`."""
        operands = [builder.bitcast(x, _CODES), builder.bitcast(w, _CODES)]
        return call(builder, "llvm.x86.avx2.pmadd.ub.sw", _PAIRS, operands)

    def widen(self, builder: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
        """`vpmaddwd` with ones."""
        return call(builder, "llvm.x86.avx2.pmadd.wd", _SUMS, [pairs, splat(_PAIRS, 1)])
