"""A campaign counts what its sets hold, goes on where it was stopped, and says what it could not do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from campaigns import plan, suite, target
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.errors import DataError, OutputError, RecipeError
from ohmfold.models.image_data import Dataset
from ohmfold.toolchain.analysis.intervals import wilson
from ohmfold.toolchain.attacks import load_adversarial
from ohmfold.toolchain.attacks.campaign import Target, campaign_plan, run_campaign
from ohmfold.toolchain.attacks.folder import check_campaign_folder, write_campaign
from ohmfold.toolchain.attacks.judges import ArtifactJudge, parse_judge
from ohmfold.toolchain.attacks.results import CampaignResult, fooled_within
from ohmfold.toolchain.attacks.state import FolderState
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.run_record import RunRecord, VerdictRow

SUPPORT = Path(__file__).parents[2] / "support"
EVERYTHING = suite(
    {"attack": "uniform-noise"},
    {"attack": "pgd", "settings": {"steps": 4}},
    {"attack": "square", "settings": {"budget": 20}},
    {"attack": "cw-l2", "settings": {"steps": 20, "search_steps": 2}, "radii": [0.05, 0.2]},
)
VERDICT = VerdictRow(variant="v", label="inconclusive", images=3, norm="inf", epsilon_codes=12, findings=())


def written(goal, plan, folder, state=None):
    """Run a campaign into a folder; everything that its result says, times aside."""
    state = FolderState(folder, campaign_plan(goal, plan)) if state is None else state
    campaign = run_campaign(goal, plan, state=state, verdict=lambda _: VERDICT)
    write_campaign(campaign, folder, title="t", variant="v", command="c")
    state.done()
    return contents(folder)


def contents(folder):
    result = json.loads((folder / "result.json").read_text())
    del result["seconds"]
    return result, {path.name: path.read_bytes() for path in folder.glob("adversarial-*.npz")}


# What is counted


def test_every_figure_is_that_of_the_set_behind_it(tmp_path):
    goal = target(wrong=(1, 7))
    result, _ = written(goal, plan(goal, EVERYTHING), tmp_path / "run")
    emulator = Emulator(tmp_path / "run" / "artifact.onnx")
    labels = goal.data.labels
    assert result["clean"]["correct"] == len(labels) - 2
    for row in result["attacks"]:
        saved = load_adversarial(tmp_path / "run" / row["adversarial"], goal.data.images)
        assert saved.intact
        assert saved.artifact_sha256 == result["artifact_sha256"]
        right = emulator.predict(saved.result.adversarial) == labels
        assert not right[[1, 7]].any()  # wrong without an attack: counted as wrong, and not attacked
        assert not saved.result.attacked[[1, 7]].any()
        assert np.array_equal(saved.result.adversarial[[1, 7]], goal.data.images[[1, 7]])
        assert row["left"]["correct"] == right.sum()
        assert row["turned"] == len(labels) - 2 - right.sum()
        assert [row["left"]["low"], row["left"]["high"]] == list(wilson(int(right.sum()), len(labels)))
    assert CampaignResult.load(tmp_path / "run").model_dump(mode="json")["attacks"] == result["attacks"]


def test_the_worst_case_is_per_image_and_takes_every_image_within_the_ball():
    goal = target()
    campaign = run_campaign(goal, plan(goal, EVERYTHING, ladder=(4, 20)))
    labels = goal.data.labels
    for worst in campaign.result.worst_case:
        standing = np.ones(len(labels), bool)
        for _, result in campaign.keyed:
            change = result.adversarial.astype(int) - result.original
            far = np.abs(change).max(axis=(1, 2, 3))
            standing &= ~((result.predictions != labels) & (far <= worst.radius))
        assert worst.left.correct == standing.sum()
        assert sum(worst.by.values()) == len(labels) - standing.sum()
    assert [worst.radius for worst in campaign.result.worst_case] == [12, 4, 20]
    least = min(row.left.correct for row in campaign.result.attacks if row.norm == "inf" and row.radius == 12)
    assert campaign.result.robust.left.correct <= least


def test_a_cascade_attacks_what_still_stands_and_counts_what_is_left_of_it():
    goal = target()
    entries = (
        {"attack": "uniform-noise"},
        {"attack": "fgsm"},
        {"attack": "adaptive-pgd", "settings": {"steps": 5, "restarts": 1}},
    )
    alone = run_campaign(goal, plan(goal, suite(*entries)))
    line = run_campaign(goal, plan(goal, suite(*entries, cascade=True)))
    standing = np.ones(len(goal.data), bool)
    for row, (_, result) in zip(line.result.attacks, line.keyed, strict=True):
        assert np.array_equal(result.attacked, standing)
        assert row.attacked == standing.sum()
        standing &= ~result.success
        assert row.left.correct == standing.sum()
    assert all(row.attacked == len(goal.data) for row in alone.result.attacks)
    assert line.result.robust.left.correct == standing.sum()


def test_attacks_of_least_distance_are_counted_at_stated_radii():
    goal = target()
    campaign = run_campaign(goal, plan(goal, EVERYTHING))
    row = campaign.result.attacks[-1]
    found = campaign.results[-1]
    for at in row.at_radii:
        squares = np.square(found.adversarial.astype(int) - found.original).sum(axis=(1, 2, 3))
        within = squares <= (255 * at.epsilon) ** 2
        assert at.left.correct == (~(found.success & within)).sum()
        assert np.array_equal(~fooled_within(found, "2", at.radius), ~(found.success & within))
    assert [at.epsilon for at in row.at_radii] == [0.05, 0.2]
    assert row.distances.norm == "2"


def test_queries_are_counted():
    goal = target()
    campaign = run_campaign(goal, plan(goal, EVERYTHING))
    square = next(row for row in campaign.result.attacks if row.attack == "square")
    found = dict(campaign.keyed)["square"]
    assert square.queries.total == found.queries.sum() > 0
    assert found.queries.max() <= 20


# Going on


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    pass


class Stopping(FolderState):
    """Stops before the batch number `after` is kept."""

    def __init__(self, folder, of, after):
        super().__init__(folder, of)
        self.left = after

    def keep(self, key, number, batch):
        if not self.left:
            raise Stopped
        self.left -= 1
        super().keep(key, number, batch)


def outcome(campaign):
    """Everything that a campaign found, times aside."""
    figures = campaign.result.model_dump(mode="json", exclude={"seconds"})
    return figures, [result.adversarial.tobytes() for result in campaign.results]


def test_stopped_before_any_of_its_batches_it_goes_on_to_the_same_result(tmp_path):
    goal = target(wrong=(0,))
    todo = plan(goal, EVERYTHING)
    whole = outcome(run_campaign(goal, todo, verdict=lambda _: VERDICT))
    for after in range(3 * len(todo.attacks)):
        folder = tmp_path / f"run-{after}"
        with pytest.raises(Stopped):
            run_campaign(goal, todo, state=Stopping(folder, campaign_plan(goal, todo), after))
        assert len(list((folder / "state").rglob("*.npz"))) == after
        state = FolderState(folder, campaign_plan(goal, todo))
        assert outcome(run_campaign(goal, todo, state=state, verdict=lambda _: VERDICT)) == whole


def test_a_finished_campaign_leaves_no_state(tmp_path):
    goal = target()
    written(goal, plan(goal, suite({"attack": "fgsm"})), tmp_path / "run")
    assert not (tmp_path / "run" / "state").exists()


def test_what_is_finished_is_not_done_again(tmp_path, monkeypatch):
    goal = target()
    todo = plan(goal, EVERYTHING)
    state = FolderState(tmp_path, campaign_plan(goal, todo))
    first = run_campaign(goal, todo, state=state, verdict=lambda _: VERDICT)

    def never(*_, **__):
        raise AssertionError("attacked again")

    monkeypatch.setattr("ohmfold.toolchain.attacks.batches.AttackBench.run", never)
    again = run_campaign(goal, todo, state=FolderState(tmp_path, campaign_plan(goal, todo)), verdict=never)
    assert again.result == first.result


CHILD = """
import sys
sys.path.insert(0, {support!r})
from pathlib import Path
from campaigns import plan, suite, target
from ohmfold.toolchain.attacks.campaign import campaign_plan, run_campaign
from ohmfold.toolchain.attacks.folder import write_campaign
from ohmfold.toolchain.attacks.state import FolderState
goal = target(60, batch=4)
todo = plan(goal, suite(
    {{"attack": "pgd", "settings": {{"steps": 30}}}}, {{"attack": "square", "settings": {{"budget": 60}}}},
    {{"attack": "adaptive-pgd", "settings": {{"steps": 30, "restarts": 2}}}}, cascade=True,
))
folder = Path(sys.argv[1])
state = FolderState(folder, campaign_plan(goal, todo))
campaign = run_campaign(goal, todo, state=state)
write_campaign(campaign, folder, title="t", variant="v", command="c")
state.done()
"""


@pytest.mark.slow
def test_killed_at_random_times_it_ends_with_the_same_result(tmp_path):
    code = CHILD.format(support=str(SUPPORT))

    def start(folder):
        return subprocess.Popen([sys.executable, "-c", code, str(folder)], stderr=subprocess.PIPE)

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr.read()
    rng, folder, kept = np.random.default_rng(), tmp_path / "killed", []
    for _ in range(4):
        child = start(folder)
        while child.poll() is None and len(list(folder.rglob("*.npz"))) <= (kept[-1] if kept else 0):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept.append(len(list(folder.rglob("*.npz"))))
        if (folder / "result.json").exists():
            break
    assert kept[0] > 0
    last = start(folder)
    assert last.wait() == 0, last.stderr.read()
    assert contents(folder) == contents(tmp_path / "whole")
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_the_state_of_another_campaign_is_left_alone_and_refused(tmp_path):
    goal = target()
    FolderState(tmp_path, campaign_plan(goal, plan(goal, EVERYTHING)))
    for other, what in (
        (target(seed=4), "seed"),
        (target(30), "data set"),
        (target(batch=8), "batch size"),
        (target(judge=parse_judge("ideal:seed=1")), "judge"),
    ):
        with pytest.raises(OutputError, match=f"unfinished campaign of another {what}"):
            FolderState(tmp_path, campaign_plan(other, plan(other, EVERYTHING)))
    with pytest.raises(OutputError, match="another attacks"):
        FolderState(tmp_path, campaign_plan(goal, plan(goal, suite({"attack": "pgd"}))))
    FolderState(tmp_path, campaign_plan(target(), plan(target(), EVERYTHING)))


def test_a_folder_of_something_else_is_refused_and_an_unfinished_campaigns_is_not(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    with pytest.raises(OutputError, match="is not empty and holds no"):
        check_campaign_folder(tmp_path / "mine")
    goal = target()
    FolderState(tmp_path / "run", campaign_plan(goal, plan(goal, EVERYTHING)))
    check_campaign_folder(tmp_path / "run")


def test_a_second_campaign_in_a_folder_leaves_nothing_of_the_first(tmp_path):
    goal = target()
    written(goal, plan(goal, EVERYTHING, ladder=(4,)), tmp_path / "run")
    assert (tmp_path / "run" / "accuracy.svg").exists()
    written(goal, plan(goal, suite({"attack": "fgsm"})), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {name for name in names if name.endswith(".npz")} == {"adversarial-fgsm.npz"}
    assert "accuracy.svg" not in names
    assert [row.attack for row in RunRecord.load(tmp_path / "run").attacks] == ["fgsm", "worst case"]


# Plans


def test_attacks_without_a_radius_of_their_own_run_at_every_radius_of_the_ladder():
    goal = target()
    own = suite({"attack": "pgd"}, {"attack": "fgsm", "epsilon": 9}, {"attack": "cw-l2"})
    keys = [(one.key, one.radius) for one in plan(goal, own, ladder=(4, 12, 30)).attacks]
    assert keys[:4] == [("pgd", 12), ("pgd-4", 4), ("pgd-30", 30), ("fgsm", 9)]
    assert [key for key, _ in keys].count("cw-l2") == 1


def test_what_cannot_run_is_named_with_its_reason():
    goal = target()
    missing = (
        {"attack": "mim", "source": "parent"},
        {"attack": "bim", "source": "substitute"},
        {"attack": "fgsm", "source": "unmapped"},
    )
    found = plan(goal, suite({"attack": "pgd"}, *missing))
    assert [one.key for one in found.attacks] == ["pgd"]
    reasons = {one.name: one.reason for one in found.skipped}
    assert "made by others" in reasons["mim"]
    assert "--substitute" in reasons["bim"]
    assert "no mu-law map" in reasons["fgsm"]
    with pytest.raises(DataError, match="none of the attacks can run: mim: the artifact was made by others"):
        plan(goal, suite({"attack": "mim", "source": "parent"}))
    with pytest.raises(RecipeError, match="no suite given"):
        plan(goal)


def test_in_an_l2_campaign_attacks_are_bound_by_l2_or_left_out():
    goal = target()
    own = suite(
        {"attack": "pgd", "settings": {"steps": 3}}, {"attack": "uniform-noise"}, {"attack": "gaussian-noise"}
    )
    found = plan(goal, own, norm="2", radius=40.5)
    assert [(one.key, one.attack.norm, one.radius) for one in found.attacks] == [("pgd", "2", 40.5)]
    assert [one.name for one in found.skipped] == ["uniform-noise", "gaussian-noise"]
    campaign = run_campaign(goal, found)
    squares = np.square(campaign.results[0].adversarial.astype(int) - campaign.results[0].original)
    assert squares.sum(axis=(1, 2, 3)).max() <= 40.5**2
    assert campaign.result.robust.left == campaign.result.attacks[0].left


def test_two_suites_may_have_an_attack_of_the_same_name():
    goal = target()
    one = suite({"attack": "fgsm"}, name="one")
    two = suite({"attack": "fgsm"}, name="two")
    assert [planned.key for planned in plan(goal, one, two).attacks] == ["fgsm", "two-fgsm"]


def test_labels_that_the_artifact_does_not_know_are_found_before_any_attack(monkeypatch):
    goal = target()
    monkeypatch.setattr(
        "ohmfold.toolchain.attacks.batches.AttackBench.run", lambda *_: pytest.fail("attacked")
    )
    labels = goal.data.labels.copy()
    labels[3] = 5
    bad = Target(goal.judge, goal.sources, Dataset("mine", goal.data.images, labels))
    with pytest.raises(DataError, match="mine: found the label 5; the artifact knows the classes 0 to 4"):
        run_campaign(bad, plan(bad, EVERYTHING))


def test_images_of_another_shape_are_found_before_any_attack():
    goal = target()
    images = np.zeros((3, 1, 5, 5), np.uint8)
    bad = Target(goal.judge, goal.sources, Dataset("mine", images, np.zeros(3, np.int64)))
    with pytest.raises(DataError, match="uint8"):
        run_campaign(bad, plan(bad, EVERYTHING))


@pytest.mark.parametrize(("asked", "used"), [(None, 128), (7, 7)])
def test_a_batch_is_as_large_as_was_asked_for_or_as_memory_holds(asked, used):
    goal = target(batch=asked)
    assert goal.batch_size == used
    assert campaign_plan(goal, plan(goal, EVERYTHING))["batch_size"] == used


def test_the_heaviest_gradient_source_sets_the_batch(monkeypatch):
    heavy = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 5))
    sizes = {id(heavy): 9}
    monkeypatch.setattr(
        "ohmfold.toolchain.attacks.campaign.batch_size_for", lambda source, *_: sizes.get(id(source), 200)
    )
    assert target(batch=None, substitutes={"heavy": heavy}).batch_size == 9


# Judges


@settings(max_examples=10)
@given(batch=st.integers(1, 50), on=st.sampled_from(["emulator", "onnxruntime", "ideal:seed=3"]))
def test_judges_of_exact_integers_agree_for_every_batch_size(batch, on):
    goal = target(33)
    judge = ArtifactJudge(goal.judge.artifact, parse_judge(on))
    assert np.array_equal(judge.judge(goal.data.images, batch), goal.judge.judge(goal.data.images))
    assert np.array_equal(judge.logits(goal.data.images), goal.judge.logits(goal.data.images))


def test_a_chip_with_read_noise_judges_an_image_by_its_place():
    goal = target(30)
    chip = ArtifactJudge(goal.judge.artifact, parse_judge("template:seed=2", ["read.noise=2"]))
    whole = chip.judge(goal.data.images, 30)
    assert np.array_equal(chip.judge(goal.data.images, 7), whole)
    assert np.array_equal(chip.judge(goal.data.images, 1), whole)
    assert (whole != goal.judge.judge(goal.data.images)).any()


@pytest.mark.parametrize(
    ("on", "changes", "says"),
    [
        ("reram", [], "neither emulator nor onnxruntime, and no hardware preset 'reram'"),
        ("ideal:seed=x", [], "expected emulator, onnxruntime, or PROFILE"),
        ("ideal:seed=9223372036854775808", [], "at most"),
        ("emulator", ["adc.bits=3"], "--set is about a chip"),
        ("ideal", ["adc.bitz=3"], "adc.bitz"),
    ],
)
def test_wrong_judges_are_refused(on, changes, says):
    from ohmfold.errors import HardwareError

    with pytest.raises(HardwareError, match=says):
        parse_judge(on, changes)
