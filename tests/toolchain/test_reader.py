"""Every pattern that the reader lifts, against onnxruntime at all its levels."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from integer_models import Z, bias, build, codes, f32, read, steps, weights

from ohmfold.toolchain.comparison import compare
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import (
    Concat,
    Conv,
    Dense,
    Dequantise,
    MaxPool,
    Operator,
    Pad,
    Quantise,
    Requantise,
    Reshape,
    Scale,
    SpatialSum,
    Split,
    Table,
    Transpose,
    WeightedSum,
)
from ohmfold.toolchain.reader import read_program
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.witness import LEVELS, OnnxRuntime


def layer_types(program):
    return [type(layer) for layer in program.layers]


def verify(model, **inputs):
    """Emulator and slow reference equal onnxruntime: every tensor at each level, and the outputs alone."""
    program = read(model)
    expected = run_reference(program, inputs)
    data = model.SerializeToString()
    written = {name for node in model.graph.node for name in node.output}
    traced = {name: value for name, value in expected.items() if name in written}
    outputs = {spec.name: expected[spec.name] for spec in program.outputs}
    for level in LEVELS:
        exposed = compare(traced, OnnxRuntime(data, level, expose=traced).run(inputs))
        assert exposed.equal, f"{level}, exposed: {exposed}"
        plain = compare(outputs, OnnxRuntime(data, level).run(inputs))
        assert plain.equal, f"{level}: {plain}"
    emulated = compare(outputs, Emulator(program, threads=1).run(inputs))
    assert emulated.equal, f"emulator: {emulated}"
    for name, spec in program.tensors.items():
        if name in expected:
            assert spec.dtype == expected[name].dtype
            if spec.shape is not None:
                assert len(spec.shape) == expected[name].ndim
    return program


# Products.


def test_q_linear_conv_becomes_a_conv_with_one_multiplier_per_channel():
    scale = steps(4)
    model = build(
        "(uint8[N,3,9,8] x) => (uint8[N,4,H,W] y)",
        "y = QLinearConv<pads=[1,0,2,1], strides=[2,1], dilations=[1,2]>(x, xs, z7, w, ws, wz, ys, z128, b)",
        xs=f32(0.3), w=weights(4, 3, 3, 2), ws=scale, wz=np.zeros(4, np.int8), ys=f32(7.0), b=bias(4), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(2, 3, 9, 8))
    (layer,) = program.layers
    assert isinstance(layer, Conv)
    assert layer.requantisation.multiplier.shape == (4, 1, 1)
    by_hand = (f32(0.3) * scale).astype(f32) / f32(7.0)
    np.testing.assert_array_equal(layer.requantisation.multiplier.reshape(-1), by_hand)
    np.testing.assert_array_equal(layer.weight_scale, scale)
    assert (layer.input_zero_point, layer.requantisation.zero_point) == (7, 128)
    assert (layer.strides, layer.pads, layer.dilations) == ((2, 1), (1, 0, 2, 1), (1, 2))


def test_uint8_weights_of_zero_point_128_are_the_int8_weights_themselves():
    weight = codes(4, 2, 3, 3, low=-128, high=128, dtype=np.int8)
    model = build(
        "(uint8[N,2,6,6] x) => (uint8[N,4,4,4] y)",
        "y = QLinearConv(x, xs, z, w, ws, z128, ys, z128, b)",
        xs=f32(1), w=(weight.astype(np.int16) + 128).astype(np.uint8), ws=f32(2**-9), ys=f32(1), b=bias(4),
        **Z,
    )  # fmt: skip
    (layer,) = verify(model, x=codes(3, 2, 6, 6)).layers
    assert layer.weight.dtype == np.int8
    np.testing.assert_array_equal(layer.weight, weight)


def test_weights_that_leave_int8_are_kept_in_int16():
    model = build(
        "(uint8[N,5] x) => (int32[N,3] y)",
        "y = MatMulInteger(x, w, z7, wz)",
        w=codes(5, 3), wz=codes(3, low=0, high=40), **Z,
    )  # fmt: skip
    (layer,) = verify(model, x=codes(4, 5)).layers
    assert layer.weight.dtype == np.int16


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_auto_pad_is_resolved_from_the_static_shape(auto_pad, stride):
    model = build(
        "(uint8[N,2,7,10] x) => (uint8[N,3,H,W] y)",
        f'y = QLinearConv<auto_pad="{auto_pad}", strides=[{stride},{stride}]>'
        "(x, xs, z7, w, ws, wz, ys, z, b)",
        xs=f32(1), w=weights(3, 2, 4, 3), ws=f32(0.01), wz=np.int8(0), ys=f32(2), b=bias(3), **Z,
    )  # fmt: skip
    verify(model, x=codes(2, 2, 7, 10))


def test_conv_integer_alone_gives_its_accumulator():
    model = build(
        "(uint8[N,2,5,5] x) => (int32[N,3,4,4] y)", "y = ConvInteger(x, w, z7)", w=weights(3, 2, 2, 2), **Z
    )
    (layer,) = verify(model, x=codes(2, 2, 5, 5)).layers
    assert isinstance(layer, Conv)
    assert layer.requantisation is None


def test_a_convolution_as_logits_ends_in_a_scale():
    model = build(
        "(uint8[N,2,5,5] x) => (float[N,3,1,1] y)",
        "c = ConvInteger(x, w, z)  s = Add(c, b)  f = Cast<to=1>(s)  y = Mul(f, m)",
        w=weights(3, 2, 5, 5), b=bias(1, 3, 1, 1), m=steps(3, 1, 1), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(2, 2, 5, 5))
    assert layer_types(program) == [Conv, Scale]
    np.testing.assert_array_equal(program.layers[0].bias, bias(3))
    assert program.layers[1].input == "s"
    assert program.layers[1].multiplier.shape == (3, 1, 1)


def test_dense_with_bias_and_requantisation_is_one_layer():
    model = build(
        "(uint8[N,6] x) => (uint8[N,4] y)",
        "p = MatMulInteger(x, w, z7)  s = Add(b, p)  f = Cast<to=1>(s)  g = Mul(m, f)"
        " y = QuantizeLinear(g, one, z128)",
        w=weights(6, 4), b=bias(4), m=steps(4), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(5, 6))
    (layer,) = program.layers
    assert isinstance(layer, Dense)
    assert (layer.output, layer.accumulator) == ("y", "s")
    assert layer.requantisation.multiplier.shape == (4,)


def test_dense_weights_of_zero_point_128_and_int8_codes_out():
    model = build(
        "(uint8[N,6] x) => (int8[N,4] y)",
        "p = MatMulInteger(x, w, z7, z128)  f = Cast<to=1>(p)  g = Mul(f, m)  y = QuantizeLinear(g, one, yz)",
        w=codes(6, 4), m=f32(0.001), yz=np.int8(-5), **Z,
    )  # fmt: skip
    (layer,) = verify(model, x=codes(5, 6)).layers
    assert layer.requantisation.dtype == np.int8
    assert layer.requantisation.multiplier.shape == ()


def test_dense_without_requantisation_makes_logits_and_codes():
    model = build(
        "(uint8[N,6] x) => (float[N,4] y)",
        "p = MatMulInteger(x, w, z)  s = Add(p, b)  f = Cast<to=1>(s)  y = Mul(f, m)",
        w=weights(6, 4), b=bias(4), m=f32(0.017), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(5, 6))
    assert layer_types(program) == [Dense, Scale]
    assert (program.logits, program.codes) == ("y", "s")


def test_an_accumulator_that_is_also_a_graph_output_is_still_written():
    model = build(
        "(uint8[N,6] x) => (uint8[N,4] y, int32[N,4] s, float[N,4] g)",
        "p = MatMulInteger(x, w, z)  s = Add(p, b)  f = Cast<to=1>(s)  g = Mul(f, m)"
        " y = QuantizeLinear(g, one, z)",
        w=weights(6, 4), b=bias(4), m=f32(0.01), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(5, 6))
    assert sorted(kind.__name__ for kind in layer_types(program)) == ["Dense", "Requantise", "Scale"]


def test_a_product_that_is_read_before_and_after_its_bias_keeps_both_values():
    model = build(
        "(uint8[N,6] x) => (int32[N,4] p, int32[N,4] s)",
        "p = MatMulInteger(x, w, z)  s = Add(p, b)",
        w=weights(6, 4), b=bias(4), **Z,
    )  # fmt: skip
    verify(model, x=codes(5, 6))


@pytest.mark.parametrize("rank", [2, 3, 4])
def test_q_linear_mat_mul_runs_over_the_last_axis_of_any_rank(rank):
    lead = ["N", "3", "2"][: rank - 1]
    model = build(
        f"(uint8[{','.join(lead)},6] x) => (uint8[{','.join(lead)},4] y)",
        "y = QLinearMatMul(x, xs, z7, w, ws, wz, ys, z128)",
        xs=f32(0.1), w=weights(6, 4), ws=steps(4), wz=np.zeros(4, np.int8), ys=f32(0.5), **Z,
    )  # fmt: skip
    shape = (2, 3, 2)[: rank - 1]
    (layer,) = verify(model, x=codes(*shape, 6)).layers
    assert isinstance(layer, Dense)


def test_a_single_row_may_come_without_a_batch():
    model = build("(uint8[6] x) => (int32[4] y)", "y = MatMulInteger(x, w, z7)", w=weights(6, 4), **Z)
    verify(model, x=codes(6))


def test_int8_codes_are_multiplied_too():
    model = build(
        "(int8[N,2,5,5] x) => (int8[N,3,4,4] y)",
        "y = QLinearConv(x, xs, xz, w, ws, wz, ys, xz, b)",
        xs=f32(0.3), xz=np.int8(-3), w=weights(3, 2, 2, 2), ws=steps(3), wz=np.zeros(3, np.int8), ys=f32(7),
        b=bias(3),
    )  # fmt: skip
    verify(model, x=codes(2, 2, 5, 5, low=-128, high=128, dtype=np.int8))


# Sums.

SUM = """
    ai = Cast<to=6>(a)  as = Sub(ai, za)  am = Mul(as, ma)
    bi = Cast<to=6>(b)  bm = Mul(bi, mb)  s = Add(am, bm)
"""
REQUANTISE = "f = Cast<to=1>(s)  g = Mul(f, m)  y = QuantizeLinear(g, one, z7)"


def test_a_residual_addition_is_a_weighted_sum_and_a_requantisation():
    model = build(
        "(uint8[N,3,4,4] a, uint8[N,3,4,4] b) => (uint8[N,3,4,4] y)",
        f"{SUM} {REQUANTISE}",
        za=np.int32(128), ma=np.int32(20011), mb=np.int32(17), m=f32(3e-5), **Z,
    )  # fmt: skip
    program = verify(model, a=codes(2, 3, 4, 4), b=codes(2, 3, 4, 4, seed=5))
    assert layer_types(program) == [WeightedSum, Requantise]
    total = program.layers[0]
    assert (total.inputs, total.multipliers, total.zero_points) == (("a", "b"), (20011, 17), (128, 0))


def test_one_sum_is_requantised_twice_with_a_batch_norm_behind_one_of_them():
    model = build(
        "(uint8[N,3,4,4] a, uint8[N,3,4,4] b) => (uint8[N,3,4,4] y, uint8[N,3,4,4] y2)",
        f"{SUM} {REQUANTISE} s2 = Add(s, c)  f2 = Cast<to=1>(s2)  g2 = Mul(f2, mc)"
        " y2 = QuantizeLinear(g2, one, z128)",
        za=np.int32(0), ma=np.int32(301), mb=np.int32(257), m=f32(1e-3), c=bias(3, 1, 1) * 10,
        mc=steps(3, 1, 1) * np.array([1, -1, 0.5], f32).reshape(3, 1, 1), **Z,
    )  # fmt: skip
    program = verify(model, a=codes(2, 3, 4, 4), b=codes(2, 3, 4, 4, seed=5))
    assert layer_types(program) == [WeightedSum, Requantise, Requantise]
    assert {layer.input for layer in program.layers[1:]} == {"s"}
    assert program.layers[2].bias.shape == (3, 1, 1)


def test_a_batch_norm_that_stands_alone_is_a_sum_of_one_term():
    model = build(
        "(uint8[N,3,4,4] x) => (uint8[N,3,4,4] y)",
        f"i = Cast<to=6>(x)  t = Sub(i, zx)  s = Add(t, c) {REQUANTISE}",
        zx=np.int32(9), c=bias(3, 1, 1), m=steps(1, 3, 1, 1), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(2, 3, 4, 4))
    assert layer_types(program) == [WeightedSum, Requantise]
    assert program.layers[0].zero_points == (9,)
    assert program.layers[1].requantisation.multiplier.shape == (3, 1, 1)


def test_a_biased_sum_as_logits_keeps_its_addition():
    model = build(
        "(uint8[N,4] x) => (float[N,4] y)",
        "i = Cast<to=6>(x)  t = Mul(i, two)  s = Add(t, c)  f = Cast<to=1>(s)  y = Mul(f, m)",
        two=np.int32(2), c=bias(4), m=f32(0.5), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(2, 4))
    assert layer_types(program) == [WeightedSum, Operator, Scale]
    assert program.codes == "s"


def test_an_average_pool_by_position_is_one_convolution():
    model = build(
        "(uint8[N,3,6,6] x) => (uint8[N,3,3,3] y)",
        "c = ConvInteger<group=3, strides=[2,2], pads=[1,1,0,0]>(x, w, z7)  f = Cast<to=1>(c)  g = Mul(f, m)"
        " y = QuantizeLinear(g, one, z7)",
        w=np.ones((3, 1, 3, 3), np.int8), m=steps(1, 1, 3, 3, around=0.1), **Z,
    )  # fmt: skip
    (layer,) = verify(model, x=codes(2, 3, 6, 6)).layers
    assert isinstance(layer, Conv)
    assert layer.requantisation.multiplier.shape == (1, 3, 3)


@pytest.mark.parametrize("shift", ["", "k = Sub(i, zx)"])
def test_a_global_average_pool_is_a_spatial_sum(shift):
    model = build(
        "(uint8[N,3,6,5] x) => (uint8[N,3,1,1] y)",
        f"i = Cast<to=6>(x) {shift} s = ReduceSum<keepdims=1>({'k' if shift else 'i'}, axes) {REQUANTISE}",
        zx=np.int32(128), axes=np.array([-1, 2]), m=f32(1 / 30), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(2, 3, 6, 5))
    assert layer_types(program) == [SpatialSum, Requantise]
    assert program.layers[0].input_zero_point == (128 if shift else 0)


def test_logits_behind_a_global_pool_are_found_through_the_float_reshape():
    model = build(
        "(uint8[N,3,6,5] x) => (float[N,3] y)",
        "i = Cast<to=6>(x)  s = ReduceSum(i, axes)  f = Cast<to=1>(s)  g = Mul(f, m)"
        " l = Flatten(g)  y = Softmax(l)",
        axes=np.array([2, 3]), m=f32(1 / 30),
    )  # fmt: skip
    program = read(model)
    assert (program.logits, program.codes) == ("l", "s")
    x = codes(4, 3, 6, 5)
    tensors = run_reference(program, {"x": x})
    np.testing.assert_array_equal(tensors["s"].reshape(4, 3), x.astype(np.int64).sum((2, 3)))
    assert compare(
        {"l": tensors["l"]}, OnnxRuntime(model.SerializeToString(), expose=["l"]).run({"x": x})
    ).equal


@pytest.mark.parametrize("index_type", [6, 7])
def test_a_gather_by_codes_is_a_table(index_type):
    model = build(
        "(uint8[N,3,4] x) => (uint8[N,3,4] y)",
        f"i = Cast<to={index_type}>(x)  y = Gather(t, i)",
        t=codes(256, seed=9),
    )  # fmt: skip
    (layer,) = verify(model, x=codes(2, 3, 4)).layers
    assert isinstance(layer, Table)


# Rearrangement.


def test_codes_are_rearranged_without_arithmetic():
    model = build(
        "(uint8[N,4,6,5] x) => (uint8[N,A] y, uint8[N,2,B] s1)",
        "p = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,0,0], ceil_mode=1>(x)"
        " q = Pad(x, pads, z7)  r = MaxPool<kernel_shape=[3,3], strides=[3,3]>(q)"
        " c = Concat<axis=-3>(p, r)  s0, s1x = Split<axis=1>(c, sizes)  t = Transpose<perm=[0,2,3,1]>(s0)"
        " u = Unsqueeze(t, first)  v = Squeeze(u, first)  y = Flatten(v)  s1 = Reshape(s1x, shape)",
        pads=np.array([0, 0, 1, 2, 0, 0, 2, 2]), sizes=np.array([6, 2]), first=np.array([1]),
        shape=np.array([0, 2, -1]), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(2, 4, 6, 5))
    assert layer_types(program)[:6] == [MaxPool, Pad, MaxPool, Concat, Split, Transpose]
    assert layer_types(program)[6:] == [Reshape] * 4


def test_pads_of_some_axes_are_spread_over_all():
    model = build(
        "(uint8[N,2,3,4] x) => (uint8[N,2,H,W] y)", "y = Pad(x, p, z7, a)",
        p=np.array([1, 0, 2, 3]), a=np.array([-1, 2]), **Z,
    )  # fmt: skip
    (layer,) = verify(model, x=codes(2, 2, 3, 4)).layers
    assert layer.pads == (0, 0, 0, 1, 0, 0, 3, 2)


# Ends.


def test_floats_enter_and_leave_through_quantise_and_dequantise():
    model = build(
        "(float[N,3,4,4] x) => (float[N,3,4,4] y)",
        "q = QuantizeLinear<axis=1>(x, s, zs)  y = DequantizeLinear<axis=-3>(q, s, zs)",
        s=steps(3), zs=codes(3),
    )  # fmt: skip
    program = verify(model, x=np.random.default_rng(0).normal(0, 1, (2, 3, 4, 4)).astype(f32))
    assert layer_types(program) == [Quantise, Dequantise]
    assert program.layers[0].scale.shape == (1, 3, 1, 1)


def test_a_requantisation_with_another_scale_than_one_divides():
    model = build(
        "(uint8[N,6] x) => (uint8[N,4] y)",
        "p = MatMulInteger(x, w, z)  f = Cast<to=1>(p)  g = Mul(f, m)  y = QuantizeLinear(g, half, z7)",
        w=weights(6, 4), m=f32(0.01), half=f32(0.3), **Z,
    )  # fmt: skip
    assert layer_types(verify(model, x=codes(5, 6))) == [Dense, Scale, Quantise]


def test_a_float_tail_stands_behind_the_logits():
    model = build(
        "(uint8[N,6] x) => (int64[N] y, float[N,4] relu)",
        "p = MatMulInteger(x, w, z)  f = Cast<to=1>(p)  l = Mul(f, m)  relu = Relu(l)"
        " y = ArgMax<axis=1, keepdims=0>(l)",
        w=weights(6, 4), m=f32(0.01), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(5, 6))
    assert layer_types(program) == [Dense, Scale, Operator, Operator]
    assert (program.logits, program.codes) == ("l", "p")


def test_the_logits_are_the_last_ones_before_the_tail_not_a_gate_inside():
    model = build(
        "(uint8[N,6] x) => (float[N,4] y)",
        "p = MatMulInteger(x, w, z)  f = Cast<to=1>(p)  g = Mul(f, m)  h = Relu(g)"
        " q = QuantizeLinear(h, s, z)  p2 = MatMulInteger(q, w2, z)  f2 = Cast<to=1>(p2)  y = Mul(f2, m)",
        w=weights(6, 4), w2=weights(4, 4), m=f32(0.01), s=f32(0.2), **Z,
    )  # fmt: skip
    program = verify(model, x=codes(5, 6))
    assert (program.logits, program.codes) == ("y", "p2")


def test_elementary_nodes_outside_any_pattern_run_on_their_own():
    model = build(
        "(uint8[N,6] x, float[N,6] v) => (float[N,6] y, int32[N,6] t)",
        "i = Cast<to=6>(x)  k = Mul(i, three)  t = Sub(k, i)  f = Cast<to=1>(t)  g = Mul(f, v) y = Add(g, v)",
        three=np.int32(3),
    )
    verify(model, x=codes(5, 6), v=np.random.default_rng(0).normal(0, 1, (5, 6)).astype(f32))


def test_a_shift_behind_a_multiplier_is_not_taken_for_a_zero_point():
    model = build(
        "(uint8[N,6] x) => (int32[N,6] y)",
        "i = Cast<to=6>(x)  k = Mul(i, three)  y = Sub(k, seven)",
        three=np.int32(3), seven=np.int32(7),
    )  # fmt: skip
    verify(model, x=codes(5, 6))


def test_a_second_bias_is_added_to_the_first():
    model = build(
        "(uint8[N,6] x) => (uint8[N,4] y)",
        f"p = MatMulInteger(x, w, z7)  b1 = Add(p, b)  s = Add(b1, c) {REQUANTISE}",
        w=weights(6, 4), b=bias(4), c=bias(4, seed=8), m=steps(4), **Z,
    )  # fmt: skip
    assert layer_types(verify(model, x=codes(5, 6))) == [Dense, Requantise]


def test_a_multiplier_that_varies_over_the_batch_is_an_ordinary_product():
    model = build("(int32[3,4] x) => (float[3,4] y)", "f = Cast<to=1>(x)  y = Mul(f, m)", m=steps(3, 1))
    assert layer_types(verify(model, x=bias(3, 4))) == [Operator, Operator]


# The model around them.


def test_constants_come_as_initializers_nodes_or_behind_identity():
    model = build(
        "(uint8[N,6] x) => (float[N,4] y)",
        "zp = Constant<value = uint8 {3}>()  w2 = Identity(w)  x2 = Identity(x)"
        " p = MatMulInteger(x2, w2, zp)  f = Cast<to=1>(p)  m = Constant<value_float = 0.25>()  l = Mul(f, m)"
        " y = Dropout(l)",
        w=weights(6, 4),
    )  # fmt: skip
    program = verify(model, x=codes(5, 6))
    assert layer_types(program)[:2] == [Dense, Scale]
    assert program.logits == "l"


def test_the_model_is_left_as_it_is_and_its_node_order_does_not_matter():
    model = build(
        "(uint8[N,6] x) => (float[N,4] y)",
        "y = Mul(f, m)  f = Cast<to=1>(p)  p = MatMulInteger(x, w, z)",
        w=weights(6, 4), m=f32(0.01), **Z,
    )  # fmt: skip
    source = ir.from_proto(model)
    before = ir.to_proto(source).SerializeToString(deterministic=True)
    assert layer_types(read_program(source)) == [Dense, Scale]
    assert ir.to_proto(source).SerializeToString(deterministic=True) == before


def test_free_dimensions_are_none_and_names_are_the_models():
    model = build("(uint8[batch,2,H,W] x) => (uint8[batch,2,A,B] y)", "y = MaxPool<kernel_shape=[2,2]>(x)")
    program = read(model)
    assert program.inputs[0].shape == (None, 2, None, None)
    assert set(program.tensors) == {"x", "y"}


def test_nodes_that_no_output_needs_are_not_run():
    model = build(
        "(uint8[N,4] x) => (uint8[N,4] y)", "y = Transpose<perm=[0,1]>(x)  dead = Erf(f)  f = Cast<to=1>(x)"
    )
    assert len(read(model).layers) == 1


def test_a_function_of_standard_nodes_is_inlined():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (uint8[N,4] x) => (uint8[N,4] y) { y = local.turn(x) }
        <domain: "local", opset_import: ["" : 21]>
        turn (a) => (b) { b = Transpose<perm=[0,1]>(a) }
    """)
    assert layer_types(read(model)) == [Transpose]
