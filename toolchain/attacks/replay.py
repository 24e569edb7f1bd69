"""Replay: a saved set of adversarial images, judged again, by anyone, on anything that executes the artifact.

A set is a claim about one artifact. Before it is judged, it is held to it: the file is what was written (its own
hash), its images lie in the ball that it states (`storage.load_adversarial`), they are of the artifact's input shape,
and the artifact is the one that was attacked (SHA-256). Another artifact is judged where that is asked for: what a set
does to a model that it was not made for is a transfer attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError
from .results import Share

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from ..artifact import Artifact
    from .judges import ArtifactJudge
    from .outcome import AttackResult
    from .storage import SavedAttack

__all__ = ["Replay", "artifact_beside", "check_target", "replay"]


@dataclass(frozen=True, eq=False)
class Replay:
    """A set, judged again.

    Attributes:
        saved: The set.
        clean_predictions: The judge's labels of the original images, int64 `(N,)`.
        predictions: Of the adversarial images, int64 `(N,)`.
        transferred: Whether the artifact is another one than the set was made for.
    """

    saved: SavedAttack
    clean_predictions: NDArray[np.int64]
    predictions: NDArray[np.int64]
    transferred: bool

    @property
    def clean(self) -> Share:
        """What is right before the attack."""
        return Share.of(self.clean_predictions == self.saved.result.labels)

    @property
    def left(self) -> Share:
        """What is right after the attack: images that are wrong without it count as wrong."""
        labels = self.saved.result.labels
        return Share.of((self.predictions == labels) & (self.clean_predictions == labels))

    @property
    def differing(self) -> NDArray[np.int64]:
        """Places of images that got another label than the set says, before or after the attack."""
        stated: AttackResult = self.saved.result
        return np.flatnonzero(
            (self.predictions != stated.predictions) | (self.clean_predictions != stated.clean_predictions)
        )


def replay(
    saved: SavedAttack,
    judge: ArtifactJudge,
    *,
    transfer: bool = False,
    batch_size: int = 250,
    progress: Callable[[float], None] | None = None,
) -> Replay:
    """Judge a set.

    Args:
        saved: The set, as `load_adversarial` read it.
        judge: Who judges.
        transfer: Whether the artifact may be another one than the set was made for.
        batch_size: Images at a time; changes no label.
        progress: Called with the share that is done.

    Raises:
        DataError: The artifact is another one, or takes images of another shape, or the set was changed.
    """
    check_target(saved, judge.artifact, transfer=transfer)
    result = saved.result

    def half(first: float) -> Callable[[float], None]:
        return lambda share: None if progress is None else progress(first + share / 2)

    return Replay(
        saved,
        judge.judge(result.original, batch_size, half(0.0)),
        judge.judge(result.adversarial, batch_size, half(0.5)),
        transferred=saved.artifact_sha256 != judge.artifact.sha256,
    )


def check_target(saved: SavedAttack, artifact: Artifact, *, transfer: bool = False) -> None:
    """Refuse an artifact that a set was not made for.

    Raises:
        DataError: It is another one and `transfer` was not asked for, it takes images of another shape, or the set
            was changed after it was written.
    """
    if not saved.intact:
        raise DataError(
            "the set was changed after it was written: what it holds is not what its SHA-256 says"
        )
    spec, found = artifact.program.inputs[0], saved.result.original.shape
    expected = spec.shape
    if expected is not None and (
        len(expected) != len(found)
        or any(e is not None and e != f for e, f in zip(expected[1:], found[1:], strict=True))
    ):
        raise DataError(
            f"the set holds images of shape {found[1:]}; the artifact takes {spec}: it was made for another input"
        )
    if saved.artifact_sha256 != artifact.sha256 and not transfer:
        raise DataError(
            f"the set was made for the artifact {saved.artifact_sha256[:12]}, this one is {artifact.sha256[:12]}; "
            "give the one it was made for, or ask for a transfer (--transfer)"
        )


def artifact_beside(set_file: Path, sha256: str) -> Path:
    """Return the artifact in the folder of a set that the set was made for.

    Raises:
        DataError: There is none.
    """
    from ..artifact import Artifact

    for path in sorted(set_file.absolute().parent.glob("*.onnx")):
        if Artifact.load(path).sha256 == sha256:
            return path
    raise DataError(
        f"no artifact {sha256[:12]} lies beside {set_file}; name the artifact to judge after the set"
    )
