"""A radius is an integer number of pixel codes, whatever way a user writes it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ohmfold.errors import RecipeError
from ohmfold.toolchain.attacks.epsilon import distances, parse_epsilon, project


@pytest.mark.parametrize(
    ("value", "codes"),
    [
        (0, 0),
        (1, 1),
        (255, 255),
        (1.0, 255),
        (0.0, 0),
        (0.1, 25),
        (0.3, 76),
        (np.int64(8), 8),
        (np.float32(0.5), 127),
        ("8", 8),
        ("0.3", 76),
        ("1.0", 255),
        ("8/255", 8),
        (" 4 / 255 ", 4),
    ],
)
def test_integers_are_codes_and_floats_are_fractions(value, codes):
    assert parse_epsilon(value) == codes


@given(st.integers(0, 255))
def test_no_code_is_lost_to_the_division(codes):
    assert parse_epsilon(codes / 255) == parse_epsilon(f"{codes}/255") == parse_epsilon(codes) == codes


@given(st.integers(0, 10_000))
def test_decimals_are_rounded_down(ten_thousandths):
    exact = Fraction(ten_thousandths, 10_000) * 255
    assert parse_epsilon(ten_thousandths / 10_000) == exact.__floor__()


@pytest.mark.parametrize(
    "value",
    [-1, 256, -0.1, 1.5, 8.0, float("nan"), float("inf"), True, None, "", "x", "8/0", "300", "nan", "-1"],
)
def test_everything_else_is_refused(value):
    with pytest.raises(RecipeError, match="expected an integer number of pixel codes"):
        parse_epsilon(value)


images = arrays.arrays(np.uint8, (3, 2, 2))


@given(arrays.arrays(np.int64, (3, 2, 2), elements=st.integers(-1000, 1000)), images, st.integers(0, 255))
def test_projection_is_the_nearest_image_of_the_ball(codes, original, radius):
    found = project(codes, original, radius, "inf")
    for wanted, centre, got in zip(codes.flat, original.flat, found.flat, strict=True):
        ball = range(max(0, int(centre) - radius), min(255, int(centre) + radius) + 1)
        assert got == min(ball, key=lambda code, wanted=wanted: abs(code - int(wanted)))


@given(images, images)
def test_distances_do_not_wrap_around(first, second):
    expected = [
        max(abs(int(a) - int(b)) for a, b in zip(x.flat, y.flat, strict=True))
        for x, y in zip(first, second, strict=True)
    ]
    assert distances(first, second, "inf").tolist() == expected
