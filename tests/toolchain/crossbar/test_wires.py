"""Tiles with resistive wires: against nodal analyses made otherwise, and against the laws of such networks."""

import hashlib

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import splu

from ohmfold.toolchain.crossbar.wires import effective_conductances, effective_tiles

TOP = 7
ON_OHM = 1e4
OPERATOR_SHA256 = "82d8a6f8555035648792475d41e4b14bebf141535d2fcfa1a8670612362c5d54"
# Two rounded solutions are compared; the nodal matrix's condition is up to 1e6 in these tests.
TOLERANCE = 1e-9


def effective(g, row_ohm, column_ohm):
    return effective_conductances(g, row_ohm, column_ohm, ON_OHM, TOP)


def drawn(shape, seed=0, zeros=0.3):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, TOP, shape) * (rng.random(shape) >= zeros)


def resistors(g, row_ohm, column_ohm):
    """The network as a list of (node, node, siemens): word-line nodes, bit-line nodes, drivers, the ground."""
    rows, columns = g.shape
    word = np.arange(rows * columns).reshape(g.shape)
    bit = word + rows * columns
    driver = 2 * rows * columns + np.arange(rows)
    ground = 2 * rows * columns + rows
    for r in range(rows):
        for c in range(columns):
            yield driver[r] if c == 0 else word[r, c - 1], word[r, c], 1 / row_ohm
            yield bit[r, c], ground if r == rows - 1 else bit[r + 1, c], 1 / column_ohm
            yield word[r, c], bit[r, c], g[r, c] / (TOP * ON_OHM)


def nodal(g, row_ohm, column_ohm, solve):
    """E and all nodes' voltages `(2 R C, R)` by Kirchhoff's current law at every node; `solve(matrix, right)`."""
    rows, columns = g.shape
    inner, every = 2 * rows * columns, 2 * rows * columns + rows + 1
    one, other, siemens = (np.array(part) for part in zip(*resistors(g, row_ohm, column_ohm), strict=True))
    entries = np.concatenate([siemens, siemens, -siemens, -siemens])
    places = np.concatenate([one, other, one, other]), np.concatenate([one, other, other, one])
    laplacian = scipy.sparse.coo_array((entries, places), (every, every)).tocsc()
    # Driver r at 1 V, the other drivers and the ground at 0 V.
    voltages = solve(laplacian[:inner, :inner], -laplacian[:inner, inner : inner + rows].toarray())
    last = voltages.reshape(2, rows, columns, rows)[1, -1]
    return (last / column_ohm).T * (TOP * ON_OHM), voltages


def dense(matrix, right):
    return np.linalg.solve(matrix.toarray(), right)


def sparse(matrix, right):
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return factors.solve(right)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))
ohms = st.sampled_from([0.01, 0.35, 1.0, 20.0, 1e3])
seeds = st.integers(0, 2**32 - 1)


@given(shapes, ohms, ohms, seeds)
def test_equals_a_dense_nodal_analysis(shape, row_ohm, column_ohm, seed):
    g = drawn(shape, seed)
    expected, _ = nodal(g, row_ohm, column_ohm, dense)
    found = effective(g, row_ohm, column_ohm)
    assert found.dtype == np.float64
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * 1e-3)


@pytest.mark.parametrize("shape", [(128, 128), (128, 40), (30, 128)])
def test_equals_a_sparse_nodal_analysis_of_a_whole_tile(shape):
    g = np.rint(drawn(shape))
    expected, _ = nodal(g, 1.0, 0.5, sparse)
    np.testing.assert_allclose(effective(g, 1.0, 0.5), expected, rtol=TOLERANCE, atol=0)


def test_one_cell_is_three_resistors_in_series():
    found = effective(np.array([[3.5]]), 11.0, 13.0)
    assert found[0, 0] == pytest.approx(TOP * ON_OHM / (11.0 + 13.0 + TOP * ON_OHM / 3.5), rel=1e-14)


@given(st.tuples(st.integers(0, 9), st.integers(0, 9)), seeds)
def test_wires_without_resistance_change_nothing(shape, seed):
    g = drawn(shape, seed)
    found = effective(g, 0.0, 0.0)
    assert np.array_equal(found, g)
    assert found is not g


@given(shapes, ohms, seeds)
def test_lines_of_one_direction_may_have_no_resistance(shape, ohm, seed):
    g = drawn(shape, seed)
    for row, column in ((ohm, 0.0), (0.0, ohm)):
        # The limit of a resistance that is too small to show.
        limit, _ = nodal(g, row or 1e-7, column or 1e-7, dense)
        np.testing.assert_allclose(effective(g, row, column), limit, rtol=1e-5, atol=1e-6)
    columns = effective(g, 0.0, ohm)
    # Each bit line is then by itself.
    for c in range(shape[1]):
        np.testing.assert_allclose(columns[:, c : c + 1], effective(g[:, c : c + 1], 0.0, ohm), rtol=1e-12)


@given(shapes, seeds)
def test_small_resistances_act_in_proportion(shape, seed):
    g = drawn(shape, seed)
    changes = [(effective(g, ohm, 2 * ohm) - g) / ohm for ohm in (1e-4, 2e-4, 4e-4)]
    # First order in resistance; the second is 1e-6 of it.
    np.testing.assert_allclose(changes[1], changes[0], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(changes[2], changes[0], rtol=1e-4, atol=1e-8)


def test_to_first_order_a_cell_loses_to_the_cells_that_it_shares_segments_with():
    # Detours are of the second order.
    g = np.array([[1.0, 2.0, 4.0], [3.0, 0.0, 5.0]])
    row, column = 1e-4, 3e-4
    found = (effective(g, row, column) - g) * (TOP * ON_OHM)
    segments = np.minimum.outer(np.arange(1, 4), np.arange(1, 4))  # shared by columns c and c' on a word line
    shared = np.minimum.outer(np.arange(2, 0, -1), np.arange(2, 0, -1))  # by rows r and r' on a bit line
    along_words = np.einsum("rc,rd,cd->rc", g, g, segments)
    along_bits = np.einsum("rc,sc,rs->rc", g, g, shared)
    np.testing.assert_allclose(found, -row * along_words - column * along_bits, rtol=1e-5, atol=1e-9)


@given(shapes, ohms, ohms, seeds)
def test_drivers_superpose(shape, row_ohm, column_ohm, seed):
    g = drawn(shape, seed)
    one, two = np.random.default_rng(seed).uniform(0, 1, (2, shape[0]))
    found = effective(g, row_ohm, column_ohm)
    _, voltages = nodal(g, row_ohm, column_ohm, dense)
    for drive in (one, two, one + two):
        last = (voltages @ drive).reshape(2, *shape)[1, -1]
        np.testing.assert_allclose(
            drive @ found, last / column_ohm * TOP * ON_OHM, rtol=TOLERANCE, atol=1e-12
        )
    np.testing.assert_allclose((one + two) @ found, one @ found + two @ found, rtol=1e-13)


@given(shapes, ohms, ohms, seeds)
def test_currents_obey_kirchhoff_from_the_grounds_up(shape, row_ohm, column_ohm, seed):
    # From the currents that E gives at the grounds, up the bit lines, row by row: the cells of a row give what
    # the line below carries more than the line above, and above the first row nothing is left.
    rows, columns = shape
    g = drawn(shape, seed)
    drive = np.random.default_rng(seed).uniform(0, 1, rows)
    unit = TOP * ON_OHM
    below = drive @ effective(g, row_ohm, column_ohm) / unit  # amperes
    scale = np.abs(below).max() + 1e-30
    voltage = np.zeros(columns)
    line = 2 * np.eye(columns) - np.eye(columns, k=1) - np.eye(columns, k=-1)
    line[-1, -1] = 1
    amplification = 1.0
    for r in reversed(range(rows)):
        voltage = voltage + column_ohm * below
        siemens = np.diag(g[r] / unit)
        right = siemens @ voltage
        right[0] += drive[r] / row_ohm
        word_line = np.linalg.solve(line / row_ohm + siemens, right)
        below = below - siemens @ (word_line - voltage)
        amplification *= 2 + column_ohm * g[r].max() / unit * 2
    assert np.abs(below).max() <= 1e-12 * amplification * scale


@given(shapes, ohms, ohms, seeds)
def test_wires_only_take_away(shape, row_ohm, column_ohm, seed):
    g = drawn(shape, seed)
    found = effective(g, row_ohm, column_ohm)
    assert (found >= 0).all()
    for axis in (0, 1):
        total = g.sum(axis)
        assert (found.sum(axis) <= total * (1 + 1e-14)).all()
        assert (found.sum(axis)[total > 0] > 0).all()
    # Without neighbours on other lines there are no detours: each element is below its cell.
    for line in (g[:1], g[:, :1]):
        alone = effective(np.ascontiguousarray(line), row_ohm, column_ohm)
        assert (alone <= line * (1 + 1e-14)).all()


def test_current_takes_detours_around_a_cell_that_conducts_nothing():
    g = np.full((4, 4), 7.0)
    g[0, 3] = 0.0
    found = effective(g, 20.0, 20.0)
    assert 0 < found[0, 3] < 0.1
    expected, _ = nodal(g, 20.0, 20.0, dense)
    assert found[0, 3] == pytest.approx(expected[0, 3], rel=TOLERANCE)


@given(shapes, ohms, ohms, st.floats(1.001, 10), seeds)
def test_the_whole_conductance_falls_as_a_resistance_rises(shape, row_ohm, column_ohm, factor, seed):
    # Rayleigh: with all drivers joined, a tile is one conductance between two terminals.
    g = drawn(shape, seed)
    before = effective(g, row_ohm, column_ohm).sum()
    for row, column in ((row_ohm * factor, column_ohm), (row_ohm, column_ohm * factor)):
        assert effective(g, row, column).sum() <= before * (1 + 1e-14)
    more = g + drawn(shape, seed + 1)
    assert effective(more, row_ohm, column_ohm).sum() >= before * (1 - 1e-14)
    if g.any():
        assert effective(g, row_ohm * factor, column_ohm).sum() < before


@given(shapes, ohms, ohms, seeds)
def test_a_tile_seen_from_its_other_end_is_the_same(shape, row_ohm, column_ohm, seed):
    # Reciprocity: drivers and grounds change places, word lines and bit lines their names and directions.
    g = drawn(shape, seed)
    mirrored = effective(np.ascontiguousarray(g[::-1, ::-1].T), column_ohm, row_ohm)
    np.testing.assert_allclose(mirrored[::-1, ::-1].T, effective(g, row_ohm, column_ohm), rtol=1e-12)


def test_a_square_tile_that_is_its_own_mirror_image_stays_so():
    g = drawn((6, 6), zeros=0)
    g = g + g[::-1, ::-1].T
    found = effective(g, 3.0, 3.0)
    np.testing.assert_allclose(found, found[::-1, ::-1].T, rtol=1e-13)


@given(shapes, seeds)
def test_only_ratios_of_resistances_count(shape, seed):
    g = drawn(shape, seed)
    one = effective_conductances(g, 1.0, 2.0, 1e4, 7)
    assert np.array_equal(effective_conductances(g, 4.0, 8.0, 4e4, 7), one)
    assert np.array_equal(effective_conductances(g, 1.0, 2.0, 7e4, 1), one)


def test_cells_far_from_the_driver_and_the_ground_lose_most():
    found = effective(np.full((32, 32), 7.0), 1.0, 1.0)
    assert (np.diff(found, axis=1) < 0).all()
    assert (np.diff(found, axis=0) > 0).all()


def test_any_layout_of_memory_is_read_as_it_is():
    g = drawn((9, 14))
    expected = effective(g, 1.0, 2.0)
    assert np.array_equal(effective(np.asfortranarray(g), 1.0, 2.0), expected)
    wide = np.repeat(g, 2, axis=1)
    assert np.array_equal(effective(wide[:, ::2], 1.0, 2.0), expected)


def test_resistances_beyond_any_wire_keep_their_digits():
    # Much resistance: the driver's nearest path is all that counts, and subtractions would leave nothing.
    g = np.array([[3.0, 2.0], [5.0, 1.0]])
    unit = TOP * ON_OHM
    found = effective(g, 1e7 * unit, 1e7 * unit)
    expected, _ = nodal(g, 1e7 * unit, 1e7 * unit, dense)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found > 0).all()


def test_a_tile_has_the_bits_that_results_were_made_with():
    # Where this changes, the format number in the names of kept tiles has to be raised.
    g = (np.arange(48 * 40) * 37 % 101 % 8).astype(np.float64).reshape(48, 40)
    found = np.stack([effective(g, 1.0, 3.0), effective(np.ascontiguousarray(g.T), 3.0, 1.0).T])
    assert hashlib.sha256(found.astype("<f8").tobytes()).hexdigest() == OPERATOR_SHA256


@pytest.mark.parametrize(
    ("g", "arguments", "error"),
    [
        (np.zeros((2, 2), np.float32), (1.0, 1.0, 1e4, 7), TypeError),
        (np.zeros(4), (1.0, 1.0, 1e4, 7), ValueError),
        (np.full((2, 2), -1.0), (1.0, 1.0, 1e4, 7), ValueError),
        (np.full((2, 2), np.nan), (1.0, 1.0, 1e4, 7), ValueError),
        (np.ones((2, 2)), (-1.0, 1.0, 1e4, 7), ValueError),
        (np.ones((2, 2)), (1.0, np.inf, 1e4, 7), ValueError),
        (np.ones((2, 2)), (1.0, np.nan, 1e4, 7), ValueError),
        (np.ones((2, 2)), (1.0, 1.0, 0.0, 7), ValueError),
        (np.ones((2, 2)), (1.0, 1.0, 1e4, 0), ValueError),
    ],
)
def test_a_network_that_cannot_be_is_refused(g, arguments, error):
    with pytest.raises(error):
        effective_conductances(g, *arguments)
    with pytest.raises(error):
        effective_tiles([g], *arguments, keep=False)
