"""`ohmfold.testing`: what users' own suites assert, and that it fails where it must."""

import json

import numpy as np
import pytest
import verified

import ohmfold
from ohmfold.errors import DataError, OutputError
from ohmfold.testing import (
    UPDATE_VARIABLE,
    AccuracyError,
    BitsDifferError,
    WitnessMissingError,
    assert_accuracy,
    assert_bit_exact,
)
from ohmfold.toolchain import verify as package

FAST = ["emulator", "onnxruntime", "twin"]


@pytest.fixture(autouse=True)
def no_update(monkeypatch):
    monkeypatch.delenv(UPDATE_VARIABLE, raising=False)


@pytest.fixture
def judged():
    """Images, and labels of which the artifact gets 30 of 40 right."""
    images = np.random.default_rng(4).integers(0, 256, (40, 1, verified.SIDE, verified.SIDE), np.uint8)
    labels = ohmfold.Emulator(verified.artifact()).predict(images)
    labels[:10] = (labels[:10] + 1) % 5
    return images, labels


def test_equal_bits_pass_on_a_users_images_and_on_made_ones():
    report = assert_bit_exact(verified.artifact(), verified.real_images(9), witnesses=FAST)
    assert report.equal
    assert report.kinds == {"given": 9}
    made = assert_bit_exact(verified.artifact(), witnesses=FAST, count=32)
    assert made.images == 32
    assert made.bounds


def test_an_artifact_can_be_given_as_a_file(tmp_path):
    path = tmp_path / "a.onnx"
    verified.artifact().save(path)
    assert assert_bit_exact(path, verified.real_images(3), witnesses="emulator").file == str(path)


def test_a_wrong_weight_fails_with_the_table_and_the_place(monkeypatch):
    artifact = verified.artifact()
    wrong, layer = verified.with_one_wrong_weight(artifact, 1)
    original = package.witnesses_of
    monkeypatch.setattr(package, "witnesses_of", lambda _artifact, _twin: original(wrong))
    with pytest.raises(BitsDifferError) as caught:
        assert_bit_exact(artifact, witnesses=["emulator", "onnxruntime"], count=32)
    text = str(caught.value)
    assert text.startswith("NOT equal: ")
    assert "witness" in text
    assert "onnxruntime all" in text
    assert f"{layer.output}[" in text or f"{layer.accumulator}[" in text
    assert "expected" in text
    assert caught.value.report.differing > 0


def test_a_witness_that_was_named_may_not_be_skipped():
    with pytest.raises(WitnessMissingError, match="power-of-two"):
        assert_bit_exact(verified.artifact("float"), witnesses=["emulator", "qdq"], count=8)
    with pytest.raises(WitnessMissingError, match="power-of-two"):
        assert_bit_exact(verified.artifact("float"), witnesses="qdq", count=8)


def test_wrong_arguments_are_a_users_errors_and_no_failed_assertions():
    with pytest.raises(DataError, match="no witness 'gpu'"):
        assert_bit_exact(verified.artifact(), witnesses="gpu")
    with pytest.raises(DataError, match="expected uint8"):
        assert_bit_exact(verified.artifact(), np.zeros((2, 3), np.uint8), witnesses=FAST)


def test_a_missing_baseline_fails_and_says_how_to_write_it(judged, tmp_path):
    path = tmp_path / "accuracy.json"
    with pytest.raises(AccuracyError, match=f"there is no baseline .*{UPDATE_VARIABLE}=1"):
        assert_accuracy(verified.artifact(), *judged, baseline=path)
    assert not path.exists()


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_baseline_is_written_on_request_and_then_holds(how, judged, tmp_path, monkeypatch):
    path = tmp_path / "accuracy.json"
    if how == "environment":
        monkeypatch.setenv(UPDATE_VARIABLE, "1")
        assert assert_accuracy(verified.artifact(), *judged, baseline=path, name="one") == 30
        monkeypatch.delenv(UPDATE_VARIABLE)
    else:
        assert assert_accuracy(verified.artifact(), *judged, baseline=path, name="one", update=True) == 30
    entry = json.loads(path.read_text())["entries"]["one"]
    assert (entry["images"], entry["correct"]) == (40, 30)
    assert assert_accuracy(verified.artifact(), *judged, baseline=path, name="one") == 30
    with pytest.raises(AccuracyError, match=r"holds no 'two' \(it holds 'one'\)"):
        assert_accuracy(verified.artifact(), *judged, baseline=path, name="two")
    assert_accuracy(verified.artifact(), *judged, baseline=path, name="two", update=True)
    assert set(json.loads(path.read_text())["entries"]) == {"one", "two"}


@pytest.mark.parametrize("correct", [29, 31])
def test_one_image_more_or_less_fails(correct, judged, tmp_path):
    path = tmp_path / "accuracy.json"
    assert_accuracy(verified.artifact(), *judged, baseline=path, update=True)
    document = json.loads(path.read_text())
    document["entries"]["accuracy"]["correct"] = correct
    path.write_text(json.dumps(document))
    word = "more" if correct < 30 else "fewer"
    with pytest.raises(AccuracyError, match=f"30 of 40 right .* 1 {word}; the artifact is the baseline's"):
        assert_accuracy(verified.artifact(), *judged, baseline=path)


def test_another_artifact_of_other_accuracy_is_named(judged, tmp_path):
    path = tmp_path / "accuracy.json"
    assert_accuracy(verified.artifact(), *judged, baseline=path, update=True)
    with pytest.raises(AccuracyError, match="the artifact is another one"):
        assert_accuracy(verified.artifact("pow2"), *judged, baseline=path)


def test_other_images_or_labels_are_not_judged_by_the_baseline(judged, tmp_path):
    path, (images, labels) = tmp_path / "accuracy.json", judged
    assert_accuracy(verified.artifact(), images, labels, baseline=path, update=True)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    for other in ((changed, labels), (images[:20], labels[:20]), (images, np.roll(labels, 1))):
        with pytest.raises(AccuracyError, match="of other images or labels"):
            assert_accuracy(verified.artifact(), *other, baseline=path)
    assert assert_accuracy(verified.artifact(), images, labels.astype(np.int32), baseline=path) == 30


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"schema": 9, "entries": {}}',
        '{"schema": 1, "entries": {"accuracy": {"correct": 1}}}',
        '{"schema": 1, "entries": {"accuracy": {"images": 1, "correct": 2, "data_sha256": "", "artifact_sha256": ""}}}',
    ],
)
def test_a_damaged_baseline_fails_and_is_not_written_over(text, judged, tmp_path):
    path = tmp_path / "accuracy.json"
    path.write_text(text)
    for update in (False, True):
        with pytest.raises(AccuracyError, match=r"accuracy\.json"):
            assert_accuracy(verified.artifact(), *judged, baseline=path, update=update)
    assert path.read_text() == text


def test_a_baseline_that_cannot_be_written_is_a_users_error(judged, tmp_path):
    with pytest.raises(OutputError):
        assert_accuracy(verified.artifact(), *judged, baseline=tmp_path / "no" / "a.json", update=True)


@pytest.mark.parametrize(
    "labels", [np.zeros(3, np.int64), np.zeros(40, np.float32), np.zeros((40, 1), np.int64)]
)
def test_labels_that_do_not_fit_are_a_users_error(labels, judged, tmp_path):
    with pytest.raises(DataError, match="an integer for each"):
        assert_accuracy(verified.artifact(), judged[0], labels, baseline=tmp_path / "a.json")
