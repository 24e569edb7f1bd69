"""The first layer reaches its proved bounds exactly; no image passes any bound; the climb climbs."""

import numpy as np
import pytest
import verified
from program_nets import Net

from ohmfold.toolchain import program as p
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.twin import Twin
from ohmfold.toolchain.verify import make_inputs
from ohmfold.toolchain.verify.accumulators import Probe, with_accumulators
from ohmfold.toolchain.verify.bounds import BoundResult, search_bounds, targets_of
from ohmfold.toolchain.verify.first_layer import first_layer


def accumulators_of(program, images):
    return run_reference(with_accumulators(program), {program.inputs[0].name: images})


@pytest.mark.parametrize("scales", ["float", "pow2"])
def test_the_first_layer_reaches_both_its_bounds_and_no_layer_passes_its_own(scales):
    program = verified.artifact(scales, residual=True).program
    inputs = make_inputs(program, 96, verified.real_images(), twin=lambda: Twin(program))
    first = next(program.weighted_layers())
    by_layer = {layer.name: layer.output for layer in with_accumulators(program).layers}
    weight = first.weight.reshape(first.weight.shape[0], -1).astype(np.int64)
    assert {row.end for row in inputs.bounds if row.layer == first.name} == {"greatest", "least"}
    for row in inputs.bounds:
        assert inputs.kinds[row.image] == "bound"
        tensors = accumulators_of(program, inputs.images[row.image : row.image + 1])
        accumulators = tensors[by_layer[row.layer]]
        assert row.reached in accumulators
        assert row.reached <= row.bound if row.end == "greatest" else row.reached >= row.bound
        if row.layer == first.name:
            signed = np.maximum if row.end == "greatest" else np.minimum
            by_hand = 255 * signed(weight[row.channel], 0).sum() + int(first.bias[row.channel])
            assert row.reached == row.bound == by_hand
            assert row.share == 1


def test_the_twins_gradient_gets_deeper_than_the_best_of_the_seeds():
    program = verified.artifact().program
    probe, seeds = Probe(program), verified.real_images(24)
    targets = targets_of(probe, 99)
    generator = np.random.default_rng(0)
    _, sampled = search_bounds(probe, targets, None, None, seeds, generator)
    _, climbed = search_bounds(probe, targets, Twin(program), None, seeds, generator)
    further = [abs(row.reached - row.bound) for row in climbed]
    before = [abs(row.reached - row.bound) for row in sampled]
    assert all(now <= then for now, then in zip(further, before, strict=True))
    assert sum(now < then for now, then in zip(further, before, strict=True)) >= len(targets) - 1


def test_targets_are_spread_over_the_layers_where_there_is_not_room_for_all():
    probe = Probe(verified.artifact(residual=True).program)
    every = targets_of(probe, 99)
    assert {type(layer).__name__ for layer in probe.program.layers if layer.name in {t.layer for t in every}} == {
        "Conv", "Dense", "WeightedSum",
    }  # fmt: skip
    few = targets_of(probe, 3)
    assert len(few) == 3
    assert few[0] == every[0]
    assert few[-1] == every[-1]


def test_a_dense_first_layer_behind_movements_is_read_off_its_pixels():
    net = Net(np.random.default_rng(5), (2, 3, 4))
    net.add(p.Transpose, (4, 2, 3), permutation=(0, 3, 1, 2))
    net.add(p.Reshape, (24,), shape=(0, -1))
    weight = net.rng.integers(-3, 4, (24, 6)).astype(np.int8)
    bias = net.rng.integers(-900, 900, 6).astype(np.int32)
    acc = net.add(
        p.Dense, (6,), dtype=np.int32, weight=weight, bias=bias, input_zero_point=7, requantisation=None
    )
    program = net.program(acc)
    found = first_layer(Probe(program), np.random.default_rng(0))
    assert np.array_equal(found.offset, bias - 7 * weight.astype(np.int64).sum(axis=0))
    assert np.array_equal(np.sort(found.weight, axis=1), np.sort(weight.T.astype(np.int64), axis=1))
    for channel in range(6):
        for greatest in (True, False):
            image = found.extreme(channel, greatest=greatest)[np.newaxis]
            reached = run_reference(program, {"pixels": image})[acc][0, channel]
            w = weight[:, channel].astype(np.int64)
            signed = np.maximum(w, 0) if greatest else np.minimum(w, 0)
            assert reached == found.offset[channel] + 255 * signed.sum()


def test_an_image_is_solved_for_any_sum_that_can_be_reached():
    program = verified.artifact().program
    found = first_layer(Probe(program), np.random.default_rng(0))
    generator = np.random.default_rng(1)
    tensors = with_accumulators(program)
    name = next(iter(tensors.weighted_layers())).output
    solved = 0
    for channel in range(4):
        if not (np.abs(found.weight[channel]) == 1).any():
            continue
        low = found.offset[channel] + 255 * np.minimum(found.weight[channel], 0).sum()
        high = found.offset[channel] + 255 * np.maximum(found.weight[channel], 0).sum()
        for total in generator.integers(low, high, 20, endpoint=True):
            image = found.solve(channel, int(total), generator)
            if image is not None:
                solved += 1
                acc = accumulators_of(program, image[np.newaxis])[name]
                assert acc[(0, channel, *found.place)] == total
        assert found.solve(channel, int(high) + 1, generator) is None
    assert solved >= 20


def test_a_layer_behind_a_maximum_is_not_taken_for_an_affine_map():
    net = Net(np.random.default_rng(5), (1, 4, 4))
    net.add(
        p.MaxPool,
        (1, 2, 2),
        kernel=(2, 2),
        strides=(2, 2),
        pads=(0, 0, 0, 0),
        dilations=(1, 1),
        ceil_mode=False,
    )
    net.add(p.Reshape, (4,), shape=(0, -1))
    weight = np.ones((4, 2), np.int8)
    acc = net.add(
        p.Dense, (2,), dtype=np.int32, weight=weight, bias=None, input_zero_point=0, requantisation=None
    )
    assert first_layer(Probe(net.program(acc)), np.random.default_rng(0)) is None


@pytest.mark.parametrize(
    ("bound", "reached", "share"), [(0, 0, 1.0), (0, 3, 0.0), (-8, -2, 0.25), (8, 8, 1.0)]
)
def test_the_share_of_a_bound(bound, reached, share):
    assert BoundResult("l", 0, "least", bound, reached, 0).share == share
