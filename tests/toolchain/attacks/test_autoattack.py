"""AutoAttack's attacks are the package's, leave no trace, and say what they cannot do before they start."""

from __future__ import annotations

import sys

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

from ohmfold.errors import DataError, MissingDependencyError, RecipeError
from ohmfold.toolchain.attacks import APGDCE, APGDT, FABT, Square, make_attack
from ohmfold.toolchain.attacks.gradient import rounded
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.twin import Twin

apgd = pytest.importorskip("pyautoattack.autopgd_base")
fab = pytest.importorskip("pyautoattack.fab_pt")
square = pytest.importorskip("pyautoattack.square")


def package_s(attack, problem, model):
    """The package's own object for the same problem."""
    norm = {"inf": "Linf", "2": "L2"}[attack.norm]
    eps = problem.radius / 255
    if isinstance(attack, APGDCE):
        return apgd.APGDAttack(
            model, n_iter=attack.steps, n_restarts=2, norm=norm, eps=eps, seed=problem.seed
        )
    if isinstance(attack, APGDT):
        return apgd.APGDAttack_targeted(
            model, n_iter=attack.steps, norm=norm, eps=eps, seed=problem.seed, n_target_classes=4
        )
    return fab.FABAttack_PT(
        model, n_iter=attack.steps, norm=norm, eps=eps, seed=problem.seed, targeted=True, n_target_classes=4
    )


@pytest.mark.parametrize(
    ("attack", "radius"),
    [
        (APGDCE(steps=8, restarts=2), 6),
        (APGDCE(steps=8, restarts=2, norm="2"), 25.0),
        (APGDT(steps=8), 6),
        (APGDT(steps=8, norm="2"), 25.0),
        (FABT(steps=8), 12),
        (FABT(steps=8, norm="2"), 50.0),
    ],
)
def test_before_rounding_the_pixels_are_pyautoattack_s(attack, radius):
    model = float_model()
    problem = posed_problem(model, count=8, radius=radius)
    generator = torch.get_rng_state()
    found = attack.run(problem).images
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in model.parameters())
    x, y = torch.from_numpy(problem.images).float() / 255, torch.from_numpy(problem.labels)
    expected = package_s(attack, problem, model).perturb(x, y).detach().numpy()
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, x.numpy())


@pytest.mark.parametrize(("norm", "radius"), [("inf", 25), ("2", 100.0)])
def test_square_finds_what_pyautoattack_finds_and_counts_its_questions(norm, radius):
    model = float_model()
    judge = FloatJudge(model)
    problem = posed_problem(model, count=8, radius=radius, judge=judge)
    judge.asked = 0
    found = Square(norm=norm, budget=30).run(problem)
    assert found.queries.sum() == judge.asked
    assert found.queries.max() <= 30

    def predict(pixels):
        return torch.from_numpy(judge.logits(rounded(pixels)))

    package = square.SquareAttack(
        predict, norm={"inf": "Linf", "2": "L2"}[norm], n_queries=29, eps=radius / 255, seed=problem.seed,
        resc_schedule=False,
    )  # fmt: skip
    x, y = torch.from_numpy(problem.images).float() / 255, torch.from_numpy(problem.labels)
    expected = package.perturb(x, y).numpy()
    fooled = judge.predict(rounded(torch.from_numpy(expected))) != problem.labels
    assert fooled.any()
    assert np.array_equal(found.images[fooled], expected[fooled])


def test_on_the_twin_what_is_found_is_the_device_s():
    program = linear_program(np.random.default_rng(0).integers(-3, 4, (36, 5)).astype(np.int8))
    twin, emulator = Twin(program), Emulator(program)
    images, labels = standing_images(emulator, 10)
    for attack in (APGDCE(steps=10), APGDT(steps=10), FABT(steps=10), Square(budget=300)):
        result = attack(twin, emulator, images, labels, 60, seed=0)
        assert result.accuracy < 0.5, attack.name
        assert result.source == ("queries" if attack.name == "square" else "twin")
        again = attack(twin, emulator, images, labels, 60, seed=0)
        assert np.array_equal(result.adversarial, again.adversarial)


def test_a_gradient_that_vanished_is_no_image():
    """Nothing is known of the way to a class whose logit is constant: the package divides 0 by 0."""
    model = float_model()

    def flat(pixels):
        return model(pixels) * 0.0 + torch.arange(5.0, 0.0, -1.0)

    judge = FloatJudge(flat)
    images, labels = standing_images(judge, 4)
    for attack in (FABT(steps=3), APGDT(steps=3), APGDCE(steps=3)):
        assert attack(flat, judge, images, labels, 20, seed=0).accuracy == 1.0


def test_what_the_model_or_the_judge_cannot_answer_is_refused():
    three = float_model(classes=3)
    judge = FloatJudge(three)
    images, labels = standing_images(judge, 3)
    asked = judge.asked
    with pytest.raises(DataError, match="apgd-t: the model knows 3 classes; its loss needs at least 4"):
        APGDT()(three, judge, images, labels, 3, seed=0)
    with pytest.raises(DataError, match=r"square: found images of shape \(36,\)"):
        Square().check(judge, (36,), 3)
    with pytest.raises(DataError, match="height and width at least 5"):
        Square(norm="2").check(judge, (1, 4, 8), 3)
    assert judge.asked <= asked + 1
    with pytest.raises(DataError, match="a LabelJudge tells labels alone"):
        Square()(None, LabelJudge(three), images, labels, 3, seed=0)


def test_without_the_package_what_to_install_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    for name in [name for name in sys.modules if name.startswith("pyautoattack.")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("apgd-ce", "apgd-t", "fab-t", "square"):
        with pytest.raises(MissingDependencyError, match=r"pip install 'ohmfold\[autoattack\]'"):
            make_attack(name).check(FloatJudge(float_model()), SHAPE, 5)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("apgd-ce", {"steps": 0}, "steps is 0"),
        ("apgd-ce", {"rho": 0.0}, "rho is 0.0"),
        ("apgd-t", {"targets": 0}, "targets is 0"),
        ("fab-t", {"restarts": -1}, "restarts is -1"),
        ("square", {"budget": 1}, "budget is 1"),
        ("square", {"p_init": 0}, "p_init is 0"),
        ("square", {"rescale": "no"}, "rescale is 'no'"),
        ("square", {"norm": "none"}, "norm is 'none'; expected 'inf' or '2'"),
    ],
)
def test_settings_out_of_range_are_refused(name, settings, message):
    with pytest.raises(RecipeError, match=message):
        make_attack(name, **settings)


def test_images_are_of_the_shape_that_was_asked_about():
    model = float_model()
    problem = posed_problem(model, count=1, radius=3)
    assert APGDCE(steps=2).run(problem).images.shape == (1, *SHAPE)
    assert Square(budget=5).run(problem).images.shape == (1, *SHAPE)
