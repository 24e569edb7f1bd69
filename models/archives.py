"""npz files that nobody vouches for: every promise of size is compared with the file before memory is taken for it."""

from __future__ import annotations

import ast
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

__all__ = ["UNREADABLE", "largest_content", "open_archive", "read_member", "read_npz"]

UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and zlib raise on damaged archives; RuntimeError for flags such as "encrypted"."""

_RATIO, _ALLOWANCE = 32, 16 << 20
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 4096
_CHUNK = 1 << 20
# Booleans, integers and reals; nothing that holds objects or has no size.
_TYPE = re.compile(r"\|b1|[|<>=]?[iu][1248]|[<>=]?f[248]")


def largest_content(size: int) -> int:
    """Return how many bytes a compressed file of `size` bytes may hold: 32 times as many and 16 MiB.

    Images compress to a tenth at best; what swells to more is no data set.
    """
    return _RATIO * size + _ALLOWANCE


def read_npz(path: str | Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read arrays of an npz; nothing is unpickled.

    Args:
        path: The file.
        names: Which; those that are not there are left out. None: all of them.

    Returns:
        Arrays of booleans, integers and reals, by name.

    Raises:
        DataError: The file is missing, damaged or no npz, holds more than `largest_content`, or an array is of
            another type.
    """
    path = Path(path)
    try:
        with open_archive(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            wanted = [f"{name}.npy" for name in names] if names is not None else list(members)
            found = [members[name] for name in wanted if name in members]
            return {info.filename.removesuffix(".npy"): read_member(archive, info) for info in found}
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as npz ({error})") from None


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive whose members have names of their own, are stored or deflated, and do not swell.

    Raises:
        ValueError: One of this is not so; `largest_content` is what its members may hold in all. Otherwise what
            zipfile raises, see `UNREADABLE`.
    """
    archive = zipfile.ZipFile(path)
    try:
        _check_members(archive.infolist(), path.stat().st_size)
    except BaseException:
        archive.close()
        raise
    return archive


def _check_members(infos: list[zipfile.ZipInfo], size: int) -> None:
    if len({info.filename for info in infos}) != len(infos):
        raise ValueError("two of its members have the same name")
    for info in infos:
        if info.compress_type not in _METHODS:
            raise ValueError(
                f"{info.filename!r:.99} is compressed by method {info.compress_type}, not deflated"
            )
    content, most = sum(info.file_size for info in infos), largest_content(size)
    if content > most:
        raise ValueError(
            f"its members swell to {content} bytes, expected at most {most} from a file of its size"
        )


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Read one array; its header must promise exactly the bytes that the directory tells of.

    Raises:
        ValueError: It is no array of plain numbers, or its sizes differ. Otherwise what zipfile raises.
    """
    with archive.open(info) as file:
        shape, fortran, dtype, taken = _header(file)
        size = math.prod(shape) * dtype.itemsize
        if size != info.file_size - taken:
            raise ValueError(
                f"{info.filename!r:.99} promises {dtype}{shape}, {size} bytes, but {info.file_size - taken} follow"
            )
        values = np.empty(size, np.uint8)
        filled = 0
        while filled < size:
            piece = file.read(min(_CHUNK, size - filled))
            if not piece:
                raise ValueError(f"{info.filename!r:.99} ends after {filled} of {size} bytes")
            values[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
            filled += len(piece)
        file.read(1)  # compares the checksum
    return values.view(dtype).reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Return shape, order, element type and the header's own size."""
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in (1, 2):
        raise ValueError("a member is no array of NumPy's format 1 or 2")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"the header of an array has {length} bytes, expected at most {_LONGEST_HEADER}")
    try:
        header = ast.literal_eval(file.read(length).decode("latin-1").strip())
        descr, fortran, shape = header["descr"], header["fortran_order"], header["shape"]
    except (SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"the header of an array is damaged ({type(error).__name__})") from None
    if not isinstance(descr, str) or not _TYPE.fullmatch(descr):
        raise ValueError(
            f"an array is of type {descr!r:.99}, expected numbers; objects would have to be unpickled"
        )
    if not isinstance(shape, tuple) or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"an array is of shape {shape!r:.99}")
    if len(shape) > 32 or max(shape, default=0) > 1 << 62 or type(fortran) is not bool:
        raise ValueError(f"an array of {len(shape)} dimensions cannot be read")
    return shape, fortran, np.dtype(descr), 8 + width + length
