"""Users' own images: an npz of two arrays, or a folder of class folders."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError
from .archives import largest_content, read_npz
from .image_data import Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_FORMATS = ("PNG", "JPEG")
_MODES = {"L": 1, "RGB": 3}
# What Pillow raises on damaged files of these two formats, found by fuzzing.
_IMAGE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    struct.error,
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
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read as npz ({error}), expected np.savez(images=..., labels=...)"
        ) from error
    arrays = read_npz(path, ("images", "labels"))
    missing = {"images", "labels"} - set(arrays)
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(sorted(missing))}, expected np.savez(images=..., labels=...)"
        )
    images, labels = arrays["images"], arrays["labels"]
    if labels.dtype.kind not in "iu":
        raise DataError(f"{path}: labels are {labels.dtype}, expected integers")
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
    first = _form_of(paths[0][0])
    for path, _ in paths:  # the headers of all, before memory is taken for the pixels of all
        form = _form_of(path)
        if form != first:
            raise DataError(f"{path}: {form}, but {paths[0][0]} is {first}: convert all to one size and mode")
    images = np.empty((len(paths), first.channels, first.height, first.width), dtype=np.uint8)
    for index, (path, _) in enumerate(paths):
        images[index] = _read_pixels(path, first)
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


class _Form(NamedTuple):
    """What the header of an image says of it."""

    width: int
    height: int
    channels: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {'grey' if self.channels == 1 else 'colour'}"


def _form_of(path: Path) -> _Form:
    """Read an image's header alone.

    Raises:
        DataError: It is no PNG or JPEG whatever its name says, of another mode, or promises more pixels than a file
            of its size holds.
    """
    from PIL import Image  # only users of class folders wait for Pillow

    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            mode, (width, height) = image.mode, image.size
    except (*_IMAGE_ERRORS, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({_one_line(error)})") from error
    if mode not in _MODES:
        raise DataError(f"{path}: mode {mode}, expected grey (L) or colour (RGB) of 8 bits: convert it")
    if width * height * _MODES[mode] > (most := largest_content(len(content))):
        raise DataError(
            f"{path}: {width}x{height} pixels in {len(content)} bytes, expected at most {most} bytes of pixels from a "
            "file of its size"
        )
    return _Form(width, height, _MODES[mode])


def _read_pixels(path: Path, form: _Form) -> NDArray[np.uint8]:
    """Decode an image of that form: uint8 (C, H, W)."""
    from PIL import Image

    try:
        # Of a file itself, Pillow would read a chunk into as much memory as the chunk promises to need.
        with Image.open(io.BytesIO(path.read_bytes()), formats=_FORMATS) as image:
            pixels: NDArray[Any] = np.asarray(image)
    except (*_IMAGE_ERRORS, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({_one_line(error)})") from error
    if pixels.size != form.height * form.width * form.channels:
        raise DataError(f"{path}: its pixels are {pixels.shape}, its header says {form}")
    return pixels.reshape(form.height, form.width, form.channels).transpose(2, 0, 1)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
