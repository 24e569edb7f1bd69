"""`ohmfold report`: one page of whatever runs are given, and one line about what is none."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def printed(tmp_path):
    """What `ohmfold run --json` prints, of nobody's model."""
    path = tmp_path / "ran.json"
    document = {
        "file": "a.onnx",
        "sha256": "a" * 64,
        "data": "digits",
        "images": 100,
        "left_out": 0,
        "witnesses": {"emulator": {"correct": 90, "images_per_second": 1.0}},
        "exactness": [],
        "integers": 0,
        "differing": 0,
    }
    path.write_text(json.dumps(document))
    return path


def test_a_printed_file_makes_a_page_beside_it(call, printed):
    done = call("report", printed)
    assert done.code == 0
    assert str(printed.parent / "report.html") in " ".join(done.out.split()).replace(" ", "")
    assert "90.0\u00a0%" in (printed.parent / "report.html").read_text()


def test_two_of_a_kind_are_compared(call, printed, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(printed.read_text().replace('"correct": 90', '"correct": 40'))
    out = tmp_path / "page.html"
    assert call("report", printed, other, "--out", out).code == 0
    page = out.read_text()
    assert "What changed" in page
    assert "\u221250.0 (" in page


def test_what_is_no_run_is_refused_in_a_line(call, tmp_path):
    path = tmp_path / "none.json"
    path.write_text("{}")
    done = call("report", path)
    assert done.code != 0
    assert "is not a run" in " ".join(done.err.split())
    assert not (tmp_path / "report.html").exists()
