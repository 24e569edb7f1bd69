"""The bench: figures are counts that can be recounted, kept once, and of nobody else."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from paper_zoos import small_model, some_images, write_judged, write_zoo

from ohmfold.errors import OutputError, RecipeError
from ohmfold.models.image_data import Dataset
from ohmfold.toolchain.attacks import FGSM, CarliniWagnerL2
from ohmfold.toolchain.paper import bench as bench_module
from ohmfold.toolchain.paper.bench import Bench
from ohmfold.toolchain.paper.cells import Cells
from ohmfold.toolchain.paper.strengths import QUICK_CW, load_strengths
from ohmfold.toolchain.paper.subjects import ModuleJudge, make_subject
from ohmfold.toolchain.paper.twelve import Row

COUNT = 24


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_zoo(tmp_path_factory.mktemp("paper") / "zoo", "") / "mnist-cnn.safetensors"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with np.load(write_judged(tmp_path_factory.mktemp("paper") / "judged.npz", COUNT)) as archive:
        return Dataset("rectangles", archive["images"], archive["labels"])


@pytest.fixture
def bench(data, tmp_path):
    return Bench(data, Cells(tmp_path), seed=4, substitute=small_model(7))


@pytest.fixture(scope="module")
def subject(file):
    return make_subject(Row("Orig.", quantised=True), "mnist", file, some_images(8))


def strength(attacker, column):
    return load_strengths("mnist", attacker, cw=QUICK_CW).columns[column][0]


def test_clean_accuracy_is_a_count(bench, subject, data):
    found = bench.clean(subject)
    assert found.images == COUNT
    assert found.correct == np.count_nonzero(subject.judge.predict(data.images) == data.labels)
    assert found.percent == 100 * found.correct / COUNT


def test_a_white_box_attack_is_the_attack_itself(bench, subject, data):
    found = bench.attacked(subject, strength("white box", "FGSM (w)"))
    result = FGSM()(subject.sources["twin"], subject.judge, data.images, data.labels, 25, seed=4)
    assert found.correct == COUNT - np.count_nonzero(result.success)
    assert found.correct < bench.clean(subject).correct


def test_black_box_images_are_made_on_the_substitute_and_judged_by_the_model(bench, subject, data):
    found = bench.attacked(subject, strength("black box", "FGSM (s)"))
    other = small_model(7)
    made = FGSM()(other, ModuleJudge(other), data.images, data.labels, 76, seed=4).adversarial
    clean = subject.judge.predict(data.images) == data.labels
    assert found.correct == np.count_nonzero((subject.judge.predict(made) == data.labels) & clean)


def test_black_box_attacks_need_a_substitute(data, subject, tmp_path):
    with pytest.raises(RecipeError, match="--substitute"):
        Bench(data, Cells(tmp_path)).attacked(subject, strength("black box", "FGSM (s)"))


def test_a_least_distance_runs_once_and_counts_at_every_radius(bench, subject, data, monkeypatch):
    first = load_strengths("mnist", "white box", cw=QUICK_CW).columns["CW-L2"][0]
    columns = [replace(first, within=within) for within in (0.01, 0.02, 0.05, 0.1, 0.2, 3.0)]
    found = {one.within: bench.attacked(subject, one).correct for one in columns}
    monkeypatch.setattr(Bench, "_attack", None)
    assert found == {one.within: bench.attacked(subject, one).correct for one in columns}
    settings = columns[0].entry.settings
    assert (settings["search_steps"], settings["steps"]) == (2, 60)
    attack = CarliniWagnerL2(**settings)
    result = attack(subject.sources["twin"], subject.judge, data.images, data.labels, 255, seed=4)
    for within, correct in found.items():
        assert correct == round(COUNT * result.accuracy_within(255 * within, "2"))
    assert len(set(found.values())) > 1


def test_noise_needs_no_gradient(bench, subject):
    found = bench.attacked(subject, strength("black box", "Normal"))
    assert 0 <= found.correct <= bench.clean(subject).correct


def test_a_cascade_leaves_what_withstands_every_attack(bench, subject):
    whole = bench.cascade(subject, "noise", 90)
    kept = [json.loads(p.read_text()) for p in bench.cells._folder.glob("noise-*.json")]
    left = kept[0]["found"]["left_after"]
    assert list(left) == ["uniform-noise", "gaussian-noise"]
    assert left["uniform-noise"] >= left["gaussian-noise"] == whole.correct


def test_a_cascade_leaves_out_attacks_along_gradients_that_there_are_not(bench, file, monkeypatch):
    from ohmfold.toolchain.attacks.suite import Suite

    text = 'title = "T"\n' + "".join(
        f'[[attacks]]\nname = "{s}"\nattack = "fgsm"\nsource = "{s}"\n'
        for s in ("twin", "parent", "unmapped")
    )
    monkeypatch.setattr(bench_module, "load_suite", lambda name: Suite.from_toml(text, name))
    for row in (Row("Orig."), Row("Orig.", quantised=True), Row("Orig.", mapped=True, quantised=True)):
        bench.cascade(make_subject(row, "mnist", file, some_images(8)), "mine", 30)
    files = bench.cells._folder.glob("mine-*.json")
    seen = [sorted(json.loads(path.read_text())["found"]["left_after"]) for path in files]
    assert sorted(seen) == [["parent", "twin"], ["parent", "twin", "unmapped"], ["twin"]]


def test_a_verdict_names_the_checks_that_decided(data, subject, tmp_path):
    few = Bench(data.take(np.arange(6)), Cells(tmp_path))
    verdict = few.verdict(subject, 20)
    assert verdict["label"] in ("trustworthy", "masked", "inconclusive")
    assert verdict["findings"]
    assert bool(verdict["because"]) == (verdict["label"] != "trustworthy")
    assert few.verdict(subject, 20) == verdict


def test_the_costly_attacks_take_as_many_images_as_are_asked_for(data, subject, tmp_path):
    bench = Bench(data, Cells(tmp_path), most_probed=5)
    assert bench.cascade(subject, "noise", 90).images == 5
    bench.verdict(subject, 20)
    Bench(data, Cells(tmp_path), most_probed=4).cascade(subject, "noise", 90)
    assert len(list(tmp_path.glob("cells/noise-*.json"))) == 2
    assert len(Bench(data, Cells(tmp_path)).probed) == COUNT


def test_the_verdict_probes_as_many_images_as_are_asked_for(data, subject, tmp_path, monkeypatch):
    asked = []

    def gather(_judge, _sources, images, *_rest, plan, **_more):
        asked.append((len(images), plan.images))

    found = type("Verdict", (), {"label": "masked", "because": (), "findings": ()})()
    monkeypatch.setattr(bench_module, "gather", gather)
    monkeypatch.setattr(bench_module, "judge_evidence", lambda _evidence: found)
    many = data.take(np.tile(np.arange(COUNT), 10))
    Bench(many, Cells(tmp_path), most_probed=220).verdict(subject, 20)
    assert asked == [(220, 220)]


def test_cw_l2_of_other_steps_is_another_figure(bench, subject):
    for steps in ((1, 3), (2, 3)):
        bench.attacked(subject, load_strengths("mnist", "white box", cw=steps).columns["CW-L2"][0])
    assert len(list(bench.cells._folder.glob("cw-l2-*.json"))) == 2


def test_a_figure_of_other_settings_is_another_figure(data, subject, file, tmp_path):
    cells = Cells(tmp_path)
    first = Bench(data, cells)
    one = strength("white box", "FGSM (w)")
    first.attacked(subject, one)
    first.attacked(subject, strength("white box", "FGSM (s)"))
    Bench(data, cells, seed=1).attacked(subject, one)
    Bench(data.take(np.arange(5)), cells).attacked(subject, one)
    first.attacked(make_subject(Row("Orig."), "mnist", file, some_images(8)), one)
    assert len(list(tmp_path.glob("cells/fgsm-*.json"))) == 5
    first.attacked(subject, one)
    assert len(list(tmp_path.glob("cells/fgsm-*.json"))) == 5


def test_a_damaged_figure_is_named(bench, subject):
    bench.clean(subject)
    path = next(bench.cells._folder.glob("clean-*.json"))
    path.write_text("{")
    with pytest.raises(OutputError, match=rf"{path.name} is damaged .*remove it"):
        bench.clean(subject)


def test_a_damaged_set_is_named(bench, subject):
    one = strength("black box", "FGSM (s)")
    bench.attacked(subject, one)
    for figure in bench.cells._folder.glob("black-box-fgsm-strong-*.json"):
        figure.unlink()
    path = next(bench.cells._folder.glob("set-*.npz"))
    path.write_bytes(b"PK")
    with pytest.raises(OutputError, match="is damaged"):
        bench.attacked(subject, one)


def test_float_ties_go_to_the_lowest_class():
    class Flat(torch.nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 10)

    assert (ModuleJudge(Flat()).predict(some_images(3)) == 0).all()
