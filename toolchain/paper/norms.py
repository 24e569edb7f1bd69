"""The paper's Figures 3 and 4: the Lipschitz constants of the weight error, layer by layer (Eq. 2).

dW is what the 3-bit weight-only quantiser leaves of each layer's weights as they were trained, no batch norm folded;
of mapped layers, of the mapped weights. The figures need no images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping  # noqa: TC003 - pydantic reads the annotations
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ...errors import DataError, RecipeError
from ...models.mu_law import apply_mu_law
from ..analysis.lipschitz import Lipschitz, lipschitz, product
from ..analysis.operators import LayerOperator
from ..analysis.quantised_layers import QuantisedLayer
from ..quantise import QuantisedWeights, levels_of
from ..runs import versions
from .images import image_shape
from .printed import DataName  # noqa: TC001 - pydantic reads the annotations
from .twelve import BITS, FAMILIES, Row, find_checkpoint, mapped_layers
from .weight_only import round_weight, weight_layers, weight_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .cells import Cells

__all__ = ["FIGURE_OF", "LayerNorms", "NormRecord", "drawn_layers", "error_layers", "measure_norms"]

FIGURE_OF: Mapping[DataName, int] = {"mnist": 3, "cifar10": 4}
"""Which figure of the paper shows which data set."""

_BLOCKS = 2
"""The paper's Figure 4 shows as many of the last residual blocks, and the last layer."""


@dataclass(frozen=True)
class LayerNorms:
    """The norms of a layer's dW.

    Attributes:
        layer: Its name in the network.
        drawn: Its place on the figure's axis, from 1; None for a layer that the paper does not show.
        mapped: Whether its weights go through the mu-law map.
        norms: p = 2 and p = infinity, of the unfolded matrix and of the operator.
    """

    layer: str
    drawn: int | None
    mapped: bool
    norms: Lipschitz


@dataclass(frozen=True)
class NormRecord:
    """Figure 3 or 4.

    Attributes:
        number: 3 or 4.
        data: Which data set the networks are for.
        bits: Of the weights.
        models: Norms of all layers in order, by the name of the model.
        products: Their products over all layers.
        sha256: Of the checkpoint, by model.
        missing: Why a model has none.
    """

    number: int
    data: DataName
    bits: int
    models: Mapping[str, tuple[LayerNorms, ...]]
    products: Mapping[str, Lipschitz]
    sha256: Mapping[str, str]
    missing: Mapping[str, str]


def measure_norms(
    data: DataName,
    cells: Cells,
    *,
    zoo: Path | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> NormRecord:
    """Measure the norms of dW of the three models, plain and with their last layers mapped.

    A layer is measured once, whichever models hold it: its figure is kept under a hash of its weights.

    Args:
        data: Which data set's models.
        cells: Where finished figures are kept.
        zoo: A folder of checkpoints, looked in before the package's own.
        progress: Called with what is done and its share.

    Raises:
        RecipeError: The folder of checkpoints does not exist, or a network has layers whose norms are not known.
        CheckpointError: Weights that are there cannot be loaded.
        DataError: A network takes other images.
    """
    from ...models.checkpoints import load_model

    models: dict[str, tuple[LayerNorms, ...]] = {}
    sha256: dict[str, str] = {}
    missing: dict[str, str] = {}
    rows = [Row(family, mapped) for family in FAMILIES for mapped in (False, True)]
    for place, row in enumerate(rows):
        checkpoint = find_checkpoint(data, row.family, zoo)
        if checkpoint.file is None:
            missing[row.name] = f"no checkpoint {checkpoint.name}; train it: {checkpoint.command}"
            continue
        plain = load_model(checkpoint.file)
        mapped: Mapping[str, float] = {}
        module = plain
        if row.mapped:
            mapped = mapped_layers(plain, data)
            try:
                module = apply_mu_law(deepcopy(plain), mapped)
            except RecipeError as error:  # the literal domain of the map, which the weights may pass
                missing[row.name] = str(error)
                continue
        drawn = drawn_layers(plain, data)
        layers = error_layers(module, image_shape(data), BITS, mapped)
        found = []
        for step, layer in enumerate(layers):
            if progress is not None:
                progress(f"{row.name}: {layer.name}", (place + step / len(layers)) / len(rows))
            at = drawn.index(layer.name) + 1 if layer.name in drawn else None
            found.append(LayerNorms(layer.name, at, layer.name in mapped, _norms(layer, cells)))
        models[row.name] = tuple(found)
        sha256[row.name] = checkpoint.sha256
    products = {name: product([one.norms for one in layers]) for name, layers in models.items()}
    return NormRecord(FIGURE_OF[data], data, BITS, models, products, sha256, missing)


def drawn_layers(module: nn.Module, data: DataName) -> list[str]:
    """Return the layers that the figure shows: all on MNIST, on CIFAR-10 the last two blocks' and the last one.

    Raises:
        RecipeError: The network for CIFAR-10 has no residual blocks.
    """
    names = [name for name, _ in weight_layers(module)]
    if data == "mnist":
        return names
    mapped_layers(module, data)  # which is also what refuses a network without blocks
    units = sorted({int(name.split(".")[1]) for name in names if name.startswith("units.")})[-_BLOCKS:]
    return [f"units.{unit}.{conv}" for unit in units for conv in ("conv1", "conv2")] + names[-1:]


def error_layers(
    module: nn.Module, shape: tuple[int, int, int], bits: int, mapped: Mapping[str, float]
) -> tuple[QuantisedLayer, ...]:
    """Return each layer before and after its weights are rounded, with the shape of what it reads.

    Args:
        module: The classifier; mu-law maps are on its weights already.
        shape: Of one image, `(C, H, W)`.
        bits: 1 to 8.
        mapped: Which layers have a map, with mu.

    Raises:
        RecipeError: A convolution pads with other values than zeros, or by a word.
        DataError: The network takes other images.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(_layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            shapes[name] = tuple(given[0].shape[1:])

        return hook

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in weight_layers(module)]
    try:
        with torch.inference_mode():
            module.eval()(torch.zeros(1, *shape))
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"the network does not take images of shape {shape}: {reason}") from None
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(
        _error_layer(name, layer, shapes[name], bits, mapped.get(name))
        for name, layer in weight_layers(module)
    )


def _error_layer(
    name: str, layer: nn.Module, shape: tuple[int, ...], bits: int, mu: float | None
) -> QuantisedLayer:
    rounded = round_weight(name, layer, bits)
    real = weight_of(name, layer)
    operator = LayerOperator("dense", shape)
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
            raise RecipeError(
                f"layer {name!r}: padding {layer.padding!r}, mode {layer.padding_mode!r}; expected a number of zeros"
            )
        operator = LayerOperator(
            "conv", shape, tuple(layer.stride), tuple(layer.padding) * 2, tuple(layer.dilation), layer.groups
        )
    else:  # PyTorch has the outputs first, the compiler's graph last
        real, rounded = real.T, QuantisedWeights(rounded.codes.T, rounded.step, None)
    return QuantisedLayer(
        name=name,
        operator=operator,
        real=np.ascontiguousarray(real),
        quantised=rounded,
        levels=levels_of(bits, "linear"),
        options=f"{bits} bits, linear, step by max per tensor",
        mapping=None if mu is None else f"mu-law map, mu = {mu:g}",
        input=f"{name}.input",
        output=f"{name}.output",
    )


def _norms(layer: QuantisedLayer, cells: Cells) -> Lipschitz:
    """A layer's norms; the operator's of a wide convolution takes seconds."""
    digest = hashlib.sha256(layer.real.tobytes() + layer.dequantised.tobytes()).hexdigest()
    depends: dict[str, Any] = {
        "weights": digest,
        "shape": list(layer.real.shape),
        "operator": asdict(layer.operator),
        "versions": versions(),
    }
    return Lipschitz(**cells.figure("norms", depends, lambda: asdict(lipschitz(layer))))
