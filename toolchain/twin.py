"""The differentiable twin: a torch module with the emulator's bits and straight-through gradients.

White-box attacks need a gradient, and an integer model has none. The twin computes the program's integers
in floats that hold them exactly, so that what an attack sees *is* what the hardware computes, and lets the
gradient pass where rounding would stop it (`toolchain.twin_layers`). Whether a float convolution is exact
depends on the back end that torch picks on the machine at hand; so the twin tests itself against exact
integer arithmetic when it is built, moved to another device or given another state.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, ExactnessError, UnsupportedError
from .program import Conv, Dense, Program
from .source import program_of
from .twin_build import build_stages
from .twin_layers import Weighted, round_straight_through

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from .program import Layer
    from .source import HasProgram

__all__ = ["Twin", "exact_accumulators"]

logger = logging.getLogger(__name__)

PIXEL_HIGH = 255
# Back ends choose their algorithm by batch size too: torch asks NNPACK from 16 images on.
TESTED_BATCHES = (1, 16)
# Enough positions for every algorithm a back end may choose, few enough to test in milliseconds.
TESTED_POSITIONS = 64


class Twin(nn.Module):
    """The program as a differentiable torch module.

    `twin(pixels)` takes float32 pixels in [0, 1], `(N, C, H, W)`, as the float model does, and returns the
    emulator's float32 logits `(N, classes)`, bit for bit: `images / 255` in float32 gives back every uint8
    code. At the entry, `codes = rint(clip(255 x, 0, 255))` with gradient 255 inside [0, 1]. A program that
    takes float32 gets the pixels as they are. What a program computes after its logits (Softmax, ArgMax) is
    left out.

    No parameter requires a gradient; the input's flows. Training and evaluation mode are the same thing.
    The float types are part of the arithmetic: `.to(device)` moves the twin, `.half()` and the like raise.
    """

    def __init__(self, source: Program | HasProgram | str | Path) -> None:
        """Build the twin and test it.

        Args:
            source: A `Program`, an object with a `program`, or the path of an integer model.

        Raises:
            UnsupportedError: The logits depend on a layer that has no differentiable counterpart, the
                program has no logits, or its input is neither uint8 nor float32.
            RangeError: An accumulator can pass int32.
            ExactnessError: Torch's arithmetic on this device is not exact, in float64 either.
        """
        super().__init__()
        self.program = program_of(source)
        if len(self.program.inputs) != 1 or self.program.inputs[0].dtype not in (np.uint8, np.float32):
            found = "; ".join(str(spec) for spec in self.program.inputs) or "none"
            raise UnsupportedError(f"the twin takes programs with one uint8 or float32 input; found {found}")
        if self.program.logits is None:
            raise UnsupportedError("the program has no float32 logits, so the twin has nothing to return")
        self._input = self.program.inputs[0]
        self._logits = self.program.logits
        self.stages = nn.ModuleList(build_stages(self.program, _ancestors(self.program, self._logits)))
        self.register_load_state_dict_post_hook(_test_loaded)  # type: ignore[no-untyped-call]
        self.self_test()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits of `pixels`, float32 `(N, C, H, W)` in [0, 1].

        Raises:
            DataError: The pixels are not floating-point or not of the program's input shape.
        """
        batch = self.program.batch
        if batch is None or pixels.shape[0] <= batch or pixels.shape[0] % batch:
            return self._run(pixels, keep=False)[self._logits]
        # A program of a fixed batch takes a larger one piece by piece.
        return torch.cat([self._run(piece, keep=False)[self._logits] for piece in torch.split(pixels, batch)])

    def trace(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return every tensor by name, from the input's codes to the logits.

        Integers are held in float32 or float64 and carry gradients. Accumulators that the model names
        (`Dense.accumulator`) are among them.
        """
        return self._run(pixels, keep=True)

    def self_test(self) -> None:
        """Compare each weighted layer with exact integer arithmetic, on extreme inputs, on this device.

        A layer whose float32 sums are not exact is switched to float64.

        Raises:
            ExactnessError: A layer is not exact in float64 either.
        """
        for stage in self.stages:
            if not isinstance(stage, Weighted) or _is_exact(stage, self.program):
                continue
            if stage.weight.dtype == torch.float32:
                logger.warning("%s: float32 sums are not exact here; using float64", stage.layer.name)
                stage.use_float64()
                if _is_exact(stage, self.program):
                    continue
            raise ExactnessError(
                f"{stage.layer.name}: torch's sums on {stage.weight.device} differ from integer arithmetic "
                "in float64 too; the twin's weights were changed, or this device cannot run it"
            )

    def _run(self, pixels: Tensor, *, keep: bool) -> dict[str, Tensor]:
        self._check(pixels)
        # Under autocast a layer would run in half precision.
        with torch.autocast(device_type=pixels.device.type, enabled=False):
            x = pixels.to(torch.float32)
            if self._input.dtype == np.uint8:
                x = round_straight_through((x * PIXEL_HIGH).clamp(0, PIXEL_HIGH))
            tensors = {self._input.name: x}
            waiting = Counter(name for stage in self.stages for name in _stage(stage).inputs)
            for stage in self.stages:
                inputs, outputs = _stage(stage).inputs, _stage(stage).outputs
                results = stage(*(tensors[name] for name in inputs))
                # An output that nobody reads may go without a name.
                tensors.update((name, x) for name, x in zip(outputs, results, strict=True) if name)
                waiting.subtract(inputs)
                if not keep:
                    spent = [name for name in tensors if not waiting[name] and name != self._logits]
                    for name in spent:
                        del tensors[name]
        return tensors

    def _check(self, pixels: Tensor) -> None:
        if not isinstance(pixels, Tensor):
            raise DataError(
                f"the twin takes a torch tensor of pixels in [0, 1]; found a {type(pixels).__name__}"
            )
        if not pixels.is_floating_point():
            raise DataError(
                f"the twin takes float32 pixels in [0, 1]; found {pixels.dtype} (divide uint8 images by 255)"
            )
        expected = self._input.shape
        if expected is not None and (
            len(expected) != pixels.ndim
            or any(e is not None and e != d for e, d in zip(expected, pixels.shape, strict=True))
        ):
            raise DataError(f"the twin takes {self._input}; found a tensor of shape {tuple(pixels.shape)}")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        if fn(torch.zeros(0)).dtype != torch.float32:
            raise ExactnessError(
                "the twin's float types are part of its arithmetic; move it to a device alone"
            )

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        self.self_test()
        return self


def exact_accumulators(layer: Conv | Dense, codes: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Compute a layer's accumulators, bias added, without torch and without rounding.

    One matrix product per position of the kernel, in float64: every partial sum is an integer below 2^53,
    so that no order of summation can round.

    Args:
        layer: A convolution or dense layer.
        codes: Input codes: `(N, C, H, W)` or `(N, C, L)` for a convolution, `(..., K)` for a dense layer.

    Returns:
        int64 accumulators of the shape of the layer's output.
    """
    x = codes.astype(np.float64) - layer.input_zero_point
    bias = np.zeros((), np.int64) if layer.bias is None else layer.bias.astype(np.int64)
    if isinstance(layer, Dense):
        return np.asarray((x @ layer.weight.astype(np.float64)).astype(np.int64) + bias)
    axes = len(layer.strides)
    pads = [(0, 0), (0, 0), *zip(layer.pads[:axes], layer.pads[axes:], strict=True)]
    x = np.pad(x, pads)
    kernel = layer.weight.shape[2:]
    size = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(x.shape[2:], kernel, layer.dilations, layer.strides, strict=True)
    ]
    outputs, inputs = layer.weight.shape[:2]
    weight = layer.weight.astype(np.float64).reshape(layer.groups, outputs // layer.groups, inputs, *kernel)
    total = np.zeros((x.shape[0], layer.groups, outputs // layer.groups, int(np.prod(size))))
    for offset in np.ndindex(*kernel):
        starts = [o * d for o, d in zip(offset, layer.dilations, strict=True)]
        window = tuple(
            slice(start, start + (n - 1) * s + 1, s)
            for start, n, s in zip(starts, size, layer.strides, strict=True)
        )
        taken = x[(slice(None), slice(None), *window)].reshape(x.shape[0], layer.groups, inputs, -1)
        total += weight[(..., *offset)] @ taken
    summed = total.astype(np.int64).reshape(x.shape[0], outputs, *size)
    return np.asarray(summed + bias.reshape(-1, *[1] * axes))


def _is_exact(stage: Weighted, program: Program) -> bool:
    patterns = _extremes(_tested_shape(stage.layer, program), stage.codes)
    expected = exact_accumulators(stage.layer, patterns).astype(np.float64)
    for count in TESTED_BATCHES:
        index = np.arange(count) % len(patterns)
        x = torch.as_tensor(patterns[index], dtype=torch.float32, device=stage.weight.device)
        with torch.no_grad():
            found = stage.accumulate(x).to(torch.float64).cpu().numpy()
        if not np.array_equal(found, expected[index]):
            return False
    return True


def _tested_shape(layer: Conv | Dense, program: Program) -> tuple[int, ...]:
    """The shape of one sample: the program's own, with at most `TESTED_POSITIONS` along an axis of space."""
    if isinstance(layer, Dense):
        return (layer.weight.shape[0],)
    shape = program.tensors[layer.input].shape
    known: Sequence[int | None] = [None] * len(layer.strides) if shape is None else shape[2:]
    space = []
    for i, size in enumerate(known):
        extent = (layer.weight.shape[2 + i] - 1) * layer.dilations[i] + 1
        longest = max(TESTED_POSITIONS, extent)
        space.append(longest if size is None else min(size, longest))
    return (layer.weight.shape[1] * layer.groups, *space)


def _extremes(shape: tuple[int, ...], codes: tuple[int, int]) -> NDArray[np.int64]:
    """Inputs that drive sums to their limits: random limits, random codes, checkerboard, all low, all high.

    The random limits come first: a batch of one is tested on them.
    """
    low, high = codes
    generator = np.random.default_rng(0)
    return np.stack(
        [
            generator.choice(np.array([low, high]), size=shape),
            generator.integers(low, high, size=shape, endpoint=True),
            np.where(np.indices(shape).sum(axis=0) % 2, high, low),
            np.full(shape, low),
            np.full(shape, high),
        ]
    ).astype(np.int64)


def _ancestors(program: Program, name: str) -> list[Layer]:
    """The layers that `name` depends on, in order."""
    needed, found = {name}, []
    for layer in reversed(program.layers):
        if needed.intersection(layer.outputs):
            needed.update(layer.inputs)
            found.append(layer)
    return found[::-1]


def _stage(module: nn.Module) -> Any:
    """A member of `Twin.stages`, which a `ModuleList` types as any module."""
    return module


def _test_loaded(module: nn.Module, _keys: object) -> None:
    if isinstance(module, Twin):
        module.self_test()
