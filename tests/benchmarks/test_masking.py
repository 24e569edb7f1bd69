"""The benchmark of the traps: it scales logits as it says, and each promise that fails is found."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ohmfold.benchmarks import masking
from ohmfold.models.registry import ZOO

PLAIN = ZOO / "mnist-cnn.safetensors"
ROWS = [
    masking.Row("plain", 1.0, 0.4, 0.30, None, "trustworthy", ()),
    masking.Row("logits x 30", 1.0, 1.0, 0.31, None, "masked", ("gradients vanish",)),
    masking.Row("mu-law on fc2", 1.0, 0.8, 0.32, 0.31, "masked", ("gradients vanish",)),
    masking.Row("adversarially trained", 0.99, 0.99, 0.98, None, "trustworthy", ()),
]


def test_logits_are_multiplied_and_nothing_else():
    pixels = torch.from_numpy(np.random.default_rng(0).random((3, 1, 28, 28), np.float32))
    with torch.no_grad():
        plain, scaled = masking.network(PLAIN)(pixels), masking.network(PLAIN, 32.0)(pixels)
    assert torch.equal(scaled, 32.0 * plain)  # a power of two rounds nothing


def test_all_promises_hold_for_rows_that_keep_them():
    assert set(masking._caught(ROWS).values()) == {True}


@pytest.mark.parametrize(
    ("row", "change", "promise"),
    [
        (0, {"verdict": "masked"}, "plain: trustworthy"),
        (1, {"verdict": "trustworthy"}, "logits x 30: masked"),
        (1, {"verdict": "inconclusive"}, "logits x 30: masked"),
        (1, {"adaptive": 0.33}, "logits x 30: adaptive within 2 points of the plain network's"),
        (1, {"adaptive": 0.27}, "logits x 30: adaptive within 2 points of the plain network's"),
        (2, {"adaptive": 0.35}, "mu-law on fc2: adaptive within 3 points of parent and margin"),
        (3, {"verdict": "inconclusive"}, "adversarially trained: trustworthy"),
    ],
)
def test_a_broken_promise_is_found(row, change, promise):
    rows = [replace(one, **change) if place == row else one for place, one in enumerate(ROWS)]
    assert [name for name, holds in masking._caught(rows).items() if not holds] == [promise]
