import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from ohmfold.toolchain.analysis.layers import activation_errors, layer_rows
from ohmfold.toolchain.attacks import evaluate, make_attack, save_adversarial
from ohmfold.toolchain.compiler import compile as compile_model
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.recipe import Recipe
from ohmfold.toolchain.run_record import (
    AccuracyRow,
    ArtifactRecord,
    AttackRow,
    DatasetRecord,
    ExactnessRow,
    RunRecord,
)
from ohmfold.toolchain.witness import certify

NET = """
    <ir_version: 10, opset_import: ["" : 21]>
    net (float[N, 1, 8, 8] pixels) => (float[N, 4] logits) {
        a = Conv <kernel_shape = [3, 3]> (pixels, first_weight, first_bias)
        b = Relu (a)
        c = Flatten (b)
        logits = Gemm (c, last_weight)
    }
"""
RECIPES = {"plain": Recipe(), "mu-law": Recipe(mu_law={"last": 255.0})}


def _model() -> ir.Model:
    random = np.random.default_rng(5)
    model = onnx.parser.parse_model(NET)
    arrays = {
        "first_weight": random.normal(0, 0.3, (3, 1, 3, 3)),
        "first_bias": random.normal(0, 0.1, 3),
        "last_weight": random.normal(0, 0.1, (108, 4)).clip(-1, 1),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()
    )
    return ir.from_proto(model)


@pytest.fixture(scope="session")
def compiled_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny net, whose every figure was measured; `run` hands out copies."""
    folder = tmp_path_factory.mktemp("run")
    model = _model()
    images = np.random.default_rng(6).integers(0, 256, (24, 1, 8, 8)).astype(np.uint8)
    labels = np.zeros(len(images), np.int64)
    artifacts, accuracy, exactness, attacks = [], [], [], []
    for variant, recipe in RECIPES.items():
        artifact = compile_model(model, images, recipe)
        emulator = Emulator(artifact)
        if variant == "plain":
            labels = emulator.predict(images)
            labels[0] = (labels[0] + 1) % 4
        artifacts.append(
            ArtifactRecord(
                variant=variant,
                file=f"{variant}.onnx",
                sha256=artifact.sha256,
                recipe=recipe.model_dump(exclude_none=True),
                notes=tuple(artifact.notes),
                layers=layer_rows(artifact, activation_errors(artifact, model, images)),
            )
        )
        right = int((emulator.predict(images) == labels).sum())
        accuracy += [
            AccuracyRow(variant=variant, model="float", witness="onnxruntime", images=24, correct=22),
            AccuracyRow(variant=variant, model="integer", witness="emulator", images=24, correct=right),
        ]
        exactness += [
            ExactnessRow(
                variant=variant,
                witness=row.name,
                tensors=row.comparison.tensors,
                integers=row.comparison.integers,
                floats=row.comparison.floats,
                differing=row.comparison.differing,
            )
            for row in certify(artifact, images, levels=("all",), threads=(1,))
        ]
        for name in ("gaussian-noise", "fgsm"):
            (result,) = evaluate(artifact, None, images, labels, [make_attack(name)], 30).results
            save_adversarial(result, folder / f"{variant}-{name}.npz", artifact.sha256)
            attacks.append(
                AttackRow(
                    variant=variant,
                    attack=name,
                    parameters=dict(result.parameters),
                    norm=result.norm,
                    epsilon_codes=30,
                    images=24,
                    clean_correct=int((result.clean_predictions == labels).sum()),
                    correct=int((~result.success).sum()),
                    adversarial=f"{variant}-{name}.npz",
                )
            )
    record = RunRecord(
        title="Tiny net",
        command="ohmfold demo --seed 0",
        seed=0,
        versions={"numpy": np.__version__},
        machine="a machine",
        dataset=DatasetRecord(name="noise", images=24, sha256=hashlib.sha256(images.tobytes()).hexdigest()),
        source_sha256="0" * 64,
        artifacts=tuple(artifacts),
        accuracy=tuple(accuracy),
        exactness=tuple(exactness),
        attacks=tuple(attacks),
        seconds={"compile": 1.25},
    )
    (folder / "run.json").write_text(record.to_json())
    return folder
