"""The layers of a network in order, where it is a plain chain of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import fx, nn

from ..errors import RecipeError

__all__ = ["Chain", "Link", "chain_of"]


@dataclass(frozen=True, eq=False)
class Link:
    """One step of a chain: a convolution or dense layer, a ReLU, a pooling by maximum or a flattening.

    Attributes:
        name: Path of the module in its network; empty for a function.
        layer: The module; an `nn.Flatten` stands for the function.
    """

    name: str
    layer: nn.Module

    @property
    def weighted(self) -> bool:
        """Whether it multiplies by weights."""
        return isinstance(self.layer, nn.Conv2d | nn.Linear)


Chain = tuple[Link, ...]

_KINDS = (nn.Conv2d, nn.Linear, nn.ReLU, nn.MaxPool2d, nn.Flatten)


def chain_of(network: nn.Module) -> Chain:
    """Return the steps of a network, each of which reads what the one before gives.

    Every layer with weights but the last is followed at once by its ReLU.

    Raises:
        RecipeError: The network is no such chain; names the step that is not.
    """
    try:
        traced = fx.symbolic_trace(network)
    except (fx.proxy.TraceError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"{type(network).__name__} is not a plain chain of layers: {reason}") from error
    chain: list[Link] = []
    previous: fx.Node | None = None
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            previous = node
            continue
        if node.all_input_nodes != [previous] or (previous is not None and len(previous.users) != 1):
            raise RecipeError(
                f"{type(network).__name__} is not a plain chain: step {node.name!r} does not read just the one before"
            )
        if node.op != "output":
            chain.append(_link(network, node))
        previous = node
    _check_order(network, chain)
    return tuple(chain)


def _link(network: nn.Module, node: fx.Node) -> Link:
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        if isinstance(layer, _KINDS) and not _unusual(layer):
            return Link(str(node.target), layer)
        raise _refused(network, node, repr(layer))
    if node.op == "call_function" and node.target is torch.flatten and tuple(node.args[1:]) == (1,):
        return Link("", nn.Flatten())
    raise _refused(network, node, str(node.target))


def _unusual(layer: nn.Module) -> bool:
    """Whether a setting of the layer has no integer form here."""
    if isinstance(layer, nn.Conv2d):
        return layer.padding_mode != "zeros" or isinstance(layer.padding, str)
    if isinstance(layer, nn.MaxPool2d):
        return bool(layer.return_indices)
    return isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1)


def _refused(network: nn.Module, node: fx.Node, what: Any) -> RecipeError:
    return RecipeError(
        f"{type(network).__name__}: step {node.name!r} is {what}; a network that is trained as integers is a chain "
        "of convolutions and dense layers with ReLU, pooling by maximum and flattening"
    )


def _check_order(network: nn.Module, chain: list[Link]) -> None:
    name = type(network).__name__
    layers = [link.layer for link in chain if link.weighted]
    if not layers or len(set(map(id, layers))) != len(layers):
        raise RecipeError(f"{name}: expected at least one layer with weights, each used once")
    if not chain[-1].weighted:
        raise RecipeError(f"{name}: the last step is {chain[-1].layer}, expected a layer with weights")
    for link, following in pairwise(chain):
        if link.weighted and not isinstance(following.layer, nn.ReLU):
            raise RecipeError(
                f"{name}: layer {link.name!r} is followed by {following.layer}, expected a ReLU"
            )
