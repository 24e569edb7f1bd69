"""A recipe says what it holds, survives TOML, and refuses what it does not know."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import recipes

from ohmfold import LayerOptions, Recipe
from ohmfold.errors import RecipeError

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=100)
@given(recipes(), st.dictionaries(NAMES, st.floats(0.1, 1e4)), st.dictionaries(NAMES, st.integers(1, 8)))
def test_toml_round_trip_keeps_every_field(values, mu_law, widths):
    recipe = Recipe(
        **{**values, "levels": "linear"},
        mu_law=mu_law,
        layers={name: LayerOptions(weight_bits=bits) for name, bits in widths.items()},
        last_layer=LayerOptions(step="mse"),
    )
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weight_bits": 0}, "weight_bits"),
        ({"weight_bits": 9}, "weight_bits"),
        ({"weight_bits": 2.5}, "weight_bits"),
        ({"weight_bits": "3"}, "weight_bits"),
        ({"wieght_bits": 3}, "wieght_bits: unknown field"),
        ({"levels": "log2", "weight_bits": 5}, "2 to 4 bits"),
        ({"levels": "full-range", "weight_bits": 1}, "full-range"),
        ({"step": -1.0}, "step"),
        ({"mu_law": {"fc": 0.0}}, "mu_law.fc"),
        ({"mu_law": {"fc": float("nan")}}, "mu_law.fc"),
        ({"layers": {"fc": {"weight_bits": 12}}}, "layers.fc.weight_bits"),
        ({"layers": {"fc": {"bits": 3}}}, "layers.fc.bits: unknown field"),
        ({"percentile": 20.0}, "percentile"),
        ({"scales": "pow3"}, "scales"),
        ({"scales": "pow2", "step": 0.5}, "pow2"),
    ],
)
def test_bad_values_are_one_line_that_names_the_field(values, words):
    with pytest.raises(RecipeError) as refused:
        Recipe(**values)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_text_that_is_not_toml_and_files_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="not TOML"):
        Recipe.from_toml("weight_bits = = 3")
    with pytest.raises(RecipeError, match="cannot read"):
        Recipe.load(tmp_path / "missing.toml")


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().weight_bits = 4


def test_named_layers_win_over_positions_and_positions_over_the_recipe():
    recipe = Recipe(
        weight_bits=3,
        first_layer=LayerOptions(weight_bits=8),
        last_layer=LayerOptions(weight_bits=6, step="mse"),
        layers={"fc": LayerOptions(weight_bits=5)},
    )
    assert recipe.weight_options("conv", is_first=True).weight_bits == 8
    assert recipe.weight_options("middle").weight_bits == 3
    last = recipe.weight_options("fc", is_last=True)
    assert (last.weight_bits, last.step) == (5, "mse")
