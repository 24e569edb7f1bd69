import numpy as np
import pytest
import torch

from ohmfold.errors import DataError
from ohmfold.models.image_data import Dataset
from ohmfold.toolchain.analysis.attacked_images import attack_float_model, read_attacked
from ohmfold.toolchain.attacks import PGD
from ohmfold.toolchain.attacks.storage import save_adversarial

from ...support.attack_models import SHAPE, FloatJudge, float_model, standing_images


@pytest.fixture(scope="module")
def model():
    return float_model()


@pytest.fixture(scope="module")
def data(model):
    images, labels = standing_images(FloatJudge(model), 12)
    # The last two are classified wrongly: no attack touches them.
    labels[-2:] = (labels[-2:] + 1) % 5
    return Dataset("random", images, labels)


def test_what_the_attack_left_alone_is_left_out(model, data):
    found = attack_float_model(model, data, 20, seed=1)
    assert np.array_equal(found.clean, data.images[:10])
    assert found.unchanged == 2
    change = np.abs(found.attacked.astype(int) - found.clean.astype(int)).reshape(10, -1).max(axis=1)
    assert (change > 0).all()
    assert (change <= 20).all()
    assert FloatJudge(model).predict(found.attacked).tolist() != data.labels[:10].tolist()
    assert found.description() == {
        "images": 10,
        "name": "pgd",
        "norm": "inf",
        "radius": 20,
        "source": "parent",
        "unchanged": 2,
        "artifact_sha256": None,
    }
    again = attack_float_model(model, data, 20, seed=1)
    assert np.array_equal(again.attacked, found.attacked)


def test_the_model_is_attacked_in_whatever_random_state(model, data):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    attack_float_model(model, data, 20, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_set_is_read_with_what_it_claims_to_attack(model, data, tmp_path):
    result = PGD(steps=3)(model, FloatJudge(model), data.images, data.labels, 9, seed=0)
    save_adversarial(result, tmp_path / "set.npz", "ab" * 32)
    found = read_attacked(tmp_path / "set.npz")
    assert np.array_equal(found.attacked, result.adversarial[:10])
    assert (found.artifact_sha256, found.radius, found.unchanged) == ("ab" * 32, 9, 2)
    few = found.first(3)
    assert np.array_equal(few.attacked, found.attacked[:3])
    assert few.description()["images"] == 3


def test_a_set_without_a_change_is_refused(model, data, tmp_path):
    result = PGD(steps=3)(model, FloatJudge(model), data.images, data.labels, 0, seed=0)
    save_adversarial(result, tmp_path / "set.npz", "ab" * 32)
    with pytest.raises(DataError, match="changed none of 12 images"):
        read_attacked(tmp_path / "set.npz")


def test_a_set_that_was_changed_is_refused(model, data, tmp_path):
    result = PGD(steps=3)(model, FloatJudge(model), data.images, data.labels, 9, seed=0)
    save_adversarial(result, tmp_path / "set.npz", "ab" * 32)
    with np.load(tmp_path / "set.npz") as archive:
        arrays = dict(archive)
    arrays["labels"][0] += 1
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match="not what was written"):
        read_attacked(tmp_path / "set.npz")


def test_images_of_another_shape_are_refused(model):
    data = Dataset("wide", np.zeros((2, 3, *SHAPE[1:]), np.uint8), np.zeros(2, np.int64))
    with pytest.raises(DataError, match="does not take images of shape"):
        attack_float_model(model, data, 5, seed=0)
