"""Libraries without floating point: the same codes by shifts, and no float instruction in the object."""

import functools
import re
import shutil
import subprocess

import numpy as np
import onnx_ir as ir
import pytest
from c_nets import finish, requantisation
from c_programs import assert_same_bits, compiler
from hypothesis import HealthCheck, assume, given, settings
from program_nets import INT32, UINT8, Net
from random_networks import networks, recipes

import ohmfold
from ohmfold.errors import TargetError, UnsupportedError
from ohmfold.models.registry import build_model
from ohmfold.toolchain import program as p
from ohmfold.toolchain.targets.c99 import C99Options, generate
from ohmfold.toolchain.targets.c99.harness import build, write_sources

WITHOUT_FLOATS = C99Options(integer_only=True)
POWERS = (0.5, -0.5, 0.125, 1.0, -2.0, 2.0**-9, -(2.0**-20), 2.0**-31, 2.0**-40, 2.0**12)


def rounding_program():
    """Accumulators of up to 2^30 with every shift and sign; float32 rounds those beyond 2^24 first."""
    net = Net(np.random.default_rng(0), (1, 16, 16))
    outputs = []
    for multiplier in (1, -5, 32767, 4_100_001):
        words = net.add(
            p.WeightedSum, (1, 16, 16), dtype=INT32, inputs=("pixels",), multipliers=(multiplier,), zero_points=(128,)
        )  # fmt: skip
        outputs += [
            net.add(
                p.Requantise, (1, 16, 16), dtype=UINT8, inputs=(words,), bias=None,
                requantisation=requantisation(factor, 100),
            )
            for factor in POWERS
        ]  # fmt: skip
    net.add(p.Concat, (len(outputs), 16, 16), inputs=tuple(outputs), dtype=UINT8, zero_point=100, axis=1)
    net.add(p.SpatialSum, (len(outputs), 1, 1), dtype=INT32, input_zero_point=100)
    net.add(
        p.Requantise, (len(outputs), 1, 1), dtype=UINT8, zero_point=0, bias=None,
        requantisation=requantisation(2.0**-9, 128),
    )  # fmt: skip
    return finish(net, multiplier=0.25)


@pytest.mark.parametrize("name", ["gcc", "clang-sanitised", "s390x", "cortex-m3"])
def test_shifts_round_as_float32_does(name):
    program = rounding_program()
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    found, _ = assert_same_bits(program, images, name, options=WITHOUT_FLOATS)
    assert program.codes in found
    assert program.logits not in found
    assert any(np.abs(array).max() > 1 << 24 for array in found.values() if array.dtype == np.int32)


@functools.cache
def pow2_artifact():
    module = build_model("mnist-vgg").eval()
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 28, 28), np.uint8)
    return ohmfold.compile(module, images, ohmfold.Recipe(scales="pow2")), images


def test_a_power_of_two_artifact_has_the_same_codes_with_and_without_floats():
    artifact, images = pow2_artifact()
    without, library = assert_same_bits(artifact, images, "clang", options=WITHOUT_FLOATS)
    with_floats, _ = assert_same_bits(artifact, images, "clang")
    assert np.array_equal(without[artifact.program.codes], with_floats[artifact.program.codes])
    code = re.sub(r"/\*.*?\*/", "", library.files["network.c"], flags=re.DOTALL)
    assert not re.search(r"\b(float|double)\b", code)
    assert "network_run(" not in library.files["network.h"]


def test_the_object_needs_no_floating_point(tmp_path):
    found = compiler("gcc")
    artifact, _ = pow2_artifact()
    library = generate(artifact, WITHOUT_FLOATS, measure=False)
    write_sources(library, tmp_path)
    # With floats this flag is an error; without, it builds.
    build(library, found, tmp_path, "network_check.c", ("-O2", "-mgeneral-regs-only"))
    arm = compiler("cortex-m3")
    subprocess.run(
        [arm.command, "-mcpu=cortex-m3", "-mthumb", "-std=c99", "-O2", "-c", "network.c", "-o", "network.o"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    symbols = subprocess.run(
        [shutil.which("arm-none-eabi-nm"), "-u", "network.o"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "network_run_codes" not in symbols
    assert not [symbol for symbol in symbols if symbol.startswith(("__aeabi_f", "__aeabi_d"))]


def test_the_same_flag_refuses_a_library_with_floats(tmp_path):
    found = compiler("gcc")
    artifact, _ = pow2_artifact()
    library = generate(artifact, measure=False)
    write_sources(library, tmp_path)
    with pytest.raises(TargetError, match="cannot build"):
        build(library, found, tmp_path, "network_check.c", ("-O2", "-mgeneral-regs-only"))


def test_other_multipliers_are_refused_with_the_layer():
    images = np.zeros((4, 1, 28, 28), np.uint8)
    artifact = ohmfold.compile(build_model("mnist-vgg").eval(), images, ohmfold.Recipe())
    with pytest.raises(UnsupportedError, match=r"layer 'features.0'.*powers of two.*pow2"):
        generate(artifact, WITHOUT_FLOATS, measure=False)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(networks(), recipes())
def test_drawn_power_of_two_networks(drawn, recipe):
    model, images = drawn
    recipe = ohmfold.Recipe(**{**recipe, "input": "uint8", "scales": "pow2"})
    try:
        artifact = ohmfold.compile(ir.from_proto(model), images, recipe)
    except UnsupportedError:
        assume(False)
    found, _ = assert_same_bits(artifact, images, options=WITHOUT_FLOATS)
    assert artifact.program.codes in found
