"""Who judges: the emulator, onnxruntime, or a chip of a hardware profile, named in one word (`--on`).

    emulator                    exact integers
    onnxruntime                 the same file in another runtime
    reram-128:seed=7            chip 7 of a profile, shipped or a TOML file

Whoever it is, it takes uint8 pixel codes, of any batch size, and the lowest of several largest logits is the label.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DataError, HardwareError, ModelError
from ..judged import as_input

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..artifact import Artifact
    from ..hardware import Hardware

    Scores = Callable[[NDArray[Any], int], NDArray[np.float32]]

__all__ = ["JUDGES", "ArtifactJudge", "JudgeName", "make_judge", "parse_judge"]

JUDGES = ("emulator", "onnxruntime")
_LAST_CHIP = 2**63 - 1
_SEED = re.compile(r"(?P<profile>.+?)(?::seed=(?P<seed>\d+))?\Z")


@dataclass(frozen=True)
class JudgeName:
    """A judge by name.

    Attributes:
        name: `emulator`, `onnxruntime`, or `crossbar`.
        hardware: The profile of a chip, None for the others.
        seed: Which chip.
    """

    name: str
    hardware: Hardware | None = None
    seed: int = 0

    def __str__(self) -> str:
        return self.name if self.hardware is None else f"{self.hardware.name}:seed={self.seed}"

    @property
    def exact(self) -> bool:
        """Whether it computes the artifact's exact integers."""
        return self.hardware is None


def parse_judge(text: str, changes: Sequence[str] = ()) -> JudgeName:
    """Read the name of a judge.

    Args:
        text: See the module.
        changes: Fields of the profile with other values, `FIELD=VALUE`.

    Raises:
        HardwareError: It is no judge, no profile has this name, or a change does not fit it.
    """
    if text in JUDGES:
        if changes:
            raise HardwareError(
                f"--set is about a chip, and --on {text} is none; expected the name of a profile"
            )
        return JudgeName(text)
    from ..hardware import Hardware, load_hardware, parse_changes

    found = _SEED.match(text)
    if found is None or ":seed" in found["profile"]:
        raise HardwareError(
            f"--on {text!r}: expected emulator, onnxruntime, or PROFILE or PROFILE:seed=NUMBER"
        )
    seed = int(found["seed"] or 0)
    if seed > _LAST_CHIP:
        raise HardwareError(f"--on {text!r}: expected a seed of at most {_LAST_CHIP}")
    try:
        profile = load_hardware(found["profile"])
    except HardwareError as error:
        raise HardwareError(f"--on {text!r}: neither emulator nor onnxruntime, and {error}") from None
    return JudgeName("crossbar", profile.with_changes(parse_changes(Hardware, changes)), seed)


class ArtifactJudge:
    """Predicts labels of uint8 images by an artifact, on the executor of its name.

    Args:
        artifact: What is executed.
        name: Who executes it.
        calibration: uint8 images that set the limits of a chip's converters, where its profile calibrates them.
        threads: By default what this process may use (one for onnxruntime).

    Attributes:
        name, artifact, calibration: As given.

    Raises:
        ModelError: The artifact has no logits, or cannot be executed.
        HardwareError: The profile cannot hold it.
    """

    def __init__(
        self,
        artifact: Artifact,
        name: JudgeName | None = None,
        *,
        calibration: NDArray[np.uint8] | None = None,
        threads: int | None = None,
    ) -> None:
        self.name = JudgeName("emulator") if name is None else name
        self.artifact = artifact
        self.calibration = calibration
        self._spec = artifact.program.inputs[0]
        self._batch = artifact.program.batch
        if artifact.program.logits is None:
            raise ModelError("the model has no logits, and a label cannot be judged without")
        seen = None if calibration is None else as_input(calibration, self._spec)
        self._scores = _EXECUTORS[self.name.name](artifact, self.name, seen, threads)

    def logits(self, images: NDArray[np.uint8], /, *, first_sample: int = 0) -> NDArray[np.float32]:
        """Return the logits, float32 `(N, classes)`.

        Args:
            images: uint8 `(N, ...)`.
            first_sample: Index of the first image; the read noise of a chip depends on it, and nothing else.

        Raises:
            DataError: The images are not of the artifact's input shape.
        """
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            found = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise DataError(f"images to judge are {found}; expected uint8 pixel codes")
        given = as_input(images, self._spec)
        fixed = self._batch
        if fixed is None or len(given) % fixed == 0:
            return self._scores(given, first_sample)
        # A program of a fixed batch gets the last image again and again, and those answers are dropped.
        repeated = np.concatenate([given, np.repeat(given[-1:], -len(given) % fixed, axis=0)])
        return self._scores(repeated, first_sample)[: len(given)]

    def predict(self, images: NDArray[np.uint8], /, *, first_sample: int = 0) -> NDArray[np.int64]:
        """Return the labels, int64 `(N,)`: the largest logit, ties to the lowest class."""
        classes: NDArray[np.int64] = np.argmax(self.logits(images, first_sample=first_sample), axis=1).astype(
            np.int64
        )
        return classes

    def judge(
        self,
        images: NDArray[np.uint8],
        batch_size: int = 250,
        progress: Callable[[float], None] | None = None,
    ) -> NDArray[np.int64]:
        """Return the labels of a whole set, a batch at a time; an image's read noise is that of its index."""
        labels = np.zeros(len(images), np.int64)
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            labels[start : start + batch_size] = self.predict(batch, first_sample=start)
            if progress is not None:
                progress((start + len(batch)) / len(images))
        return labels


def make_judge(
    artifact: Artifact, name: JudgeName, calibration: NDArray[np.uint8] | None = None
) -> ArtifactJudge:
    """Return the judge of this name; arguments and errors as `ArtifactJudge`."""
    return ArtifactJudge(artifact, name, calibration=calibration)


def _emulator(
    artifact: Artifact, name: JudgeName, calibration: NDArray[Any] | None, threads: int | None
) -> Scores:
    from ..emulator import Emulator

    emulator = Emulator(
        artifact, threads=threads, hardware=name.hardware, seed=name.seed, calibration=calibration
    )
    return lambda images, first: emulator(images, first_sample=first)


def _onnxruntime(
    artifact: Artifact, _name: JudgeName, _calibration: NDArray[Any] | None, threads: int | None
) -> Scores:
    from ..witness import OnnxRuntime

    program = artifact.program
    logits, fed = str(program.logits), program.inputs[0].name
    session = OnnxRuntime(artifact.to_bytes(), "all", threads or 1, (logits,))

    def scores(images: NDArray[Any], _first: int) -> NDArray[np.float32]:
        step = program.batch or max(1, len(images))
        pieces = [images[start : start + step] for start in range(0, max(1, len(images)), step)]
        return np.concatenate([session.run({fed: piece})[logits] for piece in pieces])

    return scores


_EXECUTORS = {"emulator": _emulator, "crossbar": _emulator, "onnxruntime": _onnxruntime}
