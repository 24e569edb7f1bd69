"""Networks that are trained once for all tests of the verdict."""

import pytest
from masked_nets import trained

from ohmfold.models.datasets import resolve_dataset


@pytest.fixture(scope="session")
def digits():
    """3,000 digits to train on, and 100 others."""
    judging, rest = resolve_dataset("mnist-sample").split(100, 0)
    return rest.subset(3000, 1), judging


@pytest.fixture(scope="session")
def plain(digits):
    """A small CNN, trained as usual."""
    return trained(digits[0].images, digits[0].labels)


@pytest.fixture(scope="session")
def robust(digits):
    """The same, trained adversarially within 0.15."""
    return trained(digits[0].images, digits[0].labels, radius=0.15, epochs=6)
