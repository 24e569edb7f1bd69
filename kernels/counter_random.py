"""Random numbers by counter: a function of a key and a position, whatever is drawn before, after or beside it.

Philox4x32-10 maps four counter words and two key words, of 32 bits each, to four random words (Salmon, Moraes,
Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3). One round, ten times over:

    (hi, lo)   = M0 * c0,   (hi', lo') = M1 * c2            32 x 32 -> 64 bits
    c0, c1, c2, c3 = hi' ^ c1 ^ k0,  lo',  hi ^ c3 ^ k1,  lo
    k0, k1     = k0 + W0,  k1 + W1                          modulo 2^32

A normal variate is one look-up in a table of integers, since floating-point logarithms and roots differ between
instruction sets and libraries. Bit 31 of a word is the sign; the other 31 bits, u, say how far out in the tail:

    v = u + 2^9;   bin = the exponent of v and its 9 leading fraction bits;   |x| = table[bin]

so that bins grow finer by the octave towards the tail: 512 bins for the nearer half of all samples, 512 for the
next quarter, and single values of u in the last. An entry is the root mean square of a half-normal variate over
its bin, which leaves the variance that of the normal; the largest is 6.4.

`philox` and `normal` are for other kernels, into whose loops they are inlined, where they become vector code;
`philox_arrays` and `normal_arrays` are the same bits on NumPy arrays.
"""

from __future__ import annotations

import hashlib
import operator
import struct
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "NORMAL_BITS",
    "NORMAL_SCALE",
    "NORMAL_TABLE",
    "normal",
    "normal_arrays",
    "philox",
    "philox_arrays",
    "stream_key",
]

F = TypeVar("F", bound="Callable[..., Any]")

NORMAL_BITS = 12  # fraction bits of a normal variate: all of them fit 16 bits
NORMAL_SCALE = 2**NORMAL_BITS

_ROUNDS = 10
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_WORD = np.uint64(32)

_BIN_BITS = 9
_OFFSET = np.int64(2**_BIN_BITS)
_TAIL_BITS = 31
_TAIL_MASK = np.uint32(2**_TAIL_BITS - 1)
_SIGN_SHIFT = np.int32(31)
# Exponent and leading fraction bits of a float64, and what they are for v = 2^9.
_FRACTION_SHIFT = np.int64(52 - _BIN_BITS)
_FIRST_BIN = np.int64((1023 + _BIN_BITS) << _BIN_BITS)


def _inlined(function: F) -> F:
    """Compile a function into the loops of the kernels that call it; a call would keep them from being vectors.

    It is not cached by itself: its code is part of its callers', which are.
    """
    return cast("F", numba.njit(nogil=True, forceinline=True)(function))


def _tail_edges() -> NDArray[np.int64]:
    """Where the bins of `u` begin, and the end of the last, 2^31."""
    octaves = range(_TAIL_BITS - _BIN_BITS)
    bins = np.arange(_OFFSET, 2 * _OFFSET)
    starts = [bins << octave for octave in octaves]
    # 2^31 <= v < 2^31 + 2^9 is a bin of its own.
    return np.concatenate([*starts, [2**_TAIL_BITS, 2**_TAIL_BITS + _OFFSET]]) - _OFFSET


def _normal_table() -> NDArray[np.int32]:
    """The root mean square of |x| over each bin, in units of 2^-12.

    With q the upper tail of the standard normal at x, and phi its density, the integral of x^2 phi over a bin is

        (q_out - q_in) + (x phi)(q_out) - (x phi)(q_in)

    where x and phi are taken at the bin's two edges.
    """
    tail = _tail_edges() / 2.0 ** (_TAIL_BITS + 1)
    standard = NormalDist()
    x = np.array([-standard.inv_cdf(q) for q in tail[1:].tolist()])
    weighted = np.array([value * standard.pdf(value) for value in x.tolist()])
    weighted = np.concatenate([[0.0], weighted])  # at q = 0, x is infinite
    mass = np.diff(tail)
    square = (mass + np.diff(weighted)) / mass
    table: NDArray[np.int32] = np.rint(np.sqrt(square) * NORMAL_SCALE).astype(np.int32)
    return table


NORMAL_TABLE = _normal_table()
NORMAL_TABLE.setflags(write=False)


@_inlined
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Four random uint32 of a counter and a key; integers of another type give their low 32 bits."""
    x0, x1, x2, x3 = np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)
    y0, y1 = np.uint32(k0), np.uint32(k1)
    for _ in range(_ROUNDS):
        a = np.uint64(x0) * _M0
        b = np.uint64(x2) * _M1
        x0, x1, x2, x3 = (
            np.uint32(b >> _WORD) ^ x1 ^ y0,
            np.uint32(b),
            np.uint32(a >> _WORD) ^ x3 ^ y1,
            np.uint32(a),
        )
        y0 = np.uint32(y0 + _W0)
        y1 = np.uint32(y1 + _W1)
    return x0, x1, x2, x3


@_inlined
def normal(word: Any) -> Any:
    """A normal variate of a random uint32: int32, in units of `1 / NORMAL_SCALE`."""
    bits = np.uint32(word)
    v = np.float64(np.int64(bits & _TAIL_MASK) + _OFFSET)
    x = NORMAL_TABLE[(v.view(np.int64) >> _FRACTION_SHIFT) - _FIRST_BIN]
    sign = np.int32(bits) >> _SIGN_SHIFT
    return np.int32((x ^ sign) - sign)


def philox_arrays(
    c0: ArrayLike, c1: ArrayLike, c2: ArrayLike, c3: ArrayLike, key: tuple[int, int]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
    """`philox` on arrays of counter words, broadcast against each other.

    Args:
        c0: First counter word: whole numbers from 0 to 2^32 - 1; likewise `c1`, `c2` and `c3`.
        c1: Second counter word.
        c2: Third counter word.
        c3: Fourth counter word.
        key: The two key words, as `stream_key` gives them.

    Returns:
        Four uint32 arrays of the common shape.

    Raises:
        ValueError: A word is not a whole number of 32 bits.
    """
    x0, x1, x2, x3 = np.broadcast_arrays(*(_words(c) for c in (c0, c1, c2, c3)))
    k0, k1 = (int(k) for k in _words(key))
    for _ in range(_ROUNDS):
        a = x0.astype(np.uint64) * _M0
        b = x2.astype(np.uint64) * _M1
        x0, x1, x2, x3 = (
            (b >> _WORD).astype(np.uint32) ^ x1 ^ np.uint32(k0),
            b.astype(np.uint32),
            (a >> _WORD).astype(np.uint32) ^ x3 ^ np.uint32(k1),
            a.astype(np.uint32),
        )
        k0 = (k0 + int(_W0)) % 2**32
        k1 = (k1 + int(_W1)) % 2**32
    return x0, x1, x2, x3


def normal_arrays(words: NDArray[np.uint32]) -> NDArray[np.int32]:
    """`normal` on an array of random words.

    Raises:
        TypeError: The words are not uint32.
    """
    if words.dtype != np.uint32:
        raise TypeError(f"random words are uint32, not {words.dtype}")
    v = ((words & _TAIL_MASK).astype(np.int64) + _OFFSET).astype(np.float64)
    x = NORMAL_TABLE[(v.view(np.int64) >> _FRACTION_SHIFT) - _FIRST_BIN]
    variates: NDArray[np.int32] = np.where(words > _TAIL_MASK, -x, x)
    return variates


def stream_key(seed: int, *parts: int) -> tuple[int, int]:
    """The key of one stream of random numbers: two words for each different seed and sequence of parts.

    They are the first and the second half, little-endian, of the 64-bit BLAKE2b hash (personalised as
    `ohmfold.stream`) of the seed and the parts, each as a signed 64-bit little-endian number. Streams of other
    lengths and orders are other streams. Two of n streams share a key with probability n^2 / 2^65.

    Args:
        seed: Which experiment: a chip, a run.
        parts: What the stream is for, from the coarse to the fine.

    Raises:
        TypeError: A part is not a whole number.
        ValueError: A part does not fit 64 bits.
    """
    whole = [operator.index(part) for part in (seed, *parts)]
    if not all(-(2**63) <= part < 2**63 for part in whole):
        raise ValueError(f"the seed and the parts of a stream are signed numbers of 64 bits, not {whole}")
    packed = struct.pack(f"<{len(whole)}q", *whole)
    digest = hashlib.blake2b(packed, digest_size=8, person=b"ohmfold.stream").digest()
    k0, k1 = struct.unpack("<2I", digest)
    return k0, k1


def _words(values: ArrayLike) -> NDArray[np.uint32]:
    """An array of whole numbers as uint32."""
    array = np.asarray(values)
    if array.dtype == np.uint32:
        return array
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() < 2**32):
        raise ValueError("counters and keys are whole numbers from 0 to 2^32 - 1")
    return array.astype(np.uint32)
