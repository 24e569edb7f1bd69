"""Instruction sets: which one is chosen, what is refused, and that every one gives the bits of int64 NumPy."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import binding, ir

from ohmfold.errors import MissingDependencyError, OhmfoldError
from ohmfold.kernels import isa as isa_module
from ohmfold.kernels.codes import MapCodes
from ohmfold.kernels.conv_maps import SPARE_BYTES, ConvMaps
from ohmfold.kernels.emit import I8, I64
from ohmfold.kernels.isa import BY_NAME, NAMES, available, chosen, find
from ohmfold.kernels.isa.base import Operands
from ohmfold.kernels.layout import MapLayout
from ohmfold.kernels.packing import aligned_empty

# The model of AMX stands for it where the processor has none.
HERE = (*available(), "amx-model")
GUARD = 0xA5


def product(name, x, weight, zero_point, bias, codes, spare_rows=0):
    """A dense product through one instruction set, with guard bytes around the output and garbage behind the input."""
    rows, depth = x.shape
    columns = weight.shape[1]
    source = aligned_empty(x.size + SPARE_BYTES)
    source[...] = np.random.default_rng(0).integers(0, 256, source.size)
    source[: x.size] = x.reshape(-1)
    kernel = ConvMaps(
        weight.T.reshape(columns, depth, 1, 1),
        bias,
        zero_point=zero_point,
        codes=codes,
        input=MapLayout(depth),
        output=MapLayout(columns),
        isa=BY_NAME[name],
    )
    size = 4 if codes is None else 1
    room = np.full((rows * columns * size) + 128, GUARD, np.uint8)
    out = room[64 : 64 + rows * columns * size].view(np.int32 if codes is None else np.uint8)
    kernel(source, out, rows, aligned_empty(BY_NAME[name].scratch_bytes // 4, np.int32))
    assert (room[:64] == GUARD).all()
    assert (room[64 + rows * columns * size :] == GUARD).all()
    return out.reshape(rows, columns)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(HERE),
    rows=st.one_of(st.integers(0, 50), st.sampled_from([191, 192, 193, 400])),
    depth=st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 300])),
    columns=st.one_of(st.integers(1, 70), st.sampled_from([128, 129])),
    largest=st.sampled_from([1, 3, 4, 7, 8, 64, 65, 127, 255]),
    extreme=st.booleans(),
    zero_point=st.sampled_from([0, 7, 128, 255]),
    as_codes=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_instruction_set_equals_int64_numpy(
    name, rows, depth, columns, largest, extreme, zero_point, as_codes, seed
):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    weight = rng.integers(-largest, largest + 1, (depth, columns)).astype(np.int16)
    if extreme:
        x = np.where(rng.random(x.shape) < 0.9, 255, 0).astype(np.uint8)
        weight = np.where(rng.random(weight.shape) < 0.9, -largest, largest).astype(np.int16)
    bias = rng.integers(-(2**20), 2**20, columns).astype(np.int32)
    acc = (x.astype(np.int64) - zero_point) @ weight + bias
    codes = None
    if as_codes:
        multiplier = (2.0 ** rng.integers(-14, -2, columns) * rng.choice([1, -1, 0.77])).astype(np.float32)
        codes = MapCodes(multiplier, int(rng.integers(0, 256)))
        low, high, zero = codes.limits
        acc = np.rint(np.clip(acc.astype(np.float32) * multiplier, low, high)) + zero
    assert np.array_equal(product(name, x, weight, zero_point, bias, codes), acc)


@pytest.mark.parametrize("name", HERE)
def test_ties_round_half_to_even_in_every_column(name):
    x = np.arange(1, 250, dtype=np.uint8).reshape(-1, 1)
    codes = MapCodes(np.full(17, 0.5, np.float32), 3)
    found = product(name, x, np.ones((1, 17), np.int8), 0, None, codes)
    assert np.array_equal(found, np.repeat(np.rint(x * 0.5) + 3, 17, axis=1))


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("weight", [-4, 7, 64, -64, 127, -128])
def test_the_greatest_pairs_of_products_do_not_saturate(name, weight):
    x = np.full((6, 4096), 255, np.uint8)
    w = np.full((4096, 3), weight, np.int8)
    assert np.array_equal(product(name, x, w, 0, None, None), np.full((6, 3), 255 * 4096 * weight))


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(HERE),
    channels=st.integers(1, 20),
    outputs=st.integers(1, 40),
    taps=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    windows=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pool=st.sampled_from([(1, 1), (2, 2), (1, 2), (2, 1), (1, 4)]),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    images=st.integers(0, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_fused_pooling_is_the_maximum_of_the_codes(
    name, channels, outputs, taps, windows, pool, strides, images, seed
):
    rng = np.random.default_rng(seed)
    counts = [count * window for count, window in zip(windows, pool, strict=True)]
    size = [(count - 1) * s + t for count, s, t in zip(counts, strides, taps, strict=True)]
    source = MapLayout(channels, size[0] - 1, size[1] - 1, 1, 0, 1, 2, 9)
    weight = rng.integers(-3, 4, (outputs, channels, *taps)).astype(np.int8)
    codes = MapCodes((rng.random(outputs) * 0.05).astype(np.float32), 5)
    x = aligned_empty(images * source.image_bytes + SPARE_BYTES)
    x[...] = rng.integers(0, 256, x.size)
    isa = BY_NAME[name]
    results = []
    for window, target in ((pool, MapLayout(outputs, *windows)), ((1, 1), MapLayout(outputs, *counts))):
        kernel = ConvMaps(
            weight,
            None,
            strides=strides,
            begins=(1, 0),
            zero_point=9,
            codes=codes,
            pool=window,
            input=source,
            output=target,
            isa=isa,
        )
        out = np.zeros(images * target.codes, np.uint8)
        kernel(x, out, images, aligned_empty(isa.scratch_bytes // 4, np.int32))
        results.append(out)
    split = results[1].reshape(images, windows[0], pool[0], windows[1], pool[1], outputs)
    assert np.array_equal(results[0].reshape(images, *windows, outputs), split.max(axis=(2, 4)))


def test_the_best_is_chosen_and_the_variable_asks_for_another(monkeypatch):
    monkeypatch.delenv(isa_module.VARIABLE, raising=False)
    assert chosen().name == available()[0]
    for name in available():
        monkeypatch.setenv(isa_module.VARIABLE, name)
        assert chosen().name == name
    assert available()[-1] == "portable"


def test_what_there_is_not_is_refused_by_name(monkeypatch):
    monkeypatch.setenv(isa_module.VARIABLE, "sse9")
    with pytest.raises(OhmfoldError, match=r"'sse9'.*amx, vnni, avx2, portable"):
        chosen()
    missing = [name for name in NAMES if name not in available()]
    for name in missing:
        with pytest.raises(MissingDependencyError, match=f"'{name}' cannot be used here"):
            find(name)


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="names x86 features")
def test_a_target_without_the_instructions_refuses_them_and_does_not_abort():
    code = (
        "from ohmfold.errors import OhmfoldError\n"
        "from ohmfold.kernels.isa import available, find\n"
        "print(*available())\n"
        "for name in ('amx', 'vnni', 'avx2'):\n"
        "    try:\n        find(name)\n    except OhmfoldError as error:\n        print(error)\n"
    )
    environment = {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": "+sse2", "PATH": ""}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    lines = found.stdout.splitlines()
    assert lines[0] == "portable"
    assert len(lines) == 4
    assert "its target lacks amx-int8" in lines[1]


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="LLVM for x86")
def test_amx_kernels_compile_to_tile_instructions():
    def emit(builder, amx, arguments):
        operands = Operands(*arguments)
        amx.begin(builder, operands.acc)
        amx.tile(builder, operands, 32, 2)
        amx.end(builder, operands.acc)

    listing = compiled_for_amx(emit)
    # Four products for every step, on rows in place and on gathered ones.
    assert listing.count("tdpbusd") == 8
    assert listing.count("tilestored") == 4
    assert listing.count("ldtilecfg") == listing.count("tilerelease") == 1


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="LLVM for x86")
def test_the_crossbars_amx_kernel_compiles_to_tile_instructions():
    def emit(builder, amx, arguments):
        x, _, _, stride, steps, weight, panel_bytes, acc, _, _ = arguments
        amx.strided_tile(builder, (x, stride), (weight, panel_bytes), steps, acc)

    listing = compiled_for_amx(emit)
    assert listing.count("tdpbusd") == listing.count("tilestored") == listing.count("tilezero") == 4


def compiled_for_amx(emit):
    """The assembly of what `emit` writes, for a processor with AMX."""
    module = ir.Module()
    module.triple = binding.get_default_triple()
    pointer = I8.as_pointer()
    kind = ir.FunctionType(
        ir.VoidType(), [pointer, pointer, pointer, I64, I64, pointer, I64, pointer, pointer, I64]
    )
    function = ir.Function(module, kind, "tile")
    builder = ir.IRBuilder(function.append_basic_block())
    amx = BY_NAME["amx"]
    emit(builder, amx, function.args)
    builder.ret_void()
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple(module.triple).create_target_machine(
        cpu="sapphirerapids", features="+amx-tile,+amx-int8", opt=2
    )
    return machine.emit_assembly(binding.parse_assembly(str(module)))


def test_an_instruction_set_reads_no_table_entry_behind_its_rows():
    """Rows behind the last one would lie outside the input: here every byte behind it would crash or count."""
    for name in HERE:
        x = np.full((1, 40), 200, np.uint8)
        weight = np.full((40, 5), 100, np.int16)
        assert np.array_equal(product(name, x, weight, 0, None, None), np.full((1, 5), 40 * 200 * 100))


def test_signed_and_unsigned_codes_give_one_sum():
    rng = np.random.default_rng(0)
    signed = rng.integers(-128, 128, (9, 33)).astype(np.int8)
    weight = rng.integers(-3, 4, (33, 5)).astype(np.int8)
    from ohmfold.kernels.dense import Dense

    unsigned = (signed.astype(np.int16) + 128).astype(np.uint8)
    for name in HERE:
        settings_ = {"isa": BY_NAME[name]}
        codes = SimpleNamespace(multiplier=np.float32(0.1), zero_point=-3, dtype=np.dtype(np.int8))
        left = Dense(weight, input_zero_point=-7, codes=codes, **settings_)(signed)
        flipped = SimpleNamespace(multiplier=np.float32(0.1), zero_point=125, dtype=np.dtype(np.uint8))
        right = Dense(weight, input_zero_point=121, codes=flipped, **settings_)(unsigned)
        assert np.array_equal(left.astype(np.int16) + 128, right)
