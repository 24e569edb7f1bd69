"""The reckoning of `docs/scale.md`: products are counted, jobs are shared whole, the page has what its slopes give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_artifacts import CLASSES, SIDE, tiny_artifact

import ohmfold
from ohmfold.benchmarks.scale import Cost, Slope, products, reckoned, reckoning

PAGE = (Path(ohmfold.__file__).parent / "docs/scale.md").read_text(encoding="utf-8")


def test_products_are_weights_times_places():
    assert products(tiny_artifact().program) == SIDE * SIDE * CLASSES


@pytest.mark.parametrize(("jobs", "workers", "rounds"), [(8, 1, 8), (8, 4, 2), (9, 4, 3), (3, 100, 1)])
def test_jobs_are_shared_whole(jobs, workers, rounds):
    assert reckoned(2.0, 500, jobs, workers, 250.0) == rounds * 1.25


def test_the_reckoning_of_the_page_is_that_of_its_slopes():
    number = r"([\d.]+) \([\d.]+\)"
    rows = re.findall(
        rf"^\| (.+?) \| ([\d,]+) \| {number} \| {number} \| {number} \| (\d+) \|$", PAGE, re.MULTILINE
    )
    slopes = [
        Slope(name, int(count.replace(",", "")), *map(float, figures)) for name, count, *figures in rows
    ]
    assert len(slopes) == 3
    job = float(re.search(r"^\| 2 processes \| [\d.]+ \| ([\d.]+) \|", PAGE, re.MULTILINE)[1])
    expected = reckoning(slopes, Cost("", 0.0, job, 0.0))
    printed = re.findall(r"^\| (.+(?:chips x|steps on).+?) \| (.+) \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert [what for what, *_ in printed] == [what for what, *_ in expected]
    for (_, *found), (_, *wanted) in zip(printed, expected, strict=True):
        for one, other in zip(found, wanted, strict=True):
            # The page was reckoned from slopes with more digits than it shows.
            assert one.split()[1] == other.split()[1]
            assert float(one.split()[0]) == pytest.approx(float(other.split()[0]), rel=0.01)
