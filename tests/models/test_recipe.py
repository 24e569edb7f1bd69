"""Training recipes: what is refused, and the schedules."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ohmfold.errors import RecipeError
from ohmfold.models.recipe import OPTIMIZERS, PRECISIONS, SCHEDULES, TrainingRecipe


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("epochs", True),
        ("batch_size", 0),
        ("shift", -1),
        ("seed", -1),
        ("seed", "1"),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("learning_rate", math.nan),
        ("weight_decay", -0.1),
        ("weight_clip", 1.0),
        ("weight_clip", "3"),
        ("label_smoothing", 1.0),
        ("optimizer", "lion"),
        ("schedule", "step"),
        ("precision", "float16"),
        ("flip", 1),
    ],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=rf"^{field} is {value!r}, expected"):
        TrainingRecipe(**{field: value})  # type: ignore[arg-type]


def test_recipes_are_frozen_and_become_plain_values() -> None:
    recipe = TrainingRecipe(epochs=3, weight_clip=2.5)
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 4  # type: ignore[misc]
    assert TrainingRecipe(**recipe.as_dict()) == recipe


@given(
    schedule=st.sampled_from(SCHEDULES),
    optimizer=st.sampled_from(OPTIMIZERS),
    precision=st.sampled_from(PRECISIONS),
    rate=st.floats(1e-6, 10),
    steps=st.integers(1, 300),
)
def test_rate_stays_between_zero_and_its_peak(
    schedule: str, optimizer: str, precision: str, rate: float, steps: int
) -> None:
    recipe = TrainingRecipe(schedule=schedule, optimizer=optimizer, precision=precision, learning_rate=rate)
    rates = [recipe.learning_rate_at(step, steps) for step in range(steps)]
    assert min(rates) >= 0
    assert max(rates) <= rate * (1 + 1e-12)


def test_one_cycle_is_that_of_pytorch() -> None:
    recipe = TrainingRecipe(learning_rate=0.2, schedule="one-cycle")
    # PyTorch ends its rise at pct_start * total_steps - 1, here step 30, which is 30 % of 100 intervals.
    steps = 101
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.2, total_steps=steps, pct_start=31 / steps
    )
    for step in range(steps):
        assert recipe.learning_rate_at(step, steps) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


def test_cosine_falls_from_the_peak_to_zero() -> None:
    recipe = TrainingRecipe(learning_rate=2.0, schedule="cosine")
    assert recipe.learning_rate_at(0, 11) == 2.0
    assert recipe.learning_rate_at(5, 11) == pytest.approx(1.0)
    assert recipe.learning_rate_at(10, 11) == 0.0
