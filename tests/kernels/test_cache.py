"""What is compiled: cached by source hash, exact float32, and on AVX2 with the instruction that was meant."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ohmfold.kernels import cache, gemm
from ohmfold.kernels.dense import Dense
from ohmfold.kernels.elementwise import look_up

RUN = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
import numpy as np
from ohmfold.kernels import elementwise
table = np.arange(256, dtype=np.uint8)[::-1].copy()
assert (elementwise.look_up(np.arange(9, dtype=np.uint8), table) == table[:9]).all()
print(sum(elementwise._look_up.stats.cache_hits.values()))
"""


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", RUN], env=environment, capture_output=True, text=True, check=True, timeout=120
    )


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    assert run(tmp_path).stdout.strip() == "0"
    folder = tmp_path / "ohmfold" / f"kernels-{cache.source_hash()}"
    assert list(folder.glob("*look_up*.nbc"))
    assert run(tmp_path).stdout.strip() == "1"


def test_a_damaged_cache_is_compiled_anew(tmp_path):
    run(tmp_path)
    for path in tmp_path.rglob("*.nbc"):
        path.write_bytes(path.read_bytes()[:100])
    again = run(tmp_path)
    assert again.stdout.strip() == "0"
    assert "compiling instead" in again.stderr


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    result = run(blocked)
    assert result.stdout.strip() == "0"
    assert "not kept" in result.stderr


def test_the_hash_covers_every_source_of_the_package(tmp_path, monkeypatch):
    source = Path(cache.__file__).parent
    for path in source.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    original = cache.source_hash.__wrapped__()
    assert original == cache.source_hash()
    with (tmp_path / "windows.py").open("a") as helper:
        helper.write("# edited\n")
    assert cache.source_hash.__wrapped__() != original


def test_nothing_is_contracted_or_promoted_in_the_compiled_code():
    class Codes:
        multiplier = np.ones((), np.float32)
        zero_point = 0
        dtype = np.dtype(np.uint8)

    Dense(np.ones((4, 4), np.int8), codes=Codes())(np.ones((4, 4), np.uint8))
    look_up(np.zeros(1, np.uint8), np.zeros(256, np.uint8))
    listings = gemm.multiply.inspect_asm()
    assert listings
    for assembly in listings.values():
        if not assembly.strip():
            pytest.skip("code loaded from the cache carries no listing")
        assert not re.search(r"vfn?m(add|sub)\d+[ps]s|cvtss2sd|cvtps2pd", assembly)
