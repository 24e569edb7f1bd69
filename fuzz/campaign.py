"""Sound inputs made in a process of their own, so that what they start (thread pools, sessions) is not forked."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from .seeds import Files, seeds_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["prepared_seeds", "warm_up"]

_IMPORTED = (
    "ohmfold.testing", "ohmfold.models.checkpoints", "ohmfold.models.datasets", "ohmfold.models.registry",
    "ohmfold.toolchain.artifact", "ohmfold.toolchain.attacks", "ohmfold.toolchain.attacks.masking.plan",
    "ohmfold.toolchain.attacks.results", "ohmfold.toolchain.attacks.suite", "ohmfold.toolchain.chip_folder",
    "ohmfold.toolchain.compiler", "ohmfold.toolchain.float_model", "ohmfold.toolchain.foreign",
    "ohmfold.toolchain.hardware", "ohmfold.toolchain.passes.lower_qdq", "ohmfold.toolchain.run_record",
    "ohmfold.toolchain.targets.crossbar_reader", "onnx.version_converter", "onnx.reference", "onnxruntime",
    "onnxscript.optimizer", "PIL.PngImagePlugin", "PIL.JpegImagePlugin", "torch",
)  # fmt: skip


def warm_up() -> None:
    """Import what readers import, so that forked processes have it and the address space is not charged for it."""
    for name in _IMPORTED:
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def prepared_seeds(names: list[str]) -> Iterator[dict[str, list[Files]]]:
    """Give the sound inputs of readers.

    Raises:
        RuntimeError: They could not be made.
    """
    with tempfile.TemporaryDirectory(prefix="ohmfold-seeds.") as folder:
        process = os.fork()
        if process == 0:
            _write_and_leave(names, Path(folder))
        _, status = os.waitpid(process, 0)
        if status:
            raise RuntimeError(f"the sound inputs could not be made: wait status {status}")
        yield {name: _inputs(Path(folder, name)) for name in names}


def _write_and_leave(names: list[str], folder: Path) -> None:
    code = 1
    try:
        for name in names:
            for number, files in enumerate(seeds_of(name)):
                for file, content in files.items():
                    path = folder / name / f"{number:03}" / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
        code = 0
    except BaseException:  # noqa: BLE001 - shown, and told by the exit code
        traceback.print_exc()
    finally:
        os._exit(code)


def _inputs(folder: Path) -> list[Files]:
    return [
        {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}
        for home in sorted(folder.iterdir())
    ]
