"""The attack of the training loop: it stays in the ball, and climbs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from ohmfold.errors import RecipeError
from ohmfold.models.attack import Pgd


def _linear() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


@given(
    seed=st.integers(0, 1000),
    epsilon=st.floats(0.01, 0.9),
    step=st.floats(0.001, 2.0),
    steps=st.integers(1, 4),
    start=st.booleans(),
    stripes=st.sampled_from([0.0, 0.5]),
    share=st.floats(0.05, 1.0),
)
@settings(max_examples=40, deadline=None)
def test_attacked_pixels_stay_in_the_ball_and_in_range(
    seed: int, epsilon: float, step: float, steps: int, start: bool, stripes: float, share: float
) -> None:
    torch.manual_seed(seed)
    pixels, labels = torch.rand(5, 1, 6, 6), torch.randint(0, 3, (5,))
    attack = Pgd(epsilon=epsilon, step=step, steps=steps, random_start=start, stripes=stripes)
    attacked = attack(_linear(), pixels, labels, share)
    assert not attacked.requires_grad
    assert float(attacked.min()) >= 0
    assert float(attacked.max()) <= 1
    assert float((attacked - pixels).abs().max()) <= share * epsilon + 1e-6  # of sums of float32 near 1


def test_on_a_linear_network_one_step_finds_the_worst_corner() -> None:
    torch.manual_seed(1)
    model, pixels, labels = _linear(), 0.4 + 0.2 * torch.rand(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    attacked = Pgd(epsilon=0.1, step=0.2, steps=1, random_start=False)(model, pixels, labels)
    assert torch.allclose((attacked - pixels).abs(), torch.full_like(pixels, 0.1), atol=1e-6)

    def losses(x: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(model(x), labels, reduction="none").detach()

    for _ in range(50):
        corner = pixels + 0.1 * (torch.randint(0, 2, pixels.shape) * 2 - 1)
        assert torch.all(losses(corner) <= losses(attacked))


def test_more_steps_find_larger_losses_and_leave_no_gradients() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 3))
    pixels, labels = torch.rand(64, 1, 6, 6), torch.randint(0, 3, (64,))

    @torch.no_grad()
    def loss(attacked: torch.Tensor) -> float:
        return float(functional.cross_entropy(model(attacked), labels))

    found = [loss(Pgd(epsilon=0.3, step=0.05, steps=n)(model, pixels, labels)) for n in (1, 5, 20)]
    assert found == sorted(found)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_striped_starts_are_corners_of_the_ball_that_a_column_shares() -> None:
    torch.manual_seed(3)
    pixels, labels = 0.5 * torch.ones(400, 2, 6, 6), torch.zeros(400, dtype=torch.int64)
    # A network without a gradient shows where the attack starts.
    attacked = Pgd(epsilon=0.25, steps=1, stripes=0.5)(lambda x: 0 * x.flatten(1)[:, :3], pixels, labels)
    offset = attacked - pixels
    striped = (offset.abs() == 0.25).flatten(1).all(1)
    assert 140 < int(striped.sum()) < 260
    columns = offset[striped]
    assert torch.equal(columns, columns[:, :, :1, :].expand_as(columns))
    assert 0.4 < float((columns > 0).float().mean()) < 0.6
    assert float(offset[~striped].abs().max()) < 0.25


def test_probabilities_as_labels_lead_away_from_them() -> None:
    torch.manual_seed(4)
    model, pixels = _linear(), torch.rand(6, 1, 6, 6)
    likely = model(pixels).softmax(1).detach()
    attacked = Pgd(epsilon=0.1, step=0.02, steps=10)(model, pixels, likely)

    def divergence(x: torch.Tensor) -> torch.Tensor:
        return functional.kl_div(model(x).log_softmax(1), likely, reduction="none").sum(1).detach()

    corner = pixels + 0.1 * (torch.randint(0, 2, pixels.shape) * 2 - 1)
    assert torch.all(divergence(attacked) > divergence(pixels.clone()))
    assert float(divergence(attacked).mean()) > float(divergence(corner.clamp(0, 1)).mean())


@pytest.mark.parametrize(
    ("field", "value"),
    [("epsilon", 0.0), ("epsilon", 1.0), ("step", 0.0), ("steps", 0), ("stripes", -0.1), ("stripes", 1.0)],
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(RecipeError, match=rf"^{field} is"):
        Pgd(**{field: value})
