"""A radius is an integer number of pixel codes, whatever way a user writes it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ohmfold.errors import RecipeError
from ohmfold.toolchain.attacks.epsilon import distances, inside, parse_epsilon, project


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


class TestWithNorm2:
    @pytest.mark.parametrize(
        ("value", "codes"),
        [
            (2.0, 510.0),
            (510, 510),
            ("2.0", 510.0),
            ("510", 510),
            ("128/255", 128.0),
            (0.5, 127.5),
            (0, 0),
            (1e3, 255e3),
        ],
    )
    def test_floats_are_pixel_ranges_and_may_pass_one(self, value, codes):
        assert parse_epsilon(value, "2") == codes

    @given(st.integers(0, 3000))
    def test_no_code_is_lost_to_the_division(self, codes):
        assert parse_epsilon(codes / 255, "2") == codes

    @pytest.mark.parametrize("value", [-1, -0.1, float("inf"), float("nan"), "x", True, None])
    def test_everything_else_is_refused(self, value):
        with pytest.raises(
            RecipeError, match="expected a number of pixel codes, or, as a float, of pixel ranges"
        ):
            parse_epsilon(value, "2")

    wild = arrays.arrays(np.float64, (3, 2, 2), elements=st.floats(-600, 600, allow_nan=False))

    @given(wild, images, st.one_of(st.integers(0, 600), st.floats(0, 600)))
    def test_projection_is_inside_and_never_further_than_asked(self, codes, original, radius):
        found = project(codes, original, radius, "2")
        assert inside(found, original, radius, "2").all()
        change, wanted = found.astype(int) - original, np.clip(np.rint(codes), 0, 255).astype(int) - original
        for got, asked in zip(change, wanted, strict=True):
            assert sum(int(v) ** 2 for v in got.flat) <= Fraction(radius) ** 2
            assert np.all(np.abs(got) <= np.abs(asked))
            assert np.all(got * asked >= 0)
            if sum(int(v) ** 2 for v in asked.flat) <= Fraction(radius) ** 2:
                assert np.array_equal(got, asked)

    @settings(max_examples=40, deadline=None)
    @given(wild, images, st.integers(0, 600))
    def test_projection_stops_where_the_next_code_of_the_line_would_leave(self, codes, original, radius):
        """The slow way: the next pixel is the one whose next half-way point the line passes first."""
        found = project(codes, original, radius, "2")
        for target, centre, got in zip(codes, original, found, strict=True):
            target, centre = np.clip(target, 0, 255).ravel(), centre.astype(int).ravel()
            image, square = centre.copy(), 0
            while True:
                step = np.sign(np.rint(target).astype(int) - image)
                if not step.any():
                    break
                done = np.abs(image - centre)
                with np.errstate(divide="ignore"):
                    time = np.where(step != 0, (done + 0.5) / np.abs(target - centre), np.inf)
                pixel = int(np.argmin(time))
                square += 2 * int(done[pixel]) + 1
                if square > radius**2:
                    break
                image[pixel] += step[pixel]
            assert np.array_equal(image.reshape(got.shape), got)

    def test_small_changes_of_many_pixels_are_not_all_lost(self):
        original = np.full((1, 3, 20, 20), 100, np.uint8)
        found = project(original + 0.6, original, 30.0, "2")
        assert (found.astype(int) - original).sum() == 900

    @given(images, images)
    def test_distances_are_lengths(self, first, second):
        squares = [int(((a.astype(int) - b) ** 2).sum()) for a, b in zip(first, second, strict=True)]
        assert np.array_equal(distances(first, second, "2"), np.sqrt(squares))
        assert distances(first, second, "none").tolist() == [0.0] * 3

    def test_the_boundary_is_decided_on_integers(self):
        original = np.zeros((1, 1, 1, 2), np.uint8)
        image = original + np.array([1, 1], np.uint8)
        assert not inside(image, original, 2**0.5 - 1e-15, "2")[0]
        assert inside(image, original, 1.4142135623730951, "2")[0]
        assert not inside(image, original, 1.414213562373095, "2")[0]
        assert inside(image, original, 0, "none")[0]
