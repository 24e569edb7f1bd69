"""Export: what torch computes is what onnxruntime computes, and a difference is noticed."""

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from ohmfold.errors import ExactnessError, ModelError
from ohmfold.export import check_export, export_module
from ohmfold.models.registry import build_model

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 1, 28, 28)).astype(np.uint8)


@pytest.mark.parametrize("name", ["mnist-cnn", "mnist-resnet8", "mnist-vgg", "mnist-mobilenet"])
def test_onnxruntime_computes_what_torch_computes(name):
    module = build_model(name, seed=0)
    model = export_module(module, (1, 28, 28))
    check = check_export(module, model, IMAGES)
    assert check.images == 11
    assert check.same_labels == 11
    assert check.largest_difference <= 1e-4 * check.largest_logit  # float32 sums in another order


def test_the_model_is_opset_21_ir_10_with_a_free_batch_and_known_names():
    model = export_module(build_model("mnist-cnn", seed=0), (1, 28, 28))
    assert (model.ir_version, model.opset_imports[""]) == (10, 21)
    pixels, logits = model.graph.inputs[0], model.graph.outputs[0]
    assert (pixels.name, logits.name) == ("pixels", "logits")
    assert not isinstance(pixels.shape[0], int)
    assert list(pixels.shape[1:]) == [1, 28, 28]


def test_exporting_keeps_the_modules_mode():
    for training in (True, False):
        module = build_model("mnist-cnn", seed=0).train(training)
        export_module(module, (1, 28, 28))
        assert module.training is training


def test_training_on_does_not_change_an_exported_model():
    module = build_model("mnist-cnn", seed=0)
    model = export_module(module, (1, 28, 28))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with torch.no_grad():
        module.fc2.weight.zero_()
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_model_with_other_weights_is_noticed():
    module = build_model("mnist-cnn", seed=0).eval()
    model = export_module(module, (1, 28, 28))
    with torch.no_grad():
        module.fc2.bias[3] += 0.01
    with pytest.raises(ExactnessError, match="differs from torch"):
        check_export(module, model, IMAGES)


def test_a_buffer_named_like_an_operation_does_not_collide():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor(0.25))
            self.dense = nn.Linear(2, 3)

        def forward(self, x):
            return self.dense((x - self.mean).mean(dim=(2, 3)))

    module = Normalised().eval()
    model = export_module(module, (2, 5, 5))
    names = [v.name for node in model.graph for v in node.outputs]
    assert len({*names, *model.graph.initializers}) == len(names) + len(model.graph.initializers)
    check_export(module, model, np.zeros((2, 2, 5, 5), np.uint8))


def test_what_torch_cannot_export_is_one_line():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("first line\nsecond line")

    with pytest.raises(ModelError) as refused:
        export_module(Broken(), (1, 4, 4))
    assert "Broken" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_nothing_of_the_machine_is_left_in_the_file():
    text = ir.to_proto(export_module(build_model("mnist-cnn", seed=0), (1, 28, 28))).SerializeToString()
    assert b"site-packages" not in text
    assert b"pkg.torch" not in text
