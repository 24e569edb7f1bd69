"""`ohmfold build`: what is written, what is refused, and that nothing is half-written."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

import ohmfold
from ohmfold.toolchain.artifact import Artifact
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.targets import base, find_target
from ohmfold.toolchain.targets.crossbar_reader import emulator_of, load_image
from ohmfold.toolchain.targets.packed import PackedTarget
from ohmfold.toolchain.targets.qdq import QdqTarget

from .conftest import float_model

WRITTEN = {
    "crossbar": {"image.json", "image.npz"},
    "packed": {"packed.onnx"},
    "qdq": {"qdq.onnx"},
    "qonnx": {"qonnx.onnx"},
}
NEEDED = {"crossbar": ("--hardware", "ideal")}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """An artifact with enough weights to be packed."""
    rng = np.random.default_rng(0)
    model = float_model(weights=rng.normal(0, 0.2, (256, 40)).astype(np.float32))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 40
    folder = tmp_path_factory.mktemp("large")
    onnx.save(model, folder / "model.onnx")
    images = rng.integers(0, 256, (20, 1, 8, 8), np.uint8)
    ohmfold.compile(folder / "model.onnx", images).save(folder / "artifact.onnx")
    return folder / "artifact.onnx"


@pytest.mark.parametrize("target", WRITTEN)
def test_a_target_is_written_to_a_new_folder(target, call, large, tmp_path) -> None:
    arguments = ["build", large, "--target", target, "--out", tmp_path / "out", *NEEDED.get(target, ())]
    found = call(*arguments)
    assert (found.code, found.err) == (0, "")
    assert {path.name for path in (tmp_path / "out").iterdir()} == WRITTEN[target]
    for path in (tmp_path / "out").iterdir():
        assert f"{path.stat().st_size:,}" in next(x for x in found.out.splitlines() if path.name in x)
    assert found.out.splitlines()[-1] == f"wrote {tmp_path / 'out'}"
    again = call(*arguments)
    assert again.code == 2
    assert (
        again.err
        == f"error: {tmp_path / 'out'} is not empty; choose a new or empty folder, nothing is written over\n"
    )


def test_json_tells_what_was_written(call, large, tmp_path) -> None:
    found = call("build", large, "--target", "packed", "--out", tmp_path / "out", "--json")
    document = json.loads(found.out)
    content = (tmp_path / "out" / "packed.onnx").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert document["files"] == [{"name": "packed.onnx", "bytes": len(content), "sha256": digest}]
    assert document["sha256"] == Artifact.load(large).sha256
    assert document["summary"]["weights"]["fc.codes"]["bits"] == 3
    assert document["target"] == "packed"


def test_what_was_built_has_the_artifacts_bits(call, large, tmp_path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (5, 1, 8, 8), np.uint8)
    assert call("build", large, "--target", "packed", "--out", tmp_path / "packed").code == 0
    assert np.array_equal(Emulator(tmp_path / "packed" / "packed.onnx")(images), Emulator(large)(images))
    chip = ("--hardware", "reram-128", "--set", "adc.bits=5", "--set", "adc.range=full", "--seed", 4)
    assert call("build", large, "--target", "crossbar", "--out", tmp_path / "image", *chip).code == 0
    hardware = load_hardware("reram-128").with_changes({"adc.bits": 5, "adc.range": "full"})
    expected = Emulator(large, hardware=hardware, seed=4)(images)
    assert np.array_equal(emulator_of(load_image(tmp_path / "image"), Artifact.load(large))(images), expected)


def test_converters_are_calibrated_on_the_images_that_run_takes(call, files, tmp_path) -> None:
    chip = ("--hardware", "ideal", "--set", "adc.bits=4", "--set", "adc.range=calibrated")
    found = call(
        "build", files.artifact, "--target", "crossbar", "--out", tmp_path / "o", *chip, "--data", files.data
    )
    assert (found.code, found.err) == (0, "")
    ran = call("run", files.artifact, *chip, "--data", files.data, "--out", tmp_path / "p.npz", "--json")
    assert ran.code == 0
    with np.load(files.data) as archive:
        kept = np.sort(np.random.default_rng(0).permutation(80)[30:])
        images = archive["images"][kept]
    loaded = emulator_of(load_image(tmp_path / "o"), Artifact.load(files.artifact))
    with np.load(tmp_path / "p.npz") as saved:
        assert np.array_equal(saved["crossbar"], loaded.predict(images))


def test_a_c_library_is_written_with_test_vectors(call, files, tmp_path) -> None:
    arguments = (
        "build",
        files.artifact,
        "--target",
        "c99",
        "--name",
        "net",
        "--data",
        files.data,
        "--images",
        3,
    )
    found = call(*arguments, "--out", tmp_path / "c")
    assert (found.code, found.err) == (0, "")
    assert {"net.h", "net.c", "net_weights.c", "Makefile"} <= {
        path.name for path in (tmp_path / "c").iterdir()
    }
    assert "ROM" in found.out
    assert "RAM" in found.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--target", "qd"),
            "no target 'qd', the nearest is 'qdq'; expected one of c99, crossbar, packed, qdq, qonnx",
        ),
        (("--target", "qdq", "--name", "x"), "name: not an option of this target, which has none"),
        (("--target", "qdq", "--seed", "1"), "seed: not an option of this target, which has none"),
        (("--target", "qdq", "--integer-only"), "integer_only: not an option of this target, which has none"),
        (
            ("--target", "packed", "--images", "3"),
            "--images: target 'packed' has no test vectors; leave it out",
        ),
        (("--target", "qdq", "--data", "mnist"), "--data: target 'qdq' needs no images here; leave it out"),
        (("--target", "crossbar"), "hardware: this target needs it, found none"),
        (("--target", "crossbar", "--set", "adc.bits=3"), "--set is about a chip"),
        (
            ("--target", "crossbar", "--hardware", "issac"),
            "no hardware preset 'issac', the nearest is 'isaac'",
        ),
        (("--target", "c99", "--name", "my-net"), "name 'my-net' is not a C identifier"),
        (("--target", "c99", "--ram", "10"), "bytes of RAM"),
        (("--target", "c99", "--rom", "100"), "bytes of ROM"),
        (("--target", "packed"), "the model holds no weights that packing makes smaller"),
    ],
)
def test_what_cannot_be_built_is_one_line_and_nothing_is_written(
    arguments, message, call, files, tmp_path
) -> None:
    found = call("build", files.artifact, *arguments, "--out", tmp_path / "out")
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert message in found.err
    assert list(tmp_path.iterdir()) == []


def test_an_unsupported_layer_is_refused_by_name(call, files, tmp_path) -> None:
    onnx.save(float_model(middle="LeakyRelu"), tmp_path / "leaky.onnx")
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), np.uint8)
    ohmfold.compile(tmp_path / "leaky.onnx", images).save(tmp_path / "artifact.onnx")
    found = call("build", tmp_path / "artifact.onnx", "--target", "qonnx", "--out", tmp_path / "out")
    assert found.code == 2
    assert "layer 'middle' (Table)" in found.err
    assert not (tmp_path / "out").exists()


def test_a_missing_artifact_and_a_float_model_are_refused(call, files, tmp_path) -> None:
    for file, message in (
        (tmp_path / "none.onnx", "cannot read the model"),
        (files.model, "compile the model first"),
    ):
        found = call("build", file, "--target", "qdq", "--out", tmp_path / "out")
        assert found.code == 2
        assert message in found.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused_before_any_work(call, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    found = call("build", tmp_path / "none.onnx", "--target", "qdq", "--out", tmp_path / "out")
    assert found.code == 2
    assert "is not empty" in found.err
    assert (tmp_path / "out" / "mine").read_text() == "kept"


@pytest.mark.parametrize("where", ["build", "write"])
def test_an_interrupt_leaves_nothing_behind(where, call, large, tmp_path, monkeypatch) -> None:
    def interrupted(*_arguments, **_settings):
        raise KeyboardInterrupt

    if where == "build":
        monkeypatch.setattr(QdqTarget, "build", interrupted)
    else:
        monkeypatch.setattr(base.os, "fsync", interrupted)
    found = call("build", large, "--target", "qdq", "--out", tmp_path / "out")
    assert (found.code, found.out, found.err) == (130, "", "interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_nothing_behind(call, large, tmp_path, monkeypatch) -> None:
    def failing(*_arguments):
        raise RuntimeError("half-way")

    monkeypatch.setattr("ohmfold.toolchain.targets.packed._Unpacking.unpack", failing)
    assert isinstance(find_target("packed"), PackedTarget)
    found = call("build", large, "--target", "packed", "--out", tmp_path / "out")
    assert found.code == 1
    assert "this is a bug in ohmfold: RuntimeError: half-way" in found.err
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ohmfold.toolchain.cli import main; assert main(['build', '--help']) == 0;"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'numba', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--integer-only" in found.stdout
    assert found.stdout.splitlines()[-1] == "[]"
