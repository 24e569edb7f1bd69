"""What a study of chips asks of a profile: its hash, whether chips differ, whether images calibrate its converters."""

import hashlib

import numpy as np
import pytest
from hardware_profiles import hardwares
from hypothesis import given
from tiny_artifacts import tiny_artifact, tiny_data

from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.hardware import Hardware, load_hardware, preset_names

IDEAL = load_hardware("ideal").with_changes({"cell.fraction_bits": 4})
ARTIFACT = tiny_artifact()
IMAGES = tiny_data(ARTIFACT).images

RANDOM = [
    {"cell.programming.kind": "relative", "cell.programming.sigma": 0.5},
    {"cell.stuck.on_rate": 0.2},
    {"cell.stuck.off_rate": 0.2},
    {"read.noise": 1.0},
    {"read.noise_relative": 1.0},
]
FIXED = [
    {},
    {"cell.on_off_ratio": 5.0},
    {"cell.drift.time_s": 100.0, "cell.drift.exponent": 0.1},
    {"wires.row_ohm": 5.0, "wires.on_ohm": 1e4},
    {"adc.bits": 3},
]


@given(hardwares(), hardwares())
def test_profiles_have_the_same_hash_if_they_are_the_same(one, other):
    assert one.sha256 == hashlib.sha256(one.to_toml().encode()).hexdigest()
    assert one.sha256 == Hardware.from_toml(one.to_toml()).sha256
    assert (one.sha256 == other.sha256) == (one == other)


@pytest.mark.parametrize("changes", RANDOM)
def test_chips_of_a_random_profile_differ(changes):
    profile = IDEAL.with_changes(changes)
    assert profile.varies
    one, other = (Emulator(ARTIFACT, hardware=profile, seed=seed)(IMAGES) for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("changes", FIXED)
def test_chips_of_a_profile_without_anything_random_are_the_same(changes):
    profile = IDEAL.with_changes(changes)
    assert not profile.varies
    one, other = (Emulator(ARTIFACT, hardware=profile, seed=seed)(IMAGES) for seed in (0, 1))
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", preset_names())
def test_a_profile_is_calibrated_where_its_converters_are_finite_and_say_so(name):
    profile = load_hardware(name)
    assert profile.calibrated == name.startswith("reram")
    assert not profile.with_changes({"adc.bits": None}).calibrated
    assert IDEAL.with_changes({"adc.range": "calibrated", "adc.bits": 6}).calibrated
