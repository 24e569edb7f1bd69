"""What is compiled: cached by source hash, exact float32, and with the instruction that was meant."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ohmfold.kernels import cache
from ohmfold.kernels.isa import available

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
    shutil.copytree(source, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "cache.py"))
    original = cache.source_hash.__wrapped__()
    assert original == cache.source_hash()
    for name in ("windows.py", "isa/vnni.py"):
        before = cache.source_hash.__wrapped__()
        with (tmp_path / name).open("a") as helper:
            helper.write("# edited\n")
        assert cache.source_hash.__wrapped__() != before


def test_processes_that_compile_at_once_do_not_harm_each_other(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", RUN]
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, err) == (0, "")
        assert out.strip() in ("0", "1")
    assert run(tmp_path).stdout.strip() == "1"


PRODUCTS = """
import re
import numpy as np
from types import SimpleNamespace
from ohmfold.kernels import gemm
from ohmfold.kernels.dense import Dense
from ohmfold.kernels.isa import chosen
rng = np.random.default_rng(0)
for rows, depth, columns in [(1, 7, 3), (5, 64, 17), (70, 33, 16)]:
    x = rng.integers(0, 256, (rows, depth), dtype=np.uint8)
    weight = rng.integers(-255, 256, (depth, columns)).astype(np.int16)
    multiplier = np.full((), 2.0**-12, np.float32)
    codes = SimpleNamespace(multiplier=multiplier, zero_point=9, dtype=np.dtype(np.uint8))
    layer = Dense(weight, input_zero_point=200, codes=codes)
    acc = (x.astype(np.int64) - 200) @ weight
    assert np.array_equal(layer.accumulate(x), acc)
    f = np.clip(acc.astype(np.float32) * multiplier, -9, 246)
    assert np.array_equal(layer(x), np.rint(f) + 9)
listing = "".join(gemm.multiply.inspect_asm().values())
assert "mul" in listing
contracted = re.search(r"vfn?m(add|sub)[0-9]+[ps]s|cvtss2sd|cvtps2pd|fml[as]|fn?m(add|sub)", listing)
meant = {"amx": "tdpbusd", "vnni": "vpdpbusd", "avx2": "vpmaddubsw", "portable": "mul"}
found = [name for name, instruction in meant.items() if instruction in listing]
print("contracted" if contracted else "single", chosen().name, found[0])
"""


def run_products(folder: Path, **target: str) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), **target}
    command = [sys.executable, "-c", PRODUCTS]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=180)
    return result.stdout.split()


@pytest.mark.parametrize("name", available())
def test_products_use_the_instruction_that_is_meant_and_no_fused_float(name, tmp_path):
    assert run_products(tmp_path, OHMFOLD_ISA=name) == ["single", name, name]


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names x86 features")
@pytest.mark.parametrize(
    ("processor", "features", "name"),
    [("x86-64", "+sse2", "portable"), ("haswell", "+avx2", "avx2")],
)
def test_older_processors_get_what_they_have(processor, features, name, tmp_path):
    target = {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}
    assert run_products(tmp_path, **target) == ["single", name, name]
