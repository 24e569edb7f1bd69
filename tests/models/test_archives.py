"""An npz is read for what it holds, and refused before memory is taken for what it only promises."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ohmfold.errors import DataError
from ohmfold.models.archives import largest_content, read_npz

if TYPE_CHECKING:
    from pathlib import Path


def npy(
    shape: str = "(2, 3)", descr: str = "'|u1'", *, values: bytes = bytes(6), header: str | None = None
) -> bytes:
    text = header or f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + values


def write(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_numpy_reads_them(save, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "bytes": rng.integers(0, 256, (3, 4, 5), np.uint8),
        "columns": np.asfortranarray(rng.normal(size=(4, 6)).astype(np.float32)),
        "big": rng.integers(-9, 9, 7).astype(">i4"),
        "marks": rng.random(9) < 0.5,
        "none": np.zeros((0, 3), np.int64),
        "one": np.float64(3.5),
    }
    save(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert np.array_equal(found[name], array)
        assert found[name].dtype == np.asarray(array).dtype
    assert list(read_npz(tmp_path / "a.npz", ("marks", "absent"))) == ["marks"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy("(1000000, 1000000, 1000000)"), "promises uint8"),
        (npy("(18446744073709551616,)"), "cannot be read"),
        (npy("(-2, -3)"), "of shape"),
        (npy("(True, 6)"), "of shape"),
        (npy("(" + "(" * 999), "damaged"),
        (npy(descr="'|O'"), "would have to be unpickled"),
        (npy(descr="'|S2147483647'"), "expected numbers"),
        (npy(descr="[('a', '|O')]"), "expected numbers"),
        (npy(header="{'descr': ("), "damaged"),
        (npy(header="[1]"), "damaged"),
        (npy(values=bytes(5)), "but 5 follow"),
        (npy(values=bytes(7)), "but 7 follow"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "has 65535 bytes"),
        (b"\x93NUMPY\x09\x09\x00\x00", "format 1 or 2"),
        (b"GIF89a", "no array"),
    ],
)
def test_headers_that_lie_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", ("a.npy", content))
    with pytest.raises(DataError, match=message):
        read_npz(path)


def test_members_that_swell_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    size = 256 << 20
    head = npy(f"({size},)", values=b"")
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as file,
    ):
        file.write(head)
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(DataError, match="swell to"):
        read_npz(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert largest_content(0) == 16 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_swell_without_a_limit_are_refused(method: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", ("a.npy", npy()), method=method)
    with pytest.raises(DataError, match="not deflated"):
        read_npz(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", ("a.npy", npy()), ("a.npy", npy()))
    with pytest.raises(DataError, match="same name"):
        read_npz(path)


def test_names_that_climb_write_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = write(folder / "a.npz", ("../outside.npy", npy()))
    assert list(read_npz(path)) == ["../outside"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_a_changed_value_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(200, dtype=np.uint8))
    data = bytearray(buffer.getvalue())
    data[data.find(bytes(range(50, 60)))] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(DataError, match="CRC"):
        read_npz(tmp_path / "a.npz")
