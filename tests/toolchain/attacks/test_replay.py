"""A saved set is judged anywhere with the same labels, and one that is not what it says is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from campaigns import plan, suite, target
from tiny_artifacts import tiny_artifact

from ohmfold.errors import DataError
from ohmfold.toolchain.attacks import load_adversarial, save_adversarial
from ohmfold.toolchain.attacks.campaign import run_campaign
from ohmfold.toolchain.attacks.judges import ArtifactJudge, parse_judge
from ohmfold.toolchain.attacks.replay import artifact_beside, replay

ATTACKS = ("uniform-noise", "gaussian-noise", "pgd", "square", "cw-l2", "adaptive-pgd")


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    goal = target(48, wrong=(2, 3))
    entries = [
        {"attack": name, "settings": {"steps": 5} if name in ("pgd", "adaptive-pgd") else {}}
        for name in ATTACKS
    ]
    entries[3]["settings"] = {"budget": 20}
    entries[4]["settings"] = {"steps": 20, "search_steps": 2}
    campaign = run_campaign(goal, plan(goal, suite(*entries)))
    goal.judge.artifact.save(folder / "artifact.onnx")
    for key, result in campaign.keyed:
        save_adversarial(result, folder / f"{key}.npz", goal.judge.artifact.sha256)
    return folder, goal.judge.artifact


@pytest.mark.parametrize("on", ["emulator", "onnxruntime", "ideal:seed=9"])
@pytest.mark.parametrize("name", ATTACKS)
def test_every_set_gets_the_same_labels_from_every_executor_of_exact_integers(sets, name, on):
    folder, artifact = sets
    saved = load_adversarial(folder / f"{name}.npz")
    found = replay(saved, ArtifactJudge(artifact, parse_judge(on)), batch_size=7)
    assert np.array_equal(found.predictions, saved.result.predictions)
    assert np.array_equal(found.clean_predictions, saved.result.clean_predictions)
    assert not len(found.differing)
    assert not found.transferred
    assert found.left.correct == (~saved.result.success).sum()
    assert found.clean.correct == 46


def test_a_chip_gives_its_own_labels_again_and_again(sets):
    folder, artifact = sets
    saved = load_adversarial(folder / "pgd.npz")
    name = parse_judge("template:seed=5", ["read.noise=2"])
    first, second = (replay(saved, ArtifactJudge(artifact, name), batch_size=size) for size in (48, 5))
    assert np.array_equal(first.predictions, second.predictions)
    assert len(first.differing)
    other = parse_judge("template:seed=6", ["read.noise=2"])
    third = replay(saved, ArtifactJudge(artifact, other))
    assert not np.array_equal(first.predictions, third.predictions)


def test_another_artifact_is_judged_only_where_a_transfer_is_asked_for(sets):
    folder, artifact = sets
    saved = load_adversarial(folder / "pgd.npz")
    other = ArtifactJudge(tiny_artifact(seed=1))
    assert other.artifact.sha256 != artifact.sha256
    with pytest.raises(
        DataError, match=f"made for the artifact {artifact.sha256[:12]}, this one is .*--transfer"
    ):
        replay(saved, other)
    found = replay(saved, other, transfer=True)
    assert found.transferred
    assert np.array_equal(found.predictions, other.predict(saved.result.adversarial))


def test_images_of_another_shape_are_refused_even_for_a_transfer(sets, files_of_another_shape):
    saved = load_adversarial(sets[0] / "pgd.npz")
    with pytest.raises(DataError, match=r"set holds images of shape \(1, 4, 4\)"):
        replay(saved, ArtifactJudge(files_of_another_shape), transfer=True)


@pytest.fixture
def files_of_another_shape():
    import torch
    from torch import nn

    import ohmfold

    torch.manual_seed(0)
    images = np.random.default_rng(0).integers(0, 256, (8, 1, 5, 5)).astype(np.uint8)
    return ohmfold.compile(nn.Sequential(nn.Flatten(), nn.Linear(25, 5)), images)


def rewritten(path, to, metadata=None, **arrays):
    with np.load(path) as archive:
        members = {name: archive[name] for name in archive}
    members |= arrays
    if metadata is not None:
        changed = json.loads(members["metadata"].tobytes()) | metadata
        members["metadata"] = np.frombuffer(json.dumps(changed, sort_keys=True).encode(), np.uint8)
    np.savez(to, **members)
    return to


def test_a_set_that_is_out_by_one_code_is_refused_and_not_clipped(sets, tmp_path):
    saved = load_adversarial(sets[0] / "pgd.npz").result
    images = saved.adversarial.copy()
    place = tuple(np.argwhere((saved.original >= 13) & (saved.original <= 242))[0])
    images[place] = saved.original[place] + 13
    path = rewritten(sets[0] / "pgd.npz", tmp_path / "far.npz", adversarial=images)
    with pytest.raises(
        DataError, match=f"image {place[0]} is 13 codes from its original; expected at most 12"
    ):
        load_adversarial(path)


@pytest.mark.parametrize("what", ["adversarial", "original", "labels", "predictions", "attacked"])
def test_a_set_that_was_changed_after_it_was_written_is_refused(sets, tmp_path, what):
    array = getattr(load_adversarial(sets[0] / "gaussian-noise.npz").result, what).copy()
    array.reshape(-1)[5] = ~array.reshape(-1)[5] if array.dtype == bool else array.reshape(-1)[5] ^ 1
    path = rewritten(sets[0] / "gaussian-noise.npz", tmp_path / "set.npz", **{what: array})
    saved = load_adversarial(path)
    with pytest.raises(DataError, match="changed after it was written"):
        replay(saved, ArtifactJudge(sets[1]))


@pytest.mark.parametrize("change", [{"radius": 40}, {"artifact_sha256": "0" * 64}, {"source": "queries"}])
def test_metadata_that_were_changed_are_refused(sets, tmp_path, change):
    path = rewritten(sets[0] / "pgd.npz", tmp_path / "set.npz", metadata=change)
    with pytest.raises(DataError, match="changed after it was written"):
        replay(load_adversarial(path), ArtifactJudge(sets[1]))


def test_rewriting_without_a_change_changes_nothing(sets, tmp_path):
    path = rewritten(sets[0] / "pgd.npz", tmp_path / "set.npz", metadata={})
    assert load_adversarial(path).intact


def test_the_artifact_beside_a_set_is_found_by_its_hash(sets, tmp_path):
    folder, artifact = sets
    (folder / "other.onnx").write_bytes(tiny_artifact(seed=2).to_bytes())
    assert artifact_beside(folder / "pgd.npz", artifact.sha256) == folder / "artifact.onnx"
    with pytest.raises(DataError, match="no artifact 000000000000 lies beside"):
        artifact_beside(folder / "pgd.npz", "0" * 64)
