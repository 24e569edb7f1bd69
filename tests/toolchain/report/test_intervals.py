import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmfold.errors import DataError
from ohmfold.toolchain.analysis.intervals import wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, Table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_the_published_ones(correct, n, low, high):
    assert tuple(round(end, 4) for end in wilson(correct, n)) == (low, high)


counts = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_each_end_is_a_share_that_the_score_test_just_accepts(pair, confidence):
    correct, n = pair
    z = {0.5: 0.6744897502, 0.9: 1.6448536270, 0.95: 1.9599639845, 0.999: 3.2905267315}[confidence]
    low, high = wilson(correct, n, confidence)
    assert 0 <= low <= correct / n <= high <= 1
    for end, sign in ((low, 1), (high, -1)):
        if 0 < end < 1:
            score = sign * (correct / n - end) / math.sqrt(end * (1 - end) / n)
            assert score == pytest.approx(z, rel=1e-5)


@given(counts)
def test_right_and_wrong_mirror_each_other(pair):
    correct, n = pair
    low, high = wilson(correct, n)
    assert wilson(n - correct, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_of_no_images_nothing_is_known():
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "n"), [(-1, 3), (4, 3), (1, 0)])
def test_impossible_counts_are_refused(correct, n):
    with pytest.raises(DataError, match="expected a count from 0"):
        wilson(correct, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_impossible_confidences_are_refused(confidence):
    with pytest.raises(DataError, match="between 0 and 1"):
        wilson(1, 2, confidence)
