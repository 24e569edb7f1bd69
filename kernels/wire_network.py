"""What a crossbar with resistive wires computes, as one matrix: exact block elimination of the network.

A tile has R word lines and C bit lines; cell (r, c) has the conductance g[r, c]. Word line r starts at its
driver, an ideal source of V_r, and runs past columns 0 .. C-1, with one wire segment before each; bit line c runs
past rows 0 .. R-1 into a virtual ground, with one segment after each. Conductances are in levels, and a segment's
resistance is multiplied by the conductance of one level: `row` and `column` below, without a unit.

Row by row, with p the drop along the word line, b the bit lines' voltages and i the cells' currents:

    i = G (V 1 - p - b),  T p = row * i       T: tridiagonal, -1 2 -1, and 1 in the last place
    i = V h - H b,        h = G N^-1 e_0,  H = G - row * G N^-1 G,  N = T + row * G,  H 1 = h

The same along the bit lines, with j_r the currents through the segments after row r, so that
`b_r - b_(r+1) = column * j_r` and `j_r - j_(r-1) = i_r`; substituting s_r = b_r / column:

    -s_(r-1) + (t_r + column * H_r) s_r - s_(r+1) = V_r h_r,   t_0 = 1, t_r = 2 after it,  s_R = 0

The matrix is block tridiagonal with the blocks D_0 = 1 + column * H_0, D_r = 2 + column * H_r - D_(r-1)^-1.
Eliminated from the first row to the last, it gives the currents into the grounds, s_(R-1), for every driver at
once; driver r's is row r of the result:

    E[r, :] = D_(R-1)^-1 ... D_(r+1)^-1 D_r^-1 h_r

All D_r are symmetric, diagonally dominant and of the sign pattern that makes inverses positive, so that nothing
needs pivots. Segments without resistance are no special case. Every operation is one IEEE float64 addition,
product or division in a fixed order, without BLAS: the same bits on every processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cache import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["wire_operator"]


@kernel
def _add_word_line(g: Any, row: Any, column: Any, ahead: Any, behind: Any, matrix: Any, source: Any) -> None:
    """One row's `t + column * H - D^-1` into the lower triangle of `matrix`, and h into `source`.

    `matrix` comes with D^-1 of the row before, and its diagonal with `D^-1 - t`. `ahead` and `behind` are scratch.
    """
    columns = g.shape[0]
    last = columns - 1
    # Reciprocal pivots of N, eliminated from the driver's side and from the open end.
    for j in range(columns):
        diagonal = (2.0 if j < last else 1.0) + row * g[j]
        ahead[j] = 1.0 / (diagonal - ahead[j - 1] if j > 0 else diagonal)
    for j in range(last, -1, -1):
        diagonal = (2.0 if j < last else 1.0) + row * g[j]
        behind[j] = 1.0 / (diagonal - behind[j + 1] if j < last else diagonal)
    inverse = 1.0
    for j in range(columns):
        inverse *= behind[j]
        source[j] = g[j] * inverse
        matrix[j, j] = column * source[j] - matrix[j, j]
    coupling = column * row
    for j in range(1, columns):
        after = behind[j + 1] if j < last else 0.0
        inverse = ahead[j] / (1.0 - ahead[j] * after)
        for i in range(j - 1, -1, -1):
            inverse *= ahead[i]
            shared = coupling * g[i] * g[j] * inverse
            matrix[j, i] = -shared - matrix[j, i]
            # The diagonal of H is its row's sum less the rest of the row: nothing cancels.
            matrix[j, j] += shared
            matrix[i, i] += shared


@kernel
def _invert(matrix: Any, pivot_row: Any) -> None:
    """The inverse of a symmetric positive matrix: its lower triangle in, all of it out (the sweep operator)."""
    size = matrix.shape[0]
    for k in range(size):
        reciprocal = 1.0 / matrix[k, k]
        for i in range(k):
            pivot_row[i] = matrix[k, i]
        pivot_row[k] = 0.0
        for i in range(k + 1, size):
            pivot_row[i] = matrix[i, k]
        for i in range(size):
            factor = pivot_row[i] * reciprocal
            for j in range(i + 1):
                matrix[i, j] -= factor * pivot_row[j]
        for i in range(k):
            matrix[k, i] = pivot_row[i] * reciprocal
        for i in range(k + 1, size):
            matrix[i, k] = pivot_row[i] * reciprocal
        matrix[k, k] = -reciprocal
    for i in range(size):
        for j in range(i + 1):
            value = -matrix[i, j]
            matrix[i, j] = value
            matrix[j, i] = value


@kernel
def _multiply(matrix: Any, x: Any, count: Any, out: Any) -> None:
    """`matrix @ x` for the first `count` columns of x, terms added in the order of the rows of x."""
    size = matrix.shape[0]
    blocked = size // 4 * 4
    for i in range(size):
        for j in range(count):
            out[i, j] = 0.0
        for k in range(0, blocked, 4):
            m0, m1, m2, m3 = matrix[i, k], matrix[i, k + 1], matrix[i, k + 2], matrix[i, k + 3]
            for j in range(count):
                total = out[i, j] + m0 * x[k, j] + m1 * x[k + 1, j]
                out[i, j] = total + m2 * x[k + 2, j] + m3 * x[k + 3, j]
        for k in range(blocked, size):
            m0 = matrix[i, k]
            for j in range(count):
                out[i, j] += m0 * x[k, j]


@kernel
def _eliminate(g: Any, row: Any, column: Any) -> Any:
    """E of a tile, `(C, R)`."""
    rows, columns = g.shape
    ahead, behind, source = np.empty(columns), np.empty(columns), np.empty(columns)
    matrix = np.zeros((columns, columns))
    currents, spare = np.zeros((columns, rows)), np.zeros((columns, rows))
    for r in range(rows):
        own = 1.0 if r == 0 else 2.0
        for j in range(columns):
            matrix[j, j] -= own
        _add_word_line(g[r], row, column, ahead, behind, matrix, source)
        for j in range(columns):
            currents[j, r] = source[j]
        _invert(matrix, ahead)
        _multiply(matrix, currents, r + 1, spare)
        currents, spare = spare, currents
    return currents


def wire_operator(conductances: NDArray[np.float64], row: float, column: float) -> NDArray[np.float64]:
    """The matrix E of a tile: the current into the ground of bit line c is the sum over r of `E[r, c] V_r`.

    The network is the same seen from its other end (reciprocity), with the lines' roles and directions exchanged,
    so the blocks are of the shorter side: about `2 min(R, C)^3 max(R, C)` operations.

    Args:
        conductances: float64 `(R, C)`, in levels, not negative.
        row: Resistance of a word-line segment times the conductance of one level.
        column: The same of a bit-line segment.

    Returns:
        float64 `(R, C)`, in levels.

    Raises:
        TypeError: The conductances are not float64.
        ValueError: They are not an array of two axes, or a number is negative or not finite.
    """
    if conductances.dtype != np.float64:
        raise TypeError(f"conductances are float64, not {conductances.dtype}")
    if conductances.ndim != 2:
        raise ValueError(f"the conductances of a tile have two axes, not {conductances.ndim}")
    ratios = np.array([row, column])
    if not (np.isfinite(ratios).all() and (ratios >= 0).all()):
        raise ValueError(f"found wire resistances {row} and {column}; they are finite and not negative")
    if not (np.isfinite(conductances).all() and (conductances >= 0).all()):
        raise ValueError("a conductance is negative or not finite")
    if not ratios.any():
        return np.array(conductances, order="C")
    rows, columns = conductances.shape
    if columns <= rows:
        return np.ascontiguousarray(_eliminate(np.ascontiguousarray(conductances), row, column).T)
    mirrored = np.ascontiguousarray(conductances[::-1, ::-1].T)
    return np.ascontiguousarray(_eliminate(mirrored, column, row)[::-1, ::-1])
