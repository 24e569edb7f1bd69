"""What calibrated an artifact, or the converters of a chip, never judges it."""

import numpy as np
import pytest
from tiny_artifacts import SIDE

from ohmfold.models.image_data import Dataset
from ohmfold.toolchain.judged import CALIBRATION_IMAGES, calibration_set, judged_images, pixels_sha256


class Metadata:
    """An artifact as far as its metadata tell it."""

    def __init__(self, calibration=None):
        self._calibration = calibration

    def metadata(self):
        return {} if self._calibration is None else {"calibration": self._calibration}


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 1, SIDE, SIDE), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(50))
    return tmp_path / "data.npz"


def calibrated_on(spec, count):
    images = calibration_set(spec, count).images
    return Metadata({"images": count, "sha256": pixels_sha256(images)})


def labels(data: Dataset | None):
    return set() if data is None else set(data.labels.tolist())


@pytest.mark.parametrize("count", [1, 10, 25])
@pytest.mark.parametrize("converters", [False, True])
def test_images_that_calibrated_the_artifact_calibrate_converters_and_judge_nothing(data, count, converters):
    found = judged_images(data, calibrated_on(data, count), converters=converters)
    assert (len(found.data), found.left_out) == (50 - count, count)
    assert labels(found.calibration) == (set(range(50)) - labels(found.data) if converters else set())


@pytest.mark.parametrize(
    ("calibration", "count"),
    [(None, 25), ({"images": True}, 25), ({"images": 9, "sha256": "another set's"}, 9)],
)
def test_images_that_calibrate_converters_alone_judge_nothing(data, calibration, count):
    found = judged_images(data, Metadata(calibration), converters=True)
    assert found.left_out == len(found.calibration) == count
    assert labels(found.calibration) == set(range(50)) - labels(found.data)
    assert judged_images(data, Metadata(calibration)).left_out == 0


def test_no_more_images_calibrate_converters_than_usual(tmp_path):
    count = CALIBRATION_IMAGES + 8
    images = np.random.default_rng(0).integers(0, 256, (2 * count, 1, 2, 2), np.uint8)
    np.savez(tmp_path / "many.npz", images=images, labels=np.arange(2 * count))
    spec = tmp_path / "many.npz"
    found = judged_images(spec, calibrated_on(spec, count), converters=True)
    assert (found.left_out, len(found.calibration)) == (count, CALIBRATION_IMAGES)
    assert labels(found.calibration).isdisjoint(labels(found.data))


def test_a_limit_takes_the_first_images(data):
    artifact = calibrated_on(data, 10)
    whole = judged_images(data, artifact).data
    assert np.array_equal(judged_images(data, artifact, limit=7).data.labels, whole.labels[:7])
    assert len(judged_images(data, artifact, limit=700).data) == 40


def test_a_set_with_a_training_split_calibrates_from_there(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, number in (("train", 8), ("test", 4)):
        for name in ("one", "two"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(folder / f"{index}.png")
    found = judged_images(tmp_path, Metadata(), converters=True)
    assert (len(found.data), found.left_out, len(found.calibration)) == (8, 0, 8)
