"""Bit by bit comparison of two sets of tensors: what "exact" means here, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["Comparison", "Difference", "compare"]


@dataclass(frozen=True, eq=False)
class Difference:
    """The first place where two executors disagree.

    Attributes:
        tensor: The tensor's name.
        index: Place in the tensor, None where type or shape differ or one side lacks the tensor.
        expected: What the first executor holds there (or its type and shape).
        got: What the second one holds there.
    """

    tensor: str
    index: tuple[int, ...] | None
    expected: str
    got: str

    def __str__(self) -> str:
        place = self.tensor if self.index is None else f"{self.tensor}{list(self.index)}"
        return f"{place}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcome of comparing two sets of tensors bit by bit.

    Attributes:
        tensors: How many tensors both sides hold.
        integers: How many numbers were compared in integer tensors.
        floats: How many numbers were compared in floating-point tensors, by their bits.
        differing: How many numbers differ. A tensor of another type or shape differs in all its numbers.
        missing: Tensors of the expected set that the other side does not hold.
        first: The first difference, None if there is none.
    """

    tensors: int
    integers: int
    floats: int
    differing: int
    missing: tuple[str, ...] = ()
    first: Difference | None = None

    @property
    def equal(self) -> bool:
        """Whether something was compared, and nothing differs or is missing."""
        return self.tensors > 0 and self.differing == 0 and not self.missing

    def __str__(self) -> str:
        counts = (
            f"{self.tensors} tensors, {self.integers} integers and {self.floats} floats compared, "
            f"{self.differing} differ"
        )
        lacking = f", {len(self.missing)} tensors missing ({self.missing[0]}, ...)" if self.missing else ""
        return counts + lacking + (f"; {self.first}" if self.first else "")

    def __add__(self, other: Comparison) -> Comparison:
        return Comparison(
            self.tensors + other.tensors,
            self.integers + other.integers,
            self.floats + other.floats,
            self.differing + other.differing,
            self.missing + other.missing,
            self.first or other.first,
        )


def compare(
    expected: Mapping[str, NDArray[Any]],
    got: Mapping[str, NDArray[Any]],
    skip: Iterable[str] = (),
) -> Comparison:
    """Compare tensors by name, bit by bit: integers by value, floats by their bits.

    Args:
        expected: Tensors by name; each of them has to be in `got`.
        got: Tensors by name; those that are not expected are not looked at.
        skip: Names to leave out.
    """
    left_out = set(skip)
    names = [name for name in expected if name not in left_out]
    total = Comparison(0, 0, 0, 0, tuple(name for name in names if name not in got))
    for name in names:
        if name in got:
            total += _compare_one(name, np.asarray(expected[name]), np.asarray(got[name]))
    return total


def _compare_one(name: str, expected: NDArray[Any], got: NDArray[Any]) -> Comparison:
    floating = np.issubdtype(expected.dtype, np.floating)
    integers, floats = (0, expected.size) if floating else (expected.size, 0)
    if expected.dtype != got.dtype or expected.shape != got.shape:
        first = Difference(name, None, _form(expected), _form(got))
        return Comparison(1, integers, floats, max(expected.size, 1), (), first)
    differ = _bits(expected) != _bits(got)
    count = int(np.count_nonzero(differ))
    if not count:
        return Comparison(1, integers, floats, 0)
    index = tuple(int(place) for place in np.unravel_index(int(np.argmax(differ)), expected.shape))
    first = Difference(name, index, repr(expected[index].item()), repr(got[index].item()))
    return Comparison(1, integers, floats, count, (), first)


def _bits(array: NDArray[Any]) -> NDArray[Any]:
    """Floats as the integers that their bits spell, anything else as it is."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    return np.ascontiguousarray(array).view(f"u{array.dtype.itemsize}").reshape(array.shape)


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype}{list(array.shape)}"
