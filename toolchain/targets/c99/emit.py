"""C code of each step: a table from the step's type to the function that writes its constants and its call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ....errors import UnsupportedError
from . import steps as s
from .c_code import Program, braces, float_literal, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .packing import Packed
    from .plan import Plan

__all__ = ["emit"]

_SHIFT_OFFSET = 256  # shifts are stored with it, so that none is negative


def emit(plan: Plan, name: str, *, integer_only: bool) -> Program:
    """Write the constants and calls of all steps.

    Raises:
        UnsupportedError: `integer_only`, and a step needs floating point.
    """
    code = Program(name, plan, integer_only)
    code.widths = {
        step.weights.bits
        for step in plan.steps
        if isinstance(step, s.Convolve | s.DenseStep) and not step.weights.plain
    }
    last_write = {buffer: i for i, step in enumerate(plan.steps) for buffer in step.writes}
    named = {view.buffer for view in plan.views.values()}
    for number, buffer in enumerate(
        n for n in sorted(last_write) if n in named and plan.buffers[n].home in ("arena", "trace")
    ):
        code.traced[buffer] = number
    for i, step in enumerate(plan.steps):
        code.at = i
        call = _EMITTERS[type(step)](code, step)
        if isinstance(step, s.Logits):
            code.logits_call = call
            continue
        code.calls.append(f"{call} /* {_comment(step.layer)} */")
        for written in dict.fromkeys(step.writes):
            if last_write[written] == i and written in code.traced:
                _trace(code, written)
    return code


def _comment(text: str) -> str:
    """A layer's name as a comment can hold it."""
    return (
        "".join(c if c.isprintable() and c.isascii() else "?" for c in text)
        .replace("*/", "* /")
        .replace("/*", "/ *")
    )


def _trace(code: Program, buffer: int) -> None:
    found = code.plan.buffers[buffer]
    place = s.Place(buffer)
    if found.home == "arena" and found.kind == "codes":
        code.calls.append(f"TRACE_CODES({code.traced[buffer]}, {code.codes(place)}, {found.size});")
    elif found.home == "arena":
        code.calls.append(f"TRACE_WORDS({code.traced[buffer]}, {code.words(place)}, {found.size});")


def _factors(code: Program, layer: str, values: NDArray[np.float32]) -> NDArray[Any]:
    """Multipliers as the code takes them: floats, or shifts with a sign."""
    if not code.integer_only:
        return values.astype(np.float32)
    mantissa, exponent = np.frexp(values)
    if not (np.abs(mantissa) == 0.5).all():
        raise UnsupportedError(
            f"layer {layer!r}: its multipliers are not powers of two, so it cannot be built without floating "
            "point; compile with the recipe's scales = 'pow2', or build with floating point"
        )
    shift = 1 - exponent.astype(np.int64)
    return (2 * (shift + _SHIFT_OFFSET) + (mantissa < 0)).astype(np.uint16)


def _spread(fields: dict[str, str], what: str, name: str, found: s.Spread) -> None:
    fields[what] = name
    fields[f"{what}_channel"] = str(found.by_channel)
    fields[f"{what}_place"] = str(found.by_place)


def _sinks(code: Program, step: Any) -> dict[str, str]:
    """Define a step's sinks; returns the fields that point to them."""
    code.kernels.add("sink")
    kept, traced = [], []
    for sink in step.sinks:
        buffer, fields = code.plan.buffers[sink.buffer], dict[str, str]()
        if buffer.home == "trace":
            traced.append(f"    {{.traced = {1 + code.traced[sink.buffer]}}},")
            continue
        if sink.multiplier is None:
            fields["words"] = code.words(s.Place(sink.buffer))
        else:
            fields["codes"] = code.codes(s.Place(sink.buffer))
            factors = _factors(code, step.layer, sink.multiplier.values)
            _spread(fields, "multiplier", code.constant("multiplier", factors, "parameters"), sink.multiplier)
            if sink.bias is not None:
                _spread(fields, "bias", code.constant("addend", sink.bias.values, "parameters"), sink.bias)
            fields |= {"zero": str(sink.zero), "low": str(sink.low), "high": str(sink.high)}
        kept.append(wrapped(f"{braces(fields)},", "    "))
    name = f"sinks_{code.at}"
    lines = [*kept]
    if traced:
        lines += [f"#ifdef {code.name.upper()}_TRACE", *traced, "#endif"]
    code.definitions.append(f"static const sink_t {name}[] = {{\n" + "\n".join(lines) + "\n};\n")
    return {"sinks": name, "sink_count": f"sizeof {name} / sizeof {name}[0]"}


def _weights(code: Program, weights: Packed) -> dict[str, str]:
    values = code.constant("weights", weights.data, "weights")
    if weights.plain:
        return {"plain": values}
    packed = {"halves": values, "unpack": f"unpack_{weights.bits}"}
    if weights.levels is not None:
        packed["levels"] = code.constant("levels", weights.levels, "tables")
    packed |= {
        "low": str(weights.low), "step": str(weights.step), "bits": str(weights.bits), "count": str(weights.count),
    }  # fmt: skip
    return {"packed": braces(packed)}


def _window(window: s.Window) -> str:
    return braces({name: str(value) for name, value in vars(window).items()})


def _convolve(code: Program, step: s.Convolve) -> str:
    sinks = _sinks(code, step)
    kernel = "depthwise" if step.depthwise else "convolve"
    code.kernels |= {kernel, *(() if step.depthwise else ("dot",))}
    if not step.weights.plain:
        code.kernels.add("rows")
    name = code.struct(
        "convolution_t",
        {
            "window": _window(step.window),
            **_weights(code, step.weights),
            "bias": code.constant("bias", step.bias, "parameters"),
            **sinks,
            "in_channels": str(step.in_channels),
            "out_channels": str(step.out_channels),
            "groups": str(step.groups),
            "zero": str(step.zero),
            "tile": str(step.tile),
        },
    )
    return f"{kernel}(&{name}, {code.codes(step.source)}{code.scratch});"


def _dense(code: Program, step: s.DenseStep) -> str:
    code.kernels |= {"dense", "dot"}
    sinks = _sinks(code, step)
    name = code.struct(
        "dense_t",
        {
            **_weights(code, step.weights),
            "bias": code.constant("bias", step.bias, "parameters"),
            **sinks,
            "rows": str(step.rows),
            "inputs": str(step.inputs),
            "outputs": str(step.outputs),
        },
    )
    return f"dense(&{name}, {code.codes(step.source)}{code.scratch});"


def _sum(code: Program, step: s.SumStep) -> str:
    code.kernels.add("weighted_sum")
    sinks = _sinks(code, step)
    name = code.struct(
        "weighted_sum_t",
        {
            "multiplier": "{" + ", ".join(map(str, step.multipliers)) + "}",
            "zero": "{" + ", ".join(map(str, step.zeros)) + "}",
            **sinks,
            "places": str(step.places),
            "channels": str(step.channels),
        },
    )
    second = code.codes(step.sources[1]) if len(step.sources) > 1 else "NULL"
    return f"weighted_sum(&{name}, {code.codes(step.sources[0])}, {second});"


def _add_words(code: Program, step: s.AddWords) -> str:
    code.kernels.add("add_words")
    fields = _sinks(code, step)
    if step.bias is not None:
        _spread(fields, "bias", code.constant("addend", step.bias.values, "parameters"), step.bias)
    name = code.struct("add_words_t", {**fields, "places": str(step.places), "channels": str(step.channels)})
    return f"add_words(&{name}, {code.words(step.source)});"


def _spatial_sum(code: Program, step: s.SpatialSumStep) -> str:
    code.kernels.add("spatial_sum")
    sinks = _sinks(code, step)
    name = code.struct(
        "spatial_sum_t",
        {**sinks, "zero": str(step.zero), "places": str(step.places), "channels": str(step.channels)},
    )
    return f"spatial_sum(&{name}, {code.codes(step.source)});"


def _max_pool(code: Program, step: s.MaxPoolStep) -> str:
    code.kernels.add("max_pool")
    name = f"step_{code.at}"
    code.definitions.append(wrapped(f"static const window_t {name} = {_window(step.window)};") + "\n")
    return f"max_pool(&{name}, {step.channels}, {code.codes(step.source)}, {code.codes(step.target)});"


def _average_pool(code: Program, step: s.AveragePoolStep) -> str:
    if code.integer_only:
        raise UnsupportedError(f"layer {step.layer!r}: an average in float32 needs floating point")
    code.kernels.add("average_pool")
    name = code.struct(
        "average_pool_t",
        {
            "window": _window(step.window),
            "reals": code.constant("reals", step.reals, "tables"),
            "channels": str(step.channels),
            "include_padding": str(int(step.include_padding)),
            "scale": float_literal(step.scale),
            "zero": float_literal(step.zero),
            "low": str(step.low),
        },
    )
    return f"average_pool(&{name}, {code.codes(step.source)}, {code.codes(step.target)});"


def _look(code: Program, step: s.Look) -> str:
    code.kernels.add("look")
    table = code.constant("table", step.table, "tables")
    return f"look({table}, {code.codes(step.source)}, {code.codes(step.target)}, {step.results});"


def _look_pair(code: Program, step: s.LookPair) -> str:
    code.kernels.add("look_pair")
    table = code.constant("table", step.table, "tables")
    a, b = map(code.codes, step.sources)
    return f"look_pair({table}, {a}, {b}, {code.codes(step.target)}, {step.results});"


def _copy(code: Program, step: s.Copy) -> str:
    kind = code.plan.buffers[step.source.buffer].kind
    pointer, element = (code.codes, "uint8_t") if kind == "codes" else (code.words, "int32_t")
    lines = [f"static void copy_{code.at}(const {element} *from, {element} *to)", "{"]
    names = [f"i{depth}" for depth in range(len(step.nest))]
    if names:
        lines += [f"    int32_t {', '.join(names)};", ""]
    for depth, (name, loop) in enumerate(zip(names, step.nest, strict=True), 1):
        lines.append("    " * depth + f"for ({name} = 0; {name} < {loop.count}; {name}++) {{")
    pairs = [
        " + ".join(f"{getattr(loop, side)} * {name}" for name, loop in zip(names, step.nest, strict=True))
        or "0"
        for side in ("target", "source")
    ]
    if step.results:
        lines.append("    " * (len(names) + 1) + f"to[{pairs[0]}] = from[{pairs[1]}];")
    lines += ["    " * depth + "}" for depth in range(len(names), 0, -1)]
    code.definitions.append("\n".join([*lines, "}", ""]))
    call = f"copy_{code.at}({pointer(step.source)}, {pointer(step.target)});"
    if step.fill is None:
        return call
    # Through a pointer to bytes: gcc takes a length that equals the arena's count of words for a mistake.
    whole = code.plan.buffers[step.target.buffer]
    fill = f"static void fill_{code.at}(uint8_t *to)\n{{\n    memset(to, {step.fill}, {whole.bytes});\n}}\n"
    code.definitions.append(fill)
    return f"fill_{code.at}({code.codes(s.Place(step.target.buffer))}); {call}"


def _logits(code: Program, step: s.Logits) -> str:
    if code.integer_only:
        return ""
    kind = code.plan.buffers[step.source.buffer].kind
    values = code.constant("scale", step.multiplier.values, "parameters")
    zeros = code.constant("zero", step.zero.values, "parameters") if step.zero.values.any() else "NULL"
    source = code.codes(step.source) if kind == "codes" else code.words(step.source)
    name = f"scale_{code.at}"
    by = step.multiplier.by_channel
    zero = "" if zeros == "NULL" else f" - {zeros}[{step.zero.by_channel} * i]"
    element = "uint8_t" if kind == "codes" else "int32_t"
    code.definitions.append(
        f"static void {name}(const {element} *x, float *logits)\n"
        "{\n"
        "    int32_t i;\n\n"
        f"    for (i = 0; i < {step.results}; i++) {{\n"
        f"        const float value = (float)((int32_t)x[i]{zero});\n"
        f"        logits[i] = value * {values}[{by} * i];\n"
        "    }\n"
        "}\n"
    )
    return f"{name}({source}, logits);"


_EMITTERS: dict[type[s.Step], Callable[[Program, Any], str]] = {
    s.AddWords: _add_words,
    s.AveragePoolStep: _average_pool,
    s.Convolve: _convolve,
    s.Copy: _copy,
    s.DenseStep: _dense,
    s.Logits: _logits,
    s.Look: _look,
    s.LookPair: _look_pair,
    s.MaxPoolStep: _max_pool,
    s.SpatialSumStep: _spatial_sum,
    s.SumStep: _sum,
}
