"""The images of a verification: every kind, spread, repeatable, and of the program's form."""

import numpy as np
import pytest
import verified
from program_nets import Net

from ohmfold.errors import DataError, RangeError
from ohmfold.toolchain import program as p
from ohmfold.toolchain.verify import given_inputs, make_inputs
from ohmfold.toolchain.verify.inputs import KINDS, extremes, random_images


def test_every_kind_is_there_and_none_but_real_and_random_is_more_than_an_eighth():
    program = verified.artifact().program
    inputs = make_inputs(program, 96, verified.real_images(70))
    assert inputs.images.shape == (96, 1, verified.SIDE, verified.SIDE)
    assert inputs.images.dtype == np.uint8
    assert set(inputs.counts) == set(KINDS)
    assert sum(inputs.counts.values()) == len(inputs.kinds) == 96
    assert max(inputs.counts[kind] for kind in ("extreme", "bound", "tie")) <= 12
    assert inputs.counts["real"] >= inputs.counts["random"]


def test_the_first_images_already_hold_every_kind():
    inputs = make_inputs(verified.artifact().program, 96, verified.real_images(70))
    assert inputs.kinds[:10] == KINDS * 2
    assert set(inputs.kinds[10:40]) >= {"real", "random", "extreme", "bound"}


def test_real_images_are_taken_as_they_are():
    real = verified.real_images(70)
    inputs = make_inputs(verified.artifact().program, 96, real)
    taken = [image for image, kind in zip(inputs.images, inputs.kinds, strict=True) if kind == "real"]
    assert np.array_equal(np.stack(taken), real[: len(taken)])


def test_the_seed_decides_everything():
    program = verified.artifact().program
    one, same, other = (make_inputs(program, 64, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.images, same.images)
    assert (one.bounds, one.ties) == (same.bounds, same.ties)
    assert not np.array_equal(one.images, other.images)


def test_few_images_are_not_searched_and_it_says_so():
    inputs = make_inputs(verified.artifact().program, 5)
    assert len(inputs.images) == 5
    assert inputs.bounds == inputs.ties == ()
    assert "nothing was searched" in inputs.notes[0]


def test_the_number_is_rounded_up_to_a_fixed_batch():
    net = Net(np.random.default_rng(0), (1, 2, 2))
    net.tensors["pixels"] = p.TensorSpec("pixels", np.dtype(np.uint8), (4, 1, 2, 2))
    acc = net.add(p.SpatialSum, (1, 1, 1), dtype=np.int32, input_zero_point=0)
    program = net.program(acc)
    assert len(make_inputs(program, 5).images) == 8
    with pytest.raises(DataError, match="batches of 4"):
        given_inputs(program, np.zeros((6, 1, 2, 2), np.uint8))


def test_a_program_without_a_twin_is_sampled_and_it_says_why():
    def refuse():
        raise RangeError("its accumulator can reach 2**40")

    inputs = make_inputs(verified.artifact().program, 64, twin=refuse)
    assert any("only sampled" in note and "2**40" in note for note in inputs.notes)
    assert inputs.bounds


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 1, 9, 8), np.uint8),
        np.zeros((3, 1, 8, 8), np.float32),
        np.zeros((0, 1, 8, 8), np.uint8),
        np.zeros((8, 8), np.uint8),
    ],
    ids=["size", "type", "none", "rank"],
)
def test_images_of_another_form_are_refused(images):
    program = verified.artifact().program
    with pytest.raises(DataError, match="expected uint8"):
        given_inputs(program, images)
    with pytest.raises(DataError, match="expected uint8"):
        make_inputs(program, 16, images)


def test_no_images_at_all_are_refused():
    with pytest.raises(DataError, match="at least 1"):
        make_inputs(verified.artifact().program, 0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (2, 6), (9,)])
def test_extremes_are_extreme_and_distinct(shape):
    images = extremes(shape)
    assert images.shape == (12, *shape)
    assert (images[0] == 0).all()
    assert (images[1] == 255).all()
    assert {int(v) for v in np.unique(images[2])} == {0, 255}
    assert np.array_equal(images[2], 255 - images[3])
    assert [np.count_nonzero(image) for image in images[8:10]] == [1, 1]
    assert [np.count_nonzero(image != 255) for image in images[10:]] == [1, 1]


def test_random_images_are_of_four_sorts():
    images = random_images((1, 16, 16), 8, np.random.default_rng(0))
    assert set(np.unique(images[1])) <= {0, 255}
    assert np.count_nonzero(images[2]) < 80
    assert images[3].max() - images[3].min() < 32
