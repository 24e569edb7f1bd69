"""What is fuzzed: for every reader how its inputs are mutated and how a program calls it."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .archives import bomb, mutated_npz
from .plain import EDGES, mutated_bytes
from .protobufs import mutated_metadata, mutated_onnx
from .torch_files import mutated_checkpoint, mutated_safetensors
from .trees import mutated_json, mutated_toml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

    from .seeds import Files

__all__ = ["READERS", "Reader", "mutated", "shares", "written"]

_OTHER_FORMATS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"II*\x00", b"GIF89a", b"BM", b"P5\n9 9\n255\n",
)  # fmt: skip
_IMAGE_SIZES = ((30000, 20000), (0x7FFFFFFF, 0x7FFFFFFF), (0, 8), (9, 9), (65535, 65535), (9000, 9000))


class Reader(NamedTuple):
    """A reader of files.

    Attributes:
        mutate: Makes another content of a file from a sound one and a second to splice with.
        read: Reads an input: called with its folder and the path of its first file.
        share: How often it runs beside the others, for its speed and its size.
        times: How many times the usual allowance of memory it has.
    """

    mutate: Callable[[Random, bytes, bytes], bytes]
    read: Callable[[Path, Path], object]
    share: float = 1.0
    times: int = 1


def mutated(reader: Reader, rng: Random, seeds: list[Files]) -> Files:
    """Return an input: a sound one of which a file (sometimes two) was mutated."""
    files = dict(rng.choice(seeds))
    other = rng.choice(seeds)
    for name in rng.sample(sorted(files), 1 if len(files) == 1 or rng.random() < 0.8 else 2):
        content = other.get(name) or next(iter(other.values()))
        mutate = mutated_json if name.endswith(".json") else reader.mutate
        files[name] = mutate(rng, files[name], content)
    return files


def _mutated_idx(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """Another header; compressed files are mutated on the inside, on the outside, or swell."""
    if data[:2] == b"\x1f\x8b":
        kind = rng.random()
        if kind < 0.4:
            return gzip.compress(_mutated_idx(rng, gzip.decompress(data), b""), 1, mtime=0)
        if kind < 0.41:
            head = struct.pack(">4B3I", 0, 0, 8, 3, 600 << 10, 32, 32)
            press = zlib.compressobj(9, wbits=-15)
            return data[:10] + press.compress(head) + press.flush(zlib.Z_FULL_FLUSH) + bomb() + bytes(8)
    if rng.random() < 0.5 and len(data) > 8:
        found = bytearray(data)
        place = 4 + 4 * rng.randrange(3 if len(data) > 100 else 1)
        struct.pack_into(">I", found, place, rng.choice(EDGES) & 0xFFFFFFFF)
        return bytes(found)
    return mutated_bytes(rng, data, other)


def _mutated_image(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    """A PNG with another chunk and the right checksum, another format under its name, or mutated bytes."""
    if data[:4] != b"\x89PNG" or rng.random() < 0.4:
        if rng.random() < 0.1:
            return rng.choice(_OTHER_FORMATS) + data
        return mutated_bytes(rng, data, other)
    chunks, place = [], 8
    while place < len(data):
        size = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    at = rng.randrange(len(chunks))
    kind, content = chunks[at]
    if rng.random() < 0.4:
        at, kind = 0, b"IHDR"
        rest = chunks[0][1][8:] if rng.random() < 0.5 else rng.randbytes(5)
        content = struct.pack(">II", *rng.choice(_IMAGE_SIZES)) + rest
    elif rng.random() < 0.3:
        kind = rng.choice((b"iTXt", b"zTXt", b"iCCP", b"PLTE", b"tRNS", b"eXIf", b"acTL", b"fdAT", b"IDAT"))
    else:
        content = mutated_bytes(rng, content)
    if rng.random() < 0.2:
        chunks.insert(at, (kind, content))
    else:
        chunks[at] = kind, content
    parts = [data[:8]]
    for name, body in chunks:
        parts += [struct.pack(">I", len(body)), name, body, struct.pack(">I", zlib.crc32(name + body))]
    return b"".join(parts)


def _read_integer(_: Path, path: Path) -> object:
    from ohmfold.toolchain.artifact import Artifact

    artifact = Artifact.load(path)
    return artifact.metadata(), artifact.notes, artifact.program


def _read_float(_: Path, path: Path) -> object:
    from ohmfold.toolchain.artifact import load_model_file
    from ohmfold.toolchain.float_model import prepare_float_model

    model, _ = load_model_file(path)
    prepare_float_model(model)
    return model


def _compile(_: Path, path: Path) -> object:
    """Read a float model and run it, which takes the memory that its largest tensors take."""
    import ohmfold

    return ohmfold.compile(path, np.random.default_rng(5).integers(0, 256, (4, 1, 8, 8), np.uint8))


def _read_weights(_: Path, path: Path) -> object:
    from ohmfold.models.checkpoints import load_model

    return load_model(path)


def _read_training(_: Path, path: Path) -> object:
    from ohmfold.models.checkpoints import read_training_state

    return read_training_state(path, "run")


def _read_hardware(_: Path, path: Path) -> object:
    from ohmfold.toolchain.hardware import load_hardware

    hardware = load_hardware(path)
    return hardware.to_toml(), hardware.sha256


def _read_recipe(_: Path, path: Path) -> object:
    import ohmfold

    recipe = ohmfold.Recipe.load(path)
    return recipe.to_toml(), recipe.weight_options("fc", is_first=True)


def _read_suite(_: Path, path: Path) -> object:
    from ohmfold.toolchain.attacks.suite import load_suite

    return [entry.make() for suite in load_suite(path).expanded() for entry in suite.file.attacks]


def _read_probe(_: Path, path: Path) -> object:
    from ohmfold.errors import RecipeError
    from ohmfold.toolchain.attacks.masking.plan import Plan

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:  # the shipped plan is text; nobody reads another from a file
        raise RecipeError(str(error)) from None
    return Plan.from_toml(text)


def _read_mnist(folder: Path, _: Path) -> object:
    from ohmfold.models.datasets import resolve_dataset

    return resolve_dataset(folder, "test")


def _read_npz(_: Path, path: Path) -> object:
    from ohmfold.models.datasets import resolve_dataset

    return resolve_dataset(path)


def _read_adversarial(_: Path, path: Path) -> object:
    from ohmfold.toolchain.attacks import load_adversarial

    return load_adversarial(path)


def _read_image(folder: Path, _: Path) -> object:
    from ohmfold.toolchain.targets.crossbar_reader import load_image

    return load_image(folder).hardware


def _read_result(folder: Path, _: Path) -> object:
    from ohmfold.toolchain.attacks.results import CampaignResult

    return CampaignResult.load(folder).to_json()


def _read_run(folder: Path, _: Path) -> object:
    from ohmfold.toolchain.run_record import RunRecord

    return RunRecord.load(folder).to_json()


def _read_chips(folder: Path, _: Path) -> object:
    from ohmfold.toolchain.chip_folder import FinishedChips

    return FinishedChips(folder)


def _read_baseline(_: Path, path: Path) -> object:
    from ohmfold import testing
    from ohmfold.errors import DataError

    try:
        return testing._read(path)  # noqa: SLF001 - what a test of a user calls
    except testing.AccuracyError as error:  # what a failed test of a user raises: an AssertionError
        raise DataError(str(error)) from None


def _read_kept(folder: Path, _: Path) -> object:
    from ohmfold.models.kept import kept_array

    os.environ["XDG_CACHE_HOME"] = str(folder)
    return kept_array("kept", (3, 4), np.uint8)


def _mutated_lines(rng: Random, data: bytes, other: bytes = b"") -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    if lines[at]:
        lines[at] = mutated_json(rng, lines[at])
    return b"\n".join(lines) if rng.random() < 0.8 else mutated_bytes(rng, data, other)


READERS: dict[str, Reader] = {
    "onnx": Reader(mutated_onnx, _read_integer),
    "artifact-metadata": Reader(mutated_metadata, _read_integer, 0.3),
    "packed-onnx": Reader(mutated_onnx, _read_integer, 0.5),
    "float-onnx": Reader(mutated_onnx, _read_float, 0.5),
    "compile": Reader(mutated_onnx, _compile, 0.5, 32),
    "safetensors": Reader(mutated_safetensors, _read_weights),
    "checkpoint": Reader(mutated_checkpoint, _read_weights, 0.2),
    "training-state": Reader(mutated_checkpoint, _read_training, 0.2),
    "hardware-toml": Reader(mutated_toml, _read_hardware),
    "recipe-toml": Reader(mutated_toml, _read_recipe),
    "suite-toml": Reader(mutated_toml, _read_suite),
    "probe-toml": Reader(mutated_toml, _read_probe, 0.2),
    "mnist": Reader(_mutated_idx, _read_mnist),
    "cifar10": Reader(mutated_bytes, _read_mnist, 0.5),
    "npz": Reader(mutated_npz, _read_npz),
    "class-folders": Reader(_mutated_image, _read_mnist),
    "adversarial": Reader(mutated_npz, _read_adversarial),
    "crossbar-image": Reader(mutated_npz, _read_image),
    "result-json": Reader(mutated_json, _read_result),
    "run-json": Reader(mutated_json, _read_run, 0.5),
    "chip-lines": Reader(_mutated_lines, _read_chips, 0.5),
    "baseline-json": Reader(mutated_json, _read_baseline, 0.5),
    "kept-array": Reader(mutated_npz, _read_kept, 0.5),
}
"""Readers by name."""


def shares(count: int, names: list[str]) -> dict[str, int]:
    """Divide a number of inputs among readers by their shares; each gets at least one."""
    total = sum(READERS[name].share for name in names)
    return {name: max(1, round(count * READERS[name].share / total)) for name in names}


def written(files: Any, folder: Path) -> Path:
    """Write an input into a folder and return the path of its first file."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / next(iter(files))
