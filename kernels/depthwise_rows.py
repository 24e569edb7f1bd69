"""The depthwise convolution in vectors over the channels; see `depthwise` for the arithmetic.

Memory is read and written in order: positions outside, blocks of channels inside. `Form.windows` windows side by
side share the loads of weights and, where taps of a kernel row are neighbours, those of codes.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from numba import extending as numba_extending
from numba import types
from numba.core import cgutils as numba_cgutils

from .cache import kernel
from .drain import emit_codes
from .emit import (
    F32,
    I16,
    I64,
    Loop,
    at,
    broadcast,
    const,
    floats,
    integers,
    load,
    pointer,
    select_limit,
    splat,
    store,
)
from .map_runs import emitted
from .requantise import ROUNDER

if TYPE_CHECKING:
    from llvmlite import ir

__all__ = ["LARGEST_CODE", "UNIT", "Form", "FormArgument", "Sizes", "convolve"]

cgutils: Any = numba_cgutils  # its functions carry no annotations
extending: Any = numba_extending

LARGEST_CODE = 255

# A 16-bit sum under the exponent of 2^23 is the float32 2^23 + sum.
UNIT, EXPONENT = 1 << 23, 0x4B000000


@dataclass(frozen=True)
class Form:
    """What a kernel is compiled for.

    Attributes:
        narrow: Whether sums have 16 bits.
        codes: Whether they are requantised.
        taps: Neighbouring taps of a segment.
        stride: Columns from one window to the next.
        windows: Windows at a time, of which a row has at least as many.
        lanes: Channels of a vector.
        kept: Channels of a vector that are stored: all, or those of a map that has fewer.
    """

    narrow: bool
    codes: bool
    taps: int
    stride: int
    windows: int
    lanes: int
    kept: int

    @property
    def bits(self) -> int:
        """Size of sums and of packed weights."""
        return 16 if self.narrow else 32


class FormType(types.Type):
    """Numba's type of a `FormArgument`: every form has its own version of the kernel."""

    def __init__(self, form: Form) -> None:
        self.form = form
        super().__init__(name=f"Depthwise{astuple(form)}")


class FormArgument:
    """A form as an argument of a kernel."""

    def __init__(self, form: Form) -> None:
        self._numba_type_ = FormType(form)  # Numba's protocol


def _unbox(kind: FormType, value: Any, context: Any) -> Any:  # noqa: ARG001 - an argument without a value
    return extending.NativeValue(context.context.get_dummy_value())


extending.register_model(FormType)(extending.models.OpaqueModel)
extending.unbox(FormType)(_unbox)


class Sizes(NamedTuple):
    """Where things lie, in bytes of the input and elements of the output.

    Attributes:
        x_image, x_row, pixel: Distance of two images, of two rows of windows, and of two columns.
        x_first: The first window's first tap.
        out_image, out_row: Distance of two images and of two rows; that of two pixels is `channels`.
        out_first: The first pixel.
        channels: Channels.
        height, width: Rows and columns of windows.
    """

    x_image: Any
    x_row: Any
    x_first: Any
    pixel: Any
    out_image: Any
    out_row: Any
    out_first: Any
    channels: Any
    height: Any
    width: Any


@dataclass(frozen=True)
class _Emitter:
    """Emits the convolution; operands are LLVM values, arrays their addresses: see `_images`."""

    builder: ir.IRBuilder
    form: Form
    x: ir.Value
    out: ir.Value
    images: ir.Value
    segments: ir.Value
    segment_count: ir.Value
    weight: ir.Value
    term: ir.Value
    multiplier: ir.Value
    zero: ir.Value
    sizes: Sizes

    def emit(self) -> None:
        """All rows of all images."""
        builder = self.builder
        with Loop(builder, self.images) as image, Loop(builder, self.sizes.height) as y:
            steps = ((self.sizes.x_image, self.sizes.x_row), (self.sizes.out_image, self.sizes.out_row))
            source, target = (
                builder.add(builder.mul(image.index, each), builder.mul(y.index, row)) for each, row in steps
            )
            self._emit_row(builder.add(source, self.sizes.x_first), builder.add(target, self.sizes.out_first))

    def _emit_row(self, source: ir.Value, target: ir.Value) -> None:
        """Blocks of windows, in these blocks of channels, in these segments."""
        builder, form = self.builder, self.form
        kind, vector = integers(form.bits, form.lanes), form.lanes * form.bits // 8
        last_position = builder.sub(self.sizes.width, const(form.windows))
        last_channel = builder.sub(self.sizes.channels, const(form.kept))
        with Loop(builder, self._blocks(self.sizes.width, form.windows)) as across:
            # The last block of windows, or of channels, does again some of what the one before it did.
            position = self._smaller(builder.mul(across.index, const(form.windows)), last_position)
            columns = builder.mul(builder.mul(position, self.sizes.pixel), const(form.stride))
            here = at(builder, self.x, builder.add(source, columns))
            pixel = builder.add(target, builder.mul(position, self.sizes.channels))
            with Loop(builder, self._blocks(self.sizes.channels, form.lanes), [self.weight]) as block:
                first = builder.mul(block.index, const(form.lanes))
                channel = self._smaller(first, last_channel)
                start = load(builder, block.values[0], 0, kind, form.bits // 8)
                taps = at(builder, block.values[0], vector)
                with Loop(builder, self.segment_count, [*[start] * form.windows, taps]) as segment:
                    *sums, taps = segment.values
                    offset = load(builder, self.segments, builder.mul(segment.index, const(8)), I64, 8)
                    codes = at(builder, here, builder.add(channel, offset))
                    segment.carry(
                        [*self._add_segment(codes, taps, sums), at(builder, taps, vector * form.taps)]
                    )
                *sums, taps = segment.results
                block.carry([taps])
                results = self._finish(builder.mul(first, const(4)), sums)
                self._store(results, builder.add(pixel, channel))

    def _add_segment(self, codes: ir.Value, taps: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        """Add the products of one segment, whose codes and taps are given, to the sums of all windows."""
        builder, form = self.builder, self.form
        kind, size = integers(form.bits, form.lanes), form.bits // 8
        weights = [load(builder, taps, form.lanes * size * tap, kind, size) for tap in range(form.taps)]
        if not form.narrow:
            # Says that a weight has 16 bits: x86 then multiplies pairs of int16, of which one is zero.
            high = splat(kind, 16)
            weights = [builder.ashr(builder.shl(weight, high), high) for weight in weights]
        sums = list(sums)
        for column in range((form.windows - 1) * form.stride + form.taps):
            place = builder.mul(self.sizes.pixel, const(column))
            x = builder.zext(load(builder, codes, place, integers(8, form.lanes)), kind)
            for window in range(form.windows):
                tap = column - window * form.stride
                if 0 <= tap < form.taps:
                    sums[window] = builder.add(sums[window], builder.mul(x, weights[tap]))
        return sums

    def _finish(self, offset: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        """What is stored of the sums; `offset` is the byte of the block's terms and multipliers."""
        builder, form, lanes = self.builder, self.form, self.form.lanes
        term, multiplier = at(builder, self.term, offset), at(builder, self.multiplier, offset)
        if form.narrow and form.codes:
            half = floats(lanes // 2)
            terms, factors = (
                [load(builder, base, place, half, 4) for place in (0, 2 * lanes)]
                for base in (term, multiplier)
            )
            return [self._narrow_codes(total, terms, factors) for total in sums]
        if form.narrow:
            wide = integers(32, lanes)
            terms = load(builder, term, 0, wide, 4)
            return [builder.sub(builder.zext(total, wide), terms) for total in sums]
        if not form.codes:
            return sums
        low = builder.sitofp(builder.neg(self.zero), F32)
        high = builder.fadd(low, F32(float(LARGEST_CODE)))
        limits = (
            broadcast(builder, low, lanes),
            broadcast(builder, high, lanes),
            broadcast(builder, self.zero, lanes),
        )
        factors = load(builder, multiplier, 0, floats(lanes), 4)
        return [emit_codes(builder, total, factors, limits) for total in sums]

    def _narrow_codes(self, total: ir.Value, terms: list[ir.Value], factors: list[ir.Value]) -> ir.Value:
        """Codes of 16-bit sums; `terms` and `factors` are those of the even channels and of the odd ones."""
        builder, words, lanes = self.builder, total.type, self.form.lanes
        pairs, numbers = integers(32, lanes // 2), floats(lanes // 2)
        low, high = splat(pairs, 0xFFFF), splat(pairs, 16)
        both = builder.bitcast(total, pairs)
        rounded = []
        for part, term, factor in zip(
            (builder.and_(both, low), builder.lshr(both, high)), terms, factors, strict=True
        ):
            number = builder.bitcast(builder.or_(part, splat(pairs, EXPONENT)), numbers)
            f = builder.fmul(builder.fsub(number, term), factor)
            rounded.append(builder.bitcast(builder.fadd(f, splat(numbers, float(ROUNDER))), pairs))
        merged = builder.or_(builder.and_(rounded[0], low), builder.shl(rounded[1], high))
        zero = broadcast(builder, builder.trunc(self.zero, I16), lanes)
        code = builder.add(builder.bitcast(merged, words), zero)
        code = select_limit(builder, code, splat(words, 0), "<")
        code = select_limit(builder, code, splat(words, LARGEST_CODE), ">")
        return builder.trunc(code, integers(8, lanes))

    def _store(self, results: list[ir.Value], place: ir.Value) -> None:
        """Store what belongs to neighbouring pixels, from an element of the output on."""
        builder, form, size = self.builder, self.form, 1 if self.form.codes else 4
        for window, result in enumerate(results):
            element = builder.add(place, builder.mul(self.sizes.channels, const(window)))
            address = at(builder, self.out, builder.mul(element, const(size)))
            if form.kept == form.lanes:
                store(builder, result, address, 0)
                continue
            for lane in range(form.kept):
                store(builder, builder.extract_element(result, I64(lane)), address, size * lane)

    def _smaller(self, left: ir.Value, right: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed("<", left, right), left, right)

    def _blocks(self, count: ir.Value, size: int) -> ir.Value:
        """Blocks that cover `count` elements."""
        return self.builder.sdiv(self.builder.add(count, const(size - 1)), const(size))


@emitted
def _images(
    typing_context: Any,  # noqa: ARG001
    form: Any,
    x: Any,
    out: Any,
    images: Any,
    segments: Any,
    weight: Any,
    term: Any,
    multiplier: Any,
    zero: Any,
    sizes: Any,
) -> Any:
    """Emit what `convolve` does."""
    signature = types.void(form, x, out, images, segments, weight, term, multiplier, zero, sizes)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> ir.Value:
        kinds = signature.args

        def address(position: int) -> ir.Value:
            return pointer(context, builder, kinds[position], arguments[position])

        table = context.make_array(kinds[4])(context, builder, arguments[4])
        _Emitter(
            builder=builder,
            form=kinds[0].form,
            x=address(1),
            out=address(2),
            images=arguments[3],
            segments=address(4),
            segment_count=builder.extract_value(table.shape, 0),
            weight=address(5),
            term=address(6),
            multiplier=address(7),
            zero=arguments[8],
            sizes=Sizes._make(cgutils.unpack_tuple(builder, arguments[9])),
        ).emit()
        return context.get_dummy_value()

    return signature, generate


@kernel
def convolve(
    form: Any,
    x: Any,
    out: Any,
    images: int,
    segments: Any,
    weight: Any,
    term: Any,
    multiplier: Any,
    zero: Any,
    sizes: Any,
) -> None:
    """The convolution of some images.

    Args:
        form: The `FormArgument`.
        x: uint8, one dimension: the codes.
        out: uint8 codes or int32 sums, one dimension.
        images: Number of images.
        segments: int64: where each segment of taps starts, counted from its window's first tap.
        weight: `[block of channels][row][lane]`, int16 or int32: what the sums begin with, then the taps.
        term: `[block][lane]`, for 16-bit sums alone: what is taken from them, int32; where they become codes, 2^23
            is added and it is float32.
        multiplier: float32, likewise. For such codes the even lanes of a block come first, here and there.
        zero: int32, the zero point of the codes.
        sizes: The `Sizes`, int64.
    """
    _images(form, x, out, images, segments, weight, term, multiplier, zero, sizes)
