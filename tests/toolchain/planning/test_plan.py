"""Whole networks through a plan: the reference's bits, whatever is kept, cut or chosen; and its memory."""

import numpy as np
import pytest
import torch

import ohmfold
from ohmfold.errors import OhmfoldError
from ohmfold.kernels.isa import available
from ohmfold.models.registry import build_model
from ohmfold.toolchain import program as p
from ohmfold.toolchain.planning import plan as plan_module
from ohmfold.toolchain.reference import run_reference

NETS = ("mnist-resnet8", "mnist-vgg", "mnist-mobilenet", "mnist-cnn")
HERE = (*available(), "amx-model")


def pixels(count, shape=(1, 28, 28), seed=0):
    drawn = np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)
    drawn[0] = 255
    return drawn


@pytest.fixture(scope="module")
def nets():
    """Programs of small networks whose batch norms have seen something, with the reference's logits."""
    found = {}
    for name in NETS:
        module = build_model(name, seed=1).train()
        with torch.no_grad():
            for _ in range(2):
                module(torch.rand(8, 1, 28, 28))
        program = ohmfold.compile(module.eval(), pixels(32)).program
        images = pixels(9, seed=2)
        found[name] = program, images, run_reference(program, {program.inputs[0].name: images})
    return found


@pytest.mark.parametrize("isa", HERE)
@pytest.mark.parametrize("name", NETS)
def test_fused_and_traced_runs_have_the_references_bits(nets, name, isa):
    program, images, wanted = nets[name]
    emulator = ohmfold.Emulator(program, threads=1, isa=isa)
    assert emulator.isa == isa
    assert np.array_equal(emulator(images), wanted[program.logits])
    assert np.array_equal(emulator.codes(images), wanted[program.codes])
    trace = emulator.trace(images)
    assert set(trace) == set(wanted)
    for tensor, value in trace.items():
        assert value.dtype == wanted[tensor].dtype, tensor
        assert np.array_equal(value, wanted[tensor]), tensor


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("chunk", "piece", "threads"), [(1, 2, 3), (2, 4, 1), (4, 5, 2), (64, 512, 2)])
def test_no_cut_changes_a_bit(nets, name, chunk, piece, threads, monkeypatch):
    program, images, wanted = nets[name]
    monkeypatch.setattr(plan_module, "CHUNK_SAMPLES", chunk)
    monkeypatch.setattr(plan_module, "PIECE_SAMPLES", piece)
    monkeypatch.setattr("ohmfold.toolchain.emulator.PIECE_SAMPLES", piece)
    emulator = ohmfold.Emulator(program, threads=threads)
    for count in (9, 5, 1, 0, 8):
        assert np.array_equal(emulator(images[:count]), wanted[program.logits][:count])


@pytest.mark.parametrize("name", NETS)
def test_padding_is_right_whether_it_is_filled_once_or_always(nets, name, monkeypatch):
    program, images, wanted = nets[name]
    for room in (0.0, 100.0):
        monkeypatch.setattr(plan_module, "_ROOM_FOR_BORDERS", room)
        emulator = ohmfold.Emulator(program, threads=1)
        for _ in range(2):
            assert np.array_equal(emulator(images), wanted[program.logits])


@pytest.mark.parametrize("name", [*NETS, "cifar-resnet8", "cifar-vgg11", "cifar-mobilenet"])
def test_memory_is_at_most_1_3_times_what_lives_together(name):
    shape = (3, 32, 32) if name.startswith("cifar") else (1, 28, 28)
    program = ohmfold.compile(build_model(name, seed=0).eval(), pixels(8, shape)).program
    memory = ohmfold.Emulator(program, threads=1).memory
    assert memory.unplanned == ()
    assert 0 < memory.live_bytes <= memory.peak_bytes <= 1.3 * memory.live_bytes


def test_a_program_without_a_plan_says_so():
    turn = p.Transpose(name="t", inputs=("x",), outputs=("y",), permutation=(1, 0))
    spec = p.TensorSpec("x", np.dtype(np.uint8), (None, 4))
    emulator = ohmfold.Emulator(p.Program((spec,), (), (turn,), {"x": spec}))
    with pytest.raises(OhmfoldError, match="mix samples"):
        emulator.memory  # noqa: B018


def test_a_profile_names_every_step_and_its_kind(nets):
    program, images, _ = nets["mnist-mobilenet"]
    emulator = ohmfold.Emulator(program, threads=1)
    times = emulator.profile(images)
    kinds = {time.kind for time in times}
    assert {"matrix product", "depthwise convolution", "addition", "spatial sum", "layout"} <= kinds
    assert all(time.seconds >= 0 for time in times)
    assert {layer.name for layer in program.weighted_layers()} <= {time.layer for time in times}
