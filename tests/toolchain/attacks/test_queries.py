"""Attacks by queries see what the device answers, count it for each image, and stop when the budget is spent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_models import (
    SHAPE,
    FloatJudge,
    LabelJudge,
    float_model,
    linear_program,
    posed_problem,
    standing_images,
)

from ohmfold.errors import DataError, RecipeError
from ohmfold.toolchain.attacks import SPSA, HopSkipJump, Problem, Square
from ohmfold.toolchain.attacks.epsilon import distances
from ohmfold.toolchain.attacks.queries import decided_scores
from ohmfold.toolchain.emulator import Emulator

ATTACKS = (
    SPSA(steps=10, samples=8, budget=60),
    SPSA(steps=10, samples=8, budget=60, norm="2"),
    HopSkipJump(steps=3, initial_evaluations=10, budget=60),
    HopSkipJump(steps=3, initial_evaluations=10, budget=60, norm="2"),
    Square(budget=60),
    Square(budget=60, norm="2"),
)


def radius_of(attack):
    return 3 if attack.norm == "inf" else 12.0


@pytest.mark.parametrize("attack", ATTACKS)
def test_answers_are_counted_for_each_image_and_stay_within_the_budget(attack):
    model = float_model()
    judge = FloatJudge(model)
    problem = posed_problem(model, count=5, radius=radius_of(attack), judge=judge)
    judge.asked = 0
    generator = torch.get_rng_state()
    found = attack.run(problem)
    assert torch.equal(torch.get_rng_state(), generator)
    assert found.queries.shape == (5,)
    assert found.queries.sum() == judge.asked
    assert 1 <= found.queries.min() <= found.queries.max() <= 60
    again = attack.run(problem)
    assert np.array_equal(found.images, again.images)


@pytest.mark.parametrize("attack", [ATTACKS[0], ATTACKS[3]])
def test_an_image_s_result_does_not_depend_on_its_place(attack):
    """An estimate is of one image's gradient: others in the batch do not enter it."""
    model = float_model()
    problem = posed_problem(model, count=4, radius=radius_of(attack))
    found = attack.run(problem)
    other = problem.images.copy()
    other[1:] = 255 - other[1:]
    changed = Problem(model, problem.judge, other, problem.labels, problem.radius, problem.seed)
    assert np.array_equal(attack.run(changed).images[0], found.images[0])
    assert attack.run(changed).queries[0] == found.queries[0]


@pytest.mark.parametrize(
    ("attack", "radius"),
    [
        (SPSA(steps=40, samples=16, learning_rate=0.05), 60),
        (SPSA(steps=40, samples=16, learning_rate=0.05, norm="2"), 200.0),
        (HopSkipJump(steps=12, initial_evaluations=30, budget=2000), 60),
        (HopSkipJump(steps=12, initial_evaluations=30, budget=2000, norm="2"), 200.0),
    ],
)
def test_most_images_of_a_linear_classifier_are_found_on_the_emulator(attack, radius):
    program = linear_program(np.random.default_rng(0).integers(-3, 4, (36, 5)).astype(np.int8))
    emulator = Emulator(program)
    images, labels = standing_images(emulator, 6)
    result = attack(None, emulator, images, labels, radius, seed=0)
    assert result.accuracy < 0.5
    assert result.source == "queries"
    assert np.all(result.queries[result.attacked] >= 1)
    far = distances(result.adversarial, images, attack.norm)
    assert np.all(far <= radius)


def test_spsa_ends_with_the_first_success():
    program = linear_program(np.random.default_rng(0).integers(-3, 4, (36, 5)).astype(np.int8))
    emulator = Emulator(program)
    images, labels = standing_images(emulator, 6)
    attack = SPSA(steps=40, samples=16, learning_rate=0.05)
    result = attack(None, emulator, images, labels, 80, seed=0)
    assert result.success.any()
    assert np.all(result.queries[result.success] < 40 * 33)


def test_images_that_are_already_wrong_are_not_asked_about():
    """cleverhans's HopSkipJump never comes back from one."""
    model = float_model()
    judge = LabelJudge(model)
    images, labels = standing_images(judge, 6)
    labels = labels.copy()
    labels[:3] = (labels[:3] + 1) % 5
    attack = HopSkipJump(steps=2, initial_evaluations=5, budget=40)
    result = attack(None, judge, images, labels, 30, seed=0)
    assert np.all(result.queries[:3] == 0)
    assert np.all(result.queries[3:] > 0)
    assert np.array_equal(result.adversarial[:3], images[:3])
    assert result.success[:3].all()
    assert result.attacked.tolist() == [False] * 3 + [True] * 3


def test_a_judge_that_never_errs_ends_the_attack_without_a_success():
    class Constant:
        def predict(self, images):
            return np.zeros(len(images), np.int64)

        def logits(self, images):
            return np.tile(np.array([[2.0, 1.0, 0.0]], np.float32), (len(images), 1))

    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    labels = np.zeros(3, np.int64)
    for attack in ATTACKS:
        result = attack(None, Constant(), images, labels, radius_of(attack), seed=0)
        assert result.accuracy == 1.0
        assert np.all(result.queries <= 60)


def test_a_tie_counts_as_the_device_breaks_it():
    """The label wins a tie with a higher class and loses one with a lower."""

    class Ties:
        def predict(self, images):
            return np.zeros(len(images), np.int64)

        def logits(self, images):
            return np.tile(np.array([[1.0, 1.0, 0.0]], np.float32), (len(images), 1))

    images = np.zeros((2, *SHAPE), np.uint8)
    problem = Problem(None, Ties(), images, np.array([0, 1]), 3, 0)
    logits = decided_scores(problem, "square")(images)
    assert np.all(logits[:, 0] > logits[:, 1])
    assert np.all(logits[:, 0] - logits[:, 1] < 1e-6)
    # To a margin of 0 the package says success.
    result = Square(budget=10)(None, Ties(), images, np.zeros(2, np.int64), 3, seed=0)
    assert result.accuracy == 1.0
    assert np.all(result.queries == 10)


def test_logits_are_asked_of_judges_that_tell_them():
    judge = LabelJudge(float_model())
    images, labels = standing_images(judge, 2)
    asked = judge.asked
    with pytest.raises(DataError, match="'spsa' queries logits, and a LabelJudge tells labels alone"):
        SPSA()(None, judge, images, labels, 3, seed=0)
    assert judge.asked == asked


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SPSA, {"samples": 0}, "samples is 0"),
        (SPSA, {"delta": -0.1}, "delta is -0.1"),
        (SPSA, {"learning_rate": "fast"}, "learning_rate is 'fast'"),
        (SPSA, {"norm": "none"}, "norm is 'none'"),
        (HopSkipJump, {"budget": 0}, "budget is 0"),
        (HopSkipJump, {"gamma": 0.0}, "gamma is 0.0"),
        (HopSkipJump, {"steps": 1.0}, "steps is 1.0"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(RecipeError, match=message):
        kind(**settings)
