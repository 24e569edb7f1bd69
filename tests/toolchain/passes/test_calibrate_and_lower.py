"""Scales, zero points and the integer graph: the contract's formulas on small models."""

import json

import numpy as np
import onnx_ir as ir
import pytest
from small_models import parsed, run_float

import ohmfold
from ohmfold.errors import DataError, ModelError, RangeError, UnsupportedError
from ohmfold.toolchain.passes.calibrate_activations import ACTIVATIONS_KEY, choose_limit
from ohmfold.toolchain.program import Conv, Dense, Requantise, Scale, Table, WeightedSum

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (16, 2, 6, 6)).astype(np.uint8)


def weights(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def compiled(text, images=IMAGES, recipe=None, **arrays):
    model = parsed(text, **arrays)
    return ohmfold.compile(model, images, recipe or ohmfold.Recipe())


def layer(artifact, kind, index=0):
    return [found for found in artifact.program.layers if isinstance(found, kind)][index]


CONV_RELU = """g (float[n,2,6,6] pixels) => (float[n,3] logits) {
    a = Conv(pixels, c1__weight, c1__bias) b = Relu(a) d = Conv(b, c2__weight) e = GlobalAveragePool(d)
    f = Flatten(e) logits = Gemm(f, fc__weight) }"""


def conv_relu_arrays():
    return {
        "c1__weight": weights(4, 2, 3, 3),
        "c1__bias": weights(4),
        "c2__weight": weights(3, 4, 3, 3),
        "fc__weight": weights(3, 3),
    }


def test_zero_point_is_0_after_relu_and_128_where_signed():
    artifact = compiled(CONV_RELU, **conv_relu_arrays())
    chosen = artifact.metadata()["activations"]
    assert chosen["pixels"] == {"scale": float(np.float32(1 / 255)), "zero_point": 0}
    assert chosen["b"]["zero_point"] == 0
    assert chosen["d"]["zero_point"] == 128
    assert "a" not in chosen


def test_min_max_scales_put_the_largest_value_on_the_outermost_code():
    arrays = conv_relu_arrays()
    artifact = compiled(CONV_RELU, recipe=ohmfold.Recipe(weight_bits=8, granularity="channel"), **arrays)
    codes = ohmfold.Emulator(artifact).trace(IMAGES)["b.codes"]
    assert codes.max() == 255


def test_multipliers_and_biases_are_the_contracts():
    arrays = conv_relu_arrays()
    artifact = compiled(CONV_RELU, **arrays)
    conv = layer(artifact, Conv)
    chosen = artifact.metadata()["activations"]
    step = np.float32(np.abs(arrays["c1__weight"].astype(np.float64)).max() / 3)
    s_x, s_y = np.float32(1 / 255), np.float32(chosen["b"]["scale"])
    assert conv.requantisation.multiplier == np.float32(np.float32(s_x * step) / s_y)
    expected = np.rint(arrays["c1__bias"].astype(np.float64) / (np.float64(s_x) * np.float64(step)))
    assert np.array_equal(conv.bias, expected.astype(np.int32))
    scale = layer(artifact, Scale)
    dense = layer(artifact, Dense)
    assert dense.requantisation is None
    s_in = np.float32(chosen["e"]["scale"])
    w_step = np.float32(np.abs(arrays["fc__weight"].astype(np.float64)).max() / 3)
    assert scale.multiplier == np.float32(s_in * w_step)


def test_wide_weights_are_stored_so_that_no_kernel_saturates():
    arrays = conv_relu_arrays()
    narrow = compiled(CONV_RELU, recipe=ohmfold.Recipe(weight_bits=7), **arrays)
    wide = compiled(CONV_RELU, recipe=ohmfold.Recipe(weight_bits=8), **arrays)
    dtype = dict.fromkeys(("c1.codes", "c2.codes", "fc.codes"), ir.DataType.INT8)
    assert {n: narrow.model.graph.initializers[n].dtype for n in dtype} == dtype
    assert all(wide.model.graph.initializers[n].dtype == ir.DataType.UINT8 for n in dtype)
    assert (wide.model.graph.initializers["c1.codes_zero_point"].const_value.numpy() == 128).all()


ADD = """g (float[n,2,6,6] pixels) => (float[n,2] logits) {
    a = Conv<pads=[1,1,1,1]>(pixels, w1) b = Relu(a) c = Conv<pads=[1,1,1,1]>(b, w2) d = Add(b, c)
    h = BatchNormalization(d, g, s, m, v) r = Relu(h) k = Conv<pads=[1,1,1,1]>(r, w3) e = Add(d, k)
    p = GlobalAveragePool(e) logits = Flatten(p) }"""


def add_arrays(gamma):
    return {
        "w1": weights(2, 2, 3, 3), "w2": weights(2, 2, 3, 3), "w3": weights(2, 2, 3, 3),
        "g": np.array(gamma, np.float32), "s": np.array([0.5, -0.25], np.float32),
        "m": np.array([0.1, 0.2], np.float32), "v": np.array([1.0, 2.0], np.float32),
    }  # fmt: skip


def test_one_residual_sum_is_requantised_for_the_skip_path_and_for_the_batch_norm():
    artifact = compiled(ADD, **add_arrays([1.0, -0.7]))
    first = layer(artifact, WeightedSum)
    readers = [found for found in artifact.program.layers if first.output in found.inputs]
    assert len(readers) == 2
    assert all(isinstance(reader, Requantise) for reader in readers)
    skip = next(reader for reader in readers if reader.bias is None)
    normed = next(reader for reader in readers if reader.bias is not None)
    assert skip.requantisation.multiplier.size == 1
    assert normed.bias.shape == (2, 1, 1)
    assert (np.sign(normed.requantisation.multiplier.reshape(-1)) == [1, -1]).all()
    assert all(0 < m < 2**15 for m in first.multipliers)


@pytest.mark.parametrize("gamma", [0.0, 1e-30])
def test_a_channel_whose_gamma_is_nothing_keeps_its_beta_within_a_code(gamma):
    arrays = {**add_arrays([1.0, gamma]), "s": np.array([0.5, 1.0], np.float32)}
    artifact = compiled(ADD, **arrays)
    assert any("floor" in line for line in artifact.notes)
    codes = ohmfold.Emulator(artifact).trace(IMAGES)["r.codes"][:, 1].astype(int)
    scale = artifact.metadata()["activations"]["r"]["scale"]
    assert np.abs(codes - 1.0 / scale).max() <= 1.5  # half a code of rounding, one of the floor


def test_a_small_gamma_beside_a_large_beta_keeps_its_signal():
    arrays = {**add_arrays([0.02, -0.02]), "s": np.array([1.5, -1.5], np.float32)}
    model = parsed(ADD, **arrays)
    wanted = run_float(model, pixels=IMAGES.astype(np.float32) / np.float32(255))
    recipe = ohmfold.Recipe(weight_bits=8, granularity="channel")
    got = ohmfold.Emulator(ohmfold.compile(model, IMAGES, recipe))(IMAGES)
    assert np.square(wanted - got).sum() < 1e-3 * np.square(wanted).sum()


@pytest.mark.parametrize("gamma", [[1.0, -0.7], [1e-30, 0.0]])
def test_residual_bounds_stay_exact_in_float32(gamma):
    artifact = compiled(ADD, **add_arrays(gamma))
    assert max(artifact.metadata()["ranges"].values()) < 2**24


def test_leaky_relu_is_a_table_of_its_rounded_values():
    artifact = compiled(
        """g (float[n,2,6,6] pixels) => (float[n,2] logits) {
            a = Conv(pixels, w) b = LeakyRelu<alpha=0.1>(a) p = GlobalAveragePool(b) logits = Flatten(p) }""",
        w=weights(2, 2, 3, 3),
    )
    chosen = artifact.metadata()["activations"]
    s_a, s_b = (np.float64(np.float32(chosen[n]["scale"])) for n in "ab")
    real = (np.arange(256) - 128) * s_a
    alpha = float(np.float32(0.1))
    expected = np.clip(np.rint(np.where(real < 0, alpha * real, real) / s_b) + 128, 0, 255)
    assert np.array_equal(layer(artifact, Table).table, expected.astype(np.uint8))


def test_concatenated_values_share_one_scale():
    artifact = compiled(
        """g (float[n,2,6,6] pixels) => (float[n,5] logits) {
            a = Conv(pixels, w) b = Relu(a) c = Conv(pixels, u) d = Concat<axis=1>(b, c)
            p = GlobalAveragePool(d) logits = Flatten(p) }""",
        w=weights(2, 2, 3, 3), u=weights(3, 2, 3, 3),
    )  # fmt: skip
    chosen = artifact.metadata()["activations"]
    assert chosen["b"] == chosen["c"] == chosen["d"]
    assert chosen["d"]["zero_point"] == 128


def test_power_of_two_mode_leaves_only_powers_of_two():
    recipe = ohmfold.Recipe(scales="pow2")
    artifact = compiled(CONV_RELU.replace("e = GlobalAveragePool(d)\n    f = Flatten(e) logits = Gemm(f, fc__weight)",
                                          "f = Flatten(d) logits = Gemm(f, fc__weight)"),
                        recipe=recipe, **{**conv_relu_arrays(), "fc__weight": weights(12, 3)})  # fmt: skip
    scales = [found["scale"] for found in artifact.metadata()["activations"].values()]
    assert artifact.metadata()["activations"]["pixels"]["scale"] == 2**-8
    assert all(np.frexp(scale)[0] == 0.5 for scale in scales)
    conv = layer(artifact, Conv)
    assert np.frexp(conv.requantisation.multiplier)[0] == 0.5


def test_power_of_two_mode_refuses_what_it_cannot_keep():
    recipe = ohmfold.Recipe(scales="pow2")
    with pytest.raises(UnsupportedError, match=r"BatchNormalization.*powers of two"):
        compiled(ADD, recipe=recipe, **add_arrays([1.0, 0.7]))


def test_float32_input_puts_a_quantiser_at_the_entry():
    artifact = compiled(CONV_RELU, recipe=ohmfold.Recipe(input="float32"), **conv_relu_arrays())
    assert artifact.program.inputs[0].dtype == np.float32
    pixels = IMAGES.astype(np.float32) / np.float32(255)
    plain = compiled(CONV_RELU, **conv_relu_arrays())
    assert artifact.model.graph[0].op_type == "QuantizeLinear"
    assert plain.model.graph[0].op_type == "QLinearConv"
    assert ohmfold.Emulator(artifact)(pixels).shape == (16, 3)


def test_a_float_tail_is_kept():
    text = CONV_RELU.replace(
        "logits = Gemm(f, fc__weight)", "z = Gemm(f, fc__weight) logits = Softmax<axis=1>(z)"
    )
    artifact = compiled(text, **conv_relu_arrays())
    assert artifact.model.graph[-1].op_type == "Softmax"
    assert artifact.program.logits == "z"
    emulator = ohmfold.Emulator(artifact)
    probabilities = emulator.run({"pixels": IMAGES})["logits"]
    assert np.allclose(
        probabilities.sum(axis=1), 1, atol=1e-5
    )  # Softmax is rounded: float32 sums of exponentials
    assert np.array_equal(emulator(IMAGES).argmax(axis=1), probabilities.argmax(axis=1))


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (IMAGES[:0], DataError, "empty"),
        (IMAGES.astype(np.float32), DataError, "float32, expected a uint8"),
        (IMAGES[:, :1], DataError, "shape"),
        (IMAGES[:, :, :, 0], DataError, "shape"),
    ],
)
def test_calibration_images_that_do_not_fit_are_refused(images, error, words):
    with pytest.raises(error, match=words):
        compiled(CONV_RELU, images=images, **conv_relu_arrays())


def test_an_accumulator_that_could_leave_int32_is_refused_with_layer_and_channel():
    text = "g (float[n,70000] pixels) => (float[n,2] logits) { logits = MatMul(pixels, fc__weight) }"
    w = np.ones((70000, 2), np.float32)
    w[:, 0] = 0.01
    with pytest.raises(RangeError, match=r"layer 'fc': the accumulator of channel 1 can reach 22669500"):
        compiled(
            text, images=np.zeros((1, 70000), np.uint8), recipe=ohmfold.Recipe(weight_bits=8), fc__weight=w
        )


def test_layers_past_two_to_the_24_are_named_in_the_report():
    text = "g (float[n,9000] pixels) => (float[n,2] logits) { logits = MatMul(pixels, fc__weight) }"
    artifact = compiled(
        text, images=np.zeros((1, 9000), np.uint8), recipe=ohmfold.Recipe(weight_bits=5),
        fc__weight=np.ones((9000, 2), np.float32),
    )  # fmt: skip
    assert artifact.metadata()["ranges"] == {"fc": 9000 * 15 * 255}
    assert any("past 2^24" in line for line in artifact.notes)


def test_values_that_overflow_on_a_calibration_image_are_refused():
    text = "g (float[n,4] pixels) => (float[n,2] logits) { a = MatMul(pixels, w) b = Relu(a) logits = MatMul(b, u) }"
    with pytest.raises(ModelError, match="overflows"):
        compiled(
            text, images=np.full((2, 4), 255, np.uint8), recipe=ohmfold.Recipe(weight_bits=8),
            w=np.full((4, 3), 3e38, np.float32), u=weights(3, 2),
        )  # fmt: skip


@pytest.mark.parametrize("method", ["min-max", "percentile", "mse"])
def test_limits_lie_within_what_was_seen(method):
    histogram, edges = np.histogram(np.abs(RNG.standard_normal(10_000)), bins=4096)
    limit = choose_limit(histogram, edges[-1], 255, method, 99.0)
    assert 0 < limit <= edges[-1]
    if method == "percentile":
        assert abs(limit - 2.576) < 0.1  # 99 % of |standard normal| lie below 2.576
    if method == "min-max":
        assert limit == edges[-1]


def test_the_report_of_activations_is_json_by_value_name():
    artifact = compiled(CONV_RELU, **conv_relu_arrays())
    stored = json.loads(artifact.model.metadata_props[ACTIVATIONS_KEY])
    assert set(stored) == {"pixels", "b", "d", "e", "f"}


def test_bias_correction_brings_the_mean_output_back():
    arrays = conv_relu_arrays()
    model = parsed(CONV_RELU, **arrays)

    wanted = run_float(model, pixels=IMAGES.astype(np.float32) / np.float32(255)).mean(axis=0)
    errors = {}
    for corrected in (False, True):
        recipe = ohmfold.Recipe(weight_bits=2, bias_correction=corrected)
        logits = ohmfold.Emulator(ohmfold.compile(model, IMAGES, recipe))(IMAGES)
        errors[corrected] = np.abs(logits.mean(axis=0) - wanted).max()
    assert errors[True] < 0.3 * errors[False]
