"""The statistics of the checks, against SciPy and against what they promise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from ohmfold.toolchain.analysis.intervals import wilson
from ohmfold.toolchain.attacks.masking.finding import (
    MASKED,
    TOLERATED,
    decided,
    images_needed,
    mcnemar,
)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(weaker, stronger):
    if weaker + stronger:
        expected = binomtest(weaker, weaker + stronger, 0.5, alternative="greater").pvalue
        assert mcnemar(weaker, stronger) == pytest.approx(expected, rel=1e-9)
    else:
        assert mcnemar(0, 0) == 1.0


@given(st.floats(0.01, 0.5))
def test_so_many_images_are_needed_that_none_excludes_the_share(share):
    needed = images_needed(share)
    assert wilson(0, needed)[1] <= share < wilson(0, needed - 1)[1] + 1e-12


def test_below_so_many_images_nothing_is_decided():
    assert images_needed() == 35
    for count in (0, 17, 34):
        assert decided(count, 34) == "not enough data"
    assert decided(0, 35) == "clear"
    assert decided(35, 35) == "masked"


@given(st.integers(35, 2000), st.data())
def test_a_share_is_masked_only_where_its_interval_is_beyond_what_is_tolerated(of, data):
    count = data.draw(st.integers(0, of))
    outcome, share = decided(count, of), count / of
    low = wilson(count, of)[0]
    assert (outcome == "masked") == (share >= MASKED and low >= TOLERATED)
    assert (outcome == "clear") == (share < TOLERATED or low < TOLERATED / 2)
    assert decided(count, of, worst="suspicious") == ("suspicious" if outcome == "masked" else outcome)
    if count < of:
        order = ["clear", "suspicious", "masked"]
        assert order.index(decided(count + 1, of)) >= order.index(outcome)
