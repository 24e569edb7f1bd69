"""Operators that move codes without computing: pools, concatenation, reshapes, padding."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ..program import Concat, MaxPool, Pad, Reshape, Split, Transpose
from .windows import read_window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .graph import Node
    from .lifting import Lifting

__all__ = ["concat", "flatten", "max_pool", "pad", "reshape", "split", "squeeze", "transpose", "unsqueeze"]


def max_pool(lifting: Lifting, node: Node) -> None:
    """MaxPool over one or two spatial axes -> `MaxPool`."""
    if len(node.outputs) > 1 and node.outputs[1] is not None:
        raise node.refusal("its Indices output is used; only its maxima are read")
    name = lifting.tensor(node, 0)
    window = read_window(node, node.attributes["kernel_shape"], lifting.shape(name))
    if node.attributes.get("ceil_mode", 0) and node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.refusal("ceil_mode together with auto_pad is not read; give explicit pads")
    layer = MaxPool(
        name=node.name,
        inputs=(name,),
        outputs=(node.output,),
        kernel=window.kernel,
        strides=window.strides,
        pads=window.pads,
        dilations=window.dilations,
        ceil_mode=bool(node.attributes.get("ceil_mode", 0)),
    )
    lifting.write(layer, lifting.spec(name).dtype)


def concat(lifting: Lifting, node: Node) -> None:
    """Concat -> `Concat`; one input that is a constant makes it an operator."""
    if any(lifting.is_constant(name) for name in node.inputs):
        lifting.operator(node)
        return
    names = tuple(lifting.tensor(node, index) for index in range(len(node.inputs)))
    axis = _axis(node, int(node.attributes["axis"]), len(_dims(lifting, node)))
    layer = Concat(name=node.name, inputs=names, outputs=(node.output,), axis=axis)
    lifting.write(layer, lifting.spec(names[0]).dtype)


def split(lifting: Lifting, node: Node) -> None:
    """Split, its sizes given (input, attribute) or equal (the last one smaller) -> `Split`."""
    name = lifting.tensor(node, 0)
    shape = _dims(lifting, node)
    axis = _axis(node, int(node.attributes.get("axis", 0)), len(shape))
    length, pieces = shape[axis], len(node.outputs)
    sizes = lifting.optional_integers(node, 1, "split") or node.attributes.get("split")
    if sizes is None:
        if length is None:
            raise node.refusal(f"axis {axis} has no known length and no sizes are given")
        size = -(-length // pieces)
        sizes = (*(size,) * (pieces - 1), length - size * (pieces - 1))
    if len(sizes) != pieces or None in node.outputs or min(sizes) < 0 or length not in (None, sum(sizes)):
        raise node.refusal(f"sizes {sizes} for {pieces} named outputs do not split a length of {length}")
    outputs = tuple(str(output) for output in node.outputs)
    layer = Split(name=node.name, inputs=(name,), outputs=outputs, axis=axis, sizes=sizes)
    lifting.write(layer, lifting.spec(name).dtype)


def transpose(lifting: Lifting, node: Node) -> None:
    """Transpose -> `Transpose`; without `perm` the axes are reversed."""
    name = lifting.tensor(node, 0)
    shape = _dims(lifting, node)
    backwards = tuple(reversed(range(len(shape))))
    permutation = tuple(int(axis) for axis in node.attributes.get("perm", backwards))
    if sorted(permutation) != list(range(len(shape))):
        raise node.refusal(f"perm {permutation} is no permutation of an input of shape {shape}")
    layer = Transpose(name=node.name, inputs=(name,), outputs=(node.output,), permutation=permutation)
    lifting.write(layer, lifting.spec(name).dtype)


def pad(lifting: Lifting, node: Node) -> None:
    """Constant padding -> `Pad` with the pads of all axes."""
    mode = node.attributes.get("mode", "constant")
    if mode != "constant":
        raise node.refusal(f"mode is {mode!r}; only constant padding is read")
    name = lifting.tensor(node, 0)
    rank = len(_dims(lifting, node))
    given = lifting.integers(node, 1, "pads")
    value = lifting.optional_constant(node, 2, "constant_value")
    axes = lifting.optional_integers(node, 3, "axes")
    chosen = range(rank) if axes is None else [_axis(node, axis, rank) for axis in axes]
    if len(given) != 2 * len(chosen) or min(given, default=0) < 0:
        raise node.refusal(f"pads are {given} for {len(chosen)} axes; expected two of 0 or more for each")
    pads = [0] * (2 * rank)
    for index, axis in enumerate(chosen):
        pads[axis], pads[rank + axis] = given[index], given[len(chosen) + index]
    layer = Pad(
        name=node.name,
        inputs=(name,),
        outputs=(node.output,),
        pads=tuple(pads),
        value=0 if value is None else value.reshape(()).item(),
    )
    lifting.write(layer, lifting.spec(name).dtype)


def reshape(lifting: Lifting, node: Node) -> None:
    """Reshape to a constant shape -> `Reshape`."""
    shape = lifting.integers(node, 1, "shape")
    if shape.count(-1) > 1 or min(shape, default=0) < -1:
        raise node.refusal(f"shape is {shape}; expected lengths of 0 or more and at most one -1")
    _write_reshape(lifting, node, shape, allow_zero=bool(node.attributes.get("allowzero", 0)))


def flatten(lifting: Lifting, node: Node) -> None:
    """Flatten -> `Reshape` to two axes."""
    shape = _dims(lifting, node)
    axis = int(node.attributes.get("axis", 1))
    axis = axis if axis == len(shape) else _axis(node, axis, len(shape))
    rows = 0 if axis == 1 else _length(shape[:axis])
    columns = _length(shape[axis:])
    if rows == columns == -1:
        raise node.refusal(f"its input has shape {shape}: lengths on both sides of axis {axis} are unknown")
    _write_reshape(lifting, node, (rows, columns))


def squeeze(lifting: Lifting, node: Node) -> None:
    """Squeeze -> `Reshape` without the named axes (by default every axis of length 1)."""
    shape = _dims(lifting, node)
    given = _axes(lifting, node)
    if given is None:
        if None in shape:
            raise node.refusal(f"it names no axes and its input has shape {shape}: which ones go is unknown")
        given = tuple(axis for axis, length in enumerate(shape) if length == 1)
    dropped = {_axis(node, axis, len(shape)) for axis in given}
    if any(shape[axis] not in (None, 1) for axis in dropped):
        raise node.refusal(f"axes {given} of shape {shape} are not all of length 1")
    _write_axes(lifting, node, [axis for axis in range(len(shape)) if axis not in dropped])


def unsqueeze(lifting: Lifting, node: Node) -> None:
    """Unsqueeze -> `Reshape` with axes of length 1 at the named places of the result."""
    rank = len(_dims(lifting, node))
    given = _axes(lifting, node)
    if given is None:
        raise node.refusal("axes are missing")
    total = rank + len(given)
    added = {_axis(node, axis, total) for axis in given}
    if len(added) != len(given):
        raise node.refusal(f"axes {given} name one axis twice")
    kept = iter(range(rank))
    _write_axes(lifting, node, [None if axis in added else next(kept) for axis in range(total)])


def _axes(lifting: Lifting, node: Node) -> tuple[int, ...] | None:
    """Axes as an input (from opset 13) or as an attribute (before)."""
    found = lifting.optional_integers(node, 1, "axes")
    return node.attributes.get("axes") if found is None else found


def _axis(node: Node, axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise node.refusal(f"axis {axis} does not fit a tensor of {rank} axes")
    return axis % rank


def _write_axes(lifting: Lifting, node: Node, sources: Sequence[int | None]) -> None:
    """Reshape to the input's axes `sources` in order, None standing for a new axis of length 1."""
    shape = _dims(lifting, node)
    lengths = [1 if source is None else shape[source] for source in sources]
    target = [
        (0 if position == source else -1) if length is None else length
        for position, (source, length) in enumerate(zip(sources, lengths, strict=True))
    ]
    if target.count(-1) > 1:
        raise node.refusal(f"its input has shape {shape}: more than one unknown length moves")
    _write_reshape(lifting, node, tuple(target))


def _length(dims: Sequence[int | None]) -> int:
    """Product of lengths, -1 where one is unknown."""
    known = [length for length in dims if length is not None]
    return prod(known) if len(known) == len(dims) else -1


def _dims(lifting: Lifting, node: Node) -> tuple[int | None, ...]:
    """Shape of the node's first input, whose rank has to be known."""
    shape = lifting.shape(str(node.inputs[0]))
    if shape is None:
        raise node.refusal("the rank of its input is unknown")
    return shape


def _write_reshape(lifting: Lifting, node: Node, shape: tuple[int, ...], *, allow_zero: bool = False) -> None:
    name = lifting.tensor(node, 0)
    layer = Reshape(
        name=node.name, inputs=(name,), outputs=(node.output,), shape=shape, allow_zero=allow_zero
    )
    lifting.write(layer, lifting.spec(name).dtype)
