"""Packing, padding, concatenation and tables of channels-last maps against NumPy, in guarded memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_buffers import GUARD, KINDS, Buffer, Flat, codes, layouts, sizes

from ohmfold.kernels.layout import MapLayout
from ohmfold.kernels.maps import CopyMaps, FillBorder, PackMaps, PairTableMaps, TableMaps, UnpackMaps

few = settings(max_examples=120, deadline=None)
seeds = st.integers(0, 2**32 - 1)
numbers_of_images = st.integers(0, 3)
colour_sizes = st.tuples(st.just(3), st.integers(1, 20), st.integers(1, 150))


@few
@given(st.data(), st.one_of(sizes(), colour_sizes), st.sampled_from([0, 128]), numbers_of_images, seeds)
def test_packing_is_a_transposition_and_unpacking_its_inverse(data, size, flip, images, seed):
    rng = np.random.default_rng(seed)
    layout = data.draw(layouts(size))
    source = codes(rng, (images, *size))
    wanted = source.transpose(0, 2, 3, 1) ^ np.uint8(flip)
    packed = Buffer(rng, layout, images)
    PackMaps(layout, flip)(data.draw(st.sampled_from([source, source.reshape(-1)])), packed.array, images)
    assert packed.holds(wanted)
    unpacked = Flat(rng, source.size, np.uint8)
    UnpackMaps(layout, flip)(packed.array, unpacked.array, images)
    assert unpacked.holds(source)
    assert packed.holds(wanted)


def test_images_that_cannot_be_written_are_packed():
    source = np.arange(48, dtype=np.uint8).reshape(2, 2, 3, 4)
    source.flags.writeable = False
    out = np.zeros(48, np.uint8)
    PackMaps(MapLayout(2, 3, 4), 0)(source, out, 2)
    assert np.array_equal(out.reshape(2, 3, 4, 2), source.transpose(0, 2, 3, 1))


@few
@given(st.data(), sizes(), numbers_of_images, seeds)
def test_the_border_is_filled_and_nothing_else(data, size, images, seed):
    rng = np.random.default_rng(seed)
    layout = data.draw(layouts(size))
    buffer = Buffer(rng, layout, images)
    FillBorder(layout)(buffer.array, images)
    wanted = buffer.before.copy()
    wanted[GUARD : GUARD + images * layout.image_bytes] = layout.fill
    buffer.view(wanted)[...] = buffer.view(buffer.before)
    assert np.array_equal(buffer.memory, wanted)


@few
@given(st.data(), sizes(), st.integers(0, 9), st.integers(0, 9), numbers_of_images, seeds)
def test_a_map_is_copied_into_some_channels_of_another(data, size, first, after, images, seed):
    rng = np.random.default_rng(seed)
    channels, *plane = size
    source, target = data.draw(layouts(size)), data.draw(layouts((first + channels + after, *plane)))
    x, out = Buffer(rng, source, images), Buffer(rng, target, images)
    wanted = out.view().copy()
    wanted[..., first : first + channels] = x.view()
    CopyMaps(source, target, first)(x.array, out.array, images)
    assert out.holds(wanted)
    assert x.untouched()


@few
@given(st.data(), sizes(), st.sampled_from(KINDS), numbers_of_images, seeds)
def test_a_table_equals_indexing(data, size, kind, images, seed):
    rng = np.random.default_rng(seed)
    source, target = data.draw(layouts(size)), data.draw(layouts(size))
    table = codes(rng, 256)
    x, out = Buffer(rng, source, images, kind), Buffer(rng, target, images)
    TableMaps(table, source, target)(x.array, out.array, images)
    assert out.holds(table[x.view()])
    assert x.untouched()
    wanted = table[x.view()]
    TableMaps(table, source, source)(x.array, x.array, images)
    assert x.holds(wanted)


def test_a_table_is_looked_up_for_every_code():
    x = np.arange(256, dtype=np.uint8)
    table = np.random.default_rng(0).permutation(x)
    for size in (256, 4):  # in long runs and in short ones
        layout, out = MapLayout(size, 256 // size, 1, left=1), np.zeros(256 + 256 // size * size, np.uint8)
        padded = np.zeros_like(out)
        PackMaps(layout, 0)(x.reshape(-1, size).T.copy(), padded, 1)
        TableMaps(table, layout, layout)(padded, out, 1)
        assert np.array_equal(out.reshape(-1, 2, size)[:, 1].reshape(-1), table)


@few
@given(st.data(), sizes(), st.sampled_from(KINDS), numbers_of_images, seeds)
def test_a_table_of_pairs_equals_indexing(data, size, kind, images, seed):
    rng = np.random.default_rng(seed)
    first, second, target = (data.draw(layouts(size)) for _ in range(3))
    table = codes(rng, (256, 256))
    a, b, out = Buffer(rng, first, images, kind), Buffer(rng, second, images), Buffer(rng, target, images)
    PairTableMaps(table, (first, second), target)(a.array, b.array, out.array, images)
    wanted = table[a.view(), b.view()]
    assert out.holds(wanted)
    assert a.untouched()
    PairTableMaps(table, (first, second), second)(a.array, b.array, b.array, images)
    assert b.holds(wanted)


def test_settings_that_do_not_fit_are_refused():
    a, b, table = MapLayout(3, 4, 5), MapLayout(3, 4, 6), np.zeros(256, np.uint8)
    for make, match in [
        (lambda: PackMaps(a, 1), "0 or 128"),
        (lambda: UnpackMaps(a, 127), "0 or 128"),
        (lambda: PackMaps(MapLayout(0), 0), "at least 1"),
        (lambda: FillBorder(MapLayout(1, fill=256)), "0..255"),
        (lambda: FillBorder(MapLayout(1, left=-1)), "not negative"),
        (lambda: CopyMaps(a, b, 0), "same channels, height and width"),
        (lambda: CopyMaps(a, a, 1), "do not fit"),
        (lambda: CopyMaps(a, MapLayout(8, 4, 5), 6), "do not fit"),
        (lambda: CopyMaps(a, MapLayout(8, 4, 5), -1), "do not fit"),
        (lambda: CopyMaps(a, MapLayout(8, 5, 4), 0), "same channels, height and width"),
        (lambda: TableMaps(table, a, b), "same channels, height and width"),
        (lambda: TableMaps(table[1:], a, a), "256"),
        (lambda: TableMaps(table.astype(np.int8), a, a), "uint8"),
        (lambda: PairTableMaps(table, (a, a), a), "256, 256"),
        (lambda: PairTableMaps(np.zeros((256, 256), np.uint8), (a, b), a), "same channels"),
    ]:
        with pytest.raises(ValueError, match=match):
            make()


def test_arrays_that_a_kernel_could_not_go_through_are_refused():
    layout = MapLayout(2, 3, 4, 1, 1, 1, 1)
    source, out = np.zeros((2, 2, 3, 4), np.uint8), np.zeros(2 * layout.image_bytes, np.uint8)
    pack, unpack = PackMaps(layout, 0), UnpackMaps(layout, 0)
    pack(source, out, 2)
    for x, y, images in [
        (source, out, 3),
        (source, out[1:], 2),
        (source, out, -1),
        (source.transpose(0, 1, 3, 2), out, 1),
        (source, np.zeros(2 * out.size, np.uint8)[::2], 1),
        (source, out.reshape(2, -1), 1),
    ]:
        with pytest.raises(ValueError, match=r"images of|contiguous"):
            pack(x, y, images)
        with pytest.raises(ValueError, match=r"images of|contiguous"):
            unpack(y, x, images)
    for x, y in [(source.view(np.int8), out), (source, out.view(np.int8))]:
        with pytest.raises(TypeError, match="int8"):
            pack(x, y, 1)
