"""Which images are judged, and who runs them.

The rule for the images: what calibrated an artifact never judges it. Where a data set has a training split,
calibration takes its images from there. Where it has none, calibration takes the first images of one fixed
permutation, and `evaluation_set` recognises them by the hash in the artifact's metadata and leaves them out.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

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
    from .program import TensorSpec

__all__ = [
    "CALIBRATION_IMAGES",
    "as_input",
    "calibration_set",
    "evaluation_set",
    "float_predictor",
    "in_batches",
    "onnxruntime_predictor",
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
    count = calibration.get("images")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count < len(data):
        return data, 0
    calibrating, rest = data.split(count, _PERMUTATION_SEED)
    if _pixels_sha256(calibrating.images) != calibration.get("sha256"):
        return data, 0
    return rest, count


def _pixels_sha256(images: NDArray[np.uint8]) -> str:
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
    parts = []
    for start in range(0, len(images), batch_size):
        parts.append(predict(images[start : start + batch_size]))
        if progress is not None:
            progress(min(start + batch_size, len(images)) / len(images))
    return np.concatenate(parts)
