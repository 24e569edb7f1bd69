"""The twin has straight-through gradients and exact sums, and names what it cannot run."""

from __future__ import annotations

import copy
import itertools
import logging
import pickle
from dataclasses import replace

import numpy as np
import onnx.parser
import pytest
import torch
from program_nets import FLOAT32, INT8, INT32, UINT8, Net, images_for, pixels_of, same_bits

from ohmfold.errors import DataError, ExactnessError, RangeError, UnsupportedError
from ohmfold.toolchain import twin_layers
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import (
    Conv,
    Dense,
    Dequantise,
    DynamicQuantise,
    MaxPool,
    Operator,
    Program,
    Quantise,
    Requantisation,
    Reshape,
    Scale,
    Table,
    TensorSpec,
)
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.twin import Twin, exact_accumulators


def dense(net, weight, *, requantisation=None, bias=None):
    weight = np.asarray(weight)
    return net.add(
        Dense,
        (weight.shape[1],),
        dtype=requantisation.dtype if requantisation else np.int32,
        zero_point=requantisation.zero_point if requantisation else 0,
        weight=weight.astype(np.int16 if np.abs(weight).max() > 127 else np.int8),
        bias=None if bias is None else np.asarray(bias, np.int32),
        input_zero_point=net.zero_point,
        requantisation=requantisation,
    )


def scaled(net, multiplier=1.0):
    codes = net.name
    return net.program(net.add(Scale, net.shape, dtype=np.float32, multiplier=np.float32(multiplier)), codes)


def net_of(*shape):
    return Net(np.random.default_rng(1), shape)


def gradient(twin, pixels):
    """Rows of the Jacobian of the logits of one sample."""
    pixels = pixels.clone().requires_grad_()
    logits = twin(pixels)[0].flatten()
    return torch.stack([torch.autograd.grad(logit, pixels, retain_graph=True)[0][0] for logit in logits])


class TestGradient:
    def test_of_a_linear_program_is_its_difference_per_code(self):
        net = net_of(2, 4, 4)
        weight = net.rng.integers(-7, 8, (3, 2, 3, 3)).astype(np.int8)
        net.add(
            Conv,
            (3, 2, 2),
            dtype=np.int32,
            weight=weight,
            bias=None,
            input_zero_point=0,
            strides=(2, 2),
            pads=(1, 0, 0, 1),
            dilations=(1, 1),
            groups=1,
            requantisation=None,
        )
        net.add(Reshape, (12,), shape=(0, -1))
        program = scaled(net, 0.5)
        images = images_for(program, 1) // 2
        found = gradient(Twin(program), pixels_of(images)).numpy()
        emulator = Emulator(program)
        for place in itertools.product(range(2), range(4), range(4)):
            bumped = images.copy()
            bumped[0, *place] += 1
            assert np.array_equal(found[:, *place], 255 * (emulator(bumped) - emulator(images))[0])

    def test_passes_the_multiplier_inside_the_clamp_and_nothing_outside(self):
        net = net_of(2)
        first, second = np.array([[3, 1, -2], [-1, 2, 1]]), np.array([[1, -2], [4, 3], [5, 1]])
        # Columns: 3 * 200 - 100 = 500 -> 125; 200 + 2 * 100 = 400 -> 300, too high; -300 -> -150, too low.
        multiplier = np.float32([0.25, 0.75, 0.5])
        dense(net, first, requantisation=Requantisation(multiplier, 0, INT8))
        dense(net, second)
        program = scaled(net, [2.0, 0.5])
        found = gradient(Twin(program), pixels_of(np.array([[200, 100]], np.uint8)))
        inside = np.diag(multiplier * np.float32([1, 0, 0]))
        expected = 255 * (first @ inside @ second * np.float32([2.0, 0.5])).T
        assert np.array_equal(found.numpy(), expected)
        assert expected.any()

    def test_passes_at_the_very_ends_of_a_clamp(self):
        for code, passes in ((254, True), (255, True), (0, True)):
            net = net_of(1)
            dense(net, [[1]], requantisation=Requantisation(np.float32(1), 0, UINT8))
            dense(net, [[1]])
            found = gradient(Twin(scaled(net)), pixels_of(np.array([[code]], np.uint8)))
            assert bool(found.item() == 255.0) is passes

    @pytest.mark.parametrize(
        ("pixel", "expected"), [(-0.01, 0.0), (0.0, 255.0), (0.3, 255.0), (1.0, 255.0), (1.01, 0.0)]
    )
    def test_at_the_entry_is_255_inside_the_pixels_range(self, pixel, expected):
        net = net_of(1)
        dense(net, [[1]])
        twin = Twin(scaled(net))
        assert gradient(twin, torch.tensor([[pixel]])).item() == expected
        assert twin(torch.tensor([[pixel]])).item() == np.rint(255 * np.clip(np.float32(pixel), 0, 1))

    def test_of_a_table_is_its_central_difference_within_its_ends(self):
        table = np.random.default_rng(2).integers(0, 256, 256).astype(np.uint8)
        net = net_of(1)
        net.add(Table, (1,), table=table)
        dense(net, [[1]])
        twin = Twin(scaled(net))
        wide = table.astype(float)
        for code, slope in (
            (0, wide[1] - wide[0]),
            (7, (wide[8] - wide[6]) / 2),
            (255, wide[255] - wide[254]),
        ):
            assert gradient(twin, pixels_of(np.array([[code]], np.uint8))).item() == 255 * slope

    def test_of_a_maximum_goes_to_the_maximum(self):
        net = net_of(1, 2, 2)
        net.add(
            MaxPool,
            (1, 1, 1),
            kernel=(2, 2),
            strides=(1, 1),
            pads=(0,) * 4,
            dilations=(1, 1),
            ceil_mode=False,
        )
        net.add(Reshape, (1,), shape=(0, -1))
        dense(net, [[1]])
        found = gradient(Twin(scaled(net)), pixels_of(np.array([[[[9, 8], [200, 7]]]], np.uint8)))
        assert np.array_equal(found.numpy().ravel(), [0, 0, 255, 0])

    def test_is_the_same_under_function_transforms(self, small):
        twin, pixels = Twin(small), torch.rand(1, 2, 6, 6)
        found = torch.func.jacrev(lambda x: twin(x[None])[0])(pixels[0])
        # Batched backward passes add the same float32 terms in another order.
        assert torch.allclose(found, gradient(twin, pixels), rtol=1e-5, atol=1e-4)
        assert found.any()

    def test_is_the_same_twice_and_in_training_mode(self):
        net = net_of(3, 5, 5)
        net.add(Reshape, (75,), shape=(0, -1))
        dense(net, net.rng.integers(-7, 8, (75, 4)))
        twin, pixels = Twin(scaled(net)), torch.rand(1, 3, 5, 5)
        first = gradient(twin.eval(), pixels)
        assert torch.equal(first, gradient(twin.train(), pixels))
        assert not list(twin.parameters())


def test_float32_programs_are_quantised_by_their_first_layer():
    net = Net(np.random.default_rng(3), (4,), dtype=FLOAT32)
    scale, zero_point = np.float32(0.0173), np.uint8(100)
    name = net.new(np.uint8, (4,))
    net.layers.append(
        Quantise(name="entry", inputs=("pixels",), outputs=(name,), scale=scale, zero_point=zero_point)
    )
    net.name, net.dtype, net.zero_point = name, UINT8, 100
    dense(net, net.rng.integers(-7, 8, (4, 3)))
    program = scaled(net, 0.37)
    twin = Twin(program)
    # The last two lie past both ends of the codes; ties abound at multiples of half a step.
    values = np.float32([[-1.0, 0.3, 2.0, 1.1], [scale * 0.5, scale * 1.5, 9.0, -9.0]])
    assert same_bits(twin(torch.from_numpy(values)), Emulator(program)(values))
    found = gradient(twin, torch.from_numpy(values[1:]))
    weight = program.layers[1].weight.T.astype(np.float32) * np.float32(0.37)
    assert np.array_equal(found[:, 2:], np.zeros((3, 2)))
    assert np.array_equal(found[:, :2], weight[:, :2] / scale)


def test_logits_may_be_dequantised_codes():
    net = net_of(6)
    dense(net, net.rng.integers(-7, 8, (6, 3)), requantisation=Requantisation(np.float32(0.03), 100, UINT8))
    name = net.new(np.float32, (3,))
    zero_point = np.uint8([100, 90, 80])
    net.layers.append(
        Dequantise(
            name="exit",
            inputs=(net.name,),
            outputs=(name,),
            scale=np.float32([0.1, 0.2, 0.3]),
            zero_point=zero_point,
        )
    )
    program = net.program(name)
    images = images_for(program, 9)
    assert same_bits(Twin(program)(pixels_of(images)), Emulator(program)(images))


def test_every_pixel_code_survives_the_division_by_255():
    net = net_of(256)
    dense(net, np.eye(256))
    codes = np.arange(256, dtype=np.uint8)[None]
    assert np.array_equal(Twin(scaled(net))(pixels_of(codes)).numpy(), codes)


class TestSumsPastFloat32:
    def program(self, size=20_000, weight=4):
        net = net_of(size)
        weights = np.full((size, 2), weight)
        weights[0, 0] = 1
        dense(net, weights, bias=[1, 0])
        return scaled(net)

    def test_are_made_in_float64(self):
        program = self.program()
        images = np.full((2, 20_000), 255, np.uint8)
        images[1] = np.random.default_rng(4).integers(240, 256, 20_000)
        twin = Twin(program)
        expected = run_reference(program, {"pixels": images})
        assert np.abs(expected[program.codes]).max() > 2**24
        assert np.array_equal(twin.trace(pixels_of(images))[program.codes].numpy(), expected[program.codes])
        assert same_bits(twin(pixels_of(images)), expected[program.logits])

    def test_start_at_the_bound_of_the_actual_weights(self):
        below = 2**24 // (4 * 255)
        for size, dtype in ((below, torch.float32), (below + 8, torch.float64)):
            assert Twin(self.program(size)).stages[0].weight.dtype == dtype

    def test_past_int32_are_refused(self):
        with pytest.raises(RangeError, match="past the int32"):
            Twin(self.program(70_000, 127))


@pytest.fixture
def small():
    net = net_of(2, 6, 6)
    weight = net.rng.integers(-7, 8, (4, 2, 3, 3)).astype(np.int8)
    conv = {"strides": (1, 1), "pads": (1,) * 4, "dilations": (1, 1), "groups": 1, "input_zero_point": 0}
    r = Requantisation(np.float32(0.02), 0, UINT8)
    net.add(Conv, (4, 6, 6), weight=weight, bias=None, requantisation=r, **conv)
    net.add(Reshape, (144,), shape=(0, -1))
    dense(net, net.rng.integers(-7, 8, (144, 3)))
    return scaled(net, 0.1)


class TestSelfTest:
    def test_notices_a_changed_weight(self, small):
        twin = Twin(small)
        twin.stages[0].weight[1, 0, 0, 0] += 1
        with pytest.raises(ExactnessError, match=small.layers[0].name):
            twin.self_test()
        with pytest.raises(ExactnessError, match=small.layers[0].name):
            twin.to("cpu")

    def test_notices_a_foreign_state(self, small):
        twin = Twin(small)
        state = copy.deepcopy(twin.state_dict())
        twin.load_state_dict(state)
        state["stages.2.weight"][0, 5] += 1
        with pytest.raises(ExactnessError, match=small.layers[2].name):
            twin.load_state_dict(state)

    def test_switches_a_layer_whose_float32_sums_round_to_float64(self, small, monkeypatch, caplog):
        exact = twin_layers.ConvStage._sum

        def winograd(self, x):
            return exact(self, x) + (2.0**-10 if x.dtype == torch.float32 and len(x) >= 16 else 0)

        monkeypatch.setattr(twin_layers.ConvStage, "_sum", winograd)
        with caplog.at_level(logging.WARNING):
            twin = Twin(small)
        assert small.layers[0].name in caplog.text
        assert [twin.stages[i].weight.dtype for i in (0, 2)] == [torch.float64, torch.float32]
        images = images_for(small, 20)
        assert same_bits(twin(pixels_of(images)), Emulator(small)(images))

    def test_refuses_a_back_end_that_rounds_in_float64_too(self, small, monkeypatch):
        exact = twin_layers.DenseStage._sum
        monkeypatch.setattr(twin_layers.DenseStage, "_sum", lambda self, x: exact(self, x) + 0.5)
        with pytest.raises(ExactnessError, match="float64 too"):
            Twin(small)

    def test_reference_sums_are_right_for_strides_dilations_and_groups(self):
        rng = np.random.default_rng(5)
        layer = Conv(
            name="conv",
            inputs=("pixels",),
            outputs=("acc",),
            weight=rng.integers(-128, 128, (6, 2, 3, 2)).astype(np.int8),
            bias=rng.integers(-(2**20), 2**20, 6).astype(np.int32),
            input_zero_point=77,
            strides=(2, 1),
            pads=(2, 0, 1, 3),
            dilations=(1, 2),
            groups=3,
            requantisation=None,
        )
        x = rng.integers(0, 256, (2, 6, 7, 5)).astype(np.uint8)
        specs = (TensorSpec("pixels", UINT8, (None, 6, 7, 5)), TensorSpec("acc", INT32, None))
        program = Program(specs[:1], specs[1:], (layer,), {spec.name: spec for spec in specs})
        assert np.array_equal(exact_accumulators(layer, x), run_reference(program, {"pixels": x})["acc"])


class TestModule:
    def test_float_types_cannot_be_changed(self, small):
        twin = Twin(small)
        for change in (twin.half, twin.double, twin.bfloat16):
            with pytest.raises(ExactnessError, match="float types"):
                change()
        images = images_for(small, 3)
        assert same_bits(twin.float()(pixels_of(images)), Emulator(small)(images))

    def test_asking_for_float_leaves_float64_layers_alone(self):
        twin = Twin(TestSumsPastFloat32().program())
        assert twin.float().stages[0].weight.dtype == torch.float64

    def test_is_copied_and_pickled(self, small):
        twin, images = Twin(small), images_for(small, 3)
        for other in (copy.deepcopy(twin), pickle.loads(pickle.dumps(twin))):  # noqa: S301 (our own bytes)
            assert torch.equal(other(pixels_of(images)), twin(pixels_of(images)))

    def test_autocast_changes_nothing(self, small):
        twin, images = Twin(small), images_for(small, 5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert same_bits(twin(pixels_of(images)), Emulator(small)(images))

    def test_integer_images_and_other_shapes_are_refused(self, small):
        twin = Twin(small)
        with pytest.raises(DataError, match="divide uint8 images by 255"):
            twin(torch.zeros(1, 2, 6, 6, dtype=torch.uint8))
        with pytest.raises(DataError, match=r"\(1, 2, 6, 7\)"):
            twin(torch.zeros(1, 2, 6, 7))


def operator(op_type, source, target):
    return Operator(
        name=f"{op_type}_1",
        inputs=(source,),
        outputs=(target,),
        op_type=op_type,
        attributes={},
        operands=(source,),
    )


class TestRefusals:
    def test_a_float_tail_after_the_logits_is_ignored(self, small):
        tail = operator("Softmax", small.logits, "p")
        tensors = {**small.tensors, "p": TensorSpec("p", FLOAT32, (None, 3))}
        images = images_for(small, 2)
        longer = replace(small, layers=(*small.layers, tail), tensors=tensors)
        assert torch.equal(Twin(longer)(pixels_of(images)), Twin(small)(pixels_of(images)))

    def test_an_operator_before_the_logits_is_named(self, small):
        tensors = {**small.tensors, "p": TensorSpec("p", FLOAT32, (None, 3))}
        layers = (*small.layers, operator("Erf", small.logits, "p"))
        with pytest.raises(UnsupportedError, match=r"Erf_1 \(Erf\)"):
            Twin(replace(small, layers=layers, tensors=tensors, logits="p"))

    def test_dynamic_quantisation_is_named(self):
        net = Net(np.random.default_rng(3), (4,), dtype=FLOAT32)
        names = (net.new(np.uint8, (4,)), net.new(np.float32, ()), net.new(np.uint8, ()))
        net.layers.append(DynamicQuantise(name="dyn", inputs=("pixels",), outputs=names))
        net.name, net.dtype = names[0], UINT8
        dense(net, np.ones((4, 2)))
        with pytest.raises(UnsupportedError, match=r"dyn \(DynamicQuantise\)"):
            Twin(scaled(net))

    def test_programs_without_logits_or_with_other_inputs(self, small):
        with pytest.raises(UnsupportedError, match="no float32 logits"):
            Twin(replace(small, logits=None))
        with pytest.raises(UnsupportedError, match="one uint8 or float32 input"):
            Twin(replace(small, inputs=(TensorSpec("pixels", INT8, (None, 2, 6, 6)),)))

    def test_an_object_that_carries_a_program_is_taken(self, small):
        class Artifact:
            program = small

        images = images_for(small, 2)
        assert torch.equal(Twin(Artifact())(pixels_of(images)), Twin(small)(pixels_of(images)))

    def test_a_path_is_read_as_the_emulator_reads_it(self, tmp_path):
        model = onnx.parser.parse_model(
            """
            <ir_version: 10, opset_import: ["": 21]>
            small (uint8[N, 4] pixels) => (float[N, 2] logits)
            <int8[4, 2] weight = {1, -2, 3, 0, -1, 2, 2, 1}, float step = {0.5}>
            {
                acc = MatMulInteger(pixels, weight)
                real = Cast<to = 1>(acc)
                logits = Mul(real, step)
            }
            """
        )
        onnx.save(model, tmp_path / "small.onnx")
        images = np.arange(12, dtype=np.uint8).reshape(3, 4)
        emulator = Emulator(tmp_path / "small.onnx")
        assert same_bits(Twin(str(tmp_path / "small.onnx"))(pixels_of(images)), emulator(images))
