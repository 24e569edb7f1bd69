import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from ohmfold.errors import DataError, ModelError
from ohmfold.toolchain.analysis.layers import activation_errors, layer_rows
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.compiler import compile as compile_model
from ohmfold.toolchain.recipe import Recipe

NET = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[N, 2, 6, 6] pixels) => (float[N, 3] logits) {
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (pixels, first_weight, first_bias)
        b = Relu (a)
        c = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (b)
        d = Flatten (c)
        logits = Gemm (d, last_weight, last_bias)
    }
"""
FOREIGN = """
    <ir_version: 10, opset_import: ["" : 21]>
    g (uint8[N, 4] x) => (int32[N, 2] y) { y = MatMulInteger (x, w) }
"""


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(7)
    return {
        "first_weight": random.normal(0, 0.3, (4, 2, 3, 3)).astype(np.float32),
        "first_bias": random.normal(0, 0.1, 4).astype(np.float32),
        "last_weight": random.normal(0, 0.2, (36, 3)).astype(np.float32),
        "last_bias": random.normal(0, 0.1, 3).astype(np.float32),
    }


def parsed(text, constants):
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.from_proto(model)


@pytest.fixture(scope="module")
def model(weights):
    return parsed(NET, weights)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (150, 2, 6, 6)).astype(np.uint8)


@pytest.fixture(scope="module")
def artifact(model, images):
    return compile_model(model, images[:40])


def test_there_is_a_row_for_each_layer_with_weights_and_none_for_the_average_pool(artifact):
    assert len(list(artifact.program.weighted_layers())) == 3
    assert [(row.name, row.kind, row.shape) for row in layer_rows(artifact)] == [
        ("first", "conv", (4, 2, 3, 3)),
        ("last", "dense", (36, 3)),
    ]


def test_codes_are_counted_and_steps_are_those_of_the_paper(artifact, weights):
    for row in layer_rows(artifact):
        real = weights[f"{row.name}_weight"].astype(np.float64)
        step = float(np.float32(np.abs(real).max() / 3))
        codes = np.rint(real / step).astype(int).ravel().tolist()
        assert dict(zip(row.codes, row.counts, strict=True)) == {c: codes.count(c) for c in set(codes)}
        assert list(row.codes) == sorted(row.codes)
        assert row.step_low == row.step_high
        # Dense steps are divided out of a float32 multiplier.
        assert row.step_low == pytest.approx(step, rel=3e-7)
        assert "3 bits, linear" in row.options


def test_steps_by_channel_are_given_as_a_range(model, images, weights):
    artifact = compile_model(model, images[:40], Recipe(granularity="channel"))
    for row in layer_rows(artifact):
        real = weights[f"{row.name}_weight"]
        axes = (1, 2, 3) if row.kind == "conv" else 0
        steps = np.abs(real).max(axis=axes) / 3
        assert row.step_low == pytest.approx(steps.min(), rel=3e-7)
        assert row.step_high == pytest.approx(steps.max(), rel=3e-7)


def test_weight_errors_are_those_of_the_codes_that_are_stored(artifact, weights):
    stored = {layer.name: layer.weight for layer in artifact.program.weighted_layers()}
    for row in layer_rows(artifact):
        real = weights[f"{row.name}_weight"].astype(np.float64)
        error = real - row.step_low * stored[row.name]
        matrix = error.reshape(4, -1) if row.kind == "conv" else error.T
        # The metadata hold six digits.
        assert row.spectral_error == pytest.approx(np.linalg.norm(matrix, 2), rel=5.5e-6)
        assert row.infinity_error == pytest.approx(np.linalg.norm(matrix, np.inf), rel=5.5e-6)
        assert row.weight_snr_db == pytest.approx(
            10 * np.log10((real**2).sum() / (error**2).sum()), rel=5.5e-6
        )


def test_bounds_hold_on_the_worst_input(artifact):
    rows = {row.name: row for row in layer_rows(artifact)}
    layer = list(artifact.program.weighted_layers())[-1]
    codes = layer.weight.astype(np.int64)
    products = np.maximum(np.maximum(codes, 0).sum(axis=0), -np.minimum(codes, 0).sum(axis=0)) * 255
    assert rows["last"].bound >= products.max()
    assert rows["last"].bound <= products.max() + np.abs(layer.bias).max()
    assert rows["last"].exact_in_float32


def test_a_model_made_by_others_tells_what_it_can():
    codes = np.array([[1, -2], [0, 5], [-1, 1], [1, 1]], np.int8)
    (row,) = layer_rows(Artifact(parsed(FOREIGN, {"w": codes})))
    assert (row.codes, row.counts) == ((-2, -1, 0, 1, 5), (1, 1, 1, 4, 1))
    assert row.options == "as in the model file"
    assert row.step_low is row.step_high is row.spectral_error is row.weight_snr_db is None
    assert row.bound == 255 * 7


def run(model, names, feed):
    proto = onnx.ModelProto()
    proto.CopyFrom(ir.to_proto(model))
    outputs = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, feed), strict=True))


def test_activation_errors_are_those_between_two_onnxruntime_runs(artifact, model, images):
    found = {error.name: error for error in activation_errors(artifact, model, images)}
    assert list(found) == ["b", "c", "d", "logits"]
    wanted = run(model, list(found), {"pixels": images.astype(np.float32) * np.float32(1 / 255)})
    got = run(artifact.model, [error.tensor for error in found.values()], {"pixels": images})
    scales = artifact.metadata()["activations"]
    for name, error in found.items():
        meaning = scales.get(name, {"scale": 1.0, "zero_point": 0})
        values = (got[error.tensor].astype(np.float64) - meaning["zero_point"]) * meaning["scale"]
        difference = values - wanted[name]
        # onnxruntime may sum the float model in another order for another batch size: float32 rounding.
        assert error.max_abs_error == pytest.approx(np.abs(difference).max(), rel=1e-4)
        assert error.mean_abs_error == pytest.approx(np.abs(difference).mean(), rel=1e-4)
        snr = 10 * np.log10((wanted[name].astype(np.float64) ** 2).sum() / (difference**2).sum())
        assert error.snr_db == pytest.approx(snr, abs=1e-3)


def test_more_bits_leave_less_error_and_reach_the_rows(model, images):
    snr = {}
    for bits in (2, 7):
        artifact = compile_model(model, images[:40], Recipe(weight_bits=bits))
        errors = activation_errors(artifact, model, images[:32])
        snr[bits] = [row.activation_snr_db for row in layer_rows(artifact, errors)]
        assert snr[bits] == [errors[0].snr_db, errors[-1].snr_db]
    assert all(few + 10 < many for few, many in zip(snr[2], snr[7], strict=True))


def test_values_that_the_float_model_lacks_are_listed_without_figures(artifact, weights, images):
    renamed = parsed(NET.replace("b = Relu", "other = Relu").replace("(b)", "(other)"), weights)
    first, *rest = activation_errors(artifact, renamed, images[:8])
    assert first.name == "b"
    assert first.snr_db is first.max_abs_error is first.mean_abs_error is None
    assert all(error.max_abs_error is not None for error in rest)


def test_a_model_file_gives_the_same_as_the_model(artifact, model, images, tmp_path):
    path = tmp_path / "float.onnx"
    path.write_bytes(ir.to_proto(model).SerializeToString())
    assert activation_errors(artifact, path, images[:8]) == activation_errors(artifact, model, images[:8])


def test_an_artifact_that_takes_floats_is_fed_with_floats(artifact, model, images):
    floats = compile_model(model, images[:40], Recipe(input="float32"))
    assert activation_errors(floats, model, images[:8]) == activation_errors(artifact, model, images[:8])


@pytest.mark.parametrize("scales", ["float", "pow2"])
def test_moved_pixels_are_left_out_because_both_models_are_fed_with_them(scales, images):
    text = """
        <ir_version: 10, opset_import: ["" : 21]>
        net (float[N, 2, 6, 6] pixels) => (float[N, 3] logits) {
            flat = Flatten (pixels)
            hidden = Gemm (flat, w)
            positive = Relu (hidden)
            logits = Gemm (positive, v)
        }
    """
    random = np.random.default_rng(1)
    constants = {"w": random.normal(0, 0.1, (72, 8)), "v": random.normal(0, 0.1, (8, 3))}
    model = parsed(text, {name: array.astype(np.float32) for name, array in constants.items()})
    artifact = compile_model(model, images, Recipe(weight_bits=7, scales=scales))
    errors = activation_errors(artifact, model, images)
    assert [error.name for error in errors] == ["positive", "logits"]
    assert all(error.snr_db > 20 for error in errors)


@pytest.mark.parametrize("bad", [np.zeros((0, 2, 6, 6), np.uint8), np.zeros((1, 2, 6, 6), np.float32), [1]])
def test_images_that_are_no_pixel_codes_are_refused(artifact, model, bad):
    with pytest.raises(DataError, match="expected a non-empty uint8 array"):
        activation_errors(artifact, model, bad)


def test_a_float_model_for_other_images_is_refused_in_one_line(artifact, weights, images):
    fixed = parsed(NET.replace("float[N, 2, 6, 6]", "float[1, 2, 6, 6]"), weights)
    with pytest.raises(ModelError, match="free batch dimension") as caught:
        activation_errors(artifact, fixed, images)
    assert "\n" not in str(caught.value)


def test_a_model_without_scales_is_refused(model, images):
    foreign = Artifact(parsed(FOREIGN, {"w": np.ones((4, 2), np.int8)}))
    with pytest.raises(ModelError, match="does not tell the scales"):
        activation_errors(foreign, model, images)
