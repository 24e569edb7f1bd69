"""Every command on small inputs: what it prints, what it writes, and that its JSON is nothing but JSON."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest

import ohmfold
from ohmfold.kernels import isa
from ohmfold.models import checkpoints, datasets, training
from ohmfold.models.image_data import Dataset
from ohmfold.models.recipe import TrainingRecipe
from ohmfold.toolchain.run_record import RunRecord

from .conftest import float_model, write_images

if TYPE_CHECKING:
    from pathlib import Path


ATTACKS_OF_THE_DEMO = {"uniform-noise", "fgsm", "pgd", "adaptive-pgd", "worst case"}


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def document(outcome) -> dict:
    assert outcome.err == ""
    return json.loads(outcome.out)


def test_compile_writes_an_artifact_that_onnxruntime_runs_to_the_emulators_bits(call, files) -> None:
    images = np.load(files.data)["images"]
    session = onnxruntime.InferenceSession(files.artifact.read_bytes())
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    assert np.array_equal(logits, ohmfold.Emulator(files.artifact)(images))


def test_compile_prints_layers_notes_and_the_hash(call, files, tmp_path) -> None:
    outcome = call("compile", files.model, "--out", tmp_path / "a.onnx", "--data", files.data)
    assert outcome.code == 0
    assert outcome.err == ""
    assert "conv" in outcome.out
    assert ohmfold.Artifact.load(tmp_path / "a.onnx").sha256 in outcome.out
    assert listing(tmp_path) == {"a.onnx"}


def test_options_override_the_recipe_file_and_leave_its_other_fields(call, files, tmp_path) -> None:
    recipe = ohmfold.Recipe(weight_bits=5, calibration="mse", granularity="channel")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    given = ["--recipe", tmp_path / "recipe.toml", "--weight-bits", 4, "--per-tensor", "--layer-bits", "fc=8"]
    given += ["--mu-law", "conv=31", "--mu-law-domain", "normalised", "--step", "mse", "--bias-correction"]
    outcome = call(
        "compile", files.model, "--out", tmp_path / "a.onnx", "--data", files.data, *given, "--json"
    )
    used = ohmfold.Recipe(**document(outcome)["recipe"])
    assert used == ohmfold.Recipe(
        weight_bits=4,
        calibration="mse",
        granularity="tensor",
        step="mse",
        layers={"fc": {"weight_bits": 8}},
        mu_law={"conv": 31.0},
        mu_law_domain="normalised",
        bias_correction=True,
    )
    assert ohmfold.Artifact.load(tmp_path / "a.onnx").metadata()["recipe"] == used.model_dump(
        exclude_none=True
    )


def test_compile_keeps_the_model_after_each_pass_and_inspect_shows_each(call, files, tmp_path) -> None:
    out, kept = tmp_path / "a.onnx", tmp_path / "passes"
    assert call("compile", files.model, "--out", out, "--data", files.data, "--keep", kept).code == 0
    stages = sorted(kept.glob("*.onnx"))
    assert len(stages) > 5
    for stage in stages:
        shown = document(call("inspect", stage, "--json"))
        written = [name for node in onnx.load(stage).graph.node for name in node.output]
        assert [row["output"] for row in shown["nodes"]] == written


def test_inspect_shows_an_artifact_layer_by_layer(call, files) -> None:
    shown = document(call("inspect", files.artifact, "--json"))
    artifact = ohmfold.Artifact.load(files.artifact)
    assert [layer["name"] for layer in shown["program"]] == [layer.name for layer in artifact.program.layers]
    assert [layer["name"] for layer in shown["layers"]] == ["conv", "fc"]
    assert shown["metadata"]["calibration"]["images"] == 30
    sizes = {row["name"]: row["bytes"] for row in shown["initializers"]}
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor).nbytes
        for tensor in onnx.load(files.artifact).graph.initializer
    }
    assert sizes == stored


def test_inspect_marks_the_layer_that_costs_most(call, files) -> None:
    arguments = ("inspect", files.artifact, "--float", files.model, "--data", files.data)
    errors = document(call(*arguments, "--json"))["activation_errors"]
    worst = min((row for row in errors if row["snr_db"] is not None), key=lambda row: row["snr_db"])
    (marked,) = [line for line in call(*arguments).out.splitlines() if "<- worst" in line]
    assert marked.split()[0] == worst["name"]


def test_inspect_of_a_float_model_shows_its_nodes_and_says_that_it_is_not_an_integer_one(call, files) -> None:
    outcome = call("inspect", files.model)
    assert outcome.code == 0
    assert "Not an integer model" in outcome.out
    assert "N, 4, 8, 8" in outcome.out


def test_run_leaves_out_what_calibrated_the_artifact_and_counts_like_numpy(call, files, tmp_path) -> None:
    saved = tmp_path / "predictions.npz"
    arguments = ("run", files.artifact, "--data", files.data, "--witness", "all", "--out", saved)
    found = document(call(*arguments, "--json"))
    with np.load(files.data) as archive:
        images, labels = archive["images"], archive["labels"]
    kept = np.sort(np.random.default_rng(0).permutation(80)[30:])
    expected = ohmfold.Emulator(files.artifact).predict(images[kept])
    with np.load(saved) as archive:
        assert np.array_equal(archive["emulator"], expected)
        assert np.array_equal(archive["onnxruntime"], expected)
        assert np.array_equal(archive["labels"], labels[kept])
    assert (found["images"], found["left_out"]) == (50, 30)
    assert found["witnesses"]["emulator"]["correct"] == int((expected == labels[kept]).sum())
    assert found["differing"] == 0
    assert found["integers"] > 10_000
    assert len(found["exactness"]) == 21


def test_run_judges_by_all_images_of_another_data_set(call, files, tmp_path) -> None:
    other = write_images(tmp_path / "other.npz", 41)
    assert document(call("run", files.artifact, "--data", other, "--json"))["images"] == 41
    few = document(call("run", files.artifact, "--data", other, "--images", 7, "--json"))
    assert (few["images"], few["left_out"]) == (7, 0)


def test_run_exits_with_1_where_a_witness_differs(call, files, monkeypatch) -> None:
    from ohmfold.toolchain import witness

    def tampered(self, inputs):
        values = honest(self, inputs)
        return {name: value + 1 if value.dtype == np.float32 else value for name, value in values.items()}

    honest = witness.OnnxRuntime.run
    monkeypatch.setattr(witness.OnnxRuntime, "run", tampered)
    outcome = call("run", files.artifact, "--data", files.data, "--witness", "all")
    assert outcome.code == 1
    assert "first difference: logits" in outcome.out


def test_run_takes_integer_models_made_by_others(call, tmp_path) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 13]>
        foreign (float[N, 1, 2, 2] x) => (float[N, 3] logits)
        <float scale = {0.00392156886}, uint8 zero = {0}, int64[2] shape = {0, -1}, float[1] step = {0.5},
         int8[4, 3] w = {1, -2, 3, 0, 5, -6, 7, 1, -1, 2, 2, 2}>
        {
            q = QuantizeLinear(x, scale, zero)
            flat = Reshape(q, shape)
            acc = MatMulInteger(flat, w)
            real = Cast<to = 1>(acc)
            logits = Mul(real, step)
        }
    """)
    onnx.save(model, tmp_path / "foreign.onnx")
    data = write_images(tmp_path / "data.npz", 20, side=2)
    found = document(call("run", tmp_path / "foreign.onnx", "--data", data, "--witness", "all", "--json"))
    assert (found["images"], found["differing"]) == (20, 0)


def test_export_writes_a_model_that_agrees_with_torch(call, tmp_path) -> None:
    out = tmp_path / "m.onnx"
    found = document(call("export", "mnist-cnn", "--out", out, "--input-shape", "1,28,28", "--json"))
    assert found["images_from"] == "random pixels"
    assert found["same_labels"] == found["images"]
    onnx.checker.check_model(onnx.load(out))
    assert listing(tmp_path) == {"m.onnx"}


def train_arguments(data: Path, out: Path) -> list[object]:
    return [
        "train",
        "--model",
        "mnist-resnet8",
        "--data",
        data,
        "--epochs",
        2,
        "--batch-size",
        16,
        "--out",
        out,
    ]


def test_train_writes_weights_that_load_and_resumes_where_it_stopped(call, tmp_path) -> None:
    data = write_images(tmp_path / "data.npz", 40, side=28)
    first = document(call(*train_arguments(data, tmp_path / "a.safetensors"), "--json"))
    assert first["test_accuracy"] is None  # there are no test images of its own
    resumed = [
        *train_arguments(data, tmp_path / "b.safetensors"),
        "--checkpoints",
        tmp_path / "state",
        "--json",
    ]
    assert document(call(*resumed))["weights_sha256"] == first["weights_sha256"]
    assert document(call(*resumed))["weights_sha256"] == first["weights_sha256"]
    tensors = checkpoints.load_weights(tmp_path / "a.safetensors")
    assert checkpoints.weights_sha256(
        checkpoints.load_model(tmp_path / "a.safetensors")
    ) == checkpoints.weights_sha256(tensors)
    started = [
        *train_arguments(data, tmp_path / "c.safetensors"),
        "--init",
        tmp_path / "a.safetensors",
        "--json",
    ]
    assert document(call(*started))["weights_sha256"] != first["weights_sha256"]


def test_train_prints_test_accuracy_and_the_hash(call, tmp_path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for split, number in (("train", 8), ("test", 4)):
        for name in ("one", "two"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(number):
                Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(folder / f"{index}.png")
    outcome = call(*train_arguments(tmp_path / "data", tmp_path / "a.safetensors"))
    assert outcome.code == 0
    assert "of 8)" in outcome.out
    assert "SHA-256" in outcome.out


def test_the_model_cards_command_is_one_that_the_command_line_takes(call, tmp_path, monkeypatch) -> None:
    card = (checkpoints.ZOO / "mnist-cnn.md").read_text()
    command = card[card.index("ohmfold train") :].partition("\n\n")[0].replace("\\\n", " ")
    words = shlex.split(command)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "a.safetensors")
    seen: dict[str, object] = {}
    tiny = Dataset("tiny", np.zeros((4, 1, 28, 28), np.uint8), np.arange(4))

    def resolve(spec, split="test", *, exclude=None):
        seen.setdefault("asked", (spec, split, exclude))
        return tiny

    def fake_train(model, data, recipe, **_):
        seen["recipe"] = recipe
        return training.TrainingResult((training.EpochRecord(1, 0.0, None, 0.0),), 0.0, "0" * 64)

    monkeypatch.setattr(datasets, "resolve_dataset", resolve)
    monkeypatch.setattr(training, "train", fake_train)
    assert call(*words).code == 0
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert seen["asked"] == (options["--data"], "train", options["--exclude"])
    recipe = seen["recipe"]
    assert isinstance(recipe, TrainingRecipe)
    settings = {f"--{name.replace('_', '-')}": value for name, value in recipe.as_dict().items()}
    for name in set(options) & set(settings):
        assert settings[name] == type(settings[name])(options[name])


def test_doctor_tells_versions_features_and_data_sets(call) -> None:
    outcome = call("doctor", "--json")
    found = json.loads(outcome.out)
    libraries = {row["name"]: row["version"] for row in found["libraries"]}
    assert libraries["onnx"] == onnx.__version__
    assert libraries["cleverhans"] == "4.0.0"
    assert {row["name"] for row in found["datasets"]} == {"mnist-sample", "mnist", "cifar10"}
    assert found["cores"] >= 1
    assert outcome.code == 0
    assert "Libraries" in call("doctor").out


def test_doctor_lists_the_instruction_sets_of_the_kernels(call, monkeypatch) -> None:
    monkeypatch.delenv(isa.VARIABLE, raising=False)
    assert json.loads(call("doctor", "--json").out)["instruction_sets"] == list(isa.available())
    sets = ", ".join(isa.available())
    assert (
        f"The kernels can use {sets} (OHMFOLD_ISA chooses); they take {isa.available()[0]}."
        in call("doctor").out
    )
    monkeypatch.setenv(isa.VARIABLE, "portable")
    assert "they take portable." in call("doctor").out
    monkeypatch.setenv(isa.VARIABLE, "sse9")
    refused = call("doctor")
    assert refused.code == 0
    assert (
        "OHMFOLD_ISA: found the instruction set 'sse9'; OHMFOLD_ISA and --isa take amx, vnni" in refused.out
    )
    assert "Nothing is missing" not in refused.out


def test_doctor_says_what_is_missing_for_which_command(call, monkeypatch) -> None:
    from ohmfold.toolchain import doctor

    installed = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "cleverhans" else installed(name))
    monkeypatch.setattr(doctor, "_kernel_cache", lambda: None)
    outcome = call("doctor")
    assert outcome.code == 1
    assert "cleverhans, for attack, demo: pip install cleverhans" in outcome.out
    assert "NUMBA_CACHE_DIR" in outcome.out


@pytest.mark.slow
def test_demo_writes_its_folder_and_finds_no_difference(call, tmp_path) -> None:
    out = tmp_path / "demo"
    found = document(call("demo", "--out", out, "--images", 60, "--attack-images", 3, "--json"))
    assert {"model.onnx", "artifact.onnx", "artifact-mu-law.onnx", "run.json", "report.html"} <= listing(out)
    assert found["left_out"] == 512
    assert sum(row["differing"] for row in found["exactness"]) == 0
    assert sum(row["integers"] for row in found["exactness"]) > 1_000_000
    assert all(row["correct"] >= 57 for row in found["accuracy"])
    assert {row["attack"] for row in found["attacks"]} == ATTACKS_OF_THE_DEMO
    assert [row["variant"] for row in found["verdicts"]] == ["plain", "mu-law on fc2"]
    assert listing(tmp_path) == {"demo", *(f"demo/{name}" for name in listing(out))}
    record = RunRecord.load(out)
    for artifact in record.artifacts:
        assert ohmfold.Artifact.load(out / artifact.file).sha256 == artifact.sha256
    (out / "mine.txt").write_text("kept")
    again = call("demo", "--out", out, "--images", 20, "--attack-images", 2)
    assert again.code == 0
    assert again.out.rstrip().splitlines()[-1] == f"Report: {out / 'report.html'}"
    assert (out / "mine.txt").read_text() == "kept"
    assert RunRecord.load(out).dataset.images == 20


def test_the_calibration_set_is_at_most_half_of_a_small_data_set(call, files, tmp_path) -> None:
    onnx.save(float_model(), tmp_path / "m.onnx")
    found = document(
        call("compile", tmp_path / "m.onnx", "--out", tmp_path / "a.onnx", "--data", files.data, "--json")
    )
    assert found["calibration"]["images"] == 40


def test_train_download_is_for_mnist_alone(call, tmp_path) -> None:
    out = tmp_path / "w.safetensors"
    outcome = call("train", "--model", "mnist-cnn", "--data", "cifar10", "--download", "--out", out)
    assert outcome.code == 2
    assert "--download fetches MNIST" in outcome.err
    assert not out.exists()
