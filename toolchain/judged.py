"""Which images are judged, and who runs them.

The rule for the images: what calibrated an artifact, or the converters of a chip, never judges it. Where a data set
has a training split, calibration takes its images from there. Where it has none, calibration takes the first images
of one fixed permutation, and `evaluation_set` recognises them by the hash in the artifact's metadata and leaves them
out. A chip's converters are calibrated on the first of the same images.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError, ModelError
from ..models.datasets import resolve_dataset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from ..models.image_data import Dataset
    from .artifact import Artifact
    from .emulator import Emulator
    from .program import TensorSpec

__all__ = [
    "CALIBRATION_IMAGES",
    "Judged",
    "as_input",
    "calibration_set",
    "emulated",
    "evaluation_set",
    "float_predictor",
    "in_batches",
    "judged_images",
    "onnxruntime_predictor",
    "pixels_sha256",
]

CALIBRATION_IMAGES = 512
"""How many images calibrate, where nothing else is asked for."""

_PERMUTATION_SEED = 0


def calibration_set(spec: str | Path | None, count: int = CALIBRATION_IMAGES) -> Dataset:
    """Return the images that calibrate: the first `count` of a fixed permutation of the training split.

    Of a small set at most half is taken, so that some images are left to judge by.

    Raises:
        DataError: There is no such set, or `count` is below 1.
    """
    data = resolve_dataset(spec, "train")
    if count < 1:
        raise DataError(f"the calibration set is empty: {count} images asked for, expected at least 1")
    return data.subset(min(count, max(1, len(data) // 2)), _PERMUTATION_SEED)


def evaluation_set(data: Dataset, artifact: Artifact | None) -> tuple[Dataset, int]:
    """Return the images that may judge an artifact, and how many were left out.

    Left out are the images that calibrated it, if they are images of `data` (see the module's rule).
    """
    calibration = artifact.metadata().get("calibration") if artifact is not None else None
    if not isinstance(calibration, dict):
        return data, 0
    return _without(data, calibration.get("images"), calibration.get("sha256"))


class Judged(NamedTuple):
    """Images that judge, how many of their set were left out, and what calibrates converters, where they need it."""

    data: Dataset
    left_out: int
    calibration: Dataset | None


def judged_images(
    spec: str | Path | None, artifact: Artifact, *, converters: bool = False, limit: int | None = None
) -> Judged:
    """Return the images of a data set that judge an artifact, on a chip too.

    Args:
        spec: The data set (see `resolve_dataset`).
        artifact: What is judged.
        converters: Whether a chip's converters are calibrated; what they take judges nothing either.
        limit: Keep at most this many of the judging images, the first; None: all.

    Raises:
        DataError: There is no such set.
    """
    data, left_out = evaluation_set(resolve_dataset(spec), artifact)
    calibration = None
    if converters:
        # Of one permutation: where the artifact's own images were left out, these are among them.
        calibration = calibration_set(spec, _calibration_count(artifact))
        if not left_out:
            data, left_out = _without(data, len(calibration), pixels_sha256(calibration.images))
    if limit is not None and limit < len(data):
        data = data.take(np.arange(limit))
    return Judged(data, left_out, calibration)


def _calibration_count(artifact: Artifact) -> int:
    """How many images calibrate converters: as many as calibrated the artifact, if they were not more than usual."""
    calibration = artifact.metadata().get("calibration")
    count = calibration.get("images") if isinstance(calibration, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        return CALIBRATION_IMAGES
    return min(count, CALIBRATION_IMAGES)


def _without(data: Dataset, count: object, sha256: object) -> tuple[Dataset, int]:
    """Leave out the first `count` images of the permutation, if their hash is that one."""
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < len(data):
        return data, 0
    calibrating, rest = data.split(count, _PERMUTATION_SEED)
    if pixels_sha256(calibrating.images) != sha256:
        return data, 0
    return rest, count


def pixels_sha256(images: NDArray[np.uint8]) -> str:
    """The hash by which the compiler names calibration images in an artifact's metadata."""
    return hashlib.sha256(repr(images.shape).encode() + np.ascontiguousarray(images).tobytes()).hexdigest()


def as_input(images: NDArray[np.uint8], spec: TensorSpec) -> NDArray[Any]:
    """Return pixel codes as a model's input takes them: as they are, or float32 in [0, 1].

    Raises:
        ModelError: The input is of another type.
    """
    if spec.dtype == np.uint8:
        return images
    if spec.dtype == np.float32:
        return images.astype(np.float32) / np.float32(255)
    raise ModelError(f"the model's input is {spec}, expected uint8 pixel codes or float32 pixels in [0, 1]")


def float_predictor(module: nn.Module) -> Callable[[NDArray[np.uint8]], NDArray[np.int64]]:
    """Return what gives uint8 images their classes by a torch module; ties go to the lowest class."""
    import torch

    def predict(images: NDArray[np.uint8]) -> NDArray[np.int64]:
        with torch.inference_mode():
            classes: NDArray[np.int64] = module(torch.from_numpy(images).float() / 255).argmax(1).numpy()
        return classes

    return predict


def onnxruntime_predictor(
    model: bytes, name: str, logits: str, threads: int = 1, batch: int | None = None
) -> Callable[[NDArray[Any]], NDArray[np.int64]]:
    """Return what gives images their classes by onnxruntime with all its optimisations.

    Args:
        model: The serialised model.
        name: Its input.
        logits: The tensor that holds the logits; ties go to the lowest class.
        threads: Intra-op threads.
        batch: The batch that the model takes, where it is fixed.

    Raises:
        ModelError: onnxruntime refuses the model.
    """
    from .witness import OnnxRuntime

    session = OnnxRuntime(model, "all", threads, (logits,))

    def predict(images: NDArray[Any]) -> NDArray[np.int64]:
        step = batch or len(images) or 1
        pieces = [images[start : start + step] for start in range(0, max(1, len(images)), step)]
        scores = np.concatenate([session.run({name: piece})[logits] for piece in pieces])
        classes: NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64)
        return classes

    return predict


def in_batches(
    predict: Callable[[NDArray[Any]], NDArray[np.int64]],
    images: NDArray[Any],
    progress: Callable[[float], None] | None = None,
    batch_size: int = 250,
) -> NDArray[np.int64]:
    """Return the classes of images, int64 `(N,)`, a batch at a time; tell the share that is done."""
    return _batch_by_batch(lambda piece, _: predict(piece), images, progress, batch_size)


def emulated(
    emulator: Emulator,
    images: NDArray[Any],
    progress: Callable[[float], None] | None = None,
    batch_size: int = 250,
) -> NDArray[np.int64]:
    """Return the classes that an emulator gives, like `in_batches`; an image's read noise is that of its index."""
    return _batch_by_batch(
        lambda piece, first: emulator.predict(piece, first_sample=first), images, progress, batch_size
    )


def _batch_by_batch(
    predict: Callable[[NDArray[Any], int], NDArray[np.int64]],
    images: NDArray[Any],
    progress: Callable[[float], None] | None,
    batch_size: int,
) -> NDArray[np.int64]:
    parts = []
    for start in range(0, len(images), batch_size):
        parts.append(predict(images[start : start + batch_size], start))
        if progress is not None:
            progress(min(start + batch_size, len(images)) / len(images))
    return np.concatenate(parts)
