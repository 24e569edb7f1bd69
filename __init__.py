"""Ohmfold: take PyTorch classifiers to limited-precision hardware, and know bit by bit what runs there.

    artifact = ohmfold.compile(module, calibration_images, ohmfold.Recipe(weight_bits=3))
    emulator = ohmfold.Emulator(artifact)
    twin = ohmfold.Twin(artifact)

The names below are imported on first use, so that `import ohmfold` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ohmfold.errors import OhmfoldError

if TYPE_CHECKING:
    from ohmfold.toolchain.artifact import Artifact
    from ohmfold.toolchain.compiler import compile  # noqa: A004
    from ohmfold.toolchain.emulator import Emulator
    from ohmfold.toolchain.program import Program
    from ohmfold.toolchain.recipe import LayerOptions, Recipe
    from ohmfold.toolchain.twin import Twin

__all__ = [
    "Artifact",
    "Emulator",
    "LayerOptions",
    "OhmfoldError",
    "Program",
    "Recipe",
    "Twin",
    "compile",
]

_HOMES = {
    "Artifact": "artifact",
    "Emulator": "emulator",
    "LayerOptions": "recipe",
    "Program": "program",
    "Recipe": "recipe",
    "Twin": "twin",
    "compile": "compiler",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ohmfold' has no attribute '{name}'")
    value = getattr(import_module(f"ohmfold.toolchain.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
