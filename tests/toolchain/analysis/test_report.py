import csv
import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from ohmfold.errors import OutputError
from ohmfold.toolchain.analysis.attacked_images import AttackedImages
from ohmfold.toolchain.analysis.error_terms import error_terms
from ohmfold.toolchain.analysis.lipschitz import lipschitz
from ohmfold.toolchain.analysis.quantised_layers import quantised_layers
from ohmfold.toolchain.analysis.report import analyse, check_analysis_folder, write_analysis
from ohmfold.toolchain.recipe import Recipe

from ...support.analysed import MU, SHAPE, small_network, some_images


@pytest.fixture(scope="module")
def network():
    recipe = Recipe(mu_law={"last": MU}, layers={"second": {"granularity": "channel"}})
    return quantised_layers(small_network(), recipe, SHAPE)


@pytest.fixture(scope="module")
def pairs():
    images = some_images(6)
    return AttackedImages(images, np.clip(images, 20, 230), "clip", "inf", 25, "none", 1)


@pytest.fixture(scope="module")
def analysis(network, pairs):
    return analyse(network, pairs)


def test_a_row_holds_what_is_measured_of_its_layer(network, pairs, analysis):
    terms = error_terms(network, pairs.clean, pairs.attacked)
    for layer, row, found in zip(network.layers, analysis.layers, terms, strict=True):
        assert (row.name, row.terms, row.lipschitz) == (layer.name, found, lipschitz(layer))
        codes = layer.quantised.codes.ravel().tolist()
        assert row.counts == tuple(codes.count(code) for code in row.codes)
        assert sum(row.counts) == layer.real.size
    assert analysis.product.spectral == pytest.approx(
        np.prod([row.lipschitz.spectral for row in analysis.layers])
    )


def test_progress_runs_from_start_to_end(network, pairs):
    seen = []
    analyse(network, pairs, lambda _, share: seen.append(share))
    assert seen == sorted(seen)
    assert 0 < seen[0] <= seen[-1] < 1


def test_the_document_is_json_whatever_overflows(analysis):
    huge = replace(analysis, product=replace(analysis.product, infinity=float("inf")))
    assert huge.document()["product"]["infinity"] is None
    document = json.loads(json.dumps(analysis.document(), allow_nan=False))
    first, row = analysis.layers[0], document["layers"][0]
    assert row["terms"]["relative"]["cross"] == first.terms.cross / first.terms.signal
    assert document["product"]["spectral"] == analysis.product.spectral


def test_the_folder_holds_every_figure(network, analysis, tmp_path):
    out = tmp_path / "out"
    files = write_analysis(analysis, network, out, {"artifact": "a.onnx"})
    assert sorted(files) == sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    document = json.loads((out / "analysis.json").read_text())
    assert document == {"artifact": "a.onnx"} | json.loads(json.dumps(analysis.document()))
    with (out / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, layer in zip(rows, analysis.layers, strict=True):
        assert row["layer"] == layer.name
        assert float(row["attack"]) == layer.terms.attack
        assert float(row["attack_relative"]) == layer.terms.relative("attack")
        assert float(row["error_operator_spectral"]) == layer.lipschitz.operator_spectral
        assert row["mapping"] == (layer.mapping or "")
    assert {path.name for path in (out / "weights").iterdir()} == {
        "01-first.svg",
        "02-second.svg",
        "03-last.svg",
    }


def test_a_second_analysis_replaces_the_first(network, analysis, tmp_path):
    write_analysis(analysis, network, tmp_path, {})
    (tmp_path / "weights" / "09-gone.svg").write_text("of another network")
    check_analysis_folder(tmp_path)
    write_analysis(analysis, network, tmp_path, {})
    assert not (tmp_path / "weights" / "09-gone.svg").exists()


def test_charts_are_described_in_words(network, analysis, tmp_path):
    write_analysis(analysis, network, tmp_path, {})
    spoken = {}
    for path in tmp_path.rglob("*.svg"):
        spoken[path.name] = ET.fromstring(path.read_text()).get("aria-label")  # noqa: S314 - our own text
    last = analysis.layers[-1]
    assert f"last: {last.lipschitz.spectral:.3g} unfolded" in spoken["lipschitz.svg"]
    assert f"attack {100 * last.terms.relative('attack'):.3g} %" in spoken["terms.svg"]
    pairs = ", ".join(f"{code}: {count}" for code, count in zip(last.codes, last.counts, strict=True))
    assert f"216 weights of last, and how many per level. {pairs}." in spoken["03-last.svg"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: path.write_text("a file"), "is a file"),
        (lambda path: (path.mkdir(), (path / "thesis.tex").write_text("precious")), "is not empty"),
    ],
)
def test_other_folders_are_refused(tmp_path, prepare, message):
    prepare(tmp_path / "out")
    with pytest.raises(OutputError, match=message):
        check_analysis_folder(tmp_path / "out")


def test_a_folder_in_no_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="cannot make the folder"):
        check_analysis_folder(tmp_path / "gone" / "out")
