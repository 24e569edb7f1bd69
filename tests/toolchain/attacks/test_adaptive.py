"""adaptive-pgd sees through logits of any scale, reaches closed forms, and lets the judge decide what still stands."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_models import SHAPE, FloatJudge, float_model, linear_program, posed_problem, standing_images

from ohmfold.errors import RecipeError
from ohmfold.toolchain.attacks import PGD, AdaptivePGD
from ohmfold.toolchain.attacks.adaptive import _usable_temperature
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.twin import Twin

RADIUS = 8


def accuracy(attack, scale):
    model = float_model(scale=scale)
    judge = FloatJudge(model)
    images, labels = standing_images(judge, 60)
    return attack(model, judge, images, labels, RADIUS, seed=0).accuracy


@pytest.mark.parametrize("loss", ["margin", "dlr", "cross-entropy"])
def test_large_logits_hide_nothing_from_it(loss):
    plain, masked = (accuracy(PGD(steps=20), scale) for scale in (1.0, 1000.0))
    assert masked > plain + 0.15
    attack = AdaptivePGD(loss=loss, steps=20, restarts=2)
    first, *others = (accuracy(attack, scale) for scale in (1.0, 30.0, 100.0, 1000.0))
    assert max(first, *others) <= plain + 0.02
    if loss != "cross-entropy":
        # These losses do not change with the scale but for float32's rounding.
        assert all(abs(other - first) <= 0.02 for other in others)


def test_a_fixed_temperature_divides_the_logits():
    assert accuracy(
        AdaptivePGD(loss="cross-entropy", temperature=1.0, steps=20, restarts=1), 1000.0
    ) > accuracy(AdaptivePGD(loss="cross-entropy", temperature=1000.0, steps=20, restarts=1), 1000.0)


def test_the_temperature_is_the_least_power_of_two_that_leaves_the_label_unsure():
    logits = torch.tensor([[0.0, 0.0, 0.0], [100.0, 0.0, 0.0], [-50.0, 3.0, 2.0], [7.0, 0.0, -1.0]])
    labels = torch.zeros(4, dtype=torch.int64)
    found = _usable_temperature(logits, labels)
    for row, temperature in zip(logits, found.tolist(), strict=True):
        assert torch.softmax(row / temperature, 0)[0] <= 0.9
        assert temperature == 1 or torch.softmax(row / (temperature / 2), 0)[0] > 0.9
    assert found.tolist()[0] == found.tolist()[2] == 1


@pytest.mark.parametrize("loss", ["margin", "dlr", "cross-entropy"])
def test_a_linear_classifier_s_smallest_radius_is_found_to_the_code(loss):
    """Ties go to class 0, so a margin of m flips at floor(m / sum |w_0 - w_1|) + 1 codes and at no fewer."""
    rng = np.random.default_rng(5)
    weight = rng.integers(-3, 4, (36, 2)).astype(np.int8)
    direction = weight[:, 0].astype(int) - weight[:, 1]
    margin = -1
    while not 300 <= margin < 3000:
        images = rng.integers(100, 156, (1, *SHAPE), np.uint8)
        margin = int(images.reshape(-1).astype(int) @ direction)
    smallest = margin // int(np.abs(direction).sum()) + 1
    program = linear_program(weight)
    twin, emulator, labels = Twin(program), Emulator(program), np.zeros(1, np.int64)
    attack = AdaptivePGD(loss=loss, steps=10, restarts=1)
    for radius, flips in ((smallest, True), (smallest - 1, False)):
        result = attack(twin, emulator, images, labels, radius, seed=0)
        assert result.success.tolist() == [flips]


def test_a_point_in_a_closed_form_is_reached_with_norm_2():
    """The logits are -|x - a| and -|x - b|: the nearest boundary lies half-way, along b - a."""
    a, b = torch.full((36,), 0.4), torch.full((36,), 0.4)
    b[:9] = 0.8

    def model(pixels):
        flat = pixels.flatten(1)
        return torch.stack([-((flat - point) ** 2).sum(1) for point in (a, b)], 1)

    images = np.full((1, *SHAPE), 102, np.uint8)
    judge, labels = FloatJudge(model), np.zeros(1, np.int64)
    # Half of |b - a| = 0.4 * 3 pixel ranges is 153 codes; 9 pixels of 51 codes each.
    attack = AdaptivePGD(norm="2", steps=30, restarts=1)
    assert attack(model, judge, images, labels, 156.5, seed=0).success.tolist() == [True]
    assert attack(model, judge, images, labels, 152.0, seed=0).success.tolist() == [False]


def test_what_the_judge_got_wrong_is_left_out_of_the_next_descent():
    model = float_model()
    sizes = []

    def counted(pixels):
        sizes.append(len(pixels))
        return model(pixels)

    judge = FloatJudge(model)
    images, labels = standing_images(judge, 30)
    attack = AdaptivePGD(steps=4, restarts=3)
    result = attack(counted, judge, images, labels, RADIUS, seed=0)
    # One image asks for the classes, twice; then a descent asks four times, and once about where it ended.
    descents = [sizes[2:7], sizes[7:12], sizes[12:17]]
    assert all(len(set(descent)) <= 1 for descent in descents)
    assert descents[0] == [30] * 5
    assert len(sizes) == 2 + 15
    assert descents[1][0] < 30
    assert descents[2][0] <= descents[1][0]
    assert result.margins.shape == (15, 30)
    assert not np.isnan(result.margins).any()
    assert not result.kept_earlier.any()


def test_its_best_iterate_is_kept_where_a_source_is_not_the_judge():
    source, judge = float_model(seed=1), FloatJudge(float_model())
    images, labels = standing_images(judge, 20)
    generator = torch.get_rng_state()
    result = AdaptivePGD(steps=5, restarts=2)(source, judge, images, labels, RADIUS, seed=0, source="parent")
    assert torch.equal(torch.get_rng_state(), generator)
    assert result.source == "parent"
    assert np.array_equal(result.predictions, judge.predict(result.adversarial))
    assert 0 < result.accuracy < 1
    assert np.abs(result.adversarial.astype(int) - images).max() <= RADIUS


def test_the_same_seed_gives_the_same_images():
    problem = posed_problem(float_model(), count=6, radius=2)
    attack = AdaptivePGD(steps=4, restarts=3)
    assert np.array_equal(attack.run(problem).images, attack.run(problem).images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hinge"}, "loss is 'hinge'; expected one of cross-entropy, margin, dlr"),
        ({"temperature": "find"}, "temperature is 'find'"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"restarts": 0}, "restarts is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"norm": "none"}, "norm is 'none'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        AdaptivePGD(**settings)
