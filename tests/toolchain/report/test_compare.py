"""Two runs side by side: what differs is listed, what chance explains is told apart, and what is the same is not."""

from __future__ import annotations

import json
import shutil

import pytest

from ohmfold.toolchain.report.compare import comparisons, difference_interval
from ohmfold.toolchain.report.sources import read_evidence


def changed(run, tmp_path, change):
    """A copy of a run whose record was changed."""
    folder = tmp_path / "other"
    shutil.copytree(run, folder)
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def compared(*paths):
    (found,) = comparisons(read_evidence(paths))
    return {(row.part, row.name): row for row in found.changes}, found


def test_a_run_beside_itself_has_not_changed(compiled_run):
    rows, found = compared(compiled_run, compiled_run)
    assert {row.state for row in rows.values()} == {"same"}
    assert found.same_images
    assert found.summary.startswith("0 of ")


def test_what_changed_is_told_from_what_chance_explains(compiled_run, tmp_path):
    def change(record):
        record["accuracy"][0]["correct"] -= 1
        record["accuracy"][1]["correct"] = 2
        record["versions"]["numpy"] = "9"
        record["artifacts"][0]["recipe"]["weight_bits"] = 4
        record["dataset"]["sha256"] = "1" * 64

    rows, found = compared(compiled_run, changed(compiled_run, tmp_path, change))
    assert rows["accuracy", "plain, float, onnxruntime"].state == "chance"
    assert rows["accuracy", "plain, integer, emulator"].state == "changed"
    assert "points" in rows["accuracy", "plain, integer, emulator"].difference
    assert rows["version", "numpy"].after == "9"
    assert rows["recipe, plain", "weight_bits"].after == "4"
    assert not found.same_images


def test_what_only_one_run_has_is_a_dash_in_the_other(compiled_run, tmp_path):
    rows, _ = compared(compiled_run, changed(compiled_run, tmp_path, lambda record: record["attacks"].pop(0)))
    row = next(row for (part, _), row in rows.items() if part == "attack" and row.after == "–")
    assert row.state == "changed"
    assert row.before != "–"


def test_one_run_and_three_runs_are_not_compared(compiled_run):
    assert comparisons(read_evidence([compiled_run])) == ()
    assert comparisons(read_evidence([compiled_run] * 3)) == ()


def test_the_interval_of_a_difference_is_newcombes():
    # Newcombe 1998, table II, case (a), method 10: 56/70 - 48/80.
    assert difference_interval((48, 80), (56, 70)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
