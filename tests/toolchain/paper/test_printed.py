"""The paper's figures as data: every table is whole, and its figures are those that were printed."""

import numpy as np
import pytest

from ohmfold.toolchain.attacks.suite import load_suite
from ohmfold.toolchain.paper.printed import CLEAN, figure_shape, paper_tables
from ohmfold.toolchain.paper.strengths import choose, load_strengths
from ohmfold.toolchain.paper.twelve import rows

PAPER_ROWS = [row.name for row in rows() if not row.deployed]

# Read from the print, some of each table.
CELLS = [
    (1, "Orig.", "PGD", 4.38),
    (1, "Adv. (Q)", "Clean", 42.69),
    (1, "F.L.+mu (Q)", "MIM", 62.92),
    (2, "Adv.", "Normal", 77.16),
    (2, "F.L.+mu (Q)", "Uniform", 98.21),
    (3, "Orig.+mu", "FGSM (w)", 95.30),
    (3, "Adv.", "FGSM (s)", 36.80),
    (4, "Orig.", "FGSM (m)", 46.87),
    (4, "Adv.+mu (Q)", "CW-L2", 15.74),
]


def test_there_are_four_tables_of_the_twelve_models():
    tables = paper_tables()
    assert sorted(tables) == [1, 2, 3, 4]
    for table in tables.values():
        assert sorted(table.rows) == sorted(PAPER_ROWS)
        assert len(PAPER_ROWS) == 12
        values = np.array([table.rows[name] for name in PAPER_ROWS])
        assert values.shape == (12, len(table.columns))
        assert ((values > 0) & (values < 100)).all()
    assert [CLEAN in tables[n].columns for n in (1, 2, 3, 4)] == [True, False, True, False]


@pytest.mark.parametrize(("number", "row", "column", "value"), CELLS)
def test_a_printed_figure_is_where_it_was_printed(number, row, column, value):
    assert paper_tables()[number].value(row, column) == value


def test_the_tables_of_cifar10_give_the_average_that_the_paper_prints():
    """F.L.+mu (Q) over F.L. (Q), 27.84 points: the mean over all columns of Tables 3 and 4, the clean one included."""
    tables = [paper_tables()[3], paper_tables()[4]]
    better, than = ([x for t in tables for x in t.rows[row]] for row in ("F.L.+mu (Q)", "F.L. (Q)"))
    assert abs(np.mean(better) - np.mean(than) - 27.84) < 0.005


def test_an_artifact_has_no_printed_figure():
    assert paper_tables()[1].value("F.L. (Q) deployed", "PGD") is None


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_figure_has_a_shape_in_words(number):
    title, shape = figure_shape(number)
    assert title
    assert len(shape) > 40


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_column_but_the_clean_one_has_an_attack_of_the_suite(number):
    table = paper_tables()[number]
    strengths = load_strengths(table.data, table.attacker)
    assert [CLEAN, *strengths.columns] == [CLEAN, *(c for c in table.columns if c != CLEAN)]
    names = {entry.name for entry in load_suite("paper").file.attacks}
    for column, tried in strengths.columns.items():
        assert {one.entry.name for one in tried} <= names
        assert len({(one.radius, one.within) for one in tried}) == len(tried), column


def test_on_mnist_the_first_strength_is_the_suites_own():
    entries = {entry.name: entry for entry in load_suite("paper").file.attacks}
    for attacker in ("white box", "black box"):
        for tried in load_strengths("mnist", attacker).columns.values():
            own = entries[tried[0].entry.name]
            assert tried[0].entry.epsilon == own.epsilon
            assert tried[0].entry.settings == own.settings


def test_a_weaker_attack_takes_smaller_steps():
    pgd = load_strengths("mnist", "white box").columns["PGD"]
    assert [one.radius for one in pgd] == [76, 25, 38, 51]
    steps = [one.entry.settings["step_codes"] for one in pgd]
    assert steps == pytest.approx([2.55 * one.radius / 76 for one in pgd])


def test_the_own_strength_is_kept_where_it_fits():
    table, strengths = paper_tables()[1], load_strengths("mnist", "white box")
    asked = []

    def measure(row, strength):
        asked.append((row, strength.radius))
        return table.value(row, "PGD") + 4

    chosen, why = choose(table, "PGD", strengths, ("Orig.", "Adv."), measure)
    assert chosen.radius == 76
    assert asked == [("Orig.", 76), ("Adv.", 76)]
    assert "suite's own: 4.0 points" in why


def test_another_strength_is_taken_where_the_own_one_does_not_fit():
    table, strengths = paper_tables()[1], load_strengths("mnist", "white box")
    gaps = {76: 60.0, 25: 30.0, 38: 10.0, 51: 45.0}

    def measure(row, strength):
        return table.value(row, "PGD") - gaps[strength.radius]

    chosen, why = choose(table, "PGD", strengths, ("Orig.", "Adv."), measure)
    assert chosen.radius == 38
    assert "10.0 points" in why
    assert "nearest of 4" in why
    assert "own: 60.0" in why


def test_without_anything_to_hold_it_against_the_own_strength_is_taken():
    def measure(_row, _strength):
        raise AssertionError

    table, strengths = paper_tables()[1], load_strengths("mnist", "white box")
    chosen, why = choose(table, "PGD", strengths, (), measure)
    assert chosen.radius == 76
    assert "held against nothing" in why
