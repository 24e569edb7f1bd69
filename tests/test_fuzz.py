"""A short slice of the fuzzing campaign: every reader, nothing but success and `OhmfoldError`; and the watch itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ohmfold
from ohmfold.fuzz.readers import READERS

ROOT = Path(ohmfold.__file__).resolve().parent
INPUTS = 2300


def fuzz(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fuzz", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_a_slice_of_the_campaign_finds_nothing(tmp_path: Path) -> None:
    done = fuzz("--inputs", INPUTS, "--seed", 2, "--log", tmp_path / "log")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {row["reader"] for row in rows} == set(READERS)
    assert sum(row["read"] for row in rows) > 0.95 * INPUTS
    refusing = {row["reader"] for row in rows if row["refused"]}
    assert refusing >= set(READERS) - {"kept-array"}  # a damaged cache is made again, without a word


def test_an_input_is_the_same_whenever_it_is_replayed(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        fuzz("--reader", "crossbar-image", "--seed", 3, "--replay", 77, "--keep", tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["image.json", "image.npz"]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


BAD_READERS = {
    "raises": ("raise KeyError(path)", "KeyError"),
    "allocates": ("import numpy; numpy.ones(1 << 30)", "MemoryError"),
    "opens": ("open('/etc/hostname')", "escapes: open"),
    "hides": ("\n    try: open('/etc/hostname')\n    except Exception: pass", "escapes: open"),
    "writes": ("open(folder.parent / 'outside.bin', 'wb')", "escapes: open"),
    "unpickles": ("import pickle; pickle.loads(b'cos\\ngetcwd\\n.')", "escapes: pickle.find_class"),
    "starts": ("import subprocess; subprocess.run(['true'])", "escapes: "),
    "crashes": ("import ctypes; ctypes.string_at(0)", "ends the process: SIGSEGV"),
    "works": ("path.read_bytes()", ""),
}
START = """
import json
import numpy
from fuzz.plain import mutated_bytes
from fuzz.readers import READERS, Reader
from fuzz.worker import run_inputs
"""
END = """
found = {}
for name in [name for name in list(globals()) if name.startswith("read_")]:
    READERS[name] = Reader(mutated_bytes, globals()[name])
    outcome = run_inputs(name, 1, range(3), [{"file": b"abc"}])
    found[name[5:]] = [outcome.read, [finding.kind for finding in outcome.findings]]
print(json.dumps(found))
"""


def test_what_a_bad_reader_does_is_found(tmp_path: Path) -> None:
    readers = "".join(
        f"def read_{name}(folder, path):\n    {body}\n" for name, (body, _) in BAD_READERS.items()
    )
    (tmp_path / "script.py").write_text(START + readers + END)
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, (_, expected) in BAD_READERS.items():
        read, kinds = found[name]
        assert read == 3
        assert len(kinds) == (3 if expected else 0)
        assert all(kind.startswith(expected) for kind in kinds), (name, kinds)
