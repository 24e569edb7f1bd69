"""`Dataset`: labelled uint8 images, checked once when made, trusted everywhere after."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images as a sensor delivers them, with their classes.

    Attributes:
        name: What it is called in tables and reports.
        images: (N, C, H, W) uint8 pixels; N, C, H and W at least 1.
        labels: (N,) int64 classes, counted from 0.
        class_names: Names of the classes in order, or empty where classes have no names of their own.

    Raises:
        DataError: An array has another dtype or shape, is empty, or a label is negative.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if not isinstance(images, np.ndarray) or images.ndim != 4 or images.dtype != np.uint8:
            raise DataError(
                f"{self.name}: images are {_describe(images)}, expected a uint8 array of shape (N, C, H, W)"
            )
        if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype != np.int64:
            raise DataError(
                f"{self.name}: labels are {_describe(labels)}, expected an int64 array of shape (N,)"
            )
        if images.size == 0:
            raise DataError(
                f"{self.name}: images of shape {images.shape} are empty, expected at least one image"
            )
        if len(images) != len(labels):
            raise DataError(
                f"{self.name}: {len(images)} images but {len(labels)} labels, expected one label each"
            )
        if labels.min() < 0:
            raise DataError(f"{self.name}: label {labels.min()} is negative, expected classes counted from 0")
        if self.class_names and labels.max() >= len(self.class_names):
            raise DataError(
                f"{self.name}: label {labels.max()} has no name, expected below {len(self.class_names)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """Number of classes: that of the names, or else the largest label plus one."""
        return len(self.class_names) or int(self.labels.max()) + 1

    def take(self, indices: NDArray[np.int64], name: str | None = None) -> Dataset:
        """Return the images at `indices`, in that order."""
        return Dataset(name or self.name, self.images[indices], self.labels[indices], self.class_names)

    def subset(self, n: int, seed: int) -> Dataset:
        """Return `n` images drawn without replacement; the same seed draws the same images.

        Raises:
            DataError: `n` is below 1 or above the number of images.
        """
        return self.take(self._shuffled(n, seed)[:n])

    def split(self, n: int, seed: int) -> tuple[Dataset, Dataset]:
        """Return `subset(n, seed)` and all other images in their original order.

        Raises:
            DataError: One of the two parts would be empty.
        """
        order = self._shuffled(n, seed)
        if n == len(self):
            raise DataError(f"{self.name}: {n} of {len(self)} images leave none for the second part")
        return self.take(order[:n]), self.take(np.sort(order[n:]))

    def without(self, held_out: Dataset) -> Dataset:
        """Remove the images of `held_out`, recognised by their bytes.

        Raises:
            DataError: The sizes of the images differ, or not exactly as many images were found as
                `held_out` has, so that the two sets are not what they are taken for.
        """
        if self.images.shape[1:] != held_out.images.shape[1:]:
            raise DataError(
                f"{held_out.name} has images of {held_out.images.shape[1:]}, {self.name} of "
                f"{self.images.shape[1:]}: nothing can be excluded"
            )
        unwanted = {image.tobytes() for image in held_out.images}
        kept = np.array([image.tobytes() not in unwanted for image in self.images])
        found = len(self) - int(kept.sum())
        if found != len(held_out):
            raise DataError(
                f"{found} images of {held_out.name} found in {self.name}, expected exactly {len(held_out)}: "
                "exclude a set that was drawn from this one"
            )
        return self.take(np.flatnonzero(kept), f"{self.name} without {held_out.name}")

    def sha256(self) -> str:
        """Hash of shape, pixels and labels, in hexadecimal."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(self.images.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    def _shuffled(self, n: int, seed: int) -> NDArray[np.int64]:
        if not 1 <= n <= len(self):
            raise DataError(f"{self.name}: {n} images asked for, expected 1 to {len(self)}")
        return np.random.default_rng(seed).permutation(len(self))


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"a {type(value).__name__}"
