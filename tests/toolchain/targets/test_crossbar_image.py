"""The programming image: cells as the mapping lays them, the emulator's bits once loaded, and no trust in files."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from crossbar_nets import NETS
from hypothesis import given, settings
from hypothesis import strategies as st
from program_nets import images_for
from target_nets import residual_artifact, some_images
from tiny_artifacts import tiny_artifact

import ohmfold
from ohmfold.errors import DataError, HardwareError, TargetError
from ohmfold.toolchain.crossbar.mapping import map_weights
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.targets import Material, find_target, write_folder
from ohmfold.toolchain.targets.crossbar_image import CrossbarImage, image_of
from ohmfold.toolchain.targets.crossbar_layout import levels_of, levels_shape, weights_of
from ohmfold.toolchain.targets.crossbar_manifest import ArrayRow, DigitalRow, LayerImage, LimitsRow, Manifest
from ohmfold.toolchain.targets.crossbar_reader import emulator_of, load_image

TARGET = find_target("crossbar")
PROFILES = {
    "ideal": ("ideal", {}),
    "isaac": ("isaac", {}),
    "small tiles": ("ideal", {"array.rows": 9, "array.columns": 12, "array.cell_bits": 1, "adc.bits": 4}),
    "small offset tiles": ("isaac", {"array.rows": 7, "array.columns": 11}),
    "programming errors": (
        "reram-128",
        {
            "cell.programming.kind": "relative",
            "cell.programming.sigma": 0.2,
            "adc.range": "full",
            "adc.bits": 5,
        },
    ),
    "noise": ("isaac", {"read.noise": 1.0, "cell.stuck.off_rate": 0.05}),
    "calibrated": ("ideal", {"adc.range": "calibrated", "adc.bits": 4}),
}


def profile(name):
    preset, changes = PROFILES[name]
    return load_hardware(preset).with_changes(changes)


class Given:
    """A program with a name, which is what an image needs of an artifact."""

    sha256 = "5" * 64

    def __init__(self, program):
        self.program = program


def read_back(image, tmp_path):
    write_folder(tmp_path / "image", image.files())
    return load_image(tmp_path / "image")


def assert_same_bits(artifact, images, hardware, tmp_path, seed=3):
    direct = Emulator(artifact.program, hardware=hardware, seed=seed, calibration=images)
    image = read_back(image_of(artifact, hardware, seed, Material(calibration=images)), tmp_path)
    loaded = emulator_of(image, artifact)
    for first in (0, 1000):
        expected = direct(images, first_sample=first)
        assert np.array_equal(loaded(images, first_sample=first), expected)
    return expected


@pytest.mark.parametrize("name", PROFILES)
def test_a_loaded_image_has_the_bits_of_its_chip(name, tmp_path) -> None:
    images, artifact = some_images(6), residual_artifact()
    found = assert_same_bits(artifact, images, profile(name), tmp_path)
    if name in ("programming errors", "noise"):
        assert not np.array_equal(found, Emulator(artifact)(images)), (
            "the chip must differ from exact integers"
        )


def test_so_it_has_with_wires_that_resist(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hardware = load_hardware("reram-irdrop").with_changes({"array.rows": 16, "array.columns": 16})
    assert hardware.wires.resistive
    assert_same_bits(residual_artifact(), some_images(4), hardware, tmp_path)


@pytest.mark.parametrize("name", ["small tiles", "small offset tiles", "noise"])
@pytest.mark.parametrize("net", NETS)
def test_so_it_has_for_groups_signed_codes_dilations_and_one_axis(net, name, tmp_path) -> None:
    program, _ = NETS[net](seed=2)
    assert_same_bits(Given(program), images_for(program, 5), profile(name), tmp_path)


def test_weights_biases_multipliers_and_zero_points_are_the_images_own(tmp_path) -> None:
    """Whatever is changed in the image changes what the emulator computes: nothing is taken from the artifact."""
    artifact, images = tiny_artifact(), np.random.default_rng(0).integers(0, 256, (4, 1, 4, 4), np.uint8)
    hardware = profile("ideal")
    image = image_of(artifact, hardware)
    exact = Emulator(artifact)(images)
    row = image.manifest.layers[0]
    mapping = map_weights(row.rows, row.columns, row.groups, row.weight_bits, hardware)
    weight = weights_of(image.arrays[row.levels], row.weight_bits, mapping, hardware)
    weight[0, 5, 2] = 3 if weight[0, 5, 2] != 3 else -3
    changes = {
        row.levels: levels_of(weight, row.weight_bits, mapping, hardware),
        row.offset: image.arrays[row.offset] + np.int32(7),
        image.manifest.digital[0].multiplier: image.arrays[image.manifest.digital[0].multiplier]
        * np.float32(2),
    }
    assert set(changes) == set(image.arrays)
    for index, (name, array) in enumerate(changes.items()):
        (tmp_path / str(index)).mkdir()
        other = read_back(CrossbarImage(image.manifest, {**image.arrays, name: array}), tmp_path / str(index))
        found = emulator_of(other, artifact)(images)
        assert not np.array_equal(found, exact), name
    assert np.array_equal(found, exact * np.float32(2))


@st.composite
def mappings(draw):
    """Draw a profile whose tiles may be much smaller than the weights, and a width that they hold."""
    array = {
        "array.rows": draw(st.integers(1, 20)),
        "array.columns": draw(st.integers(20, 50)),
        "array.mapping": draw(st.sampled_from(["differential", "offset"])),
        "array.cell_bits": draw(st.integers(1, 4)),
    }
    return load_hardware("ideal").with_changes(array), draw(st.integers(1, 9))


@settings(deadline=None)
@given(
    mappings(),
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 30)),
    st.integers(0, 2**32 - 1),
)
def test_levels_hold_the_weights_of_any_mapping(drawn, shape, seed) -> None:
    (hardware, bits), (groups, rows, columns) = drawn, shape
    low, high = hardware.weight_range(bits)
    weight = np.random.default_rng(seed).integers(low, high + 1, (groups, rows, columns)).astype(np.int16)
    mapping = map_weights(rows, columns, groups, bits, hardware)
    levels = levels_of(weight, bits, mapping, hardware)
    assert levels.shape == levels_shape(mapping)
    assert levels.max(initial=0) <= hardware.array.highest_level
    assert np.array_equal(weights_of(levels, bits, mapping, hardware), weight)


def test_a_differential_tile_is_laid_out_as_documented() -> None:
    hardware = load_hardware("ideal").with_changes(
        {"array.rows": 2, "array.columns": 8, "array.cell_bits": 1}
    )
    weight = np.array([[[3, -2, 0], [-1, 1, 2], [-3, 3, 1]]])
    mapping = map_weights(3, 3, 1, 3, hardware)
    levels = levels_of(weight, 3, mapping, hardware)
    assert levels.shape == (1, 2, 2, 2, 8)
    # weight 3: slice 0 (1, 0), slice 1 (1, 0); weight -2: slice 0 (0, 0), slice 1 (0, 1)
    assert levels[0, 0, 0].tolist() == [[1, 0, 1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0, 0, 0]]
    assert levels[0, 0, 1].tolist() == [[0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]]
    assert levels[0, 1, 0].tolist() == [[0, 1, 0, 1, 1, 0, 1, 0], [0] * 8]


def test_an_offset_tile_ends_in_its_reference() -> None:
    changes = {"array.rows": 4, "array.columns": 8, "array.cell_bits": 2, "array.mapping": "offset"}
    hardware = load_hardware("ideal").with_changes(changes)
    weight = np.array([[[3, -4], [0, -1]]])
    levels = levels_of(weight, 3, map_weights(2, 2, 1, 3, hardware), hardware)
    # 3 + 4 = 7: slices 3, 1; -4 + 4 = 0; 0 + 4: 0, 1; -1 + 4 = 3: 3, 0; the reference 4: 0, 1
    assert levels[0, 0, 0].tolist() == [[3, 1, 0, 0, 0, 1], [0, 1, 3, 0, 0, 1]]


def test_offsets_are_what_the_digital_side_adds() -> None:
    program, _ = NETS["maps"](seed=1)
    image = image_of(Given(program), profile("ideal"))
    assert [row.name for row in image.manifest.layers] == [layer.name for layer in program.weighted_layers()]
    for row, layer in zip(image.manifest.layers, program.weighted_layers(), strict=True):
        outputs = layer.weight if hasattr(layer, "groups") else layer.weight.T
        totals = outputs.reshape(len(outputs), -1).sum(axis=1, dtype=np.int64)
        bias = np.zeros(len(totals), np.int64) if layer.bias is None else layer.bias
        assert row.flip == (128 if program.tensors[layer.input].dtype == np.int8 else 0)
        assert row.zero_point == layer.input_zero_point + row.flip
        assert np.array_equal(image.arrays[row.offset].reshape(-1), bias - row.zero_point * totals)


def test_an_image_is_the_same_bytes_each_time() -> None:
    artifact = residual_artifact()
    assert image_of(artifact, profile("noise"), 5).files() == image_of(artifact, profile("noise"), 5).files()


def test_the_target_writes_it_and_tells_how_many_tiles() -> None:
    built = TARGET.build(residual_artifact(), TARGET.options(hardware=profile("isaac"), seed=9))
    assert sorted(built.files) == ["image.json", "image.npz"]
    manifest = json.loads(built.files["image.json"])
    assert manifest["seed"] == built.summary["seed"] == 9
    assert manifest["artifact_sha256"] == residual_artifact().sha256
    assert built.summary["tiles"] == sum(row["tiles"] for row in manifest["layers"]) == 5


def test_another_artifact_is_refused() -> None:
    image = image_of(tiny_artifact(0), profile("ideal"))
    with pytest.raises(DataError, match="load the artifact that it was built from"):
        emulator_of(image, tiny_artifact(1))


def test_a_profile_that_cannot_hold_the_weights_is_refused_before_anything_is_built() -> None:
    narrow = load_hardware("ideal").with_changes({"array.columns": 2, "array.cell_bits": 1})
    with pytest.raises(HardwareError, match=r"array\.columns"):
        TARGET.check(residual_artifact(weight_bits=4), TARGET.options(hardware=narrow))


def test_a_calibrated_profile_needs_images() -> None:
    with pytest.raises(HardwareError, match="need calibration images"):
        TARGET.build(residual_artifact(), TARGET.options(hardware=profile("calibrated")))


def test_a_program_without_weights_is_refused() -> None:
    from program_nets import Net

    from ohmfold.toolchain import program as p

    net = Net(np.random.default_rng(0), (2, 4, 4))
    net.add(p.SpatialSum, (2, 1, 1), dtype=np.int32, input_zero_point=0)
    net.add(p.Scale, (2, 1, 1), dtype=np.float32, multiplier=np.float32(1))
    with pytest.raises(TargetError, match="nothing to program"):
        TARGET.check(Given(net.program(net.name)), TARGET.options(hardware=profile("ideal")))


def test_every_field_is_documented() -> None:
    page = (Path(ohmfold.__file__).resolve().parent / "docs/targets.md").read_text(encoding="utf-8")
    for kind in (Manifest, LayerImage, DigitalRow, LimitsRow, ArrayRow):
        assert [name for name in kind.model_fields if f"`{name}`" not in page] == []


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "image", image_of(tiny_artifact(), profile("isaac"), 1).files())
    load_image(tmp_path / "image")
    return tmp_path / "image"


def rewrite(folder, change):
    values = json.loads((folder / "image.json").read_text())
    change(values)
    (folder / "image.json").write_text(json.dumps(values))


def arrays_of(folder):
    with np.load(folder / "image.npz") as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda v: v.update(kind="cake"), "kind"),
        (lambda v: v.update(schema_version=2), "schema_version"),
        (lambda v: v.update(more=1), "more"),
        (lambda v: v.pop("seed"), "seed"),
        (lambda v: v["layers"][0].update(rows=-1), "rows"),
        (lambda v: v["layers"][0].update(rows=17), "found 17 rows"),
        (lambda v: v["layers"][0].update(tiles=5), "found tiles = 5"),
        (lambda v: v["layers"][0].update(weight_bits=4), "weights of 4 bits"),
        (lambda v: v["layers"][0].update(levels="layer0001.bias"), "an array is missing"),
        (
            lambda v: v["digital"][0].update(multiplier="layer0001.offset"),
            "lists other arrays than its layers name",
        ),
        (lambda v: v["layers"][0].update(levels="../x"), "levels"),
        (lambda v: v["arrays"].update({"layer0009.bias": {"dtype": "int32", "shape": [1]}}), "nothing else"),
        (lambda v: v["arrays"]["layer0001.levels"].update(shape=[2**30, 2**30]), "asks for"),
        (lambda v: v["arrays"]["layer0001.levels"].update(shape=[1, 1, 1, 16, 5]), "expected"),
        (lambda v: v["arrays"]["layer0001.levels"].update(dtype="object"), "dtype"),
    ],
)
def test_a_manifest_that_lies_is_refused(change, match, folder) -> None:
    rewrite(folder, change)
    with pytest.raises(DataError, match=match):
        load_image(folder)


def test_a_profile_that_lies_is_refused(folder) -> None:
    rewrite(folder, lambda v: v["hardware"]["array"].update(rows="many"))
    with pytest.raises(HardwareError, match=r"array\.rows"):
        load_image(folder)


def test_converters_that_the_chip_does_not_have_are_refused(folder) -> None:
    rewrite(folder, lambda v: v["layers"][0]["converters"].update(high=200))
    with pytest.raises(DataError, match="sets its converters to"):
        emulator_of(load_image(folder), tiny_artifact())


@pytest.mark.parametrize("cell", [(0, 0), (3, 4), (15, -1)])
def test_a_cell_that_was_changed_is_refused(cell, folder) -> None:
    arrays = arrays_of(folder)
    levels = arrays["layer0001.levels"]
    levels[(0, 0, 0, *cell)] = 200
    np.savez(folder / "image.npz", **arrays)
    with pytest.raises(DataError, match="its cells do not hold weights of 3 bits"):
        load_image(folder)


def test_a_reference_cell_that_was_changed_is_refused(folder) -> None:
    arrays = arrays_of(folder)
    arrays["layer0001.levels"][0, 0, 0, 2, -1] ^= 1
    np.savez(folder / "image.npz", **arrays)
    with pytest.raises(DataError, match="its cells do not hold weights"):
        load_image(folder)


def test_pickles_and_other_types_are_refused(folder) -> None:
    arrays = arrays_of(folder)
    for wrong in (np.array([{}], dtype=object), arrays["layer0001.offset"].astype(np.int64)):
        np.savez(folder / "image.npz", **{**arrays, "layer0001.offset": wrong})
        with pytest.raises(DataError, match="not the arrays of a crossbar image"):
            load_image(folder)


def test_headers_are_compared_before_memory_is_taken(folder) -> None:
    """An array that says in its own header to be of 2^60 bytes, and one that unpacks to far more than it should."""
    arrays = arrays_of(folder)
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "|u1", "fortran_order": False, "shape": (2**60,)})
    for content in (huge.getvalue() + b"\0" * 64, b"\0" * 50_000_000):
        with zipfile.ZipFile(folder / "image.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, array)
                archive.writestr(f"{name}.npy", content if name == "layer0001.levels" else buffer.getvalue())
        with pytest.raises(DataError, match="not the arrays of a crossbar image"):
            load_image(folder)


@pytest.mark.parametrize("name", ["image.json", "image.npz"])
@pytest.mark.parametrize("content", [None, b"", b"\0\xff garbage", b"[" * 100_000])
def test_missing_and_damaged_files_are_refused(name, content, folder) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        load_image(folder)


def test_a_truncated_archive_is_refused(folder) -> None:
    content = (folder / "image.npz").read_bytes()
    for size in range(0, len(content), max(1, len(content) // 40)):
        (folder / "image.npz").write_bytes(content[:size])
        with pytest.raises(DataError):
            load_image(folder)
