"""FGSM, BIM and PGD are cleverhans's, leave no trace, and find what a linear classifier's algebra says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from cleverhans.torch.attacks.projected_gradient_descent import projected_gradient_descent
from torch import nn

from ohmfold.errors import DataError, RecipeError
from ohmfold.toolchain.attacks import (
    BIM,
    FGSM,
    MIM,
    PGD,
    AdaptivePGD,
    CarliniWagnerL2,
    Problem,
    UniformNoise,
    evaluate,
)
from ohmfold.toolchain.attacks.gradient import IterateRecorder
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import Dense, Program, Reshape, Scale, TensorSpec
from ohmfold.toolchain.twin import Twin

SHAPE = (1, 4, 4)


def float_model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3)
    )


class Constant:
    """A judge that always says 0."""

    def predict(self, images):
        return np.zeros(len(images), np.int64)


def problem(model, epsilon=20, seed=11, count=6, judge=None):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, *SHAPE), np.uint8)
    return Problem(model, judge, images, rng.integers(0, 3, count), epsilon, seed)


def direct(attack, posed):
    """What cleverhans itself returns for the problem."""
    model, x = posed.gradient_source.eval(), torch.from_numpy(posed.images).float() / 255
    y, eps = torch.from_numpy(posed.labels), posed.radius / 255
    order = {"inf": np.inf, "2": 2}[attack.norm]
    if isinstance(attack, FGSM):
        return fast_gradient_method(model, x, eps, order, 0.0, 1.0, y=y)
    torch.manual_seed(posed.seed)
    step = attack.used_step(posed.radius) / 255
    random = isinstance(attack, PGD)
    return projected_gradient_descent(
        model, x, eps, step, attack.steps, order, 0.0, 1.0, y=y, rand_init=random
    )


ATTACKS = (
    FGSM(), BIM(steps=5), PGD(steps=5), PGD(steps=3, step_codes=2.5),
    FGSM(norm="2"), BIM(steps=5, norm="2"), PGD(steps=5, norm="2"),
)  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_before_rounding_the_pixels_are_cleverhans_s(attack):
    model = float_model()
    found = attack.run(problem(model)).images
    expected = direct(attack, problem(model)).detach().numpy()
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, problem(model).images / np.float32(255))


def test_random_starts_follow_the_seed():
    model = float_model()
    first, again, other = (PGD(steps=1).run(problem(model, seed=seed)).images for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    one, two = (BIM(steps=1).run(problem(model, seed=seed)).images for seed in (1, 2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("attack", [*ATTACKS, MIM(steps=3), CarliniWagnerL2(steps=3), AdaptivePGD(steps=3)])
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
        attack.run(problem(model, judge=Constant()))
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


def test_labels_that_neither_source_nor_judge_know_are_refused_before_any_work():
    program, images, labels = many()
    labels[4] = 2
    for attack, source in ((FGSM(), Twin(program)), (UniformNoise(), None)):
        calls = []

        class Judge:
            def __init__(self, calls):
                self.program, self.calls = program, calls

            def predict(self, images):
                self.calls.append(len(images))

        with pytest.raises(DataError, match="labels: found 2; the model knows the classes 0 to 1"):
            attack(source, Judge(calls), images, labels, 3, seed=0)
        assert not calls


def test_parameters_that_a_function_closes_over_get_no_gradient():
    model = float_model().eval()

    def divided(pixels):
        return model(pixels) / 2

    for attack in (FGSM(), PGD(steps=2), MIM(steps=2), CarliniWagnerL2(steps=2), AdaptivePGD(steps=2)):
        attack.run(problem(divided, judge=Constant()))
        assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_that_are_not_finite_are_taken_as_zero_and_reported(caplog):
    model = float_model().eval()

    def broken(pixels):
        logits = model(pixels)
        # sqrt has an infinite gradient at 0, and 0 times infinity is not a number.
        return logits + (pixels * 0.0).sqrt().flatten(1).sum(1, keepdim=True)

    found = FGSM().run(problem(broken))
    assert np.isfinite(found.images).all()
    assert "gradients of the model were not finite" in caplog.text


def test_logits_without_a_gradient_are_refused():
    model = float_model().eval()
    with pytest.raises(DataError, match="do not depend on its pixels by anything differentiable"):
        PGD(steps=2).run(problem(lambda pixels: model(pixels.detach())))


class TestIterates:
    def test_every_iterate_s_margin_is_recorded_and_the_last_one_s_too(self):
        model = float_model().eval()
        posed = problem(model)
        found = BIM(steps=5).run(posed)
        assert found.margins.shape == (6, 6)
        with torch.no_grad():
            for row, pixels in ((0, posed.images / np.float32(255)), (-1, found.images)):
                logits = model(torch.from_numpy(pixels)).numpy()
                own = logits[np.arange(6), posed.labels]
                logits[np.arange(6), posed.labels] = -np.inf
                assert np.array_equal(found.margins[row], own - logits.max(axis=1))

    def test_the_least_margin_s_codes_are_kept(self):
        labels = torch.tensor([0, 1])
        logits = iter([torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([[2.0, 5.0], [9.0, 2.0]]),
                       torch.tensor([[4.0, 1.0], [0.0, 1.0]])])  # fmt: skip
        recorder = IterateRecorder(lambda pixels: next(logits), torch.zeros(2, 3), labels)
        for code in (10.4, 20.6, 30.0):
            recorder(torch.full((2, 3), code / 255))
        assert recorder.codes().tolist() == [[21] * 3, [21] * 3]
        assert recorder.margins().tolist() == [[2.0, 2.0], [-3.0, -7.0], [3.0, 1.0]]

    def test_an_earlier_iterate_that_succeeded_is_kept(self):
        """The class is 1 in a band of brightness: large steps cross it and come out on the far side."""

        def band(pixels):
            brightness = pixels.flatten(1).mean(1)
            inside = 0.09 - (brightness - 0.55).abs()
            return torch.stack([torch.zeros_like(inside), inside], 1)

        class Judge:
            def predict(self, images):
                with torch.no_grad():
                    return band(torch.from_numpy(images).float() / 255).argmax(1).numpy()

        images = np.full((2, *SHAPE), 100, np.uint8)
        images[1] = 60
        labels = np.zeros(2, np.int64)
        result = BIM(steps=2, step_codes=40)(band, Judge(), images, labels, 200, seed=0)
        assert result.success.tolist() == [True, True]
        last = result.margins[-1]
        assert np.array_equal(result.kept_earlier, last > 0)
        assert result.kept_earlier.tolist() == [True, False]
        assert np.array_equal(result.predictions, Judge().predict(result.adversarial))


class TestMIM:
    def test_is_the_paper_s_sum(self):
        model = float_model().eval()
        posed = problem(model, epsilon=30)
        attack = MIM(steps=4, decay=0.5)
        clean = torch.from_numpy(posed.images).float() / 255
        x, momentum = clean, 0.0
        for _ in range(4):
            entry = x.clone().requires_grad_()
            loss = nn.functional.cross_entropy(model(entry), torch.from_numpy(posed.labels), reduction="sum")
            loss.backward()
            means = torch.stack([one.abs().mean() for one in entry.grad]).reshape(-1, 1, 1, 1)
            momentum = 0.5 * momentum + entry.grad / means
            x = x + 2.5 * 30 / 4 / 255 * momentum.sign()
            x = torch.minimum(torch.maximum(x, clean - 30 / 255), clean + 30 / 255).clamp(0, 1)
        assert np.allclose(attack.run(posed).images, x.detach().numpy(), atol=1e-6)
        assert attack.parameters(30) == {"steps": 4, "step_codes": 18.75, "decay": 0.5, "random_start": False}

    def test_without_decay_it_is_bim(self):
        posed = problem(float_model().eval())
        assert np.allclose(
            MIM(steps=4, decay=0.0).run(posed).images, BIM(steps=4).run(posed).images, atol=1e-6
        )

    def test_its_decay_is_checked(self):
        with pytest.raises(RecipeError, match="decay is -1"):
            MIM(decay=-1)


def test_with_norm_2_the_codes_are_in_the_ball():
    model = float_model().eval()
    posed = problem(model, count=8)

    class Judge:
        def predict(self, images):
            with torch.no_grad():
                return model(torch.from_numpy(images).float() / 255).argmax(1).numpy()

    labels = Judge().predict(posed.images)
    for attack in (FGSM(norm="2"), PGD(norm="2", steps=4), MIM(norm="2", steps=4)):
        for radius in (2.0, 30.5, 300):
            result = attack(model, Judge(), posed.images, labels, radius, seed=0)
            change = result.adversarial.astype(int) - posed.images
            assert np.all((change**2).sum(axis=(1, 2, 3)) <= radius**2)
            assert change.any()


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

    @pytest.mark.parametrize("attack", [FGSM(), BIM(), PGD(), MIM()])
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
