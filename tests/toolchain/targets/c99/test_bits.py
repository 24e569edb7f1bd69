"""Every integer of the C program is the emulator's: drawn networks, architectures, compilers, processors."""

import functools

import numpy as np
import onnx_ir as ir
import pytest
import torch
from c_programs import assert_same_bits, compiler
from hypothesis import HealthCheck, Phase, given, settings
from random_networks import networks, recipes

import ohmfold
from ohmfold.models.registry import build_model
from ohmfold.toolchain.program import Reshape, Split, Transpose
from ohmfold.toolchain.targets.c99 import C99Options, generate
from ohmfold.toolchain.targets.c99.harness import COMPILERS

FEW = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=(Phase.generate,)
)  # fmt: skip
MANY = settings(FEW, max_examples=60)
NAMES = [found.name for found in COMPILERS]


def compiled(drawn, recipe):
    model, images = drawn
    recipe = {**recipe, "input": "uint8"}
    return ohmfold.compile(ir.from_proto(model), images, ohmfold.Recipe(**recipe)), images


@functools.cache
def artifact_of(name, mu_law=False):
    shape = (1, 28, 28) if name.startswith("mnist") else (3, 32, 32)
    module = build_model(name).train()
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(2):
            module(torch.rand(8, *shape))
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    images[1], images[2] = 0, 255
    recipe = ohmfold.Recipe(mu_law={"conv1": 255.0, "conv2": 255.0}) if mu_law else ohmfold.Recipe()
    return ohmfold.compile(module.eval(), images, recipe), images


def assert_nothing_is_missing(found, library):
    """All tensors that lead to the logits were compared."""
    program = library.program
    needed = {program.logits}
    for layer in reversed(program.layers):
        if not needed.isdisjoint(layer.outputs):
            needed |= {*layer.inputs}
            if (accumulator := getattr(layer, "accumulator", None)) is not None:
                needed.add(accumulator)
    moved = {program.inputs[0].name}  # the caller's pixels, which nothing computes
    for layer in program.layers:
        if isinstance(layer, Reshape | Transpose | Split) and layer.input in moved:
            moved |= {*layer.outputs}
    assert needed - moved <= set(found)


@FEW
@given(networks(), recipes())
def test_drawn_networks(drawn, recipe):
    assert_nothing_is_missing(*assert_same_bits(*compiled(drawn, recipe)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gcc", "clang-sanitised", "s390x", "cortex-m4-dsp"])
def test_many_drawn_networks(name):
    compiler(name)

    @settings(MANY, max_examples=60 if name == "gcc" else 15)
    @given(networks(), recipes())
    def judge(drawn, recipe):
        assert_nothing_is_missing(*assert_same_bits(*compiled(drawn, recipe), name))

    judge()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("network", ["mnist-resnet8", "mnist-mobilenet"])
def test_residual_and_depthwise_networks_with_every_compiler(network, name):
    artifact, images = artifact_of(network)
    assert_nothing_is_missing(*assert_same_bits(artifact, images[:4], name))


@pytest.mark.slow
@pytest.mark.parametrize("mu_law", [False, True], ids=["plain", "mu-law"])
@pytest.mark.parametrize("name", NAMES)
def test_the_mnist_network_with_every_compiler(name, mu_law):
    artifact, images = artifact_of("mnist-cnn", mu_law)
    assert_nothing_is_missing(*assert_same_bits(artifact, images[:3], name))


@pytest.mark.parametrize("name", ["gcc", "clang"])
@pytest.mark.parametrize("optimisation", ["-O0", "-O1", "-O2", "-O3"])
def test_every_level_of_optimisation(name, optimisation):
    artifact, images = artifact_of("mnist-mobilenet")
    assert_same_bits(artifact, images[:3], name, optimisation)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("gcc", "-O2 -mfpmath=387"),  # every operation in 80 bits
        ("gcc", "-O3 -march=native -ffp-contract=fast"),  # products may be fused with additions
        ("clang", "-O3 -march=native -ffp-contract=fast"),
    ],
)
def test_wider_and_fused_floats_change_no_bit(name, flags):
    artifact, images = artifact_of("mnist-resnet8")
    assert_same_bits(artifact, images[:4], name, flags)


@pytest.mark.parametrize("network", ["mnist-resnet8", "mnist-mobilenet"])
def test_a_byte_for_each_weight_gives_the_same_bits(network):
    artifact, images = artifact_of(network)
    options = C99Options(weight_bits=8)
    _, library = assert_same_bits(artifact, images, options=options)
    assert library.size.bytes_per_weight == 1


def test_three_bit_weights_take_at_most_038_bytes_and_ram_little_more_than_it_must():
    for network in ("mnist-cnn", "mnist-resnet8", "mnist-mobilenet"):
        size = generate(artifact_of(network)[0], measure=False).size
        assert size.bytes_per_weight <= 0.38
        assert size.ram <= 1.3 * size.live


def test_code_and_tables_take_little_rom():
    compiler("gcc")
    size = generate(artifact_of("mnist-cnn")[0]).size
    assert size.code is not None
    assert size.code + size.tables < 12_000
