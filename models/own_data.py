"""Users' own images: an npz of two arrays, or a folder of class folders."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .image_data import Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_MODES = {"L": 1, "RGB": 3}
# What zipfile, zlib and NumPy raise on damaged archives; RuntimeError for flags such as "encrypted".
_NPZ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def load_npz(path: str | Path) -> Dataset:
    """Read an npz with `images`, (N, C, H, W) uint8, and `labels`, (N,) of an integer type.

    Pickled arrays are not read.

    Args:
        path: The file.

    Raises:
        DataError: The file is missing, damaged, or an array is missing or of another form.
    """
    path = Path(path)
    try:
        if not zipfile.is_zipfile(path):
            path.stat()  # a missing file says so
            raise DataError(f"{path}: not an npz, expected np.savez(images=..., labels=...)")
        with np.load(path, allow_pickle=False) as archive:
            missing = {"images", "labels"} - set(archive.files)
            if missing:
                raise DataError(
                    f"{path}: has {', '.join(archive.files) or 'nothing'}, lacks {', '.join(sorted(missing))}"
                )
            images, labels = archive["images"], archive["labels"]
    except _NPZ_ERRORS as error:
        raise DataError(
            f"{path}: cannot be read as npz ({error}), expected np.savez(images=..., labels=...)"
        ) from error
    # NumPy hands out members that are not arrays as bytes; Dataset refuses such images.
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {getattr(labels, 'dtype', 'no array')}, expected integers")
    return Dataset(path.stem, images, labels.astype(np.int64))


def load_class_folders(folder: str | Path) -> Dataset:
    """Read a folder with one folder of PNG or JPEG files per class; classes are in the order of their names.

    All images must have one size and one mode: grey (L) or colour (RGB). Other files are ignored.

    Args:
        folder: Holds the class folders.

    Returns:
        Images (N, 1 or 3, H, W), classes and files in the order of their names.

    Raises:
        DataError: There are no images, one cannot be read, or differs from the first in size or mode.
    """
    folder = Path(folder)
    classes = class_folders(folder)
    paths = [(path, label) for label, home in enumerate(classes) for path in _images_in(home)]
    if not paths:
        raise DataError(f"{folder}: no class folders with {', '.join(IMAGE_SUFFIXES)} files found")
    first = _read_image(paths[0][0])
    images = np.empty((len(paths), *first.shape), dtype=np.uint8)
    for index, (path, _) in enumerate(paths):
        image = _read_image(path)
        if image.shape != first.shape:
            raise DataError(
                f"{path}: {_describe(image)}, but {paths[0][0]} is {_describe(first)}: "
                "convert all to one size and mode"
            )
        images[index] = image
    labels = np.array([label for _, label in paths], dtype=np.int64)
    return Dataset(folder.name, images, labels, tuple(home.name for home in classes))


def class_folders(folder: Path) -> list[Path]:
    """Return the subfolders that hold images, sorted by name."""
    subfolders = sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    return [home for home in subfolders if _images_in(home)]


def _images_in(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _read_image(path: Path) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError  # only users of class folders wait for Pillow

    # Pillow raises SyntaxError and struct errors (ValueError's kin) too on damaged PNG chunks.
    try:
        with Image.open(path) as image:
            mode = image.mode
            pixels: NDArray[Any] = np.asarray(image)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error})") from error
    if mode not in _MODES:
        raise DataError(f"{path}: mode {mode}, expected grey (L) or colour (RGB) of 8 bits: convert it")
    return pixels.reshape(*pixels.shape[:2], _MODES[mode]).transpose(2, 0, 1)


def _describe(image: NDArray[np.uint8]) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"
