"""What the reader refuses: by node, operator and reason, in one line."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from integer_models import build, f32, read

from ohmfold.errors import ModelError, UnsupportedError
from ohmfold.toolchain.reader import SUPPORTED_OPERATORS
from ohmfold.toolchain.reference import run_reference


def zeros(*shape, dtype=np.int8):
    return np.zeros(shape, dtype)


X4 = "(uint8[N,2,6,6] x) => (uint8[N,A,B,C] y)"
CONV = {
    "xs": f32(1),
    "w": zeros(3, 2, 3, 3),
    "ws": f32(0.01),
    "wz": np.int8(0),
    "ys": f32(1),
    "z": np.uint8(0),
}
REFUSED = {
    "an unknown operator": (
        "(float[N,4] x) => (float[N,4] y)",
        "[n1] y = Erf(x)",
        {},
        "Erf",
        "supported are",
    ),
    "a float product": (
        "(float[N,4] x) => (float[N,4] y)",
        "[n1] y = Gemm(x, w)",
        {"w": f32([[1]])},
        "Gemm",
        "cannot be run exactly",
    ),
    "another domain": (
        "(uint8[N,4] x) => (uint8[N,4] y)",
        "[n1] y = com.microsoft.QLinearSigmoid(x)",
        {},
        "QLinearSigmoid",
        "'com.microsoft'",
    ),
    "a fed weight": (
        "(uint8[N,4] x, int8[4,3] w) => (int32[N,3] y)",
        "[n1] y = MatMulInteger(x, w)",
        {},
        "MatMulInteger",
        "not a constant",
    ),
    "batched matrices": (
        "(uint8[2,3,4] x) => (int32[2,3,3] y)",
        "[n1] y = MatMulInteger(x, w)",
        {"w": zeros(2, 4, 3)},
        "MatMulInteger",
        "3 axes",
    ),
    "a zero point per row": (
        "(uint8[2,4] x) => (int32[2,3] y)",
        "[n1] y = MatMulInteger(x, w, zs)",
        {"w": zeros(4, 3), "zs": zeros(2, dtype=np.uint8)},
        "MatMulInteger",
        "2 values",
    ),
    "three spatial axes": (
        "(uint8[N,1,4,4,4] x) => (int32[N,1,4,4,4] y)",
        "[n1] y = ConvInteger(x, w)",
        {"w": zeros(1, 1, 1, 1, 1)},
        "ConvInteger",
        "5 axes",
    ),
    "SAME padding of an unknown length": (
        "(uint8[N,2,H,6] x) => (uint8[N,3,A,B] y)",
        '[n1] y = QLinearConv<auto_pad="SAME_UPPER">(x, xs, z, w, ws, wz, ys, z)',
        CONV,
        "QLinearConv",
        "static",
    ),
    "channels that do not fit": (
        "(uint8[N,5,6,6] x) => (uint8[N,3,A,B] y)",
        "[n1] y = QLinearConv(x, xs, z, w, ws, wz, ys, z)",
        CONV,
        "QLinearConv",
        "groups",
    ),
    "a scale that makes M infinite": (
        X4,
        "[n1] y = QLinearConv(x, xs, z, w, ws, wz, ys, z)",
        {**CONV, "ys": f32(0)},
        "QLinearConv",
        "finite",
    ),
    "a scale that is not a number": (
        X4,
        "[n1] y = QLinearConv(x, xs, z, w, ws, wz, ys, z)",
        {**CONV, "ws": f32("nan")},
        "QLinearConv",
        "NaN",
    ),
    "a multiplier that is infinite": (
        "(int32[N,4] x) => (float[N,4] y)",
        "f = Cast<to=1>(x)  [n1] y = Mul(f, m)",
        {"m": f32("inf")},
        "Mul",
        "infinity",
    ),
    "a zero point of another type than its input": (
        "(int8[2,4] x) => (int32[2,3] y)",
        "[n1] y = MatMulInteger(x, w, z)",
        {"w": zeros(4, 3), "z": np.uint8(0)},
        "MatMulInteger",
        "uint8, the input int8",
    ),
    "float16 scales": (
        "(uint8[2,4] x) => (uint8[2,3] y)",
        "[n1] y = QLinearMatMul(x, s, z, w, s, wz, s, z)",
        {"s": np.float16(1), "w": zeros(4, 3), "wz": np.int8(0), "z": np.uint8(0)},
        "QLinearMatMul",
        "float16",
    ),
    "reflected padding": (
        X4,
        '[n1] y = Pad<mode="reflect">(x, p)',
        {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
        "Pad",
        "'reflect'",
    ),
    "cropping": (X4, "[n1] y = Pad(x, p)", {"p": np.array([0, 0, -1, 0, 0, 0, 0, 0])}, "Pad", "0 or more"),
    "indices of a pool": (
        "(uint8[N,2,6,6] x) => (uint8[N,2,5,5] y, int64[N,2,5,5] i)",
        "[n1] y, i = MaxPool<kernel_shape=[2,2]>(x)",
        {},
        "MaxPool",
        "Indices",
    ),
    "a shape that is computed": (
        "(uint8[N,4] x, int64[2] s) => (uint8[A,B] y)",
        "[n1] y = Reshape(x, s)",
        {},
        "Reshape",
        "not a constant",
    ),
    "a training dropout": (
        "(float[N,4] x) => (float[N,4] y)",
        "[n1] y = Dropout(x, r, t)",
        {"r": f32(0.5), "t": np.array(True)},
        "Dropout",
        "inference",
    ),
    "4-bit codes": (
        "(float[N,4] x) => (uint4[N,4] y)",
        "[n1] y = QuantizeLinear<output_dtype=21>(x, one)",
        {"one": f32(1)},
        "QuantizeLinear",
        "uint8",
    ),
    "a scale that is computed": (
        "(float[N,4] x, float s) => (uint8[N,4] y)",
        "[n1] y = QuantizeLinear(x, s)",
        {},
        "QuantizeLinear",
        "not a constant",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_names_node_operator_and_reason_in_one_line(case):
    signature, body, constants, op_type, reason = REFUSED[case]
    model = build(signature, body, **constants)
    if "com.microsoft" in body:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ModelError) as found:
        read(model)
    message = str(found.value)
    assert "'n1'" in message
    assert op_type in message
    assert reason in message
    assert "\n" not in message


def test_an_unknown_operator_is_answered_with_the_list_of_known_ones():
    model = build("(float[N,4] x) => (float[N,4] y)", "y = Erf(x)")
    with pytest.raises(UnsupportedError) as found:
        read(model)
    assert set(re.findall(r"[\w.]+", str(found.value).split("supported are")[1])) == SUPPORTED_OPERATORS


def test_old_meanings_of_operators_are_refused():
    model = build("(float[N,4] x) => (float[N,4] y)", "y = Softmax(x)", opset=11)
    with pytest.raises(UnsupportedError, match="opset 13 or newer"):
        read(model)


def test_an_opset_from_the_future_is_refused():
    model = build("(float[N,4] x) => (float[N,4] y)", "y = Relu(x)", opset=999)
    with pytest.raises(UnsupportedError, match="opset 999"):
        read(model)


def test_axes_are_read_as_attributes_too():
    model = build(
        "(uint8[N,1,4] x) => (uint8[1,N,4] y)", "s = Squeeze<axes=[1]>(x)  y = Unsqueeze<axes=[0]>(s)", 11
    )
    x = np.arange(12, dtype=np.uint8).reshape(3, 1, 4)
    tensors = run_reference(read(model), {"x": x})
    np.testing.assert_array_equal(tensors["y"], x.reshape(1, 3, 4))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("y = Transpose<perm=[0,1]>(nothing)", "'nothing'"),
        ("t = Transpose<perm=[0,1]>(x)", "output 'y'"),
        (
            "a = Transpose<perm=[0,1]>(b)  b = Transpose<perm=[0,1]>(a)  y = Transpose<perm=[0,1]>(a)",
            "valid ONNX graph",
        ),
    ],
)
def test_a_broken_graph_is_a_model_error(body, message):
    with pytest.raises(ModelError, match=message):
        read(build("(uint8[N,4] x) => (uint8[N,4] y)", body))
