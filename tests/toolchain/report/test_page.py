"""The page as a whole: what it says, that it is well formed, self-contained and safe, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from ohmfold.errors import DataError, OutputError
from ohmfold.toolchain.attacks import load_adversarial
from ohmfold.toolchain.report import write_report
from ohmfold.toolchain.run_record import RunRecord

if TYPE_CHECKING:
    from pathlib import Path

VOID = {"meta", "link", "br", "img", "hr", "input", "col", "wbr"}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>$x^2$'"


class Page(HTMLParser):
    """Reads a page, and refuses tags that do not close in the order in which they were opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} repeats an attribute"
        self.elements.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split()).replace("\u202f", " ")

    def all(self, *tags):
        return [attributes for tag, attributes, _ in self.elements if tag in tags]


@pytest.fixture
def run(compiled_run, tmp_path) -> Path:
    folder = tmp_path / "run"
    shutil.copytree(compiled_run, folder)
    return folder


def edit(folder: Path, change) -> None:
    record = json.loads((folder / "run.json").read_text())
    change(record)
    (folder / "run.json").write_text(json.dumps(record))


def render(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_the_report_lies_beside_the_record_or_where_it_is_wanted(run, tmp_path):
    assert write_report(run) == run / "report.html"
    out = tmp_path / "elsewhere.html"
    assert write_report(run, out) == out
    assert out.read_bytes() == (run / "report.html").read_bytes()


def test_two_renderings_have_the_same_bytes(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


def test_the_page_is_well_formed(run):
    text = render(run)
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.all("html")[0]["lang"] == "en"
    assert [attributes.get("name") for attributes in page.all("meta")].count("viewport") == 1
    titles = [inside for tag, _, inside in page.elements if tag == "title" and "svg" not in inside]
    assert len(titles) == len(page.all("h1")) == len(page.all("main")) == 1
    levels = [int(tag[1]) for tag, _, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def test_ids_are_unique_and_references_lead_to_them(run):
    page = Page(render(run))
    ids = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _ in page.elements:
        for name in ("href", "xlink:href"):
            if name in attributes:
                assert attributes[name].removeprefix("#") in ids
        for name in ("aria-labelledby",):
            assert attributes.get(name, ids[0]) in ids
        for target in re.findall(r"url\(#([^)]+)\)", " ".join(str(value) for value in attributes.values())):
            assert target in ids


def test_nothing_is_loaded_from_elsewhere(run):
    text = render(run)
    page = Page(text)
    assert not page.all("link", "iframe", "object", "embed", "base")
    assert page.all("script") == [{}]  # its own, whose hash the policy names
    policy = next(one["content"] for one in page.all("meta") if one.get("http-equiv"))
    own = re.search(r"<script>(.*?)</script>", text, flags=re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    for _, attributes, _ in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert value.startswith(("#", "data:image/png;base64,"))
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(http" not in text


def test_pictures_and_charts_have_alternatives(run):
    page = Page(render(run))
    pictures = page.all("img")
    assert pictures
    assert all(attributes["alt"].strip() for attributes in pictures)
    charts = page.all("svg")
    assert len(charts) == 3 + 4  # accuracy, attacks, layers; the weights of each layer
    assert all(attributes["role"] == "img" and attributes["aria-label"].strip() for attributes in charts)


def test_tables_have_captions_and_scoped_headers_and_scroll_by_themselves(run):
    page = Page(render(run))
    tables = [inside for tag, _, inside in page.elements if tag == "table"]
    assert len(tables) == len(page.all("caption"))
    assert all(inside[-1] == "div" for inside in tables)
    assert all(attributes.get("scope") in ("col", "row", "rowgroup") for attributes in page.all("th"))
    assert len([1 for attributes in page.all("div") if attributes.get("class") == "scroll"]) >= len(tables)


def test_rows_have_as_many_cells_as_columns(run):
    text = render(run)
    for table in re.findall(r"<table.*?</table>", text, flags=re.DOTALL):
        columns = len(re.findall(r"<th scope=\"col\"", table))
        held = 0
        for row in re.findall(r"<tr>.*?</tr>", table, flags=re.DOTALL):
            cells = len(re.findall(r"<t[dh][ >]", row))
            span = re.search(r'rowspan="(\d+)"', row)
            assert cells + (1 if held else 0) == columns
            held = int(span[1]) - 1 if span else max(0, held - 1)


def test_the_figures_of_the_record_are_on_the_page(run):
    record = RunRecord.load(run)
    text = Page(render(run)).text
    for artifact in record.artifacts:
        assert artifact.sha256 in text
        for note in artifact.notes:
            assert note in text
        for layer in artifact.layers:
            assert f"{layer.bound:,}".replace(",", " ") in text
            assert f"{layer.spectral_error:.3g}" in text
    for row in record.exactness:
        assert row.witness in text
        assert f"{row.integers:,}".replace(",", " ") in text
    for said in (record.title, record.command, record.machine, record.dataset.sha256, record.source_sha256):
        assert said in text
    assert "Yes, every one" in text


def test_shown_digits_are_the_pixels_of_the_saved_set(run):
    record = RunRecord.load(run)
    page = Page(render(run))
    shown = {attributes["src"] for attributes in page.all("img")}
    found = set()
    for source in shown:
        picture = Image.open(BytesIO(base64.b64decode(source.partition(",")[2])))
        found.add(np.asarray(picture).tobytes())
    turned = 0
    for row in record.attacks:
        result = load_adversarial(run / row.adversarial).result
        places = np.flatnonzero((result.clean_predictions == result.labels) & result.success)
        turned += min(8, len(places))
        first = places[:1]
        for image in (*result.original[first], *result.adversarial[first]):
            assert image.tobytes() in found
    assert turned
    assert len(page.all("img")) == 3 * turned


def test_hostile_names_stay_text(run):
    def change(record):
        record["title"] = record["command"] = record["machine"] = record["dataset"]["name"] = HOSTILE
        record["versions"] = {HOSTILE: HOSTILE}
        record["seconds"] = {HOSTILE: 1.0}
        for artifact in record["artifacts"]:
            artifact["variant"] = artifact["variant"] + HOSTILE
            artifact["notes"] = [HOSTILE]
            artifact["file"] = HOSTILE
            artifact["recipe"][HOSTILE] = HOSTILE
            for layer in artifact["layers"]:
                layer["name"] = layer["options"] = HOSTILE
        for kind in ("accuracy", "exactness", "attacks"):
            for row in record[kind]:
                row["variant"] = row["variant"] + HOSTILE
        for row in record["exactness"]:
            row["witness"] = row["first_difference"] = HOSTILE
        for row in record["attacks"]:
            row["attack"] = row["attack"] + HOSTILE
            row["parameters"] = {HOSTILE: HOSTILE}
            row["adversarial"] = None

    edit(run, change)
    text = render(run)
    page = Page(text)
    assert page.all("script") == [{}]
    assert all("onerror" not in attributes for _, attributes, _ in page.elements)
    assert text.count("<script") == 1
    assert "<script>alert(1)</script>" in page.text


def test_an_empty_record_still_makes_a_page_that_says_so(run):
    def change(record):
        for kind in ("artifacts", "accuracy", "exactness", "attacks"):
            record[kind] = []

    edit(run, change)
    text = Page(render(run)).text
    for said in ("Not checked", "Not measured", "Not attacked", "names no artifact"):
        assert said in text


def test_unknown_figures_are_dashes(run):
    def change(record):
        for layer in record["artifacts"][0]["layers"]:
            for name in ("step_low", "step_high", "weight_snr_db", "spectral_error", "infinity_error"):
                layer[name] = None
            layer["activation_snr_db"] = None

    edit(run, change)
    assert '<td class="n">–</td>' in render(run)


def test_a_layer_past_float32_is_marked(run):
    edit(
        run, lambda record: record["artifacts"][0]["layers"][0].update(bound=1 << 24, exact_in_float32=False)
    )
    assert "2 24 or more" in Page(render(run)).text


def refusal(run: Path) -> str:
    with pytest.raises(DataError) as caught:
        write_report(run)
    assert "\n" not in str(caught.value)
    assert not (run / "report.html").exists()
    return str(caught.value)


def test_a_missing_adversarial_set_is_refused(run):
    (run / "plain-fgsm.npz").unlink()
    assert "plain-fgsm.npz: no such file" in refusal(run)


@pytest.mark.parametrize(
    "damage", [lambda _: b"", lambda _: b"not a zip", lambda data: data[: len(data) // 2]]
)
def test_a_damaged_adversarial_set_is_refused(run, damage):
    path = run / "plain-fgsm.npz"
    path.write_bytes(damage(path.read_bytes()))
    assert "plain-fgsm.npz" in refusal(run)


def test_a_set_that_attacks_another_artifact_is_refused(run):
    shutil.copy(run / "mu-law-fgsm.npz", run / "plain-fgsm.npz")
    assert "attacks the artifact" in refusal(run)


def test_a_set_that_does_not_hold_what_the_record_says_is_refused(run):
    edit(run, lambda record: record["attacks"][1].update(correct=record["attacks"][1]["correct"] + 1))
    assert "do not belong together" in refusal(run)


@pytest.mark.parametrize(
    "name", ["../plain-fgsm.npz", "/etc/passwd", "a/../../b.npz", "C:\\x.npz", "..\\x.npz"]
)
def test_a_set_outside_the_run_is_refused(run, name):
    shutil.copy(run / "plain-fgsm.npz", run.parent / "plain-fgsm.npz")
    edit(run, lambda record: record["attacks"][1].update(adversarial=name))
    assert "outside the run's folder" in refusal(run)


def test_a_folder_without_a_record_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"run\.json"):
        write_report(tmp_path)


def test_a_place_that_cannot_be_written_is_refused(run, tmp_path):
    with pytest.raises(OutputError):
        write_report(run, tmp_path / "no" / "folder.html")
