"""Layers by hand: int8 codes, ties, negative and large accumulators, padding with a zero point, models of others."""

import numpy as np
import pytest
from c_nets import conv, finish, requantisation
from c_programs import assert_same_bits
from program_nets import INT8, INT32, UINT8, Net, images_for

from ohmfold.errors import UnsupportedError
from ohmfold.toolchain import program as p
from ohmfold.toolchain.targets.c99 import generate


@pytest.mark.parametrize("name", ["gcc", "s390x"])
@pytest.mark.parametrize("zero_point", [0, 7])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_padded_strided_dilated_grouped(groups, zero_point, name):
    net = Net(np.random.default_rng(groups), (4, 9, 8), zero_point=zero_point)
    conv(net, 8, pads=(1, 2, 2, 0), requantise=requantisation(0.01, 131))
    conv(net, 8, kernel=(3, 2), pads=(2, 1, 2, 1), strides=(2, 1), dilations=(2, 3), groups=groups,
         requantise=requantisation(np.linspace(0.002, 0.02, 8).reshape(8, 1, 1), 5))  # fmt: skip
    conv(net, 8, pads=(1, 1, 1, 1), groups=8, requantise=requantisation(0.02, 250))
    program = finish(net)
    assert_same_bits(program, images_for(program, 5), name)


def test_one_dimensional_convolutions_and_pools():
    net = Net(np.random.default_rng(0), (3, 21))
    conv(net, 6, kernel=(5,), pads=(2, 3), strides=(2,), dilations=(1,), requantise=requantisation(0.01, 128))
    net.add(p.MaxPool, (6, 6), kernel=(2,), strides=(2,), pads=(1, 0), dilations=(1,), ceil_mode=False)
    conv(net, 20, kernel=(3,), pads=(1, 1), strides=(1,), dilations=(1,), requantise=requantisation(0.01))
    conv(
        net,
        20,
        kernel=(3,),
        pads=(2, 2),
        strides=(1,),
        dilations=(2,),
        groups=20,
        requantise=requantisation(0.03),
    )
    program = finish(net)
    assert_same_bits(program, images_for(program, 5))


def test_int8_codes():
    net = Net(np.random.default_rng(1), (2, 7, 7))
    conv(net, 4, requantise=requantisation(0.01, -3, INT8))
    net.add(
        p.MaxPool,
        (4, 3, 3),
        kernel=(3, 3),
        strides=(2, 2),
        pads=(1, 1, 1, 1),
        dilations=(1, 1),
        ceil_mode=False,
    )
    net.add(p.Table, (4, 3, 3), table=net.rng.integers(-128, 128, 256).astype(np.int8))
    conv(net, 4, pads=(1, 1, 1, 1), requantise=requantisation(0.02, 4, INT8))
    net.add(p.WeightedSum, (4, 3, 3), dtype=INT32, multipliers=(-77,), zero_points=(4,))
    net.add(
        p.Requantise,
        (4, 3, 3),
        dtype=INT8,
        zero_point=-128,
        bias=None,
        requantisation=requantisation(0.01, -128, INT8),
    )
    program = finish(net)
    assert_same_bits(program, images_for(program, 6), "gcc-sanitised")


@pytest.mark.parametrize("name", ["gcc", "clang", "riscv64", "cortex-m3"])
def test_ties_signs_and_limits_of_requantisation(name):
    net = Net(np.random.default_rng(2), (1, 16, 16))
    accumulators = []
    for multiplier in (1, -3, 4096, 30001):
        words = net.add(
            p.WeightedSum, (1, 16, 16), dtype=INT32, inputs=("pixels",), multipliers=(multiplier,), zero_points=(128,)
        )  # fmt: skip
        accumulators.append(words)
    outputs = []
    for words in accumulators:
        for factor, zero in (
            (0.5, 0),
            (-0.5, 128),
            (0.25, 255),
            (1.5, 3),
            (2.0**-20, 7),
            (1 / 3, 128),
            (1e-30, 9),
        ):
            outputs.append(
                net.add(
                    p.Requantise, (1, 16, 16), dtype=UINT8, inputs=(words,), bias=np.array(-1, np.int32),
                    requantisation=requantisation(factor, zero),
                )
            )  # fmt: skip
    net.add(p.Concat, (len(outputs), 16, 16), inputs=tuple(outputs), dtype=UINT8, zero_point=0, axis=1)
    conv(net, 2, kernel=(1, 1), requantise=requantisation(0.01, 100))
    program = finish(net)
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert_same_bits(program, images, name)


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_padding_as_long_as_the_arena_has_words_is_no_warning(name):
    net = Net(np.random.default_rng(0), (4, 2, 2), zero_point=7)
    net.add(p.Pad, (4, 3, 2), pads=(0, 0, 0, 0, 0, 0, 1, 0), value=7)
    conv(net, 2, kernel=(1, 1), requantise=requantisation(0.01, 100))
    program = finish(net)
    source = str(generate(program, measure=False).files["network.c"])
    assert "arena[24]" in source
    assert ", 7, 24)" in source
    assert_same_bits(program, images_for(program, 5), name)


def test_accumulators_that_float32_rounds():
    net = Net(np.random.default_rng(3), (3000,))
    weight = net.rng.integers(100, 128, (3000, 12)).astype(np.int8)
    net.add(p.Dense, (12,), dtype=UINT8, weight=weight, bias=np.arange(12, dtype=np.int32), input_zero_point=0,
            accumulator="sum", requantisation=requantisation(2.7e-6, 0))  # fmt: skip
    program = finish(net)
    images = images_for(program, 40)
    found, _ = assert_same_bits(program, images)
    assert np.abs(found["sum"]).max() > 1 << 24


def test_an_accumulator_that_is_read_twice_is_kept_and_requantised():
    net = Net(np.random.default_rng(4), (4, 5, 5))
    first = conv(net, 4, kernel=(1, 1), requantise=requantisation(0.05, 128))
    second = conv(net, 4, kernel=(1, 1), requantise=requantisation(0.05, 128))
    words = net.add(p.WeightedSum, (4, 5, 5), dtype=INT32, inputs=(first, second), multipliers=(300, -32767),
                    zero_points=(128, 128))  # fmt: skip
    skip = net.add(p.Requantise, (4, 5, 5), dtype=UINT8, inputs=(words,), bias=None,
                   requantisation=requantisation(3e-5, 128))  # fmt: skip
    bias = net.rng.integers(-(1 << 20), 1 << 20, (4, 1, 1)).astype(np.int32)
    net.add(p.Requantise, (4, 5, 5), dtype=UINT8, zero_point=0, inputs=(words,), bias=bias,
            requantisation=requantisation(np.array([1e-5, -2e-5, 3e-5, 1e-7]).reshape(4, 1, 1)))  # fmt: skip
    normalised = conv(net, 4, kernel=(3, 3), pads=(1, 1, 1, 1), requantise=requantisation(0.03, 90))
    net.add(
        p.WeightedSum,
        (4, 5, 5),
        dtype=INT32,
        inputs=(skip, normalised),
        multipliers=(1, 2),
        zero_points=(128, 90),
    )
    net.add(p.SpatialSum, (4, 1, 1), dtype=INT32, inputs=(normalised,), input_zero_point=90)
    net.add(
        p.Requantise,
        (4, 1, 1),
        dtype=UINT8,
        zero_point=128,
        bias=None,
        requantisation=requantisation(0.02, 128),
    )
    program = finish(net)
    assert_same_bits(program, images_for(program, 5), "clang")


def test_moves():
    net = Net(np.random.default_rng(5), (6, 4, 5), zero_point=3)
    a, b, c = (net.new(UINT8, (n, 4, 5)) for n in (1, 3, 2))
    net.layers.append(p.Split(name="split", inputs=("pixels",), outputs=(a, b, c), axis=1, sizes=(1, 3, 2)))
    net.add(p.Pad, (3, 6, 4), inputs=(b,), pads=(0, 0, 1, -1, 0, 0, 1, 0), value=9)
    padded = net.add(p.Transpose, (3, 4, 6), permutation=(0, 1, 3, 2))
    turned = net.add(p.Reshape, (3, 4, 6), inputs=(padded,), shape=(0, 3, 4, 6))
    other = net.add(p.Concat, (3, 4, 5), inputs=(c, a), axis=1)
    net.add(p.Concat, (3, 4, 11), inputs=(turned, other), axis=-1)
    conv(net, 6, requantise=requantisation(0.02, 120))
    shape = net.shape
    net.add(p.Reshape, (shape[0] * shape[1], shape[2]), shape=(0, -1, shape[2]))
    weight = net.rng.integers(-3, 4, (shape[2], 3)).astype(np.int8)
    net.add(p.Dense, (shape[0] * shape[1], 3), dtype=UINT8, zero_point=7, weight=weight, bias=None,
            input_zero_point=120, requantisation=requantisation(0.05, 7))  # fmt: skip
    program = finish(net)
    assert_same_bits(program, images_for(program, 5), "gcc-sanitised")


def test_shuffled_channels():
    net = Net(np.random.default_rng(6), (6, 3, 3))
    net.add(p.Reshape, (2, 3, 3, 3), shape=(0, 2, 3, 3, 3))
    net.add(p.Transpose, (3, 2, 3, 3), permutation=(0, 2, 1, 3, 4))
    net.add(p.Reshape, (6, 3, 3), shape=(0, 6, 3, 3))
    conv(net, 4, requantise=requantisation(0.02, 10))
    program = finish(net)
    assert_same_bits(program, images_for(program, 3))


@pytest.mark.parametrize("dtype", [UINT8, INT8])
@pytest.mark.parametrize("include", [False, True])
def test_average_pools_and_sums_of_other_makers(dtype, include):
    net = Net(np.random.default_rng(7), (3, 8, 8))
    low = np.iinfo(dtype).min
    first = conv(net, 3, kernel=(1, 1), requantise=requantisation(0.3, low + 100, dtype))
    second = conv(net, 3, kernel=(1, 1), requantise=requantisation(0.2, low + 30, dtype))
    table = net.rng.integers(low, low + 256, (256, 256)).astype(dtype)
    net.add(p.QuantisedAdd, (3, 8, 8), inputs=(first, second), multipliers=(np.float32(1), np.float32(1)),
            zero_points=(0, 0), output_zero_point=0, table=table)  # fmt: skip
    pooled = net.new(dtype, (3, 5, 4))
    net.layers.append(
        p.AveragePool(
            name="pool", inputs=(net.name,), outputs=(pooled,), kernel=(3, 2), strides=(2, 2), pads=(1, 0, 2, 0),
            ceil_mode=False, count_include_pad=include, input_scale=np.float32(0.037), input_zero_point=low + 11,
            output_scale=np.float32(0.031), output_zero_point=low + 20, dtype=dtype,
        )
    )  # fmt: skip
    net.name, net.shape, net.zero_point = pooled, (3, 5, 4), low + 20
    program = finish(net)
    assert_same_bits(program, images_for(program, 4))


def test_partial_sums_beyond_int32_are_computed_in_int64():
    net = Net(np.random.default_rng(8), (50_000,))
    conv_like = np.zeros((50_000, 2), np.int8)
    conv_like[:, 0], conv_like[::2, 1] = 127, -128
    conv_like[1::2, 1] = 127
    net.zero_point = 128
    net.add(p.Dense, (2,), dtype=UINT8, weight=conv_like, bias=None, input_zero_point=128, accumulator="sum",
            zero_point=0, requantisation=requantisation(1e-6, 128))  # fmt: skip
    program = finish(net)
    _, library = assert_same_bits(program, images_for(program, 3))
    assert any("int64" in note for note in library.notes)


def refused(program, match):
    with pytest.raises(UnsupportedError, match=match):
        generate(program, measure=False)


def test_unsupported_layers_are_named_with_the_reason():
    net = Net(np.random.default_rng(9), (4,))
    weight = np.full((4, 3), 200, np.int16)
    codes = net.add(
        p.Dense, (3,), dtype=INT32, weight=weight, bias=None, input_zero_point=0, requantisation=None
    )
    logits = net.add(p.Scale, (3,), dtype=np.float32, multiplier=np.float32(1))
    refused(net.program(logits, codes), r"layer_t1.*Dense.*200 to 200 do not fit int8")

    net = Net(np.random.default_rng(9), (4,))
    name = net.add(p.Operator, (4,), dtype=np.float32, op_type="Softmax", attributes={}, operands=("pixels",))
    refused(net.program(name), r"layer_t1.*Operator.*Softmax has no C form")

    net = Net(np.random.default_rng(9), (4,), dtype=np.dtype(np.float32))
    name = net.add(p.Scale, (4,), dtype=np.float32, multiplier=np.float32(1))
    refused(net.program(name), "takes pixels: float32.*uint8 pixels")
    refused(p.Program(net.program(name).inputs, (), (), {}, None), "takes pixels")


def test_a_program_without_logits_is_refused():
    net = Net(np.random.default_rng(9), (4,))
    name = net.add(p.Table, (4,), table=np.arange(256).astype(np.uint8))
    program = net.program(name)
    refused(p.Program(program.inputs, program.outputs, program.layers, program.tensors), "no float32 logits")
