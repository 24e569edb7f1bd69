"""What a target is, the targets by name, and how a target's files reach their folder.

A target turns an artifact into files for something else to run: a C compiler, another tool, a chip's programmer. It
builds them in memory; `write_folder` writes all of them or none.
"""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import OutputError, TargetError
from ..extensions import TARGET_GROUP, extension_names, load_extension

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from ..artifact import Artifact

__all__ = [
    "Built",
    "Material",
    "Options",
    "Target",
    "check_new_folder",
    "find_target",
    "target_names",
    "write_folder",
]

# Where each target is, imported when it is asked for: the command line starts without them.
_TARGETS: Mapping[str, tuple[str, str]] = {
    "c99": (".c99_target", "C99Target"),
    "crossbar": (".crossbar_image", "CrossbarTarget"),
    "packed": (".packed", "PackedTarget"),
    "qdq": (".qdq", "QdqTarget"),
    "qonnx": (".qonnx", "QonnxTarget"),
}


class Options(BaseModel):
    """Settings of a target; an unknown or senseless one is a `TargetError` of one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise TargetError(_one_line(error, type(self))) from None


def _one_line(error: ValidationError, kind: type[Options]) -> str:
    first, *rest = error.errors()
    where = ".".join(str(part) for part in first["loc"]) or "options"
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(kind.model_fields)
        return f"{where}: not an option of this target, which has {known or 'none'}{more}"
    if first["type"] == "missing":
        return f"{where}: this target needs it, found none{more}"
    return f"{where}: {first['msg']}, found {first['input']!r}{more}"


@dataclass(frozen=True, eq=False)
class Material:
    """What a build may need besides the artifact.

    Attributes:
        images: Inputs of the program, for test vectors; None where there are none.
        calibration: Inputs that set the limits of a chip's converters, where its profile calibrates them.
        progress: Called with what is being done and the share that is done, 0 to 1.
    """

    images: NDArray[Any] | None = None
    calibration: NDArray[Any] | None = None
    progress: Callable[[str, float], None] = field(default=lambda _step, _share: None)


@dataclass(frozen=True, eq=False)
class Built:
    """What a target made.

    Attributes:
        files: Content by name; a name may hold folders, with `/`.
        summary: Figures about them, as JSON has them.
        notes: What a reader must know, a sentence each.
    """

    files: Mapping[str, bytes]
    summary: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


AnyOptions = TypeVar("AnyOptions", bound=Options)


class Target(ABC, Generic[AnyOptions]):
    """One form that artifacts are built in.

    Attributes:
        name: What the command line calls it.
        description: One line about it.
        options: The class of its settings.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    options: type[AnyOptions]

    @abstractmethod
    def check(self, artifact: Artifact, options: AnyOptions) -> None:
        """Refuse what cannot be built, before anything is.

        Raises:
            TargetError: The artifact holds a layer that the target has no form for, or an option does not fit.
            HardwareError: A hardware profile cannot hold it.
            ModelError: The artifact cannot be read.
        """

    @abstractmethod
    def build(self, artifact: Artifact, options: AnyOptions, material: Material | None = None) -> Built:
        """Build the files in memory.

        Args:
            artifact: What to build.
            options: The settings.
            material: Images and progress; None for none of them.

        Raises:
            TargetError: As `check`, which it calls; or a limit was passed.
        """


def target_names() -> tuple[str, ...]:
    """Return the names of all targets, those of installed packages too, in alphabetical order."""
    return tuple(sorted((*_TARGETS, *extension_names(TARGET_GROUP, _TARGETS))))


def find_target(name: str) -> Target[Any]:
    """Return a target by its name: ohmfold's own, or one that an installed package declares.

    Raises:
        TargetError: There is no such target; names the nearest.
        OhmfoldError: A package declares one that cannot be had (see `toolchain.extensions`).
    """
    if name in _TARGETS:
        module, kind = _TARGETS[name]
        found: Target[Any] = getattr(import_module(module, __package__), kind)()
        return found
    declared = load_extension(TARGET_GROUP, name, _TARGETS, Target)
    if declared is None:
        names = target_names()
        closest = difflib.get_close_matches(name, names, n=1)
        hint = f", the nearest is '{closest[0]}'" if closest else ""
        raise TargetError(f"no target '{name}'{hint}; expected one of {', '.join(names)}")
    made: Target[Any] = declared()
    return made


def check_new_folder(out: Path) -> None:
    """Refuse, before any work is done, what cannot become an output folder: it must be new or empty.

    Raises:
        OutputError: It is a file, is not empty, or lies where no folder can be made.
    """
    parent = out.absolute().parent
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out} is a file or a link, expected a new or empty folder to write to")
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OutputError(f"cannot make the folder {out}: {parent} is not a folder that can be written to")
    try:
        occupied = out.is_dir() and any(out.iterdir())
    except OSError as error:
        raise OutputError(f"cannot read the folder {out}: {error.strerror or error}") from None
    if occupied:
        raise OutputError(f"{out} is not empty; choose a new or empty folder, nothing is written over")


def write_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Write files as the folder `out`, whole or not at all.

    They are written to a folder beside it, which takes the place of `out` by one rename. When that fails or is
    interrupted, nothing is left behind and `out` is as it was.

    Args:
        out: A folder that does not exist, or is empty.
        files: Content by name; a name may hold folders, with `/`.

    Raises:
        OutputError: `out` is not a new or empty folder, or cannot be written.
        ValueError: A name leads out of the folder.
    """
    for name in files:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
            raise ValueError(f"{name!r} is not the name of a file in the folder")
    check_new_folder(out)
    try:
        staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.absolute().parent))
    except OSError as error:
        raise OutputError(f"cannot make the folder {out}: {error.strerror or error}") from None
    try:
        for name, content in files.items():
            _write(staging / name, content)
        staging.chmod(0o755)
        # A rename onto an empty folder replaces it; onto one that was filled meanwhile it fails.
        staging.replace(out.absolute())
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
