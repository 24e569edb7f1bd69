"""The files of a library: they build strictly, check themselves, keep to limits, and say how large they are."""

import shutil
import subprocess

import numpy as np
import pytest
from c_nets import conv_net
from c_programs import compiler
from hypothesis import given
from hypothesis import strategies as st
from program_nets import images_for

from ohmfold.errors import DataError, MissingDependencyError, TargetError
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.targets.c99 import C99Options, compilers, generate, sizes
from ohmfold.toolchain.targets.c99.compilers import missing_compilers
from ohmfold.toolchain.targets.c99.harness import build, find_compiler, run_c, write_sources

PROGRAM = conv_net()
NAMES = {"lenet.h", "lenet.c", "lenet_weights.h", "lenet_weights.c", "lenet_check.c", "lenet_vectors.h", "Makefile",
         "CMakeLists.txt", "README.md"}  # fmt: skip


def library(**options):
    return generate(PROGRAM, C99Options(name="lenet", **options), measure=False)


def run(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_same_artifact_gives_the_same_files():
    files = library().files
    assert set(files) == NAMES
    assert files == library().files


@pytest.mark.parametrize(
    ("name", "optimisation"),
    [(name, f"-O{level}") for name in ("gcc", "clang") for level in range(4)]
    + [("gcc-sanitised", "-O1"), ("clang-sanitised", "-O1")],
)
@pytest.mark.parametrize("weight_bits", ["own", 8])
def test_every_file_builds_without_a_warning_and_the_vectors_agree(tmp_path, name, optimisation, weight_bits):
    found = compiler(name)
    made = library(weight_bits=weight_bits)
    write_sources(made, tmp_path)
    program = build(made, found, tmp_path, "lenet_check.c", (optimisation,))
    done = run([str(program)], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "lenet: 4 of 4 vectors agree to the bit\n"


def test_the_makefile_builds_and_checks(tmp_path):
    if shutil.which("make") is None or shutil.which("cc") is None:
        pytest.skip("make or cc not found; install make and gcc")
    write_sources(library(), tmp_path)
    done = run(["make", "check"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 vectors agree" in done.stdout


def test_cmake_builds_and_checks(tmp_path):
    if shutil.which("cmake") is None or shutil.which("ctest") is None:
        pytest.skip("cmake not found; install cmake")
    write_sources(library(), tmp_path)
    for command in (
        ["cmake", "-S", ".", "-B", "out"],
        ["cmake", "--build", "out"],
        ["ctest", "--test-dir", "out"],
    ):
        done = run(command, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_changed_weight_fails_the_check(tmp_path):
    found = compiler("gcc")
    made = library(weight_bits=8, vectors=6)
    write_sources(made, tmp_path)
    source = made.files["lenet_weights.c"]
    start = source.index("{", source.index("lenet_weights_")) + 2
    end = source.index(",", start)
    changed = source[:start] + str(-3 if source[start:end] != "-3" else 3) + source[end:]
    (tmp_path / "lenet_weights.c").write_text(changed)
    done = run([str(build(made, found, tmp_path, "lenet_check.c"))], tmp_path)
    assert done.returncode == 1
    assert "differs" in done.stdout


def test_null_pointers_are_refused_and_codes_are_returned(tmp_path):
    found = compiler("gcc")
    made = library()
    write_sources(made, tmp_path)
    (tmp_path / "main.c").write_text(
        '#include "lenet.h"\n#include <stdio.h>\n'
        "int main(void) { static const uint8_t pixels[LENET_PIXELS]; int32_t codes[LENET_LOGITS];"
        "float logits[LENET_LOGITS]; int i;"
        'printf("%d %d %d %d", lenet_run(0, logits), lenet_run(pixels, 0), lenet_run_codes(0, codes),'
        "lenet_run_codes(pixels, 0)); lenet_run_codes(pixels, codes);"
        'for (i = 0; i < LENET_LOGITS; i++) { printf(" %ld", (long)codes[i]); } return 0; }\n'
    )
    done = run([str(build(made, found, tmp_path, "main.c"))], tmp_path)
    codes = Emulator(PROGRAM).codes(np.zeros((1, *PROGRAM.inputs[0].shape[1:]), np.uint8))[0]
    assert done.stdout.split() == ["-1"] * 4 + [str(code) for code in codes]


def test_vectors_are_the_images_that_are_given():
    images = images_for(PROGRAM, 3)
    files = generate(PROGRAM, C99Options(vectors=2), images, measure=False).files
    assert ",".join(map(str, images[1].reshape(-1)[:24])) in files["network_vectors.h"]
    assert "#define NETWORK_VECTORS 2" in files["network_vectors.h"]
    with pytest.raises(DataError, match=r"found uint8\(2, 3\), expected uint8 pixels \(N, 2, 9, 9\)"):
        generate(PROGRAM, C99Options(), np.zeros((2, 3), np.uint8), measure=False)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "int"}, "'int' is a keyword"), ({"name": "3d"}, "not a C identifier"), ({"name": ""}, "identifier"),
        ({"name": "a-b"}, "not a C identifier"), ({"name": "_x"}, "identifier"), ({"name": "é"}, "identifier"),
        ({"name": "string"}, "hide the standard header string.h"), ({"name": "x" * 32}, "32 characters"),
        ({"name": "a\n"}, "not a C identifier"), ({"ram": 0}, "ram = 0"), ({"rom": True}, "rom = True"),
        ({"weight_bits": 4}, "expected 'own' or 8"), ({"vectors": 0}, "at least 1"),
    ],
)  # fmt: skip
def test_senseless_options_are_refused(options, match):
    with pytest.raises(TargetError, match=match):
        C99Options(**options)


def test_limits_are_kept_to_the_byte():
    size = library().size
    assert library(ram=size.ram, rom=size.rom).size == size
    with pytest.raises(
        TargetError, match=rf"take {size.ram} bytes of RAM, 1 more than the limit of {size.ram - 1}"
    ):
        library(ram=size.ram - 1)
    with pytest.raises(TargetError, match=rf"takes {size.rom} bytes of ROM .*of code\), 1 more than"):
        library(rom=size.rom - 1)


def test_the_report_adds_up():
    compiler("gcc")
    made = generate(PROGRAM, C99Options())
    size = made.size
    assert size.weight_count == sum(layer.weight.size for layer in PROGRAM.weighted_layers())
    assert size.products == 8 * 9 * 9 * 2 * 9 + 8 * 5 * 5 * 9 + 200 * 5
    assert size.code > 500
    assert size.rom == size.weights + size.parameters + size.tables + size.code
    assert f"| {size.ram} |" in made.files["README.md"]
    assert made.files["network.h"].count(f"NETWORK_RAM_BYTES {size.ram} ") == 1


def test_without_a_compiler_the_code_is_not_measured(monkeypatch):
    monkeypatch.setattr(sizes.shutil, "which", lambda command: None)
    size = generate(PROGRAM).size
    assert size.code is None
    assert "none of arm-none-eabi-gcc, gcc, clang is here" in size.code_compiler
    assert size.rom == size.weights + size.parameters + size.tables


def test_missing_compilers_say_what_to_install(monkeypatch):
    compilers._why_missing.cache_clear()
    monkeypatch.setattr(compilers.shutil, "which", lambda command: None)
    try:
        assert "install gcc-s390x-linux-gnu" in missing_compilers()["s390x"]
        assert compilers.available_compilers() == ()
        with pytest.raises(MissingDependencyError, match="'gcc': gcc not found; install gcc"):
            find_compiler("gcc")
    finally:
        compilers._why_missing.cache_clear()
    with pytest.raises(MissingDependencyError, match="no compiler is called 'tcc'"):
        find_compiler("tcc")


def test_images_that_do_not_fit_are_refused():
    compiler("gcc")
    with pytest.raises(DataError, match="162 of each"):
        run_c(PROGRAM, np.zeros((2, 3), np.uint8))


@given(st.text(max_size=20))
def test_layer_names_cannot_leave_their_comment(text):
    from ohmfold.toolchain.targets.c99.emit import _comment

    shown = _comment(text)
    assert "*/" not in shown
    assert "/*" not in shown
    assert shown.isascii()
    assert "\n" not in shown


def test_sanitisers_without_their_libraries_are_missing(monkeypatch):
    monkeypatch.setattr(compilers, "_links", lambda _: False)
    compilers._why_missing.cache_clear()
    try:
        found = missing_compilers()
        assert "clang" not in found or "not found" in found["clang"]
        assert "libclang-rt-dev" in found["clang-sanitised"]
        assert "sanitisers of gcc" in found["gcc-sanitised"] or "gcc not found" in found["gcc-sanitised"]
    finally:
        compilers._why_missing.cache_clear()
