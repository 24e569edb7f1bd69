"""Packed weights: the same bits in onnxruntime and in our own reader, at less than half the size."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from small_models import parsed
from target_nets import blobs, digits_artifact, residual_artifact

from ohmfold.errors import TargetError
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.targets import find_target
from ohmfold.toolchain.targets.packed import pack_planes, packed_width
from ohmfold.toolchain.witness import LEVELS, certify, run_onnxruntime

TARGET = find_target("packed")


def packed(artifact, tmp_path):
    (tmp_path / "packed.onnx").write_bytes(TARGET.build(artifact, TARGET.options()).files["packed.onnx"])
    return Artifact.load(tmp_path / "packed.onnx")


def dense_artifact(codes, dtype=np.int8):
    """`pixels (N, K) @ codes`, the codes as they are given."""
    zero = np.array(128 if dtype is np.uint8 else 0, dtype)
    text = """g (uint8[N, K] pixels) => (float[N, M] logits) <float step = {0.5}, uint8 none = {0}> {
        acc = MatMulInteger(pixels, w, none, zero)
        real = Cast<to = 1>(acc)
        logits = Mul(real, step)
    }"""
    text = text.replace("K", str(codes.shape[0])).replace("M]", f"{codes.shape[1]}]")
    return Artifact(parsed(text, w=(codes.astype(np.int64) + int(zero)).astype(dtype), zero=zero))


def same_everywhere(artifact, other, images):
    expected, found = Emulator(artifact).trace(images), Emulator(other).trace(images)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values), name
    for row in certify(other, images, threads=(1,)):
        assert row.comparison.differing == 0, row.name
        assert not row.comparison.missing


def test_the_mnist_cnn_packs_to_less_than_0_42_of_its_size_and_keeps_every_bit(tmp_path) -> None:
    artifact = digits_artifact()
    other = packed(artifact, tmp_path)
    assert len(other.to_bytes()) <= 0.42 * len(artifact.to_bytes())
    same_everywhere(artifact, other, blobs(3, seed=9))


def test_no_weight_is_left_in_a_byte_of_its_own(tmp_path) -> None:
    other = packed(digits_artifact(), tmp_path)
    stored = {t.name: t for t in onnx.load_model_from_string(other.to_bytes()).graph.initializer}
    assert not {"conv2.codes", "fc1.codes", "fc2.codes"} & set(stored)
    assert other.metadata()["packed"]["fc1.codes"] == {
        "bits": 3,
        "weights": 3136 * 1024,
        "bytes": 3136 * 1024 * 3 // 8,
    }
    fc1 = [
        numpy_helper.to_array(t).nbytes for name, t in stored.items() if name.startswith("fc1.codes.plane")
    ]
    assert sorted(fc1) == [3136 * 1024 // 8, 3136 * 1024 // 4]


@pytest.mark.parametrize("bits", [1, 2, 4, 5, 6, 7])
def test_other_widths_keep_every_bit_too(bits, tmp_path) -> None:
    most = max(1, 2 ** (bits - 1) - 1)
    levels = [-1, 1] if bits == 1 else np.arange(-most, most + 1)
    codes = np.random.default_rng(bits).choice(levels, (601, 21))
    artifact = dense_artifact(codes)
    other = packed(artifact, tmp_path)
    assert [row["bits"] for row in other.metadata()["packed"].values()] == [bits]
    same_everywhere(artifact, other, np.random.default_rng(0).integers(0, 256, (3, 601), np.uint8))


def test_levels_of_powers_of_two_take_as_many_bits_as_there_are_levels(tmp_path) -> None:
    levels = np.array([0, *(sign << k for k in range(7) for sign in (1, -1))])
    artifact = dense_artifact(np.random.default_rng(0).choice(levels, (700, 10)))
    other = packed(artifact, tmp_path)
    assert [row["bits"] for row in other.metadata()["packed"].values()] == [4]
    same_everywhere(artifact, other, np.random.default_rng(0).integers(0, 256, (3, 700), np.uint8))


def test_weights_stored_with_a_zero_point_are_packed_as_they_are(tmp_path) -> None:
    artifact = dense_artifact(np.random.default_rng(0).integers(-3, 4, (900, 9)), np.uint8)
    same_everywhere(artifact, packed(artifact, tmp_path), np.full((2, 900), 255, np.uint8))


@given(st.integers(1, 7), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_planes_hold_the_bits_of_the_numbers(width, count, seed) -> None:
    numbers = np.random.default_rng(seed).integers(0, 2**width, count).astype(np.uint8)
    planes = pack_planes(numbers, width)
    assert sum(planes) == width
    assert sum(plane.size for plane in planes.values()) == -(-count // 8) * width
    found, place = np.zeros(count, np.int64), 0
    for bits, plane in planes.items():
        # bit i of a plane's stream is bit i of all bytes, the lowest of the first byte first
        stream = np.unpackbits(plane.reshape(-1), bitorder="little")
        values = stream.reshape(-1, bits) @ (1 << np.arange(bits))
        found += values[:count] << place
        place += bits
    assert np.array_equal(found, numbers)


@pytest.mark.parametrize(
    ("levels", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (7, 3), (8, 3), (9, 4), (255, 8)]
)
def test_the_width_counts_levels(levels, bits) -> None:
    assert packed_width(levels) == bits


def test_only_standard_operators_are_used_and_the_metadata_stay(tmp_path) -> None:
    artifact = digits_artifact()
    other = packed(artifact, tmp_path)
    proto = onnx.load_model_from_string(other.to_bytes())
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    assert {o.domain for o in proto.opset_import} == {""}
    before, after = artifact.metadata(), other.metadata()
    assert {key: after[key] for key in before} == before
    assert after["artifact_sha256"] == artifact.sha256
    assert after["target"] == "packed"


def test_onnxruntime_folds_the_unpacking_when_it_loads_the_model(tmp_path) -> None:
    import onnxruntime as ort

    other = packed(digits_artifact(), tmp_path)
    for level, left in (("ORT_DISABLE_ALL", True), ("ORT_ENABLE_BASIC", False)):
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        ort.InferenceSession(other.to_bytes(), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(tmp_path / f"{level}.onnx").graph.node
        assert ("BitShift" in {node.op_type for node in nodes}) == left


def test_weights_that_two_layers_share_are_packed_once(tmp_path) -> None:
    codes = np.random.default_rng(3).integers(-3, 4, (100, 100)).astype(np.int8)
    text = """g (uint8[N, 100] pixels) => (float[N, 100] logits) <float step = {0.001}, uint8 zero = {0}> {
        acc = MatMulInteger(pixels, w)
        real = Cast<to = 1>(acc)
        scaled = Mul(real, step)
        one = Constant<value_float = 1.0>()
        hidden = QuantizeLinear(scaled, one, zero)
        sums = MatMulInteger(hidden, w)
        again = Cast<to = 1>(sums)
        logits = Mul(again, step)
    }"""
    artifact = Artifact(parsed(text, w=codes))
    other = packed(artifact, tmp_path)
    assert len(other.metadata()["packed"]) == 1
    images = np.random.default_rng(0).integers(0, 256, (3, 100), np.uint8)
    expected = Emulator(artifact).trace(images)
    for level in LEVELS:
        found = run_onnxruntime(other.to_bytes(), {"pixels": images}, level=level, expose=["hidden"])
        assert np.array_equal(found["hidden"], expected["hidden"])
        assert np.array_equal(found["logits"], expected["logits"])
    assert np.array_equal(Emulator(other)(images), expected["logits"])


def test_a_model_without_narrow_weights_is_refused() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (300, 20))
    with pytest.raises(TargetError, match="holds no weights that packing makes smaller"):
        TARGET.build(dense_artifact(codes), TARGET.options())


def test_an_old_opset_is_refused() -> None:
    artifact = dense_artifact(np.ones((300, 20), np.int64))
    artifact.model.graph.opset_imports[""] = 13
    with pytest.raises(TargetError, match="opset 13, and unpacking needs 18 or newer"):
        TARGET.check(artifact, TARGET.options())


def test_weights_so_few_that_unpacking_takes_more_than_it_saves_stay() -> None:
    with pytest.raises(TargetError, match="a few thousand"):
        TARGET.check(residual_artifact(), TARGET.options())
