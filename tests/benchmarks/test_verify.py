"""The verification benchmark: random networks add up by witness, and one wrong bit is an exit code of 1."""

import json

import pytest
import verified

from ohmfold.benchmarks import verify, verify_random
from ohmfold.toolchain.verify import given_inputs, witnesses_of
from ohmfold.toolchain.verify import verify as compare_all


def test_random_networks_run_and_the_same_seed_draws_the_same(capsys):
    documents = []
    for _ in range(2):
        verify.main(["--networks", "--random", "2", "--seed", "5", "--json"])
        documents.append(json.loads(capsys.readouterr().out)["random"])
    first, second = documents
    assert (first["networks"], first["unequal"]) == (2, 0)
    assert first["by_witness"] == second["by_witness"]
    total = first["by_witness"]["emulator, portable"]
    assert (total["networks"], total["images"]) == (2, 2 * verify_random.IMAGES)
    assert total["floats"] > 0


def test_a_wrong_network_is_counted_named_and_ends_with_code_1(capsys, monkeypatch):
    artifact = verified.artifact()
    wrong, layer = verified.with_one_wrong_weight(artifact, 0)
    wanted = {"emulator, portable", "onnxruntime all"}
    witnesses = [one for one in witnesses_of(wrong) if one.name in wanted]
    outcome = verify_random.RandomOutcome()
    outcome.add(compare_all(artifact, given_inputs(artifact.program, verified.real_images()), witnesses), 7)
    assert not outcome.equal
    assert outcome.by_witness["onnxruntime all"].first.startswith(f"network 7: {layer.output}[")
    verify_random.show_random(outcome)
    assert "1 networks not equal" in capsys.readouterr().out
    monkeypatch.setattr(verify_random, "verify_random", lambda *_: outcome)
    with pytest.raises(SystemExit) as ended:
        verify.main(["--networks", "--random", "1"])
    assert ended.value.code == 1


def test_no_network_at_all_proves_nothing():
    assert not verify_random.RandomOutcome().equal


def test_every_network_takes_one_level_of_each_compiler_in_turn():
    witnesses = witnesses_of(verified.artifact())
    seen = set()
    for number in range(len(verify_random.LEVELS) ** 2):
        kept = [one.name for one in verify_random._native(witnesses, number) if one.group == "c99"]
        assert len(kept) == 3
        seen.update(kept)
    assert len(seen) == 2 * len(verify_random.LEVELS) + 1
