"""FGSM, BIM and PGD are cleverhans's, leave no trace, and find what a linear classifier's algebra says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from torch import nn

from ohmfold.errors import DataError, RecipeError
from ohmfold.toolchain.attacks import BIM, FGSM, PGD, Problem, UniformNoise, evaluate
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import Dense, Program, Reshape, Scale, TensorSpec
from ohmfold.toolchain.twin import Twin

SHAPE = (1, 4, 4)


def float_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)
    )


def problem(model, epsilon=20, seed=11, count=6):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
    return Problem(model, None, images, rng.integers(0, 3, count), epsilon, seed)


def direct(attack, posed):
    """What cleverhans itself returns for the problem."""
    model, x = posed.gradient_source.eval(), torch.from_numpy(posed.images).float() / 255
    y, eps = torch.from_numpy(posed.labels), posed.epsilon_codes / 255
    if isinstance(attack, FGSM):
        return fast_gradient_method(model, x, eps, np.inf, 0.0, 1.0, y=y)
    torch.manual_seed(posed.seed)
    step = attack.used_step(posed.epsilon_codes) / 255
    random = isinstance(attack, PGD)
    return projected_gradient_descent(
        model, x, eps, step, attack.steps, np.inf, 0.0, 1.0, y=y, rand_init=random
    )


ATTACKS = (FGSM(), BIM(steps=5), PGD(steps=5), PGD(steps=3, step_codes=2.5))


@pytest.mark.parametrize("attack", ATTACKS)
def test_before_rounding_the_pixels_are_cleverhans_s(attack):
    model = float_model()
    found = attack.run(problem(model))
    expected = direct(attack, problem(model)).detach().numpy()
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, problem(model).images / np.float32(255))


def test_random_starts_follow_the_seed():
    model = float_model()
    first, again, other = (PGD(steps=1).run(problem(model, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.array_equal(BIM(steps=1).run(problem(model, seed=1)), BIM(steps=1).run(problem(model, seed=2)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_model_and_generators_are_left_as_they_were(attack):
    model = float_model().train()
    model[4].eval()
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.ones(4)
    modes = [module.training for module in model.modules()]
    needs = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    with torch.no_grad():
        attack.run(problem(model))
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == needs
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model[0].bias.grad, torch.ones(4))
    assert all(p.grad is None for name, p in model.named_parameters() if name != "0.bias")


def test_a_step_is_two_and_a_half_radii_over_the_steps_and_never_more_than_the_radius():
    assert PGD(steps=40).parameters(76) == {"steps": 40, "step_codes": 4.75, "random_start": True}
    assert BIM(steps=1).parameters(8) == {"steps": 1, "step_codes": 8.0, "random_start": False}
    assert PGD(step_codes=30).used_step(8) == 8.0


def test_models_that_give_no_logits_or_know_too_few_classes_are_refused():
    with pytest.raises(DataError, match=r"returned shape \(1, 1, 4, 4\)"):
        FGSM().run(problem(nn.Identity()))
    with pytest.raises(DataError, match="the model knows the classes 0 to 1"):
        FGSM().run(problem(nn.Sequential(nn.Flatten(), nn.Linear(16, 2))))
    with pytest.raises(DataError, match="needs a gradient"):
        FGSM().run(problem(None))


def linear_program(weight, multiplier=2.0**-14):
    """Two classes on 16 pixels: `logits = codes @ weight * multiplier`."""
    specs = [
        TensorSpec("pixels", np.dtype(np.uint8), (None, *SHAPE)),
        TensorSpec("flat", np.dtype(np.uint8), (None, 16)),
        TensorSpec("acc", np.dtype(np.int32), (None, 2)),
        TensorSpec("logits", np.dtype(np.float32), (None, 2)),
    ]
    layers = (
        Reshape(name="flatten", inputs=("pixels",), outputs=("flat",), shape=(0, -1)),
        Dense(
            name="dense",
            inputs=("flat",),
            outputs=("acc",),
            weight=weight,
            bias=None,
            input_zero_point=0,
            requantisation=None,
        ),
        Scale(name="scale", inputs=("acc",), outputs=("logits",), multiplier=np.float32(multiplier)),
    )
    tensors = {spec.name: spec for spec in specs}
    return Program((specs[0],), (specs[3],), layers, tensors, "logits", "acc")


class TestOnALinearClassifier:
    """Moving every pixel by `e` codes against its sign lowers the margin by `e * sum |w_0 - w_1|`, no more.

    Ties go to class 0, so an image of class 0 with margin m flips at floor(m / sum |w_0 - w_1|) + 1 codes.
    """

    @pytest.fixture(params=range(6))
    def posed(self, request):
        rng = np.random.default_rng(request.param)
        while True:
            weight = rng.integers(-3, 4, (16, 2)).astype(np.int8)
            images = rng.integers(100, 156, (1, *SHAPE), np.uint8)
            direction = weight[:, 0].astype(int) - weight[:, 1]
            margin = int(images.reshape(-1).astype(int) @ direction)
            smallest = margin // max(int(np.abs(direction).sum()), 1) + 1
            if margin >= 0 and 2 <= smallest < 100:
                return linear_program(weight), images, smallest

    @pytest.mark.parametrize("attack", [FGSM(), BIM(), PGD()])
    def test_the_smallest_radius_flips_and_one_code_less_does_not(self, attack, posed):
        program, images, smallest = posed
        twin, emulator, labels = Twin(program), Emulator(program), np.zeros(1, np.int64)
        for epsilon, flips in ((smallest, True), (smallest - 1, False)):
            result = attack(twin, emulator, images, labels, epsilon, seed=0)
            assert result.success.tolist() == [flips]
            assert result.clean_accuracy == 1.0


def many(count=30):
    rng = np.random.default_rng(0)
    program = linear_program(rng.integers(-3, 4, (16, 2)).astype(np.int8))
    images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
    return program, images, Emulator(program).predict(images)


class TestEvaluate:
    def test_makes_emulator_and_twin_of_a_program(self):
        program, images, labels = many()
        labels[:3] = 1 - labels[:3]
        seen = []
        attacks = (UniformNoise(), FGSM(), PGD(steps=4))
        found = evaluate(
            program,
            None,
            images,
            labels,
            attacks,
            8,
            seed=5,
            batch_size=10,
            progress=lambda name, done, total: seen.append((name, done, total)),
        )
        assert [result.name for result in found.results] == ["uniform-noise", "fgsm", "pgd"]
        assert found.clean_accuracy == 27 / 30
        emulator = Emulator(program)
        for result in found.results:
            assert np.array_equal(result.predictions, emulator.predict(result.adversarial))
        standing = np.all([result.predictions == labels for result in found.results], axis=0)
        assert found.robust_accuracy == standing.mean() < 27 / 30
        assert seen[-1] == ("pgd", 27, 27)

    def test_repeats_and_agrees_with_the_attack_alone(self):
        program, images, labels = many()
        emulator, twin = Emulator(program), Twin(program)
        first, second = (
            evaluate(emulator, twin, images, labels, [PGD(steps=3)], 8, seed=2) for _ in range(2)
        )
        alone = PGD(steps=3)(twin, emulator, images, labels, 8, seed=2)
        for result in (first.results[0], second.results[0]):
            assert np.array_equal(result.adversarial, alone.adversarial)

    def test_gradient_attacks_without_a_gradient_are_refused(self):
        program, images, labels = many()
        with pytest.raises(DataError, match="'fgsm' needs a gradient"):
            FGSM()(None, Emulator(program), images, labels, 8, seed=0)

        class Device:
            predict = staticmethod(Emulator(program).predict)

        assert evaluate(Device(), None, images, labels, [UniformNoise()], 8).clean_accuracy == 1.0
        with pytest.raises(RecipeError, match="a Device, which holds no program"):
            evaluate(Device(), None, images, labels, [FGSM()], 8)
        with pytest.raises(RecipeError, match="no attack given"):
            evaluate(program, None, images, labels, [], 8)

    def test_a_transferred_attack_uses_another_model_s_gradient(self):
        program, images, labels = many()
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
        with torch.no_grad():
            model[1].weight.copy_(torch.from_numpy(program.layers[1].weight.T.astype(np.float32)))
        transferred = FGSM()(model, Emulator(program), images, labels, 8, seed=0)
        white = FGSM()(Twin(program), Emulator(program), images, labels, 8, seed=0)
        # A pixel with equal weights has no gradient but that of rounding.
        counts = (program.layers[1].weight[:, 0] != program.layers[1].weight[:, 1]).reshape(SHAPE)
        assert np.array_equal(transferred.adversarial[:, counts], white.adversarial[:, counts])
        assert not np.array_equal(transferred.adversarial, images)
