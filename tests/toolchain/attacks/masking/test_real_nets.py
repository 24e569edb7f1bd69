"""The verdict on networks trained in seconds and on the zoo's: masked where we masked them, trustworthy where not."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from masked_nets import First, Labels, Random, Then, TorchJudge

from ohmfold.export import export_module
from ohmfold.models.checkpoints import load_model
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.toolchain.attacks.masking import Plan, default_plan, gather, judge_evidence
from ohmfold.toolchain.compiler import compile as compile_model
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.judged import calibration_set
from ohmfold.toolchain.program import Scale
from ohmfold.toolchain.recipe import Recipe
from ohmfold.toolchain.twin import Twin

RADIUS = 38


def verdict_on(module, data, radius=RADIUS, judge=None, source=None, plan=None):
    judge = TorchJudge(module) if judge is None else judge
    sources = {"twin": module if source is None else source}
    return judge_evidence(gather(judge, sources, data.images, data.labels, radius, plan=plan))


def outcome(verdict, name):
    (found,) = (finding for finding in verdict.findings if finding.name == name)
    return found.outcome


@pytest.mark.parametrize("radius", [25, RADIUS])
def test_plain_and_adversarially_trained_networks_are_trustworthy(plain, robust, digits, radius):
    for net in (plain, robust):
        verdict = verdict_on(net, digits[1], radius)
        assert (verdict.label, verdict.because) == ("trustworthy", ())


@pytest.mark.parametrize("factor", [30, 100])
def test_large_logits_are_masked(plain, digits, factor):
    verdict = verdict_on(Then(plain, lambda logits: logits * factor), digits[1])
    assert verdict.label == "masked"
    for name in (
        "margin or scaled logits beat cross-entropy",
        "black box beats white box",
        "gradients vanish",
        "unbounded attack below 100 %",
    ):
        assert name in verdict.because


def test_small_logits_have_a_gradient_but_weaken_the_cross_entropy_all_the_same(plain, digits):
    # Their softmax is nearly flat, and the loss follows all classes at once.
    verdict = verdict_on(Then(plain, lambda logits: logits / 100), digits[1])
    assert outcome(verdict, "gradients vanish") == "clear"
    assert "margin or scaled logits beat cross-entropy" in verdict.because


def test_activations_without_a_gradient_are_masked(plain, robust, digits):
    hard = First(lambda x: torch.round(x * 255) / 255, robust)
    detached = Then(plain, lambda logits: logits.detach())
    for module in (hard, detached):
        verdict = verdict_on(module, digits[1])
        assert verdict.label == "masked"
        assert "gradients vanish" in verdict.because


def test_the_gradient_of_what_it_was_made_from_finds_what_its_own_misses(plain, digits):
    hard = First(lambda x: torch.round(x * 255) / 255, plain)
    images, labels = digits[1].images, digits[1].labels
    found = gather(TorchJudge(hard), {"twin": hard, "parent": plain}, images, labels, RADIUS)
    assert "parent's transfer beats white box" in judge_evidence(found).because
    other = gather(TorchJudge(plain), {"twin": plain, "parent": plain}, images, labels, RADIUS)
    assert judge_evidence(other).label == "trustworthy"


def test_a_gradient_that_is_not_a_number_is_masked(plain, digits, caplog):
    broken = Then(plain, lambda logits: logits + 0 * torch.sqrt(0 * logits))
    verdict = verdict_on(broken, digits[1])
    assert (verdict.label, outcome(verdict, "gradients vanish")) == ("masked", "masked")
    assert "not finite" in caplog.text


def test_randomness_is_found_out(plain, digits):
    verdict = verdict_on(Random(plain), digits[1])
    assert verdict.label != "trustworthy"
    assert outcome(verdict, "randomness") == "suspicious"


def test_probabilities_are_named(plain, digits):
    verdict = verdict_on(Then(plain, lambda logits: logits.softmax(1)), digits[1])
    assert verdict.label == "inconclusive"
    assert verdict.because == ("logits are probabilities",)
    # And where large logits were masked before the softmax, the attack on their logarithms still shows it.
    sharp = verdict_on(Then(plain, lambda logits: (30 * logits).softmax(1)), digits[1])
    assert sharp.label == "masked"


def weakened(steps):
    """The shipped plan with an iterative attack of fewer steps, all that repeats it likewise."""
    plan = default_plan()
    runs = []
    for run in plan.runs:
        if run.role in ("iterative", "restart", "doubled-steps"):
            factor = 2 if run.role == "doubled-steps" else 1
            run = run.model_copy(update={"settings": {"steps": factor * steps}})
        runs.append(run)
    return Plan(images=plan.images, runs=tuple(runs))


def test_too_few_steps_are_inconclusive(plain, digits):
    verdict = verdict_on(plain, digits[1], radius=25, plan=weakened(2))
    assert verdict.label == "inconclusive"
    assert {"more steps or restarts gain", "loss not converged"} & set(verdict.because)


@pytest.mark.parametrize("net", ["plain", "masked"])
def test_few_images_are_inconclusive(plain, digits, net):
    module = plain if net == "plain" else Then(plain, lambda logits: logits * 100)
    verdict = verdict_on(module, digits[1].take(np.arange(10)))
    assert verdict.label == "inconclusive"
    assert outcome(verdict, "gradients vanish") == "not enough data"


@pytest.mark.slow
def test_labels_alone_suffice(plain, digits):
    for module, label in ((plain, "trustworthy"), (Then(plain, lambda logits: logits * 100), "masked")):
        assert verdict_on(module, digits[1], judge=Labels(TorchJudge(module))).label == label


# Of the zoo's network half of the images and the attacks that matter are enough.
ZOO_PLAN = """
images = 48
[[runs]]
role = "iterative"
attack = "pgd"
settings = { steps = 20 }
[[runs]]
role = "doubled-steps"
attack = "pgd"
settings = { steps = 40 }
[[runs]]
role = "unbounded"
attack = "bim"
settings = { steps = 10 }
radius_factor = "range"
[[runs]]
role = "adaptive"
attack = "adaptive-pgd"
settings = { loss = "margin", steps = 10, restarts = 1 }
[[runs]]
role = "black-box"
attack = "square"
settings = { budget = 60, rescale = true }
"""


@pytest.fixture(scope="module")
def zoo_artifacts():
    """The zoo's MNIST network in 3 bits, as it is and with the mu-law map on its last layer."""
    calibration = calibration_set("mnist-sample").images
    made = {}
    for name, maps in (("plain", {}), ("mu-law", {"fc2": 255.0})):
        module = apply_mu_law(load_model("mnist-cnn"), maps)
        made[name] = compile_model(export_module(module, (1, 28, 28)), calibration, Recipe(weight_bits=3))
    return made


def scaled(program, factor):
    """The program with logits multiplied: another multiplier of its last layer, on the device itself."""
    layers = [
        replace(layer, multiplier=np.float32(layer.multiplier * np.float32(factor)))
        if isinstance(layer, Scale)
        else layer
        for layer in program.layers
    ]
    return replace(program, layers=tuple(layers))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "factor", "radius", "label"),
    [
        ("plain", 1, 25, "trustworthy"),
        ("plain", 30, 25, "masked"),
        ("plain", 100, 25, "masked"),
        ("mu-law", 1, 25, "masked"),
        ("mu-law", 1, 76, "masked"),
    ],
)
def test_artifacts_of_the_zoo(zoo_artifacts, digits, name, factor, radius, label):
    program = scaled(zoo_artifacts[name].program, factor)
    assert (program.layers[-1].multiplier == factor * zoo_artifacts[name].program.layers[-1].multiplier).all()
    verdict = verdict_on(
        None, digits[1], radius, judge=Emulator(program), source=Twin(program), plan=Plan.from_toml(ZOO_PLAN)
    )
    assert verdict.label == label


def test_an_adversarially_trained_artifact_is_trustworthy(robust, digits):
    learning, judging = digits
    model = export_module(deepcopy(robust), (1, 28, 28))
    artifact = compile_model(model, learning.images[:256], Recipe(weight_bits=4))
    sources = {"twin": Twin(artifact), "parent": robust}
    found = gather(Emulator(artifact), sources, judging.images, judging.labels, RADIUS)
    verdict = judge_evidence(found)
    assert (verdict.label, verdict.because) == ("trustworthy", ())
    assert outcome(verdict, "parent's transfer beats white box") == "clear"
