"""What is given is read as what it is, several runs keep apart, and what is no run is refused in one line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from ohmfold.errors import DataError
from ohmfold.toolchain.analysis.attacked_images import AttackedImages
from ohmfold.toolchain.analysis.quantised_layers import quantised_layers
from ohmfold.toolchain.analysis.report import analyse, write_analysis
from ohmfold.toolchain.chips import Chip, ChipStudy, _point
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.recipe import Recipe
from ohmfold.toolchain.report import write_report
from ohmfold.toolchain.report.accuracy import accuracies
from ohmfold.toolchain.report.sources import read_evidence
from ohmfold.toolchain.verify.report import VerifyReport, WitnessRow

from ...support.analysed import SHAPE, small_network, some_images


def study(sha256="0" * 64, correct=(180, 190, 199)) -> ChipStudy:
    hardware = load_hardware("reram-128")
    return ChipStudy(
        ohmfold="0",
        artifact_sha256=sha256,
        data={"name": "digits", "images": 200, "sha256": "0" * 64},
        calibration_sha256=None,
        hardware=hardware.name,
        profile_sha256=hardware.sha256,
        profile_toml=hardware.to_toml(),
        seed=3,
        count=len(correct),
        field=None,
        exact_correct=198,
        points=(_point(None, "", [Chip(seed=3 + i, correct=c) for i, c in enumerate(correct)], 200),),
    )


@pytest.fixture
def chips(tmp_path):
    folder = tmp_path / "chips"
    folder.mkdir()
    (folder / "chips.json").write_text(study().to_json())
    return folder


@pytest.fixture
def analysis(tmp_path):
    images = some_images(3)
    pairs = AttackedImages(images, (images + 1).astype(np.uint8), "shift", "inf", 1, "none", 0)
    network = quantised_layers(small_network(), Recipe(), SHAPE)
    about = {"artifact": "a.onnx", "artifact_sha256": "0" * 64, "float_model": "m", "adversarial": None}
    write_analysis(analyse(network, pairs), network, tmp_path / "analysis", about)
    return tmp_path / "analysis"


def verified(differing=0):
    row = WitnessRow(
        witness="twin",
        group="twin",
        promise="p",
        images=4,
        tensors=2,
        integers=9,
        floats=1,
        differing=differing,
    )
    return VerifyReport(
        file="a.onnx",
        sha256="0" * 64,
        versions={},
        machine="m",
        seed=0,
        images=4,
        kinds={"real": 4},
        yardstick="the emulator",
        reference_images=0,
        rows=(row,),
        skipped=(),
    )


@pytest.fixture
def verification(tmp_path):
    path = tmp_path / "verify.json"
    report = verified()
    path.write_text(json.dumps(report.model_dump(mode="json") | {"equal": report.equal}))
    return path


def test_each_kind_is_read_as_what_it_is(compiled_run, chips, analysis, verification):
    evidence = read_evidence([compiled_run, chips, analysis, verification])
    assert [run.path for run in evidence.runs] == [compiled_run]
    assert [found.count for _, found in evidence.studies] == [3]
    assert [[layer.name for layer in found.layers] for _, found, _ in evidence.analyses] == [
        ["first", "second", "last"]
    ]
    assert [found.equal for _, found in evidence.verifications] == [True]
    assert [row.witness for row in evidence.exactness][-1] == "twin"


def test_all_kinds_make_one_page(compiled_run, chips, analysis, verification, tmp_path):
    out = tmp_path / "page.html"
    write_report([compiled_run, chips, analysis, verification], out)
    text = out.read_text()
    for said in ("on 3\u00a0chips of reram-128", "Weights on their levels", "ohmfold verify a.onnx"):
        assert said in text
    assert text.count("data:image/svg+xml;base64,") == 3


def test_a_verification_that_found_a_difference_turns_the_verdict(tmp_path):
    path = tmp_path / "verify.json"
    path.write_text(verified(differing=1).model_dump_json())
    write_report(path)
    assert '<div class="finding bad">' in (tmp_path / "report.html").read_text()


def test_a_crossbar_stands_beside_integers_with_the_spread_of_its_chips(chips):
    integer, crossbar = accuracies(read_evidence([chips]))
    assert (integer.model, integer.correct, integer.images) == ("integer", 198, 200)
    assert (crossbar.model, crossbar.correct) == ("crossbar", None)
    assert crossbar.share == pytest.approx((180 + 190 + 199) / 600)
    assert crossbar.low < crossbar.share < crossbar.high
    assert "worst" in crossbar.note


def test_two_runs_keep_their_variants_apart(compiled_run):
    evidence = read_evidence([compiled_run, compiled_run])
    names = {row.variant for run in evidence.runs for row in run.record.attacks}
    assert names == {"A: plain", "A: mu-law", "B: plain", "B: mu-law"}
    assert {row.variant for row in evidence.runs[0].original.attacks} == {"plain", "mu-law"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a run"),
        ("[]", "is not a run"),
        ('{"yardstick": 1}', "is not a verification"),
        ('{"witnesses": {}}', "is not a run on a data set"),
        ('{"points": []}', "is not a study of chips"),
        ('{"float_model": "m"}', "is not an analysis"),
        ("[" * 100_000, "is not a run"),
    ],
)
def test_a_file_that_is_no_run_is_refused(tmp_path, text, said):
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_evidence([path])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_analysis_without_a_term_is_refused(analysis):
    path = analysis / "analysis.json"
    document = json.loads(path.read_text())
    del document["layers"][1]["terms"]["cross"]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"second: found no length of 'cross'"):
        read_evidence([analysis])


def test_a_histogram_that_ohmfold_did_not_draw_is_refused(analysis):
    next((analysis / "weights").glob("*.svg")).write_text("<svg></svg>")
    with pytest.raises(DataError, match="not a histogram"):
        write_report(analysis)


def test_nothing_and_what_is_missing_are_refused(tmp_path):
    with pytest.raises(DataError, match="found no run"):
        read_evidence([])
    with pytest.raises(DataError, match=r"run\.json"):
        read_evidence([tmp_path / "gone"])


def test_hostile_texts_of_every_kind_stay_texts(compiled_run, chips, tmp_path):
    hostile = '"><script>alert(1)</script>'
    folder = tmp_path / "run"
    shutil.copytree(compiled_run, folder)
    found = json.loads((chips / "chips.json").read_text())
    found["hardware"] = found["data"]["name"] = found["profile_toml"] = hostile
    (chips / "chips.json").write_text(json.dumps(found))
    path = tmp_path / "verify.json"
    row = verified().rows[0].model_copy(update={"witness": hostile, "error": hostile})
    path.write_text(
        verified().model_copy(update={"rows": (row,), "notes": (hostile,), "file": hostile}).model_dump_json()
    )
    out = tmp_path / "page.html"
    write_report([folder, folder, chips, path], out)
    assert out.read_text().count("<script") == 1
