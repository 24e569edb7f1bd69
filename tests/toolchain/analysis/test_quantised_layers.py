import numpy as np
import pytest

from ohmfold.errors import DataError, ModelError, RecipeError
from ohmfold.export import export_module
from ohmfold.models.mu_law import apply_mu_law
from ohmfold.toolchain.analysis.quantised_layers import layers_of, quantised_layers
from ohmfold.toolchain.compiler import compile as compile_model
from ohmfold.toolchain.passes.fold_mu_law import mu_law
from ohmfold.toolchain.recipe import Recipe

from ...support.analysed import MU, SHAPE, mapped, small_network, some_images
from ...support.small_models import run_float
from ...support.tiny_artifacts import tiny_artifact
from ...support.training_toys import toy_chain

RECIPES = {
    "3 bits": Recipe(),
    "per channel, least squares": Recipe(granularity="channel", step="mse", weight_bits=4),
    "powers of two": Recipe(scales="pow2"),
    "log2, biases corrected": Recipe(levels="log2", bias_correction=True),
    "full range, last layer 8 bits": Recipe(levels="full-range", last_layer={"weight_bits": 8}),
    "1 bit": Recipe(weight_bits=1),
    "mu-law": Recipe(mu_law={"last": MU}, mu_law_domain="normalised"),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_codes_are_those_of_the_artifact(recipe):
    model, images = small_network(), some_images()
    artifact = compile_model(model, images, recipe)
    network = layers_of(artifact, model)
    held = {layer.name: layer.weight for layer in artifact.program.weighted_layers()}
    assert [layer.name for layer in network.layers] == ["first", "second", "last"]
    for layer in network.layers:
        assert np.array_equal(layer.quantised.codes, held[layer.name])
        assert set(np.unique(layer.quantised.codes)) <= set(layer.levels)
        assert artifact.metadata()[f"weights.{layer.name}"] == layer.options


def test_the_model_is_not_changed_and_the_pass_form_computes_the_same():
    model, images = small_network(), some_images(8)
    network = quantised_layers(model, Recipe(), SHAPE)
    pixels = np.float32(network.input_scale) * images.astype(np.float32)
    name = str(network.model.graph.inputs[0].name)
    before, after = run_float(model, pixels=pixels), run_float(network.model, **{name: pixels})
    # Folding rounds weights to float32 once more.
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


def test_inputs_are_those_that_make_the_outputs_of_the_model():
    images = some_images(10)
    network = quantised_layers(small_network(), Recipe(), SHAPE)
    batches = list(network.inputs(images, 4))
    assert [len(batch[network.layers[0].input]) for batch in batches] == [4, 4, 2]
    last = network.layers[-1]
    x = np.concatenate([batch[last.input] for batch in batches]).astype(np.float64)
    name = str(network.model.graph.inputs[0].name)
    logits = run_float(network.model, **{name: np.float32(network.input_scale) * images.astype(np.float32)})
    bias = small_network().graph.initializers["last.bias"].const_value.numpy()
    # onnxruntime sums in float32.
    np.testing.assert_allclose(last.operator.apply(last.weights, x) + bias, logits, rtol=0, atol=1e-5)


def test_mapped_weights_are_the_maps_and_say_so():
    plain = quantised_layers(small_network(), Recipe(), SHAPE).layers
    other = quantised_layers(small_network(), Recipe(mu_law={"last": MU}), SHAPE).layers
    assert [layer.mapping for layer in plain] == [None] * 3
    assert [layer.mapping for layer in other] == [None, None, "mu-law map, mu = 255, domain literal"]
    assert np.array_equal(other[-1].real, mapped(plain[-1].real))


def test_a_map_in_the_graph_is_told_like_one_of_the_recipe():
    module = toy_chain()
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8)).astype(np.uint8)
    shape = images.shape[1:]
    (*_, last) = quantised_layers(export_module(module, shape), Recipe(), shape).layers
    mapped_module = apply_mu_law(module, {last.name: MU}, "normalised")
    model = export_module(mapped_module, shape)
    found = layers_of(compile_model(model, images), model).layers[-1]
    assert found.mapping == "the mu-law map in the graph was folded into the weights"
    assert np.array_equal(found.real, mu_law(last.real, MU, "normalised"))


def test_a_batch_norm_is_folded_before_weights_are_quantised():
    model = small_network()
    first = quantised_layers(model, Recipe(), SHAPE).layers[0]
    arrays = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    factor = arrays["gamma"].astype(np.float64) / np.sqrt(arrays["variance"].astype(np.float64) + 1e-5)
    expected = arrays["first.weight"] * factor[:, None, None, None]
    # Rounded once to float32.
    np.testing.assert_allclose(first.real, expected, rtol=2**-23)


def test_another_float_model_is_refused():
    artifact = compile_model(small_network(), some_images())
    with pytest.raises(DataError, match=r"layer 'first' of the float model.*other codes"):
        layers_of(artifact, small_network(seed=8))


def test_a_model_made_by_others_tells_no_recipe():
    with pytest.raises(ModelError, match="does not tell the recipe"):
        layers_of(tiny_artifact(), small_network())


def test_a_recipe_for_other_layers_is_refused():
    with pytest.raises(RecipeError, match="no layer 'fc9'"):
        quantised_layers(small_network(), Recipe(mu_law={"fc9": MU}), SHAPE)
