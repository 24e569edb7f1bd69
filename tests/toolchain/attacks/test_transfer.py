"""The transfer matrix judges every set on every model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ohmfold.errors import RecipeError
from ohmfold.models.image_data import Dataset
from ohmfold.toolchain.attacks import make_attack
from ohmfold.toolchain.attacks.transfer import Contender, transfer_matrix
from ohmfold.toolchain.judged import float_predictor

NAMES = ("a", "b", "c")


class Judged:
    def __init__(self, module: nn.Module) -> None:
        self.predict = float_predictor(module)


def contenders():
    """Three linear models that are much alike, since each is the first one and some noise."""
    torch.manual_seed(0)
    first, models = torch.randn(5, 16), {}
    for name in NAMES:
        module = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).eval()
        with torch.no_grad():
            module[1].weight.copy_(first + 0.2 * torch.randn(5, 16))
        models[name] = Contender(Judged(module), module)
    return models


def data_of(models, count=60):
    images = np.random.default_rng(1).integers(0, 256, (count, 1, 4, 4)).astype(np.uint8)
    return Dataset("random", images, models["a"].judge.predict(images))


def test_every_set_is_judged_on_every_model():
    models = contenders()
    data, attack = data_of(models), make_attack("pgd", steps=5)
    found = transfer_matrix(models, data, attack, 9, seed=2)
    for row, source in enumerate(NAMES):
        change = found.sets[source].astype(int) - data.images
        assert 0 < np.abs(change).max() <= 9
        for column, judged in enumerate(NAMES):
            judge = models[judged].judge
            right = judge.predict(data.images) == data.labels
            right &= judge.predict(found.sets[source]) == data.labels
            assert found.left[source][judged].correct == right.sum()
            assert found.accuracy()[row, column] == right.mean()
    alone = attack(models["a"].source, models["a"].judge, data.images, data.labels, 9, seed=2)
    assert found.left["a"]["a"].correct == (~alone.success).sum()
    assert found.left["a"]["a"].correct < min(found.left[other]["a"].correct for other in "bc")


def test_a_matrix_takes_two_models_and_a_gradient():
    models = contenders()
    with pytest.raises(RecipeError, match="found 1 models"):
        transfer_matrix({"a": models["a"]}, data_of(models), make_attack("fgsm"), 9)
    with pytest.raises(RecipeError, match="follows no gradient"):
        transfer_matrix(models, data_of(models), make_attack("uniform-noise"), 9)
