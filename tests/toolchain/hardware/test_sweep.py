"""A sweep: values in the type of their field, in the order given, or one error that names the field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmfold.errors import HardwareError
from ohmfold.toolchain.hardware import Sweep, load_hardware, parse_sweep, shown

IDEAL = load_hardware("ideal")


@pytest.mark.parametrize(
    ("text", "field", "values"),
    [
        ("adc.bits=4..8", "adc.bits", (4, 5, 6, 7, 8)),
        ("adc.bits = 8, none,4", "adc.bits", (8, None, 4)),
        ("adc.bits=6", "adc.bits", (6,)),
        ("read.noise=0..2", "read.noise", (0.0, 1.0, 2.0)),
        ("cell.programming.sigma=0,0.05,1e-1", "cell.programming.sigma", (0.0, 0.05, 0.1)),
        ("adc.low=-3..-1", "adc.low", (-3.0, -2.0, -1.0)),
        ("array.mapping=offset,differential", "array.mapping", ("offset", "differential")),
    ],
)
def test_values_have_the_type_of_their_field(text, field, values):
    sweep = parse_sweep(text)
    assert (sweep.field, sweep.values) == (field, values)
    assert [type(value) for value in sweep.values] == [type(value) for value in values]


@given(st.lists(st.floats(0, 16), min_size=1, max_size=8, unique=True))
def test_profiles_have_the_values_in_their_order(values):
    sweep = parse_sweep(f"read.noise={','.join(map(repr, values))}")
    profiles = sweep.profiles(IDEAL)
    assert [profile.read.noise for profile in profiles] == values
    assert all(profile.with_changes({"read.noise": 0.0}) == IDEAL for profile in profiles)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adc.bits", "expected a sweep like adc.bits=4..8"),
        ("adc.bit=4..8", "adc.bit: unknown field, the nearest is 'adc.bits'"),
        ("adc=4..8", "adc: expected one field of this group: adc.bits"),
        ("=1,2", "unknown field"),
        ("adc.bits=8..4", "adc.bits: expected a range upwards of at most 1000 values, like 4..8, found '8..4'"),
        ("wires.on_ohm=1..999999999", "at most 1000 values"),
        ("adc.bits=4,5,4", "adc.bits: the sweep takes 4 twice"),
        ("read.noise=0,0.0", "read.noise: the sweep takes 0 twice"),
        ("adc.bits=none,none", "adc.bits: the sweep takes none twice"),
    ],
)  # fmt: skip
def test_what_is_no_sweep_is_refused(text, words):
    with pytest.raises(HardwareError) as caught:
        parse_sweep(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adc.bits=4,six", "adc.bits: expected a valid integer, found 'six'"),
        ("adc.bits=4,,5", "adc.bits: expected a valid integer, found ''"),
        ("adc.bits=4...8", "adc.bits: expected a valid integer, found '4...8'"),
        ("adc.bits=14..17", "adc.bits: expected at most 16, found 17"),
        ("cell.programming.sigma=0,0.1", "cell.programming.sigma: expected 0 with kind 'none', found 0.1"),
    ],
)
def test_a_wrong_value_is_the_profiles_own_error(text, words):
    with pytest.raises(HardwareError) as caught:
        parse_sweep(text).profiles(IDEAL)
    assert words in str(caught.value)


def test_a_sweep_without_values_is_refused():
    with pytest.raises(HardwareError, match="at least one value"):
        Sweep("adc.bits", ())


@pytest.mark.parametrize(
    ("value", "text"), [(None, "none"), (4, "4"), (0.05, "0.05"), (2.0, "2"), ("full", "full")]
)
def test_values_are_shown_as_the_command_line_takes_them(value, text):
    assert shown(value) == text
