"""What is kept while tables are made: one small file for each figure, so that what was killed goes on where it stopped.

    OUT/cells/clean-0123456789abcdef.json      what the figure depends on, and what was found
    OUT/cells/set-0123456789abcdef.npz         images attacked on a substitute, judged by every model

The name holds a hash of everything that the figure depends on (weights, images, attack, seed, versions), so a figure of
other settings is another file. Every file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import OutputError
from ..artifact import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["CELLS", "Cells"]

CELLS = "cells"
_DIGITS = 16


class Cells:
    """Figures and image sets, kept in a folder.

    Args:
        folder: Of the results; made where it is missing.

    Raises:
        OutputError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / CELLS
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make the folder {self._folder}: {error.strerror or error}") from None
        for rest in self._folder.glob(".*.part"):  # of a process that was killed while it wrote
            rest.unlink(missing_ok=True)

    def figure(
        self, kind: str, depends: Mapping[str, Any], find: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a figure that is kept, or find it and keep it.

        Args:
            kind: What its file's name begins with.
            depends: Everything that it depends on, as JSON values.
            find: Finds it, as JSON values.

        Raises:
            OutputError: The file is damaged, or cannot be written.
        """
        path = self._path(kind, depends, "json")
        if not path.is_file():
            document = {"depends": dict(depends), "found": find()}
            write_atomically(path, json.dumps(document, indent=1).encode())
        try:
            # Read back, so that a figure is the same whether it was kept before or not.
            kept = json.loads(path.read_text("utf-8"))
            found: dict[str, Any] = dict(kept["found"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{path} is damaged ({error}); remove it, and it is made again") from None
        return found

    def images(
        self, kind: str, depends: Mapping[str, Any], find: Callable[[], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        """Return images that are kept, or find them and keep them; arguments and errors as `figure`."""
        path = self._path(kind, depends, "npz")
        if not path.is_file():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, images=find())
            write_atomically(path, buffer.getvalue())
        try:
            with np.load(path, allow_pickle=False) as archive:
                images: NDArray[np.uint8] = archive["images"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise OutputError(f"{path} is damaged ({error}); remove it, and it is made again") from None
        return images

    def _path(self, kind: str, depends: Mapping[str, Any], suffix: str) -> Path:
        text = json.dumps({"kind": kind, **depends}, sort_keys=True)
        return self._folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}.{suffix}"
