"""Adversarial sets survive the way through a file, and sets that cheat do not."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ohmfold.errors import DataError, OutputError
from ohmfold.toolchain.attacks import AttackResult, load_adversarial, save_adversarial

SHA256 = "0123456789abcdef" * 4
ARRAYS = (
    "original", "adversarial", "labels", "clean_predictions", "predictions", "attacked", "kept_earlier", "margins",
    "queries",
)  # fmt: skip


def result(epsilon=6):
    rng = np.random.default_rng(0)
    original = rng.integers(10, 240, (5, 1, 3, 3), np.uint8)
    adversarial = (original + rng.integers(-epsilon, epsilon + 1, original.shape)).astype(np.uint8)
    labels = rng.integers(0, 3, (3, 5))
    return AttackResult(
        "pgd", "inf", epsilon, 3, {"steps": 4}, original, adversarial, *labels,
        source="twin", attacked=rng.random(5) < 0.5, kept_earlier=rng.random(5) < 0.5,
        margins=rng.random((2, 5), np.float32), queries=rng.integers(0, 9, 5),
    )  # fmt: skip


def test_a_result_comes_back_as_it_was(tmp_path):
    written = result()
    save_adversarial(written, tmp_path / "set.npz", SHA256)
    read = load_adversarial(tmp_path / "set.npz", written.original)
    assert read.artifact_sha256 == SHA256
    for name in ARRAYS:
        assert np.array_equal(getattr(read.result, name), getattr(written, name))
        assert getattr(read.result, name).dtype == getattr(written, name).dtype
    fields = ("name", "norm", "radius", "seed", "parameters", "source", "accuracy")
    assert all(getattr(read.result, name) == getattr(written, name) for name in fields)
    assert [path.name for path in tmp_path.iterdir()] == ["set.npz"]


def rewritten(path, **changes):
    """A copy of a saved set with some members changed."""
    with np.load(path) as archive:
        members = {name: archive[name] for name in archive}
    np.savez(path, **{**members, **changes})
    return path


@pytest.fixture
def saved(tmp_path):
    save_adversarial(result(), tmp_path / "set.npz", SHA256)
    return tmp_path / "set.npz"


def moved(images, codes):
    images = images.copy()
    images[2, 0, 1, 1] = result().original[2, 0, 1, 1] + codes
    return images


def test_an_image_one_code_outside_the_ball_is_refused(saved):
    adversarial = result().adversarial
    load_adversarial(rewritten(saved, adversarial=moved(adversarial, 6)))
    with pytest.raises(DataError, match="image 2 is 7 codes from its original; expected at most 6"):
        load_adversarial(rewritten(saved, adversarial=moved(adversarial, 7)))


def test_originals_other_than_the_given_ones_are_refused(saved):
    given = result().original
    rewritten(saved, original=moved(given, 1))
    with pytest.raises(DataError, match="its clean images are not the ones given"):
        load_adversarial(saved, given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adversarial": result().adversarial.astype(np.float32)}, r"adversarial is float32\(5, 1, 3, 3\)"),
        ({"adversarial": result().adversarial[:, :, :2]}, r"expected uint8\(5, 1, 3, 3\)"),
        ({"predictions": result().predictions[:3]}, r"predictions is int64\(3,\)"),
        ({"attacked": np.ones(5, np.uint8)}, r"attacked is uint8\(5,\)"),
        ({"queries": np.ones(4, np.int64)}, r"queries is int64\(4,\)"),
        ({"margins": np.ones((2, 4), np.float32)}, r"margins is float32\(2, 4\)"),
        ({"labels": np.array([object()] * 5)}, "not a set of adversarial images"),
        ({"metadata": np.frombuffer(b"{", np.uint8)}, "not a set of adversarial images"),
        ({"metadata": np.frombuffer(b"[]", np.uint8)}, "not a set of adversarial images"),
        ({"metadata": np.frombuffer(b"{}", np.uint8)}, "not a set of adversarial images"),
    ],
)
def test_members_of_another_form_are_refused(saved, changes, message):
    with pytest.raises(DataError, match=message):
        load_adversarial(rewritten(saved, **changes))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema", 1, "schema 2"),
        ("norm", "l7", "a known norm"),
        ("radius", 300, "a radius in codes"),
        ("radius", "6", "a radius in codes"),
        ("radius", 6.0, "a radius in codes"),
        ("source", None, "a source"),
        ("artifact_sha256", "beef", "a SHA-256"),
        ("parameters", [], "parameters"),
    ],
)
def test_metadata_out_of_range_are_refused(saved, field, value, message):
    with np.load(saved) as archive:
        metadata = json.loads(archive["metadata"].tobytes())
    metadata[field] = value
    rewritten(saved, metadata=np.frombuffer(json.dumps(metadata).encode(), np.uint8))
    with pytest.raises(DataError, match=message):
        load_adversarial(saved)


def test_files_that_are_missing_or_something_else_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_adversarial(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not a zip")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError, match="not a set of adversarial images"):
        load_adversarial(tmp_path / "text.npz")
    with pytest.raises(DataError, match="not a set of adversarial images"):
        load_adversarial(tmp_path / "array.npy")


def test_a_truncated_file_is_refused(saved):
    saved.write_bytes(saved.read_bytes()[:-200])
    with pytest.raises(DataError, match="not a set of adversarial images"):
        load_adversarial(saved)


def test_nothing_is_left_behind_where_writing_fails(tmp_path):
    with pytest.raises(OutputError, match=r"folder\.npz"):
        save_adversarial(result(), tmp_path / "no" / "folder.npz", SHA256)
    with pytest.raises(DataError, match="64 lower-case hexadecimal digits"):
        save_adversarial(result(), tmp_path / "other.npz", "beef")
    assert not list(tmp_path.iterdir())
