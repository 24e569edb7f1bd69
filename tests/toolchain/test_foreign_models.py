"""Integer models made by onnxruntime's quantiser, and Q/DQ graphs as PyTorch exports them, against onnxruntime.

Equality is claimed at its levels `extended` and `all`, which fuse Q/DQ into integer kernels. Weights are
quantised with `reduce_range=True` (7 bits): on x86 processors without VNNI, onnxruntime's kernels for uint8
activations and int8 weights saturate sums of two products of larger weights, and only there would differ.
"""

from __future__ import annotations

import itertools
import logging

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn
from torch.nn import functional

from ohmfold.errors import UnsupportedError
from ohmfold.export import export_module
from ohmfold.models.registry import build_model
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.foreign import read_model
from ohmfold.toolchain.passes import (
    CanonicalisePass,
    FoldBatchNormPass,
    FoldConstantsPass,
    FoldNormalisationPass,
)
from ohmfold.toolchain.program import AveragePool, Conv, Dense, Operator, QuantisedAdd, Table
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.twin import Twin
from ohmfold.toolchain.witness import certify, run_onnxruntime

f32 = np.float32
CLAIMED = ("extended", "all")


class SmallCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 5, padding=2), nn.Conv2d(4, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 7 * 7, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc2(functional.relu(self.fc1(torch.flatten(x, 1))))


class SmallResNet(nn.Module):
    """Post-activation residuals, the average over space as the operator that the quantiser knows."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, 2, 1)
        self.a1, self.a2 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.b1, self.b2, self.skip = (
            nn.Conv2d(8, 12, 3, 2, 1),
            nn.Conv2d(12, 12, 3, 1, 1),
            nn.Conv2d(8, 12, 1, 2),
        )
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.a2(functional.relu(self.a1(x))))
        x = functional.relu(self.skip(x) + self.b2(functional.relu(self.b1(x))))
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


MODULES = {
    "cnn": SmallCnn,
    "resnet": SmallResNet,
    "vgg": lambda: build_model("mnist-vgg"),
    "mobilenet": lambda: build_model("mnist-mobilenet"),
}
# Operators that no module above exports to, in the spelling that the quantiser knows.
BRANCHES = """
<ir_version: 10, opset_import: ["" : 21]>
g (float[N,1,28,28] pixels) => (float[N,10] logits) {
    c1 = Conv<pads = [1,1,1,1]>(pixels, w1)
    a = LeakyRelu<alpha = 0.1>(c1)
    c2 = Conv(a, w2)
    b = AveragePool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>(c2)
    c = AveragePool<kernel_shape = [3,3], strides = [2,2], pads = [0,1,0,1], count_include_pad = 1>(c2)
    d = MaxPool<kernel_shape = [2,2], strides = [2,2]>(c2)
    bs = Conv<kernel_shape = [1,1]>(b, w3)
    e = Concat<axis = 1>(bs, d)
    p = GlobalAveragePool(e)
    flat = Flatten(p)
    logits = Gemm<transB = 1>(flat, w4, b4)
}
"""


class Calibration(CalibrationDataReader):
    def __init__(self, name="pixels", shape=(4, 1, 28, 28)):
        rng = np.random.default_rng(0)
        self.batches = iter([{name: rng.random(shape, dtype=f32)} for _ in range(2)])

    def get_next(self):
        return next(self.batches, None)


def branches():
    rng = np.random.default_rng(3)
    shapes = {"w1": (4, 1, 3, 3), "w2": (6, 4, 3, 3), "w3": (6, 6, 1, 1), "w4": (10, 12), "b4": (10,)}
    model = onnx.parser.parse_model(BRANCHES)
    for name, shape in shapes.items():
        array = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(f32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


@pytest.fixture(scope="module")
def float_models(tmp_path_factory):
    """Each float model as a file: batch norms folded, exported shapes made constant."""
    folder, paths = tmp_path_factory.mktemp("float"), {}
    for name, make in MODULES.items():
        torch.manual_seed(0)
        model = export_module(make().eval(), (1, 28, 28))
        for step in (FoldConstantsPass(), CanonicalisePass(), FoldNormalisationPass(), FoldBatchNormPass()):
            step(model)
        paths[name] = folder / f"{name}.onnx"
        ir.save(model, paths[name])
    paths["branches"] = folder / "branches.onnx"
    onnx.save(branches(), paths["branches"])
    return paths


def quantised(source, target, form, activations, weights, per_channel):
    logging.disable(logging.WARNING)
    try:
        quantize_static(
            str(source),
            str(target),
            Calibration(),
            quant_format=QuantFormat[form],
            activation_type=QuantType[f"Q{activations}"],
            weight_type=QuantType[f"Q{weights}"],
            per_channel=per_channel,
            reduce_range=True,
        )
    finally:
        logging.disable(logging.NOTSET)
    return target


def images(count=7, seed=5):
    return np.random.default_rng(seed).random((count, 1, 28, 28), dtype=f32)


def assert_bits_agree(path, x, name="pixels"):
    """Emulator, reference, twin and onnxruntime at the claimed levels, batches 1 and all, 1 and 2 threads."""
    artifact = Artifact.load(path)
    program, emulator = artifact.program, Emulator(artifact)
    logits = emulator(x)
    assert len(np.unique(logits)) > 2  # otherwise equality would say little
    for level, threads, count in itertools.product(CLAIMED, (1, 2), (1, len(x))):
        found = run_onnxruntime(artifact.to_bytes(), {name: x[:count]}, level=level, threads=threads)
        assert np.array_equal(found[program.logits], emulator(x[:count])), (level, threads, count)
    assert np.array_equal(run_reference(program, {name: x[:2]})[program.logits], logits[:2])
    assert torch.equal(Twin(artifact)(torch.from_numpy(x)), torch.from_numpy(logits))
    return program


# (format, activations, weights, per channel). int8 Q/DQ models stand below: what they hold decides.
COMBINATIONS = (
    ("QOperator", "UInt8", "Int8", True),
    ("QOperator", "UInt8", "UInt8", False),
    ("QOperator", "Int8", "Int8", True),
    ("QDQ", "UInt8", "Int8", True),
    ("QDQ", "UInt8", "Int8", False),
    ("QDQ", "UInt8", "UInt8", False),
)


@pytest.mark.parametrize(("form", "activations", "weights", "per_channel"), COMBINATIONS)
@pytest.mark.parametrize("name", [*MODULES, "branches"])
def test_quantised_models_have_onnxruntimes_bits(
    name, form, activations, weights, per_channel, float_models, tmp_path
):
    path = quantised(float_models[name], tmp_path / "q.onnx", form, activations, weights, per_channel)
    program = assert_bits_agree(path, images())
    kinds = {type(layer) for layer in program.layers}
    expected = {"resnet": {QuantisedAdd}, "branches": {AveragePool, Table}}.get(name, set())
    assert kinds >= {Conv, Dense} | expected
    assert Operator not in kinds


@pytest.mark.parametrize("name", ["cnn", "vgg"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_int8_qdq_chains_have_onnxruntimes_bits(name, per_channel, float_models, tmp_path):
    path = quantised(float_models[name], tmp_path / "q.onnx", "QDQ", "Int8", "Int8", per_channel)
    assert_bits_agree(path, images())


@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_int8_qdq_with_residuals_is_refused_since_onnxruntime_runs_it_in_float(name, float_models, tmp_path):
    path = quantised(float_models[name], tmp_path / "q.onnx", "QDQ", "Int8", "Int8", False)
    with pytest.raises(
        UnsupportedError, match=r"node '\S+' \(Conv\): its (input|result) .* not uint8 .* float"
    ):
        _ = Artifact.load(path).program


def test_a_torch_export_with_shapes_computed_from_the_batch_is_read(tmp_path):
    torch.manual_seed(1)
    ir.save(export_module(SmallCnn().eval(), (1, 28, 28)), tmp_path / "float.onnx")
    for form in ("QOperator", "QDQ"):
        path = quantised(tmp_path / "float.onnx", tmp_path / f"{form}.onnx", form, "UInt8", "Int8", True)
        assert any(node.op_type == "Shape" for node in onnx.load(path).graph.node)
        assert_bits_agree(path, images())


def test_every_exposed_tensor_of_a_qdq_model_equals_onnxruntimes(float_models, tmp_path):
    path = quantised(float_models["resnet"], tmp_path / "q.onnx", "QDQ", "UInt8", "Int8", True)
    rows = certify(Artifact.load(path), images(3), levels=CLAIMED, threads=(1,), batch_sizes=(1, 3))
    assert all(row.comparison.differing == 0 and not row.comparison.missing for row in rows)
    assert max(row.comparison.tensors for row in rows) > 10


# Small graphs in the spellings of other exporters; scales are powers of two, so that ties abound.

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'
Q = "xq = QuantizeLinear(x, xs, xz) xd = DequantizeLinear(xq, xs, xz) "
END = "yq = QuantizeLinear(r, ys, yz) y = DequantizeLinear(yq, ys, yz)"
W = "wd = DequantizeLinear<axis = 0>(w, ws, wz) "
B = "bd = DequantizeLinear<axis = 0>(b, bs, bz) "
MAPS, ROWS = "(float[N,3,6,6] x) => (float[N,A,B,C] y)", "(float[N,24] x) => (float[N,A] y)"

rng_w = np.random.default_rng(8)
SCALES = {"xs": f32(1 / 32), "xz": np.uint8(96), "ys": f32(1 / 4), "yz": np.uint8(0)}
SIGNED = {"xz": np.int8(-32), "yz": np.int8(-128)}
KERNEL = {
    "w": rng_w.integers(-60, 61, (5, 3, 3, 3)).astype(np.int8),
    "ws": f32([1, 2, 1, 4, 1]) / f32(128),
    "wz": np.zeros(5, np.int8),
    "b": rng_w.integers(-900, 900, 5).astype(np.int32),
    "bs": f32([1, 2, 1, 4, 1]) / f32(128 * 32),
    "bz": np.zeros(5, np.int32),
}
MATRIX = {
    "w": rng_w.integers(-60, 61, (7, 24)).astype(np.int8),
    "ws": f32(1 / 128),
    "wz": np.int8(0),
    "b": rng_w.integers(-900, 900, 7).astype(np.int32),
    "bs": f32(1 / 128 / 32),
    "bz": np.int32(0),
}
COLUMNS = {
    "w": MATRIX["w"].T.copy(),
    "ws": np.exp2(rng_w.integers(-9, -5, 7)).astype(f32),
    "wz": np.zeros(7, np.int8),
}
OTHER = {"us": f32(1 / 16), "uz": np.uint8(100)}
RESCALED = "m = Mul(xd, two) uq = QuantizeLinear(m, us, uz) ud = DequantizeLinear(uq, us, uz) "

GRAPHS = {
    "Conv, Relu": (MAPS, Q + W + B + "c = Conv(xd, wd, bd) r = Relu(c) " + END, KERNEL),
    "Conv, Relu, int8": (MAPS, Q + W + B + "c = Conv(xd, wd, bd) r = Relu(c) " + END, KERNEL | SIGNED),
    "Conv, Relu, MaxPool": (
        MAPS,
        Q + W + B + "c = Conv(xd, wd, bd) a = Relu(c) r = MaxPool<kernel_shape = [2,2]>(a) " + END,
        KERNEL,
    ),
    "Conv, Relu, MaxPool, int8": (
        MAPS,
        Q + W + B + "c = Conv(xd, wd, bd) a = Relu(c) r = MaxPool<kernel_shape = [2,2]>(a) " + END,
        KERNEL | SIGNED,
    ),
    "Conv of float weights and bias": (
        MAPS,
        Q + "wq = QuantizeLinear<axis = 0>(wf, ws, wz) wd = DequantizeLinear<axis = 0>(wq, ws, wz) "
        "r = Conv(xd, wd, bf) " + END,
        KERNEL
        | {
            "yz": np.uint8(128),
            "wf": rng_w.normal(size=(5, 3, 3, 3)).astype(f32) / 4,
            "bf": f32([0.1, -1, 2, 3, 0]),
        },
    ),
    "Conv, Clip as wide as the codes": (
        MAPS,
        Q + W + B + "c = Conv(xd, wd, bd) r = Clip(c, low, high) " + END,
        KERNEL | {"low": f32(0), "high": f32(64)},
    ),
    "Gemm": (ROWS, Q + W + B + "r = Gemm<transB = 1>(xd, wd, bd) " + END, MATRIX),
    "Gemm of a float bias": (
        ROWS,
        Q + W + "r = Gemm<transB = 1>(xd, wd, bf) " + END,
        MATRIX | {"bf": np.linspace(-2, 2, 7).astype(f32)},
    ),
    "Gemm, float logits": (ROWS, Q + W + B + "y = Gemm<transB = 1>(xd, wd, bd)", MATRIX),
    "MatMul": (ROWS, Q + W.replace("0", "1") + "r = MatMul(xd, wd) " + END, COLUMNS),
    "MatMul, float logits": (ROWS, Q + W.replace("0", "1") + "y = MatMul(xd, wd)", COLUMNS),
    "Add": (MAPS, Q + RESCALED + "s = Add(xd, ud) r = Relu(s) " + END, OTHER),
    "Add, int8": (
        MAPS,
        Q.replace("xd =", "x1 =")
        + "xe = DequantizeLinear(xq, xs, xz) "
        + RESCALED.replace("xd", "x1")
        + "s = Add(xe, ud) r = Relu(s) "
        + END,
        OTHER | SIGNED | {"uz": np.int8(-20)},
    ),
    "AveragePool": (MAPS, Q + "r = AveragePool<kernel_shape = [2,2], pads = [1,0,0,1]>(xd) " + END, {}),
    "AveragePool, int8": (MAPS, Q + "r = AveragePool<kernel_shape = [2,2]>(xd) " + END, SIGNED),
    "AveragePool of the whole map": (MAPS, Q + "r = AveragePool<kernel_shape = [6,6]>(xd) " + END, {}),
    "GlobalAveragePool": (MAPS, Q + "r = GlobalAveragePool(xd) " + END, {}),
    "Concat": (MAPS, Q + RESCALED + "r = Concat<axis = 1>(xd, ud) " + END, OTHER),
    "LeakyRelu": (MAPS, Q + "r = LeakyRelu<alpha = 0.25>(xd) " + END, {"yz": np.uint8(30)}),
    "Clip": (MAPS, Q + "r = Clip(xd, low, high) " + END, {"low": f32(-0.5), "high": f32(1)}),
    "movements": (
        MAPS,
        Q
        + "t = Transpose<perm = [0,1,3,2]>(xd) tq = QuantizeLinear(t, xs, xz) td = DequantizeLinear(tq, xs, xz) "
        "r = MaxPool<kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]>(td) " + END,
        {"yz": np.uint8(40)},
    ),
}


def graph(signature, body, **arrays):
    model = onnx.parser.parse_model(f"{HEADER} g {signature} {{ {body} }}")
    wanted = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items() if name in wanted
    )
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("name", GRAPHS)
def test_small_qdq_graphs_agree_on_ties_too(name):
    signature, body, arrays = GRAPHS[name]
    model = graph(signature, body, **(SCALES | {"two": f32(2)} | arrays))
    program = read_model(ir.from_proto(model))
    shape = (3, 6, 6) if signature == MAPS else (24,)
    x = np.random.default_rng(4).integers(-140, 260, (9, *shape)).astype(f32) / 64
    expected = Emulator(program).run({"x": x})["y"]
    assert len(np.unique(expected)) > 2
    for level, threads, count in itertools.product(CLAIMED, (1, 2), (1, 9)):
        found = run_onnxruntime(model.SerializeToString(), {"x": x[:count]}, level=level, threads=threads)[
            "y"
        ]
        assert np.array_equal(found, expected[:count]), (level, threads, count)
    assert np.array_equal(run_reference(program, {"x": x})["y"], expected)


REFUSED = {
    "a Relu whose zero is not the lowest code": (
        Q + W + B + "c = Conv(xd, wd, bd) r = Relu(c) " + END,
        KERNEL | {"yz": np.uint8(3)},
        r"\(Conv\): the limits of Relu .* float",
    ),
    "float weights": (
        Q + "r = Conv(xd, wf) " + END,
        {"wf": np.zeros((5, 3, 3, 3), f32)},
        r"\(Conv\): its weight 'wf' is float",
    ),
    "float activations": (
        W + "y = Conv(x, wd)",
        KERNEL,
        r"\(Conv\): its input 'x' is float",
    ),
    "a result that is not quantised": (Q + W + B + "y = Conv(xd, wd, bd)", KERNEL, r"\(Conv\): .* in float"),
    "a bias on another scale": (
        Q + W + B + "r = Conv(xd, wd, bd) " + END,
        KERNEL | {"bs": KERNEL["bs"] * f32(2)},
        r"\(Conv\): the scale of its bias",
    ),
    "a float average": (
        "r = AveragePool<kernel_shape = [2,2]>(x) " + END.replace("yq", "xq"),
        {},
        r"\(AveragePool\): .* not supported",
    ),
    "a product of activations": (
        Q + RESCALED + "r = Mul(xd, ud) " + END,
        OTHER,
        r"\(Mul\): .* QLinearMul, which is not modelled",
    ),
    "a constant summand": (
        Q + "cd = DequantizeLinear(cq, us, uz) r = Add(xd, cd) " + END,
        OTHER | {"cq": np.ones((1, 3, 1, 1), np.uint8)},
        r"QLinearAdd\): an operand is a constant",
    ),
    "two quantisations in a row": (
        Q + "uq = QuantizeLinear(xd, us, uz) ud = DequantizeLinear(uq, us, uz) "
        "r = AveragePool<kernel_shape = [2,2]>(ud) " + END,
        OTHER,
        r"\(QuantizeLinear\): .* merges the two",
    ),
    "a rounded function before a convolution": (
        Q + W + B + "s = Sigmoid(xd) sq = QuantizeLinear(s, us, uz) sd = DequantizeLinear(sq, us, uz) "
        "r = Conv(sd, wd, bd) " + END,
        KERNEL | OTHER | {"bs": KERNEL["bs"] * f32(2)},
        r"\(Sigmoid\): layer .* only up to rounding",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exact_is_refused_by_node_operator_and_reason(name):
    body, arrays, reason = REFUSED[name]
    model = graph(MAPS, body, **(SCALES | {"two": f32(2)} | arrays))
    with pytest.raises(UnsupportedError, match=reason) as caught:
        read_model(ir.from_proto(model))
    assert str(caught.value).startswith("node ")
    assert "\n" not in str(caught.value)


def test_qdq_of_an_opset_whose_max_pool_stays_in_float_is_refused():
    signature, body, arrays = GRAPHS["Conv, Relu"]
    model = graph(signature, body, **(SCALES | arrays))
    model.opset_import[0].version = 12
    with pytest.raises(UnsupportedError, match="from opset 13 on, and this one is of opset 12"):
        read_model(ir.from_proto(model))


def microsoft(op, inputs, code_type, shape, arrays, **attributes):
    """A model of one operator of com.microsoft on codes `x` (and `z`)."""
    fed = [name for name in ("x", "z") if name in inputs]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node(op, inputs, ["y"], domain="com.microsoft", **attributes)],
            "g",
            [onnx.helper.make_tensor_value_info(name, code_type, shape) for name in fed],
            [onnx.helper.make_tensor_value_info("y", code_type, None)],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)],
        ir_version=10,
    )
    return model, read_model(ir.from_proto(model))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_all_pairs_of_codes_add_up_as_in_onnxruntime(dtype):
    rng, limits = np.random.default_rng(6), np.iinfo(dtype)
    code_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    codes = np.arange(limits.min, limits.max + 1).astype(dtype)
    x, z = (a.reshape(1, -1) for a in np.meshgrid(codes, codes))
    inputs = ["x", "s0", "z0", "z", "s1", "z1", "s2", "z2"]
    for trial in range(40):
        scales = np.exp(rng.normal(-4, 0.7, 3)) if trial % 2 else np.exp2(rng.integers(-7, -3, 3))
        arrays = {f"s{i}": f32(scale) for i, scale in enumerate(scales)}
        zeros = rng.integers(limits.min, limits.max, 3, endpoint=True)
        arrays |= {f"z{i}": dtype(zero) for i, zero in enumerate(zeros)}
        model, program = microsoft("QLinearAdd", inputs, code_type, ["N", 65536], arrays)
        expected = run_onnxruntime(model.SerializeToString(), {"x": x, "z": z})["y"]
        assert np.array_equal(Emulator(program).run({"x": x, "z": z})["y"], expected), (scales, zeros)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_average_pools_round_as_in_onnxruntime(dtype):
    rng, limits = np.random.default_rng(7), np.iinfo(dtype)
    code_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    for trial in range(40):
        kernel, strides = rng.integers(1, 4, 2), rng.integers(1, 3, 2)
        settings = {
            "kernel_shape": kernel.tolist(),
            "strides": strides.tolist(),
            "pads": [int(rng.integers(0, k)) for k in (*kernel, *kernel)],
            "ceil_mode": int(rng.integers(0, 2)),
            "count_include_pad": int(rng.integers(0, 2)),
        }
        scales = np.exp(rng.normal(-4, 0.7, 2)) if trial % 2 else np.exp2(rng.integers(-7, -3, 2))
        zeros = rng.integers(limits.min, limits.max, 2, endpoint=True)
        arrays = {"xs": f32(scales[0]), "xz": dtype(zeros[0]), "ys": f32(scales[1]), "yz": dtype(zeros[1])}
        x = rng.integers(limits.min, limits.max, (3, 4, 9, 8), endpoint=True).astype(dtype)
        names = ["x", "xs", "xz", "ys", "yz"]
        for op, given in (
            ("QLinearAveragePool", settings),
            ("QLinearGlobalAveragePool", {"channels_last": 0}),
        ):
            model, program = microsoft(op, names, code_type, ["N", 4, 9, 8], arrays, **given)
            expected = run_onnxruntime(model.SerializeToString(), {"x": x})["y"]
            assert np.array_equal(Emulator(program).run({"x": x})["y"], expected), (op, given, scales, zeros)
            assert np.array_equal(run_reference(program, {"x": x})["y"], expected)


@pytest.mark.parametrize("op", ["QLinearSigmoid", "QLinearSoftmax", "QLinearMul", "DynamicQuantizeMatMul"])
def test_microsoft_operators_that_are_not_exact_are_refused(op):
    model = graph("(uint8[N,4] x) => (uint8[N,4] y)", "[n1] y = Identity(x)")
    model.graph.node[0].op_type, model.graph.node[0].domain = op, "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(
        UnsupportedError, match=rf"node 'n1' \(com\.microsoft\.{op}\): .* cannot be run exactly"
    ):
        read_model(ir.from_proto(model))


def test_a_model_of_batch_one_runs_larger_batches_one_by_one(float_models, tmp_path):
    model = onnx.load(float_models["cnn"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "one.onnx")
    path = tmp_path / "q.onnx"
    logging.disable(logging.WARNING)
    quantize_static(
        str(tmp_path / "one.onnx"), str(path), Calibration(shape=(1, 1, 28, 28)), per_channel=True, reduce_range=True,
        activation_type=QuantType.QUInt8,
    )  # fmt: skip
    logging.disable(logging.NOTSET)
    artifact, x = Artifact.load(path), images(5)
    logits = Emulator(artifact)(x)
    assert artifact.program.batch == 1
    for level in CLAIMED:
        rows = [
            run_onnxruntime(artifact.to_bytes(), {"pixels": row[None]}, level=level)["logits"] for row in x
        ]
        assert np.array_equal(np.concatenate(rows), logits)
    assert torch.equal(Twin(artifact)(torch.from_numpy(x)), torch.from_numpy(logits))


def test_the_gradient_of_a_quantised_sum_and_average_is_that_of_the_real_ones():
    body = Q + RESCALED + "s = Add(xd, ud) sq = QuantizeLinear(s, ys, yz) sd = DequantizeLinear(sq, ys, yz) "
    body += "p = AveragePool<kernel_shape = [6,6]>(sd) pq = QuantizeLinear(p, ys, yz) "
    body += "pd = DequantizeLinear(pq, ys, yz) y = Flatten(pd)"
    program = read_model(
        ir.from_proto(
            graph(
                "(float[N,3,6,6] x) => (float[N,3] y)",
                body.replace("m = Mul(xd, two) uq = QuantizeLinear(m", "uq = QuantizeLinear(x"),
                **(SCALES | OTHER),
            )
        )
    )
    x = torch.full((2, 3, 6, 6), 0.5, requires_grad=True)
    Twin(program)(x).sum().backward()
    assert torch.allclose(x.grad, torch.full_like(x, 2 / 36))  # float32 products of the scales round
