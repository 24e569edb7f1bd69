"""Checkpoints and images that promise more than they hold, name what they must not, or are something else."""

from __future__ import annotations

import io
import pickle
import struct
import tracemalloc
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from ohmfold.errors import CheckpointError, DataError
from ohmfold.models.checkpoints import load_model, read_training_state, write_training_state
from ohmfold.models.own_data import load_class_folders

if TYPE_CHECKING:
    from pathlib import Path

STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def with_pickle(path: Path, pickled: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """A checkpoint of four numbers whose pickle is another one."""
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)
    return path


def rebuilt(size: bytes, stride: bytes) -> bytes:
    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00"
        + size + b"\x85" + stride + b"\x85\x89ccollections\nOrderedDict\n)RtRs."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pickled", "name"),
    [
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os system"),
        (b"\x80\x02cbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85R.", "builtins bytearray"),
        (b"\x80\x02ctorch\nTensor\nJ\x00\x00\x00\x40\x85R.", "torch Tensor"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "STACK_GLOBAL"),
    ],
)
def test_a_checkpoint_that_names_more_than_tensors_is_not_loaded(
    pickled: bytes, name: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=f"names '{name}'"):
        load_model(with_pickle(tmp_path / "a.pt", pickled))


def test_a_tensor_larger_than_its_storage_takes_no_memory(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", rebuilt(b"\x8a\x06\x00\x00\x00\x00\x00\x01", b"K\x01"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_model(path)


def test_a_tensor_that_repeats_one_number_beyond_measure_is_refused(tmp_path: Path) -> None:
    path = with_pickle(tmp_path / "a.pt", rebuilt(b"\x8a\x06\x00\x00\x00\x00\x00\x01", b"K\x00"))
    with pytest.raises(CheckpointError, match="save contiguous tensors"):
        load_model(path)


def test_compressed_archives_and_bare_pickles_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(4)}, tmp_path / "b.pt")
    with zipfile.ZipFile(tmp_path / "b.pt") as archive:
        pickled = next(
            archive.read(info) for info in archive.infolist() if info.filename.endswith("data.pkl")
        )
    with pytest.raises(CheckpointError, match="compressed"):
        load_model(with_pickle(tmp_path / "a.pt", pickled, zipfile.ZIP_DEFLATED))
    (tmp_path / "c.pt").write_bytes(pickle.dumps({"a": [1.0]}))
    with pytest.raises(CheckpointError, match=r"no archive of torch\.save"):
        load_model(tmp_path / "c.pt")


def test_a_training_state_comes_back_with_its_tensors_and_plain_values(tmp_path: Path) -> None:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    state = {
        "epoch": 3,
        "rng": torch.get_rng_state(),
        "optimizer": optimizer.state_dict(),
        "best": None,
        "loss": 0.5,
    }
    write_training_state(tmp_path / "t.pt", "run", state)
    found = read_training_state(tmp_path / "t.pt", "run")
    assert torch.equal(found["rng"], state["rng"])
    assert torch.equal(
        found["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"]
    )
    assert (found["epoch"], found["best"], found["loss"]) == (3, None, 0.5)
    found["rng"][:] = 0  # a copy of its own: the file stays as it is
    assert torch.equal(read_training_state(tmp_path / "t.pt", "run")["rng"], state["rng"])


def png(width: int, height: int, body: bytes) -> bytes:
    chunks = (b"IHDR", struct.pack(">II5B", width, height, 8, 0, 0, 0, 0)), (b"IDAT", body), (b"IEND", b"")
    parts = [struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def sound_png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_images(folder: Path, *contents: bytes) -> Path:
    (folder / "class").mkdir()
    for index, content in enumerate(contents):
        (folder / "class" / f"{index}.png").write_bytes(content)
    return folder


def test_an_image_of_more_pixels_than_its_file_can_hold_is_not_decoded(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="8000x8000 pixels in"):
        load_class_folders(write_images(tmp_path, png(8000, 8000, zlib.compress(bytes(8001 * 8000)))[:60000]))


def test_a_chunk_that_promises_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    content = bytearray(sound_png())
    struct.pack_into(">I", content, content.find(b"IDAT") - 4, 0x7FFFFFF0)
    tracemalloc.start()
    data = load_class_folders(write_images(tmp_path, bytes(content)))
    assert (data.images == 0).all()  # all pixels are there
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",  # Pillow would start Ghostscript
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
        b"",
        png(8, 8, b""),
        png(8, 8, zlib.compress(b"\x09" * 72)),
    ],
)
def test_other_formats_under_the_name_of_a_png_and_damaged_ones_are_refused(
    content: bytes, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"1\.png: cannot be read as an image"):
        load_class_folders(write_images(tmp_path, sound_png(), content))


def test_a_file_of_another_size_is_found_before_any_pixel_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"9x9 grey, but .* is 8x8 grey"):
        load_class_folders(write_images(tmp_path, png(8, 8, b"damaged"), sound_png(9)))
