"""`ohmfold run --hardware`: what a chip classifies, and where the layers lie on it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from .hardware import chosen_profile
from .output import count, say, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ...models.image_data import Dataset
    from ..artifact import Artifact
    from ..crossbar.clipping import ClippedReads
    from ..crossbar.counts import LayerCounts, ProgramCounts
    from ..hardware import Hardware
    from ..tiled_layers import TiledLayer

__all__ = ["OnTiles", "chip_document", "layer_table", "profile_to_run", "run_on_chip"]

# Images that a chip classifies before its time is taken: enough to compile what there is to compile.
_WARM_UP = 8


# Images whose reads are looked at one by one, to count those that clip: at most so many, and so few that they read
# no more cells than this (but one image).
_CLIPPING_IMAGES, _CLIPPING_READS = 16, 20_000_000_000


class OnTiles(NamedTuple):
    """The layers on their tiles, what an inference on these costs, and what is not ideal about it.

    Attributes:
        layers: The layers.
        costs: Of one inference.
        clipped: Reads of each layer that its converters clipped.
        clipping_images: On how many images: the first.
        fixed_point_errors: Of each layer, the largest difference between a cell's conductance and its fixed point,
            in levels.
    """

    layers: tuple[TiledLayer, ...]
    costs: ProgramCounts
    clipped: Mapping[str, ClippedReads]
    clipping_images: int
    fixed_point_errors: Mapping[str, float]


def profile_to_run(
    hardware: str | None, changes: list[str] | None, seed: int | None, witness: str
) -> Hardware | None:
    """Return the profile that the options name, None where they name none.

    Raises:
        HardwareError: There is no such profile, or another option does not go with what `--hardware` says.
    """
    from ...errors import HardwareError

    if hardware is None:
        if changes or seed is not None:
            given = "--set" if changes else "--seed"
            raise HardwareError(f"{given} is about a chip: expected --hardware NAME|FILE.toml with it")
        return None
    if witness != "emulator":
        raise HardwareError(
            f"--witness {witness} with --hardware: another runtime computes exact integers, which no chip has to "
            "equal; leave one of them out"
        )
    return chosen_profile(hardware, changes)


def run_on_chip(
    artifact: Artifact,
    profile: Hardware,
    seed: int,
    pixels: NDArray[Any],
    calibration: Dataset | None,
    batch_size: int,
    progress: Callable[[float], None],
) -> tuple[NDArray[np.int64], float, OnTiles]:
    """Return classes, images per second once the chip is programmed, and the layers on their tiles."""
    from ..crossbar.clipping import count_clipped
    from ..crossbar.counts import count_program
    from ..emulator import Emulator
    from ..judged import as_input, emulated
    from ..tiled_layers import tiled_layers

    seen = None if calibration is None else as_input(calibration.images, artifact.program.inputs[0])
    chip = Emulator(artifact, hardware=profile, seed=seed, calibration=seen)
    chip.predict(pixels[: chip.program.batch or _WARM_UP])
    start = time.perf_counter()
    classes = emulated(chip, pixels, progress, batch_size)
    speed = len(pixels) / (time.perf_counter() - start)
    layers = tiled_layers(chip, pixels)
    assert chip.crossbar is not None  # noqa: S101 - it was given a profile
    costs = count_program(chip.crossbar)
    few = max(1, min(_CLIPPING_IMAGES, _CLIPPING_READS // max(1, costs.total.cell_reads)))
    looked_at = pixels[:few]
    errors = {name: layer.fixed_point_error for name, layer in chip.crossbar.programmed.items()}
    on_tiles = OnTiles(layers, costs, count_clipped(chip, looked_at), len(looked_at), errors)
    return classes, speed, on_tiles


def chip_document(
    profile: Hardware, seed: int, calibration: Dataset | None, on_tiles: OnTiles
) -> dict[str, Any]:
    """Return what `--json` tells about a chip."""
    from ..crossbar.clipping import total_clipped
    from ..tiled_layers import certified_share

    layers, costs = on_tiles.layers, on_tiles.costs
    return {
        "name": profile.name,
        "sha256": profile.sha256,
        "toml": profile.to_toml(),
        "seed": seed,
        "calibration_images": 0 if calibration is None else len(calibration),
        "tiles": sum(layer.tiles for layer in layers),
        "certified_reads": certified_share(layers),
        "clipping_images": on_tiles.clipping_images,
        "clipped_reads": total_clipped(on_tiles.clipped.values()).share,
        "layers": [
            {
                "name": layer.name,
                "tiles": layer.tiles,
                "utilisation": layer.utilisation,
                "reads_per_image": layer.reads,
                "certified_reads": layer.certified,
                "clipped": asdict(on_tiles.clipped[layer.name]),
                "clipped_reads": on_tiles.clipped[layer.name].share,
                "fixed_point_error": on_tiles.fixed_point_errors[layer.name],
                "converters": _limits(profile, layer),
                "cost": asdict(costs.layers[layer.name]),
            }
            for layer in layers
        ],
        "cost": asdict(costs.total),
    }


def _limits(profile: Hardware, layer: TiledLayer) -> dict[str, float] | None:
    """Lowest and highest code, and levels for each code; None for an ideal converter."""
    if layer.converters is None:
        return None
    low, high, step = layer.converters
    return {"low": low, "high": high, "step": step * profile.unit}


def layer_table(profile: Hardware, seed: int, on_tiles: OnTiles) -> None:
    """Print where the layers lie, what an inference costs, and how much of it clips."""
    from ..crossbar.clipping import total_clipped

    costs, clipped, errors = on_tiles.costs, on_tiles.clipped, on_tiles.fixed_point_errors
    known = costs.total.energy is not None
    header = [
        "layer",
        "tiles",
        "cells used",
        "conversions an image",
        "clipped",
        "fixed-point error",
        "passes",
    ]
    rows = [
        (
            layer.name,
            f"{100 * layer.utilisation:.1f} %",
            clipped[layer.name].share,
            errors[layer.name],
            costs.layers[layer.name],
        )
        for layer in on_tiles.layers
    ]
    rows.append(
        ("all", "", total_clipped(clipped.values()).share, max(errors.values(), default=0.0), costs.total)
    )
    table(
        f"Chip {seed} of {profile.name}",
        [*header, "energy, nJ"] if known else header,
        [
            (
                name,
                count(cost.tiles),
                used,
                count(cost.conversions),
                f"{100 * share:.2f} %",
                f"{error:.2g}",
                count(cost.passes),
                *_energy(cost),
            )
            for name, used, share, error, cost in rows
        ],
    )
    images = on_tiles.clipping_images
    say(
        f"Clipped: share of the conversions beyond the converters' limits, counted on the first {count(images)} "
        f"image{'' if images == 1 else 's'}.",
        "Fixed-point error: the most that a cell's conductance is off, in levels, for being a multiple of "
        f"{profile.unit:g}.",
    )
    if costs.total.energy is not None:
        say(f"Energy: {costs.total.energy.source}; what the profile does not know is not in it.")


def _energy(cost: LayerCounts) -> tuple[str, ...]:
    """Nanojoules, where the profile has figures."""
    return () if cost.energy is None else (f"{cost.energy.known_pj / 1000:,.1f}",)
