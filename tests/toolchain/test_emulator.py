"""The emulator against the slow reference, on programs built by hand, whatever the batch and the threads."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.errors import DataError, ModelError, OhmfoldError, RangeError, UnsupportedError
from ohmfold.toolchain import program as p
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.planning import plan as plan_module
from ohmfold.toolchain.reader.contrib import sums_of_pairs
from ohmfold.toolchain.reference import run_reference

UINT8, INT8 = np.dtype(np.uint8), np.dtype(np.int8)


def build(inputs, outputs, layers, **names):
    """A program whose tensors' shapes come from one run of the reference; batched where the input is."""
    rng = np.random.default_rng(0)
    batched = all(spec.shape and spec.shape[0] is None for spec in inputs)
    samples = {}
    for spec in inputs:
        shape = tuple(3 if d is None else d for d in spec.shape)
        samples[spec.name] = draw(rng, shape, spec.dtype)
    bare = p.Program(inputs, (), layers, {}, **names)
    tensors = {}
    for name, value in run_reference(bare, samples).items():
        free = batched and value.shape[:1] == (3,)
        tensors[name] = p.TensorSpec(name, value.dtype, (None, *value.shape[1:]) if free else value.shape)
    return p.Program(inputs, tuple(tensors[name] for name in outputs), layers, tensors, **names)


def draw(rng, shape, dtype):
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def requantisation(rng, shape=(), zero_point=0, dtype=UINT8, size=0.01):
    return p.Requantisation(np.asarray(rng.random(shape) * size, np.float32), zero_point, dtype)


def conv(rng, name, source, target, shape, **changes):
    arguments = {
        "weight": rng.integers(-3, 4, shape).astype(np.int8),
        "bias": rng.integers(-500, 500, shape[0]).astype(np.int32),
        "input_zero_point": 0,
        "strides": (1, 1),
        "pads": (1, 1, 1, 1),
        "dilations": (1, 1),
        "groups": 1,
        "requantisation": requantisation(rng, (shape[0], 1, 1)),
    }
    return p.Conv(name=name, inputs=(source,), outputs=(target,), **{**arguments, **changes})


def every_layer(seed=0):
    """A pre-activation residual net with a float tail, which uses every batched kind of layer."""
    rng = np.random.default_rng(seed)

    def one(kind, source, target, **settings_):
        sources = source if isinstance(source, tuple) else (source,)
        targets = target if isinstance(target, tuple) else (target,)
        return kind(name=f"{kind.__name__}:{targets[0]}", inputs=sources, outputs=targets, **settings_)

    scale, zero = np.float32(1 / 255).reshape(()), np.zeros((), np.uint8)
    layers = (
        one(p.Quantise, "x", "pixels", scale=scale, zero_point=zero),
        one(p.Pad, "pixels", "padded", pads=(0, 0, 1, 1, 0, 0, 1, 2), value=7),
        conv(rng, "stem", "padded", "stem", (10, 2, 3, 3), input_zero_point=7, pads=(0, 0, 1, 2)),
        one(p.Split, "stem", ("left", "right"), axis=1, sizes=(2, 8)),
        conv(
            rng,
            "depthwise",
            "right",
            "wise",
            (8, 1, 3, 3),
            groups=8,
            requantisation=requantisation(rng, (), 128),
        ),
        one(p.Table, "wise", "leaky", table=rng.integers(0, 256, 256, dtype=np.uint8)),
        one(p.WeightedSum, ("leaky", "right"), "sum", multipliers=(300, -411), zero_points=(128, 0)),
        one(
            p.Requantise,
            "sum",
            "skip",
            bias=None,
            requantisation=requantisation(rng, (), 100, size=0.002),
        ),
        one(
            p.Requantise,
            "sum",
            "normed",
            bias=rng.integers(-900, 900, (8, 1, 1)).astype(np.int32),
            requantisation=requantisation(rng, (8, 1, 1), 0, size=0.005),
        ),
        one(
            p.QuantisedAdd,
            ("skip", "normed"),
            "added",
            multipliers=(np.float32(0.7), np.float32(0.3)),
            zero_points=(100, 3),
            output_zero_point=9,
            table=sums_of_pairs(np.float32(0.7), 100, np.float32(0.3), 3, 9, np.dtype(np.uint8)),
        ),
        one(
            p.AveragePool,
            "added",
            "averaged",
            kernel=(3, 3),
            strides=(1, 1),
            pads=(1, 1, 1, 1),
            ceil_mode=False,
            count_include_pad=False,
            input_scale=np.float32(0.3),
            input_zero_point=9,
            output_scale=np.float32(0.2),
            output_zero_point=4,
            dtype=np.dtype(np.uint8),
        ),
        one(p.Concat, ("left", "normed", "averaged"), "joined", axis=1),
        one(
            p.MaxPool,
            "joined",
            "pooled",
            kernel=(3, 2),
            strides=(2, 2),
            pads=(1, 0, 1, 1),
            dilations=(1, 1),
            ceil_mode=True,
        ),
        one(p.Transpose, "pooled", "turned", permutation=(0, 1, 3, 2)),
        conv(
            rng,
            "signed",
            "turned",
            "signed",
            (6, 9, 3, 3),
            groups=2,
            dilations=(2, 1),
            requantisation=requantisation(rng, (6, 1, 1), -5, INT8),
        ),
        one(p.SpatialSum, "signed", "total", input_zero_point=-5),
        one(p.Requantise, "total", "mean", bias=None, requantisation=requantisation(rng, (), 3, size=0.5)),
        one(p.Reshape, "mean", "flat", shape=(-1, 6)),
        one(
            p.Dense,
            "flat",
            "hidden",
            weight=rng.integers(-3, 4, (6, 20)).astype(np.int8),
            bias=rng.integers(-99, 99, 20).astype(np.int32),
            input_zero_point=3,
            accumulator="hidden_acc",
            requantisation=requantisation(rng, (20,), 0, size=0.5),
        ),
        one(
            p.Dense,
            "hidden",
            "scores",
            weight=rng.integers(-200, 201, (20, 5)).astype(np.int16),
            bias=None,
            input_zero_point=0,
            requantisation=None,
        ),
        one(p.Scale, "scores", "logits", multiplier=np.float32(0.01).reshape(())),
        one(p.Dequantise, "hidden", "hidden_real", scale=np.float32(0.3).reshape(()), zero_point=zero),
        one(p.Operator, "logits", "relu", op_type="Relu", attributes={}, operands=("logits",)),
        one(
            p.Operator,
            "relu",
            "softmax",
            op_type="Softmax",
            attributes={"axis": 0},
            operands=("relu",),
            exact=False,
        ),
        one(p.Operator, "logits", "class", op_type="ArgMax", attributes={"axis": 1}, operands=("logits",)),
        one(p.DynamicQuantise, "hidden_real", ("dyn", "dyn_scale", "dyn_zero")),
    )
    x = p.TensorSpec("x", np.dtype(np.float32), (None, 2, 9, 8))
    outputs = ("logits", "softmax", "class", "dyn", "dyn_scale", "dyn_zero")
    return build((x,), outputs, layers, logits="logits", codes="scores")


def images_for(program, batch, seed=1):
    spec = program.inputs[0]
    return draw(np.random.default_rng(seed), (batch, *spec.shape[1:]), spec.dtype)


def classifier(multiplier, bias=None, classes=5):
    """uint8 pixels, one convolution, one dense layer, logits."""
    rng = np.random.default_rng(3)
    layers = (
        conv(rng, "conv", "x", "maps", (4, 1, 3, 3)),
        p.Reshape(name="flat", inputs=("maps",), outputs=("flat",), shape=(0, -1)),
        p.Dense(
            name="fc",
            inputs=("flat",),
            outputs=("scores",),
            bias=bias,
            input_zero_point=0,
            weight=rng.integers(-3, 4, (4 * 36, classes)).astype(np.int8),
            requantisation=None,
        ),
        p.Scale(name="scale", inputs=("scores",), outputs=("logits",), multiplier=multiplier),
    )
    spec = p.TensorSpec("x", UINT8, (None, 1, 6, 6))
    return build((spec,), ("logits",), layers, logits="logits", codes="scores")


PLAIN = np.float32(0.03).reshape(())


def assert_same(found, wanted):
    for name, value in found.items():
        assert value.dtype == wanted[name].dtype, name
        assert np.array_equal(value, wanted[name]), name


@pytest.mark.parametrize("seed", range(4))
def test_every_tensor_equals_the_reference(seed):
    program = every_layer(seed)
    kinds = {type(layer) for layer in program.layers}
    assert kinds == set(p.Layer.__subclasses__())
    images = images_for(program, 5)
    trace = Emulator(program).trace(images)
    wanted = run_reference(program, {"x": images})
    assert trace.keys() == wanted.keys()
    assert "hidden_acc" in trace
    assert_same(trace, wanted)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 7, 65])
@pytest.mark.parametrize("chunk", [1, 16, 128])
def test_neither_chunks_nor_threads_change_a_bit(threads, batch, chunk, monkeypatch):
    monkeypatch.setattr(plan_module, "CHUNK_SAMPLES", chunk)
    program = every_layer()
    images = images_for(program, batch)
    emulator = Emulator(program, threads=threads)
    wanted = run_reference(program, {"x": images})
    assert_same(emulator.trace(images), wanted)
    assert_same(emulator.run({"x": images}), wanted)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 9), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_logits_codes_and_classes_agree_for_any_batch(batch, threads, seed):
    program = classifier(PLAIN)
    images = images_for(program, batch, seed)
    emulator = Emulator(SimpleNamespace(program=program), threads=threads)
    wanted = run_reference(program, {"x": images})
    assert_same({"logits": emulator(images), "scores": emulator.codes(images)}, wanted)
    classes = emulator.predict(images)
    assert classes.dtype == np.int64
    assert classes.shape == (batch,)
    assert np.array_equal(classes, wanted["scores"].argmax(axis=1))


def test_eight_threads_may_call_one_emulator():
    program = every_layer()
    emulator = Emulator(program, threads=2)
    batches = [images_for(program, 9, seed) for seed in range(16)]
    wanted = [run_reference(program, {"x": batch})["logits"] for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(emulator, batches))
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_an_array_that_is_not_contiguous_is_read_in_its_own_order():
    program = classifier(PLAIN)
    images = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 2), dtype=np.uint8)
    view = images[::2].transpose(0, 3, 2, 1)[:, :1]
    assert not view.flags.c_contiguous
    emulator = Emulator(program)
    assert np.array_equal(emulator(view), emulator(view.copy()))


def test_ties_go_to_the_lowest_class():
    program = classifier(PLAIN)
    fc = program.layers[2]
    fc.weight[...] = 0
    images = images_for(program, 3)
    assert Emulator(program).predict(images).tolist() == [0, 0, 0]


def test_logits_that_float32_cannot_tell_apart_are_a_tie_as_in_any_other_runtime():
    bias = np.array([0, 2**26, 2**26 + 1, 0, 0], np.int32)
    program = classifier(PLAIN, bias)
    program.layers[2].weight[...] = 0
    images = images_for(program, 2)
    emulator = Emulator(program)
    logits = emulator(images)
    assert np.array_equal(logits[:, 1], logits[:, 2])
    assert emulator.predict(images).tolist() == [1, 1]


@pytest.mark.parametrize(
    "multiplier", [np.array([-0.01, 0.01, 0.5, 0.4, 0.3], np.float32), np.float32(-0.1).reshape(())]
)
def test_logits_decide_where_the_multiplier_may_reorder_the_integers(multiplier):
    program = classifier(multiplier)
    images = images_for(program, 20)
    wanted = run_reference(program, {"x": images})["logits"]
    classes = Emulator(program).predict(images)
    assert np.array_equal(classes, wanted.argmax(axis=1))
    assert not np.array_equal(classes, Emulator(program).codes(images).argmax(axis=1))


def test_a_program_of_two_inputs_runs_by_name():
    layer = p.WeightedSum(
        name="add", inputs=("a", "b"), outputs=("y",), multipliers=(3, -2), zero_points=(1, -4)
    )
    specs = (p.TensorSpec("a", UINT8, (None, 3)), p.TensorSpec("b", INT8, (None, 3)))
    program = build(specs, ("y",), (layer,))
    rng = np.random.default_rng(0)
    inputs = {"a": draw(rng, (4, 3), UINT8), "b": draw(rng, (4, 3), INT8)}
    emulator = Emulator(program)
    assert_same(emulator.run(inputs), run_reference(program, inputs))
    with pytest.raises(OhmfoldError, match="2 inputs"):
        emulator.trace(inputs["a"])
    with pytest.raises(OhmfoldError, match="no logits"):
        emulator(inputs["a"])
    with pytest.raises(OhmfoldError, match="no integers"):
        emulator.codes(inputs["a"])
    with pytest.raises(DataError, match="'c'"):
        emulator.run({**inputs, "c": inputs["a"]})
    with pytest.raises(DataError, match="b: int8"):
        emulator.run({"a": inputs["a"]})


def test_a_layer_that_mixes_samples_sees_the_whole_batch(monkeypatch):
    monkeypatch.setattr(plan_module, "CHUNK_SAMPLES", 2)
    specs = (p.TensorSpec("x", UINT8, (None, 4)),)
    turn = p.Transpose(name="t", inputs=("x",), outputs=("y",), permutation=(1, 0))
    back = p.Transpose(name="u", inputs=("y",), outputs=("z",), permutation=(1, 0))
    program = build(specs, ("z",), (turn, back))
    x = np.arange(28, dtype=np.uint8).reshape(7, 4)
    assert_same(Emulator(program, threads=2).run({"x": x}), {"z": x})


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (np.zeros((2, 1, 6, 6), np.float32), "float32"),
        (np.zeros((2, 1, 6, 7), np.uint8), r"\[2, 1, 6, 7\]"),
        (np.zeros((1, 6, 6), np.uint8), r"\[1, 6, 6\]"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_was_expected(images, found):
    with pytest.raises(DataError, match=found + r".*x: uint8\[N, 1, 6, 6\]"):
        Emulator(classifier(PLAIN))(images)


def test_nan_pixels_are_refused():
    images = np.full((1, 2, 9, 8), np.nan, np.float32)
    with pytest.raises(DataError, match="NaN"):
        Emulator(every_layer())(images)


def test_only_named_tensors_are_traced():
    program = every_layer()
    images = images_for(program, 2)
    emulator = Emulator(program)
    assert list(emulator.trace(images, ["hidden_acc"])) == ["hidden_acc"]
    assert set(emulator.trace(images, ["x", "class"])) == {"x", "class"}
    with pytest.raises(DataError, match="'nothing'"):
        emulator.trace(images, ["nothing"])


def test_what_cannot_run_is_refused_by_name():
    spec = (p.TensorSpec("x", np.dtype(np.float32), (None, 2)),)
    unknown = p.Operator(
        name="node_7", inputs=("x",), outputs=("y",), op_type="Gelu", attributes={}, operands=("x",)
    )
    with pytest.raises(UnsupportedError, match=r"'node_7'.*Gelu.*Softmax"):
        Emulator(p.Program(spec, (), (unknown,), {}))
    wide = p.Dense(
        name="fc",
        inputs=("x",),
        outputs=("y",),
        weight=np.full((2, 2), 300, np.int16),
        bias=None,
        input_zero_point=0,
        requantisation=None,
    )
    with pytest.raises(ModelError, match="'fc'"):
        Emulator(p.Program(spec, (), (wide,), {}))
    with pytest.raises(OhmfoldError, match="at least 1"):
        Emulator(classifier(PLAIN), threads=0)


def test_the_reference_refuses_accumulators_beyond_int32():
    layer = p.Dense(
        name="deep",
        inputs=("x",),
        outputs=("y",),
        weight=np.full((40_000, 1), 255, np.int16),
        bias=None,
        input_zero_point=0,
        requantisation=None,
    )
    program = p.Program((p.TensorSpec("x", UINT8, (None, 40_000)),), (), (layer,), {})
    with pytest.raises(RangeError, match="'deep'"):
        run_reference(program, {"x": np.full((1, 40_000), 255, np.uint8)})
