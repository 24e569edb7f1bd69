"""Windows of convolutions and pools: strides, pads and dilations as plain integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Node

__all__ = ["Window", "read_window"]

MAX_SPATIAL_AXES = 2


@dataclass(frozen=True)
class Window:
    """One integer per spatial axis; `pads` first the beginnings of all axes, then their ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def read_window(node: Node, kernel: Sequence[int], shape: tuple[int | None, ...] | None) -> Window:
    """The window of a node whose kernel is `kernel` and whose input has `shape`.

    `auto_pad` is resolved from the input's spatial shape (SAME: the output has `ceil(length / stride)`
    positions, an odd pad goes to the end for SAME_UPPER and to the beginning for SAME_LOWER).

    Raises:
        UnsupportedError: For more than two spatial axes, for negative pads, or where SAME padding meets a
            spatial axis of unknown length.
    """
    axes = len(kernel)
    if not 1 <= axes <= MAX_SPATIAL_AXES:
        raise node.refusal(f"its window has {axes} spatial axes; 1 and 2 are read")
    if "kernel_shape" in node.attributes and tuple(node.attributes["kernel_shape"]) != tuple(kernel):
        raise node.refusal(
            f"kernel_shape {node.attributes['kernel_shape']} differs from the weights' {kernel}"
        )
    strides = _per_axis(node, "strides", axes, 1)
    dilations = _per_axis(node, "dilations", axes, 1)
    for what, values in (("the kernel", kernel), ("strides", strides), ("dilations", dilations)):
        _check_least(node, what, values, 1)
    auto_pad = node.attributes.get("auto_pad", "NOTSET")
    if auto_pad in {"SAME_UPPER", "SAME_LOWER"}:
        spatial = (None,) * axes if shape is None else shape[2:]
        if None in spatial or len(spatial) != axes:
            raise node.refusal(f"auto_pad {auto_pad} needs a static spatial shape; its input has {spatial}")
        totals = [
            max((-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length, 0)
            for length, size, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True)
            if length is not None
        ]
        smaller = tuple(total // 2 for total in totals)
        larger = tuple(total - total // 2 for total in totals)
        pads = smaller + larger if auto_pad == "SAME_UPPER" else larger + smaller
    elif auto_pad == "VALID":
        pads = (0,) * (2 * axes)
    elif auto_pad == "NOTSET":
        pads = _per_axis(node, "pads", 2 * axes, 0)
    else:
        raise node.refusal(f"auto_pad is {auto_pad!r}; expected NOTSET, VALID, SAME_UPPER or SAME_LOWER")
    _check_least(node, "pads", pads, 0)
    return Window(tuple(kernel), strides, pads, dilations)


def _per_axis(node: Node, attribute: str, count: int, default: int) -> tuple[int, ...]:
    values = tuple(int(value) for value in node.attributes.get(attribute, (default,) * count))
    if len(values) != count:
        raise node.refusal(f"{attribute} has {len(values)} values; expected {count}")
    return values


def _check_least(node: Node, what: str, values: Sequence[int], least: int) -> None:
    if min(values) < least:
        raise node.refusal(f"{what} {tuple(values)} holds a value below {least}")
