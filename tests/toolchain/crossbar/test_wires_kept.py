"""Many tiles at a time, on threads and from the user's cache folder: the same as each by itself."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ohmfold.kernels.cache import cache_folder
from ohmfold.toolchain.crossbar import wires
from ohmfold.toolchain.crossbar.wires import effective_conductances, effective_tiles

TOP = 7
ON_OHM = 1e4


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ohmfold"


def effective(g, row_ohm, column_ohm):
    return effective_conductances(g, row_ohm, column_ohm, ON_OHM, TOP)


def drawn(shape, seed=0):
    return np.random.default_rng(seed).uniform(0, TOP, shape)


def many(count=6):
    return [drawn((8 + tile, 9), tile) for tile in range(count)]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("keep", [True, False])
def test_many_tiles_are_each_by_itself_and_in_their_order(threads, keep):
    seen = []
    found = effective_tiles(
        iter(many()),
        1.0,
        2.0,
        ON_OHM,
        TOP,
        threads=threads,
        keep=keep,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 6) for done in range(1, 7)]
    for tile, one in zip(many(), found, strict=True):
        assert np.array_equal(one, effective(tile, 1.0, 2.0))
    assert effective_tiles([], 1.0, 2.0, ON_OHM, TOP) == []


def test_a_tile_of_another_form_is_refused_and_not_mistaken_for_a_kept_one():
    g = np.rint(drawn((6, 4)))
    effective_tiles([g], 1.0, 2.0, ON_OHM, TOP)
    with pytest.raises(TypeError, match="float32"):
        effective_tiles([g.astype(np.float32)], 1.0, 2.0, ON_OHM, TOP)
    with pytest.raises(ValueError, match="two axes"):
        effective_tiles([g.ravel()], 1.0, 2.0, ON_OHM, TOP)


def test_no_thread_is_refused():
    with pytest.raises(ValueError, match="0 threads"):
        effective_tiles(many(), 1.0, 2.0, ON_OHM, TOP, threads=0)


def test_what_progress_raises_ends_the_work(monkeypatch):
    solved = []
    monkeypatch.setattr(wires, "wire_operator", lambda g, row, column: solved.append(g) or g)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        effective_tiles(many(200), 1.0, 2.0, ON_OHM, TOP, keep=False, progress=stop)
    assert len(solved) < 200


def count_solves(monkeypatch):
    solved = []
    solve = wires.wire_operator
    monkeypatch.setattr(wires, "wire_operator", lambda g, *ratios: solved.append(ratios) or solve(g, *ratios))
    return solved


def test_kept_tiles_are_not_solved_again(monkeypatch, folder):
    solved = count_solves(monkeypatch)
    first = effective_tiles(many(), 1.0, 2.0, ON_OHM, TOP)
    assert len(solved) == 6
    assert all(path.name.startswith("wires-") and path.suffix == ".npz" for path in folder.iterdir())
    again = effective_tiles(many(), 1.0, 2.0, ON_OHM, TOP)
    assert len(solved) == 6
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    effective_tiles(many(), 1.0, 2.0, ON_OHM, TOP, keep=False)
    assert len(solved) == 12


def test_a_tile_is_kept_for_its_content_shape_and_resistances_alone(monkeypatch):
    solved = count_solves(monkeypatch)
    g = drawn((6, 4))
    changed = g.copy()
    changed[5, 3] = np.nextafter(changed[5, 3], 0)
    cases = [(g, 1.0, 2.0), (changed, 1.0, 2.0), (g.reshape(4, 6), 1.0, 2.0), (g, 2.0, 1.0), (g, 1.0, 2.5)]
    for tile, row, column in (*cases, *cases):
        (found,) = effective_tiles([tile], row, column, ON_OHM, TOP)
        assert np.array_equal(found, effective(tile, row, column))
    kept = len(solved) - 2 * len(cases)
    assert kept == len(cases)
    monkeypatch.setattr(wires, "_FORMAT", wires._FORMAT + 1)
    effective_tiles([g], 1.0, 2.0, ON_OHM, TOP)
    assert len(solved) == 3 * len(cases) + 1


def test_the_tiles_that_were_not_used_for_longest_go_where_all_take_too_much_room(monkeypatch, folder):
    solved = count_solves(monkeypatch)
    tiles = [drawn((12, 10), seed) for seed in range(6)]
    ages = {}
    for age, tile in enumerate(tiles):
        effective_tiles([tile], 1.0, 2.0, ON_OHM, TOP)
        (path,) = set(folder.iterdir()) - ages.keys()
        os.utime(path, ns=(age + 1, age + 1))  # the first is the oldest
        ages[path] = age
    other = folder / "other.npz"
    other.write_bytes(bytes(10_000))
    effective_tiles(tiles[:1], 1.0, 2.0, ON_OHM, TOP)  # and used now
    size = max(path.stat().st_size for path in ages)
    monkeypatch.setattr(wires, "_MOST_BYTES", 3 * size)
    effective_tiles(tiles[5:], 1.0, 2.0, ON_OHM, TOP)
    assert sorted(ages[path] for path in ages if path.exists()) == [0, 4, 5]
    assert other.exists()
    assert len(solved) == 6
    found = effective_tiles(tiles, 1.0, 2.0, ON_OHM, TOP)
    assert len(solved) == 9
    assert all(np.array_equal(e, effective(g, 1.0, 2.0)) for g, e in zip(tiles, found, strict=True))
    assert sum(path.exists() for path in ages) == 3


def test_nothing_is_kept_of_wires_without_resistance(folder):
    effective_tiles(many(), 0.0, 0.0, ON_OHM, TOP)
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other"])
def test_a_damaged_file_is_solved_again_with_a_warning_and_replaced(folder, caplog, damage):
    g = drawn((6, 5))
    (expected,) = effective_tiles([g], 1.0, 2.0, ON_OHM, TOP)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    place = whole.index(expected.tobytes())
    flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    path.write_bytes({"empty": b"", "cut": whole[:200], "flipped": flipped, "other": b"x" * 500}[damage])
    with caplog.at_level(logging.WARNING, logger="ohmfold"):
        (found,) = effective_tiles([g], 1.0, 2.0, ON_OHM, TOP)
    assert np.array_equal(found, expected)
    assert path.name.removesuffix(".npz") in caplog.text
    assert "damaged" in caplog.text
    assert path.read_bytes() == whole


def test_without_a_place_to_keep_tiles_they_are_solved(folder, caplog):
    folder.parent.mkdir()
    folder.write_bytes(b"a file where the folder should be")
    g = drawn((6, 5))
    for _ in range(2):
        (found,) = effective_tiles([g], 1.0, 2.0, ON_OHM, TOP)
        assert np.array_equal(found, effective(g, 1.0, 2.0))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_without_a_home_tiles_are_solved(monkeypatch):
    def homeless():
        raise RuntimeError("could not determine home directory")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    g = drawn((6, 5))
    (found,) = effective_tiles([g], 1.0, 2.0, ON_OHM, TOP)
    assert np.array_equal(found, effective(g, 1.0, 2.0))


def test_writers_at_the_same_time_leave_whole_files(folder):
    code = """
import numpy as np
from ohmfold.toolchain.crossbar.wires import effective_conductances, effective_tiles
tiles = [np.random.default_rng(seed).uniform(0, 7, (16, 12)) for seed in range(20)]
input()
kept = effective_tiles(tiles, 1.0, 2.0, 1e4, 7, threads=4)
print(all(np.array_equal(e, effective_conductances(g, 1.0, 2.0, 1e4, 7)) for g, e in zip(tiles, kept)))
"""
    compiled = cache_folder()
    environment = (
        dict(os.environ) if compiled is None else {**os.environ, "NUMBA_CACHE_DIR": str(compiled.parents[1])}
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for writer in writers:
        writer.stdin.write("start\n")
        writer.stdin.flush()
    assert [writer.communicate() for writer in writers] == [("True\n", "")] * 2
    assert sorted(path.suffix for path in folder.iterdir()) == [".npz"] * 20
