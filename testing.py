"""For users' own test suites: an artifact computes the same bits everywhere, and is as accurate as it was.

    import ohmfold
    from ohmfold.testing import assert_accuracy, assert_bit_exact

    def test_the_digits_network(images, labels):
        artifact = ohmfold.Artifact.load("digits.onnx")
        assert_bit_exact(artifact, images[:100])
        assert_accuracy(artifact, images, labels, baseline="accuracy.json", name="digits")

Both raise an `AssertionError` that says what differs and where, and allow no tolerance: an artifact's predictions are
defined to the bit, so its accuracy is a whole number of images.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohmfold.errors import DataError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ohmfold.toolchain.artifact import Artifact
    from ohmfold.toolchain.verify import VerifyReport

__all__ = [
    "UPDATE_VARIABLE",
    "AccuracyError",
    "BitsDifferError",
    "WitnessMissingError",
    "assert_accuracy",
    "assert_bit_exact",
]

UPDATE_VARIABLE = "OHMFOLD_UPDATE_BASELINES"
"""Environment variable: 1 writes baselines instead of comparing with them."""

_SCHEMA = 1
_ENTRY = {"images": int, "correct": int, "data_sha256": str, "artifact_sha256": str}


class BitsDifferError(AssertionError):
    """Witnesses of an artifact part in at least one bit.

    Attributes:
        report: Everything that was compared.
    """

    def __init__(self, report: VerifyReport) -> None:
        from ohmfold.toolchain.verify.words import text

        super().__init__(text(report))
        self.report = report


class WitnessMissingError(AssertionError):
    """A witness that was asked for by name cannot run here: the test would have proved less than it says."""


class AccuracyError(AssertionError):
    """An artifact is not as accurate as its baseline says, or there is no baseline."""


def assert_bit_exact(
    artifact: Artifact | str | Path,
    images: NDArray[np.uint8] | None = None,
    witnesses: Sequence[str] | str = "all",
    *,
    count: int = 64,
    seed: int = 0,
    reference_images: int | None = None,
    slow_images: int | None = None,
) -> VerifyReport:
    """Assert that every witness computes the same bits, tensor by tensor.

        assert_bit_exact("digits.onnx", images[:100])
        assert_bit_exact(artifact, witnesses=["emulator", "onnxruntime", "twin"])

    Args:
        artifact: An artifact, or the path of its file.
        images: uint8 `(N, ...)`, N above 0; by default `count` random and extreme ones, and some searched to hit
            rounding ties and the bounds of accumulators.
        witnesses: Names or groups of witnesses, as `ohmfold verify --witness` takes them. "all" runs those that this
            machine can run; one that is named has to be able to.
        count: How many images are made.
        seed: Of the images that are made.
        reference_images: How many images the int64 NumPy reference runs; by default
            `ohmfold.toolchain.verify.REFERENCE_IMAGES`. Of the others the emulator's trace is expected.
        slow_images: How many images emulated processors and ONNX's reference evaluator run; by default
            `ohmfold.toolchain.verify.SLOW_IMAGES`.

    Returns:
        The report: a row for each witness, and who was skipped.

    Raises:
        BitsDifferError: A bit differs, a witness does not show what it should, or one that should run cannot.
        WitnessMissingError: A witness was named and cannot run here.
        DataError: The images do not fit the artifact, or there is no witness of a name.
    """
    from ohmfold.toolchain import verify as v

    loaded = _loaded(artifact)
    wanted = [witnesses] if isinstance(witnesses, str) else list(witnesses)
    twin = v.SharedTwin(loaded.program)
    chosen = v.choose(v.witnesses_of(loaded, twin), wanted)
    if images is None:
        inputs = v.make_inputs(loaded.program, count, seed=seed, twin=twin)
    else:
        inputs = v.given_inputs(loaded.program, images)
    try:
        report = v.verify(
            loaded,
            inputs,
            chosen,
            reference_images=v.REFERENCE_IMAGES if reference_images is None else reference_images,
            slow_images=v.SLOW_IMAGES if slow_images is None else slow_images,
            file=None if artifact is loaded else str(artifact),
        )
        if not report.equal:
            raise BitsDifferError(report)
        v.require_some(report, wanted)
    except MissingDependencyError as missing:
        raise WitnessMissingError(str(missing)) from None
    return report


def assert_accuracy(
    artifact: Artifact | str | Path,
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    baseline: str | Path = "accuracy.json",
    *,
    name: str = "accuracy",
    update: bool | None = None,
) -> int:
    """Assert that an artifact gets as many images right as its baseline says, in the emulator.

        assert_accuracy(artifact, images, labels, baseline="tests/accuracy.json", name="digits, 3 bits")

    A baseline is written on request alone, with `update=True` or `OHMFOLD_UPDATE_BASELINES=1`; a missing one is a
    failure. More images right than the baseline says is a failure too: something moved, and the baseline would hide
    it when it moves back.

    Args:
        artifact: An artifact, or the path of its file.
        images: uint8 `(N, ...)`, N above 0.
        labels: Integers `(N,)`.
        baseline: A JSON file; it holds one entry for each `name`.
        name: Of this entry.
        update: True writes the entry; False never does; None asks the environment variable.

    Returns:
        How many images are right.

    Raises:
        AccuracyError: The number differs, the images are others than the baseline's, or it is missing or unreadable.
        DataError: Images and labels do not fit each other or the artifact.
        OutputError: The baseline cannot be written.
    """
    import numpy as np

    from ohmfold.toolchain.emulator import Emulator
    from ohmfold.toolchain.judged import as_input, emulated

    loaded, path = _loaded(artifact), Path(baseline)
    images, labels = np.asarray(images), np.asarray(labels)
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or not len(images):
        raise DataError(
            f"found {len(images)} images and labels {labels.dtype}{list(labels.shape)}, expected an integer for each "
            "of at least one image"
        )
    predicted = emulated(Emulator(loaded.program), as_input(images, loaded.program.inputs[0]))
    correct = int(np.count_nonzero(predicted == labels))
    found = {
        "images": len(images),
        "correct": correct,
        "data_sha256": _data_sha256(images, labels),
        "artifact_sha256": loaded.sha256,
    }
    if update is None:
        update = os.environ.get(UPDATE_VARIABLE, "") not in ("", "0")
    if update:
        _write(path, name, found)
    else:
        _judge(path, name, found)
    return correct


def _loaded(artifact: Artifact | str | Path) -> Artifact:
    from ohmfold.toolchain.artifact import Artifact

    return Artifact.load(artifact) if isinstance(artifact, str | Path) else artifact


def _data_sha256(images: NDArray[Any], labels: NDArray[Any]) -> str:
    """The hash of pixels and labels, whatever integer type the labels have."""
    import hashlib

    import numpy as np

    digest = hashlib.sha256(repr(images.shape).encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    digest.update(labels.astype("<i8").tobytes())
    return digest.hexdigest()


def _judge(path: Path, name: str, found: dict[str, Any]) -> None:
    entries = _read(path)
    how = f"write it with {UPDATE_VARIABLE}=1 or update=True, and keep the file with the tests"
    if entries is None:
        raise AccuracyError(f"there is no baseline {path}; {how}")
    if name not in entries:
        known = ", ".join(map(repr, entries)) or "none"
        raise AccuracyError(f"the baseline {path} holds no {name!r} (it holds {known}); {how}")
    expected = entries[name]
    other = (
        "the artifact is the baseline's"
        if expected["artifact_sha256"] == found["artifact_sha256"]
        else f"the artifact is another one: sha256 {found['artifact_sha256'][:12]}, "
        f"the baseline's {expected['artifact_sha256'][:12]}"
    )
    if (expected["data_sha256"], expected["images"]) != (found["data_sha256"], found["images"]):
        raise AccuracyError(
            f"{name}: the baseline {path} is of other images or labels ({expected['images']}, sha256 "
            f"{expected['data_sha256'][:12]}) than these ({found['images']}, sha256 {found['data_sha256'][:12]}); "
            "judge the same ones, or update the baseline"
        )
    if expected["correct"] != found["correct"]:
        change = found["correct"] - expected["correct"]
        raise AccuracyError(
            f"{name}: {_share(found)}, the baseline {path} says {_share(expected)}: {abs(change)} "
            f"{'more' if change > 0 else 'fewer'}; {other}. If this is meant, {how}"
        )


def _share(entry: dict[str, Any]) -> str:
    return f"{entry['correct']} of {entry['images']} right ({100 * entry['correct'] / entry['images']:.2f} %)"


def _read(path: Path) -> dict[str, Any] | None:
    """The entries of a baseline file; None where there is no file.

    Raises:
        AccuracyError: It cannot be read as one.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise AccuracyError(f"the baseline {path} cannot be read: {error}") from None
    entries = document.get("entries") if isinstance(document, dict) else None
    if (
        not isinstance(entries, dict)
        or document.get("schema") != _SCHEMA
        or not all(map(_is_entry, entries.values()))
    ):
        raise AccuracyError(
            f"{path} is no baseline of schema {_SCHEMA}; delete it and write it anew with {UPDATE_VARIABLE}=1"
        )
    return entries


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == _ENTRY.keys()
        and all(type(entry[key]) is kind for key, kind in _ENTRY.items())
        and 0 <= entry["correct"] <= entry["images"] > 0
    )


def _write(path: Path, name: str, found: dict[str, Any]) -> None:
    from ohmfold.toolchain.artifact import write_atomically

    entries = {**(_read(path) or {}), name: found}
    document = {"schema": _SCHEMA, "entries": dict(sorted(entries.items()))}
    write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())
