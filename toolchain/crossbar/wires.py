"""Wire resistance: what a tile's cells conduct as its drivers and its ADCs see it.

The network of cells and wires is linear in the drivers' voltages, so that all of it is one matrix of effective
conductances, found once when the tile is programmed:

    I_c = sum over r of E[r, c] V_r

Word line r is driven from its column-0 end through one segment of `row_ohm`, with another between neighbouring
columns; bit line c ends behind its last row, through one segment of `column_ohm`, in a virtual ground, with
another between neighbouring rows. Both columns of a differential pair are columns of the tile like any other.

What holds of E, and what does not:

- No element is negative. Row and column sums are at most those of the cells: wires only take away.
- A single element may be more than its cell: current takes detours, through a neighbour onto another bit line,
  from there onto another word line, which its own driver holds at zero only from afar, and down the column. A cell
  that conducts nothing still has a small effective conductance.
- The sum of all elements falls as a resistance rises (Rayleigh's monotonicity law); single elements need not.

`kernels.wire_network` has the equations. They are solved directly; rounding leaves relative errors of some 1e-12
on a tile of 128 x 128 (against the same elimination in 80-bit arithmetic) and gives the same bits on every machine.
Tiles may be solved on several threads, and are kept in the user's cache folder under a hash of what they were
computed from. Those that were not used for longest are removed where all of them together take more than 1 GiB: 8,000
tiles of 128 x 128.
"""

from __future__ import annotations

import hashlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from ...kernels.wire_network import wire_operator
from ...models.kept import cache_folder, keep_array, kept_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

__all__ = ["effective_conductances", "effective_tiles"]

_log = logging.getLogger(__name__)

# Part of the names of kept tiles: to be raised with any change of the arithmetic that changes a bit.
_FORMAT = 1

# Bytes that all kept tiles may take, and what their files are called.
_MOST_BYTES = 2**30
_PREFIX = "wires-"


def effective_conductances(
    conductances: NDArray[np.float64], row_ohm: float, column_ohm: float, on_ohm: float, top_level: int
) -> NDArray[np.float64]:
    """The matrix E of one tile.

    Args:
        conductances: float64 `(R, C)`, in levels: what the cells conduct, drift and all.
        row_ohm: Ohms of a word-line segment.
        column_ohm: Ohms of a bit-line segment.
        on_ohm: Ohms of a cell at the highest level.
        top_level: The highest level.

    Returns:
        float64 `(R, C)`, in levels; without resistance, a copy of the conductances.

    Raises:
        TypeError: The conductances are not float64.
        ValueError: They are not an array of two axes, or a number is out of range.
    """
    row, column = _ratios(row_ohm, column_ohm, on_ohm, top_level)
    return wire_operator(conductances, row, column)


def effective_tiles(
    tiles: Iterable[NDArray[np.float64]],
    row_ohm: float,
    column_ohm: float,
    on_ohm: float,
    top_level: int,
    *,
    threads: int = 1,
    keep: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.float64]]:
    """`effective_conductances` of many tiles, of any shapes.

    Args:
        tiles: The conductances of each.
        row_ohm: See `effective_conductances`.
        column_ohm: See there.
        on_ohm: See there.
        top_level: See there.
        threads: How many tiles are solved at a time.
        keep: Whether to read tiles from the user's cache folder, and to write them there: 8 bytes a cell, 1 GiB for
            all of them, beyond which the least recently used are removed.
        progress: Called in this thread, after each tile in their order, with how many are done and how many
            there are. What it raises ends the work.

    Returns:
        One matrix for each tile, in their order.

    Raises:
        TypeError, ValueError: See `effective_conductances`; or the number of threads is less than 1.
    """
    row, column = _ratios(row_ohm, column_ohm, on_ohm, top_level)
    if threads < 1:
        raise ValueError(f"found {threads} threads; at least 1 is needed")
    solve = _kept_operator if keep else wire_operator
    every = list(tiles)
    done = []
    with ThreadPoolExecutor(threads, "ohmfold-wires") as pool:
        futures = [pool.submit(solve, tile, row, column) for tile in every]
        try:
            for future in futures:
                done.append(future.result())
                if progress is not None:
                    progress(len(done), len(every))
        finally:
            pool.shutdown(cancel_futures=True)
    if keep:
        _remove_oldest()
    return done


def _ratios(row_ohm: float, column_ohm: float, on_ohm: float, top_level: int) -> tuple[float, float]:
    """Resistances of the segments times the conductance of one level, `1 / (on_ohm * top_level)`."""
    if not (0 < on_ohm < np.inf and top_level >= 1):
        raise ValueError(f"found {on_ohm} ohm at level {top_level}; a cell has some of both")
    return row_ohm / (on_ohm * top_level), column_ohm / (on_ohm * top_level)


def _kept_operator(conductances: NDArray[np.float64], row: float, column: float) -> NDArray[np.float64]:
    """`wire_operator`, from the cache folder where it is there."""
    if row == column == 0.0:
        return wire_operator(conductances, row, column)
    form = f"{_FORMAT} {conductances.dtype.str} {conductances.shape} {row.hex()} {column.hex()}"
    digest = hashlib.sha256(form.encode() + b"\0" + conductances.tobytes())
    name = f"{_PREFIX}{digest.hexdigest()}"
    there = _is_there(name)
    found = kept_array(name, conductances.shape, np.float64)
    if found is None:
        if there:
            _log.warning("%s in %s is damaged; the tile is solved again", name, cache_folder())
        found = wire_operator(conductances, row, column)
        keep_array(name, found)
    elif there:
        _mark_used(name)
    return found


def _is_there(name: str) -> bool:
    try:
        return (cache_folder() / f"{name}.npz").exists()
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return False


def _mark_used(name: str) -> None:
    try:
        os.utime(cache_folder() / f"{name}.npz")
    except OSError as error:  # another process removed it, or it is not ours to touch
        _log.debug("%s is not marked as used: %s", name, error)


def _remove_oldest() -> None:
    """Remove the tiles that were not used for longest, until those that are left take `_MOST_BYTES` at most."""
    try:
        folder = cache_folder()
        paths = list(folder.glob(f"{_PREFIX}*.npz")) if folder.is_dir() else []
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder, and nothing is kept
        return
    found = []
    for path in paths:
        try:
            about = path.stat()
        except FileNotFoundError:  # another process removed it
            continue
        found.append((about.st_mtime_ns, about.st_size, path))
    left = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if left <= _MOST_BYTES:
            break
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("kept tiles take more room than they should, %s stays: %s", path, error)
        left -= size
