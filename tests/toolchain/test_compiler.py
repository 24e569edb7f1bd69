"""Whole networks: from a PyTorch module or an ONNX file to an artifact that every witness agrees on."""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from small_models import parsed
from torch import nn

import ohmfold
from ohmfold.errors import DataError, ModelError, OutputError, RecipeError, UnsupportedError
from ohmfold.export import export_module
from ohmfold.models.checkpoints import load_model
from ohmfold.models.datasets import resolve_dataset
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.models.registry import build_model
from ohmfold.toolchain.witness import certify

BATCHES = (1, 7, 256)


def settled(module, shape):
    """Give batch norms statistics of their own, then freeze the module."""
    torch.manual_seed(1)
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(torch.rand(8, *shape))
    return module.eval()


def images(count, shape, seed=0):
    drawn = np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)
    drawn[0], drawn[1] = 0, 255
    return drawn


def briefly_trained(name):
    """Train a small architecture on some real digits for a few steps: weights that are no longer random."""
    data = resolve_dataset("mnist-sample").subset(512, 3)
    module = build_model(name, seed=2).train()
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3)
    for step in range(24):
        batch = slice(64 * (step % 8), 64 * (step % 8) + 64)
        pixels = torch.from_numpy(data.images[batch]).float() / 255
        loss = nn.functional.cross_entropy(module(pixels), torch.from_numpy(data.labels[batch]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval(), data.images


def assert_all_witnesses_agree(artifact, pixels):
    rows = certify(artifact, pixels, batch_sizes=BATCHES, threads=(1, 2))
    assert len(rows) == 5 * 2 * 2 * len(BATCHES)
    assert [row for row in rows if not row.comparison.equal] == []
    emulator, twin = ohmfold.Emulator(artifact), ohmfold.Twin(artifact)
    with torch.no_grad():
        assert torch.equal(twin(torch.from_numpy(pixels).float() / 255), torch.from_numpy(emulator(pixels)))


RANDOM = ["mnist-cnn", "mnist-resnet8", "mnist-vgg", "mnist-mobilenet"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOM)
def test_random_networks_have_the_same_integers_everywhere(name):
    pixels = images(256, (1, 28, 28))
    module = settled(build_model(name, seed=0), (1, 28, 28))
    assert_all_witnesses_agree(ohmfold.compile(module, pixels[:64]), pixels)


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOM[1:])
def test_trained_networks_have_the_same_integers_everywhere(name):
    module, pixels = briefly_trained(name)
    recipe = ohmfold.Recipe(granularity="channel", calibration="mse")
    assert_all_witnesses_agree(ohmfold.compile(module, pixels[:128], recipe), pixels[:256])


@pytest.mark.slow
@pytest.mark.parametrize("bits", [3, 8])
def test_the_zoo_network_has_the_same_integers_everywhere(bits):
    pixels = resolve_dataset("mnist-sample").subset(512, 5).images
    artifact = ohmfold.compile(load_model("mnist-cnn"), pixels[256:], ohmfold.Recipe(weight_bits=bits))
    assert_all_witnesses_agree(artifact, pixels[:256])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()


PIXELS = images(9, (1, 6, 6))


def test_module_and_exported_file_give_the_same_program(tmp_path):
    ir.save(export_module(network(), (1, 6, 6)), tmp_path / "model.onnx")
    from_module = ohmfold.compile(network(), PIXELS)
    from_file = ohmfold.compile(tmp_path / "model.onnx", PIXELS)
    assert np.array_equal(ohmfold.Emulator(from_module)(PIXELS), ohmfold.Emulator(from_file)(PIXELS))


def test_compiling_changes_neither_the_module_nor_the_model():
    module = network().train()
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    ohmfold.compile(module, PIXELS)
    assert module.training
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())
    model = export_module(network(), (1, 6, 6))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    ohmfold.compile(model, PIXELS)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_the_same_input_gives_the_same_bytes():
    first, second = (ohmfold.compile(network(), PIXELS).to_bytes() for _ in range(2))
    assert first == second


def test_a_saved_artifact_is_read_back_whole(tmp_path):
    artifact = ohmfold.compile(network(), PIXELS, ohmfold.Recipe(weight_bits=4))
    artifact.save(tmp_path / "digits.onnx")
    again = ohmfold.Artifact.load(tmp_path / "digits.onnx")
    assert again.sha256 == artifact.sha256
    assert again.metadata() == artifact.metadata()
    assert np.array_equal(
        ohmfold.Emulator(tmp_path / "digits.onnx")(PIXELS), ohmfold.Emulator(artifact)(PIXELS)
    )


def test_the_metadata_says_how_it_was_made():
    recipe = ohmfold.Recipe(weight_bits=4, step="mse")
    metadata = ohmfold.compile(network(), PIXELS, recipe).metadata()
    assert metadata["schema"] == 1
    assert ohmfold.Recipe(**metadata["recipe"]) == recipe
    assert metadata["source"]["kind"] == "Sequential"
    assert len(metadata["source"]["sha256"]) == 64
    assert metadata["calibration"]["images"] == 9
    assert set(metadata["versions"]) >= {"torch", "onnx", "onnxruntime", "numpy"}
    assert set(metadata["ranges"]) == {"0", "3"}


def test_an_artifact_is_standard_onnx_of_opset_21():
    proto = onnx.load_model_from_string(ohmfold.compile(network(), PIXELS).to_bytes())
    assert (proto.ir_version, [(o.domain, o.version) for o in proto.opset_import]) == (10, [("", 21)])
    assert {node.domain for node in proto.graph.node} == {""}
    onnx.checker.check_model(proto, full_check=True)
    assert proto.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_the_model_after_each_pass_can_be_kept_and_opened(tmp_path):
    seen = []
    ohmfold.compile(network(), PIXELS, keep=tmp_path / "passes", progress=seen.append)
    kept = sorted(path.name for path in (tmp_path / "passes").iterdir())
    assert [name[3:-5] for name in kept] == seen[1:]
    for path in (tmp_path / "passes").iterdir():
        onnx.checker.check_model(onnx.load(path), full_check=True)


def test_a_mapped_module_and_a_mapping_recipe_agree():
    recipe = ohmfold.Recipe(mu_law={"3": 255.0})
    by_recipe = ohmfold.compile(network(), PIXELS, recipe)
    by_module = ohmfold.compile(apply_mu_law(network(), {"3": 255.0}), PIXELS)
    assert np.array_equal(ohmfold.Emulator(by_recipe)(PIXELS), ohmfold.Emulator(by_module)(PIXELS))
    plain = ohmfold.compile(network(), PIXELS)
    assert not np.array_equal(ohmfold.Emulator(by_recipe)(PIXELS), ohmfold.Emulator(plain)(PIXELS))


def test_older_opsets_and_fixed_batches_are_accepted(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 13]>
        g (float[1,2,4,4] pixels) => (float[1,3] logits) {
        a = Conv(pixels, w) b = Relu(a) m = ReduceMean<axes=[2,3], keepdims=1>(b) r = Reshape(m, target)
        logits = Gemm(r, u) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, array in {
        "w": rng.standard_normal((5, 2, 3, 3)).astype(np.float32),
        "u": rng.standard_normal((5, 3)).astype(np.float32),
        "target": np.array([1, 5], np.int64),
    }.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "old.onnx")
    pixels = images(5, (2, 4, 4))
    artifact = ohmfold.compile(tmp_path / "old.onnx", pixels)
    assert ohmfold.Emulator(artifact)(pixels).shape == (5, 3)


def test_weights_of_any_width_keep_their_order_of_accuracy():
    pixels = images(64, (1, 6, 6))
    with torch.no_grad():
        wanted = network()(torch.from_numpy(pixels).float() / 255).numpy()
    errors = []
    for bits in (2, 4, 8):
        artifact = ohmfold.compile(network(), pixels, ohmfold.Recipe(weight_bits=bits))
        errors.append(float(np.square(ohmfold.Emulator(artifact)(pixels) - wanted).mean()))
    assert errors[0] > 4 * errors[1] > 4 * errors[2]


def test_options_of_single_layers_reach_those_layers():
    recipe = ohmfold.Recipe(
        weight_bits=3,
        first_layer=ohmfold.LayerOptions(weight_bits=8),
        layers={"3": ohmfold.LayerOptions(weight_bits=2, granularity="channel")},
    )
    first, last = ohmfold.compile(network(), PIXELS, recipe).program.weighted_layers()
    assert np.abs(first.weight).max() == 127
    assert np.abs(last.weight).max() == 1


@pytest.mark.parametrize(
    ("recipe", "error", "words"),
    [
        (ohmfold.Recipe(mu_law={"fc9": 255.0}), RecipeError, "no layer 'fc9'"),
        (ohmfold.Recipe(layers={"fc9": ohmfold.LayerOptions()}), RecipeError, "no layer 'fc9'"),
    ],
)
def test_recipes_that_name_unknown_layers_are_refused(recipe, error, words):
    with pytest.raises(error, match=words):
        ohmfold.compile(network(), PIXELS, recipe)


def test_a_module_that_torch_cannot_export_is_one_line():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match="torch cannot export Branching") as refused:
        ohmfold.compile(Branching(), PIXELS)
    assert "\n" not in str(refused.value)


def test_several_outputs_are_refused():
    model = parsed(
        "g (float[n,4] pixels) => (float[n,2] a, float[n,2] b) { a = MatMul(pixels, w) b = MatMul(pixels, w) }",
        w=np.ones((4, 2), np.float32),
    )
    with pytest.raises(UnsupportedError, match="2 results"):
        ohmfold.compile(model, np.zeros((1, 4), np.uint8))


@pytest.mark.parametrize(
    "spoil", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"PK\x03\x04" + bytes(100)]
)
def test_files_that_are_not_whole_onnx_models_are_refused(tmp_path, spoil):
    ohmfold.compile(network(), PIXELS).save(tmp_path / "good.onnx")
    (tmp_path / "bad.onnx").write_bytes(spoil((tmp_path / "good.onnx").read_bytes()))
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        ohmfold.Artifact.load(tmp_path / "bad.onnx")


def test_artifacts_of_a_newer_schema_are_refused(tmp_path):
    artifact = ohmfold.compile(network(), PIXELS)
    artifact.model.metadata_props["ohmfold.schema"] = json.dumps(99)
    (tmp_path / "new.onnx").write_bytes(ir.to_proto(artifact.model).SerializeToString())
    with pytest.raises(ModelError, match="schema 99"):
        ohmfold.Artifact.load(tmp_path / "new.onnx")


def test_weights_in_other_files_are_refused(tmp_path):
    model = ir.to_proto(export_module(network(), (1, 6, 6)))
    onnx.save_model(
        model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    with pytest.raises(ModelError, match="lies in another file"):
        ohmfold.compile(tmp_path / "model.onnx", PIXELS)


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    artifact = ohmfold.compile(network(), PIXELS)
    with pytest.raises(OutputError):
        artifact.save(tmp_path / "no-such-folder" / "digits.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", lambda x: x])
def test_what_is_no_model_is_refused_in_words(wrong):
    with pytest.raises(ModelError, match="cannot compile a"):
        ohmfold.compile(wrong, PIXELS)


@pytest.mark.parametrize("runner", [ohmfold.Emulator, ohmfold.Twin])
@pytest.mark.parametrize("wrong", [None, 3, nn.Linear(2, 2)])
def test_what_is_no_artifact_is_refused_in_words(runner, wrong):
    with pytest.raises(DataError, match="expected an artifact"):
        runner(wrong)


def test_a_recipe_that_is_no_recipe_is_refused():
    with pytest.raises(RecipeError, match=r"expected ohmfold\.Recipe"):
        ohmfold.compile(network(), PIXELS, {"weight_bits": 3})


def test_integer_models_are_run_not_compiled(tmp_path):
    ohmfold.compile(network(), PIXELS).save(tmp_path / "digits.onnx")
    with pytest.raises(ModelError, match="run, not compiled"):
        ohmfold.compile(tmp_path / "digits.onnx", PIXELS)


def test_parts_that_are_frozen_stay_frozen():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3)).train()
    module[1].eval()
    ohmfold.compile(module, PIXELS)
    assert [part.training for part in module] == [True, False, True, True]
