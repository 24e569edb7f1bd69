"""CW-L2 is cleverhans's where cleverhans is right, knows each sample's own constant, and counts rounded distances."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attack_models import SHAPE, FloatJudge, float_model, linear_program, posed_problem, standing_images
from cleverhans.torch.attacks.carlini_wagner_l2 import carlini_wagner_l2

from ohmfold.errors import RecipeError
from ohmfold.toolchain.attacks import CarliniWagnerL2
from ohmfold.toolchain.attacks.gradient import posed
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.twin import Twin


def search(attack, problem):
    with posed(problem) as task:
        return attack.search(task)


def direct(problem, **settings):
    x = torch.from_numpy(problem.images).float() / 255
    return carlini_wagner_l2(
        problem.gradient_source, x, 5, y=torch.from_numpy(problem.labels), **settings
    ).detach()


@pytest.mark.parametrize(
    ("attack", "search_steps"),
    [
        (CarliniWagnerL2(steps=25, search_steps=3, learning_rate=0.05, initial_const=1.0, reset=False), 3),
        (CarliniWagnerL2(steps=25, search_steps=1, learning_rate=0.05, initial_const=10.0), 1),
        (
            CarliniWagnerL2(steps=25, search_steps=1, learning_rate=0.05, initial_const=10.0, confidence=0.3),
            1,
        ),
    ],
)
def test_before_rounding_the_pixels_are_cleverhans_s(attack, search_steps):
    problem = posed_problem(float_model())
    expected = direct(
        problem,
        lr=attack.learning_rate,
        max_iterations=attack.steps,
        binary_search_steps=search_steps,
        initial_const=attack.initial_const,
        confidence=attack.confidence,
    )
    assert torch.equal(search(attack, problem), expected)
    assert not np.array_equal(expected.numpy(), problem.images / np.float32(255))


def test_with_reset_each_search_step_of_one_image_is_a_call_of_its_own():
    model = float_model()
    problem = posed_problem(model, count=1)
    found = search(CarliniWagnerL2(steps=20, search_steps=4, learning_rate=0.05, initial_const=1.0), problem)
    lower, upper, const, best = 0.0, math.inf, 1.0, None
    x = torch.from_numpy(problem.images).float() / 255
    for _ in range(4):
        step = direct(problem, lr=0.05, max_iterations=20, binary_search_steps=1, initial_const=const)
        if model(step).argmax() != problem.labels[0]:
            upper = min(upper, const)
            if best is None or ((step - x) ** 2).sum() < ((best - x) ** 2).sum():
                best = step
        else:
            lower = max(lower, const)
        const = (lower + upper) / 2 if upper < 1e9 else const * 10
    assert best is not None
    assert torch.equal(found, best)


def test_with_reset_an_image_s_result_does_not_depend_on_the_others():
    model = float_model()
    problem = posed_problem(model, count=5)
    attack = CarliniWagnerL2(steps=20, search_steps=3, learning_rate=0.05, initial_const=1.0)
    together = search(attack, problem)
    for index in range(5):
        one = type(problem)(
            model,
            problem.judge,
            problem.images[[index]],
            problem.labels[[index]],
            problem.radius,
            problem.seed,
        )
        # Adam's steps on a loss of five times the size differ by its epsilon, and sums by their order.
        assert torch.allclose(together[[index]], search(attack, one), atol=2e-3)


def test_the_nearest_image_is_reported_after_rounding():
    model = float_model()
    judge = FloatJudge(model)
    images, labels = standing_images(judge, 8)
    attack = CarliniWagnerL2(steps=20, search_steps=3, learning_rate=0.05, initial_const=1.0)
    result = attack(model, judge, images, labels, 1, seed=0)
    assert result.norm == "none"
    assert result.accuracy == 0.0
    change = result.adversarial.astype(int) - images
    far = np.sqrt((change**2).sum(axis=(1, 2, 3)))
    assert np.array_equal(result.distances(), far)
    for radius in (0, 7.0, 30, 62.5, 200):
        assert result.accuracy_within(radius) == np.mean((change**2).sum(axis=(1, 2, 3)) > radius**2)
    # One step back along the way, any pixel's, is enough for the judge to be right again on most.
    floats = (search(attack, posed_problem(model, 8)).numpy() * 255 - images).reshape(8, -1)
    assert np.all(far <= np.sqrt((np.rint(floats) ** 2).sum(axis=1)) + 1e-9)


def test_what_rounding_undoes_moves_on_by_a_code_or_two():
    """The source sees pixels that are not rounded; its nearest images lie between codes."""
    rng = np.random.default_rng(3)
    model = float_model()
    judge = FloatJudge(model)
    images = rng.integers(30, 226, (12, *SHAPE), np.uint8)
    labels = judge.predict(images)
    result = CarliniWagnerL2(steps=20, search_steps=4, learning_rate=0.05, initial_const=1.0)(
        model, judge, images, labels, 1, seed=0
    )
    assert result.accuracy == 0.0


def test_with_norm_2_images_beyond_the_radius_do_not_count():
    model = float_model()
    judge = FloatJudge(model)
    images, labels = standing_images(judge, 8)
    settings = {"steps": 20, "search_steps": 2, "learning_rate": 0.05, "initial_const": 1.0}
    free = CarliniWagnerL2(**settings)(model, judge, images, labels, 1, seed=0)
    radius = float(np.median(free.distances()))
    attack = CarliniWagnerL2(norm="2", **settings)
    bounded = attack(model, judge, images, labels, radius, seed=0)
    assert np.array_equal(bounded.success, free.distances() <= radius)
    assert bounded.norm == "2"


@pytest.mark.parametrize("seed", range(3))
def test_on_a_linear_classifier_the_smallest_change_is_found_to_the_code(seed):
    """With |w_0 - w_1| equal on n pixels a margin m takes s = floor(m / |w_0 - w_1|) + 1 codes in all.

    The shortest such change spreads them evenly: s mod n pixels change by one code more than the others.
    """
    rng = np.random.default_rng(seed)
    weight = np.zeros((36, 2), np.int8)
    used = rng.choice(36, 20, replace=False)
    weight[used, 0] = rng.permutation([2] * 11 + [-2] * 9)
    while True:
        images = rng.integers(90, 166, (1, *SHAPE), np.uint8)
        margin = int(images.reshape(-1).astype(int) @ weight[:, 0].astype(int))
        if 200 < margin < 900:
            break
    codes = margin // 2 + 1
    whole, more = divmod(codes, 20)
    smallest = more * (whole + 1) ** 2 + (20 - more) * whole**2
    program = linear_program(weight, multiplier=2.0**-6)
    twin, emulator = Twin(program), Emulator(program)
    attack = CarliniWagnerL2(steps=60, search_steps=5, learning_rate=0.05)
    result = attack(twin, emulator, images, np.zeros(1, np.int64), 1, seed=0)
    assert ((result.adversarial.astype(int) - images) ** 2).sum() == smallest


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"search_steps": True}, "search_steps is True"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"initial_const": -1.0}, "initial_const is -1.0"),
        ({"confidence": -0.1}, "confidence is -0.1"),
        ({"reset": 1}, "reset is 1"),
        ({"norm": "inf"}, "norm is 'inf'; expected 'none' or '2'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        CarliniWagnerL2(**settings)
