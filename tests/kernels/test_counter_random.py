"""Counter random numbers against published vectors, another implementation, and the distributions they stand for."""

import hashlib
import math
import os
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest
from scipy import special, stats

from ohmfold.kernels.cache import kernel
from ohmfold.kernels.counter_random import (
    NORMAL_BITS,
    NORMAL_SCALE,
    NORMAL_TABLE,
    _tail_edges,
    normal,
    normal_arrays,
    philox,
    philox_arrays,
    stream_key,
)

# Random123, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
TABLE_SHA256 = "ba9ab3bfb6da6fa733bf3792bc9401c62d130018e1915a763d5f77460f3c204d"
KEYS = (
    (883902401, 329858252),
    (1329395956, 770122954),
    (2553874025, 2386989511),
)  # of (0), (1, 2, 3) and (-1, 2^63 - 1)
SAMPLES = 100_000
# Statistics of a fixed key: a draw that passes keeps passing. Bounds hold for 999 keys in 1,000.
CONFIDENCE = 0.999
DEVIATIONS = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


def words(text):
    return [int(word, 16) for word in text.split()]


@kernel
def fill(first, k0, k1, blocks, variates):
    for i in range(blocks.shape[1]):
        a, b, c, d = philox(first + i, 7, 0, np.uint32(1), k0, k1)
        blocks[0, i], blocks[1, i], blocks[2, i], blocks[3, i] = a, b, c, d
        variates[0, i], variates[1, i] = normal(a), normal(b)
        variates[2, i], variates[3, i] = normal(c), normal(d)


def drawn(count, key, first=0):
    blocks, variates = np.empty((4, count), np.uint32), np.empty((4, count), np.int32)
    fill(first, *key, blocks, variates)
    return blocks, variates


def textbook(counter, key, bits):
    """Philox of four words of 32 or 64 bits, in whole numbers, from the paper's description."""
    multipliers, weyl = {
        32: ((0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)),
        64: ((0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)),
    }[bits]
    top = 2**bits
    for _ in range(10):
        high0, low0 = divmod(multipliers[0] * counter[0], top)
        high1, low1 = divmod(multipliers[1] * counter[2], top)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(k + w) % top for k, w in zip(key, weyl, strict=True)]
    return counter


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, answer):
    expected = words(answer)
    assert [int(word) for word in philox(*words(counter), *words(key))] == expected
    assert [int(word) for word in philox_arrays(*words(counter), words(key))] == expected
    assert textbook(words(counter), words(key), 32) == expected


def test_the_textbook_philox_is_numpys_where_words_have_64_bits():
    key, counter = [3, 2**63 + 5], [2**64 - 2, 9, 0, 2**60]
    start = sum(word << (64 * place) for place, word in enumerate(counter))
    generator = np.random.Philox(counter=start, key=key[0] + (key[1] << 64))
    # NumPy counts up before each block.
    following = [2**64 - 1, 9, 0, 2**60]
    assert generator.random_raw(4).tolist() == textbook(following, key, 64)


def test_kernels_and_arrays_give_the_bits_of_the_textbook():
    rng = np.random.default_rng(0)
    counters = rng.integers(0, 2**32, (4, 50), dtype=np.uint32)
    key = stream_key(1, 2)
    together = np.stack(philox_arrays(*counters, key))
    for place, counter in enumerate(counters.T.tolist()):
        expected = textbook(counter, list(key), 32)
        assert together[:, place].tolist() == expected
        assert [int(word) for word in philox(*counter, *key)] == expected


def test_a_block_depends_on_its_counter_alone():
    key = stream_key(5)
    blocks, variates = drawn(1000, key)
    assert np.array_equal(blocks, np.stack(philox_arrays(np.arange(1000), 7, 0, 1, key)))
    assert np.array_equal(variates, normal_arrays(blocks))
    # Counters wrap around at 2^32, and a split in any place changes nothing.
    parts = [drawn(count, key, first)[0] for first, count in ((0, 1), (1, 333), (334, 666))]
    assert np.array_equal(np.hstack(parts), blocks)
    assert np.array_equal(drawn(10, key, 2**32 - 5)[0][:, 5:], blocks[:, :5])


def test_normal_gives_the_same_bits_for_kernels_and_arrays():
    tails = (_tail_edges()[:, None] + np.array([-1, 0, 1])).ravel()
    tails = tails[(tails >= 0) & (tails < 2**31)].astype(np.uint32)
    every = np.concatenate([tails, tails | np.uint32(2**31)])
    table = {word: normal(word) for word in every[:: len(every) // 5000].tolist()}
    assert [int(x) for x in table.values()] == normal_arrays(np.array(list(table), np.uint32)).tolist()


def test_a_variate_is_that_of_its_bin_and_changes_sign_with_the_highest_bit():
    edges = _tail_edges()
    assert edges[0] == 0
    assert edges[-1] == 2**31
    assert NORMAL_TABLE.size == edges.size - 1
    first, last = edges[:-1].astype(np.uint32), (edges[1:] - 1).astype(np.uint32)
    for place in (first, last):
        assert np.array_equal(normal_arrays(place), NORMAL_TABLE)
        assert np.array_equal(normal_arrays(place | np.uint32(2**31)), -NORMAL_TABLE)


def test_the_table_is_the_one_that_results_were_made_with():
    assert NORMAL_SCALE == 2**NORMAL_BITS
    assert NORMAL_TABLE.dtype == np.int32
    assert np.abs(NORMAL_TABLE).max() < 2**15
    assert hashlib.sha256(NORMAL_TABLE.astype("<i4").tobytes()).hexdigest() == TABLE_SHA256
    with pytest.raises(ValueError, match="read-only"):
        NORMAL_TABLE[0] = 0


def test_table_entries_lie_between_the_quantiles_of_their_bins():
    # SciPy's quantiles, not those that the table was made with; half a unit of rounding.
    quantiles = -special.ndtri(_tail_edges() / 2.0**32) * NORMAL_SCALE
    assert (quantiles[:-1] + 0.5 >= NORMAL_TABLE).all()
    assert (quantiles[1:] - 0.5 <= NORMAL_TABLE).all()


def test_the_table_has_the_moments_and_tails_of_the_normal():
    mass = np.diff(_tail_edges()) / 2.0**31
    x = NORMAL_TABLE / NORMAL_SCALE
    variance = np.sum(mass * x**2)
    assert variance == pytest.approx(1, abs=1e-5)
    assert np.sum(mass * x**4) / variance**2 == pytest.approx(3, rel=1e-4)
    for limit, within in ((1, 0.003), (2, 0.003), (3, 0.003), (4, 0.005), (5, 0.005), (6, 0.2)):
        assert mass[x > limit].sum() == pytest.approx(2 * NormalDist().cdf(-limit), rel=within)


@pytest.mark.parametrize("word", range(4))
def test_drawn_normals_have_the_moments_of_the_normal(word):
    x = drawn(SAMPLES, stream_key(2024, word))[1][word] / NORMAL_SCALE
    assert abs(x.mean()) < DEVIATIONS / math.sqrt(SAMPLES)
    assert abs(x.var() - 1) < DEVIATIONS * math.sqrt(2 / SAMPLES)
    assert abs(np.mean(x**3)) < DEVIATIONS * math.sqrt(15 / SAMPLES)
    assert abs(np.mean(x**4) - 3) < DEVIATIONS * math.sqrt(96 / SAMPLES)
    assert stats.kstest(x, "norm").pvalue > 1 - CONFIDENCE


def test_beyond_four_sigma_are_as_many_as_there_should_be():
    blocks = 2_500_000
    _, variates = drawn(blocks, stream_key(4))
    count = int((np.abs(variates) > 4 * NORMAL_SCALE).sum())
    expected = 4 * blocks * 2 * NormalDist().cdf(-4)
    assert expected > 600
    assert abs(count - expected) < DEVIATIONS * math.sqrt(expected)
    assert count == pytest.approx(expected, rel=0.2)


def test_neighbours_do_not_correlate():
    limit = DEVIATIONS / math.sqrt(SAMPLES)
    _, x = drawn(SAMPLES, stream_key(8))
    correlations = np.corrcoef(x)
    assert np.abs(correlations[~np.eye(4, dtype=bool)]).max() < limit
    for word in x:
        assert abs(np.corrcoef(word[1:], word[:-1])[0, 1]) < limit
    # Neighbouring values of the other counter words, and of the key.
    for place in (1, 2, 3):
        counter = [np.arange(SAMPLES), 0, 0, 0]
        one = normal_arrays(philox_arrays(*counter, stream_key(8))[0])
        counter[place] = 1
        other = normal_arrays(philox_arrays(*counter, stream_key(8))[0])
        assert abs(np.corrcoef(one, other)[0, 1]) < limit
    k0, k1 = stream_key(8)
    beside = normal_arrays(philox_arrays(np.arange(SAMPLES), 0, 0, 0, (k0 ^ 1, k1))[0])
    assert abs(np.corrcoef(one, beside)[0, 1]) < limit


def test_bytes_are_uniform():
    blocks, _ = drawn(SAMPLES, stream_key(16))
    for word in blocks:
        for byte in word.astype("<u4").view(np.uint8).reshape(-1, 4).T:
            assert stats.chisquare(np.bincount(byte, minlength=256)).pvalue > (1 - CONFIDENCE) / 16


def test_a_bit_of_the_counter_or_key_changes_half_of_the_result():
    key = stream_key(32)
    before = np.stack(philox_arrays(np.arange(2000), 0, 0, 0, key))
    for bit in (0, 1, 15, 31):
        changed = [
            np.stack(philox_arrays(np.arange(2000) ^ (1 << bit), 0, 0, 0, key)),
            np.stack(philox_arrays(np.arange(2000), 0, 1 << bit, 0, key)),
            np.stack(philox_arrays(np.arange(2000), 0, 0, 0, (key[0], key[1] ^ (1 << bit)))),
        ]
        for after in changed:
            share = np.bitwise_count(before ^ after).sum() / (32 * before.size)
            # 256,000 bits: a standard deviation of 0.001.
            assert share == pytest.approx(0.5, abs=DEVIATIONS * 0.001)


def test_keys_are_those_that_results_were_made_with():
    assert stream_key(0) == KEYS[0]
    assert stream_key(1, 2, 3) == KEYS[1]
    assert stream_key(-1, 2**63 - 1) == KEYS[2]
    assert stream_key(np.int64(1), np.uint8(2), 3) == KEYS[1]


def test_every_seed_and_sequence_of_parts_has_a_key_of_its_own():
    sequences = [
        (seed, *parts) for seed in range(-5, 5) for parts in ((), (0,), (0, 0), (1,), (0, 1), (1, 0))
    ]
    sequences += [(0, 2**32), (0, 2**62), (2**40,)]
    assert len({stream_key(*sequence) for sequence in sequences}) == len(sequences)
    assert all(0 <= word < 2**32 for sequence in sequences for word in stream_key(*sequence))


def test_the_hash_seed_of_the_process_has_no_part_in_a_key():
    code = "from ohmfold.kernels.counter_random import stream_key; print(stream_key(1, 2, 3))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert found.stdout.strip() == str(KEYS[1])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: stream_key(2**63), ValueError),
        (lambda: stream_key(0, -(2**63) - 1), ValueError),
        (lambda: stream_key(0.5), TypeError),
        (lambda: stream_key(0, "a"), TypeError),
        (lambda: philox_arrays(-1, 0, 0, 0, (0, 0)), ValueError),
        (lambda: philox_arrays(0, 2**32, 0, 0, (0, 0)), ValueError),
        (lambda: philox_arrays(0, 0, 0.5, 0, (0, 0)), ValueError),
        (lambda: philox_arrays(0, 0, 0, 0, (0, 2**32)), ValueError),
        (lambda: normal_arrays(np.zeros(3, np.int64)), TypeError),
    ],
)
def test_operands_that_are_no_words_are_refused(call, error):
    with pytest.raises(error):
        call()
