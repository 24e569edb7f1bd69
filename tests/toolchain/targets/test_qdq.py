"""Q/DQ: equal bits where every scale is a power of two, one code at most elsewhere, and refusals."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from program_nets import Net
from random_networks import networks
from small_models import parsed
from target_nets import blobs, codes_of, digits_artifact, layer_by_layer, residual_artifact, some_images

from ohmfold.errors import OhmfoldError, TargetError
from ohmfold.toolchain import program as p
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.compiler import compile as compile_artifact
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.recipe import Recipe
from ohmfold.toolchain.targets import find_target
from ohmfold.toolchain.witness import LEVELS, run_onnxruntime, run_reference_evaluator

TARGET = find_target("qdq")


def built(artifact):
    found = TARGET.build(artifact, TARGET.options())
    return found.files["qdq.onnx"], found


def metadata(model):
    return {entry.key: json.loads(entry.value) for entry in onnx.load_model_from_string(model).metadata_props}


def assert_same_bits(artifact, images):
    model, _ = built(artifact)
    trace, pixels = Emulator(artifact).trace(images), artifact.program.inputs[0].name
    names, logits = codes_of(artifact), artifact.program.logits
    for level in LEVELS:
        for expose in (names, ()):
            found = run_onnxruntime(model, {pixels: images}, level=level, expose=expose)
            for name in (*expose, logits):
                assert found[name].dtype == trace[name].dtype
                assert np.array_equal(found[name], trace[name]), (level, name)
    outcome = run_reference_evaluator(model, {pixels: images})
    assert not set(outcome.skipped) & {*names, logits}
    for name in (*names, logits):
        assert np.array_equal(outcome.values[name], trace[name]), name


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 7])
def test_power_of_two_artifacts_have_the_same_bits_everywhere(bits) -> None:
    artifact = residual_artifact(scales="pow2", weight_bits=bits)
    assert metadata(built(artifact)[0])["ohmfold.bit_equal"] == {
        "everywhere": True,
        "otherwise": None,
        "reasons": [],
    }
    assert_same_bits(artifact, some_images(9, seed=bits))


@pytest.mark.parametrize("options", [{"levels": "log2"}, {"granularity": "channel"}, {"input": "float32"}])
def test_so_they_do_with_other_weights_and_inputs(options) -> None:
    artifact = residual_artifact(scales="pow2", **options)
    assert metadata(built(artifact)[0])["ohmfold.bit_equal"]["everywhere"]
    images = some_images(9)
    assert_same_bits(
        artifact, images if "input" not in options else images.astype(np.float32) / np.float32(256)
    )


def test_the_mnist_cnn_with_power_of_two_scales_has_the_same_bits_everywhere() -> None:
    assert_same_bits(digits_artifact("pow2"), blobs(6, seed=5))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_whatever_promises_equal_bits_has_them(drawn) -> None:
    model, images = drawn
    try:
        artifact = compile_artifact(ir.from_proto(model), images, Recipe(scales="pow2"))
        model, found = built(artifact)
    except OhmfoldError:
        return  # this network cannot be brought to powers of two, or ends in codes
    if not found.summary["bit_equal"]["everywhere"]:
        assert all("24" in reason for reason in found.summary["bit_equal"]["reasons"]), (
            "of 24 bits or past 2^24"
        )
        return
    trace, pixels = Emulator(artifact).trace(images), artifact.program.inputs[0].name
    for level in LEVELS:
        outputs = run_onnxruntime(model, {pixels: images}, level=level, expose=codes_of(artifact))
        for name in codes_of(artifact):
            assert np.array_equal(outputs[name], trace[name]), (level, name)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_every_layer_of_any_artifact_is_off_by_one_code_at_most(drawn) -> None:
    model, images = drawn
    try:
        artifact = compile_artifact(ir.from_proto(model), images, Recipe())
        model, _ = built(artifact)
    except OhmfoldError:
        return
    trace = Emulator(artifact).trace(images)
    for name, codes in layer_by_layer(model, artifact, trace).items():
        assert np.abs(codes.astype(np.int64) - trace[name]).max(initial=0) <= 1, name


@pytest.mark.parametrize(
    "artifact", [residual_artifact, digits_artifact, lambda: residual_artifact(anything=True)]
)
def test_other_artifacts_say_why_they_are_not_equal_and_are_off_by_one_code_at_most(artifact) -> None:
    artifact = artifact()
    model, found = built(artifact)
    promise = metadata(model)["ohmfold.bit_equal"]
    assert (promise["everywhere"], promise["otherwise"]) == (False, "up to float rounding")
    assert any("is not a power of two" in reason for reason in promise["reasons"])
    assert "up to float rounding" in found.notes[0]
    images = blobs(4) if artifact is digits_artifact() else some_images(9)
    trace = Emulator(artifact).trace(images)
    made = layer_by_layer(model, artifact, trace)
    assert set(made) == set(codes_of(artifact))
    differing = 0
    for name, codes in made.items():
        off = np.abs(codes.astype(np.int64) - trace[name])
        assert off.max() <= 1, name
        differing += np.count_nonzero(off)
    assert differing < 0.01 * sum(codes.size for codes in made.values())


def test_the_model_is_standard_onnx_with_int8_weights_and_the_names_of_the_artifact() -> None:
    artifact = residual_artifact()
    proto = onnx.load_model_from_string(built(artifact)[0])
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    weights = [t for t in proto.graph.initializer if t.name.endswith(".codes")]
    assert len(weights) == 5
    assert {t.data_type for t in weights} == {onnx.TensorProto.INT8}
    written = {name for node in proto.graph.node if node.op_type == "QuantizeLinear" for name in node.output}
    assert written == set(codes_of(artifact))
    said = metadata(built(artifact)[0])
    assert said["ohmfold.target"] == "qdq"
    assert said["ohmfold.artifact_sha256"] == artifact.sha256
    activations = artifact.metadata()["activations"]
    for name, meaning in said["ohmfold.codes"].items():
        assert meaning == pytest.approx(activations[name.removesuffix(".codes")], rel=1e-7), name
    assert "ohmfold.schema" not in said, "it must not pass for an artifact"


def test_an_addition_reads_codes_and_nothing_is_multiplied_around_it() -> None:
    nodes = onnx.load_model_from_string(built(residual_artifact())[0]).graph.node
    assert "Mul" not in {node.op_type for node in nodes}


def test_our_own_reader_takes_it(tmp_path) -> None:
    artifact = residual_artifact(scales="pow2")
    (tmp_path / "qdq.onnx").write_bytes(built(artifact)[0])
    images = some_images(9)
    expected = Emulator(artifact)(images)
    assert np.array_equal(Emulator(tmp_path / "qdq.onnx")(images), expected)


def test_a_bound_past_24_bits_is_a_doubt() -> None:
    artifact = residual_artifact(scales="pow2")
    layers = list(artifact.program.layers)
    index = next(i for i, layer in enumerate(layers) if isinstance(layer, p.Conv))
    layers[index] = replace(layers[index], bias=np.array([1 << 24, 0, 0, 0], np.int32))
    changed = _Given(replace(artifact.program, layers=tuple(layers)), artifact.model)
    reasons = TARGET.build(changed, TARGET.options()).summary["bit_equal"]["reasons"]
    assert any("past 2^24" in reason for reason in reasons)
    assert any("passes 2^24" in reason for reason in reasons)


def test_weights_past_64_are_a_doubt() -> None:
    found = TARGET.build(residual_artifact(scales="pow2", weight_bits=8), TARGET.options())
    assert any("without VNNI" in reason for reason in found.summary["bit_equal"]["reasons"])


class _Given:
    """What a target takes of an artifact."""

    sha256 = "0" * 64

    def __init__(self, program, model):
        self.program, self.model = program, model

    def metadata(self):
        return {}


def refused(program, match):
    model = parsed("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    with pytest.raises(TargetError, match=match):
        TARGET.build(_Given(program, model), TARGET.options())


def test_codes_with_two_zero_points_are_refused() -> None:
    net = Net(np.random.default_rng(0), (2, 4, 4))
    twice = {"inputs": ("pixels", "pixels"), "multipliers": (1, 1), "zero_points": (0, 3)}
    net.add(p.WeightedSum, (2, 4, 4), dtype=np.int32, **twice)
    net.add(p.Scale, (2, 4, 4), dtype=np.float32, multiplier=np.float32(1))
    refused(net.program(net.name), "takes 3 for the zero of 'pixels', another layer takes 0")


def test_integers_at_the_output_are_refused() -> None:
    net = Net(np.random.default_rng(0), (2, 4, 4))
    net.add(p.SpatialSum, (2, 1, 1), dtype=np.int32, input_zero_point=0)
    refused(net.program(net.name), "the output .* holds integers")


def test_layers_of_others_without_a_form_are_refused_by_name() -> None:
    net = Net(np.random.default_rng(0), (2, 4, 4))
    one = np.float32(1)
    pooled = net.new(np.uint8, (2, 2, 2))
    net.layers.append(
        p.AveragePool(
            name="pool", inputs=("pixels",), outputs=(pooled,), kernel=(2, 2), strides=(2, 2), pads=(0,) * 4,
            ceil_mode=False, count_include_pad=False, input_scale=one, input_zero_point=0, output_scale=one,
            output_zero_point=0, dtype=np.dtype(np.uint8),
        )
    )  # fmt: skip
    refused(net.program(pooled), r"layer 'pool' \(AveragePool\): it has no form with reals")


def test_weights_that_do_not_fit_int8_are_refused() -> None:
    net = Net(np.random.default_rng(0), (4,))
    net.add(
        p.Dense, (2,), dtype=np.int32, weight=np.full((4, 2), 200, np.int16), bias=None, input_zero_point=0,
        requantisation=None,
    )  # fmt: skip
    net.add(p.Scale, (2,), dtype=np.float32, multiplier=np.float32(1))
    refused(net.program(net.name), "do not fit int8")


def test_scales_that_nothing_tells_are_chosen_and_the_bits_stay() -> None:
    """A program without metadata, whose additions say how scales relate."""
    artifact = residual_artifact(scales="pow2")
    bare = _Given(artifact.program, artifact.model)
    model = TARGET.build(bare, TARGET.options())
    assert model.summary["bit_equal"]["everywhere"], model.summary
    images = some_images(9)
    trace = Emulator(artifact).trace(images)
    found = run_onnxruntime(
        model.files["qdq.onnx"], {"pixels": images}, level="all", expose=codes_of(artifact)
    )
    for name in (*codes_of(artifact), "logits"):
        assert np.array_equal(found[name], trace[name]), name


def test_the_file_is_the_same_each_time() -> None:
    assert built(residual_artifact())[0] == built(residual_artifact())[0]
    assert isinstance(residual_artifact(), Artifact)
