"""Training on a toy problem: it learns, repeats bit for bit, and resumes bit for bit."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ohmfold.errors import CheckpointError, DataError
from ohmfold.models import training
from ohmfold.models.checkpoints import load_model, weights_sha256
from ohmfold.models.image_data import Dataset
from ohmfold.models.registry import build_model
from ohmfold.models.training import Progress, TrainingRecipe, accuracy, train


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors of this size are slower on several threads, most of all beside other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _toy(n: int = 96, seed: int = 0) -> Dataset:
    """Noise with a bright quarter, which is the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 100, (n, 1, 8, 8), dtype=np.uint8)
    labels = rng.integers(0, 4, n)
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[0, row : row + 4, column : column + 4] += 120
    return Dataset("toy", images, labels)


def _model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(96, 4),
        )


RECIPE = TrainingRecipe(
    epochs=4, batch_size=20, learning_rate=0.01, weight_decay=0.01, weight_clip=2.0, shift=1, seed=7
)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_simple_problem_is_learnt(optimizer: str, precision: str) -> None:
    rate = {"adam": 0.01, "sgd": 0.05}[optimizer]
    recipe = TrainingRecipe(
        epochs=6,
        batch_size=20,
        optimizer=optimizer,
        learning_rate=rate,
        precision=precision,
        label_smoothing=0.1,
    )
    model = _model()
    result = train(model, _toy(), recipe, test=_toy(200, seed=1))
    assert result.accuracy is not None
    assert result.accuracy > 0.9
    assert result.history[-1].loss < result.history[0].loss
    assert result.sha256 == weights_sha256(model)
    assert not model.training


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    def digest(seed: int) -> str:
        return train(_model(), _toy(), TrainingRecipe(**{**RECIPE.as_dict(), "seed": seed})).sha256

    torch.manual_seed(1)
    first = digest(7)
    torch.manual_seed(2)
    assert digest(7) == first
    assert digest(8) != first


def test_the_callers_generator_and_settings_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(_model(), _toy(), RECIPE)
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("killed_in_epoch", [1, 2, 4])
def test_a_killed_run_resumes_to_the_same_bits(tmp_path: Path, optimizer: str, killed_in_epoch: int) -> None:
    recipe = TrainingRecipe(**{**RECIPE.as_dict(), "optimizer": optimizer})

    def kill(progress: Progress) -> None:
        if (progress.epoch, progress.batch) == (killed_in_epoch, 3):
            raise _KilledError

    whole = train(_model(), _toy(), recipe, test=_toy(40, 1))
    checkpoint = tmp_path / "run.ckpt"
    with pytest.raises(_KilledError):
        train(_model(), _toy(), recipe, test=_toy(40, 1), checkpoint=checkpoint, progress=kill)
    assert checkpoint.exists() == (killed_in_epoch > 1)
    epochs = []
    resumed = train(
        _model(),
        _toy(),
        recipe,
        test=_toy(40, 1),
        checkpoint=checkpoint,
        progress=lambda p: epochs.append(p.epoch),
    )
    assert resumed.sha256 == whole.sha256
    assert [(e.loss, e.accuracy) for e in resumed.history] == [(e.loss, e.accuracy) for e in whole.history]
    assert min(epochs) == killed_in_epoch
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]


def test_a_finished_run_is_read_back_without_training(tmp_path: Path) -> None:
    first = train(_model(), _toy(), RECIPE, checkpoint=tmp_path / "run.ckpt")
    batches = []
    again = train(_model(), _toy(), RECIPE, checkpoint=tmp_path / "run.ckpt", progress=batches.append)
    assert again == first
    assert batches == []


def test_checkpoints_of_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    train(_model(), _toy(), RECIPE, checkpoint=path)
    others = [
        (_model(1), _toy(), RECIPE),
        (_model(), _toy(seed=5), RECIPE),
        (_model(), _toy(), TrainingRecipe(**{**RECIPE.as_dict(), "epochs": 5})),
    ]
    for model, data, recipe in others:
        with pytest.raises(CheckpointError, match="not a checkpoint of this run"):
            train(model, data, recipe, checkpoint=path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(CheckpointError, match=r"run\.ckpt"):
        train(_model(), _toy(), RECIPE, checkpoint=path)


def test_a_run_of_a_registered_model_leaves_a_checkpoint_that_loads(tmp_path: Path) -> None:
    images = np.zeros((4, 1, 28, 28), np.uint8)
    data = Dataset("blank", images, np.arange(4))
    result = train(build_model("mnist-vgg"), data, TrainingRecipe(epochs=1), checkpoint=tmp_path / "run.ckpt")
    assert weights_sha256(load_model(tmp_path / "run.ckpt")) == result.sha256


def test_clipped_weights_stay_within_their_deviations() -> None:
    model = _model()
    train(model, _toy(), TrainingRecipe(epochs=2, learning_rate=0.05, weight_clip=1.8))
    for layer in (model[0], model[6]):
        weight = layer.weight.detach()
        # Clipping lowers the deviation it was measured with, by less than 5 % here.
        assert float(weight.abs().max() / weight.std(correction=0)) < 1.8 * 1.05


def test_shifts_move_each_image_by_its_own_offset_and_fill_with_zeros() -> None:
    torch.manual_seed(0)
    images = torch.zeros(200, 2, 5, 6, dtype=torch.uint8)
    images[:, 0, 2, 3], images[:, 1, 2, 3] = 7, 9
    moved = training._shifted(images, 2)
    assert moved.shape == images.shape
    places = {tuple(torch.nonzero(image[0])[0].tolist()) for image in moved}
    assert places == {(row, column) for row in range(5) for column in range(1, 6)}
    assert torch.equal(moved[:, 0] // 7, moved[:, 1] // 9)
    assert torch.equal(training._shifted(images, 0), images)


def test_mirroring_turns_about_half_of_the_images_and_no_more() -> None:
    torch.manual_seed(0)
    images = torch.arange(400 * 2 * 3 * 4).reshape(400, 2, 3, 4)
    mirrored = training._mirrored(images, flip=True)
    turned = (mirrored == images.flip(3)).flatten(1).all(1)
    kept = (mirrored == images).flatten(1).all(1)
    assert torch.all(turned ^ kept)
    assert 150 < int(turned.sum()) < 250
    assert training._mirrored(images, flip=False) is images


def test_curves_are_a_csv_line_an_epoch(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    result = train(_model(), _toy(), RECIPE, test=_toy(40, 1), curves=path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert [float(row["loss"]) for row in rows] == [record.loss for record in result.history]
    assert [float(row["accuracy"]) for row in rows] == [record.accuracy for record in result.history]
    train(_model(), _toy(), RECIPE, curves=path)
    assert {row.split(",")[3] for row in path.read_text().splitlines()[1:]} == {""}


def test_progress_counts_batches_and_ends_with_no_time_left() -> None:
    seen: list[Progress] = []
    train(_model(), _toy(50), RECIPE, progress=seen.append)
    assert [(p.epoch, p.batch) for p in seen] == [(e, b) for e in range(1, 5) for b in range(1, 4)]
    assert {(p.epochs, p.batches) for p in seen} == {(4, 3)}
    assert seen[0].eta_seconds > 0
    assert seen[-1].eta_seconds == 0


def test_models_that_do_not_fit_the_data_are_refused() -> None:
    with pytest.raises(DataError, match=r"cannot take images of \(1, 8, 8\)"):
        train(build_model("cifar-vgg11"), _toy(), RECIPE)
    with pytest.raises(DataError, match=r"cannot take images of \(1, 28, 28\)"):
        train(
            _model(), _toy(), RECIPE, test=Dataset("big", np.zeros((1, 1, 28, 28), np.uint8), np.array([0]))
        )
    with pytest.raises(DataError, match="at least 4 classes"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), _toy(), RECIPE)


def test_accuracy_counts_ties_for_the_lowest_class() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    data = _toy(33)
    assert accuracy(model, data, batch_size=10) == float((data.labels == 0).mean())
    assert model.training
