"""QONNX, evaluated by ONNX's reference evaluator with a `Quant` written from its specification."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from random_networks import networks
from target_nets import blobs, codes_of, digits_artifact, residual_artifact, some_images

from ohmfold.errors import OhmfoldError, TargetError
from ohmfold.toolchain.compiler import compile as compile_artifact
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.recipe import Recipe
from ohmfold.toolchain.targets import find_target
from ohmfold.toolchain.targets.qonnx import DOMAIN, weight_width

TARGET = find_target("qonnx")


class Quant(OpRun):
    """y = (round(clip(x / s + z, low, high)) - z) s, all in float32; round is half to even for "ROUND"."""

    op_domain = DOMAIN

    def _run(self, x, scale, zero_point, bits, signed=None, narrow=None, rounding_mode=None):
        assert rounding_mode == "ROUND"
        assert {a.dtype for a in (x, scale, zero_point, bits)} == {np.dtype(np.float32)}
        assert np.ndim(bits) == np.ndim(zero_point) == 0
        high = 2 ** (int(bits) - signed) - 1 - (narrow if not signed else 0)
        low = -(2 ** (int(bits) - 1)) + narrow if signed else 0
        codes = np.round(np.clip(x / scale + zero_point, np.float32(low), np.float32(high)))
        return ((codes - zero_point) * scale,)


def built(artifact):
    found = TARGET.build(artifact, TARGET.options())
    return onnx.load_model_from_string(found.files["qonnx.onnx"]), found


def said(model):
    return {entry.key.removeprefix("ohmfold."): json.loads(entry.value) for entry in model.metadata_props}


def run(artifact, images):
    """Codes of every tensor and the logits, as the QONNX model computes them, and as the emulator does."""
    model, _ = built(artifact)
    meanings, pixels = said(model)["codes"], artifact.program.inputs[0].name
    reals = images
    if pixels in meanings:
        assert meanings[pixels]["zero_point"] == 0
        reals = images.astype(np.float32) * np.float32(meanings[pixels]["scale"])
    found = ReferenceEvaluator(model, new_ops=[Quant]).run(None, {pixels: reals}, intermediate=True)
    codes = {
        name: found[name] / np.float64(meanings[name]["scale"]) + meanings[name]["zero_point"]
        for name in codes_of(artifact)
    }
    return codes | {"logits": found[artifact.program.logits]}, Emulator(artifact).trace(images)


def assert_same_bits(artifact, images):
    found, trace = run(artifact, images)
    for name, values in found.items():
        assert np.array_equal(values, trace[artifact.program.logits if name == "logits" else name]), name


OTHERS = [{"levels": "log2"}, {"granularity": "channel"}]


@pytest.mark.parametrize("options", [*({"weight_bits": bits} for bits in (1, 3, 8)), *OTHERS])
def test_power_of_two_artifacts_have_the_same_bits(options) -> None:
    artifact = residual_artifact(scales="pow2", **options)
    assert said(built(artifact)[0])["bit_equal"] == {"everywhere": True, "otherwise": None, "reasons": []}
    assert_same_bits(artifact, some_images(9))


def test_a_float_input_stays_one() -> None:
    artifact = residual_artifact(scales="pow2", input="float32")
    assert_same_bits(artifact, np.random.default_rng(0).uniform(0, 1, (5, 2, 8, 8)).astype(np.float32))


def test_the_mnist_cnn_with_power_of_two_scales_has_the_same_bits() -> None:
    assert_same_bits(digits_artifact("pow2"), blobs(2, seed=5))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_whatever_promises_equal_bits_has_them(drawn) -> None:
    model, images = drawn
    try:
        artifact = compile_artifact(ir.from_proto(model), images, Recipe(scales="pow2"))
        _, found = built(artifact)
    except OhmfoldError:
        return  # this network cannot be brought to powers of two, or holds a table
    if not found.summary["bit_equal"]["everywhere"]:
        assert all("24" in reason for reason in found.summary["bit_equal"]["reasons"]), (
            "of 24 bits or past 2^24"
        )
        return
    if artifact.program.logits in (spec.name for spec in artifact.program.outputs):
        assert_same_bits(artifact, images)


def test_other_artifacts_say_that_bits_may_differ() -> None:
    artifact = residual_artifact()
    promise = said(built(artifact)[0])["bit_equal"]
    assert (promise["everywhere"], promise["otherwise"]) == (False, "up to float rounding")
    found, trace = run(artifact, some_images(9))
    for name in codes_of(artifact):
        codes = np.rint(found[name])
        assert np.abs(found[name] - codes).max() < 1e-3, "they lie on the grid up to float rounding"
        assert np.abs(codes - trace[name]).max() <= 1, name


def test_weights_carry_their_own_width() -> None:
    model, _ = built(residual_artifact())
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [node for node in model.graph.node if node.op_type == "Quant" and node.input[0] in constants]
    assert len(weights) == 5
    for node in weights:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes == {"signed": 1, "narrow": 1, "rounding_mode": b"ROUND"}
        assert (constants[node.input[2]], constants[node.input[3]]) == (0, 3)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([-1, 1], (2, True)), ([0], (2, True)), ([-3, 3], (3, True)), ([-4, 3], (3, False)), ([-2, 1], (2, False)),
     ([-127, 5], (8, True)), ([-128], (8, False)), ([0, 64], (8, True))],
)  # fmt: skip
def test_a_width_is_the_least_that_holds_the_codes(codes, expected) -> None:
    assert weight_width(np.array(codes, np.int8)) == expected


def test_codes_about_128_become_signed_codes_about_zero() -> None:
    artifact = residual_artifact(scales="pow2")
    model, _ = built(artifact)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    signed = {
        node.output[0]: (onnx.helper.get_node_attr_value(node, "signed"), float(constants[node.input[2]]))
        for node in model.graph.node
        if node.op_type == "Quant"
    }
    for name, meaning in said(model)["codes"].items():
        if name in signed:
            assert signed[name] == (int(meaning["zero_point"] == 128), 0.0)
    assert {signed[name][0] for name in codes_of(artifact) if name in signed} == {0, 1}


def test_domain_and_names_are_those_that_the_tools_expect() -> None:
    artifact = residual_artifact()
    model, _ = built(artifact)
    onnx.checker.check_model(model)
    assert {(o.domain, o.version) for o in model.opset_import} == {("", 21), ("qonnx.custom_op.general", 1)}
    assert {node.op_type for node in model.graph.node if node.domain} == {"Quant"}
    assert set(codes_of(artifact)) <= {name for node in model.graph.node for name in node.output}
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_a_table_is_refused_by_name() -> None:
    artifact = residual_artifact(activation="LeakyRelu")
    with pytest.raises(TargetError, match=r"\(Table\): a function given as a table .* has no form in QONNX"):
        TARGET.check(artifact, TARGET.options())
