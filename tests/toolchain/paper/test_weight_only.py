"""Weight-only quantisation: the levels of the compiler on the weights as trained, and nothing else changed."""

import copy

import numpy as np
import pytest
import torch
from paper_zoos import small_model, some_images
from torch import nn

from ohmfold.errors import RecipeError
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.toolchain.paper.weight_only import weight_layers, weight_only


def codes_and_step(weight):
    """The paper's rule, written out: seven levels, the outermost at the largest weight."""
    step = np.float32(np.abs(weight.astype(np.float64)).max() / 3)
    return np.clip(np.rint(weight.astype(np.float64) / np.float64(step)), -3, 3), step


def test_three_bits_are_the_papers_seven_levels():
    model = small_model()
    rounded = weight_only(model, 3)
    names = [name for name, _ in weight_layers(model)]
    assert len(names) == 5
    for name in names:
        before = model.get_submodule(name).weight.detach().numpy()
        after = rounded.get_submodule(name).weight.detach().numpy()
        codes, step = codes_and_step(before)
        assert np.array_equal(after, (codes * np.float64(step)).astype(np.float32))
        assert len(np.unique(after)) <= 7


def test_nothing_but_weights_changes_and_the_model_itself_not_at_all():
    model = small_model()
    before = copy.deepcopy(model.state_dict())
    rounded = weight_only(model, 2).state_dict()
    weights = {f"{name}.weight" for name, _ in weight_layers(model)}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert torch.equal(tensor, rounded[name]) == (name not in weights)


def test_one_bit_is_the_sign_times_the_mean():
    layer = nn.Linear(6, 4)
    after = weight_only(nn.Sequential(layer), 1)[0].weight.detach().numpy()
    weight = layer.weight.detach().numpy()
    mean = np.float32(np.abs(weight.astype(np.float64)).mean())
    assert np.array_equal(after, np.where(weight < 0, -mean, mean))


def test_a_mapped_layer_is_mapped_first_and_then_rounded():
    model = small_model()
    plain = model.fc.weight.detach().numpy().copy()
    mapped_model = apply_mu_law(small_model(), {"fc": 255.0})
    rounded = weight_only(model, 3, mapped_model)
    mapped = mapped_model.fc.weight.detach().numpy()
    assert not np.array_equal(mapped, plain)
    codes, step = codes_and_step(mapped)
    assert np.array_equal(rounded.fc.weight.detach().numpy(), (codes * np.float64(step)).astype(np.float32))
    assert np.array_equal(mapped_model.fc.weight.detach().numpy(), mapped)


def test_parametrised_weights_are_refused():
    with pytest.raises(RecipeError, match="expected plain ones"):
        weight_only(apply_mu_law(small_model(), {"fc": 255.0}))


def test_eight_bits_hardly_change_the_logits():
    model = small_model()
    pixels = torch.from_numpy(some_images(20)).float() / 255
    with torch.no_grad():
        logits, rounded = model(pixels), weight_only(model, 8)(pixels)
    assert (logits - rounded).abs().max() < 0.1 * (logits.max() - logits.min())


@pytest.mark.parametrize("bits", [0, 9])
def test_there_is_no_such_width(bits):
    with pytest.raises(RecipeError, match="weight_bits"):
        weight_only(small_model(), bits)
