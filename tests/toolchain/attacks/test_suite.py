"""Suites are data: the shipped ones can be made, and a file of one's own is checked field by field."""

from __future__ import annotations

import pytest

from ohmfold.errors import RecipeError
from ohmfold.toolchain.attacks.suite import Suite, load_suite, suite_names, suite_of, suite_text

ONE = '[[attacks]]\nname = "a"\nattack = "pgd"\n'


@pytest.mark.parametrize("name", suite_names())
def test_every_shipped_suite_can_be_made(name):
    suites = load_suite(name).expanded()
    entries = [entry for suite in suites for entry in suite.file.attacks]
    assert entries
    for entry in entries:
        attack = entry.make()
        assert {key: getattr(attack, key) for key in entry.settings} == entry.settings


def test_the_named_suites_are_there_and_all_holds_each_of_them_once():
    names = {"paper", "standard", "adaptive", "query", "noise"}
    assert {*names, "all", "quick", "transfer"} == set(suite_names())
    expanded = [suite.name for suite in load_suite("all").expanded()]
    assert names <= set(expanded)
    assert len(set(expanded)) == len(expanded)


def test_the_papers_attacks_have_the_defaults_of_cleverhans_2_1():
    entries = {entry.name: entry for entry in load_suite("paper").file.attacks}
    assert all(entry.note for entry in entries.values())
    pgd, bim, mim = (entries[name].make() for name in ("pgd", "bim", "mim"))
    assert (pgd.steps, bim.steps, mim.steps) == (40, 10, 10)
    assert [attack.used_step(76) / 255 for attack in (pgd, bim, mim)] == pytest.approx([0.01, 0.05, 0.06])
    assert [entries[f"fgsm-{name}"].epsilon for name in ("weak", "medium", "strong")] == [0.1, 0.2, 0.3]
    nearest = entries["cw-l2"].make()
    assert (nearest.steps, nearest.search_steps, nearest.learning_rate) == (1000, 5, 5e-3)
    assert {entry.gradient for entry in entries.values()} == {"twin", "substitute", None}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("title = 3", "title: Input should be a valid string"),
        ('title = "t"', "holds no attack"),
        ('title = "t"\nspeed = 2\n' + ONE, "speed: unknown field"),
        ('title = "t"\ncascade = "yes"\n' + ONE, "cascade: Input should be a valid boolean"),
        ('title = "t"\n' + ONE + "strength = 3", r"attacks.0.strength \(a\): unknown field"),
        (
            'title = "t"\n' + ONE + "settings = { stepz = 3 }",
            r"attacks.0 \(a\): pgd: unknown setting 'stepz'",
        ),
        ('title = "t"\n' + ONE + "settings = { steps = 0 }", r"attacks.0 \(a\): pgd: steps is 0"),
        ('title = "t"\n' + ONE + "epsilon = 256", r"attacks.0 \(a\): epsilon 256"),
        ('title = "t"\n' + ONE + "epsilon = -1", "epsilon -1"),
        ('title = "t"\n' + ONE + 'source = "oracle"', r"attacks.0.source \(a\): Input should be 'twin'"),
        ('title = "t"\n' + ONE + ONE, "two attacks are called 'a'"),
        ('title = "t"\n[[attacks]]\nname = "a"\nattack = "magic"', r"\(a\): unknown attack 'magic'"),
        ('title = "t"\n[[attacks]]\nname = "A b"\nattack = "pgd"', "attacks.0.name"),
        (
            'title = "t"\n[[attacks]]\nname = "a"\nattack = "uniform-noise"\nsource = "twin"',
            "follows no gradient; leave source out",
        ),
        ("title = ", "not TOML"),
    ],
)
def test_a_wrong_field_is_named(text, says):
    with pytest.raises(RecipeError, match=f"suite mine: .*{says}"):
        Suite.from_toml(text, "mine")


def test_a_suite_of_ones_own_is_read_from_its_file_and_may_include_shipped_ones(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('title = "t"\ninclude = ["noise"]\n' + ONE)
    suite = load_suite(str(path))
    assert (suite.name, [one.name for one in suite.expanded()]) == ("mine", ["noise", "mine"])
    path.write_text('title = "t"\ninclude = ["nois"]\n')
    with pytest.raises(RecipeError, match="no suite 'nois', the nearest is 'noise'"):
        load_suite(path).expanded()


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"cannot read the suite .*none.toml: No such file"):
        load_suite(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="not UTF-8"):
        load_suite(tmp_path / "bytes.toml")
    with pytest.raises(RecipeError, match=r"expected one of adaptive, all, .*a file \(./paperr.toml\)"):
        load_suite("paperr")


def test_attacks_by_name_get_steps_where_they_have_any():
    suite = suite_of(["pgd", "fgsm"], steps=7)
    assert [entry.settings for entry in suite.file.attacks] == [{"steps": 7}, {}]
    with pytest.raises(RecipeError, match="unknown attack 'magic'"):
        suite_of(["magic"])


def test_the_norm_of_the_campaign_bounds_what_it_can():
    entries = {
        entry.attack: entry for entry in suite_of(["pgd", "uniform-noise", "gaussian-noise"]).file.attacks
    }
    assert [entries[name].make("2").norm for name in entries] == ["2", "inf", "none"]
    assert [entries[name].make("inf").norm for name in entries] == ["inf", "inf", "none"]


def test_the_text_of_a_suite_keeps_its_comments():
    assert "# Song, Fallon, Li" in suite_text("paper")
