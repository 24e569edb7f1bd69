"""Networks drawn over the whole operator list: every witness must compute the emulator's bits."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from random_networks import networks, recipes
from small_models import run_float

import ohmfold
from ohmfold.errors import UnsupportedError
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.witness import certify

MANY = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SOME = settings(MANY, max_examples=60)


def _compiled(drawn, recipe):
    model, images = drawn
    return ohmfold.compile(ir.from_proto(model), images, ohmfold.Recipe(**recipe)), images


def _inputs(artifact, images):
    """What the artifact takes: pixel codes, or the same pixels as float32."""
    if artifact.program.inputs[0].dtype == np.float32:
        return images.astype(np.float32) / np.float32(255)
    return images


@pytest.mark.slow
@MANY
@given(networks(), recipes())
def test_every_integer_equals_onnxruntimes_at_all_levels_batches_and_threads(drawn, recipe):
    artifact, images = _compiled(drawn, recipe)
    rows = certify(artifact, _inputs(artifact, images), batch_sizes=(1, 7), threads=(1, 2))
    assert sum(row.comparison.tensors for row in rows) > 0
    assert [row for row in rows if row.comparison.differing or row.comparison.missing] == []


@pytest.mark.slow
@SOME
@given(networks(), recipes())
def test_twin_and_plain_numpy_have_the_emulators_bits(drawn, recipe):
    artifact, images = _compiled(drawn, recipe)
    inputs = _inputs(artifact, images)
    emulator = ohmfold.Emulator(artifact)
    trace = emulator.trace(inputs)
    slow = run_reference(artifact.program, {artifact.program.inputs[0].name: inputs})
    exact = {
        name for layer in artifact.program.layers if getattr(layer, "exact", True) for name in layer.outputs
    }
    for name in exact & set(trace):
        assert np.array_equal(trace[name], slow[name]), name
    twin = ohmfold.Twin(artifact)
    assert torch.equal(twin(torch.from_numpy(images).float() / 255), torch.from_numpy(emulator(inputs)))


@pytest.mark.slow
@SOME
@given(networks(), recipes())
def test_the_onnx_reference_evaluator_agrees_where_it_implements_the_operators(drawn, recipe):
    artifact, images = _compiled(drawn, recipe)
    row = certify(artifact, _inputs(artifact, images), levels=("all",), threads=(1,), reference=True)[-1]
    assert row.witness == "onnx reference"
    assert row.comparison.tensors > 0
    assert row.comparison.differing == 0, row


@pytest.mark.slow
@SOME
@given(networks(), recipes())
def test_power_of_two_artifacts_have_only_power_of_two_multipliers_or_are_refused(drawn, recipe):
    try:
        artifact, images = _compiled(drawn, {**recipe, "scales": "pow2"})
    except UnsupportedError as refusal:
        assert "pow2" in str(refusal)  # noqa: PT017 - a refusal is one of two right answers
        assume(False)
    multipliers = [
        np.abs(found)
        for layer in artifact.program.layers
        for found in (
            getattr(getattr(layer, "requantisation", None), "multiplier", None),
            getattr(layer, "multiplier", None),
        )
        if found is not None
    ]
    assert multipliers
    assert all((np.frexp(m)[0] == 0.5).all() for m in multipliers)
    rows = certify(artifact, _inputs(artifact, images), levels=("all",), threads=(1,))
    assert all(row.comparison.differing == 0 for row in rows)


USUAL_SNR_DB, LEAST_SNR_DB = 20, 10
"""8 bits leave 25 to 60 dB on networks of this size. A few drawn ones cancel nearly all of their signal before the
logits and leave less; another function than the float model's would leave a few dB, and on many of them."""


@pytest.mark.slow
def test_the_artifact_computes_the_float_models_function():
    found = []

    @settings(MANY, max_examples=100)
    @given(networks())
    def judge(drawn):
        model, images = drawn
        assume(model.graph.node[-1].op_type != "ArgMax")
        pixels = images.astype(np.float32) / np.float32(255)
        wanted = run_float(ir.from_proto(model), pixels=pixels).astype(np.float64)
        artifact, _ = _compiled(drawn, {"weight_bits": 8, "granularity": "channel"})
        got = ohmfold.Emulator(artifact).run({"pixels": images})[artifact.program.outputs[0].name]
        signal, noise = np.square(wanted).sum(), np.square(wanted - got).sum()
        found.append(10 * np.log10(signal / noise) if noise > 0 else np.inf)

    judge()
    assert len(found) >= 60
    assert np.quantile(found, 0.05) > USUAL_SNR_DB
    assert min(found) > LEAST_SNR_DB
