"""The images that are said to tie do, by fractions; and which sums can tie is known exactly."""

from fractions import Fraction

import numpy as np
import pytest
import verified
from hypothesis import given
from hypothesis import strategies as st
from program_nets import Net

from ohmfold.toolchain import program as p
from ohmfold.toolchain.program import Requantisation
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.verify import make_inputs
from ohmfold.toolchain.verify.accumulators import Probe, Site, with_accumulators
from ohmfold.toolchain.verify.ties import tie_distances, tie_sums


def site(multiplier, low=-5000, high=5000, zero_point=0, bias=None):
    requantisation = Requantisation(np.asarray(multiplier, np.float32), zero_point)
    return Site("layer", "acc", bias, requantisation, low, high)


def is_tie(total, multiplier, low, high):
    """By exact arithmetic: the rounded float32 product is k + 1/2 inside the clamp."""
    product = Fraction(float(np.float32(total) * np.float32(multiplier)))
    return product % 1 == Fraction(1, 2) and low < product < high


@pytest.mark.parametrize("scales", ["float", "pow2"])
def test_the_images_that_are_said_to_tie_do_so_as_often_as_said(scales):
    program = verified.artifact(scales, residual=True).program
    inputs = make_inputs(program, 96, verified.real_images())
    apart = with_accumulators(program)
    sites = {s.layer: s for s in Probe(program).sites}
    kept = [row for row in inputs.ties if row.image is not None]
    assert len(inputs.ties) == len(sites)
    assert kept
    for row in kept:
        assert inputs.kinds[row.image] == "tie"
        image = inputs.images[row.image : row.image + 1]
        tensors = run_reference(apart, {program.inputs[0].name: image})
        s = sites[row.layer]
        acc = tensors[s.accumulator].astype(np.int64) + (0 if s.bias is None else s.bias)
        r = s.requantisation
        multipliers = np.broadcast_to(r.multiplier, acc.shape[1:]).reshape(-1)
        found = sum(
            is_tie(int(total), m, r.low - r.zero_point, r.high - r.zero_point)
            for total, m in zip(acc.reshape(-1), multipliers, strict=True)
        )
        assert found == row.ties
        assert (row.nearest == 0) == (found > 0)
        assert row.possible or not found


def test_every_layer_of_a_power_of_two_artifact_that_can_tie_does():
    inputs = make_inputs(verified.artifact("pow2", residual=True).program, 96)
    assert sum(row.possible for row in inputs.ties) >= 3
    assert [row.layer for row in inputs.ties if row.possible and not row.ties] == []


def test_a_sum_whose_common_divisor_jumps_over_every_half_cannot_tie():
    """4 divides every sum, and halves lie at odd multiples of 2; a bias moves them there."""
    shown = {}
    for bias in (None, 2):
        net = Net(np.random.default_rng(0), (1, 2, 2))
        net.add(
            p.WeightedSum,
            (1, 2, 2),
            dtype=np.int32,
            inputs=("pixels", "pixels"),
            multipliers=(8, -12),
            zero_points=(0, 0),
        )
        shift = None if bias is None else np.full((1, 1, 1), bias, np.int32)
        codes = net.add(
            p.Requantise,
            (1, 2, 2),
            dtype=np.uint8,
            bias=shift,
            requantisation=Requantisation(np.float32(0.25), 128),
        )
        inputs = make_inputs(_program(net, codes), 64)
        shown[bias] = (inputs.ties[0].possible, inputs.ties[0].ties > 0)
    assert shown == {None: (False, False), 2: (True, True)}


def _program(net, output):
    spec = net.tensors["pixels"]
    return p.Program((spec,), (net.tensors[output],), tuple(net.layers), net.tensors)


@given(
    st.floats(2.0**-13, 2.0, width=32),
    st.sampled_from([-1, 1]),
    st.integers(-4000, 0),
    st.integers(0, 4000),
    st.sampled_from([0, 128]),
)
def test_sums_that_tie_are_those_of_a_search_through_all(size, sign, low, high, zero_point):
    s = site(sign * size, low, high, zero_point)
    m = np.float32(sign * size)
    expected = [t for t in range(low, high + 1) if is_tie(t, m, -zero_point, 255 - zero_point)]
    assert tie_sums(m, s).tolist() == expected


@pytest.mark.parametrize("multiplier", [0.0, 1e-38])
def test_a_multiplier_that_reaches_no_half_has_no_ties(multiplier):
    assert tie_sums(np.float32(multiplier), site(multiplier, -(2**31) + 1, 2**31 - 1)).size == 0


def test_distances_count_what_is_clamped_as_infinitely_far():
    s = site(0.25, zero_point=0, bias=np.array([2], np.int32))
    acc = np.array([[-3, -2, 0, 1, 2, 1017, 1018, 1019]], np.int32)
    # products: -0.25, 0, 0.5, 0.75, 1, 254.75, 255 (the limit itself), 255.25
    assert tie_distances(s, acc).tolist() == [[np.inf, np.inf, 0, 0.25, 0.5, 0.25, np.inf, np.inf]]
