"""The other executors, the comparison, and the rows that put them beside the emulator."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from ohmfold.errors import DataError, ModelError
from ohmfold.toolchain.comparison import compare
from ohmfold.toolchain.reader import read_program
from ohmfold.toolchain.witness import (
    LEVELS,
    OnnxRuntime,
    certify,
    run_onnxruntime,
    run_reference_evaluator,
)

f32 = np.float32


def build(signature, body, **constants):
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n g {signature} {{ {body} }}')
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model


def small_net():
    """Convolution, pool, residual addition, average, logits: with a per-channel scale and zero points."""
    rng = np.random.default_rng(0)
    return build(
        "(uint8[N,2,8,8] x) => (float[N,3] y)",
        """
        c = QLinearConv<pads=[1,1,1,1]>(x, xs, z7, w, ws, wz, ys, z128, b)
        p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(c)
        d = QLinearConv<pads=[1,1,1,1], group=4>(p, xs, z128, v, ws, wz, ys, z7, b)
        pi = Cast<to=6>(p)  ps = Sub(pi, i128)  pm = Mul(ps, m1)
        di = Cast<to=6>(d)  dm = Mul(di, m2)
        s = Add(pm, dm)  sf = Cast<to=1>(s)  sg = Mul(sf, ms)  r = QuantizeLinear(sg, one, z0)
        l = Flatten(r)
        q = MatMulInteger(l, u, z0, z128)  t = Add(q, k)  f = Cast<to=1>(t)  y = Mul(f, my)
        """,
        xs=f32(0.02), z7=np.uint8(7), z0=np.uint8(0), z128=np.uint8(128), one=f32(1),
        w=rng.integers(-60, 61, (4, 2, 3, 3)).astype(np.int8),
        v=rng.integers(-60, 61, (4, 1, 3, 3)).astype(np.int8),
        ws=rng.uniform(0.01, 0.1, 4).astype(f32), wz=np.zeros(4, np.int8), ys=f32(0.8),
        b=rng.integers(-999, 999, 4).astype(np.int32), i128=np.int32(128), m1=np.int32(21), m2=np.int32(13),
        ms=f32(0.05), u=rng.integers(0, 256, (64, 3)).astype(np.uint8),
        k=np.arange(3, dtype=np.int32), my=f32(0.01),
    )  # fmt: skip


NET = small_net()
BYTES = NET.SerializeToString()
IMAGES = np.random.default_rng(1).integers(0, 256, (9, 2, 8, 8)).astype(np.uint8)


def artifact_of(model):
    return SimpleNamespace(program=read_program(ir.from_proto(model)), to_bytes=model.SerializeToString)


# Comparison.


def test_equal_tensors_are_counted_by_kind():
    tensors = {"a": np.arange(6).reshape(2, 3), "b": np.ones(4, f32)}
    found = compare(tensors, {**tensors, "more": np.zeros(1)})
    assert found.equal
    assert (found.tensors, found.integers, found.floats, found.differing) == (2, 6, 4, 0)


def test_nothing_compared_is_not_equal():
    assert not compare({}, {}).equal


def test_the_first_difference_is_named_with_its_place_and_both_values():
    expected = {"ok": np.zeros(3, np.uint8), "codes": np.arange(6, dtype=np.int32).reshape(2, 3)}
    got = {"ok": np.zeros(3, np.uint8), "codes": np.array([[0, 1, 9], [3, 8, 5]], np.int32)}
    found = compare(expected, got)
    assert found.differing == 2
    assert str(found.first) == "codes[0, 2]: expected 2, got 9"
    assert not found.equal


@pytest.mark.parametrize(
    "other", [np.zeros((2, 3), np.int8), np.zeros((3, 2), np.uint8), np.zeros(6, np.uint8)]
)
def test_another_type_or_shape_differs_in_every_number(other):
    found = compare({"t": np.zeros((2, 3), np.uint8)}, {"t": other})
    assert found.differing == 6
    assert found.first.index is None
    assert str(other.dtype) in str(found.first)


def test_a_tensor_that_the_other_side_lacks_is_missing_unless_it_is_skipped():
    expected = {"a": np.zeros(2, np.uint8), "b": np.zeros(2, np.uint8)}
    found = compare(expected, {"a": expected["a"]})
    assert found.missing == ("b",)
    assert not found.equal
    assert compare(expected, {"a": expected["a"]}, skip=["b"]).equal


def test_floats_are_compared_by_their_bits():
    assert not compare({"t": f32([0.0])}, {"t": f32([-0.0])}).equal
    assert compare({"t": f32([np.nan])}, {"t": f32([np.nan])}).equal
    one_ulp = np.nextafter(f32(1), f32(2))
    assert compare({"t": f32([1, 1])}, {"t": f32([1, one_ulp])}).differing == 1


@given(
    numpy_strategies.arrays(np.int16, numpy_strategies.array_shapes(max_side=5), elements=st.integers(-3, 3)),
    st.data(),
)
def test_the_count_and_place_are_those_of_a_plain_loop(array, data):
    other = data.draw(numpy_strategies.arrays(np.int16, array.shape, elements=st.integers(-3, 3)))
    found = compare({"t": array}, {"t": other})
    places = [index for index in np.ndindex(array.shape) if array[index] != other[index]]
    assert found.differing == len(places)
    assert (found.first.index if found.first else None) == (places[0] if places else None)


# Executors.


@pytest.mark.parametrize("level", LEVELS)
def test_a_session_exposes_intermediate_tensors_and_is_used_again(level):
    session = OnnxRuntime(BYTES, level, threads=2, expose=["s", "c", "s"])
    assert session.outputs == ("y", "s", "c")
    first, second = session.run({"x": IMAGES}), session.run({"x": IMAGES[:2]})
    assert first["s"].dtype == np.int32
    np.testing.assert_array_equal(first["c"][:2], second["c"])


def test_onnxruntimes_own_complaints_are_errors_of_ours():
    with pytest.raises(ModelError, match="unknown onnxruntime level 'fastest'"):
        OnnxRuntime(BYTES, "fastest")
    with pytest.raises(ModelError, match="no node of the model writes the tensor 'nothing'"):
        OnnxRuntime(BYTES, expose=["nothing"])
    with pytest.raises(ModelError, match="onnxruntime refuses the model"):
        OnnxRuntime(BYTES[:200])
    with pytest.raises(DataError, match="cannot run the model on these inputs"):
        run_onnxruntime(BYTES, {"x": IMAGES.astype(f32)})


def test_the_reference_evaluator_and_onnxruntime_agree_on_the_net():
    outcome = run_reference_evaluator(BYTES, {"x": IMAGES})
    assert not outcome.skipped
    names = [name for name in outcome.values if name != "y"]
    assert len(names) >= 15
    assert compare(outcome.values, run_onnxruntime(BYTES, {"x": IMAGES}, expose=names)).equal


def test_the_reference_evaluator_returns_what_is_asked_for():
    outcome = run_reference_evaluator(NET, {"x": IMAGES}, expose=["s"])
    assert set(outcome.values) == {"s", "y"}


def test_what_the_reference_evaluator_cannot_run_is_skipped_with_all_that_depends_on_it():
    rng = np.random.default_rng(0)
    model = build(
        "(uint8[N,2,9] x) => (uint8[N,9,4] y, uint8[N,9,2] z)",
        "c = QLinearConv<pads=[1,1]>(x, s, o, w, ws, wz, s, o)  y = Transpose<perm=[0,2,1]>(c)"
        " z = Transpose<perm=[0,2,1]>(x)",
        s=f32(1), o=np.uint8(0), w=rng.integers(-9, 9, (4, 2, 3)).astype(np.int8), ws=f32([1, 2, 3, 4]),
        wz=np.arange(4, dtype=np.int8),
    )  # fmt: skip
    x = IMAGES[:, :, 0, :].repeat(2, -1)[..., :9]
    outcome = run_reference_evaluator(model, {"x": x})
    assert set(outcome.skipped) == {"c", "y"}
    assert outcome.skipped["y"].startswith("QLinearConv: ")
    np.testing.assert_array_equal(outcome.values["z"], x.transpose(0, 2, 1))


# Rows.


@pytest.mark.parametrize("source", [BYTES, artifact_of(NET)], ids=["bytes", "artifact"])
def test_every_witness_agrees_with_the_emulator(source):
    rows = certify(source, IMAGES, threads=(1, 2), batch_sizes=(1, 7), reference=True)
    assert len(rows) == 2 * len(LEVELS) * 2 * 2 + 2
    assert all(row.comparison.equal for row in rows)
    assert {row.witness for row in rows} == {"onnxruntime", "onnx reference"}
    assert {(row.level, row.threads, row.batch) for row in rows if row.exposed and row.level} == {
        (level, threads, batch) for level in LEVELS for threads in (1, 2) for batch in (1, 7)
    }
    exposed = next(row for row in rows if row.exposed and row.batch == 7)
    conv, pool, depthwise, total, codes, flat, acc = 4 * 64, 4 * 16, 4 * 16, 4 * 16, 4 * 16, 64, 3
    assert exposed.comparison.integers == 7 * (conv + pool + depthwise + total + codes + flat + acc)
    plain = next(row for row in rows if not row.exposed and row.batch == 7)
    assert (plain.comparison.tensors, plain.comparison.floats) == (1, 7 * 3)
    assert exposed.name == "onnxruntime, disabled, 1 thread, every tensor"


def test_one_weight_that_differs_is_seen_by_every_witness():
    other = onnx.ModelProto()
    other.CopyFrom(NET)
    weight = next(tensor for tensor in other.graph.initializer if tensor.name == "w")
    changed = numpy_helper.to_array(weight).copy()
    changed[1, 1, 1, 1] += 5
    weight.CopyFrom(numpy_helper.from_array(changed, "w"))
    mixed = SimpleNamespace(program=read_program(ir.from_proto(NET)), to_bytes=other.SerializeToString)
    rows = certify(mixed, IMAGES, levels=("disabled", "all"), threads=(1,), reference=True)
    assert len(rows) == 5
    assert not any(row.comparison.equal for row in rows)
    exposed = rows[0].comparison
    assert exposed.first.tensor == "c"
    assert exposed.first.index[1] == 1


@pytest.mark.parametrize("sizes", [(10,), (0,), ()])
def test_batch_sizes_need_as_many_images(sizes):
    with pytest.raises(DataError, match="batch sizes"):
        certify(BYTES, IMAGES, batch_sizes=sizes)


def test_no_images_certify_nothing():
    with pytest.raises(DataError, match="batch sizes"):
        certify(BYTES, IMAGES[:0])


def test_bytes_that_are_no_model_are_a_model_error():
    with pytest.raises(ModelError, match="not an ONNX model"):
        certify(b"no model at all", IMAGES)


def test_a_written_out_convolution_rounds_like_onnxruntime_where_the_evaluators_own_does_not():
    model = build(
        "(uint8[N,1,1,6] x) => (uint8[N,1,1,1] y)",
        "y = QLinearConv(x, s, o, w, sixth, z, s, o)",
        s=f32(1), o=np.uint8(0), w=np.ones((1, 1, 1, 6), np.int8), sixth=f32(1 / 6), z=np.int8(0),
    )  # fmt: skip
    x = np.array([3, 0, 0, 0, 0, 0], np.uint8).reshape(1, 1, 1, 6)
    data = model.SerializeToString()
    assert run_onnxruntime(data, {"x": x})["y"].item() == 0  # 3 * float32(1/6) is 0.5 in float32
    assert ReferenceEvaluator(model).run(None, {"x": x})[0].item() == 1  # and 0.50000001 in float64
    assert run_reference_evaluator(data, {"x": x}).values["y"].item() == 0


@pytest.mark.parametrize("threads", [(), (0,), (1, -1)])
def test_thread_counts_below_one_are_refused(threads):
    with pytest.raises(DataError, match="thread counts"):
        certify(BYTES, IMAGES, threads=threads)
