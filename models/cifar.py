"""CIFAR-10 in its published binary version."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError
from .image_data import Dataset

_FILES = {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)}
_SUBFOLDERS = ("", "cifar-10-batches-bin", "cifar10", "cifar10/cifar-10-batches-bin")
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10(folder: str | Path, split: str = "test") -> Dataset:
    """Read CIFAR-10 from its binary version: records of a label byte and 3,072 bytes, channel-major RGB.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).

    Args:
        folder: Holds `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, itself or in its
            subfolder `cifar-10-batches-bin`.
        split: "train" (50,000 images) or "test" (10,000).

    Returns:
        Images (N, 3, 32, 32) and labels.

    Raises:
        DataError: A file is missing, not made of whole records, or has a label above 9.
    """
    if split not in _FILES:
        raise DataError(f"split {split!r} of CIFAR-10 is unknown, expected 'train' or 'test'")
    home = cifar10_home(folder)
    if home is None:
        looked = ", ".join(str(Path(folder, sub)) for sub in _SUBFOLDERS)
        raise DataError(f"no CIFAR-10 found: looked for test_batch.bin and data_batch_1.bin in {looked}")
    records = np.concatenate([_read_records(home / name) for name in _FILES[split]])
    labels = records[:, 0].astype(np.int64)
    images = np.ascontiguousarray(records[:, 1:]).reshape(-1, *_SHAPE)
    return Dataset(f"cifar10-{split}", images, labels, _CLASSES)


def cifar10_home(folder: str | Path) -> Path | None:
    """Return `folder` or that subfolder of it which holds the binary version, or None."""
    for sub in _SUBFOLDERS:
        home = Path(folder, sub)
        if (home / "test_batch.bin").is_file() or (home / "data_batch_1.bin").is_file():
            return home
    return None


def _read_records(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}), expected all six files of CIFAR-10"
        ) from error
    if not content or len(content) % _RECORD:
        raise DataError(f"{path}: {len(content)} bytes, expected a multiple of {_RECORD}: truncated?")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise DataError(
            f"{path}: label {records[:, 0].max()}, expected 0 to 9: not CIFAR-10's binary version"
        )
    return records
