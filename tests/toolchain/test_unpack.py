"""What is computed from constants alone is computed once, and only the operators that unpack weights."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import operators, parsed

from ohmfold.errors import ModelError, UnsupportedError
from ohmfold.toolchain.foreign import read_model
from ohmfold.toolchain.graph import constant
from ohmfold.toolchain.unpack import unpack_weights


def unpacked(text, **arrays):
    model = parsed(text, **arrays)
    unpack_weights(model)
    return model


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4]), st.integers(1, 40))
def test_results_are_those_of_onnxruntime(seed, bits, count) -> None:
    rng = np.random.default_rng(seed)
    arrays = {
        "stored": rng.integers(0, 256, (count, 1)).astype(np.uint8),
        "shifts": np.arange(0, 8, bits).astype(np.uint8),
        "mask": np.uint8(2**bits - 1),
        "flat": np.array([-1], np.int64),
        "levels": rng.integers(-128, 128, 256).astype(np.int8),
        "start": np.array([0], np.int64),
        "end": np.array([rng.integers(1, 8 // bits * count + 1)], np.int64),
    }
    text = """g (float[1] x) => (int8[M] y) {
        a = BitShift<direction = "RIGHT">(stored, shifts)
        b = BitwiseAnd(a, mask)
        c = Reshape(b, flat)
        d = BitShift<direction = "LEFT">(c, mask)
        e = BitwiseOr(c, d)
        f = Slice(e, start, end)
        i = Cast<to = 6>(f)
        y = Gather(levels, i)
    }"""
    if bits == 4:
        arrays["mask"] = np.uint8(7)  # a shift by 15 places has no meaning
    session = ort.InferenceSession(
        ir.to_proto(parsed(text, **arrays)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = session.run(None, {"x": np.zeros(1, np.float32)})[0]
    model = unpacked(text, **arrays)
    assert operators(model) == []
    found = constant(model.graph.outputs[0])
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    assert set(model.graph.initializers) == {"y"}, "what nothing reads any more is gone"


def test_what_depends_on_the_input_stays() -> None:
    text = """g (uint8[N] x) => (uint8[N] y) <uint8 one = {1}, uint8 three = {3}> {
        two = BitShift<direction = "LEFT">(one, one)
        a = BitwiseAnd(x, three)
        y = BitwiseOr(a, two)
    }"""
    model = unpacked(text)
    assert operators(model) == ["BitwiseAnd", "BitwiseOr"]
    assert constant(model.graph.initializers["two"]) == 2


def test_other_operators_on_constants_stay() -> None:
    model = unpacked(
        "g (float[N] x) => (float[N] y) <float a = {1}, float b = {2}> { c = Mul(a, b) y = Add(x, c) }"
    )
    assert operators(model) == ["Mul", "Add"]


def test_a_constant_that_others_read_too_stays_for_them() -> None:
    text = """g (uint8[N] x) => (uint8[N] y) <uint8 one = {1}> {
        two = BitShift<direction = "LEFT">(one, one)
        a = BitwiseAnd(x, one)
        y = BitwiseOr(a, two)
    }"""
    assert set(unpacked(text).graph.initializers) == {"one", "two"}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ('y = BitShift<direction = "LEFT">(tall, wide)', "the result would have 4398046511104 values"),
        ("y = BitwiseAnd(tall, wide)", "the result would have 4398046511104 values"),
        ('y = BitShift<direction = "LEFT">(a, nine)', "more bits than there are"),
        ('y = BitShift<direction = "LEFT">(a, words)', "a shift of uint8 by uint32"),
        ('y = BitShift<direction = "UP">(a, a)', "'UP'"),
        ("y = BitwiseOr(a, words)", "operands of uint8 and uint32"),
        ("y = BitwiseOr(a, three)", "broadcast"),
        ("y = Gather(a, words)", "out of bounds"),
        ("y = Reshape(a, shape)", "cannot reshape"),
        ("y = Cast<to = 1>(a)", "a cast of uint8 to float32"),
    ],
)
def test_operands_that_do_not_fit_are_refused_by_node(node, reason) -> None:
    arrays = {
        "tall": np.zeros((2**21, 1), np.uint8),
        "wide": np.zeros((1, 2**21), np.uint8),
        "a": np.array([1, 2], np.uint8),
        "nine": np.array([1, 9], np.uint8),
        "words": np.array([7, 2], np.uint32),
        "three": np.array([1, 2, 3], np.uint8),
        "shape": np.array([3, 5], np.int64),
    }
    with pytest.raises(ModelError, match=f"its constant operands do not fit.*{reason}"):
        unpacked(f"g (float[N] x) => (uint8[N] y) {{ {node} }}", **arrays)


def test_bits_that_the_network_itself_computes_are_refused_by_the_reader() -> None:
    text = "g (uint8[N, 2] x) => (uint8[N, 2] y) <uint8 three = {3}> { y = BitwiseAnd(x, three) }"
    with pytest.raises(UnsupportedError, match=r"BitwiseAnd\): the operator is not supported"):
        read_model(parsed(text))
