"""Networks that were trained as integers: their learned steps and limits become the compiler's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import RecipeError
from .recipe import LayerOptions, Recipe, WeightOptions

if TYPE_CHECKING:
    from torch import nn

    from ..models.quantised import Quantised

__all__ = ["float_form"]


def float_form(module: Quantised, recipe: Recipe) -> tuple[nn.Module, Recipe]:
    """Return the float network of a quantised one, and the recipe that gives it the trained codes.

    Each layer's step is the learned one, and activations take the limits that the network clips at, whatever
    the calibration images reach.

    Args:
        module: The trained network.
        recipe: What else is asked for; its settings of weights and calibration must be the default ones, since
            the network has learned its own.

    Raises:
        RecipeError: A setting would change a trained code; names it.
    """
    bits = int(module.bits)
    default = Recipe(weight_bits=bits)
    for name in (
        *WeightOptions.model_fields,
        "first_layer",
        "last_layer",
        "layers",
        "mu_law",
        "bias_correction",
    ):
        allowed = (getattr(default, name), Recipe.model_fields[name].get_default(call_default_factory=True))
        if getattr(recipe, name) not in allowed:
            raise RecipeError(
                f"{name}: the network was trained as integers, with steps of its own for {bits}-bit weights; "
                "leave this setting out"
            )
    if recipe.scales != "float":
        raise RecipeError(
            f"scales: the network has learned its scales, expected 'float', found '{recipe.scales}'"
        )
    layers = {name: LayerOptions(step=step) for name, step in module.steps().items()}
    values = recipe.model_dump(exclude_none=True)
    learned = Recipe(**{**values, "weight_bits": bits, "layers": layers, "calibration": "limits"})
    return module.plain(), learned
