"""`ohmfold paper`: what it writes, what it says of what is missing, and that a killed one goes on where it stopped."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from paper_zoos import ARCHITECTURE, small_model, write_zoo

from ohmfold.models.checkpoints import save_weights
from ohmfold.models.registry import build_model
from ohmfold.toolchain.attacks.suite import load_suite
from ohmfold.toolchain.cli import main
from ohmfold.toolchain.paper import bench as bench_module
from ohmfold.toolchain.paper import figures as figures_module
from ohmfold.toolchain.paper import table as table_module
from ohmfold.toolchain.paper.bench import Bench
from ohmfold.toolchain.paper.cells import Cells
from ohmfold.toolchain.paper.printed import paper_tables
from ohmfold.toolchain.paper.strengths import QUICK_CW, load_strengths
from ohmfold.toolchain.paper.twelve import rows

SUFFIXES = ("json", "csv", "md", "svg")


def table_of(folder, number=1):
    return json.loads((folder / f"table{number}.json").read_text("utf-8"))


def row_of(table, name):
    return next(row for row in table["rows"] if row["model"] == name)


def test_a_table_is_json_csv_markdown_and_a_picture(small):
    assert {path.name for path in small.out.iterdir() if path.is_file()} == {f"table1.{s}" for s in SUFFIXES}
    ET.fromstring((small.out / "table1.svg").read_text("utf-8"))  # noqa: S314 - our own file
    with (small.out / "table1.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    table = table_of(small.out)
    cell = row_of(table, "Orig. (Q)")["cells"]["PGD"]
    line = next(one for one in lines if (one["model"], one["column"]) == ("Orig. (Q)", "PGD"))
    assert (int(line["correct"]), int(line["images"])) == (cell["correct"], 6)
    assert float(line["paper"]) == cell["paper"] == 2.63


def test_every_model_has_a_row_and_ours_stand_beside_the_papers(small):
    table = table_of(small.out)
    assert [row["model"] for row in table["rows"]] == [row.name for row in rows()]
    printed = paper_tables()[1]
    for row in table["rows"]:
        assert set(row["cells"]) == (set() if row["missing"] else set(printed.columns))
        for column, cell in row["cells"].items():
            assert cell["paper"] == printed.value(row["model"], column)
            assert cell["percent"] == 100 * cell["correct"] / cell["images"]
            assert cell["low"] <= cell["percent"] <= cell["high"]


def test_a_model_without_weights_says_how_to_train_it_and_has_no_figures(small):
    row = row_of(table_of(small.out), "F.L.+mu (Q)")
    assert row["cells"] == {}
    assert row["sha256"] == ""
    assert (
        "no checkpoint mnist-cnn-fl; train it: ohmfold train --model mnist-cnn --recipe feedback"
        in row["missing"]
    )
    text = (small.out / "table1.md").read_text("utf-8")
    assert "- (98.93)" in text
    assert "ohmfold train --model mnist-cnn --recipe feedback" in text


def test_a_quick_table_says_so_and_that_there_is_no_verdict(small):
    table, text = table_of(small.out), (small.out / "table1.md").read_text("utf-8")
    assert table["quick"]
    assert "subset of 6 images" in table["budget"] in text
    assert "No masking verdict was computed" in text
    verdicts = {row["verdict"] for row in table["rows"]}
    assert verdicts == {"not computed (quick)", "no figures to judge"}
    assert all(row["adaptive"] is None and row["query"] is None for row in table["rows"])


def test_strengths_are_printed(small):
    strengths = {one["column"]: one for one in table_of(small.out)["strengths"]}
    assert list(strengths) == [c for c in paper_tables()[1].columns if c != "Clean"]
    assert "epsilon 0.3 (76 codes)" in strengths["PGD"]["attack"]
    assert "steps 40" in strengths["PGD"]["attack"]
    assert "within L2" in strengths["CW-L2"]["attack"]


def test_shorter_cw_l2_is_stated_in_every_output(small, tmp_path, monkeypatch, call_main):
    monkeypatch.setattr(table_module, "rows", lambda: rows()[:1])
    arguments = [*small.arguments("table1", tmp_path, "--quick", "--images", "3"), "--cw-steps", "1x7"]
    outcome = call_main(arguments)
    assert outcome.code == 0
    words = "CW-L2 with 1 constants of 7 steps (not 5 of 1000)"
    table = table_of(tmp_path)
    assert words in table["budget"]
    assert words in " ".join(outcome.out.split())
    assert words in (tmp_path / "table1.md").read_text("utf-8")
    (cw,) = (one["attack"] for one in table["strengths"] if one["column"] == "CW-L2")
    assert "steps 7" in cw
    assert "search steps 1" in cw


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        (table_module.Budget(), "500 images; adaptive attacks, queries and verdict on the first 200"),
        (
            table_module.Budget(probed=50, cw_steps=(5, 200)),
            "CW-L2 with 5 constants of 200 steps (not 5 of 1000); adaptive attacks, queries and verdict on the first 5",
        ),
        (table_module.Budget(probed=900), "verdict on the first 500"),
        (
            table_module.Budget(quick=True),
            "quick: a subset of 500 images, CW-L2 with 2 constants of 60 steps",
        ),
    ],
)
def test_what_is_spent_is_said(budget, words):
    assert words in budget.text(500)


def test_strengths_tell_their_ball(small):
    strengths = {one["column"]: one["codes"] for one in table_of(small.out)["strengths"]}
    assert strengths["PGD"] == 76
    assert strengths["FGSM (w)"] == 25
    assert strengths["CW-L2"] is None


def test_no_path_of_this_machine_is_in_the_results(small):
    for suffix in SUFFIXES:
        assert str(small.zoo.parent) not in (small.out / f"table1.{suffix}").read_text("utf-8")


def test_a_second_run_measures_nothing_and_writes_the_same(small, monkeypatch):
    before = {s: (small.out / f"table1.{s}").read_bytes() for s in SUFFIXES}
    monkeypatch.setattr(Bench, "_attack", None)
    assert main(small.arguments("table1", small.out, "--quick", "--images", "6")) == 0
    assert before == {s: (small.out / f"table1.{s}").read_bytes() for s in SUFFIXES}


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same(small, no_zoo, tmp_path):
    arguments = small.arguments("table1", tmp_path / "out", "--quick", "--images", "6")
    code = (
        "from pathlib import Path\nfrom ohmfold.toolchain.cli import main\nfrom ohmfold.toolchain.paper import twelve\n"
        f"twelve.ZOO = Path({str(no_zoo)!r})\nmain({arguments!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("out/cells/*.json"))) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/cells/*.json")}
    assert not (tmp_path / "out" / "table1.json").exists()
    assert main(arguments) == 0
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    for suffix in SUFFIXES:
        assert (tmp_path / "out" / f"table1.{suffix}").read_bytes() == (
            small.out / f"table1.{suffix}"
        ).read_bytes()


def test_black_box_attacks_use_the_given_substitute(small, tmp_path):
    arguments = small.arguments("table2", tmp_path, "--quick", "--images", "8")
    assert main([*arguments, "--substitute", str(small.substitute)]) == 0
    table = table_of(tmp_path, 2)
    assert table["substitute"] == "other.safetensors"
    assert "other.safetensors" in (tmp_path / "table2.md").read_text("utf-8")
    assert set(row_of(table, "Orig. (Q) deployed")["cells"]) == set(paper_tables()[2].columns)
    sets = list(tmp_path.glob("cells/set-*.npz"))
    assert len(sets) == 4  # one for each attack, whatever the number of models


def test_a_substitute_is_trained_once_and_kept(small, tmp_path, monkeypatch):
    from ohmfold.models import training
    from ohmfold.toolchain.paper.images import make_substitute, paper_images, training_images

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = paper_images("mnist", str(small.data), 10, 0)
    judged = {image.tobytes() for image in images.judged.images}
    assert not judged & {image.tobytes() for image in training_images(images).images}
    assert not judged & {image.tobytes() for image in images.calibration.images}
    first, words = make_substitute("mnist", images)
    assert "mnist-vgg, 3 epochs on 30 images" in words
    monkeypatch.setattr(training, "train", None)
    again, _ = make_substitute("mnist", images)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_a_whole_table_has_verdicts_adaptive_attacks_and_queries(small, tmp_path, monkeypatch):
    """With short attacks in the place of the costly ones, everything that `--quick` leaves out."""
    monkeypatch.setattr(
        table_module, "load_strengths", lambda data, who, cw: load_strengths(data, who, cw=cw or QUICK_CW)
    )
    monkeypatch.setattr(bench_module, "load_suite", lambda name: load_suite("noise"))
    asked = []

    def gather(judge, sources, images, *rest, **more):
        asked.append((sorted(sources), len(images), rest[1]))
        return

    found = type("Verdict", (), {"label": "masked", "because": ("loss scale",), "findings": ()})()
    monkeypatch.setattr(bench_module, "gather", gather)
    monkeypatch.setattr(bench_module, "judge_evidence", lambda _evidence: found)
    small = small._replace(zoo=write_zoo(tmp_path / "zoo", "", "-adv"))
    few = [row for row in rows() if row.name in ("Orig.", "Adv.", "Orig.+mu (Q) deployed", "F.L.")]
    monkeypatch.setattr(table_module, "rows", lambda: few)
    assert main(small.arguments("table1", tmp_path, "--images", "6")) == 0
    table, text = table_of(tmp_path), (tmp_path / "table1.md").read_text("utf-8")
    assert not table["quick"]
    assert table["probed"] == 6
    measured = [row for row in table["rows"] if not row["missing"]]
    assert len(measured) == len(asked) == 3
    assert {radius for _, _, radius in asked} == {76}
    for row in measured:
        assert (row["verdict"], row["because"]) == ("masked", ["loss scale"])
        assert row["adaptive"]["images"] == row["query"]["images"] == 6
    assert "masked (loss scale)" in text
    assert "on Orig. and Adv., on average" in text  # strengths were held against the paper's rows


def test_weights_beyond_the_maps_domain_are_reported(small, tmp_path):
    network = small_model()
    with np.errstate(all="raise"):
        network.fc.weight.data[0, 0] = 1.5
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    save_weights(network, zoo / "mnist-cnn.safetensors", architecture=ARCHITECTURE)
    small = small._replace(zoo=zoo)
    assert main(small.arguments("table1", tmp_path / "out", "--quick", "--images", "2")) == 0
    table = table_of(tmp_path / "out")
    assert row_of(table, "Orig. (Q)")["missing"] == ""
    assert "literal domain needs |w| <= 1" in row_of(table, "Orig.+mu (Q) deployed")["missing"]
    assert "not mapped" in (tmp_path / "out" / "table1.md").read_text("utf-8")


def test_figure_1_is_clean_accuracy_at_each_width(small, tmp_path, call_main):
    assert call_main(small.arguments("figure1", tmp_path, "--images", "15")).code == 0
    document = json.loads((tmp_path / "figure1-mnist.json").read_text("utf-8"))
    assert list(document["cells"]) == ["Orig."]
    assert list(document["cells"]["Orig."]) == [*map(str, range(1, 9)), "float"]
    assert "adversarially trained model loses accuracy" in document["paper_shape"]
    assert "mnist-cnn-fl" in document["missing"]["F.L."]
    with (tmp_path / "figure1-mnist.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 9
    ET.fromstring((tmp_path / "figure1-mnist.svg").read_text("utf-8"))  # noqa: S314 - our own file


def test_figure_2_is_the_mu_law_map(tmp_path):
    files = figures_module.write_curves(tmp_path)
    assert [file.name for file in files] == [f"figure2.{suffix}" for suffix in SUFFIXES]
    document = json.loads(files[0].read_text("utf-8"))
    curve = dict(zip(document["w"], document["curves"]["255"], strict=True))
    assert (curve[-1.0], curve[0.0], curve[1.0]) == (-1.0, 0.0, 1.0)
    assert curve[0.5] == pytest.approx(np.log(128.5) / np.log(256), abs=1e-6)
    assert curve[-0.5] == -curve[0.5]


@pytest.mark.slow
def test_of_everything_what_has_no_images_is_left_out_and_said_to_be(small, tmp_path, call_main):
    more = ["--quick", "--images", "2", "--substitute", str(small.substitute)]
    outcome = call_main(small.arguments("all", tmp_path, *more))
    assert outcome.code == 0
    for part in ("table3", "table4", "figure1 of cifar10"):
        assert f"{part} was left out: " in outcome.out
    names = {path.stem for path in tmp_path.glob("*.json")}
    assert names == {"table1", "table2", "figure1-mnist", "figure2", "figure3", "figure4", "claims"}
    assert (tmp_path / "CLAIMS.md").is_file()


@pytest.mark.parametrize(
    ("part", "more", "message"),
    [
        ("table5", (), "no part 'table5' of the paper; expected one of table1"),
        ("table3", (), "the table needs (3, 32, 32)"),
        ("table1", ("--zoo", "nowhere"), "no such folder"),
        ("table1", ("--data", "nowhere"), "data set 'nowhere' not found"),
        (
            "table2",
            ("--quick", "--images", "2", "--substitute", "nowhere.safetensors"),
            "neither a file nor a bundled model",
        ),
        ("table1", ("--images", "0"), "Invalid value for '--images'"),
        ("table1", ("--probed", "0"), "Invalid value for '--probed'"),
        ("table1", ("--cw-steps", "5"), "expected SEARCHESxSTEPS, two numbers above 0, such as 5x200"),
        ("table1", ("--cw-steps", "0x20"), "--cw-steps 0x20: expected SEARCHESxSTEPS"),
    ],
)
def test_bad_input_is_one_line(small, tmp_path, call_main, part, more, message):
    outcome = call_main([*small.arguments(part, tmp_path), *more])
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.startswith("error: ")
    assert "Traceback" not in outcome.err


def test_results_that_cannot_be_written_are_refused(small, tmp_path, call_main):
    taken = tmp_path / "file"
    taken.write_text("")
    outcome = call_main(small.arguments("figure2", taken))
    assert outcome.code == 2
    assert "cannot make the folder" in outcome.err


def test_a_name_stands_beside_figures_of_cifar10(small, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        table_module, "measure_table", lambda number, *_, called, **__: asked.append((number, called))
    )
    monkeypatch.setattr("ohmfold.toolchain.paper.write.write_table", lambda *_: ())
    monkeypatch.setattr("ohmfold.toolchain.cli.paper._show", lambda _: None)
    for part in ("table1", "table3"):
        main(small.arguments(part, tmp_path, "--cifar10-name", "CIFAR-10 (JPEG)"))
    assert asked == [(1, None), (3, "CIFAR-10 (JPEG)")]


def test_a_table_of_cifar10_maps_the_last_block_and_judges_the_artifact(tmp_path, monkeypatch):
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    save_weights(
        build_model("cifar-resnet8", 3), zoo / "cifar10-wrn32.safetensors", architecture="cifar-resnet8"
    )
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, images=rng.integers(0, 256, (12, 3, 32, 32), np.uint8), labels=rng.integers(0, 10, 12))
    monkeypatch.setattr(table_module, "rows", lambda: tuple(row for row in rows() if row.quantised))
    table = table_module.measure_table(
        3, Cells(tmp_path / "out"), budget=table_module.Budget(3, quick=True), data=str(data),
        called="CIFAR-10 (JPEG)", zoo=zoo,
    )  # fmt: skip
    assert table.data == "CIFAR-10 (JPEG)"
    assert table.epsilon_codes == 8
    measured = [row.model for row in table.rows if not row.missing]
    assert measured == [row.name for row in rows() if row.family == "Orig." and row.quantised]
    assert "epsilon 8/255 (8 codes)" in table.strengths[3].attack
