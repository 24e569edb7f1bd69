"""Distances to the boundary against a linear classifier, whose distances are known, and quotas of new samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from training_toys import toy_chain, toy_data

from ohmfold.models.margins import class_directions, crossings, pair_margins, quotas
from ohmfold.models.network import Network
from ohmfold.models.recipe import TrainingRecipe
from ohmfold.models.recipes import method_of
from ohmfold.models.training import train


def _linear(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))


@pytest.mark.parametrize("seed", range(4))
def test_bisection_finds_the_distance_that_a_linear_classifier_has(seed: int) -> None:
    model = _linear(seed)
    pixels = torch.full((6, 1, 4, 4), 0.5) + 0.02 * torch.randn(
        6, 1, 4, 4, generator=torch.Generator().manual_seed(seed)
    )
    labels = model(pixels).argmax(1)
    ((direction, aims),) = class_directions(model, pixels, labels, 1)
    assert torch.equal(aims, 1 - labels)
    found = crossings(model, pixels, labels, direction, aims, bound=0.4, bisections=20)
    weight, logits = model[1].weight.detach(), model(pixels).detach()
    # The max-norm distance to w.x + b = 0 is |w.x + b| over the sum of |w|.
    gap = (logits[:, 0] - logits[:, 1]).abs()
    expected = gap / (weight[0] - weight[1]).abs().sum()
    assert bool(found.crossed.all())
    assert torch.equal(found.other, aims)
    assert found.distance == pytest.approx(expected, abs=1e-5)


def test_what_is_not_met_within_the_bound_counts_as_the_bound() -> None:
    model = _linear(0)
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([100.0, 0.0]))
    pixels, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    ((direction, aims),) = class_directions(model, pixels, labels, 1)
    found = crossings(model, pixels, labels, direction, aims, bound=0.2, bisections=4)
    assert not found.crossed.any()
    assert torch.all(found.distance == 0.2)
    assert torch.all(found.other == 1)
    margins = pair_margins(found, 3, 0.2)
    assert margins[0, 1] == pytest.approx(0.2)


@given(
    margins=st.lists(st.floats(0.001, 0.5), min_size=16, max_size=16),
    available=st.lists(st.booleans(), min_size=16, max_size=16),
    total=st.integers(0, 500),
)
def test_quotas_follow_margins(margins: list[float], available: list[bool], total: int) -> None:
    distance = torch.tensor(margins, dtype=torch.float64).reshape(4, 4)
    there = torch.tensor(available).reshape(4, 4)
    quota = quotas(distance, there, total)
    possible = there & ~torch.eye(4, dtype=torch.bool)
    assert int(quota.sum()) == (total if bool(possible.any()) else 0)
    assert torch.all(quota[~possible] == 0)
    assert int(quota.min()) >= 0
    pairs = torch.nonzero(possible).tolist()
    for a in pairs:
        for b in pairs:
            if distance[tuple(a)] < distance[tuple(b)]:
                assert quota[tuple(a)] >= quota[tuple(b)] - 1
    weight = torch.where(possible, 1 / distance, 0.0)
    if total and bool(possible.any()):
        assert torch.all((quota - total * weight / weight.sum()).abs() < 1)


def test_new_samples_lie_on_segments_with_the_true_label_more_of_them_where_margins_are_small() -> None:
    data, model = toy_data(200), toy_chain()
    train(model, data, TrainingRecipe(epochs=6, batch_size=20, learning_rate=0.01))
    method = method_of(
        "feedback", ["share=2", "bound=0.5", "overshoot=0.1", "nearest=0.5", "random=0", "toward=3"]
    )
    generator = torch.Generator().manual_seed(1)
    samples = method.samples(model, data, generator)
    assert len(samples) == 400
    before = {image.tobytes(): label for image, label in zip(data.images, data.labels, strict=True)}
    assert not any(image.tobytes() in before for image in samples.images)
    found = method.measure(Network(model), data, torch.Generator().manual_seed(2))
    margins = pair_margins(found, data.classes, 0.5)
    expected = quotas(margins, torch.ones(4, 4, dtype=torch.bool), 400).sum(1)
    got = torch.bincount(torch.from_numpy(samples.labels), minlength=4)
    assert torch.equal(got, expected)
    wrong = model(torch.from_numpy(samples.images).float() / 255).argmax(1) != torch.from_numpy(
        samples.labels
    )
    # t is uniform in [0.5, 1.1], so a sixth of the samples lies beyond the boundary.
    assert 0.08 < float(wrong.float().mean()) < 0.3


@pytest.mark.parametrize("seed", [0, 1])
def test_margins_grow_after_feedback(seed: int) -> None:
    data, test, model = toy_data(200, seed), toy_data(100, seed + 10), toy_chain(seed)
    control = toy_chain(seed)
    loop = TrainingRecipe(epochs=6, batch_size=20, learning_rate=0.01, seed=seed)
    train(model, data, loop)
    control.load_state_dict(model.state_dict())
    train(control, data, loop)
    method = method_of(
        "feedback",
        ["rounds=3", "share=2", "bound=0.5", "bisections=6", "overshoot=0.3", "nearest=0.9", "random=0"],
    )

    def mean_distance(network: nn.Module) -> float:
        found = method.measure(Network(network), test, torch.Generator().manual_seed(0))
        return float(found.distance.mean())

    before = max(mean_distance(model), mean_distance(control))
    result = train(model, data, loop, method=method, test=test)
    assert mean_distance(model) > 1.03 * before
    assert result.accuracy is not None
    assert result.accuracy > 0.95
    assert [record.stage for record in result.history] == [f"round-{n}" for n in (1, 2, 3) for _ in range(6)]
    assert result.history[-1].figures["mean_distance"] > before
