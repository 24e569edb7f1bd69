"""The regression test that a hardware team keeps: float accuracy against the integer artifact's.

The figures are what the zoo's network reaches on held-out digits; a change that moves one by more than its
margin fails, upwards too, since it means that the arithmetic changed.
"""

import numpy as np
import pytest
import torch

import ohmfold
from ohmfold.models.checkpoints import load_model
from ohmfold.models.datasets import resolve_dataset

DIGITS = 2000

EXPECTED = {
    # recipe, accuracy in percent, margin in points: 0.1 are two digits of 2,000. float32 back ends add in
    # another order, which can move a calibrated scale by an ulp and with it a digit on the border; fewer bits
    # have more digits there.
    "float": (None, 99.6, 0.1),
    "8 bits": (ohmfold.Recipe(weight_bits=8), 99.55, 0.1),
    "4 bits": (ohmfold.Recipe(weight_bits=4), 99.55, 0.1),
    "3 bits": (ohmfold.Recipe(), 99.65, 0.15),
    "3 bits, mu-law on fc2": (ohmfold.Recipe(mu_law={"fc2": 255.0}), 99.6, 0.15),
    "3 bits, powers of two": (ohmfold.Recipe(scales="pow2"), 98.45, 0.3),
    "3 bits, base-2 logarithmic": (ohmfold.Recipe(levels="log2"), 99.65, 0.15),
    "2 bits": (ohmfold.Recipe(weight_bits=2), 51.3, 1.0),
    "2 bits, least squared error": (ohmfold.Recipe(weight_bits=2, step="mse"), 99.5, 0.2),
}


@pytest.fixture(scope="module")
def digits():
    """Return (calibration images, held-out images, labels); the network was trained on neither."""
    data = resolve_dataset("mnist-sample")
    order = np.random.default_rng(11).permutation(len(data))
    held_out = order[512 : 512 + DIGITS]
    return data.images[order[:512]], data.images[held_out], data.labels[held_out]


def accuracy(recipe, digits):
    calibration, images, labels = digits
    module = load_model("mnist-cnn")
    if recipe is None:
        with torch.no_grad():
            predicted = module(torch.from_numpy(images).float() / 255).argmax(dim=1).numpy()
    else:
        predicted = ohmfold.Emulator(ohmfold.compile(module, calibration, recipe)).predict(images)
    return 100 * float((predicted == labels).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_accuracy_stays_where_it_was(name, digits):
    recipe, expected, margin = EXPECTED[name]
    assert abs(accuracy(recipe, digits) - expected) <= margin + 1e-9


@pytest.mark.slow
def test_three_plain_bits_stay_within_a_point_of_float(digits):
    assert accuracy(None, digits) - accuracy(ohmfold.Recipe(), digits) <= 1.0
