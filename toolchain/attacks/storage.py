"""Adversarial images on disk: one npz of codes, with what made them and the SHA-256 of what they attack.

A set of adversarial images is a claim, so reading one checks it: an image outside the ball that the file
states is refused (the rule of Madry's MNIST challenge).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ...errors import DataError
from ...models.archives import read_npz
from .epsilon import PIXEL_HIGH, Norm, distances, inside
from .outcome import AttackResult

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

__all__ = ["SavedAttack", "load_adversarial", "save_adversarial"]

_SCHEMA = 2
_SHA256 = re.compile(r"[0-9a-f]{64}")
_IMAGES = ("original", "adversarial")
_LABELS = ("labels", "clean_predictions", "predictions")
_MARKS = ("attacked", "kept_earlier")
_FIELDS = ("name", "norm", "radius", "seed", "parameters", "source")
# Attacks of some kinds only have these.
_OPTIONAL = ("margins", "queries")


@dataclass(frozen=True, eq=False)
class SavedAttack:
    """An attack's result as it was read.

    Attributes:
        result: The result.
        artifact_sha256: Of the artifact that it claims to attack.
        intact: Whether arrays and metadata are, to the byte, what was written.
    """

    result: AttackResult
    artifact_sha256: str
    intact: bool


def save_adversarial(result: AttackResult, path: str | os.PathLike[str], artifact_sha256: str) -> None:
    """Write a result as npz, whole or not at all.

    Args:
        result: What to write.
        path: The file; replaced where it exists.
        artifact_sha256: 64 hexadecimal digits, of the artifact's file.

    Raises:
        DataError: The SHA-256 is not one.
        OutputError: The file cannot be written.
    """
    if not _SHA256.fullmatch(artifact_sha256):
        raise DataError(
            f"artifact_sha256: found {artifact_sha256!r}; expected 64 lower-case hexadecimal digits"
        )
    metadata = {
        "schema": _SCHEMA,
        "artifact_sha256": artifact_sha256,
        **{name: getattr(result, name) for name in _FIELDS},
        "parameters": dict(result.parameters),
    }
    arrays: dict[str, NDArray[Any]] = {name: getattr(result, name) for name in (*_IMAGES, *_LABELS, *_MARKS)}
    arrays |= {name: getattr(result, name) for name in _OPTIONAL if getattr(result, name) is not None}
    metadata["content_sha256"] = _digest(arrays, metadata)
    arrays["metadata"] = np.frombuffer(json.dumps(metadata, sort_keys=True).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    from ..artifact import write_atomically

    write_atomically(Path(path), buffer.getvalue())


def load_adversarial(path: str | os.PathLike[str], original: NDArray[np.uint8] | None = None) -> SavedAttack:
    """Read a result and check it.

    Args:
        path: A file that `save_adversarial` wrote.
        original: The clean images, uint8, where they are at hand: the ball is then drawn around these, and
            not around those that the file brings along.

    Raises:
        DataError: The file is missing or no such file, an array is of another shape or type, or an image
            lies outside the ball.
    """
    if not Path(path).exists():
        raise DataError(f"{path}: no such file; expected a set of adversarial images (.npz)")
    expected = (*_IMAGES, *_LABELS, *_MARKS, "metadata")
    try:
        arrays: dict[str, Any] = read_npz(Path(path), (*expected, *_OPTIONAL))
    except DataError as error:
        raise DataError(f"not a set of adversarial images: {error}") from None
    missing = [name for name in expected if name not in arrays]
    if missing:
        raise DataError(f"{path}: not a set of adversarial images (it lacks {', '.join(missing)})")
    try:
        metadata = json.loads(arrays.pop("metadata").tobytes())
        fields = {name: metadata[name] for name in _FIELDS}
        digest = metadata.pop("content_sha256")
        schema, sha256 = metadata["schema"], metadata["artifact_sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a set of adversarial images (its metadata: {error})") from error
    _check_metadata(path, schema, sha256, fields)
    _check_arrays(path, arrays)
    clean = arrays["original"]
    if original is not None:
        if original.dtype != np.uint8 or not np.array_equal(original, clean):
            raise DataError(f"{path}: its clean images are not the ones given; expected the very same codes")
        clean = original
    outside = ~inside(arrays["adversarial"], clean, fields["radius"], fields["norm"])
    if np.any(outside):
        worst = int(np.argmax(outside))
        far = distances(arrays["adversarial"], clean, fields["norm"])[worst]
        raise DataError(
            f"{path}: image {worst} is {far:g} codes from its original; expected at most {fields['radius']:g}"
        )
    intact = digest == _digest(arrays, metadata)
    return SavedAttack(AttackResult(**fields, **arrays), sha256, intact)


def _digest(arrays: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> str:
    """SHA-256 of the metadata, and of names, types, shapes and bytes of the arrays."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return digest.hexdigest()


def _check_metadata(path: str | os.PathLike[str], schema: Any, sha256: Any, fields: dict[str, Any]) -> None:
    valid = {
        f"schema {_SCHEMA}": schema == _SCHEMA,
        "a SHA-256": isinstance(sha256, str) and _SHA256.fullmatch(sha256) is not None,
        "a name": isinstance(fields["name"], str),
        "a known norm": fields["norm"] in get_args(Norm),
        "a radius in codes": _is_radius(fields["radius"], fields["norm"]),
        "a seed": type(fields["seed"]) is int,
        "parameters": isinstance(fields["parameters"], dict),
        "a source": isinstance(fields["source"], str),
    }
    for expected, holds in valid.items():
        if not holds:
            raise DataError(f"{path}: its metadata do not hold {expected}; write it with save_adversarial")


def _is_radius(radius: Any, norm: Any) -> bool:
    if norm == "2":
        return type(radius) in (int, float) and 0 <= radius < math.inf
    return type(radius) is int and 0 <= radius <= PIXEL_HIGH


def _check_arrays(path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]]) -> None:
    shape = arrays["original"].shape
    expected: dict[str, tuple[type, tuple[int, ...]]] = dict.fromkeys(_IMAGES, (np.uint8, shape))
    expected |= dict.fromkeys(_LABELS, (np.int64, shape[:1]))
    expected |= dict.fromkeys(_MARKS, (np.bool_, shape[:1]))
    if "queries" in arrays:
        expected["queries"] = (np.int64, shape[:1])
    if "margins" in arrays:
        expected["margins"] = (np.float32, (*arrays["margins"].shape[:1], *shape[:1]))
    for name, (dtype, wanted) in expected.items():
        array = arrays[name]
        if array.dtype != dtype or array.shape != wanted or array.ndim < 1:
            raise DataError(
                f"{path}: {name} is {array.dtype}{array.shape}; expected {np.dtype(dtype)}{wanted}"
            )
