"""`Quantised`: a chain of layers that computes, while it is trained, what the compiled artifact will compute.

    codes  q_x = rint(255 pixels), then layer by layer
    acc    = sum(q_w q_x) + q_bias,              q_w = clip(rint(W / s_w), -L, L),  q_bias = rint(b / (s_x s_w))
    q_y    = rint(clip(acc M, 0, 255)),          M = s_x s_w / s_y                  (ReLU is the clip at 0)
    logits = acc (s_x s_w)                       after the last layer

with learned steps s_w and learned limits: s_y = limit / 255 (the clipping level of Choi et al., "PACT", 2018).
Codes pass gradients straight through. In evaluation mode every float32 operation is the one of the compiled
artifact, in the same order, so module and artifact agree on every code; under autocast sums are rounded to
bfloat16, which is good enough to train with.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .network import pixels_of
from .plain_chain import Chain, chain_of
from .quantisers import Learned, best_step, outermost_code, requantise, round_straight_through

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .image_data import Dataset

__all__ = ["Quantised", "QuantisedLayer"]

_HIGHEST = 255
_FLOAT32_INTEGERS = 2**24
_CALIBRATION_IMAGES = 512


@dataclass(frozen=True, eq=False)
class _Arithmetic:
    """A layer's numbers for one forward pass: weight codes, bias codes, and s_x s_w."""

    weight: Tensor
    bias: Tensor
    unit: Tensor


class QuantisedLayer(nn.Module):
    """A convolution or dense layer on codes.

    Args:
        layer: Gives geometry, weights and bias (zeros where it has none).
        bits: Width of the weight codes, 2 to 8.
        limit: First value of the largest output, or None for the layer whose output is the logits.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, bits: int, limit: float | None) -> None:
        super().__init__()
        self.outermost = outermost_code(bits)
        self.weight = nn.Parameter(layer.weight.detach().clone())
        bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().clone()
        self.bias = nn.Parameter(bias)
        self.step = Learned(best_step(layer.weight, self.outermost))
        self.limit = None if limit is None else Learned(limit)
        self.windows: dict[str, Any] | None = None
        if isinstance(layer, nn.Conv2d):
            self.windows = {
                "stride": layer.stride,
                "padding": layer.padding,
                "dilation": layer.dilation,
                "groups": layer.groups,
            }

    def trained(self, scale: Tensor) -> _Arithmetic:
        """Return the numbers with gradients, for an input of `scale`."""
        step = self.step()
        codes = round_straight_through((self.weight / step).clamp(-self.outermost, self.outermost))
        unit = scale * step
        return _Arithmetic(codes, self._spread(round_straight_through(self.bias / unit)), unit)

    # Not an inference tensor even in inference mode: an attack may want gradients through it later.
    @torch.inference_mode(False)
    @torch.no_grad()
    def frozen(self, scale: Tensor) -> _Arithmetic:
        """Return the numbers as the compiler computes them: quotients in float64, rounded once."""
        step = self.step()
        codes = torch.round(self.weight.double() / step.double()).clamp(-self.outermost, self.outermost)
        bias = torch.round(self.bias.double() / (scale.double() * step.double()))
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else self._exact(codes, bias)
        weight = codes.to(dtype, memory_format=torch.preserve_format)
        return _Arithmetic(weight, self._spread(bias.float()), scale * step)

    def _exact(self, codes: Tensor, bias: Tensor) -> torch.dtype:
        """Return float32 where it holds every sum that codes can lead to, or else float64."""
        largest = _HIGHEST * codes.abs().reshape(len(codes), -1).sum(1) + bias.abs()
        return torch.float32 if float(largest.max()) < _FLOAT32_INTEGERS else torch.float64

    def _spread(self, bias: Tensor) -> Tensor:
        return bias if self.windows is None else bias[:, None, None]

    def products(self, codes: Tensor, numbers: _Arithmetic) -> Tensor:
        """Return the sums of products, without the bias; in the type of the weights, or bfloat16 under autocast."""
        if numbers.weight.dtype == torch.float64:
            codes = codes.double()
        if self.windows is None:
            return functional.linear(codes, numbers.weight)
        # NNPACK, which torch may choose without autocast, transforms its tiles and rounds.
        with torch.backends.nnpack.flags(enabled=False):
            return functional.conv2d(codes, numbers.weight, **self.windows)

    def scale(self) -> Tensor:
        """Return s_y; for the last layer there is none."""
        if self.limit is None:
            raise TypeError("the last layer's output are logits; they have no scale")
        scale: Tensor = self.limit() / _HIGHEST
        return scale


@dataclass(frozen=True, eq=False)
class _Stage:
    """A layer and what comes before the next one: ReLU (the clip at 0), pools by maximum, flattening."""

    name: str
    pools: tuple[nn.Module, ...]
    flat: bool


def _stages(chain: Chain) -> Iterator[_Stage]:
    starts = [position for position, link in enumerate(chain) if link.weighted]
    for start, end in zip(starts, [*starts[1:], len(chain)], strict=True):
        between = [link.layer for link in chain[start + 1 : end]]
        pools = tuple(layer for layer in between if isinstance(layer, nn.MaxPool2d))
        yield _Stage(chain[start].name, pools, any(isinstance(layer, nn.Flatten) for layer in between))


class Quantised(nn.Module):
    """A network of uint8 codes and `bits`-bit weights, to train and to compile.

    `network(pixels)` takes float32 pixels in [0, 1], as the float network does, and returns float32 logits.

    Args:
        network: A plain chain of layers (see `plain_chain.chain_of`); its weights are copied.
        bits: Width of the weight codes, 2 to 8.
        limits: First value of each layer's largest output, by layer name; 1 where it is not given.

    Raises:
        RecipeError: The network is no plain chain, or `bits` is another number.
    """

    def __init__(self, network: nn.Module, bits: int, limits: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.bits: Tensor
        self.register_buffer("bits", torch.tensor(bits))
        self.chain: Chain = chain_of(network)
        self.stages = tuple(_stages(self.chain))
        self.entry = tuple(link.layer for link in self.chain[: _first_weighted(self.chain)])
        self.names = tuple(stage.name for stage in self.stages)
        for link in self.chain:
            if isinstance(link.layer, nn.Conv2d | nn.Linear):
                last = link.name == self.names[-1]
                limit = None if last else (limits or {}).get(link.name, 1.0)
                self.add_module(_attribute(link.name), QuantisedLayer(link.layer, bits, limit))
        self._frozen: dict[tuple[str, bool], _Arithmetic] = {}
        self.register_load_state_dict_post_hook(_thaw)  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, network: nn.Module, bits: int, data: Dataset) -> Quantised:
        """Return a quantised copy whose limits are the largest outputs on the first images of a data set."""
        images = torch.from_numpy(data.images[:_CALIBRATION_IMAGES])
        return cls(network, bits, _largest_outputs(network, pixels_of(images)))

    def layer(self, name: str) -> QuantisedLayer:
        """Return a layer by the name that it has in the float network."""
        return self.get_submodule(_attribute(name))  # type: ignore[return-value]

    def train(self, mode: bool = True) -> Quantised:
        """Switch the mode; in evaluation mode weight codes are computed once."""
        self.thaw()
        super().train(mode)
        return self

    def thaw(self) -> None:
        """Forget the weight codes: weights may have changed."""
        self._frozen.clear()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits, float32 (N, classes)."""
        return self._run(pixels, None)

    def trace(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return what every layer gives: codes (for the last one, accumulators) by layer name, and logits.

        All are float32 that hold integers, but the logits. Codes are those after ReLU, before pooling.
        """
        found: dict[str, Tensor] = {}
        logits = self._run(pixels, found)
        return {**found, "logits": logits}

    def _run(self, pixels: Tensor, kept: dict[str, Tensor] | None) -> Tensor:
        codes = round_straight_through((pixels.float() * _HIGHEST).clamp(0, _HIGHEST))
        scale = torch.tensor(1.0, device=pixels.device) / _HIGHEST
        for move in self.entry:
            codes = move(codes)
        for stage in self.stages:
            layer = self.layer(stage.name)
            numbers = self._numbers(stage.name, layer, scale)
            products = layer.products(codes, numbers)
            if layer.limit is None:
                break
            scale = layer.scale() if self.training else layer.scale().detach()
            multiplier = numbers.unit / scale
            if kept is not None:
                kept[stage.name] = requantise(products, numbers.bias, multiplier, _HIGHEST)
            # Requantisation is monotone, so a pool may come before it, where that leaves less to compute.
            for pool in stage.pools:
                products = pool(products)
            codes = requantise(products, numbers.bias, multiplier, _HIGHEST)
            codes = torch.flatten(codes, 1) if stage.flat else codes
        total = products + numbers.bias
        if kept is not None:
            kept[stage.name] = total
        return total.float() * numbers.unit

    def _numbers(self, name: str, layer: QuantisedLayer, scale: Tensor) -> _Arithmetic:
        if self.training:
            return layer.trained(scale)
        key = (name, torch.is_autocast_enabled("cpu"))
        if key not in self._frozen:
            self._frozen[key] = layer.frozen(scale)
        return self._frozen[key]

    def steps(self) -> dict[str, float]:
        """Return each layer's learned step."""
        return {name: float(self.layer(name).step().detach()) for name in self.names}

    def plain(self) -> nn.Sequential:
        """Return the float network that the compiler takes: ReLU and limit are `nn.Hardtanh(0, limit)`.

        Compiled with `steps()` and with these limits as ranges, it becomes the artifact of this module.
        """
        return nn.Sequential(OrderedDict(self._plain_layers())).eval()

    def _plain_layers(self) -> Iterator[tuple[str, nn.Module]]:
        upper = 0.0
        for position, link in enumerate(self.chain):
            if link.weighted:
                learned = self.layer(link.name)
                upper = 0.0 if learned.limit is None else float(learned.limit().detach())
                yield _attribute(link.name), _filled(link.layer, learned)
            elif isinstance(link.layer, nn.ReLU):
                yield f"limit_{position}", nn.Hardtanh(0.0, upper)
            else:
                yield f"move_{position}", link.layer


def _first_weighted(chain: Chain) -> int:
    return next(position for position, link in enumerate(chain) if link.weighted)


def _thaw(module: Quantised, _keys: object) -> None:
    module.thaw()


def _attribute(name: str) -> str:
    return name.replace(".", "_")


def _filled(layer: nn.Module, learned: QuantisedLayer) -> nn.Module:
    """Return a float layer of the geometry of `layer` with the learned weights and bias."""
    plain = copy.deepcopy(layer)
    plain.weight = nn.Parameter(learned.weight.detach().clone())
    plain.bias = nn.Parameter(learned.bias.detach().clone())
    return plain


def _largest_outputs(network: nn.Module, pixels: Tensor) -> dict[str, float]:
    found: dict[str, float] = {}
    value = pixels
    with torch.inference_mode():
        for link in chain_of(network):
            value = link.layer(value)
            if link.weighted:
                # A layer that is never positive has no largest output; any limit will do to start with.
                found[link.name] = float(value.max()) if bool(value.max() > 0) else 1.0
    return found
