"""A crossbar image read from its folder, checked, and run.

    image = load_image("image")
    emulator = emulator_of(image, artifact)        the bits of Emulator(artifact, hardware=..., seed=...)

Nothing in the files is trusted: the manifest is held against its schema, every array against what the manifest says of
its type and shape before its values are read, and the cells against the one way in which weights are laid on tiles.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from ...errors import DataError
from ...models.archives import UNREADABLE, open_archive, read_member
from .. import program as p
from ..crossbar.mapping import map_weights
from ..emulator import Emulator
from .crossbar_image import ARRAYS, MANIFEST, CrossbarImage
from .crossbar_layout import levels_of, levels_shape, weights_of
from .crossbar_manifest import ArrayRow, DigitalRow, LayerImage, LimitsRow, Manifest

if TYPE_CHECKING:
    import zipfile

    from numpy.typing import NDArray

    from ..artifact import Artifact
    from ..hardware import Hardware

__all__ = ["emulator_of", "load_image", "program_of_image"]

_LARGEST_MANIFEST = 16 << 20
_LARGEST_ARRAYS = 4 << 30
# What an array's header may take beside its values.
_HEADER = 4096


def load_image(folder: str | Path) -> CrossbarImage:
    """Read an image and check it.

    Args:
        folder: Holds `image.json` and `image.npz`.

    Raises:
        DataError: A file is missing, damaged or too large, an array is not what the manifest says, or cells do not
            hold weights in the way that the manifest says.
        HardwareError: The profile is not one, or cannot hold the layers.
    """
    folder = Path(folder)
    manifest = _manifest(folder / MANIFEST)
    image = CrossbarImage(manifest, _arrays(folder / ARRAYS, manifest.arrays))
    hardware = image.hardware
    for row in manifest.layers:
        _check_layer(row, image, hardware, folder)
    _check_names(manifest, folder)
    return image


def emulator_of(image: CrossbarImage, artifact: Artifact, *, threads: int | None = None) -> Emulator:
    """Return an emulator of the chip that was programmed with an image.

    Weights, what is added and multiplied by digitally, and the limits of the converters are the image's; the layers
    that no cell computes are the artifact's.

    Args:
        image: The image.
        artifact: The one that the image was made from.
        threads: As for `Emulator`.

    Raises:
        DataError: The image is another artifact's, or its converters are not those of its profile and seed.
    """
    if artifact.sha256 != image.manifest.artifact_sha256:
        raise DataError(
            f"the image was made from the artifact of SHA-256 {image.manifest.artifact_sha256[:12]}..., found one of "
            f"{artifact.sha256[:12]}...; load the artifact that it was built from"
        )
    windows = {row.name: (row.window[0], row.window[1]) for row in image.manifest.layers if row.window}
    emulator = Emulator(
        program_of_image(image, artifact.program),
        threads=threads,
        hardware=image.hardware,
        seed=image.manifest.seed,
        windows=windows,
    )
    assert emulator.crossbar is not None  # noqa: S101 - it was given a profile
    for row in image.manifest.layers:
        programmed = emulator.crossbar.programmed.get(row.name)
        limits = None if programmed is None else programmed.converters
        if programmed is None or row.converters != (
            None if limits is None else LimitsRow(**limits._asdict())
        ):
            raise DataError(
                f"layer '{row.name}': the image sets its converters to {row.converters}, but those of chip "
                f"{image.manifest.seed} of '{image.hardware.name}' are {limits}; build the image again"
            )
    return emulator


def program_of_image(image: CrossbarImage, program: p.Program) -> p.Program:
    """Return a program whose numbers are the image's.

    Args:
        image: The image.
        program: Tells what is done with the numbers.

    Raises:
        DataError: The image has numbers for other layers than the program's.
    """
    layers = list(program.layers)
    weighted = {i for i, layer in enumerate(layers) if isinstance(layer, p.Conv | p.Dense)}
    if {row.index for row in image.manifest.layers} != weighted:
        raise DataError("the image does not hold the very layers of the program that have weights")
    for row in image.manifest.layers:
        layers[row.index] = _with_weights(_named(layers, row, ("Conv", "Dense")), row, image)
    for digital in image.manifest.digital:
        layer = _named(layers, digital, (digital.kind,))
        layers[digital.index] = _with_multiplier(layer, digital, image)
    return replace(program, layers=tuple(layers))


def _manifest(path: Path) -> Manifest:
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise DataError(f"{path} has {path.stat().st_size} bytes, expected at most {_LARGEST_MANIFEST}")
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not the manifest of a crossbar image ({error})") from None
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise DataError(f"{path}: {where}: {first['msg']}; build the image again") from None


def _arrays(path: Path, rows: dict[str, ArrayRow]) -> dict[str, NDArray[Any]]:
    total = sum(row.bytes for row in rows.values())
    if total > _LARGEST_ARRAYS:
        raise DataError(f"{path}: its manifest asks for {total} bytes, expected at most {_LARGEST_ARRAYS}")
    try:
        with open_archive(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if set(members) != {f"{name}.npy" for name in rows}:
                raise DataError(f"{path}: it does not hold the arrays of its manifest and nothing else")
            return {name: _array(archive, members[f"{name}.npy"], row) for name, row in rows.items()}
    except UNREADABLE as error:
        raise DataError(f"{path}: not the arrays of a crossbar image ({error})") from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, row: ArrayRow) -> NDArray[Any]:
    """Read an array; its header is compared before memory is taken for its values."""
    if info.file_size > row.bytes + _HEADER:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, its values take {row.bytes}")
    array = read_member(archive, info)
    if array.dtype != np.dtype(row.dtype) or array.shape != tuple(row.shape):
        raise ValueError(
            f"{info.filename} is {array.dtype}{array.shape}, expected {row.dtype}{tuple(row.shape)}"
        )
    return array


def _check_names(manifest: Manifest, folder: Path) -> None:
    """Every array has one use."""
    named = [name for row in manifest.layers for name in (row.levels, row.offset)]
    named += [name for row in manifest.digital for name in (row.multiplier, row.bias) if name]
    if sorted(named) != sorted(manifest.arrays):
        raise DataError(f"{folder}: the manifest lists other arrays than its layers name")


def _check_layer(row: LayerImage, image: CrossbarImage, hardware: Hardware, folder: Path) -> None:
    where = f"{folder}: layer '{row.name}'"
    if row.rows != row.kernel[0] * row.kernel[1] * row.channels:
        raise DataError(
            f"{where}: found {row.rows} rows for a kernel {row.kernel} of {row.channels} channels"
        )
    mapping = map_weights(row.rows, row.columns, row.groups, row.weight_bits, hardware)
    for name in ("slices", "row_tiles", "column_tiles", "groups_per_tile", "tiles"):
        found, expected = getattr(row, name), getattr(mapping, name)
        if found != expected:
            raise DataError(f"{where}: found {name} = {found}, profile '{hardware.name}' makes it {expected}")
    levels, offset = (image.arrays.get(name) for name in (row.levels, row.offset))
    arrays = ((levels, np.uint8, levels_shape(mapping)), (offset, np.int32, (row.groups, row.columns)))
    for array, dtype, shape in arrays:
        if array is None or array.dtype != dtype or array.shape != shape:
            raise DataError(f"{where}: an array is missing, or is not {np.dtype(dtype)}{shape}")
    assert levels is not None  # noqa: S101 - just compared
    weight = weights_of(levels, row.weight_bits, mapping, hardware)
    bits = hardware.weight_bits(int(weight.min(initial=0)), int(weight.max(initial=0)))
    if bits != row.weight_bits or not np.array_equal(levels_of(weight, bits, mapping, hardware), levels):
        raise DataError(
            f"{where}: its cells do not hold weights of {row.weight_bits} bits as mapping '{hardware.array.mapping}' "
            "lays them; a cell was changed, or the image is damaged"
        )


def _named(layers: list[p.Layer], row: LayerImage | DigitalRow, kinds: tuple[str, ...]) -> p.Layer:
    layer = layers[row.index] if row.index < len(layers) else None
    if layer is None or layer.name != row.name or type(layer).__name__ not in kinds:
        found = "none" if layer is None else f"{type(layer).__name__} '{layer.name}'"
        raise DataError(
            f"the image has numbers for layer {row.index}, '{row.name}'; the program's is {found}"
        )
    return layer


def _with_weights(layer: p.Layer, row: LayerImage, image: CrossbarImage) -> p.Layer:
    """The layer with the weights that the cells hold, and the bias that follows from the offset."""
    assert isinstance(layer, p.Conv | p.Dense)  # noqa: S101 - the caller has looked
    mapping = map_weights(row.rows, row.columns, row.groups, row.weight_bits, image.hardware)
    matrix = weights_of(image.arrays[row.levels], row.weight_bits, mapping, image.hardware)
    taps = matrix.reshape(row.groups, *row.kernel, row.channels, row.columns)
    weight = taps.transpose(0, 4, 3, 1, 2).reshape(row.groups * row.columns, row.channels, *row.kernel)
    if isinstance(layer, p.Dense):
        weight = weight.reshape(len(weight), -1).T
    if weight.size != layer.weight.size or row.zero_point - row.flip != layer.input_zero_point:
        raise DataError(
            f"layer '{row.name}': the image's weights or zero point are not of the program's form"
        )
    totals = matrix.astype(np.int64).sum(axis=1)
    bias = (
        (image.arrays[row.offset] + row.zero_point * totals)
        .astype(np.uint64)
        .astype(np.uint32)
        .view(np.int32)
    )
    stored = np.ascontiguousarray(weight.reshape(layer.weight.shape)).astype(layer.weight.dtype)
    return replace(layer, weight=stored, bias=bias.reshape(-1))


def _with_multiplier(layer: p.Layer, row: DigitalRow, image: CrossbarImage) -> p.Layer:
    multiplier = image.arrays[row.multiplier]
    if isinstance(layer, p.Scale):
        expected: tuple[int, ...] = layer.multiplier.shape
    else:
        requantisation = getattr(layer, "requantisation", None)
        if requantisation is None or row.zero_point is None or row.dtype is None:
            raise DataError(
                f"layer '{row.name}': the image has a multiplier where the program multiplies by none"
            )
        expected = requantisation.multiplier.shape
    if multiplier.dtype != np.float32 or multiplier.shape != expected or not np.isfinite(multiplier).all():
        raise DataError(f"layer '{row.name}': its multiplier is not finite float32{expected}")
    if isinstance(layer, p.Scale):
        return replace(layer, multiplier=multiplier)
    assert row.zero_point is not None  # noqa: S101 - just compared
    changed: dict[str, Any] = {
        "requantisation": p.Requantisation(multiplier, row.zero_point, np.dtype(row.dtype))
    }
    if isinstance(layer, p.Requantise):
        bias = None if row.bias is None else image.arrays[row.bias]
        if (bias is None) != (layer.bias is None) or (bias is not None and bias.dtype != np.int32):
            raise DataError(f"layer '{row.name}': the image's bias is not of the program's form")
        changed["bias"] = bias
    return replace(layer, **changed)
