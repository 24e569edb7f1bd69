"""`ohmfold run --hardware`: what a chip classifies, and where the layers lie on it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from .hardware import chosen_profile
from .output import count, say, table

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from ...models.image_data import Dataset
    from ..artifact import Artifact
    from ..crossbar.counts import LayerCounts, ProgramCounts
    from ..hardware import Hardware
    from ..tiled_layers import TiledLayer

__all__ = ["OnTiles", "chip_document", "layer_table", "profile_to_run", "run_on_chip"]

# Images that a chip classifies before its time is taken: enough to compile what there is to compile.
_WARM_UP = 8


class OnTiles(NamedTuple):
    """The layers on their tiles, and what an inference on these costs."""

    layers: tuple[TiledLayer, ...]
    costs: ProgramCounts


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
    return classes, speed, OnTiles(layers, count_program(chip.crossbar))


def chip_document(
    profile: Hardware, seed: int, calibration: Dataset | None, on_tiles: OnTiles
) -> dict[str, Any]:
    """Return what `--json` tells about a chip."""
    from ..tiled_layers import certified_share

    layers, costs = on_tiles
    return {
        "name": profile.name,
        "sha256": profile.sha256,
        "toml": profile.to_toml(),
        "seed": seed,
        "calibration_images": 0 if calibration is None else len(calibration),
        "tiles": sum(layer.tiles for layer in layers),
        "certified_reads": certified_share(layers),
        "layers": [
            {
                "name": layer.name,
                "tiles": layer.tiles,
                "utilisation": layer.utilisation,
                "reads_per_image": layer.reads,
                "certified_reads": layer.certified,
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
    """Print where the layers lie, and what an inference costs."""
    layers, costs = on_tiles
    known = costs.total.energy is not None
    header = ["layer", "tiles", "cells used", "conversions an image", "passes"]
    rows = [(layer.name, f"{100 * layer.utilisation:.1f} %", costs.layers[layer.name]) for layer in layers]
    rows.append(("all", "", costs.total))
    table(
        f"Chip {seed} of {profile.name}",
        [*header, "energy, nJ"] if known else header,
        [
            (name, count(cost.tiles), used, count(cost.conversions), count(cost.passes), *_energy(cost))
            for name, used, cost in rows
        ],
    )
    if costs.total.energy is not None:
        say(f"Energy: {costs.total.energy.source}; what the profile does not know is not in it.")


def _energy(cost: LayerCounts) -> tuple[str, ...]:
    """Nanojoules, where the profile has figures."""
    return () if cost.energy is None else (f"{cost.energy.known_pj / 1000:,.1f}",)
