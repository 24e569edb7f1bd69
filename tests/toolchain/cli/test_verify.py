"""`ohmfold verify`: its table, its exit codes, JSON and JUnit XML, and what a user can get wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import verified

from ohmfold.toolchain import verify as package

from .conftest import SIDE

if TYPE_CHECKING:
    from pathlib import Path

FAST = ("--witness", "emulator", "--witness", "twin", "--count", "16", "--reference-images", "8")
# Then no row is of the emulator that later images are judged by, which is right.
ALL_BY_REFERENCE = ("--reference-images", "16")


@pytest.fixture
def wrong(monkeypatch):
    """Every witness runs a copy of the artifact with one wrong weight."""
    original = package.witnesses_of

    def of_a_wrong_copy(artifact, twin=None):
        return original(verified.with_one_wrong_weight(artifact, 0)[0])

    monkeypatch.setattr(package, "witnesses_of", of_a_wrong_copy)


@pytest.fixture
def stored(tmp_path) -> Path:
    path = tmp_path / "pow2.onnx"
    verified.artifact("pow2").save(path)
    return path


def test_equal_bits_are_code_0_and_a_table(call, files):
    done = call("verify", files.artifact, "--data", files.data, *FAST)
    assert (done.code, done.err) == (0, "")
    assert "twin" in done.out
    assert "every bit is equal" in done.out
    assert "expected: int64 NumPy reference on the first 8 images, the emulator" in done.out
    assert "accumulator bounds: 100% of the proved ends at conv" in done.out
    assert "rounding ties: " in done.out


def test_one_wrong_weight_is_code_1_and_its_place(call, stored, wrong, tmp_path):
    junit = tmp_path / "out.xml"
    done = call("verify", stored, *FAST, *ALL_BY_REFERENCE, "--junit", junit)
    layer = next(verified.artifact("pow2").program.weighted_layers())
    assert done.code == 1
    assert "NOT equal" in done.out
    assert f"{layer.output}[" in done.out
    suite = ET.parse(junit).getroot().find("testsuite")  # noqa: S314 - our own
    assert int(suite.get("failures")) == int(suite.get("tests")) > 2
    assert all(case.find("failure").get("message") for case in suite.iter("testcase"))


def test_json_is_the_report(call, stored):
    done = call("verify", stored, *FAST, "--json")
    document = json.loads(done.out)
    assert done.code == 0
    assert document["equal"] is True
    assert document["images"] == 16
    assert document["sha256"] == verified.artifact("pow2").sha256
    assert {row["group"] for row in document["rows"]} == {"emulator", "twin"}
    assert all(row["differing"] == 0 for row in document["rows"])
    assert package.VerifyReport.model_validate({k: v for k, v in document.items() if k != "equal"}).equal


def test_json_of_a_difference_is_code_1_too(call, stored, wrong):
    done = call("verify", stored, *FAST, *ALL_BY_REFERENCE, "--json")
    document = json.loads(done.out)
    assert (done.code, document["equal"]) == (1, False)
    assert document["rows"][0]["first"]["image"] is not None


def test_images_and_data_are_one_option(call, files):
    a, b = (
        call("verify", files.artifact, option, files.data, *FAST, "--json")
        for option in ("--images", "--data")
    )
    first, second = json.loads(a.out), json.loads(b.out)
    assert first["kinds"] == second["kinds"]
    assert first["kinds"]["real"] > 0


def test_the_default_data_set_is_left_out_where_its_images_do_not_fit(call, stored, monkeypatch):
    monkeypatch.delenv("OHMFOLD_DATA", raising=False)
    done = call("verify", stored, *FAST)
    assert done.code == 0
    assert "no real images: give some that fit the model" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--witness", "emulators"), "no witness 'emulators', the nearest is 'emulator'"),
        (("--witness", "qdq"), "power-of-two artifacts only"),
        (("--count", "0"), "--count"),
        (("--images", "no-such-set"), "not found"),
        (("--junit", "/no/such/folder/out.xml"), "there is no folder"),
    ],
)
def test_what_a_user_can_mend_is_code_2_and_one_line(call, files, arguments, message):
    done = call("verify", files.artifact, *arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_images_of_another_size_are_code_2(call, files, tmp_path):
    path = tmp_path / "wide.npz"
    np.savez(path, images=np.zeros((4, 1, SIDE, SIDE + 1), np.uint8), labels=np.zeros(4, np.int64))
    done = call("verify", files.artifact, "--images", path, "--count", "8")
    assert done.code == 2
    assert f"expected uint8[N, 1, {SIDE}, {SIDE}]" in done.err


def test_a_file_that_is_no_model_is_code_2(call, tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("not a model")
    assert call("verify", path).code == 2


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom ohmfold.toolchain.cli import main\ncode = main(['verify', '--help'])\n"
        "heavy = {'torch', 'onnxruntime', 'numba', 'onnx', 'onnx_ir', 'numpy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY [] 0" in done.stdout
