"""Each training method on a toy problem: it learns, keeps its promise, repeats and resumes bit for bit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from training_toys import toy_chain, toy_data

from ohmfold.errors import RecipeError
from ohmfold.models.attack import Pgd
from ohmfold.models.image_data import Dataset
from ohmfold.models.network import Network, pixels_of
from ohmfold.models.quantised import Quantised
from ohmfold.models.recipe import TrainingRecipe
from ohmfold.models.recipes import METHODS, Method, method_of
from ohmfold.models.recipes.defensive import orthogonality
from ohmfold.models.training import Progress, TrainingResult, accuracy, train

LOOP = TrainingRecipe(epochs=12, batch_size=20, learning_rate=0.01, seed=3)
QUICK = {
    "adversarial": ["epsilon=0.3", "step=0.12", "steps=3", "warm_up=0.5"],
    "hardened": ["epsilon=0.3", "step=0.12", "steps=3", "warm_up=0.5"],
    "adversarial-qat": ["epsilon=0.3", "step=0.12", "steps=3", "warm_up=0.5"],
    "feedback": ["rounds=2", "measured=60", "share=0.5", "bound=0.5", "bisections=5"],
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _method(name: str, *more: str) -> Method:
    return method_of(name, [*QUICK.get(name, []), *more])


def _trained(name: str, *more: str, recipe: TrainingRecipe = LOOP, **options) -> TrainingResult:
    model = toy_chain()
    if name == "feedback":
        train(model, toy_data(), LOOP)
    return train(model, toy_data(), recipe, method=_method(name, *more), **options)


def _robust(model: torch.nn.Module, data: Dataset, epsilon: float) -> float:
    """Accuracy under an attack that is stronger than those of the trainings."""
    attack = Pgd(epsilon=epsilon, step=epsilon / 8, steps=20)
    pixels, labels = pixels_of(torch.from_numpy(data.images)), torch.from_numpy(data.labels)
    torch.manual_seed(0)
    model.eval()
    return float((model(attack(model, pixels, labels)).argmax(1) == labels).float().mean())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_learns_and_repeats_bit_for_bit(name: str) -> None:
    first, again = _trained(name), _trained(name)
    assert first.module is not None
    assert accuracy(first.module, toy_data(100, 1)) > 0.9
    assert first.sha256 == again.sha256
    assert [record.loss for record in first.history] == [record.loss for record in again.history]


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_resumes_to_the_same_bits(tmp_path: Path, name: str) -> None:
    short = TrainingRecipe(**{**LOOP.as_dict(), "epochs": 2, "precision": "bfloat16"})

    def kill(progress: Progress) -> None:
        if (progress.epoch, progress.batch) == (2, 2) and progress.stage in ("", "round-2"):
            raise _KilledError

    whole = _trained(name, recipe=short)
    with pytest.raises(_KilledError):
        _trained(name, recipe=short, checkpoint=tmp_path / "run.pt", progress=kill)
    resumed = _trained(name, recipe=short, checkpoint=tmp_path / "run.pt")
    assert resumed.sha256 == whole.sha256
    assert [r.loss for r in resumed.history] == [r.loss for r in whole.history]


def test_adversarial_training_withstands_more_than_standard_training() -> None:
    test = toy_data(200, 5)
    standard, adversarial = (_trained(name).module for name in ("standard", "adversarial"))
    assert standard is not None
    assert adversarial is not None
    assert _robust(adversarial, test, 0.3) > _robust(standard, test, 0.3) + 0.2


def test_trades_withstands_more_than_standard_training_and_loses_nothing_on_clean_images() -> None:
    test = toy_data(200, 5)
    standard, trades = (
        _trained(name, *more).module for name, more in (("standard", ()), ("adversarial", ("trades=2",)))
    )
    assert standard is not None
    assert trades is not None
    assert _robust(trades, test, 0.3) > _robust(standard, test, 0.3) + 0.2
    assert accuracy(trades, test) > 0.9


def test_the_loss_of_trades_is_the_clean_one_before_the_radius_grows() -> None:
    network, data = Network(toy_chain()), toy_data(8)
    pixels, labels = pixels_of(torch.from_numpy(data.images)), torch.from_numpy(data.labels)
    method = method_of("adversarial", ["trades=6", "warm_up=0.5", "steps=3", "step=0.1"])
    clean = float(network.cross_entropy(network(pixels), labels).detach())
    assert float(method.loss(network, pixels, labels, 0.0).detach()) == pytest.approx(clean)
    assert float(method.loss(network, pixels, labels, 0.9).detach()) > clean


def test_epsilon_warms_up_from_an_attack_of_nothing() -> None:
    method = method_of("adversarial", ["warm_up=0.5", "clean=0.25", "steps=3", "step=0.1"])
    network = Network(toy_chain())
    data = toy_data(8)
    pixels, labels = pixels_of(torch.from_numpy(data.images)), torch.from_numpy(data.labels)

    def loss(done: float) -> float:
        torch.manual_seed(0)
        return float(method.loss(network, pixels, labels, done).detach())

    clean = float(network.cross_entropy(network(pixels), labels).detach())
    assert loss(0.0) == pytest.approx(clean)
    assert clean < loss(0.1) < loss(0.5) == loss(0.9)


def test_accuracy_under_attack_is_judged_after_each_epoch() -> None:
    result = _trained("adversarial", "judged=40", test=toy_data(60, 2))
    robust = [record.figures["pgd_accuracy"] for record in result.history]
    assert len(robust) == LOOP.epochs
    assert all(0 <= value <= 1 for value in robust)
    assert robust[-1] > robust[0]


def test_thresholds_make_the_first_layer_blind_to_perturbations_of_black_and_white() -> None:
    model = _method("adversarial", "threshold_gain=4").prepare(toy_chain(), toy_data())
    with torch.no_grad():
        model.conv.weight[:, 0].masked_fill_(torch.tensor([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool), 0)
        black = torch.relu(model.conv(torch.full((1, 1, 8, 8), 0.199)))
        white = torch.relu(model.conv(torch.full((1, 1, 8, 8), 0.801)))
    assert torch.all(black[:, 0::4] == 0)
    assert torch.all(black[:, 1::4] == 0)
    assert torch.all(white[:, 2::4] == 0)


def test_thresholds_are_refused_where_there_are_no_grey_pixels() -> None:
    colour = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten())
    with pytest.raises(RecipeError, match="threshold_gain"):
        _method("adversarial", "threshold_gain=1").prepare(colour, toy_data())


def test_qat_leaves_real_weights_that_lose_little_when_they_are_rounded() -> None:
    def rounded_accuracy(name: str) -> float:
        model = _trained(name, "bits=2") if name == "qat" else _trained(name)
        assert model.module is not None
        assert set(model.module.state_dict()) == set(toy_chain().state_dict())
        with torch.no_grad():
            for parameter in model.module.parameters():
                if parameter.ndim > 1:
                    step = parameter.abs().max()
                    parameter.copy_(step * torch.round(parameter / step))
        return accuracy(model.module, toy_data(300, 6))

    assert rounded_accuracy("qat") > 0.9
    assert rounded_accuracy("qat") >= rounded_accuracy("standard")


def test_defensive_training_keeps_layers_closer_to_orthogonal() -> None:
    defensive, qat = _trained("defensive", "beta=0.01").module, _trained("qat").module
    assert float(orthogonality(defensive).detach()) < 0.5 * float(orthogonality(qat).detach())


def test_orthogonality_is_the_squared_distance_of_singular_values_squared_from_one() -> None:
    layer = torch.nn.Conv2d(3, 5, 3)
    singular = torch.linalg.svdvals(layer.weight.detach().reshape(5, -1).double())
    expected = float((singular**2 - 1).square().sum())
    assert float(orthogonality(layer).detach()) == pytest.approx(expected, rel=1e-4)


def test_hardened_networks_are_integer_networks_that_go_on_being_trained() -> None:
    first = _trained("hardened").module
    assert isinstance(first, Quantised)
    before = first.steps()
    again = train(first, toy_data(), LOOP, method=_method("hardened")).module
    assert again is first
    assert again.steps() != before


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("adversarial", "epsilon=1.5", "epsilon"),
        ("adversarial", "steps=0", "steps"),
        ("adversarial", "warm_up=one", "warm_up"),
        ("adversarial", "stripes=1", "stripes"),
        ("adversarial", "trades=-1", "trades"),
        ("feedback", "rounds=0", "rounds"),
        ("feedback", "share=0", "share"),
        ("feedback", "nearest=1", "nearest"),
        ("qat", "bits=1", "bits"),
        ("hardened", "bits=9", "bits"),
        ("defensive", "beta=-1", "beta"),
        ("standard", "epsilon=0.3", "none: it has no settings"),
        ("qat", "bit=3", "bits"),
        ("qat", "bits", "FIELD=VALUE"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name: str, setting: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        method_of(name, [setting])


def test_trades_and_a_weight_of_clean_images_exclude_each_other() -> None:
    with pytest.raises(RecipeError, match="exclude"):
        method_of("adversarial", ["trades=6", "clean=0.5"])


def test_unknown_methods_and_settings_given_twice_are_refused() -> None:
    with pytest.raises(RecipeError, match="feedback"):
        method_of("magic")
    with pytest.raises(RecipeError, match="twice"):
        method_of("qat", ["bits=3", "bits=4"])


def test_feedback_from_a_network_that_knows_nothing_is_refused() -> None:
    data = toy_data(20)
    wrong = Dataset("wrong", data.images, np.full(20, 3))
    model = toy_chain()
    with torch.no_grad():
        model.fc2.weight.zero_()
        model.fc2.bias.copy_(torch.tensor([9.0, 0, 0, 0]))
    with pytest.raises(RecipeError, match="--init"):
        train(model, wrong, LOOP, method=_method("feedback"))
