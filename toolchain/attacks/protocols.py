"""What decides whether an attack succeeded: labels of pixel codes, and for some attacks logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from ...errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Judge", "ScoreJudge", "described", "predicted", "scores_of"]


@runtime_checkable
class Judge(Protocol):
    """What decides whether an attack succeeded: the emulator, or another target of the same artifact.

    An image's label must not depend on the images beside it.
    """

    def predict(self, images: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """Return the labels, int64 `(N,)`, of uint8 images."""
        ...


@runtime_checkable
class ScoreJudge(Judge, Protocol):
    """A judge that also tells its logits, for attacks that query them."""

    def logits(self, images: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Return the logits `(N, classes)` of uint8 images; the largest, the lowest of several, is the label."""
        ...


def scores_of(judge: Judge, attack: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return what gives a judge's logits: its `logits`, or, of an emulator, a call.

    Raises:
        DataError: The judge tells labels alone.
    """
    if isinstance(judge, ScoreJudge):
        return judge.logits
    if callable(judge):
        called: Callable[[NDArray[np.uint8]], NDArray[np.float32]] = judge
        return called
    raise DataError(
        f"the attack {attack!r} queries logits, and a {type(judge).__name__} tells labels alone: "
        "give it an emulator, or a judge with a method `logits`"
    )


def predicted(judge: Judge, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.int64]:
    """Return a judge's labels, int64 `(N,)`, asked for a batch at a time.

    Raises:
        DataError: The judge returns something else than one integer per image.
    """
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        labels = np.asarray(judge.predict(batch))
        if labels.shape != (len(batch),) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"the judge predicted {described(labels)}; expected {len(batch)} integers")
        parts.append(labels.astype(np.int64))
    return np.concatenate(parts)


def described(value: object) -> str:
    """An array's type and shape, or the name of whatever else was found."""
    return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
