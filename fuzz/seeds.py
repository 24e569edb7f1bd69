"""Small sound files for every reader, made by ohmfold's own writers: what the mutations start from."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ohmfold.models.checkpoints import save_weights, write_training_state

from .archives import archive_of, members_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ohmfold.toolchain.artifact import Artifact

__all__ = ["Files", "seeds_of"]

Files = dict[str, bytes]
"""An input: contents by name, in one folder."""

SHA256 = "0123456789abcdef" * 4
SIDE, CLASSES = 8, 10
_HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'
_PLAIN = """net (float[N, 1, 8, 8] x) => (float[N, 10] logits) <int64[2] shape = {0, -1}> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    b = Relu(a)
    c = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)
    d = Reshape(c, shape)
    logits = Gemm(d, w2, b2)
}"""
_RESIDUAL = """net (float[N, 1, 8, 8] x) => (float[N, 10] logits) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    b = Relu(a)
    c = Conv <pads = [1, 1, 1, 1], group = 4> (b, w3)
    e = BatchNormalization(c, b3, b3, b3, v3)
    f = Add(e, b)
    g = LeakyRelu(f)
    h = GlobalAveragePool(g)
    i = Flatten(h)
    logits = Gemm(i, w4, b2)
}"""
_CONTRIB = """net (uint8[1, 2, 3, 3] x) => (float[1, 2] y)
<float s = {0.5}, uint8 z = {3}, float s2 = {1.25}, uint8 z2 = {7}> {
    a = com.microsoft.QLinearAdd (x, s, z, x, s, z, s2, z2)
    b = com.microsoft.QLinearGlobalAveragePool <channels_last = 0> (a, s2, z2, s, z)
    c = Flatten(b)
    y = DequantizeLinear(c, s, z)
}"""


def _floats() -> list[bytes]:
    """Float models: a chain, and a residual one with a batch norm."""
    import onnx
    from onnx import numpy_helper

    rng = np.random.default_rng(3)
    arrays = {
        "w1": rng.normal(0, 0.3, (4, 1, 3, 3)), "b1": rng.normal(0, 0.1, 4), "w2": rng.normal(0, 0.1, (64, CLASSES)),
        "b2": rng.normal(0, 0.1, CLASSES), "w3": rng.normal(0, 0.3, (4, 1, 3, 3)), "b3": rng.uniform(0.1, 1, 4),
        "v3": rng.uniform(0.5, 1, 4), "w4": rng.normal(0, 0.4, (4, CLASSES)),
    }  # fmt: skip
    found = []
    for text in (_PLAIN, _RESIDUAL):
        model = onnx.parser.parse_model(_HEADER + text)
        read = {name for node in model.graph.node for name in node.input}
        model.graph.initializer.extend(
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in arrays.items()
            if name in read
        )
        found.append(bytes(model.SerializeToString(deterministic=True)))
    return found


def _images(count: int = 6) -> Any:
    return np.random.default_rng(5).integers(0, 256, (count, 1, SIDE, SIDE), np.uint8)


def _artifacts(**recipe: Any) -> list[Artifact]:
    import onnx_ir as ir

    import ohmfold

    return [
        ohmfold.compile(ir.from_proto(_proto(data)), _images(16), ohmfold.Recipe(**recipe))
        for data in _floats()
    ]


def _proto(data: bytes) -> Any:
    import onnx

    return onnx.load_model_from_string(data)


def _integer_models() -> list[Files]:
    import onnx

    from ohmfold.toolchain.targets import find_target

    own = _artifacts()
    target = find_target("qdq")
    found = [artifact.to_bytes() for artifact in own]
    for artifact in _artifacts(scales="pow2"):
        files = target.build(artifact, target.options()).files
        found += [content for name, content in files.items() if name.endswith(".onnx")]
    found.append(bytes(onnx.parser.parse_model(_HEADER + _CONTRIB).SerializeToString(deterministic=True)))
    return [{"model.onnx": data} for data in found]


def _metadata() -> list[Files]:
    return [{"model.onnx": artifact.to_bytes()} for artifact in _artifacts(mu_law={}, bias_correction=True)]


def _packed() -> list[Files]:
    """An artifact with enough weights for packing."""
    import onnx
    from onnx import numpy_helper

    import ohmfold
    from ohmfold.toolchain.targets import find_target

    text = "net (float[N, 1, 8, 8] x) => (float[N, 40] y) { a = Flatten(x) y = Gemm(a, w, b) }"
    model = onnx.parser.parse_model(_HEADER + text)
    rng = np.random.default_rng(4)
    for name, shape in (("w", (64, 40)), ("b", (40,))):
        model.graph.initializer.append(
            numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name)
        )
    import onnx_ir as ir

    artifact = ohmfold.compile(ir.from_proto(model), _images(16))
    target = find_target("packed")
    return [{"model.onnx": next(iter(target.build(artifact, target.options()).files.values()))}]


def _float_models() -> list[Files]:
    return [{"model.onnx": data} for data in _floats()]


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        write(path)
        return path.read_bytes()


def _small_net() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def _known_net() -> tuple[str, Any]:
    """The smallest network that can be built from its name."""
    from ohmfold.models.registry import build_model

    return "mnist-mobilenet", build_model("mnist-mobilenet")


def _safetensors() -> list[Files]:
    small, (name, known) = _small_net(), _known_net()
    files = [_written(lambda path, half=half: save_weights(small, path, half=half)) for half in (True, False)]
    files.append(_written(lambda path: save_weights(known, path, architecture=name)))
    return [{"net.safetensors": data} for data in files]


def _checkpoints() -> list[Files]:
    import torch

    small, (_, known) = _small_net(), _known_net()
    states = (small.state_dict(), {"model": dict(small.state_dict()), "epoch": 3}, known.state_dict())
    return [{"net.pt": _written(lambda path, state=state: torch.save(state, path))} for state in states]


def _training_states() -> list[Files]:
    import torch

    state = {
        "epoch": 2,
        "model": {"w": torch.ones(3, 2)},
        "optimizer": {"lr": 0.1, "groups": [{"params": [0]}]},
    }
    return [{"training.pt": _written(lambda path: write_training_state(path, "run", state))}]


def _hardware() -> list[Files]:
    from ohmfold.toolchain.hardware import load_hardware, preset_names

    return [
        {"chip.toml": load_hardware(name).to_toml().encode()} for name in preset_names() if name != "template"
    ]


def _recipes() -> list[Files]:
    import ohmfold

    recipes = (
        ohmfold.Recipe(),
        ohmfold.Recipe(scales="pow2", weight_bits=4, layers={"fc": {"weight_bits": 8}}, mu_law={"fc": 255.0}),
    )
    return [{"recipe.toml": recipe.to_toml().encode()} for recipe in recipes]


def _suites() -> list[Files]:
    from ohmfold.toolchain.attacks.suite import suite_names, suite_text

    return [{"suite.toml": suite_text(name).encode()} for name in suite_names()]


def _probes() -> list[Files]:
    from importlib import resources

    folder = resources.files("ohmfold.toolchain.attacks.masking")
    return [{"probe.toml": (folder / "probe.toml").read_bytes()}]


def _idx(array: Any) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _mnist() -> list[Files]:
    images, labels = _idx(_images()[:, 0]), _idx(np.arange(6, dtype=np.uint8))
    names = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    return [
        dict(zip(names, (images, labels), strict=True)),
        {
            f"{name}.gz": gzip.compress(data, mtime=0)
            for name, data in zip(names, (images, labels), strict=True)
        },
    ]


def _cifar() -> list[Files]:
    rng = np.random.default_rng(1)
    records = np.concatenate(
        [np.arange(2, dtype=np.uint8)[:, None], rng.integers(0, 256, (2, 3072), np.uint8)], axis=1
    )
    return [{"test_batch.bin": records.tobytes()}]


def npz_of(**arrays: Any) -> bytes:
    """Return an npz whose bytes do not depend on the time."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return archive_of(members_of(buffer.getvalue()))


def _npz() -> list[Files]:
    labels = np.arange(6)
    return [
        {"data.npz": npz_of(images=_images(), labels=labels)},
        {"data.npz": npz_of(labels=labels, images=_images())},
    ]


def _class_folders() -> list[Files]:
    from PIL import Image

    files: Files = {}
    for index, image in enumerate(_images(4)):
        suffix = ".png" if index < 3 else ".jpg"
        buffer = io.BytesIO()
        Image.fromarray(image[0]).save(buffer, "PNG" if suffix == ".png" else "JPEG")
        files[f"class{index % 2}/{index}{suffix}"] = buffer.getvalue()
    return [files]


def _adversarial() -> list[Files]:
    from ohmfold.toolchain.attacks import AttackResult, save_adversarial

    rng = np.random.default_rng(0)
    original = rng.integers(10, 240, (5, 1, 3, 3), np.uint8)
    adversarial = (original + rng.integers(-6, 7, original.shape)).astype(np.uint8)
    result = AttackResult(
        "pgd", "inf", 6, 3, {"steps": 4}, original, adversarial, *rng.integers(0, 3, (3, 5)),
        source="twin", attacked=rng.random(5) < 0.5, kept_earlier=rng.random(5) < 0.5,
        margins=rng.random((2, 5), np.float32), queries=rng.integers(0, 9, 5),
    )  # fmt: skip
    data = _written(lambda path: save_adversarial(result, path, SHA256))
    return [{"set.npz": archive_of(members_of(data))}]


def _crossbar() -> list[Files]:
    from ohmfold.toolchain.hardware import load_hardware
    from ohmfold.toolchain.targets.crossbar_image import ARRAYS, image_of

    found = []
    for artifact, name in zip(_artifacts(), ("isaac", "ideal"), strict=True):
        files = dict(image_of(artifact, load_hardware(name)).files())
        files[ARRAYS] = archive_of(members_of(files[ARRAYS]))
        found.append(files)
    return found


def _results() -> list[Files]:
    """The result of a campaign, as its schema has it."""
    from ohmfold.toolchain.attacks import results as r

    share = r.Share.of(np.arange(10) < 7)
    attack = r.AttackRecord(
        key="mine/pgd", suite="mine", name="pgd", attack="pgd", source="twin", norm="inf", radius=6, epsilon=6 / 255,
        parameters={"steps": 4, "of": [1, 2]}, note="", cascade=False, attacked=10, turned=2, left=share,
        kept_earlier=0, distances=r.Distances(norm="inf", least=1, median=2, mean=2.5, most=6),
        at_radii=(r.AtRadius(radius=1, epsilon=1 / 255, left=share),),
        queries=r.Queries(total=10, median_of_turned=None), adversarial="mine-pgd.npz",
    )  # fmt: skip
    result = r.CampaignResult(
        artifact_sha256=SHA256, data=_data_record(), left_out=0, judge=r.JudgeRecord(name="emulator"), seed=0,
        norm="inf", radius=6,
        suites=(r.SuiteRecord(name="mine", title="Mine", source="", cascade=False, sha256=SHA256),),
        clean=share, attacks=(attack,), skipped=(r.Skipped(suite="mine", name="spsa", reason="none"),),
        worst_case=(r.WorstCase(norm="inf", radius=6, epsilon=6 / 255, left=share, by={"mine/pgd": 2}),),
        verdict=None, versions={"numpy": "2"}, seconds={"mine/pgd": 1.5},
    )  # fmt: skip
    return [{r.RESULT: result.to_json().encode()}]


def _data_record() -> Any:
    from ohmfold.toolchain.run_record import DatasetRecord

    return DatasetRecord(name="tiny", images=10, sha256=SHA256)


def _runs() -> list[Files]:
    """The record of a run, as its schema has it."""
    from ohmfold.toolchain import run_record as r

    layer = r.LayerRow(
        name="fc", kind="dense", shape=(8, 3), options="3 bits", codes=(-1, 0, 1), counts=(3, 4, 5), step_low=0.1,
        step_high=0.2, bound=1000, exact_in_float32=True,
    )  # fmt: skip
    finding = r.FindingRow(name="transfer", outcome="clear", effect=0.1, needed=10, text="A.", source="B")
    record = r.RunRecord(
        title="A run", command="ohmfold demo", seed=0, versions={"numpy": "2"}, machine="one", dataset=_data_record(),
        source_sha256=SHA256,
        artifacts=(
            r.ArtifactRecord(variant="a", file="a.onnx", sha256=SHA256, recipe={}, notes=("n",), layers=(layer,)),
        ),
        accuracy=(r.AccuracyRow(variant="a", model="integer", witness="emulator", images=10, correct=7),),
        exactness=(r.ExactnessRow(variant="a", witness="twin", tensors=1, integers=9, floats=0, differing=0),),
        attacks=(
            r.AttackRow(
                variant="a", attack="pgd", parameters={"steps": 4}, norm="inf", epsilon_codes=6, images=10,
                clean_correct=7, correct=2,
            ),
        ),
        verdicts=(
            r.VerdictRow(
                variant="a", label="inconclusive", images=10, norm="inf", epsilon_codes=6, findings=(finding,)
            ),
        ),
        seconds={"compile": 1.5},
    )  # fmt: skip
    return [{r.RECORD_NAME: record.to_json().encode()}]


def _chip_lines() -> list[Files]:
    from ohmfold.toolchain.chip_folder import ChipKey, FinishedChips

    with tempfile.TemporaryDirectory() as folder:
        chips = FinishedChips(Path(folder))
        for seed in range(3):
            chips.add(ChipKey(SHA256, SHA256, None, SHA256, "0.1.0", seed), 10, 10 - seed)
        return [{"chips.jsonl": Path(folder, "chips.jsonl").read_bytes()}]


def _baselines() -> list[Files]:
    entries = {"mine": {"correct": 7, "images": 10, "data_sha256": SHA256, "artifact_sha256": SHA256}}
    return [{"accuracy.json": json.dumps({"schema": 1, "entries": entries}).encode()}]


def _kept() -> list[Files]:
    return [{"ohmfold/kept.npz": npz_of(array=np.arange(12, dtype=np.uint8).reshape(3, 4))}]


_SEEDS: dict[str, Callable[[], list[Files]]] = {
    "onnx": _integer_models,
    "artifact-metadata": _metadata,
    "packed-onnx": _packed,
    "float-onnx": _float_models,
    "compile": _float_models,
    "safetensors": _safetensors,
    "checkpoint": _checkpoints,
    "training-state": _training_states,
    "hardware-toml": _hardware,
    "recipe-toml": _recipes,
    "suite-toml": _suites,
    "probe-toml": _probes,
    "mnist": _mnist,
    "cifar10": _cifar,
    "npz": _npz,
    "class-folders": _class_folders,
    "adversarial": _adversarial,
    "crossbar-image": _crossbar,
    "result-json": _results,
    "run-json": _runs,
    "chip-lines": _chip_lines,
    "baseline-json": _baselines,
    "kept-array": _kept,
}


def seeds_of(reader: str) -> list[Files]:
    """Return the sound inputs of a reader."""
    return _SEEDS[reader]()
