import json

import pytest

from ohmfold.toolchain.report.verdict import masking, verdict
from ohmfold.toolchain.report.words import decimal, interval, number, percent, points
from ohmfold.toolchain.run_record import (
    AccuracyRow,
    ArtifactRecord,
    AttackRow,
    DatasetRecord,
    ExactnessRow,
    FindingRow,
    RunRecord,
    VerdictRow,
)

EQUAL = {"variant": "plain", "witness": "w", "tensors": 2, "integers": 10, "floats": 4, "differing": 0}


def record(**parts) -> RunRecord:
    return RunRecord(
        title="t",
        command="c",
        seed=0,
        versions={},
        machine="m",
        dataset=DatasetRecord(name="d", images=100, sha256="0"),
        source_sha256="0",
        **{"artifacts": (), "accuracy": (), "exactness": (), "attacks": (), **parts},
    )


def artifact(variant, recipe=None, notes=()):
    return ArtifactRecord(variant=variant, file="f", sha256="0", recipe=recipe or {}, notes=notes, layers=())


def accuracy(model, correct, images=100, variant="plain", witness="w"):
    return AccuracyRow(variant=variant, model=model, witness=witness, images=images, correct=correct)


def attack(variant, correct, name="pgd", norm="inf", steps=10, images=100):
    return AttackRow(
        variant=variant,
        attack=name,
        parameters={"steps": steps},
        norm=norm,
        epsilon_codes=76,
        images=images,
        clean_correct=99,
        correct=correct,
    )


def words(finding) -> str:
    return " ".join((*finding.answers, *finding.details)).replace("\u00a0", " ").replace("\u202f", " ")


def test_bits_are_equal_where_every_comparison_compared_something_and_found_nothing():
    found = verdict(record(exactness=(ExactnessRow(**EQUAL), ExactnessRow(**EQUAL))))[0]
    assert found.state == "good"
    assert "2 comparisons" in words(found)
    assert "20 integers" in words(found)
    assert "8 floats" in words(found)


@pytest.mark.parametrize(
    "change",
    [
        {"differing": 1, "first_difference": "x[3]: expected 1, got 2"},
        {"differing": 1},
        {"tensors": 0},
        {"integers": 0, "floats": 0},
        {"first_difference": "y missing"},
    ],
)
def test_one_comparison_that_fails_or_compares_nothing_is_enough_for_a_no(change):
    rows = (ExactnessRow(**EQUAL), ExactnessRow(**{**EQUAL, **change}))
    found = verdict(record(exactness=rows))[0]
    assert found.state == "bad"
    assert "1 of 2 comparisons do not agree" in words(found)
    assert change.get("first_difference", "") in words(found)


def test_comparisons_of_nothing_are_not_called_a_difference():
    found = verdict(record(exactness=(ExactnessRow(**{**EQUAL, "tensors": 0}),)))[0]
    assert found.answers == ("Not shown",)


@pytest.mark.parametrize(
    ("correct", "said"),
    [(97, "\u22122.0 points"), (99, "±0 points"), (100, "+1.0 points")],
)
def test_the_cost_of_the_integers_is_a_difference_on_the_same_images(correct, said):
    found = verdict(record(accuracy=(accuracy("float", 99), accuracy("integer", correct))))[1]
    assert said in words(found)


def test_no_difference_is_given_between_different_images():
    found = verdict(record(accuracy=(accuracy("float", 99), accuracy("integer", 45, images=50))))[1]
    assert "points" not in words(found)
    assert "90.0 %" in words(found)


def test_executors_that_count_differently_are_pointed_out():
    rows = (accuracy("float", 99), accuracy("integer", 98), accuracy("integer", 97, witness="v"))
    assert "count differently" in words(verdict(record(accuracy=rows))[1])


def test_what_is_left_is_what_the_strongest_bounded_attack_leaves():
    rows = (
        attack("plain", 60, "fgsm"),
        attack("plain", 12),
        attack("plain", 3, "gaussian-noise", norm="none"),
    )
    found = verdict(record(attacks=rows))[2]
    assert found.answers[0].replace("\u00a0", " ") == "plain: 12.0 % left"
    assert "withstand pgd (within 76 codes)" in words(found)


PAIR = (artifact("plain"), artifact("mapped", {"mu_law": {"last": 255.0}}))


def test_a_mu_law_variant_that_does_better_is_suspected_of_masked_gradients():
    run = record(artifacts=PAIR, attacks=(attack("plain", 0), attack("mapped", 40)))
    said = masking(run)
    assert "gradient masking is the likely cause" in said
    assert "40.0" in said
    found = verdict(run)[2]
    assert found.state == "caution"
    assert said in found.details


def test_a_map_in_the_graph_counts_as_well_as_one_in_the_recipe():
    pair = (
        artifact("plain"),
        artifact("mapped", notes=("layer 'x': the mu-law map in the graph was folded",)),
    )
    assert masking(record(artifacts=pair, attacks=(attack("plain", 0), attack("mapped", 40)))) is not None


@pytest.mark.parametrize(
    ("plain", "mapped"),
    [
        (attack("plain", 40), attack("mapped", 40)),
        (attack("plain", 40), attack("mapped", 0)),
        (attack("plain", 0, steps=20), attack("mapped", 40, steps=10)),
        (attack("plain", 0, "uniform-noise"), attack("mapped", 40, "uniform-noise")),
        (
            attack("plain", 0, "gaussian-noise", norm="none"),
            attack("mapped", 40, "gaussian-noise", norm="none"),
        ),
        (attack("plain", 0, "made-up"), attack("mapped", 40, "made-up")),
        (attack("plain", 0, images=0), attack("mapped", 40)),
    ],
)
def test_no_suspicion_is_voiced_without_two_comparable_gradient_attacks(plain, mapped):
    assert masking(record(artifacts=PAIR, attacks=(plain, mapped))) is None


def test_numbers_read_well():
    assert number(1234567) == "1\u202f234\u202f567"
    assert number(-3) == "\u22123"
    assert percent(1, 3) == "33.3\u00a0%"
    assert percent(9957, 10000) == "99.57\u00a0%"
    assert percent(0, 0) == "–"
    assert interval(0, 20) == "0.0–16.1\u00a0%"
    assert points(-15, 5000) == "\u22120.30\u00a0points"
    assert decimal(None) == "–"
    assert decimal(12.0) == "12.0"
    assert decimal(1234.5) == "1\u202f234"
    assert decimal(1e-7) == "1.00e\u221207"
    assert decimal(-16.188) == "\u221216.2"


def trust(label, outcome="clear", variant="plain"):
    finding = FindingRow(
        name="noise beats gradient",
        outcome=outcome,
        effect=0.5,
        needed=35,
        text="evidence",
        source="somebody",
    )
    return VerdictRow(
        variant=variant, label=label, images=100, norm="inf", epsilon_codes=76, findings=(finding,)
    )


@pytest.mark.parametrize(
    ("label", "outcome", "state"),
    [
        ("trustworthy", "clear", "plain"),
        ("masked", "masked", "bad"),
        ("inconclusive", "suspicious", "caution"),
    ],
)
def test_the_masking_verdict_stands_beside_what_is_left(label, outcome, state):
    found = verdict(record(attacks=(attack("plain", 40),), verdicts=(trust(label, outcome),)))[2]
    assert found.state == state
    assert f"plain: masking verdict {label}" in words(found)
    assert ("noise beats gradient" in words(found)) == (outcome != "clear")


def test_where_a_record_holds_verdicts_nothing_is_guessed_from_its_variants():
    attacks = (attack("plain", 10), attack("mapped", 60))
    artifacts = (artifact("plain"), artifact("mapped", {"mu_law": {"fc": 255.0}}))
    assert masking(record(attacks=attacks, artifacts=artifacts)) is not None
    assert (
        masking(record(attacks=attacks, artifacts=artifacts, verdicts=(trust("masked", "masked"),))) is None
    )


def test_records_of_schema_1_are_read(tmp_path):
    old = record(attacks=(attack("plain", 40),)).model_dump(mode="json") | {"schema_version": 1}
    del old["verdicts"], old["judge"]
    (tmp_path / "run.json").write_text(json.dumps(old))
    assert RunRecord.load(tmp_path).verdicts == ()
