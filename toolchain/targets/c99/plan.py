"""The whole program as steps over one arena: what runs, in what order, and where everything lies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ....errors import UnsupportedError
from ...planning.memory import ALIGNMENT, Lifetime, live_bytes, place
from .builder import Builder, refuse
from .layers import LOWERINGS, TILES, scratch_bytes
from .moves import MOVES
from .steps import Buffer, Convolve, Copy, Logits, Look, LookPair, Step, SumStep
from .views import View, row_major

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...program import Program

__all__ = ["Plan", "make_plan"]

_WORD = 4  # bytes: what int32 accumulators are aligned to
_ROOM = 1.1  # of the least possible arena, for the unpacked weights of a tile
_IN_PLACE = (Look, LookPair, SumStep)
_LOWERINGS = {**LOWERINGS, **MOVES}


@dataclass(frozen=True, eq=False)
class Plan:
    """What the generated program does.

    Attributes:
        steps: In order; the last makes the logits.
        buffers: By number.
        offsets: Byte of the arena at which each buffer in it begins.
        scratch: Byte of the arena at which each step's scratch begins.
        arena: Bytes of the arena.
        live: The largest sum of sizes of tensors that must be alive together, the caller's pixels left out.
        views: Where each tensor lies, by name.
        codes: Where the integers behind the logits lie, in their order; None where there are none.
        wide: Whether partial sums need int64.
        left_out: Names of the layers behind the logits.
    """

    program: Program
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    offsets: Mapping[int, int]
    scratch: tuple[int, ...]
    arena: int
    live: int
    views: Mapping[str, View]
    codes: View | None
    wide: bool
    left_out: tuple[str, ...]


def make_plan(program: Program, *, plain: bool = False) -> Plan:
    """Lower a program to steps and lay out its memory.

    Args:
        program: The program.
        plain: Whether weights get a byte each, whatever their width.

    Raises:
        UnsupportedError: It holds a layer that has no C form; names it and the reason.
    """
    b = Builder(program, plain)
    _check_ends(program)
    spec = program.inputs[0]
    for layer in b.needed:
        if not b.views:
            shape = b.sample_shape(layer, spec.name)
            pixels = b.new_buffer("codes", int(np.prod(shape, dtype=np.int64)), "pixels")
            b.views[spec.name] = View(pixels, row_major(shape))
        lowering = _LOWERINGS.get(type(layer))
        if lowering is None:
            raise refuse(layer, "layers of this kind have no C form")
        lowering(b, layer)
    logits = program.logits or ""
    view = b.views[logits]
    if not view.lies_as(row_major(view.shape)):
        raise UnsupportedError(
            f"the logits {logits!r} are transposed after they are scaled; that has no C form"
        )
    codes = None
    if program.codes is not None and program.codes in b.views:
        codes = b.as_rows(program.producers[program.codes], program.codes)
    steps = sorted(b.steps, key=lambda step: isinstance(step, Logits))  # the codes may have been moved last
    needed = {id(layer) for layer in b.needed}
    left_out = tuple(layer.name for layer in program.layers if id(layer) not in needed)
    return _laid_out(b, steps, codes, left_out)


def _check_ends(program: Program) -> None:
    if len(program.inputs) != 1 or program.inputs[0].dtype != np.uint8:
        found = ", ".join(str(spec) for spec in program.inputs)
        raise UnsupportedError(
            f"the program takes {found}; a C library takes one input of uint8 pixels "
            "(compile with the recipe's input = 'uint8')"
        )
    if program.logits is None or program.logits not in program.producers:
        raise UnsupportedError("the program has no float32 logits; a C library returns them")


def _laid_out(b: Builder, steps: list[Step], codes: View | None, left_out: tuple[str, ...]) -> Plan:
    """Tiles, buffers in place, and the arena."""
    last = {buffer: i for i, step in enumerate(steps) for buffer in (*step.writes, *step.reads)}
    if codes is not None:
        last[codes.buffer] = len(steps)
    first: dict[int, int] = {}
    for i, step in enumerate(steps):
        for buffer in step.writes:
            first.setdefault(buffer, i)
    held = [n for n in sorted(first) if b.buffers[n].home == "arena"]
    lives = {n: Lifetime(b.buffers[n].bytes, first[n], last[n]) for n in held}
    copies = {step.writes[0] for step in steps if isinstance(step, Copy)} - {
        view.buffer for view in b.views.values()
    }
    live = live_bytes([life for n, life in lives.items() if n not in copies])
    steps = [_with_tile(step, i, lives, live) for i, step in enumerate(steps)]
    homes = _in_place(steps, b.buffers, lives)
    groups: dict[int, Lifetime] = {}
    for n, home in homes.items():
        life, known = lives[n], groups.get(home)
        groups[home] = life if known is None else Lifetime(
            max(known.size, life.size), min(known.first, life.first), max(known.last, life.last)
        )  # fmt: skip
    scratch = [(i, Lifetime(step.scratch, i, i)) for i, step in enumerate(steps) if step.scratch]
    offsets, total = _placed([*groups.values(), *(life for _, life in scratch)])
    where = dict(zip(groups, offsets, strict=False))
    scratch_at = {i: offsets[len(groups) + k] for k, (i, _) in enumerate(scratch)}
    return Plan(
        b.program,
        tuple(steps),
        tuple(b.buffers),
        {n: where[home] for n, home in homes.items()},
        tuple(scratch_at.get(i, 0) for i in range(len(steps))),
        total,
        live,
        b.views,
        codes,
        b.wide,
        left_out,
    )


def _with_tile(step: Step, at: int, lives: Mapping[int, Lifetime], live: int) -> Step:
    """Let a convolution compute as many output channels together as RAM has room for their weights."""
    if not isinstance(step, Convolve) or step.weights.plain or step.depthwise:
        return step
    window = step.window
    inputs = window.kernel_height * window.kernel_width * step.in_channels // step.groups
    taken = sum(life.size for life in lives.values() if life.first <= at <= life.last)
    each = step.out_channels // step.groups
    tiles = [tile for tile in TILES if tile <= each] or [1]
    for tile in tiles:
        scratch = scratch_bytes(step.weights, tile * inputs)
        if taken + scratch <= _ROOM * live or tile == 1:
            break
    return replace(step, tile=tile, scratch=scratch)


def _in_place(steps: list[Step], buffers: list[Buffer], lives: Mapping[int, Lifetime]) -> dict[int, int]:
    """For each buffer the one whose memory it takes: an element-wise step may overwrite an input that dies there."""
    homes = {n: n for n in lives}
    ends = {n: life.last for n, life in lives.items()}
    for at, step in enumerate(steps):
        written = [n for n in step.writes if n in lives and buffers[n].kind == "codes"]
        if not isinstance(step, _IN_PLACE) or not written:
            continue
        target = written[0]
        for source in step.reads:
            home = homes.get(source)
            if home is not None and ends[home] == at and buffers[source].bytes == buffers[target].bytes:
                homes[target] = home
                ends[home] = lives[target].last
                break
    return homes


def _placed(lifetimes: list[Lifetime]) -> tuple[list[int], int]:
    """Offsets that are multiples of 4 bytes: the planner counts in cache lines, which stand for words here."""
    words = [replace(one, size=-(-one.size // _WORD) * ALIGNMENT) for one in lifetimes]
    offsets, total = place(words)
    return [offset // ALIGNMENT * _WORD for offset in offsets], total // ALIGNMENT * _WORD
