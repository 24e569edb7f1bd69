"""Small models and data sets as files, and a way to call the command line without starting a process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ohmfold.toolchain.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIDE, CLASSES = 8, 3


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


def float_model(
    *, scale: float = 0.2, side: int = SIDE, middle: str = "Relu", weights: np.ndarray | None = None
) -> onnx.ModelProto:
    """conv (1 -> 4, 3x3) - `middle` - flatten - fc (3 classes)."""
    rng = np.random.default_rng(3)
    conv = rng.normal(0, 0.3, (4, 1, 3, 3)).astype(np.float32)
    fc = rng.uniform(-scale, scale, (4 * side * side, CLASSES)).astype(np.float32)
    arrays = {"w1": conv, "w2": fc if weights is None else weights}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["a"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node(middle, ["a"], ["b"], name="middle"),
            helper.make_node("Flatten", ["b"], ["c"], name="flatten"),
            helper.make_node("MatMul", ["c", "w2"], ["logits"], name="fc"),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def write_images(path: Path, count: int, side: int = SIDE, dtype: type = np.uint8) -> Path:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (count, 1, side, side)).astype(dtype)
    np.savez(path, images=images, labels=rng.integers(0, CLASSES, count))
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "ohmfold", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell starts with SIGINT ignored; a user's foreground command does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(found, process: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Files(NamedTuple):
    """`data` holds 80 images, of which compiling the artifact used 30."""

    data: Path
    model: Path
    artifact: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("small")
    found = Files(write_images(folder / "data.npz", 80), folder / "model.onnx", folder / "artifact.onnx")
    onnx.save(float_model(), found.model)
    arguments = ["compile", found.model, "--out", found.artifact, "--data", found.data]
    assert main([*map(str, arguments), "--calibration-images", "30", "--json"]) == 0
    return found
