"""Batches are as large as memory allows, by what the graph of an image holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from attack_models import SHAPE, float_model, linear_program
from torch import nn

from ohmfold.errors import DataError
from ohmfold.toolchain.attacks import batch_size_for
from ohmfold.toolchain.attacks.memory import LARGEST_BATCH
from ohmfold.toolchain.twin import Twin


def test_an_image_is_counted_without_the_weights():
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(36, 100_000))

        def forward(self, pixels):
            # The graph holds what tanh returns, and the weights: 400,000 bytes an image, 14.4 million in all.
            return (pixels.flatten(1) @ self.weight).tanh()[:, :10]

    assert batch_size_for(Wide(), SHAPE, 20_000_000) == 10
    assert batch_size_for(Wide(), SHAPE, 1_250_000) == 1
    assert batch_size_for(Wide(), SHAPE, 1) == 1


def test_a_larger_budget_never_makes_a_smaller_batch():
    weight = np.random.default_rng(0).integers(-3, 4, (36, 5)).astype(np.int8)
    for source in (float_model(), Twin(linear_program(weight)), lambda pixels: pixels.flatten(1).exp()):
        sizes = [batch_size_for(source, SHAPE, budget) for budget in (1, 10_000, 100_000, 10**9)]
        assert sizes == sorted(sizes)
        assert sizes[0] == 1
        assert sizes[-1] == LARGEST_BATCH


def test_nothing_is_left_behind_and_no_source_means_no_limit():
    model = float_model().train()
    generator = torch.get_rng_state()
    batch_size_for(model, SHAPE, 10_000)
    assert model.training
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert batch_size_for(None, SHAPE, 1) == LARGEST_BATCH
    with pytest.raises(DataError, match="budget_bytes: found 0"):
        batch_size_for(model, SHAPE, 0)
