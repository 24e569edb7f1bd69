"""A program with its accumulators apart computes the same bits, and what it shows are the sums."""

import numpy as np
import onnx_ir as ir
import pytest
import verified
from hypothesis import HealthCheck, given, settings
from program_nets import INT32, UINT8
from random_networks import networks

import ohmfold
from ohmfold.errors import ModelError
from ohmfold.toolchain import program as p
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.verify.accumulators import (
    Probe,
    multiply_accumulates,
    pixel_shape,
    with_accumulators,
)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(networks())
def test_the_bits_are_the_same_and_requantising_the_sums_gives_the_codes(drawn):
    model, images = drawn
    program = ohmfold.compile(ir.from_proto(model), images, ohmfold.Recipe()).program
    name = program.inputs[0].name
    apart = with_accumulators(program)
    expected, found = run_reference(program, {name: images}), run_reference(apart, {name: images})
    assert all(np.array_equal(found[tensor], expected[tensor]) for tensor in expected)
    assert not any(
        layer.requantisation is not None for layer in apart.layers if isinstance(layer, p.Conv | p.Dense)
    )
    probe = Probe(program)
    shown = probe.accumulators(images, {site.accumulator for site in probe.sites})
    for site in probe.sites:
        assert np.array_equal(shown[site.accumulator], found[site.accumulator])
        total = found[site.accumulator].astype(np.int64) + (0 if site.bias is None else site.bias)
        assert site.low <= total.min()
        assert total.max() <= site.high


def test_one_element_for_each_image_is_what_the_whole_tensor_holds():
    program = verified.artifact().program
    probe = Probe(program)
    images = verified.real_images(70)  # more than one batch
    name = probe.sites[0].accumulator
    whole = probe.accumulators(images, [name])[name]
    assert np.array_equal(probe.one(images, name, (2, 3, 4)), whole[:, 2, 3, 4])
    assert np.array_equal(probe.one(images, name, (slice(None), 3, 4)), whole[:, :, 3, 4])


def test_multiply_accumulates_are_counted_by_hand():
    program = verified.artifact().program
    assert multiply_accumulates(program) == 64 * 4 * 9 + 64 * 48 + 48 * 5


def test_a_tensor_that_has_the_name_already_is_refused():
    program = verified.artifact().program
    first = next(program.weighted_layers())
    name = f"{first.output}/accumulator"
    taken = {**program.tensors, name: p.TensorSpec(name, INT32, (None,))}
    crowded = p.Program(program.inputs, program.outputs, program.layers, taken, program.logits, program.codes)
    with pytest.raises(ModelError, match="rename it"):
        with_accumulators(crowded)


@pytest.mark.parametrize(
    "inputs",
    [
        (),
        (p.TensorSpec("a", UINT8, (None, 2)), p.TensorSpec("b", UINT8, (None, 2))),
        (p.TensorSpec("a", UINT8, (None, 1, None, 8)),),
        (p.TensorSpec("a", UINT8, None),),
    ],
)
def test_a_program_without_one_batch_of_images_is_refused(inputs):
    with pytest.raises(ModelError, match="input is"):
        pixel_shape(p.Program(inputs, (), (), {}))
