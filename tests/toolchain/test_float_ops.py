"""Every operator of the table against the ONNX reference evaluator."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from ohmfold.toolchain.float_ops import ELEMENTWISE_OPERATORS, EXACT_OPERATORS, FLOAT_OPERATORS

F, L = np.float32, np.int64


def evaluate(op_type, operands, attributes, outputs):
    """One node in a model of opset 21, run by the reference evaluator."""
    names = ["" if operand is None else f"i{index}" for index, operand in enumerate(operands)]
    results = [f"o{index}" for index in range(outputs)]
    node = helper.make_node(op_type, names, results, **attributes)
    feeds = {name: value for name, value in zip(names, operands, strict=True) if name}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in results]
    graph = helper.make_graph([node], "one", inputs, infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    return ReferenceEvaluator(model).run(None, feeds)


rng = np.random.default_rng(0)
X = rng.standard_normal((2, 3, 4)).astype(F)
Y = rng.standard_normal((3, 1)).astype(F)
A = rng.integers(-99, 99, (2, 3, 4)).astype(np.int32)
B = np.where(rng.integers(-9, 9, (3, 1)) == 0, 1, 7).astype(np.int32) * np.array([[1], [-1], [1]], np.int32)
BIG = np.array([2**31 - 1, -(2**31)], np.int32)
TIED = np.array([[1, 3, 3, 0], [2, 2, 1, 2]], F)

CASES = [
    ("Abs", (X,), {}),
    ("Abs", (A,), {}),
    ("Add", (X, Y), {}),
    ("Add", (A, B), {}),
    ("Add", (BIG, np.array([1, -1], np.int32)), {}),
    ("ArgMax", (TIED,), {"axis": 1}),
    ("ArgMax", (TIED,), {"axis": -1, "keepdims": 0, "select_last_index": 1}),
    ("ArgMax", (X,), {}),
    ("ArgMin", (TIED,), {"axis": 1, "select_last_index": 1}),
    ("ArgMin", (TIED,), {"axis": 1, "keepdims": 0}),
    ("Cast", (X * 50,), {"to": TensorProto.INT32}),
    ("Cast", (A,), {"to": TensorProto.FLOAT}),
    ("Cast", (A,), {"to": TensorProto.BOOL}),
    ("Clip", (X, np.array(-0.5, F), np.array(0.5, F)), {}),
    ("Clip", (X, None, np.array(0.25, F)), {}),
    ("Clip", (X, np.array(0, F)), {}),
    ("Clip", (X,), {}),
    ("Clip", (A, np.array(-5, np.int32), np.array(6, np.int32)), {}),
    ("Concat", (X, X[:, :1]), {"axis": 1}),
    ("Div", (X, Y), {}),
    ("Div", (np.abs(A), np.abs(B)), {}),
    ("Dropout", (X,), {}),
    ("Flatten", (X,), {}),
    ("Flatten", (X,), {"axis": 0}),
    ("Flatten", (X,), {"axis": -1}),
    ("Gather", (X, np.array([[0, -1], [2, 1]], L)), {"axis": 1}),
    ("Gather", (X, np.array(1, L)), {}),
    ("Identity", (A,), {}),
    ("LeakyRelu", (X,), {}),
    ("LeakyRelu", (X,), {"alpha": 0.3}),
    ("LogSoftmax", (X * 20,), {"axis": 1}),
    ("Max", (X, Y, np.array(0.1, F)), {}),
    ("Max", (X,), {}),
    ("Max", (A, B), {}),
    ("Min", (X, Y), {}),
    ("Mul", (X, Y), {}),
    ("Mul", (BIG, np.array([3, 5], np.int32)), {}),
    ("Neg", (X,), {}),
    ("Neg", (A,), {}),
    ("Pad", (X, np.array([0, 1, 2, 1, 0, 3], L)), {}),
    ("Pad", (X, np.array([0, 1, 2, 1, 0, 3], L), np.array(4.5, F)), {"mode": "constant"}),
    ("Pad", (X, np.array([0, 1, 2, 1, 0, 3], L)), {"mode": "edge"}),
    ("Pad", (X, np.array([0, 1, 2, 1, 0, 3], L)), {"mode": "reflect"}),
    ("Pad", (X, np.array([1, 2], L), np.array(1, F), np.array([-1], L)), {}),
    ("ReduceMax", (A, np.array([1, -1], L)), {}),
    ("ReduceMax", (A,), {"keepdims": 0}),
    ("ReduceMin", (X, np.array([2], L)), {"keepdims": 0}),
    ("ReduceSum", (A, np.array([0], L)), {}),
    ("ReduceSum", (A,), {}),
    ("ReduceSum", (A,), {"noop_with_empty_axes": 1}),
    ("Relu", (X,), {}),
    ("Relu", (A,), {}),
    ("Reshape", (X, np.array([0, -1], L)), {}),
    ("Reshape", (X, np.array([4, 6], L)), {}),
    ("Reshape", (X[:0], np.array([0, 2, 6], L)), {"allowzero": 1}),
    ("Sigmoid", (X * 30,), {}),
    ("Slice", (X, np.array([1], L), np.array([3], L), np.array([2], L)), {}),
    (
        "Slice",
        (X, np.array([-1, 0], L), np.array([-9, 99], L), np.array([2, 1], L), np.array([-2, 2], L)),
        {},
    ),
    ("Slice", (X, np.array([0, 1], L), np.array([1, 2**62], L)), {}),
    ("Softmax", (X * 20,), {}),
    ("Softmax", (X,), {"axis": 0}),
    ("Sqrt", (np.abs(X),), {}),
    ("Squeeze", (X[:, :1], np.array([1], L)), {}),
    ("Squeeze", (X[:1, :1],), {}),
    ("Sub", (X, Y), {}),
    ("Sub", (A, B), {}),
    ("Tanh", (X,), {}),
    ("Transpose", (X,), {}),
    ("Transpose", (X,), {"perm": [1, 2, 0]}),
    ("Unsqueeze", (X, np.array([0, -1], L)), {}),
]


@pytest.mark.parametrize(("op_type", "operands", "attributes"), CASES)
def test_equals_the_onnx_reference(op_type, operands, attributes):
    (wanted,) = evaluate(op_type, operands, attributes, 1)
    (found,) = FLOAT_OPERATORS[op_type](operands, attributes, 1)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    if op_type in EXACT_OPERATORS:
        assert np.array_equal(found, wanted)
    else:  # exp, log and tanh differ between libraries by some units in the last place
        assert np.allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_every_operator_of_the_table_is_compared():
    assert {op_type for op_type, _, _ in CASES} == set(FLOAT_OPERATORS)
    assert ELEMENTWISE_OPERATORS < EXACT_OPERATORS < set(FLOAT_OPERATORS)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1).filter(bool))
def test_integer_division_truncates_towards_zero(a, b):
    if (a, b) == (-(2**31), -1):
        return  # the quotient leaves int32
    exact = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    (found,) = FLOAT_OPERATORS["Div"]((np.array([a], np.int32), np.array([b], np.int32)), {}, 1)
    assert found.dtype == np.int32
    assert found.tolist() == [exact]


def test_attributes_of_older_opsets_are_understood():
    run = FLOAT_OPERATORS
    assert run["Clip"]((X,), {"min": -0.5, "max": 0.5}, 1)[0].max() <= F(0.5)
    assert run["Squeeze"]((X[:, :1],), {"axes": [1]}, 1)[0].shape == (2, 4)
    assert run["Slice"]((X,), {"starts": [1], "ends": [3], "axes": [1]}, 1)[0].shape == (2, 2, 4)
    assert run["ReduceSum"]((A,), {"axes": [0, 2], "keepdims": 0}, 1)[0].tolist() == A.sum((0, 2)).tolist()


def test_dropout_passes_its_input_and_a_mask_of_ones():
    y, mask = FLOAT_OPERATORS["Dropout"]((X,), {}, 2)
    assert np.array_equal(y, X)
    assert mask.dtype == np.bool_
    assert mask.all()


def test_what_is_not_exact_or_not_defined_is_refused():
    with pytest.raises(ValueError, match="order is not defined"):
        FLOAT_OPERATORS["ReduceSum"]((X,), {}, 1)
    with pytest.raises(ValueError, match="training"):
        FLOAT_OPERATORS["Dropout"]((X, np.array(0.5, F), np.array(True)), {}, 1)
    with pytest.raises(ValueError, match="element type"):
        FLOAT_OPERATORS["Cast"]((X,), {"to": onnx.TensorProto.STRING}, 1)
