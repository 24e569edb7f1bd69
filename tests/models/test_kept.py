"""What is kept between runs: the same array, or none; never an error, never another file's array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from ohmfold.models import kept, mnist
from ohmfold.models.kept import cache_folder, keep_array, kept_array

if TYPE_CHECKING:
    from pathlib import Path

ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ohmfold"


def test_an_array_comes_back_as_it_was(folder: Path) -> None:
    assert cache_folder() == folder
    assert kept_array("a", (3, 4), np.uint8) is None
    keep_array("a", ARRAY)
    found = kept_array("a", (3, 4), np.uint8)
    assert found is not None
    assert np.array_equal(found, ARRAY)
    assert [path.name for path in folder.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(("shape", "dtype"), [((4, 3), np.uint8), ((3, 4), np.int8), ((3,), np.uint8)])
def test_an_array_of_another_form_is_none(shape: tuple[int, ...], dtype: type) -> None:
    keep_array("a", ARRAY)
    assert kept_array("a", shape, dtype) is None


def test_a_damaged_file_is_none_and_is_replaced(folder: Path) -> None:
    keep_array("a", ARRAY)
    whole = (folder / "a.npz").read_bytes()
    place = whole.index(ARRAY.tobytes())
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    np.save(folder / "pickled.npy", np.array([{}], dtype=object))
    for damaged in (b"", whole[:50], flipped, b"\x80\x04.", (folder / "pickled.npy").read_bytes()):
        (folder / "a.npz").write_bytes(damaged)
        assert kept_array("a", (3, 4), np.uint8) is None
    keep_array("a", ARRAY)
    assert (folder / "a.npz").read_bytes() == whole


def test_where_nothing_can_be_written_nothing_is_kept(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_bytes(b"a file where the folder should be")
    keep_array("a", ARRAY)
    assert kept_array("a", (3, 4), np.uint8) is None


def test_an_interrupted_write_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kept.Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        keep_array("a", ARRAY)
    assert list(folder.iterdir()) == []


def test_the_sample_is_parsed_once_for_each_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    first = mnist.load_mnist_sample()
    monkeypatch.setattr(mnist, "_sample_rows", None)  # calling it would raise
    second = mnist.load_mnist_sample()
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.labels, second.labels)
    assert second.images.flags.c_contiguous
    other = folder / "other.csv.gz"
    other.write_bytes(b"another file")
    monkeypatch.setattr(mnist, "mnist_sample_file", lambda: other)
    with pytest.raises(TypeError):
        mnist.load_mnist_sample()
