"""The arrays that the crossbar's benchmark reads, and what each of them must reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ohmfold.kernels import isa as instruction_sets
from ohmfold.kernels.counter_random import stream_key
from ohmfold.kernels.crossbar import VARIANCE_BITS, CrossbarProduct, ReadNoise, ReadPlane

from .crossbar_numpy import NumpyCrossbar

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = [
    "FRACTION_BITS",
    "SIZE",
    "Case",
    "Size",
    "call_of",
    "cases",
    "clipping_weights",
    "codes",
    "make_product",
    "simulation",
]

LOW, HIGH = -128, 127  # codes of 8 bits
FRACTION_BITS = 8

# Standard deviation of a cell's conductance at each read, in levels.
NOISE = 0.1


@dataclass(frozen=True)
class Size:
    """What is multiplied.

    Attributes:
        rows: Of codes.
        depth, columns: Of the weight matrix.
        tile_rows: Rows of a tile.
        tile_columns: Columns of the weight matrix that a tile of 128 columns holds.
        wired: Columns whose tiles are solved with wire resistance; they are repeated up to all columns.
    """

    rows: int = 256
    depth: int = 1024
    columns: int = 1024
    tile_rows: int = 128
    tile_columns: int = 64
    wired: int = 512


SIZE = Size()


@dataclass(frozen=True, eq=False)
class Case:
    """One array, and what must be reached.

    Attributes:
        name: In the table.
        plane: What is read.
        tile_columns: Columns of the weight matrix in a tile of NumPy's; it makes no difference to ours.
        fraction_bits: F.
        noise: Keys of the read noise.
        certificate: Whether reads that cannot clip are done at once.
        least: How many times as fast as NumPy it must be, by instruction set.
        most: How many times the time of `noiseless` it may take.
        noiseless: The case that it is compared with, where that is not NumPy.
    """

    name: str
    plane: ReadPlane
    tile_columns: int
    fraction_bits: int = 0
    noise: ReadNoise | None = None
    certificate: bool = True
    least: dict[str, float] = field(default_factory=dict)
    most: float | None = None
    noiseless: Case | None = None


def codes(size: Size) -> NDArray[np.uint8]:
    """Random codes, always the same."""
    return np.random.default_rng(0).integers(0, 256, (size.rows, size.depth)).astype(np.uint8)


def clipping_weights(depth: int, columns: int) -> NDArray[np.int32]:
    """Weights -3 .. 3, mostly large, each column with its own share of positive ones: many of their sums clip."""
    rng = np.random.default_rng(1)
    signs = np.where(rng.random((depth, columns)) < rng.random(columns), 1, -1)
    return (signs * rng.choice(4, (depth, columns), p=(0.1, 0.1, 0.2, 0.6))).astype(np.int32)


def sparse_weights(depth: int, columns: int) -> NDArray[np.int32]:
    """Weights -3 .. 3, three fifths of them 0: no sum of 128 rows can clip."""
    rng = np.random.default_rng(2)
    weights = rng.integers(1, 4, (depth, columns)) * rng.choice((-1, 1), (depth, columns))
    return np.where(rng.random((depth, columns)) < 0.6, 0, weights).astype(np.int32)


def noise_keys(size: Size) -> ReadNoise:
    """Keys of the read noise of every tile."""
    return ReadNoise(tuple((stream_key(0, tile),) for tile in range(-(-size.depth // size.tile_rows))))


def cases(size: Size, wired: NDArray[np.int32]) -> tuple[Case, ...]:
    """What is measured.

    Args:
        size: Of it.
        wired: Effective weights of `size.wired` columns in units of 2^-FRACTION_BITS of a level.
    """
    clipping = clipping_weights(size.depth, size.columns)
    unit = 1 << FRACTION_BITS
    repeated = np.tile(wired, -(-size.columns // wired.shape[1]))[:, : size.columns]
    variance = np.full(clipping.shape, round(2 * NOISE**2 * 2**VARIANCE_BITS), np.int32)
    whole = partial(Case, plane=ReadPlane(clipping, 0, LOW, HIGH, 1), certificate=False)
    first = whole("128-row tiles, clipping", tile_columns=size.columns, least={"amx": 12.0, "vnni": 6.0})
    return (
        first,
        whole("128 x 128 tiles, clipping", tile_columns=size.tile_columns, least={"amx": 12.0}),
        Case(
            "nothing can clip",
            ReadPlane(sparse_weights(size.depth, size.columns), 0, LOW, HIGH, 1),
            size.columns,
            least={"amx": 100.0, "vnni": 100.0},
        ),
        Case(
            "read noise",
            ReadPlane(clipping * unit, 0, LOW, HIGH, unit, variance),
            size.columns,
            fraction_bits=FRACTION_BITS,
            noise=noise_keys(size),
            most=10.0,
            noiseless=first,
        ),
        Case(
            "wire resistance",
            ReadPlane(np.ascontiguousarray(repeated), 0, LOW, HIGH, unit),
            size.tile_columns,
            fraction_bits=FRACTION_BITS,
            most=3.0,
            noiseless=first,
        ),
    )


def make_product(case: Case, size: Size, isa: str) -> CrossbarProduct:
    """A case's array on an instruction set."""
    return CrossbarProduct(
        [case.plane],
        tile_rows=size.tile_rows,
        dac_bits=1,
        fraction_bits=case.fraction_bits,
        isa=instruction_sets.find(isa),
        noise=case.noise,
        certificate=case.certificate,
    )


def call_of(product: CrossbarProduct, x: NDArray[np.uint8]) -> Callable[[], NDArray[np.int32]]:
    """A call of a product on codes that are packed once; the sums `(M, N)` are always the same memory."""
    packed = product.pack(x)
    out = np.empty((len(x), product.columns), np.int32)

    def call() -> NDArray[np.int32]:
        product(packed, len(x), 0, out.reshape(-1))
        return out

    return call


def simulation(case: Case, size: Size) -> NumpyCrossbar | None:
    """NumPy's side of a case; None with read noise, which it could not draw alike in any sensible time."""
    if case.noise is not None:
        return None
    return NumpyCrossbar(
        codes(size),
        [case.plane],
        tile_rows=size.tile_rows,
        tile_columns=case.tile_columns,
        fraction_bits=case.fraction_bits,
    )
