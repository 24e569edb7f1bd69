"""A profile survives TOML, refuses what is senseless by the field's path, and counts as its docstrings say."""

import tomllib
from itertools import product

import numpy as np
import pytest
from hardware_profiles import hardwares
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.errors import HardwareError
from ohmfold.toolchain.hardware import (
    Adc,
    Array,
    Hardware,
    load_hardware,
    non_idealities,
    parse_changes,
    remarks,
)

NAMED = {"name": "chip", "source": "made up for tests"}


def leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def chip(**changes):
    """An ideal profile with changes, written with two underscores for a dot."""
    return Hardware(**NAMED).with_changes({name.replace("__", "."): value for name, value in changes.items()})


@settings(max_examples=200)
@given(hardwares())
def test_toml_round_trip_keeps_every_field(hardware):
    text = hardware.to_toml()
    assert Hardware.from_toml(text) == hardware
    assert Hardware.from_toml(text).to_toml() == text


@given(hardwares())
def test_toml_text_has_every_field_and_json_can_hold_them(hardware):
    assert list(leaves(tomllib.loads(hardware.to_toml()))) == list(leaves(hardware.model_dump()))
    assert Hardware(**hardware.model_dump(mode="json")) == hardware


@given(hardwares(), hardwares())
def test_changing_every_field_gives_the_other_profile(one, other):
    values = {}
    for path in leaves(other.model_dump()):
        value = other
        for part in path.split("."):
            value = getattr(value, part)
        values[path] = value
    assert one.with_changes(values) == other
    assert one.with_changes({}) == one


@given(hardwares())
def test_changes_written_as_text_are_read_back(hardware):
    flat = {}
    for path in leaves(hardware.model_dump()):
        value = hardware
        for part in path.split("."):
            value = getattr(value, part)
        flat[path] = "none" if value is None else str(value)
    texts = [f"{path}={value}" for path, value in flat.items()]
    assert Hardware(**NAMED).with_changes(parse_changes(Hardware, texts)) == hardware


def test_fields_left_out_have_their_defaults_and_whole_numbers_do_for_real_ones():
    hardware = Hardware.from_toml('name = "chip"\nsource = "made up"\n[read]\nnoise = 1\n')
    assert (hardware.array, hardware.adc, hardware.read.noise) == (Array(), Adc(), 1.0)


BAD = {
    "array.rows": [0, -1, 4097, 1.0, True, "128", None],
    "array.columns": [0, 4097, 1.5],
    "array.mapping": ["pair", 1, None],
    "array.cell_bits": [0, 5],
    "dac.bits": [0, 9],
    "adc.bits": [0, 17, 8.0, "8", True],
    "adc.range": ["half", None],
    "adc.low": [0.0, "low"],
    "adc.high": [255.0],
    "adc.percentile": [99.9],
    "adc.step": [0.0, -1.0, 0.1, 2.0**-9, float("inf")],
    "cell.fraction_bits": [-1, 11],
    "cell.on_off_ratio": [1.0, 0.5, -3.0, float("inf"), float("nan")],
    "cell.programming.kind": ["gaussian", None],
    "cell.programming.sigma": [-0.1, 0.1, 17.0, float("nan")],
    "cell.stuck.on_rate": [-0.1, 1.1, float("nan")],
    "cell.stuck.off_rate": [-0.1, 1.1],
    "cell.drift.time_s": [0.0, -1.0, 0.5, float("inf")],
    "cell.drift.reference_time_s": [0.0, -1.0],
    "cell.drift.exponent": [-0.1, 11.0],
    "wires.row_ohm": [-1.0, float("nan"), "1"],
    "wires.column_ohm": [-1.0],
    "wires.on_ohm": [0.0, -5.0],
    "read.noise": [-0.1, 17.0],
    "read.noise_relative": [-0.1, float("inf")],
    "energy.adc_pj": [-1.0],
    "energy.dac_pj": ["much"],
    "energy.cell_fj": [-1.0],
    "energy.digital_pj": [-1.0],
    "energy.source": [3, "two\nlines", None],
    "area.adc_um2": [-1.0],
    "area.cell_um2": [-1.0],
    "area.dac_um2": [-1.0],
    "area.source": [3],
    "name": ["", " chip", "two\nlines", 7, None],
    "source": ["", None],
    "description": ["two\nlines", None],
}


def test_every_field_has_a_bad_value():
    assert set(BAD) == set(leaves(Hardware(**NAMED).model_dump()))


@pytest.mark.parametrize(("path", "value"), [(path, value) for path in BAD for value in BAD[path]])
def test_a_bad_value_is_one_line_that_names_the_field_and_both_values(path, value):
    with pytest.raises(HardwareError) as refused:
        Hardware(**NAMED).with_changes({"adc.bits": 8} | {path: value})
    message = str(refused.value)
    assert message.startswith(f"{path}: expected ")
    assert "found " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"cell.stuck.on_rate": 0.6, "cell.stuck.off_rate": 0.5},
            "cell.stuck.off_rate: expected at most 1 tog",
        ),
        ({"cell.drift.reference_time_s": 60.0}, "cell.drift.time_s: expected at least reference_time_s (60)"),
        ({"wires.row_ohm": 1.0}, "wires.on_ohm: expected the ohms of a cell"),
        ({"wires.column_ohm": 1.0}, "wires.on_ohm: expected the ohms of a cell"),
        ({"adc.range": "fixed"}, "adc.low: expected a number with range 'fixed', found none"),
        (
            {"adc.range": "fixed", "adc.low": 0.0},
            "adc.high: expected a number with range 'fixed', found none",
        ),
        (
            {"adc.range": "fixed", "adc.low": 3.0, "adc.high": 3.0},
            "adc.high: expected more than low (3), found 3",
        ),
        ({"adc.range": "fixed", "adc.low": -1e10, "adc.high": 0.0}, "adc.low: expected at least -2147483648"),
        (
            {"adc.bits": 4, "adc.range": "fixed", "adc.low": 0.0, "adc.high": 15.5, "adc.step": 0.5},
            "adc.step: expected at most 16 codes of 4 bits from low to high, found 0.5, which makes 32",
        ),
        (
            {"adc.bits": 4, "adc.range": "fixed", "adc.low": 0.0, "adc.high": 2.0, "adc.step": 8.0},
            "adc.high: expected a range of two codes or more from low (0), a code being 8 levels, found 2",
        ),
        (
            {"adc.range": "calibrated", "adc.percentile": 49.0},
            "adc.percentile: expected at least 50, found 49",
        ),
        ({"adc.range": "calibrated", "adc.step": 1.0}, "adc.step: expected none with range 'calibrated'"),
        (
            {"adc.range": "calibrated", "adc.low": 1.0},
            "adc.low: expected none with range 'calibrated', found 1",
        ),
        (
            {"adc.bits": 1},
            "adc.bits: expected at least 2 for the signed sums of mapping 'differential', found 1",
        ),
        (
            {"adc.bits": 8, "adc.step": 0.5, "cell.fraction_bits": 0},
            "adc.step: expected a multiple of 1 of a lev",
        ),
        ({"array.columns": 1}, "array.columns: expected at least 2 with mapping 'differential', found 1"),
        ({"energy.cell_fj": 1.0}, "energy.source: expected where the figures are from"),
        ({"area.cell_um2": 1.0, "area.source": " "}, "area.source: expected where the figures are from"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes, words):
    with pytest.raises(HardwareError) as refused:
        Hardware(**NAMED).with_changes(changes)
    assert str(refused.value).startswith(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows = = 3", "not TOML"),
        ("a = " + "9" * 5000, "not TOML"),
        ("name = 'chip'", "source: missing"),
        ("[adc]\nbit = 8", "adc.bit: unknown field, the nearest there is 'bits'"),
        ("[cell.stuk]\non_rate = 0.1", "cell.stuk: unknown field, the nearest there is 'stuck'"),
        (
            "name = 'chip'\nsource = 'x'\nbits = 3",
            "bits: unknown field, the nearest there is 'dac.bits' or 'adc.bits'",
        ),
        ("name = 'chip'\nsource = 'x'\nself = 3", "self: unknown field"),
        ("name = 'chip'\nsource = 'x'\nadc = 8", "adc: expected a table of fields, found 8"),
        ("[cell]\nstuck = 1979-05-27", "cell.stuck: expected a table of fields, found "),
        ("[array]\nrows = 0\ncolumns = 0", "array.rows: expected at least 1, found 0 (and 1 more)"),
        (f"[array]\nrows = {10**400}", "array.rows: expected at most 4096, found 1"),
    ],
)
def test_text_that_is_no_profile_is_refused(text, words):
    with pytest.raises(HardwareError) as refused:
        Hardware.from_toml(text)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 200


def test_a_group_made_by_hand_is_checked_like_one_in_a_file():
    with pytest.raises(HardwareError, match=r"^rows: expected at least 1, found 0$"):
        Array(rows=0)
    assert Hardware(**NAMED, array=Array(rows=64)) == chip(array__rows=64)


def test_a_profile_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Hardware(**NAMED).name = "other"
    with pytest.raises(ValueError, match="frozen"):
        Hardware(**NAMED).array.rows = 3


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("adc.bit", "adc.bit: unknown field, the nearest is 'adc.bits'"),
        ("bits", "bits: unknown field, the nearest is 'dac.bits' or 'adc.bits'"),
        ("cell.sigma", "cell.sigma: unknown field, the nearest is 'cell.programming.sigma'"),
        (
            "cell.stuck",
            "cell.stuck: expected one field of this group: cell.stuck.on_rate, cell.stuck.off_rate",
        ),
        ("frobnication", "frobnication: unknown field; `ohmfold hardware show ideal` prints them all"),
        ("", ": unknown field"),
    ],
)
def test_a_change_of_a_field_that_is_not_there_names_the_nearest(path, words):
    with pytest.raises(HardwareError) as refused:
        Hardware(**NAMED).with_changes({path: 3})
    assert str(refused.value).startswith(words)


def test_a_change_of_range_drops_what_belonged_to_the_old_one():
    isaac = load_hardware("isaac")
    assert isaac.with_changes({"adc.range": "full"}).adc == Adc(bits=8)
    assert isaac.with_changes({"adc.range": "calibrated"}).adc.percentile == 99.9
    assert isaac.with_changes({"adc.range": "full", "adc.step": 2.0}).adc == Adc(bits=8, step=2.0)
    assert isaac.with_changes({"adc.range": "fixed"}) == isaac
    assert isaac.with_changes({"adc.bits": "none"}).adc.low == 0


def test_a_change_to_no_programming_error_drops_its_sigma():
    flawed = chip(cell__programming__kind="relative", cell__programming__sigma=0.1)
    assert flawed.with_changes({"cell.programming.kind": "none"}) == chip()
    with pytest.raises(HardwareError, match=r"cell\.programming\.sigma: expected 0"):
        flawed.with_changes({"cell.programming.kind": "none", "cell.programming.sigma": 0.1})


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["adc.bits"], "expected a change like adc.bits=6, found 'adc.bits'"),
        (["adc.bits=6", "adc.bits = 7"], "adc.bits: given twice, as 6 and as 7"),
        (["adc.bit=6"], "adc.bit: unknown field, the nearest is 'adc.bits'"),
    ],
)
def test_a_text_that_is_no_change_is_refused(texts, words):
    with pytest.raises(HardwareError) as refused:
        parse_changes(Hardware, texts)
    assert str(refused.value) == words


def test_text_is_read_in_the_type_of_its_field():
    texts = ["adc.bits=6", "read.noise=1", "adc.low=none", "name=6", "adc.range = full", "array.rows=2.5"]
    assert parse_changes(Hardware, texts) == {
        "adc.bits": 6,
        "read.noise": 1.0,
        "adc.low": "none",
        "name": "6",
        "adc.range": "full",
        "array.rows": "2.5",
    }


@given(hardwares(), st.integers(1, 9))
def test_slices_hold_every_code_of_the_weight_range(hardware, bits):
    low, high = hardware.weight_range(bits)
    cells = 2**hardware.array.cell_bits
    room = cells ** hardware.slices(bits) - 1  # the largest number that the slices can spell
    stored = max(-low, high) if hardware.signed else high - low
    assert stored <= room
    assert hardware.slices(bits) == 1 or stored > cells ** (hardware.slices(bits) - 1) - 1


def test_weight_ranges_and_slices_of_common_widths():
    differential, offset = chip(), chip(array__mapping="offset")
    assert [differential.weight_range(b) for b in (1, 2, 3, 8)] == [(-1, 1), (-1, 1), (-3, 3), (-127, 127)]
    assert [offset.weight_range(b) for b in (1, 2, 3, 8)] == [(-2, 1), (-2, 1), (-4, 3), (-128, 127)]
    assert [differential.slices(b) for b in (1, 2, 3, 4, 8)] == [1, 1, 1, 2, 4]
    assert [offset.slices(b) for b in (1, 2, 3, 4, 8)] == [1, 1, 2, 2, 4]
    for bits in (0, 10):
        with pytest.raises(HardwareError, match="weight bits: expected 1 to 9"):
            differential.slices(bits)


@pytest.mark.parametrize(
    ("mapping", "codes", "bits"),
    [
        ("differential", (-3, 3), 3),
        ("differential", (-4, 3), 4),
        ("offset", (-4, 3), 3),
        ("offset", (-1, 1), 2 - 1),
        ("differential", (-64, 64), 8),
        ("differential", (-255, 255), 9),
    ],
)
def test_codes_find_the_width_that_holds_them(mapping, codes, bits):
    assert chip(array__mapping=mapping).weight_bits(*codes) == bits


def test_codes_that_no_width_holds_are_refused():
    with pytest.raises(
        HardwareError, match=r"^array\.mapping: 'differential' holds .* -255 to 255, found -256 to 3$"
    ):
        chip().weight_bits(-256, 3)


@pytest.mark.parametrize(("bits", "digits"), [(1, 8), (2, 4), (3, 3), (4, 2), (5, 2), (7, 2), (8, 1)])
def test_an_input_takes_as_many_passes_as_it_has_digits(bits, digits):
    assert chip(dac__bits=bits).digits == digits


FLAWS = [
    {"cell.on_off_ratio": 100.0},
    {"cell.programming.kind": "relative", "cell.programming.sigma": 0.1},
    {"cell.stuck.on_rate": 0.1},
    {"cell.stuck.off_rate": 0.1},
    {"cell.drift.exponent": 0.1, "cell.drift.time_s": 60.0},
    {"wires.row_ohm": 1.0, "wires.on_ohm": 1e4},
    {"wires.column_ohm": 1.0, "wires.on_ohm": 1e4},
]


@pytest.mark.parametrize("flaw", FLAWS, ids=lambda flaw: next(iter(flaw)))
def test_each_flaw_is_told(flaw):
    flawed = Hardware(**NAMED).with_changes(flaw)
    assert not flawed.ideal_cells
    assert not flawed.noisy
    assert len(non_idealities(flawed)) == 1


def test_read_noise_is_not_a_flaw_of_cells():
    for path in ("read.noise", "read.noise_relative"):
        noisy = Hardware(**NAMED).with_changes({path: 0.1})
        assert noisy.noisy
        assert noisy.ideal_cells
        assert len(non_idealities(noisy)) == 1


def test_settings_without_an_effect_are_no_flaws():
    idle = chip(cell__drift__exponent=0.1, cell__programming__kind="lognormal", wires__on_ohm=1e4)
    assert idle.ideal_cells
    assert non_idealities(idle) == ()


@given(st.integers(1, 16), st.booleans(), st.integers(0, 2**40), st.integers(0, 10))
def test_a_full_range_clips_nothing_and_half_its_step_would(bits, signed, largest, fraction_bits):
    bits = max(bits, 2) if signed else bits
    mapping = "differential" if signed else "offset"
    hardware = chip(adc__bits=bits, array__mapping=mapping, cell__fraction_bits=fraction_bits)
    low, high, step = hardware.adc_limits(largest)
    assert (low, high) == ((-(2**bits) // 2, 2**bits // 2 - 1) if signed else (0, 2**bits - 1))
    assert step & (step - 1) == 0
    sums = np.array([-largest, largest] if signed else [0, largest], dtype=np.float64)
    assert all((low <= np.rint(sums / step)) & (np.rint(sums / step) <= high))
    assert step == 1 or np.rint(largest / (step / 2)) > high


def test_a_full_range_in_levels():
    largest = 128 * 3  # 128 rows of cells at level 3, inputs of one bit
    tile = chip(adc__bits=8, cell__fraction_bits=0)
    assert tile.adc_limits(largest) == (-128, 127, 4)
    assert tile.with_changes({"adc.bits": 10}).adc_limits(largest) == (-512, 511, 1)
    assert tile.with_changes({"adc.bits": 16}).adc_limits(largest).step == 1  # never below a unit
    fine = tile.with_changes({"cell.fraction_bits": 4})
    assert fine.adc_limits(largest * 16).step == 4 * 16
    assert fine.with_changes({"adc.bits": 12}).adc_limits(largest * 16).step == 4  # a quarter of a level
    assert tile.with_changes({"array.mapping": "offset"}).adc_limits(largest) == (0, 255, 2)


def test_a_step_that_is_given_is_kept():
    assert chip(adc__bits=8, adc__step=0.5).adc_limits(10**6) == (-128, 127, 128)
    low, high, step = chip(
        adc__bits=8, adc__range="fixed", adc__low=-10.0, adc__high=10.0, adc__step=2.0
    )._fixed(8)
    assert (low, high, step) == (-5, 5, 2 * 256)


@given(st.integers(2, 16), st.integers(-(10**6), 10**6), st.integers(1, 10**6), st.integers(0, 10))
def test_a_window_has_the_codes_nearest_to_its_limits(bits, low, width, fraction_bits):
    unit = 2.0**-fraction_bits
    fixed = chip(
        adc__bits=bits,
        adc__range="fixed",
        adc__low=low * unit,
        adc__high=(low + width) * unit,
        cell__fraction_bits=fraction_bits,
    )
    first, last, step = fixed.adc_limits(0)
    assert fixed.adc_window(low, low + width) == (first, last, step)
    assert 2 <= last - first + 1 <= 2**bits
    assert step == np.ceil(width / (2**bits - 1))
    assert abs(first * step - low) <= step / 2
    assert abs(last * step - (low + width)) <= step


def test_a_constant_column_makes_a_window_of_one_code():
    assert chip(adc__bits=4, adc__range="calibrated").adc_window(17, 17) == (17, 17, 1)


def test_an_ideal_converter_has_no_limits():
    for kind, limits in product(("full", "calibrated", "fixed"), [(0, 384)]):
        fixed = {"adc__low": 0.0, "adc__high": 1.0} if kind == "fixed" else {}
        assert chip(adc__range=kind, **fixed).adc_limits(384) is None
        assert chip(adc__range=kind, **fixed).adc_window(*limits) is None


def test_limits_that_cannot_be_had_are_refused():
    with pytest.raises(HardwareError, match=r"adc\.range: 'calibrated' has limits only after calibration"):
        chip(adc__bits=8, adc__range="calibrated").adc_limits(384)
    with pytest.raises(HardwareError, match="expected at least 0, found -1"):
        chip(adc__bits=8).adc_limits(-1)
    with pytest.raises(HardwareError, match="expected low to be at most high, found 3 and 2"):
        chip(adc__bits=8).adc_window(3, 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cell.on_off_ratio": 1000.0}, "cell.on_off_ratio: level 0 conducts 0.003 of a level"),
        (
            {"cell.programming.kind": "relative", "cell.programming.sigma": 0.01},
            "cell.programming.sigma: at the",
        ),
        ({"cell.drift.exponent": 1e-3, "cell.drift.time_s": 60.0}, "cell.drift: the highest level loses"),
    ],
)
def test_what_rounding_hides_is_told(changes, words):
    coarse = Hardware(**NAMED).with_changes(changes | {"cell.fraction_bits": 3})
    (remark,) = remarks(coarse)
    assert remark.startswith(words)
    enough = int(remark.rpartition("; ")[2].split()[0])
    assert remarks(coarse.with_changes({"cell.fraction_bits": enough})) == ()
    assert len(remarks(coarse.with_changes({"cell.fraction_bits": enough - 1}))) == 1


def test_a_flaw_that_no_width_shows_is_told_too():
    (remark,) = remarks(chip(cell__on_off_ratio=1e9))
    assert remark.endswith("; no width shows it")


@given(hardwares())
def test_every_profile_can_be_put_in_words(hardware):
    words = non_idealities(hardware)
    assert bool(words) == (hardware.noisy or not hardware.ideal_cells)
    assert all("\n" not in text for text in (*words, *remarks(hardware)))
