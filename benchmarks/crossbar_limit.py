"""How far a crossbar that cannot clip is from what the processor can do: the exact product, and the instruction's peak.

Where nothing can clip, a crossbar's sums are those of the exact integer product, and take its time. That product
cannot be faster than the multiplying instruction on registers alone (see `kernel_speed`), so NumPy's time over that
bound is the most that any such kernel reaches on this processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ohmfold.kernels import isa as instruction_sets
from ohmfold.kernels.dense import Dense

from .crossbar_cases import call_of, codes, make_product, simulation
from .kernel_speed import measure_peak
from .machine import alternate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .crossbar_cases import Case, Size

__all__ = ["ExactLimit", "measure_limits"]


@dataclass(frozen=True)
class ExactLimit:
    """One instruction set on the case in which nothing clips.

    Attributes:
        isa: The instruction set.
        crossbar_ms: Median milliseconds of the crossbar's sums.
        exact_ms: Likewise, of an exact dense layer with the same weights and codes.
        instruction: What multiplies; None where that takes several.
        peak_gmacs: 10^9 products a second of this instruction alone.
        least_ms: Milliseconds that the products take at that peak.
        numpy_ms: NumPy's simulation beside them.
        most_ratio: Its time over `least_ms`: what no kernel of this instruction passes here.
    """

    isa: str
    crossbar_ms: float
    exact_ms: float
    instruction: str | None
    peak_gmacs: float | None
    least_ms: float | None
    numpy_ms: float
    most_ratio: float | None


def measure_limits(case: Case, size: Size, isas: Sequence[str], repeats: int) -> list[ExactLimit]:
    """Time the case beside an exact dense layer and NumPy, and the peak of every instruction set.

    Raises:
        SystemExit: The dense layer's sums are not the crossbar's.
        ValueError: NumPy cannot simulate the case.
    """
    simulated = simulation(case, size)
    if simulated is None:
        raise ValueError("a case with noise has no simulation")
    x = codes(size)
    runs: dict[str, Callable[[], object]] = {"numpy": simulated}
    for isa in isas:
        crossbar = call_of(make_product(case, size, isa), x)
        weight = (case.plane.cells << case.plane.shift).astype(np.int8)
        exact = partial(Dense(weight, isa=instruction_sets.find(isa)), x)
        if not np.array_equal(exact(), crossbar()):
            raise SystemExit(f"error: {case.name}, {isa}: the crossbar's sums are not those of a dense layer")
        runs |= {f"crossbar {isa}": crossbar, f"exact {isa}": exact}
    ms = alternate(runs, repeats)
    products = size.rows * size.depth * size.columns
    found = []
    for isa in isas:
        peak = measure_peak(isa, repeats)
        least = None if peak is None else products / peak.gmacs / 1e6
        found.append(
            ExactLimit(
                isa=isa,
                crossbar_ms=ms[f"crossbar {isa}"],
                exact_ms=ms[f"exact {isa}"],
                instruction=None if peak is None else peak.instruction,
                peak_gmacs=None if peak is None else peak.gmacs,
                least_ms=least,
                numpy_ms=ms["numpy"],
                most_ratio=None if least is None else ms["numpy"] / least,
            )
        )
    return found
