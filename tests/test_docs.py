"""The documentation says what the code does: its picture is the drawn one, its commands and files exist."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ohmfold
from ohmfold.kernels import conv_maps
from ohmfold.kernels.isa import BY_NAME
from ohmfold.kernels.layout import MapLayout
from ohmfold.kernels.packing import pack_weight

ROOT = Path(ohmfold.__file__).resolve().parent
KERNELS = (ROOT / "docs/kernels.md").read_text(encoding="utf-8")
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
}


def drawing():
    return runpy.run_path(str(ROOT / "docs/draw_tile.py"))


def test_the_picture_is_what_the_script_draws():
    assert (ROOT / "docs/tile.svg").read_text(encoding="utf-8") == drawing()["draw"]()


def test_the_numbers_in_the_picture_are_the_kernels():
    names = drawing()
    vnni, rng = BY_NAME["vnni"], np.random.default_rng(0)
    source = MapLayout(names["CHANNELS"], names["HEIGHT"], names["WIDTH"], 1, 1, 1, 1)
    target = MapLayout(names["OUTPUTS"], names["OUT_HEIGHT"], names["OUT_WIDTH"], 1, 1, 1, 1)
    assert (names["ROWS"], names["PANELS"]) == (vnni.heights[0], vnni.widths[0])
    assert (source.row_bytes, target.row_bytes) == (names["ROW_BYTES"], names["OUT_ROW_BYTES"])
    positions = (names["HEIGHT"], names["WIDTH"])
    starts = conv_maps._row_starts(1, positions, (names["POOL"],) * 2, (1, 1), (1, 1), source)
    assert starts[: names["ROWS"]].tolist() == names["STARTS"]
    out_starts = target.origin + conv_maps._image_starts(1, target)
    assert out_starts[: len(names["OUT_STARTS"])].tolist() == names["OUT_STARTS"]
    shape = (names["OUTPUTS"], names["CHANNELS"], names["TAPS"], names["TAPS"])
    weight = rng.integers(-3, 4, shape).astype(np.int8)
    taps, segments = conv_maps._segments(weight, 1, (1, 1), source)
    assert segments.tolist() == names["SEGMENTS"]
    packed = pack_weight(taps, vnni)
    assert (packed.depth, packed.panels) == (names["DEPTH"], names["PANELS"])
    # Byte 4 c + k of a block is tap k of column c: here of panel 1, segment 0, block 2.
    block = packed.data.reshape(names["PANELS"], names["TAPS"], names["DEPTH"], 16, 4)[1, 0, 2]
    assert np.array_equal(block, taps[0, 0, 8:12, 16:].T)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_and_named_files_exist(name):
    folder = (ROOT / name).parent
    links = [link for link in re.findall(r"\]\(([^)#]+)", PAGES[name]) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []
    files = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", PAGES[name])
    assert [file for file in files if not (ROOT / file).exists()] == []


@pytest.mark.parametrize(
    "module", sorted(set(re.findall(r"python -m (benchmarks\.\w+)", "".join(PAGES.values()))))
)
def test_every_benchmark_that_is_named_starts(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_constants_that_are_named_are_the_codes():
    from ohmfold.kernels import depthwise, drain
    from ohmfold.toolchain.planning import plan

    assert drain.LARGEST_BOUNDED == 2**22 - 1
    assert f"at most {depthwise.LARGEST_PRODUCT:,}" in KERNELS
    assert (plan.CHUNK_BYTES, plan.CHUNK_SAMPLES, plan.PIECE_SAMPLES) == (2**20, 64, 512)
    assert all(word in KERNELS for word in ("1 MiB", "64 images", "512 images"))
    assert f"{plan._ROOM_FOR_BORDERS} times" in KERNELS
    for isa in BY_NAME.values():
        heights = " and ".join(map(str, isa.heights))
        assert isa.name == "amx-model" or re.search(
            rf"^\| `{isa.name}` .*\| {heights} \|", KERNELS, re.MULTILINE
        )
