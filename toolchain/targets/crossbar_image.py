"""`crossbar`: the programming image for a chip of a hardware profile.

What a programmer writes into the cells, what the converters are set to, and what the digital side adds and multiplies
by: `image.json` says what there is (see `crossbar_manifest`), `image.npz` holds the arrays. Cells have the levels that
they are meant to have; what a chip makes of them is in its profile and seed, and so are the limits of converters that
follow from the cells. The rest of the network, which no cell computes, is the artifact's, and named by its SHA-256.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ...errors import HardwareError, TargetError
from ...kernels.isa import find
from .. import program as p
from ..crossbar import Crossbar
from ..crossbar.mapping import map_weights
from ..emulator import Emulator
from ..execution import batch_prefix
from ..hardware import Hardware
from ..planning import Plan
from .base import Built, Material, Options, Target
from .crossbar_layout import levels_of
from .crossbar_manifest import ArrayRow, DigitalRow, LayerImage, LimitsRow, Manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ...kernels.isa.base import InstructionSet
    from ..artifact import Artifact
    from ..crossbar import ProgrammedLayer

__all__ = ["ARRAYS", "MANIFEST", "CrossbarImage", "CrossbarOptions", "CrossbarTarget", "image_of"]

MANIFEST, ARRAYS = "image.json", "image.npz"


class CrossbarOptions(Options):
    """Which chip.

    Attributes:
        hardware: The profile.
        seed: The chip of that profile.
    """

    hardware: Hardware
    seed: int = 0


@dataclass(frozen=True, eq=False)
class CrossbarImage:
    """A programming image: what the manifest says, and the arrays that it names."""

    manifest: Manifest
    arrays: Mapping[str, NDArray[Any]]

    @property
    def hardware(self) -> Hardware:
        """The profile."""
        return Hardware(**self.manifest.hardware)

    def files(self) -> dict[str, bytes]:
        """The image as its two files."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **dict(self.arrays))
        text = self.manifest.model_dump_json(indent=1) + "\n"
        return {MANIFEST: text.encode(), ARRAYS: buffer.getvalue()}


class CrossbarTarget(Target[CrossbarOptions]):
    """Levels of the cells, limits of the converters, digital multipliers."""

    name: ClassVar[str] = "crossbar"
    description: ClassVar[str] = "the programming image for a crossbar of a hardware profile"
    options = CrossbarOptions

    def check(self, artifact: Artifact, options: CrossbarOptions) -> None:
        """Refuse programs without weights, weights that do not fit, and layers that no crossbar runs."""
        program = artifact.program
        if not any(True for _ in program.weighted_layers()):
            raise TargetError("the program has no convolution or dense layer, so there is nothing to program")
        planned = program.layers[: batch_prefix(program)]
        for layer in program.weighted_layers():
            if layer not in planned:
                raise HardwareError(
                    f"layer {layer.name!r} follows one that mixes samples, and cannot run on a crossbar"
                )
            bits = options.hardware.weight_bits(
                int(layer.weight.min(initial=0)), int(layer.weight.max(initial=0))
            )
            map_weights(1, 1, 1, bits, options.hardware)

    def build(self, artifact: Artifact, options: CrossbarOptions, material: Material | None = None) -> Built:
        """Build `image.json` and `image.npz`."""
        self.check(artifact, options)
        material = material or Material()
        image = image_of(artifact, options.hardware, options.seed, material)
        layers = {
            row.name: {"tiles": row.tiles, "levels": int(image.arrays[row.levels].size)}
            for row in image.manifest.layers
        }
        tiles = sum(row.tiles for row in image.manifest.layers)
        summary = {"hardware": options.hardware.name, "seed": options.seed, "tiles": tiles, "layers": layers}
        note = f"chip {options.seed} of {options.hardware.name}, {tiles} tiles; the other layers are the artifact's"
        return Built(image.files(), summary, (note,))


def image_of(
    artifact: Artifact, hardware: Hardware, seed: int = 0, material: Material | None = None
) -> CrossbarImage:
    """Make the programming image of an artifact for a chip.

    Args:
        artifact: Whose weights.
        hardware: The profile.
        seed: The chip.
        material: Calibration images, where the profile's converters are calibrated; progress.

    Raises:
        HardwareError: The profile cannot hold the program, or its converters need calibration images.
    """
    material = material or Material()
    emulator = Emulator(
        artifact,
        hardware=hardware,
        seed=seed,
        calibration=material.calibration,
        progress=lambda done, all_: material.progress("programming the chip", done / max(1, all_)),
    )
    chip = emulator.crossbar
    assert chip is not None  # noqa: S101 - it was given a profile
    arrays: dict[str, NDArray[Any]] = {}
    layers = []
    for index, laid in _laid_out(chip, find(emulator.isa)).items():
        row, own = _layer_image(index, laid, chip)
        layers.append(row)
        arrays |= own
    digital = []
    for index, layer in enumerate(artifact.program.layers):
        if isinstance(layer, p.Conv | p.Dense | p.Requantise | p.Scale):
            found = _digital(index, layer)
            if found is not None:
                digital.append(found[0])
                arrays |= found[1]
    manifest = Manifest(
        artifact_sha256=artifact.sha256,
        seed=seed,
        hardware=hardware.model_dump(mode="json"),
        layers=layers,
        digital=digital,
        arrays={name: _array_row(array) for name, array in arrays.items()},
    )
    return CrossbarImage(manifest, arrays)


def _array_row(array: NDArray[Any]) -> ArrayRow:
    return ArrayRow.model_validate({"dtype": array.dtype.name, "shape": list(array.shape)})


class _Laid(NamedTuple):
    """How a layer lies on the chip: its weights `(O, C / groups, kH, kW)` as they are laid, and what came of it."""

    layer: p.Conv | p.Dense
    weight: NDArray[Any]
    groups: int
    flip: int
    programmed: ProgrammedLayer


class _Watched(Crossbar):
    """The same chip, which keeps a record of how layers are laid on it."""

    laid: dict[str, _Laid]

    def layer(
        self, layer: p.Conv | p.Dense, weight: NDArray[Any], groups: int, flip: int, isa: InstructionSet
    ) -> ProgrammedLayer:
        """As of every chip; note it."""
        programmed = super().layer(layer, weight, groups, flip, isa)
        self.laid[layer.name] = _Laid(layer, weight, groups, flip, programmed)
        return programmed


def _laid_out(chip: Crossbar, isa: InstructionSet) -> dict[int, _Laid]:
    """How the layers lie that lead to the program's logits (or its outputs), by number in the program."""
    program = chip.program
    watched = _Watched(chip.hardware, program, chip.seed, windows=chip.windows, programmed=chip.programmed)
    watched.laid = {}
    stop = batch_prefix(program)
    outputs = [spec.name for spec in program.outputs] if program.logits is None else [program.logits]
    wanted = {*outputs, *(name for layer in program.layers[stop:] for name in layer.inputs)}
    known = {name for layer in program.layers[:stop] for name in layer.outputs}
    Plan(program, stop, wanted & known, isa, watched)
    return {
        index: watched.laid[layer.name]
        for index, layer in enumerate(program.layers)
        if isinstance(layer, p.Conv | p.Dense) and layer.name in watched.laid
    }


def _layer_image(index: int, laid: _Laid, chip: Crossbar) -> tuple[LayerImage, dict[str, NDArray[Any]]]:
    layer, weight, groups, flip, programmed = laid
    hardware, mapping = chip.hardware, programmed.mapping
    outputs, channels, height, width = weight.shape
    matrix = weight.transpose(2, 3, 1, 0).reshape(-1, groups, outputs // groups).transpose(1, 0, 2)
    bits = hardware.weight_bits(int(weight.min(initial=0)), int(weight.max(initial=0)))
    word, limits, window = f"layer{index:04d}", programmed.converters, chip.windows.get(layer.name)
    row = LayerImage(
        index=index,
        name=layer.name,
        levels=f"{word}.levels",
        offset=f"{word}.offset",
        weight_bits=bits,
        rows=mapping.rows,
        columns=mapping.columns,
        groups=groups,
        kernel=[height, width],
        channels=channels,
        slices=mapping.slices,
        row_tiles=mapping.row_tiles,
        column_tiles=mapping.column_tiles,
        groups_per_tile=mapping.groups_per_tile,
        tiles=mapping.tiles,
        zero_point=layer.input_zero_point + flip,
        flip=128 if flip else 0,
        converters=None if limits is None else LimitsRow(**limits._asdict()),
        window=None if window is None else list(window),
    )
    levels = levels_of(matrix, bits, mapping, hardware)
    return row, {row.levels: levels, row.offset: np.stack(programmed.bias)}


def _digital(
    index: int, layer: p.Conv | p.Dense | p.Requantise | p.Scale
) -> tuple[DigitalRow, dict[str, NDArray[Any]]] | None:
    """What a layer multiplies by; None for one whose int32 sums are its output."""
    requantisation = None if isinstance(layer, p.Scale) else layer.requantisation
    if isinstance(layer, p.Scale):
        multiplier = layer.multiplier
    elif requantisation is None:
        return None
    else:
        multiplier = requantisation.multiplier
    word = f"layer{index:04d}"
    arrays: dict[str, NDArray[Any]] = {f"{word}.multiplier": np.asarray(multiplier, np.float32)}
    if isinstance(layer, p.Requantise) and layer.bias is not None:
        arrays[f"{word}.bias"] = layer.bias
    row = DigitalRow.model_validate(
        {
            "index": index,
            "name": layer.name,
            "kind": type(layer).__name__,
            "multiplier": f"{word}.multiplier",
            "bias": f"{word}.bias" if f"{word}.bias" in arrays else None,
            "zero_point": None if requantisation is None else requantisation.zero_point,
            "dtype": None if requantisation is None else requantisation.dtype.name,
        }
    )
    return row, arrays
