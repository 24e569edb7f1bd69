"""What claims need beside the tables, on tiny networks, and the claims of a whole folder of results."""

import json

import numpy as np
import pytest
from paper_zoos import write_judged, write_zoo

from ohmfold.errors import RecipeError
from ohmfold.models.checkpoints import load_model, save_weights
from ohmfold.models.registry import build_model
from ohmfold.toolchain.analysis import error_terms as terms_module
from ohmfold.toolchain.paper import table as table_module
from ohmfold.toolchain.paper.cells import Cells
from ohmfold.toolchain.paper.extras import measure_extras
from ohmfold.toolchain.paper.images import paper_images
from ohmfold.toolchain.paper.subjects import ModuleJudge
from ohmfold.toolchain.paper.table import Budget
from ohmfold.toolchain.paper.twelve import find_training, rows
from ohmfold.toolchain.paper.weight_only import weight_only


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A zoo of everything that claims about MNIST need, and images."""
    folder = tmp_path_factory.mktemp("paper")
    write_zoo(folder / "zoo", "", "-adv", "-fl", "-adv-qat")
    return folder / "zoo", write_judged(folder / "judged.npz", 480)


@pytest.fixture(scope="module")
def measured(whole, tmp_path_factory):
    zoo, data = whole
    cells = Cells(tmp_path_factory.mktemp("cells"))
    return measure_extras("mnist", cells, budget=Budget(16), spec=str(data), zoo=zoo), cells


def test_eq_1_has_all_layers_of_all_models(measured):
    extras, _ = measured
    assert list(extras.terms) == ["Orig.", "Adv.", "F.L."]
    for layers in extras.terms.values():
        assert len(layers) == 5
        for one in layers:
            assert min(one.attack, one.quantisation, one.cross) > 0
            assert one.of_quantisation == one.cross / one.quantisation
    assert "within 76 codes" in extras.terms_of
    assert "16 images of" in extras.images


def test_training_with_both_methods_is_judged_at_three_bits(measured, whole):
    extras, _ = measured
    zoo, data = whole
    judged = paper_images("mnist", str(data), 16, 0).judged
    rounded = ModuleJudge(weight_only(load_model(zoo / "mnist-cnn-adv-qat.safetensors")))
    correct = np.count_nonzero(rounded.predict(judged.images) == judged.labels)
    assert extras.trainings["Adv. with QAT (Q)"]["Clean"].correct == correct
    assert set(extras.trainings) == {"Adv. with QAT (Q)", "Adv. (Q)", "Adv."}
    assert "--recipe qat" in extras.missing["QAT (Q)"]
    for cells in extras.trainings.values():
        assert cells["PGD"].correct <= cells["Clean"].correct


def test_nothing_is_measured_twice(measured, whole, monkeypatch):
    extras, cells = measured
    monkeypatch.setattr(terms_module, "error_terms", None)
    monkeypatch.setattr("ohmfold.toolchain.paper.bench.Bench._attack", None)
    again = measure_extras("mnist", cells, budget=Budget(16), spec=str(whole[1]), zoo=whole[0])
    assert again == extras


def test_without_images_nothing_is_measured_and_the_reason_is_kept(whole, tmp_path):
    extras = measure_extras("cifar10", Cells(tmp_path), budget=Budget(4), spec=str(whole[1]))
    assert extras.blocks == extras.terms == extras.trainings == {}
    assert "the table needs (3, 32, 32)" in extras.reason("Orig.")


def test_blocks_of_cifar10_are_mapped_one_at_a_time(tmp_path):
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    network = build_model("cifar-resnet8", 3)
    file = zoo / "cifar10-wrn32.safetensors"
    save_weights(network, file, architecture="cifar-resnet8")
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, images=rng.integers(0, 256, (24, 3, 32, 32), np.uint8), labels=rng.integers(0, 10, 24))
    extras = measure_extras("cifar10", Cells(tmp_path), budget=Budget(6), spec=str(data), zoo=zoo)
    assert set(extras.blocks) == {"Orig.", "first block mapped", "last block mapped"}
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("cells/clean-*.json")]
    mapped = [one["depends"]["model"]["mapped"] for one in kept]
    assert ["units.0.conv1", "units.0.conv2"] in mapped
    assert ["units.2.conv1", "units.2.conv2"] in mapped
    assert len({one["depends"]["model"]["weights"] for one in kept}) == 3
    assert "train it" in extras.missing["Adv. with QAT (Q)"]
    with np.errstate(all="raise"):
        network.units[0].conv1.weight.data[0, 0, 0, 0] = 1.5
    save_weights(network, file, architecture="cifar-resnet8")
    extras = measure_extras("cifar10", Cells(tmp_path), budget=Budget(6), spec=str(data), zoo=zoo)
    assert "literal domain needs |w| <= 1" in extras.missing["first block mapped"]
    assert "last block mapped" in extras.blocks


def test_the_other_attempts_say_how_they_are_trained(no_zoo, tmp_path):
    found = find_training("mnist", "adversarial-qat", no_zoo)
    assert found.name == "mnist-cnn-adv-qat"
    assert "--recipe adversarial-qat --data mnist --out mnist-cnn-adv-qat.safetensors" in found.command
    with pytest.raises(RecipeError, match="no such folder"):
        find_training("mnist", "qat", tmp_path / "nowhere")


@pytest.mark.slow
def test_claims_of_a_whole_folder_of_results(whole, tmp_path, monkeypatch, call_main):
    """The tables are quick ones: clean accuracy is judged, and what is about robustness asks for the verdict."""
    zoo, data = whole
    needed = ("Orig.", "Adv.", "Adv. (Q)", "F.L.", "F.L. (Q)", "F.L.+mu (Q)")
    monkeypatch.setattr(table_module, "rows", lambda: [row for row in rows() if row.name in needed])
    given = [
        "--out",
        tmp_path,
        "--data",
        data,
        "--zoo",
        zoo,
        "--images",
        "200",
        "--quick",
        "--cw-steps",
        "1x2",
    ]
    for part in ("table1", "figure3", "claims"):
        outcome = call_main([str(one) for one in ("paper", part, *given)])
        assert outcome.code == 0, outcome.err
    assert "Claims of the paper" in outcome.out
    outcomes = json.loads((tmp_path / "claims.json").read_text("utf-8"))["outcomes"]
    mnist = {one["claim"]: one for one in outcomes if one["data"] == "mnist"}
    table = {row["model"]: row for row in json.loads((tmp_path / "table1.json").read_text("utf-8"))["rows"]}

    def lost(family):
        return (
            table[family]["cells"]["Clean"]["percent"] - table[f"{family} (Q)"]["cells"]["Clean"]["percent"]
        )

    assert mnist["fl-q-keeps-clean"]["verdict"] == ("holds" if lost("F.L.") <= 1 else "does not hold")
    assert mnist["adv-q-collapses"]["verdict"] == ("holds" if lost("Adv.") >= 20 else "does not hold")
    models = json.loads((tmp_path / "figure3.json").read_text("utf-8"))["models"]
    norms = {name: [one["norms"]["spectral"] for one in models[name]] for name in ("Orig.", "Adv.", "F.L.")}
    largest = all(a > max(b) for a, *b in zip(norms["Adv."], norms["Orig."], norms["F.L."], strict=True))
    assert mnist["adv-largest-norm"]["verdict"] == ("holds" if largest else "does not hold")
    assert mnist["third-term"]["figures"]
    assert mnist["adv-qat-worse"]["verdict"] in ("holds", "does not hold")
    gain = np.mean([table["F.L."]["cells"][c]["percent"] - table["Orig."]["cells"][c]["percent"]
                    for c in ("CW-L2", "FGSM (w)", "FGSM (s)", "PGD", "BIM", "MIM")])  # fmt: skip
    assert mnist["fl-beats-orig"]["verdict"] == ("not measured" if gain >= 5 else "does not hold")
    assert "table2.json is not there" in mnist["mu-not-black-box"]["why"]
    text = (tmp_path / "CLAIMS.md").read_text("utf-8")
    assert str(tmp_path) not in text
    assert all(one["verdict"] == "not measured" for one in outcomes
               if one["data"] == "cifar10" and one["claim"] != "printed-averages")  # fmt: skip
