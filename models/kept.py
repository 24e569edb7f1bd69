"""What is kept between runs in the user's cache folder. Nothing depends on it: all of it can be made again."""

from __future__ import annotations

import io
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .archives import read_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["cache_folder", "keep_array", "kept_array"]

_log = logging.getLogger(__name__)

_ARRAY = "array"


def cache_folder() -> Path:
    """Return where downloads go: `ohmfold` in XDG_CACHE_HOME, or else in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "ohmfold")


def kept_array(name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any] | None:
    """Return the array kept under a name; None if there is none of that shape and type, or it is damaged.

    The name should hold a hash of what the array was made from.
    """
    try:
        array = read_npz(cache_folder() / f"{name}.npz", (_ARRAY,)).get(_ARRAY)
    except (RuntimeError, DataError):  # RuntimeError: there is no home folder
        return None
    fits = array is not None and array.shape == shape and array.dtype == dtype
    return array if fits else None


def keep_array(name: str, array: NDArray[Any]) -> None:
    """Keep an array under a name, whole or not at all; where the folder cannot be written, do nothing."""
    data = io.BytesIO()
    np.savez(data, allow_pickle=False, **{_ARRAY: array})
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".part", dir=folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data.getbuffer())
            Path(temporary).replace(folder / f"{name}.npz")
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, RuntimeError) as error:
        _log.debug("%s is not kept: %s", name, error)
