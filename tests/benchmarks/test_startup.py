"""The benchmark of starting: cold runs share nothing, warm ones do, and a start that fails is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ohmfold.benchmarks import startup


def fake_process(calls: list[tuple[str, Path | None]]):
    def run_process(arguments: list[str], caches: Path | None = None) -> float:
        calls.append((" ".join(arguments), caches))
        return float(len(calls))

    return run_process


def test_cold_runs_share_no_cache_and_warm_ones_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[str, Path | None]] = []
    monkeypatch.setattr(startup, "run_process", fake_process(calls))
    rows = startup.measure(Path("a.onnx"), tmp_path, 5, lambda step, share: None)
    runs = [caches for command, caches in calls if " run a.onnx" in command]
    assert len(set(runs[:5])) == 5
    assert set(runs[5:]) == {runs[0]}
    assert len(runs) == 11  # the first warm one counts for nothing
    assert [row.what for row in rows] == list(startup.LIMITS)
    assert rows[0].seconds == 4.0  # of 2 to 6; the first of six counts for nothing
    assert (rows[0].least, rows[0].most, rows[0].limit) == (2.0, 6.0, 0.3)


def test_a_start_is_timed_or_its_error_is_shown(tmp_path: Path) -> None:
    code = "import os; assert os.environ['NUMBA_CACHE_DIR'] == os.environ['XDG_CACHE_HOME']; print('kept silent')"
    assert startup.run_process(["-c", code], tmp_path) > 0
    with pytest.raises(SystemExit, match=r"failed: .*no file"):
        startup.run_process(["-c", "import sys; sys.exit('no file')"])


def test_the_command_prints_a_table_or_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, Path | None]] = []
    monkeypatch.setattr(startup, "run_process", fake_process(calls))
    startup.main(["--json"])
    assert calls[0][0].startswith("-m ohmfold compile mnist-cnn")
    document = json.loads(capsys.readouterr().out)
    assert [row["what"] for row in document["rows"]] == list(startup.LIMITS)
    startup.main(["--artifact", "a.onnx"])
    printed = capsys.readouterr().out
    assert all(what in printed for what in startup.LIMITS)
    assert "beyond" in printed


def test_fewer_than_five_timings_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        startup.main(["--repeats", "4"])
    assert refused.value.code == 2
    assert "--repeats 4: a median takes at least 5" in capsys.readouterr().err
