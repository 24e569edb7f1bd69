"""What a chip takes: programming tiles with wire resistance, and a whole network on a preset's tiles."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import ohmfold
from ohmfold.errors import DataError
from ohmfold.models.datasets import resolve_dataset
from ohmfold.toolchain.crossbar.programming import to_fixed
from ohmfold.toolchain.crossbar.wires import effective_tiles
from ohmfold.toolchain.hardware import load_hardware

from .inference import CASES, compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IMAGES", "NetRow", "Programming", "measure_net", "program_tiles"]

# Whose wires are solved.
WIRES = "reram-irdrop"

PRESET = "reram-128"
CALIBRATION_IMAGES = 64

IMAGES, WARM_UP_IMAGES = 10_000, 32

DATA, SAMPLE = "mnist", "mnist-sample"


@dataclass(frozen=True)
class Programming:
    """Tiles with wire resistance, solved once.

    Attributes:
        tiles: How many.
        rows, columns: Cells of each.
        threads: How many were solved at a time.
        seconds: That it took, by the clock.
        limit: That it may take.
    """

    tiles: int
    rows: int
    columns: int
    threads: int
    seconds: float
    limit: float


@dataclass(frozen=True)
class NetRow:
    """One executor on all images, once.

    Attributes:
        executor: What ran.
        isa, threads: How.
        images: How many.
        seconds: By the clock.
        images_per_second: Their quotient.
        correct: Images that it classified as they are labelled.
    """

    executor: str
    isa: str
    threads: int
    images: int
    seconds: float
    images_per_second: float
    correct: int


def program_tiles(
    weight: NDArray[Any], fraction_bits: int, *, rows: int, columns: int, threads: int, limit: float
) -> tuple[NDArray[np.int32], Programming]:
    """Program pairs of cells on tiles with wire resistance, without the kept ones, against the clock.

    Args:
        weight: `(K, N)`, -3 .. 3.
        fraction_bits: F of the result.
        rows: Rows of a tile.
        columns: Columns of the weight matrix that a tile holds, in pairs.
        threads: How many tiles are solved at a time.
        limit: Seconds that it may take.

    Returns:
        Effective weights in units of 2^-F of a level, int32 `(K, N)`, and how long they took.
    """
    depth, width = weight.shape
    places = [
        (slice(down, down + rows), slice(across, across + columns))
        for down in range(0, depth, rows)
        for across in range(0, width, columns)
    ]
    pairs = np.stack([np.maximum(weight, 0), np.maximum(-weight, 0)], axis=2).astype(np.float64)
    tiles = [np.ascontiguousarray(pairs[place].reshape(len(pairs[place]), -1)) for place in places]
    hardware = load_hardware(WIRES)
    ohms = hardware.wires.row_ohm, hardware.wires.column_ohm, hardware.wires.on_ohm or 0.0
    top = hardware.array.highest_level
    effective_tiles([tiles[0][:2, :2].copy()], *ohms, top, keep=False)  # compiles
    start = time.perf_counter()
    solved = effective_tiles(tiles, *ohms, top, threads=threads, keep=False)
    seconds = time.perf_counter() - start
    cells = np.empty((depth, width), np.int32)
    for place, tile in zip(places, solved, strict=True):
        fixed = to_fixed(tile, fraction_bits)
        cells[place] = fixed[:, 0::2] - fixed[:, 1::2]
    return cells, Programming(len(tiles), *tiles[0].shape, threads, seconds, limit)


def images_and_labels(count: int) -> tuple[NDArray[np.uint8], NDArray[Any], str]:
    """`count` images of MNIST, repeated where there are fewer, and where they are from."""
    try:
        data, name = resolve_dataset(DATA), DATA
    except DataError:
        data, name = resolve_dataset(SAMPLE), SAMPLE
    found = len(data.images)
    if count > found:
        name = f"{name}, whose {found:,} are repeated"
    index = np.arange(count) % found
    return data.images[index], data.labels[index], name


def measure_net(count: int, isa: str | None, threads: int) -> tuple[str, list[NetRow]]:
    """Run the MNIST CNN on `count` images exactly, and on the preset's tiles.

    Returns:
        Where the images are from, and a row for each.
    """
    images, labels, name = images_and_labels(count)
    artifact = compiled(CASES[0])
    rows = []
    chip = {"hardware": PRESET, "calibration": images[:CALIBRATION_IMAGES]}
    for executor, more in (("exact integers", {}), (PRESET, chip)):
        emulator = ohmfold.Emulator(artifact, threads=threads, isa=isa, **more)
        emulator(images[:WARM_UP_IMAGES])
        start = time.perf_counter()
        classes = emulator.predict(images)
        seconds = time.perf_counter() - start
        correct = int((classes == labels).sum())
        rows.append(NetRow(executor, emulator.isa, threads, count, seconds, count / seconds, correct))
    return name, rows
