"""The soak test: growth is seen, a first rise is not taken for growth, and few repeats are refused."""

from __future__ import annotations

import json
import mmap

import pytest

from ohmfold.benchmarks import soak


def test_what_is_held_is_growth_and_what_is_let_go_is_not() -> None:
    held: list[mmap.mmap] = []

    def hold(_: int) -> None:
        # Pages of its own: what tests before this one freed would do for a bytearray.
        held.append(mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        held[-1].write(b"x" * (1 << 20))

    leak = soak.soak("leak", 20, hold, lambda what, share: None)
    assert 16 << 20 < leak.growth < 24 << 20
    held.clear()
    seen: list[int] = []
    sound = soak.soak("sound", 23, lambda number: seen.append(number), lambda what, share: None)
    assert seen == list(range(23))
    assert len(sound.resident) == soak.PARTS
    assert sound.growth < 1 << 20


@pytest.mark.parametrize(("size", "code"), [(0, 0), (4 << 20, 1)])
def test_the_command_tells_by_its_exit_code(
    size: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(calls: int, compilations: int, progress: object) -> list[soak.Row]:
        del progress
        return [soak.Row("calls", calls, tuple(size * part for part in range(10)), float(compilations))]

    monkeypatch.setattr(soak, "measure", measure)
    assert soak.main(["--calls", "10", "--compilations", "10"]) == code
    assert ("beyond" if code else "within") in capsys.readouterr().out
    assert soak.main(["--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["rows"][0]["repeats"] == soak.CALLS
    assert document["rows"][0]["growth"] == 9 * size


def test_few_repeats_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        soak.main(["--calls", "9"])
    assert refused.value.code == 2
    assert "at least 10 calls" in capsys.readouterr().err


@pytest.mark.slow
def test_both_are_repeated_for_real() -> None:
    rows = soak.measure(20, 10, lambda what, share: None)
    assert [(row.what, row.repeats) for row in rows] == [("emulator calls", 20), ("compilations", 10)]
    assert all(size > 1 << 20 for row in rows for size in row.resident)
