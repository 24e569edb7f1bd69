"""`Artifact`: the integer model as one file, and model files in general.

An artifact is a plain `.onnx` file of standard operators with JSON under `ohmfold.*` in its metadata: how it was
made, from what (SHA-256), with which library versions. Any ONNX runtime runs it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import onnx_ir as ir

from ..errors import ModelError, OutputError
from .graph import notes_of

if TYPE_CHECKING:
    from .program import Program

__all__ = ["SCHEMA", "Artifact", "library_versions", "load_model_file", "write_atomically"]

SCHEMA = 1
"""Version of the metadata; raised when a reader of the old one would misread the new one."""

_LIBRARIES = ("ohmfold", "torch", "numpy", "onnx", "onnx-ir", "onnxscript", "onnxruntime")
_LARGEST_FILE = 2 << 30


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries whose behaviour an artifact depends on."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write a whole file or none: to a temporary name beside it, then rename.

    Raises:
        OutputError: The folder does not exist or cannot be written.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; is its folder there and writable?"
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def load_model_file(path: str | Path) -> tuple[ir.Model, str]:
    """Read an ONNX file.

    Weights are expected inside the file: external data is refused, so a model cannot make other files be read.

    Returns:
        The model, and the SHA-256 of the file.

    Raises:
        ModelError: The file is missing, unreadable, truncated, too large, or not ONNX.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise ModelError(f"{path} has {path.stat().st_size} bytes; ONNX files end at 2 GiB")
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from None
    return parse_model(data, str(path)), hashlib.sha256(data).hexdigest()


def parse_model(data: bytes, origin: str) -> ir.Model:
    """Parse the bytes of an ONNX file; see `load_model_file` for what is refused."""
    import onnx
    from google.protobuf.message import DecodeError

    from .onnx_file import check_content

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(f"{origin} is not an ONNX file, or it is truncated") from None
    if not proto.ir_version or not proto.graph.node:
        raise ModelError(f"{origin} is not an ONNX file: it holds no graph")
    check_content(proto, origin)
    try:
        onnx.checker.check_model(proto)
        return ir.from_proto(proto)
    except (onnx.checker.ValidationError, ir.serde.SerdeError, ValueError, TypeError) as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"{origin} is not a valid ONNX model: {first[0]}") from None


class Artifact:
    """An integer model: what `compile` returns, and what runs on the device.

    Attributes:
        model: The model as `onnx_ir`; not to be changed.
    """

    def __init__(self, model: ir.Model) -> None:
        self.model = model

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read an artifact, or an integer model made by others, from an ONNX file.

        Raises:
            ModelError: The file is not a model that can be read (see `load_model_file`), or it was written
                by a newer version.
        """
        model, _ = load_model_file(path)
        schema = model.metadata_props.get("ohmfold.schema")
        if schema is not None and schema not in map(str, range(SCHEMA + 1)):
            raise ModelError(
                f"{path} has artifact schema {schema:.99}, this version reads up to {SCHEMA}; update ohmfold"
            )
        return cls(model)

    def save(self, path: str | Path) -> None:
        """Write the artifact as one ONNX file, whole or not at all.

        Raises:
            OutputError: The file cannot be written.
        """
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file's bytes; the same artifact always gives the same bytes."""
        return self._bytes

    @cached_property
    def _bytes(self) -> bytes:
        return bytes(ir.to_proto(self.model).SerializeToString(deterministic=True))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, in hexadecimal."""
        return hashlib.sha256(self._bytes).hexdigest()

    @cached_property
    def program(self) -> Program:
        """The typed reading of the model.

        Raises:
            UnsupportedError: The model holds something that cannot be run exactly.
        """
        from .foreign import read_model

        return read_model(self.model)

    @property
    def compiled_here(self) -> bool:
        """Whether ohmfold's own compiler wrote the model."""
        return "ohmfold.schema" in self.model.metadata_props

    @property
    def notes(self) -> list[str]:
        """What the compiler reported: folds, floors, paddings, fallbacks."""
        return notes_of(self.model)

    def metadata(self) -> dict[str, Any]:
        """Return the artifact's metadata, JSON decoded where it is JSON."""
        found: dict[str, Any] = {}
        for key, text in sorted(self.model.metadata_props.items()):
            if not key.startswith("ohmfold."):
                continue
            try:
                found[key.removeprefix("ohmfold.")] = json.loads(text)
            except (ValueError, RecursionError):  # of other tools, or damaged: it stays what it is
                found[key.removeprefix("ohmfold.")] = text
        return found

    def __repr__(self) -> str:
        weights = sum(layer.weight.size for layer in self.program.weighted_layers())
        return f"Artifact({len(self.program.layers)} layers, {weights} weights, sha256 {self.sha256[:12]})"
