"""The benchmark of generated C: what it times is what it says, and what is missing is said."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from c_nets import conv_net
from c_programs import compiler
from program_nets import images_for

from ohmfold.benchmarks import c99, c99_counts
from ohmfold.errors import TargetError
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.targets.c99 import C99Options, generate
from ohmfold.toolchain.targets.c99.harness import write_sources

PROGRAM = conv_net()


def libraries():
    return {
        "packed": generate(PROGRAM, C99Options(name="packed"), measure=False),
        "bytes": generate(PROGRAM, C99Options(name="bytes", weight_bits=8), measure=False),
    }


def silent(step, share):
    assert 0 <= share <= 1


def test_functions_are_called_in_turn_and_the_first_turn_does_not_count():
    calls = []
    found = c99.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    assert set(found) == {"a", "b"}


def test_what_is_timed_computes_the_logits(tmp_path):
    found = compiler("gcc")
    library = libraries()["packed"]
    write_sources(library, tmp_path)
    shared = c99._shared(tmp_path, ["packed.c", "packed_weights.c"], "packed", found.command, "-O2")
    image = images_for(PROGRAM, 1)[0]
    logits = np.zeros(library.logits, np.float32)
    shared.packed_run(image.ctypes.data_as(c99.ctypes.c_void_p), logits.ctypes.data_as(c99.ctypes.c_void_p))
    assert np.array_equal(logits.view(np.int32), Emulator(PROGRAM)(image[None])[0].view(np.int32))


def test_both_libraries_are_timed_under_each_native_compiler(tmp_path):
    compiler("gcc")
    rows = c99.measure_times(libraries(), images_for(PROGRAM, 1)[0], tmp_path, None, 2, silent)
    assert {row.compiler for row in rows} >= {"gcc"}
    assert all(row.packed > 0 and row.bytes > 0 and row.onnx2c is None for row in rows)
    assert rows[0].ratio == rows[0].packed / rows[0].bytes


def test_the_float_program_of_onnx2c_is_timed_where_it_is_on_the_path(tmp_path, monkeypatch):
    compiler("gcc")
    binary = tmp_path / "onnx2c"
    binary.write_text(
        "#!/bin/sh\necho 'void entry(const float x[162], float y[5]) { for (int i = 0; i < 5; i++) y[i] = x[i]; }'\n"
    )
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    source = c99._onnx2c_source(tmp_path / "float.onnx", tmp_path)
    rows = c99.measure_times(libraries(), images_for(PROGRAM, 1)[0], tmp_path, source, 2, silent)
    assert all(row.onnx2c is not None and row.onnx2c > 0 for row in rows)
    binary.write_text("#!/bin/sh\necho 'no such operator' >&2\nexit 1\n")
    with pytest.raises(TargetError, match="onnx2c refuses the float model: no such operator"):
        c99._onnx2c_source(tmp_path / "float.onnx", tmp_path)


def test_instructions_are_counted_by_qemu_and_valgrind(tmp_path):
    board = compiler("cortex-m4")
    library = libraries()["packed"]
    emulated = c99_counts.qemu_instructions(library, board, ("-O2",), tmp_path)
    products = library.size.products
    assert products < emulated < 100 * products
    assert emulated == c99_counts.qemu_instructions(library, board, ("-O2",), tmp_path)
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind not found; install valgrind")
    native = c99_counts.callgrind_instructions(library, compiler("gcc"), ("-O2",), tmp_path)
    assert products < native < 100 * products


def test_without_valgrind_nothing_is_counted(tmp_path, monkeypatch):
    found = compiler("gcc")
    monkeypatch.setattr(shutil, "which", lambda command: None)
    assert c99_counts.callgrind_instructions(libraries()["packed"], found, ("-O2",), tmp_path) is None


def test_a_program_that_does_not_build_is_an_error(tmp_path):
    (tmp_path / "broken.c").write_text("int broken(")
    with pytest.raises(TargetError, match="gcc cannot build broken"):
        c99._shared(tmp_path, ["broken.c"], "broken", compiler("gcc").command, "-O2")


def test_the_command_prints_tables_or_json(monkeypatch, capsys):
    document = {
        "model": "m",
        "sizes": {
            "packed": {
                "weights": 3,
                "bytes_per_weight": 0.375,
                "parameters": 4,
                "code": None,
                "ram": 5,
                "ram_ratio": 1.0,
            }
        },
        "times_ms": [
            {"compiler": "gcc", "flags": "-O3", "packed": 2.0, "bytes": 1.0, "ratio": 2.0, "onnx2c": None}
        ],
        "instructions": [{"counted_by": "callgrind", "flags": "-O3", "packed": 1234, "bytes": 1000}],
        "missing": {"onnx2c": "not on the PATH"},
    }  # fmt: skip
    monkeypatch.setattr(c99, "measure", lambda *given: document)
    c99.main(["--json"])
    assert json.loads(capsys.readouterr().out) == document
    c99.main([])
    printed = capsys.readouterr().out
    assert "beyond" in printed
    assert "1,234" in printed
    assert "onnx2c: not on the PATH" in printed
    with pytest.raises(SystemExit):
        c99.main(["--repeats", "0"])
