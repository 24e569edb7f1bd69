"""Gathering evidence: what is run on which images, along whose gradient, and what the model itself is like."""

import numpy as np
import pytest
import torch
from torch import nn

from ohmfold.errors import DataError, MissingDependencyError
from ohmfold.toolchain.attacks.masking import Plan, gather, judge_evidence
from ohmfold.toolchain.attacks.masking.gradients import Differentiable, Logarithms, probabilities

SIDE, CLASSES, COUNT, RADIUS = 6, 3, 60, 12

PLAN = """
images = 60
[[runs]]
role = "iterative"
attack = "pgd"
settings = { steps = 4 }
[[runs]]
role = "single-step"
attack = "fgsm"
[[runs]]
role = "noise"
attack = "uniform-noise"
times = 3
[[runs]]
role = "doubled-steps"
attack = "pgd"
settings = { steps = 8 }
[[runs]]
role = "restart"
attack = "pgd"
settings = { steps = 4 }
[[runs]]
role = "ladder"
attack = "pgd"
settings = { steps = 4 }
radius_factor = 2.0
[[runs]]
role = "unbounded"
attack = "bim"
settings = { steps = 8 }
radius_factor = "range"
[[runs]]
role = "adaptive"
attack = "adaptive-pgd"
settings = { loss = "margin", steps = 4, restarts = 1 }
[[runs]]
role = "parent"
attack = "pgd"
settings = { steps = 4 }
[[runs]]
role = "black-box"
attack = "square"
settings = { budget = 8, rescale = true }
[[runs]]
role = "black-box"
attack = "spsa"
settings = { budget = 20, samples = 4, steps = 2 }
only_without = "square"
[[runs]]
role = "black-box"
attack = "hop-skip-jump"
settings = { budget = 20 }
only_without = "spsa"
[[runs]]
role = "black-box"
attack = "pgd"
settings = { steps = 4 }
"""


class Judge:
    """A torch module that judges codes by labels alone, or, with `Scores`, by logits too."""

    def __init__(self, module):
        self.module = module

    def scores(self, images):
        with torch.no_grad():
            return self.module(torch.from_numpy(images).float() / 255).numpy()

    def predict(self, images):
        return self.scores(images).argmax(axis=1)


class Scores(Judge):
    def logits(self, images):
        return self.scores(images)


@pytest.fixture
def posed():
    """A linear classifier, and images that it gets right but for the first ten."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(size=tuple(parameter.shape)).astype(np.float32)))
    images = rng.integers(0, 256, (COUNT, 1, SIDE, SIDE), np.uint8)
    labels = Judge(net).predict(images)
    labels[:10] = (labels[:10] + 1) % CLASSES
    return net, images, labels


def probed(posed, judge=Scores, sources=None, plan=PLAN, **arguments):
    net, images, labels = posed
    sources = {"twin": net} if sources is None else sources
    values = {"radius": RADIUS, "batch_size": 25, "plan": Plan.from_toml(plan)} | arguments
    return gather(judge(net), sources, images, labels, **values)


def test_each_attack_runs_on_what_it_is_for(posed):
    found = probed(posed)
    assert found.count == 50
    assert not found.clean_correct[:10].any()
    roles = [run.role for run in found.runs]
    assert roles == ["iterative", "single-step", *3 * ["noise"], "doubled-steps", "restart", "ladder", "unbounded",
                     "adaptive", "black-box"]  # fmt: skip
    by = {role: found.having(role) for role in roles}
    for role in ("iterative", "single-step", "ladder", "unbounded"):
        assert np.array_equal(by[role][0].attacked, found.clean_correct)
    first, second, _ = by["noise"]
    assert np.array_equal(first.attacked, found.clean_correct)
    assert np.array_equal(second.attacked, first.standing)
    assert np.array_equal(by["doubled-steps"][0].attacked, by["iterative"][0].standing)
    assert np.array_equal(by["restart"][0].attacked, by["doubled-steps"][0].standing)
    white = found.left_by("single-step", "iterative", "doubled-steps", "restart")
    assert 0 < white.sum() < 50
    assert np.array_equal(by["adaptive"][0].attacked, white)
    assert np.array_equal(by["black-box"][0].attacked, white)
    assert [by[role][0].radius for role in ("iterative", "ladder", "unbounded")] == [12, 24, 255]
    assert by["iterative"][0].margins.shape == (5, COUNT)
    assert not found.probabilities.any()
    assert not (found.repeats.judge | found.repeats.order | found.repeats.source).any()


def test_it_repeats_with_its_seed_and_leaves_no_trace(posed):
    net = posed[0].train()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second, other = probed(posed), probed(posed), probed(posed, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert net.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    for one, same in zip(first.runs, second.runs, strict=True):
        assert np.array_equal(one.standing, same.standing)
        assert one.margins is None or np.array_equal(one.margins, same.margins, equal_nan=True)
    iterative = (first.having("iterative")[0], other.having("iterative")[0])
    assert not np.array_equal(iterative[0].margins[0], iterative[1].margins[0], equal_nan=True)


def test_other_gradients_are_followed_by_name(posed):
    net = posed[0]
    sources = {
        "twin": net,
        "parent": net,
        "unmapped": net,
        "substitute:a": net,
        "substitute:b": net,
        "x": net,
    }
    found = probed(posed, sources=sources)
    names = [run.name for run in found.having("parent", "black-box")]
    assert names == ["pgd through parent", "pgd through unmapped", "square", "pgd through substitute:a",
                     "pgd through substitute:b"]  # fmt: skip
    assert "black-box pgd" in probed(posed).skipped
    assert "parent pgd" in probed(posed).skipped


def test_without_a_gradient_there_is_no_verdict(posed):
    found = probed(posed, sources={})
    assert [run.role for run in found.runs] == [*3 * ["noise"], "black-box"]
    assert (found.gradients, found.probabilities) == ((), None)
    assert judge_evidence(found).label == "inconclusive"


def test_only_the_first_images_are_probed(posed):
    found = probed(posed, plan=PLAN.replace("images = 60", "images = 17"))
    assert (len(found.clean_correct), found.count) == (17, 7)


def test_an_attack_that_cannot_be_made_is_named_and_replaced(posed, monkeypatch):
    found = probed(posed, judge=Judge)
    assert (
        found.skipped["black-box square"] == found.skipped["black-box spsa"] == "the judge tells labels alone"
    )
    found = probed(posed, norm="2", radius=60.5)
    assert "noise uniform-noise" in found.skipped
    assert found.having("unbounded")[0].radius == 255 * SIDE

    def missing(_module):
        raise MissingDependencyError("not installed")

    monkeypatch.setattr("ohmfold.toolchain.attacks.square.pyautoattack", missing)
    found = probed(posed)
    assert found.skipped["black-box square"] == "not installed"
    assert [run.name for run in found.having("black-box")] == ["spsa"]


def test_a_radius_that_is_no_other_is_left_out(posed):
    assert [run.radius for run in probed(posed, radius=200).having("ladder")] == [255]
    found = probed(posed, radius=255)
    assert found.having("ladder") == ()
    assert "ladder pgd" in found.skipped
    half = PLAN.replace("radius_factor = 2.0", "radius_factor = 0.5")
    assert [run.radius for run in probed(posed, plan=half, radius=3).having("ladder")] == [1]
    assert probed(posed, plan=half, radius=1).having("ladder") == ()


def test_progress_rises_to_the_end(posed):
    told = []
    probed(posed, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 10


class Random(nn.Module):
    """A classifier that draws noise for each inference."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + torch.randn(len(x), CLASSES)


def test_randomness_of_judge_and_gradient_is_told_apart(posed):
    net, images, labels = posed
    plan = Plan.from_toml(PLAN)
    drawn = Random(net)
    found = gather(Scores(drawn), {"twin": net}, images, labels, RADIUS, plan=plan)
    assert found.repeats.judge.all()
    assert not found.repeats.source.any()
    found = gather(Scores(net), {"twin": drawn}, images, labels, RADIUS, plan=plan)
    assert not found.repeats.judge.any()
    assert found.repeats.source.all()


def test_an_answer_that_depends_on_the_place_is_found(posed):
    net, images, labels = posed

    class Placed(Scores):
        def logits(self, images):
            turned = super().logits(images)
            turned[::2] *= -1
            return turned

        def predict(self, images):
            return self.logits(images).argmax(axis=1)

    plan = Plan.from_toml(PLAN)
    found = gather(Placed(net), {"twin": net}, images, labels, RADIUS, plan=plan, noise_seed=4)
    assert not found.repeats.judge.any()
    assert found.repeats.order.any()
    assert found.repeats.noise_seed == 4


def test_gradients_that_are_zero_nan_or_missing_are_evidence(posed):
    net, images, labels = posed
    plan = Plan.from_toml(PLAN)

    def looked_at(source):
        found = gather(Scores(net), {"twin": source}, images, labels, RADIUS, plan=plan)
        return found.gradients[0]

    clean = looked_at(net)
    assert np.array_equal(clean.seen, np.arange(COUNT) >= 10)
    assert clean.finite.all()
    assert (clean.zero < 0.1).all()
    for blind in (lambda x: net(torch.round(x * 255) / 255), lambda x: net(x).detach()):
        assert (looked_at(blind).zero == 1).all()
    broken = looked_at(lambda x: net(x) + 0 * torch.sqrt(0 * net(x)))
    assert not broken.finite.any()
    half = looked_at(lambda x: net(torch.cat([x[..., :3].detach(), x[..., 3:]], dim=-1)))
    assert (half.zero == 0.5).all()


def test_probabilities_are_known_and_attacked_through_their_logarithms(posed):
    net, images, labels = posed
    found = probed((nn.Sequential(net, nn.Softmax(1)), images, labels))
    assert found.probabilities.all()
    x = torch.rand(4, 1, SIDE, SIDE)
    restored = Logarithms(nn.Sequential(net, nn.Softmax(1)))(x)
    torch.testing.assert_close(restored.log_softmax(1), net(x).log_softmax(1), atol=1e-4, rtol=1e-4)
    assert np.array_equal(
        probabilities(np.array([[0.5, 0.5], [0.5, 0.4], [1.5, -0.5], [1.0, 0.0]], np.float32)),
        [True, False, False, True],
    )


def test_a_path_of_zero_gradient_changes_no_bit(posed):
    net = posed[0]
    x = torch.rand(4, 1, SIDE, SIDE).requires_grad_()
    detached = Differentiable(lambda x: net(x).detach())
    assert torch.equal(detached(x), net(x))
    assert not torch.autograd.grad(detached(x).sum(), x)[0].any()
    kept, own = (torch.autograd.grad(source(x)[:, 0].sum(), x)[0] for source in (Differentiable(net), net))
    assert torch.equal(kept, own)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 0}, "found the radius 0"),
        ({"radius": 2.5}, "found the radius 2.5"),
        ({"radius": 256}, "found the radius 256"),
        ({"radius": True}, "found the radius True"),
        ({"radius": -1.0, "norm": "2"}, "found the radius -1.0"),
        ({"norm": "1"}, "the norm '1'"),
    ],
)
def test_a_ball_that_is_none_is_refused(posed, changes, message):
    with pytest.raises(DataError, match=message):
        probed(posed, **changes)


def test_images_and_labels_that_are_none_are_refused(posed):
    net, images, labels = posed
    with pytest.raises(DataError, match="images: found float64"):
        probed((net, images / 255, labels))
    with pytest.raises(DataError, match="expected 60 integers"):
        probed((net, images, labels[:-1]))
    with pytest.raises(DataError, match="found 7; the model knows the classes 0 to 2"):
        probed((net, images, labels + 5))
