"""Folding constants, spellings, normalisation and batch norms changes no result beyond float rounding."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from random_networks import networks
from small_models import operators, parsed, run_float

from ohmfold.errors import ModelError, UnsupportedError
from ohmfold.toolchain.graph import attribute, constant, notes_of
from ohmfold.toolchain.passes import (
    CanonicalisePass,
    FoldBatchNormPass,
    FoldConstantsPass,
    FoldNormalisationPass,
    NameLayersPass,
    apply,
)

RNG = np.random.default_rng(0)


def weights(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def pixels_of(codes):
    return codes.astype(np.float32) / np.float32(255)


def folded(model, *passes):
    for pass_ in (NameLayersPass(), FoldConstantsPass(), CanonicalisePass(), *passes):
        apply(pass_, model)
    return model


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(networks())
def test_all_folds_together_keep_the_float_results(drawn):
    proto, images = drawn
    model = ir.from_proto(proto)
    before = run_float(model, pixels=pixels_of(images))
    folded(model, FoldNormalisationPass(), FoldBatchNormPass())
    after = run_float(model, pixels=pixels_of(images))
    if before.dtype == np.int64 or any("pads with pixel codes" in line for line in notes_of(model)):
        assert before.shape == after.shape  # padding by the nearest code and ties of ArgMax move results
        return
    # float32 sums in another order: a few ulp of the largest intermediate value, which BatchNorm can magnify
    assert np.allclose(before, after, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(before).max())))


def test_dense_spellings_become_one_gemm():
    w, b = weights(4, 3), weights(3)
    texts = {
        "logits = Gemm(pixels, w, b)": {"w": w, "b": b},
        "logits = Gemm<transB=1>(pixels, w, b)": {"w": w.T, "b": b},
        "logits = Gemm<alpha=2.0, beta=4.0>(pixels, w, b)": {"w": w / 2, "b": b / 4},
        "y = MatMul(pixels, w) logits = Add(y, b)": {"w": w, "b": b},
        "y = MatMul(pixels, w) logits = Add(b, y)": {"w": w, "b": b.reshape(1, 3)},
    }
    for body, arrays in texts.items():
        model = parsed(f"g (float[n,4] pixels) => (float[n,3] logits) {{ {body} }}", **arrays)
        folded(model, FoldBatchNormPass())
        assert operators(model) == ["Gemm"], body
        node = model.graph[0]
        assert np.array_equal(constant(node.inputs[1]), w)
        assert np.array_equal(constant(node.inputs[2]), b)
        assert node.outputs[0].name == "logits"


def test_batch_norm_goes_into_the_convolution_before_it_in_float64():
    w, b = weights(2, 1, 3, 3), weights(2)
    g, s, m, v = weights(2), weights(2), weights(2), np.array([0.3, 2.0], np.float32)
    model = parsed(
        """g (float[n,1,5,5] pixels) => (float[n,2,3,3] logits) {
            y = Conv(pixels, w, b) logits = BatchNormalization<epsilon=0.001>(y, g, s, m, v) }""",
        w=w, b=b, g=g, s=s, m=m, v=v,
    )  # fmt: skip
    folded(model, FoldBatchNormPass())
    assert operators(model) == ["Conv"]
    a = g.astype(np.float64) / np.sqrt(v.astype(np.float64) + float(np.float32(0.001)))
    assert np.array_equal(constant(model.graph[0].inputs[1]), (w * a[:, None, None, None]).astype(np.float32))
    assert np.array_equal(constant(model.graph[0].inputs[2]), (a * b + (s - a * m)).astype(np.float32))


def test_a_batch_norm_whose_input_has_other_readers_stays_as_one_node():
    one = np.ones(2, np.float32)
    model = parsed(
        """g (float[n,2,4,4] pixels) => (float[n,2,4,4] logits) {
            y = Conv<pads=[1,1,1,1]>(pixels, w) z = BatchNormalization(y, g, s, m, v) k = Mul(z, two)
            logits = Add(y, k) }""",
        w=weights(2, 2, 3, 3), g=one, s=one, m=one, v=one, two=np.float32(2),
    )  # fmt: skip
    folded(model, FoldBatchNormPass())
    assert operators(model) == ["Conv", "BatchNormalization", "Add"]
    assert not constant(model.graph[1].inputs[3]).any()
    assert (constant(model.graph[1].inputs[4]) == 1).all()


def test_normalisation_with_one_mean_pads_with_the_nearest_code():
    model = parsed(
        """g (float[n,2,4,4] pixels) => (float[n,1,4,4] logits) {
            c = Sub(pixels, mean) d = Div(c, std) logits = Conv<pads=[1,1,1,1]>(d, w) }""",
        mean=np.float32(0.1307), std=np.float32(0.3081), w=weights(1, 2, 3, 3),
    )  # fmt: skip
    folded(model, FoldNormalisationPass())
    assert operators(model) == ["Pad", "Conv"]
    assert float(constant(model.graph[0].inputs[2])) == np.float32(33 / 255)  # 0.1307 * 255 = 33.3
    assert list(attribute(model.graph[1], "pads")) == [0, 0, 0, 0]
    assert any("pixel codes [33, 33]" in line for line in notes_of(model))


def test_normalisation_with_several_means_pads_each_channel_with_its_own_code():
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
    model = parsed(
        """g (float[n,3,4,4] pixels) => (float[n,2,4,4] logits) {
            c = Sub(pixels, mean) d = Div(c, std) logits = Conv<pads=[1,1,1,1]>(d, w) }""",
        mean=mean, std=std, w=weights(2, 3, 3, 3),
    )  # fmt: skip
    codes = np.random.default_rng(1).integers(0, 256, (3, 3, 4, 4))
    inside = run_float(model, pixels=pixels_of(codes))[:, :, 1:-1, 1:-1]
    folded(model, FoldNormalisationPass())
    assert operators(model) == ["Split", "Pad", "Pad", "Pad", "Concat", "Conv"]
    fills = [round(255 * float(constant(n.inputs[2]))) for n in model.graph if n.op_type == "Pad"]
    assert fills == [124, 116, 104]
    # away from the border nothing but float32 rounding may differ
    assert np.allclose(
        run_float(model, pixels=pixels_of(codes))[:, :, 1:-1, 1:-1], inside, rtol=1e-4, atol=1e-4
    )


def test_power_of_two_mode_puts_256_over_255_into_the_first_weights():
    w = weights(1, 1, 3, 3)
    model = parsed("g (float[n,1,4,4] pixels) => (float[n,1,2,2] logits) { logits = Conv(pixels, w) }", w=w)
    folded(model, FoldNormalisationPass(power_of_two=True))
    assert np.array_equal(
        constant(model.graph[0].inputs[1]), (w.astype(np.float64) * 256 / 255).astype(np.float32)
    )


def test_zero_padding_moves_into_the_convolutions_that_read_it():
    model = parsed(
        """g (float[n,1,4,4] pixels) => (float[n,1,5,7] logits) {
            p = Pad(pixels, amounts) logits = Conv<pads=[0,1,0,1]>(p, w) }""",
        amounts=np.array([0, 0, 1, 0, 0, 0, 2, 1], np.int64), w=weights(1, 1, 3, 1),
    )  # fmt: skip
    folded(model)
    assert operators(model) == ["Conv"]
    assert list(attribute(model.graph[0], "pads")) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("body", "arrays", "words"),
    [
        ("y = Conv(pixels, w) logits = Erf(y)", {}, "node .*Erf.*: not supported; supported are Add"),
        (
            'p = Pad<mode="reflect">(pixels, a) logits = Conv(p, w)',
            {"a": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
            "reflect",
        ),
        ("y = Conv(pixels, w) logits = Mul(y, y)", {}, "constant operand"),
        ("y = Conv(pixels, w) z = GlobalAveragePool(y) logits = Add(y, z)", {}, "equal"),
        ("y = Conv(pixels, w) logits = ReduceMean(y, a)", {"a": np.array([1])}, "all spatial axes"),
        ("y = Conv(pixels, w) logits = MatMul(y, y)", {}, "not constant"),
        ("y = Conv(pixels, w) logits = Div(y, z)", {"z": np.zeros((1, 1, 1, 1), np.float32)}, "holds 0"),
    ],
)
def test_what_has_no_integer_form_is_refused_by_node_operator_and_reason(body, arrays, words):
    model = parsed(
        f"g (float[n,1,4,4] pixels) => (float[n,a,b,c] logits) {{ {body} }}", w=weights(1, 1, 1, 1), **arrays
    )
    with pytest.raises((UnsupportedError, ModelError), match=words):
        folded(model, FoldBatchNormPass())


def test_a_model_without_weights_is_refused():
    model = parsed("g (float[n,4] pixels) => (float[n,4] logits) { logits = Relu(pixels) }")
    with pytest.raises(ModelError, match="nothing to compile"):
        apply(NameLayersPass(), model)


def test_layers_are_named_after_the_module_that_holds_the_weights():
    model = parsed(
        """g (float[n,2] pixels) => (float[n,2] logits) {
            a = MatMul(pixels, features__0__weight) b = MatMul(a, features__0__weight) logits = MatMul(b, plain) }""",
        features__0__weight=weights(2, 2), plain=weights(2, 2),
    )  # fmt: skip
    apply(NameLayersPass(), model)
    names = [node.name for node in model.graph]
    assert names[:2] == ["features.0", "features.0#2"]
