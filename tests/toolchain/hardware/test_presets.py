"""The shipped profiles load, say where they are from, and are what their comments claim."""

import re
import tomllib

import pytest

from ohmfold.errors import HardwareError
from ohmfold.toolchain.hardware import Hardware, load_hardware, preset_names, preset_text, remarks

WIDTH = 120


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_named_after_its_file_and_states_its_source(name):
    hardware = load_hardware(name)
    assert hardware.name == name
    assert hardware.description
    assert hardware.source == "made up for tests" or re.search(r"\b(19|20)\d\d$", hardware.source)
    assert remarks(hardware) == ()


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_commented_and_fits_a_screen(name):
    lines = preset_text(name).splitlines()
    assert lines[0].startswith("# ")
    assert max(map(len, lines)) <= WIDTH


def test_the_presets_are_these():
    assert preset_names() == ("ideal", "isaac", "reram-128", "reram-irdrop", "template")


def test_the_template_has_every_field_and_a_comment_for_each():
    text = preset_text("template")
    written, whole = tomllib.loads(text), tomllib.loads(load_hardware("template").to_toml())
    assert written == whole
    for line in text.splitlines():
        if "=" in line.split("#")[0]:
            assert "# " in line


def test_ideal_and_template_have_no_flaw():
    for name in ("ideal", "template"):
        hardware = load_hardware(name)
        assert hardware.ideal_cells
        assert not hardware.noisy
        assert hardware.adc_limits(1) is None


def test_isaac_is_the_papers_tile():
    isaac = load_hardware("isaac")
    array = isaac.array
    assert (array.rows, array.columns, array.mapping, array.cell_bits) == (128, 128, "offset", 2)
    assert (isaac.dac.bits, isaac.adc.bits) == (1, 8)
    assert isaac.adc_limits(128 * 3 << isaac.cell.fraction_bits) == (0, 255, 1 << isaac.cell.fraction_bits)
    assert isaac.ideal_cells


def test_isaacs_figures_are_those_of_the_table():
    energy, area = load_hardware("isaac").energy, load_hardware("isaac").area
    assert energy.adc_pj == pytest.approx(
        16e-3 / (8 * 1.2e9) * 1e12, rel=1e-3
    )  # as many digits as are written
    assert energy.dac_pj == pytest.approx(4e-3 * 100e-9 / (8 * 128) * 1e12, rel=2e-3)
    assert energy.digital_pj == pytest.approx(0.2e-3 / (8 * 1.2e9) * 1e12, rel=1e-2)
    assert energy.cell_fj is None
    assert area.adc_um2 == pytest.approx(0.0096e6 / 8)
    assert area.dac_um2 == pytest.approx(0.00017e6 / (8 * 128), rel=1e-3)


def test_the_reram_presets_differ_by_their_wires_alone():
    flat, resistive = load_hardware("reram-128"), load_hardware("reram-irdrop")
    assert flat.slices(3) == 1
    assert flat.noisy
    assert not flat.ideal_cells
    assert not flat.wires.resistive
    assert resistive.wires.resistive
    same = {"name": flat.name, "description": flat.description}
    assert (
        resistive.with_changes(same | {"wires.row_ohm": 0.0, "wires.column_ohm": 0.0, "wires.on_ohm": None})
        == flat
    )


def test_a_file_is_loaded_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = load_hardware("isaac").with_changes({"name": "own", "adc.bits": 6})
    (tmp_path / "isaac.toml").write_text(made.to_toml(), encoding="utf-8")
    (tmp_path / "isaac").write_text(made.to_toml(), encoding="utf-8")
    for path in ("isaac.toml", "./isaac.toml", "./../" + tmp_path.name + "/isaac", tmp_path / "isaac"):
        assert load_hardware(path) == made
    assert load_hardware("isaac").adc.bits == 8


def test_a_file_that_is_wrong_is_named_with_the_field(tmp_path):
    path = tmp_path / "chip.toml"
    path.write_text("[adc]\nbits = 40\n")
    with pytest.raises(HardwareError, match=r"chip.toml: adc.bits: expected at most 16, found 40$"):
        load_hardware(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(HardwareError, match=r"cannot read the hardware profile .*chip.toml: .*utf-8"):
        load_hardware(path)


def test_names_of_nothing_are_refused(tmp_path):
    with pytest.raises(
        HardwareError, match=r"no hardware preset 'isac', the nearest is 'isaac'; expected one of"
    ):
        load_hardware("isac")
    with pytest.raises(HardwareError, match=r"or the path of a TOML file \(./chip.toml\)"):
        load_hardware("chip")
    for path in (tmp_path / "gone.toml", str(tmp_path / "gone.toml"), tmp_path, "x" * 5000 + ".toml"):
        with pytest.raises(HardwareError, match="cannot read the hardware profile"):
            load_hardware(path)
    for name in ("", ".", "../presets/isaac", "x" * 5000):
        with pytest.raises(HardwareError):
            load_hardware(name)


def test_presets_load_to_the_same_as_their_text():
    for name in preset_names():
        assert load_hardware(name) == Hardware.from_toml(preset_text(name))
