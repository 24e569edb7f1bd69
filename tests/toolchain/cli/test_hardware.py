"""`ohmfold hardware`: lists, shows and starts profiles; whatever is wrong is one line and exit code 2."""

from __future__ import annotations

import json

import pytest

from ohmfold.toolchain.hardware import Hardware, load_hardware, preset_names, preset_text


def test_list_has_a_line_for_each_preset_with_its_source(call) -> None:
    outcome = call("hardware", "list")
    assert (outcome.code, outcome.err) == (0, "")
    for name in preset_names():
        (line,) = [line for line in outcome.out.splitlines() if line.strip().startswith(f"{name} ")]
        assert load_hardware(name).source in line
        assert load_hardware(name).array.mapping in line
    assert "IR drop (1 and 1 ohm a segment, 25000 ohm a cell)" in outcome.out
    assert "2 / 1 / 8 (fixed)" in outcome.out


def test_list_as_json_says_the_same(call) -> None:
    profiles = json.loads(call("hardware", "list", "--json").out)["profiles"]
    assert [profile["name"] for profile in profiles] == list(preset_names())
    assert profiles[0]["adc_bits"] is None
    assert profiles[0]["non_idealities"] == []


@pytest.mark.parametrize("name", preset_names())
def test_show_prints_toml_that_is_the_profile(call, name: str) -> None:
    outcome = call("hardware", "show", name)
    assert (outcome.code, outcome.err) == (0, "")
    assert Hardware.from_toml(outcome.out) == load_hardware(name)
    assert json.loads(call("hardware", "show", name, "--json").out) == {
        "profile": load_hardware(name).model_dump(),
        "remarks": [],
    }


def test_show_takes_changes(call) -> None:
    changes = ["--set", "adc.bits=6", "--set", "adc.range=calibrated", "--set", "cell.on_off_ratio = 20"]
    outcome = call("hardware", "show", "isaac", *changes)
    expected = {"adc.bits": 6, "adc.range": "calibrated", "cell.on_off_ratio": 20.0}
    assert Hardware.from_toml(outcome.out) == load_hardware("isaac").with_changes(expected)
    assert call("hardware", "show", "isaac", "--set", "adc.bits=none").out.count('bits = "none"') == 1


def test_show_says_what_rounding_hides_and_stays_toml(call) -> None:
    outcome = call("hardware", "show", "ideal", "--set", "cell.on_off_ratio=2000")
    assert outcome.out.splitlines()[-1].startswith("# cell.on_off_ratio: level 0 conducts 0.0015 of a level")
    assert Hardware.from_toml(outcome.out).cell.on_off_ratio == 2000


def test_show_takes_a_file(call, tmp_path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\nsource = "mine"\n[dac]\nbits = 4\n')
    assert Hardware.from_toml(call("hardware", "show", path).out).dac.bits == 4


@pytest.mark.parametrize("preset", [None, *preset_names()])
def test_new_writes_a_copy_with_comments_under_its_own_name(call, tmp_path, preset: str | None) -> None:
    path = tmp_path / "my chip.toml"
    outcome = call("hardware", "new", path, *(["--from", preset] if preset else []))
    assert (outcome.code, outcome.err) == (0, "")
    source = preset or "template"
    ours, theirs = path.read_text().splitlines(), preset_text(source).splitlines()
    (changed,) = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    assert changed[0].startswith('name = "my chip"')
    assert load_hardware(path) == load_hardware(source).with_changes({"name": "my chip"})


def test_new_never_overwrites(call, tmp_path) -> None:
    path = tmp_path / "own.toml"
    path.write_text("precious")
    outcome = call("hardware", "new", path)
    assert outcome.code == 2
    assert outcome.err == f"error: cannot write {path}: it exists, expected the name of a new file\n"
    assert path.read_text() == "precious"


BAD = {
    "unknown preset": ("show isac", "the nearest is 'isaac'"),
    "missing file": ("show {folder}/gone.toml", "gone.toml: No such file"),
    "a folder": ("show {folder}", "Is a directory"),
    "wrong value in a file": ("show {wrong}", "wrong.toml: adc.bits: expected at most 16, found 40"),
    "wrong field in a file": ("show {misspelled}", "misspelled.toml: adc.bit: unknown field"),
    "wrong field": ("show ideal --set adc.bit=6", "adc.bit: unknown field, the nearest is 'adc.bits'"),
    "wrong value": ("show ideal --set adc.bits=17", "adc.bits: expected at most 16, found 17"),
    "wrong type": ("show ideal --set adc.bits=six", "adc.bits: expected a valid integer, found 'six'"),
    "not a number": ("show ideal --set read.noise=nan", "read.noise: expected a finite number, found nan"),
    "no value": ("show ideal --set adc.bits", "expected a change like adc.bits=6"),
    "a group": ("show ideal --set adc=6", "adc.bits"),
    "twice": ("show ideal --set adc.bits=6 --set adc.bits=7", "given twice"),
    "new from an unknown preset": ("new {folder}/new.toml --from isac", "the nearest is 'isaac'"),
    "new into a missing folder": ("new {folder}/gone/new.toml", "gone"),
    "new over a folder": ("new {folder}", "folder"),
    "unknown option": ("list --fast", "--fast"),
    "unknown command": ("sow", "No such command 'sow'"),
    "missing name": ("show", "NAME"),
    "missing file name": ("new", "FILE.toml"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_exit_code_2_and_no_file(case: str, call, tmp_path) -> None:
    (tmp_path / "wrong.toml").write_text('name = "x"\nsource = "x"\n[adc]\nbits = 40\n')
    (tmp_path / "misspelled.toml").write_text('name = "x"\nsource = "x"\n[adc]\nbit = 4\n')
    command, mentions = BAD[case]
    for name in ("wrong", "misspelled"):
        command = command.replace(f"{{{name}}}", str(tmp_path / f"{name}.toml"))
    before = sorted(tmp_path.iterdir())
    outcome = call("hardware", *command.replace("{folder}", str(tmp_path)).split())
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1
    assert mentions in outcome.err
    assert outcome.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_name_that_is_no_name_of_a_profile_is_refused(call, tmp_path) -> None:
    outcome = call("hardware", "new", tmp_path / "two\nlines.toml")
    assert outcome.code == 2
    assert outcome.err.startswith("error: name: expected one line of printable text")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["list", "show", "new", "Profiles of crossbar accelerators"]),
        (["list"], ["List the profiles", "--json"]),
        (["show"], ["every field with its value", "--set", "FIELD=VALUE", "adc.bits=6", "--json"]),
        (["new"], ["copy of a preset", "--from", "must not exist", "template"]),
    ],
)
def test_the_help_names_what_there_is(call, arguments: list[str], words: list[str]) -> None:
    outcome = call("hardware", *arguments, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.replace("│", " ").split())
    assert all(word in text for word in words)


def test_without_a_command_the_help_is_printed(call) -> None:
    outcome = call("hardware")
    assert outcome.code == 2
    assert "Usage" in outcome.out + outcome.err
