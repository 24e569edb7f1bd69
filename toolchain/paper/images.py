"""Which images a table is measured on, and the substitute that black-box attacks are made on."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import DataError
from ...models.cifar import cifar10_home
from ...models.datasets import cache_folder, resolve_dataset
from ...models.mnist import mnist_home
from ...models.recipe import TrainingRecipe
from ..judged import calibration_set

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from ...models.image_data import Dataset
    from .printed import DataName

__all__ = ["Images", "image_shape", "make_substitute", "paper_images", "training_images"]

_SHAPES: dict[DataName, tuple[int, int, int]] = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}
_HOMES = {"mnist": mnist_home, "cifar10": cifar10_home}
_SAMPLE = "mnist-sample"

# Another architecture than the models of the tables, from another seed: what an attacker would have to do himself.
_SUBSTITUTES: dict[DataName, tuple[str, TrainingRecipe]] = {
    "mnist": ("mnist-vgg", TrainingRecipe(epochs=3, learning_rate=4e-3, seed=20)),
    "cifar10": (
        "cifar-resnet8",
        TrainingRecipe(epochs=10, learning_rate=4e-3, shift=4, flip=True, seed=20),
    ),
}
_QUICK_TRAINING = 10_000


class Images(NamedTuple):
    """Images that judge, and images that calibrate; none is in both."""

    spec: str
    judged: Dataset
    calibration: Dataset


def image_shape(data: DataName) -> tuple[int, int, int]:
    """Return the shape of a data set's images, `(C, H, W)`."""
    return _SHAPES[data]


def paper_images(data: DataName, spec: str | None, count: int, seed: int) -> Images:
    """Return the images of a table.

    Args:
        data: Which data set.
        spec: See `resolve_dataset`; a folder may hold both data sets. None: the set of that name, or else, of MNIST,
            the bundled sample.
        count: How many judge at most, drawn by the seed.
        seed: Of the draw.

    Raises:
        DataError: There is no such set, or its images are of another size.
    """
    found = _spec(data, spec)
    test = resolve_dataset(found)
    if test.images.shape[1:] != _SHAPES[data]:
        raise DataError(f"{test.name} has images of {test.images.shape[1:]}; the table needs {_SHAPES[data]}")
    calibration = calibration_set(found)
    judged = _except(test, calibration)
    return Images(found, judged.subset(min(count, len(judged)), seed), calibration)


def training_images(images: Images) -> Dataset:
    """Return the training split without the images that judge; a set without splits leaves what does not judge."""
    return _except(resolve_dataset(images.spec, "train"), images.judged)


def make_substitute(
    data: DataName,
    images: Images,
    *,
    quick: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> tuple[nn.Module, str]:
    """Return a model to make black-box attacks on, and what it is in words.

    It is trained once and kept in the cache folder, under a hash of its training images and settings.

    Args:
        data: Which data set.
        images: Those of the table.
        quick: Train on 10,000 images at most.
        progress: Called with what is done and its share.

    Raises:
        OutputError: The cache folder cannot be written.
    """
    from ...models.checkpoints import load_model, save_weights
    from ...models.registry import build_model
    from ...models.training import train

    name, recipe = _SUBSTITUTES[data]
    training = training_images(images)
    if quick and len(training) > _QUICK_TRAINING:
        training = training.subset(_QUICK_TRAINING, recipe.seed)
    words = f"{name}, {recipe.epochs} epochs on {len(training)} images of {training.name}, seed {recipe.seed}"
    digest = hashlib.sha256(f"{name} {recipe} {training.sha256()}".encode()).hexdigest()[:16]
    folder = cache_folder()
    file = folder / f"paper-substitute-{digest}.safetensors"
    if not file.is_file():
        network = build_model(name, seed=recipe.seed)

        def tell(now: object) -> None:
            if progress is not None:
                epoch, epochs = getattr(now, "epoch", 1), getattr(now, "epochs", 1)
                progress("training the substitute", (epoch - 1) / epochs)

        train(network, training, recipe, progress=tell)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            from ...errors import OutputError

            raise OutputError(f"cannot make the folder {folder}: {error.strerror or error}") from None
        save_weights(network, file, half=False, architecture=name)
    # As it is read back, so that it is the same whether it was kept before or not.
    return load_model(file), words


def _spec(data: DataName, spec: str | None) -> str:
    if spec is not None:
        home = _HOMES[data](Path(spec)) if Path(spec).is_dir() else None
        return spec if home is None else str(home)
    if data == "cifar10":
        return data
    try:
        resolve_dataset(data)
    except DataError:
        return _SAMPLE
    return data


def _except(data: Dataset, others: Dataset) -> Dataset:
    """The images of a set that are not among others, by their bytes."""
    unwanted = {image.tobytes() for image in others.images}
    kept = np.array([image.tobytes() not in unwanted for image in data.images])
    if kept.all():
        return data
    if not kept.any():
        raise DataError(f"{data.name}: all images are taken for something else; expected more images")
    return data.take(np.flatnonzero(kept))
