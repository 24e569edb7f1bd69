"""`generate`: from an artifact to the files of a C library, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ....errors import DataError, TargetError
from ...emulator import Emulator
from ...source import program_of
from .c_code import Constant, float_literal
from .emit import emit
from .layers import DEPTHWISE_CHANNELS
from .options import C99Options
from .packing import BLOCK, CODES, LANES
from .plan import make_plan
from .sizes import SizeReport, check_limits, size_report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ...program import Program
    from ...source import HasProgram
    from .c_code import Program as CProgram

__all__ = ["C99Library", "Traced", "generate", "render"]

_TEMPLATES = Path(__file__).parent / "templates"
_C_TYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "uint16": "uint16_t",
    "int32": "int32_t",
    "float32": "float",
}
_PER_LINE = 24


@dataclass(frozen=True, eq=False)
class Traced:
    """A tensor as a trace build hands it out.

    Attributes:
        number: Of the buffer.
        index: int64, of the sample's shape: the element of the buffer that holds each element.
        dtype: What the tensor holds; int8 codes are stored with 128 added.
    """

    number: int
    index: NDArray[np.int64]
    dtype: np.dtype[Any]


@dataclass(frozen=True, eq=False)
class C99Library:
    """The files of a C library.

    Attributes:
        name: What its names begin with.
        files: Content by name.
        size: How large it is.
        program: What it was made of.
        pixels, logits: Elements of an image, and of the logits (0 for an integer-only library).
        codes: Elements of the integers behind the logits, 0 where there are none.
        traced: What a trace build hands out, by the tensor's name.
        trace_bytes: For each number in a trace, the bytes of its buffer and of each element.
        notes: What a reader must know.
    """

    name: str
    files: Mapping[str, str | bytes]
    size: SizeReport
    program: Program
    pixels: int
    logits: int
    codes: int
    traced: Mapping[str, Traced]
    trace_bytes: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]


def generate(
    artifact: HasProgram | Program,
    options: C99Options | None = None,
    vectors_from: NDArray[np.uint8] | None = None,
    *,
    measure: bool = True,
) -> C99Library:
    """Generate a C library that computes an artifact's bits.

    Args:
        artifact: What to build.
        options: The settings.
        vectors_from: uint8 pixels `(N, ...)`; the first are the test vectors. None: random and extreme pixels.
        measure: Whether to measure the code with a compiler, if one is there.

    Raises:
        UnsupportedError: A layer has no C form; names it and the reason.
        TargetError: A limit of RAM or ROM is passed.
        DataError: `vectors_from` does not fit the program.
    """
    options = C99Options() if options is None else options
    program = program_of(artifact)
    plan = make_plan(program, plain=options.weight_bits == 8)
    if options.integer_only and plan.codes is None:
        raise TargetError(
            "the program has no integers behind its logits, so an integer-only library returns nothing"
        )
    code = emit(plan, options.name, integer_only=options.integer_only)
    images = _vectors(program, options.vectors, vectors_from)
    values = _values(code, options, artifact, images)
    files = {
        f"{options.name}.h": render("network.h", values),
        f"{options.name}.c": render("network.c", values),
        f"{options.name}_weights.h": render("weights.h", values),
        f"{options.name}_weights.c": render("weights.c", values),
    }
    size = size_report(code, files, measure=measure)
    check_limits(size, options)
    values["size"] = size
    files |= {
        f"{options.name}_check.c": render("check.c", values),
        f"{options.name}_vectors.h": render("vectors.h", values),
        "Makefile": render("Makefile", values),
        "CMakeLists.txt": render("CMakeLists.txt", values),
        "README.md": render("README.md", values),
    }
    numbers = sorted(code.traced, key=lambda buffer: code.traced[buffer])
    return C99Library(
        name=options.name,
        files=files,
        size=size,
        program=program,
        pixels=values["pixels"],
        logits=0 if options.integer_only else values["logits"],
        codes=values["codes_count"],
        traced={
            name: Traced(code.traced[view.buffer], view.index, _dtype(program, name))
            for name, view in plan.views.items()
            if view.buffer in code.traced
        },
        trace_bytes=tuple(
            (plan.buffers[n].bytes, plan.buffers[n].bytes // plan.buffers[n].size) for n in numbers
        ),
        notes=values["notes"],
    )


def _dtype(program: Program, name: str) -> np.dtype[Any]:
    """What a tensor holds; the accumulator beside a dense layer's codes is listed by the layer alone."""
    spec = program.tensors.get(name)
    return np.dtype(np.int32) if spec is None else spec.dtype


def _vectors(program: Program, count: int, images: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    shape = tuple(int(size or 0) for size in (program.inputs[0].shape or ())[1:])
    if images is None:
        drawn = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
        drawn[1:2], drawn[2:3] = 255, 0
        return drawn
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        raise DataError(
            f"test vectors: found {images.dtype}{images.shape}, expected uint8 pixels (N, "
            f"{', '.join(map(str, shape))}), at least one"
        )
    return images[:count]


def _values(
    code: CProgram, options: C99Options, artifact: HasProgram | Program, images: NDArray[np.uint8]
) -> dict[str, Any]:
    """What the templates are filled with."""
    plan, program = code.plan, code.plan.program
    shape = images.shape[1:]
    codes_source, codes_count = _codes_source(code)
    trace = Emulator(program).trace(images, [n for n in (program.logits, program.codes) if n is not None])
    logits = trace[program.logits or ""].reshape(len(images), -1)
    digest = getattr(artifact, "sha256", None)
    notes = []
    if plan.left_out:
        notes.append(f"What follows the logits is left out: {', '.join(map(_plain, plan.left_out))}.")
    if plan.wide:
        notes.append("Partial sums are int64: their bounds pass int32.")
    return {
        "name": options.name,
        "NAME": options.name.upper(),
        "title": "A network of exact integers, generated by ohmfold.",
        "origin": f"Artifact SHA-256 {digest}." if digest else "Generated from a program without a file.",
        "pixels": int(np.prod(shape, dtype=np.int64)),
        "pixel_shape": " x ".join(map(str, shape)),
        "logits": logits.shape[1],
        "arena": plan.arena,
        "integer_only": options.integer_only,
        "dsp": options.dsp,
        "has_codes": plan.codes is not None,
        "codes_source": codes_source,
        "codes_count": codes_count,
        "kernels": code.kernels,
        "widths": [_width(bits) for bits in sorted(code.widths)],
        "wide": plan.wide,
        "block": BLOCK,
        "lanes": LANES,
        "depthwise_channels": DEPTHWISE_CHANNELS,
        "definitions": code.definitions,
        "calls": code.calls,
        "logits_call": code.logits_call,
        "reads_pixels": any("pixels" in call for call in code.calls),
        "constants": [_Array.of(constant) for constant in code.constants],
        "images": [_rows(image.reshape(-1)) for image in images],
        "expected": [_rows(row) for row in _expected(options, program, trace, logits)],
        "notes": tuple(notes),
    }


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text)


def _expected(
    options: C99Options, program: Program, trace: Mapping[str, NDArray[Any]], logits: NDArray[np.float32]
) -> NDArray[Any]:
    """The bits of the logits, or the codes."""
    if options.integer_only:
        return trace[program.codes or ""].reshape(len(logits), -1).astype(np.int32)
    return np.ascontiguousarray(logits).view(np.uint32)


def _codes_source(code: CProgram) -> tuple[str, int]:
    view = code.plan.codes
    if view is None:
        return "", 0
    from .steps import Place

    place = Place(view.buffer, view.first)
    if code.plan.buffers[view.buffer].kind == "words":
        return f"({code.words(place)})[i]", view.index.size
    name = code.plan.program.codes or ""
    signed = code.plan.program.tensors[name].dtype == np.int8
    return f"(int32_t)({code.codes(place)})[i]{' - 128' if signed else ''}", view.index.size


def _width(bits: int) -> dict[str, Any]:
    """How the codes of a width come out of their half-words."""
    by_lane = [_field(bits, code, "h{half}") for code in range(CODES)]
    by_vector = [_field(bits, code, f"(uint32_t)halves[{{half}}u * {LANES}u + j]") for code in range(CODES)]
    fields = [{"by_lane": a, "by_vector": b} for a, b in zip(by_lane, by_vector, strict=True)]
    return {"bits": bits, "fields": fields}


def _field(bits: int, code: int, half: str) -> str:
    """The C expression of a code; `half` is that of a half-word."""
    fields = CODES // bits
    if code < bits * fields:
        word = half.format(half=code // fields)
        return f"({word} >> {code % fields * bits}) & {(1 << bits) - 1}u"
    return " | ".join(f"((({half.format(half=h)} >> {code}) & 1u) << {h})" for h in range(bits))


@dataclass(frozen=True)
class _Array:
    """An array as C source."""

    name: str
    ctype: str
    size: int
    body: str

    @classmethod
    def of(cls, constant: Constant) -> _Array:
        values = constant.values.reshape(-1)
        return cls(constant.name, _C_TYPES[values.dtype.name], values.size, _rows(values))


def _rows(values: NDArray[Any]) -> str:
    """Numbers as the body of an initialiser."""
    flat = values.reshape(-1)
    if flat.dtype == np.float32:
        texts = [float_literal(value) for value in flat]
    else:
        suffix = "u" if flat.dtype == np.uint32 else ""
        texts = [_integer(value, suffix) for value in flat.tolist()]
    lines = (",".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE))
    return ",\n".join(lines)


def _integer(value: int, suffix: str) -> str:
    # -2147483648 is the negation of a number that int does not hold
    return "(-2147483647 - 1)" if value == -(1 << 31) else f"{value}{suffix}"


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill the template of that name."""
    environment = Environment(  # noqa: S701 - C source, not HTML
        loader=FileSystemLoader(_TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(f"{template}.j2").render(values)
