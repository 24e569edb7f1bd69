"""The rules by which findings come to a verdict, one by one."""

from dataclasses import replace

import numpy as np
import pytest

from ohmfold.toolchain.attacks.masking import CHECKS, Evidence, Gradients, ProbeRun, Repeats, judge_evidence
from ohmfold.toolchain.attacks.masking.evidence import ROLES

COUNT = 100
NOTHING, EVERYTHING = np.zeros(COUNT, np.bool_), np.ones(COUNT, np.bool_)


def run(role, fallen=50, radius=10):
    """A run to which the first images have fallen."""
    standing = np.arange(COUNT) >= fallen
    margins = np.ones((21, COUNT), np.float32)
    return ProbeRun(role, role, radius, {}, EVERYTHING, standing, NOTHING, margins)


def honest(**fallen):
    """Evidence of a model that hides nothing: every attack finds the same half, one without bounds finds all."""
    fallen = {"unbounded": COUNT} | fallen
    radii = {"ladder": 5, "unbounded": 255}
    runs = [run(role, fallen.get(role.replace("-", "_"), 50), radii.get(role, 10)) for role in ROLES]
    good = Gradients("where the attack ended", ~NOTHING, np.zeros(COUNT), EVERYTHING)
    return Evidence(
        EVERYTHING, "inf", 10, tuple(runs), (good,), Repeats(2, NOTHING, NOTHING, NOTHING), NOTHING
    )


def test_nothing_suspicious_is_trustworthy():
    verdict = judge_evidence(honest())
    assert (verdict.label, verdict.because) == ("trustworthy", ())
    assert len(verdict.findings) == len(CHECKS)


@pytest.mark.parametrize(
    ("fallen", "check"),
    [
        ({"adaptive": 80}, "margin or scaled logits beat cross-entropy"),
        ({"black_box": 80}, "black box beats white box"),
        ({"parent": 80}, "parent's transfer beats white box"),
        ({"unbounded": 50}, "unbounded attack below 100 %"),
        ({"noise": 80}, "noise beats gradient"),
        ({"ladder": 80}, "success not monotone in radius"),
    ],
)
def test_one_masked_finding_is_enough(fallen, check):
    verdict = judge_evidence(honest(**fallen))
    assert verdict.label == "masked"
    assert check in verdict.because


@pytest.mark.parametrize(
    ("fallen", "check"),
    [
        ({"restart": 80}, "more steps or restarts gain"),
        ({"adaptive": 56}, "margin or scaled logits beat cross-entropy"),
    ],
)
def test_a_suspicious_finding_makes_it_inconclusive(fallen, check):
    verdict = judge_evidence(honest(**fallen))
    assert (verdict.label, verdict.because) == ("inconclusive", (check,))


def test_a_masked_finding_outweighs_suspicious_ones():
    verdict = judge_evidence(honest(restart=60, adaptive=95))
    assert verdict.label == "masked"
    assert "more steps or restarts gain" not in verdict.because


@pytest.mark.parametrize("role", ["adaptive", "black-box", "unbounded", "iterative"])
def test_without_an_attack_that_it_needs_it_is_inconclusive(role):
    found = honest()
    verdict = judge_evidence(replace(found, runs=tuple(one for one in found.runs if one.role != role)))
    assert verdict.label == "inconclusive"
    assert verdict.because


@pytest.mark.parametrize("part", [{"gradients": ()}, {"repeats": None}, {"probabilities": None}])
def test_without_a_look_at_the_model_it_is_inconclusive(part):
    assert judge_evidence(replace(honest(), **part)).label == "inconclusive"


@pytest.mark.parametrize("role", ["parent", "noise", "single-step", "ladder"])
def test_attacks_that_cannot_always_be_made_may_be_missing(role):
    found = honest()
    without = replace(found, runs=tuple(one for one in found.runs if one.role != role))
    assert judge_evidence(without).label == "trustworthy"


def test_few_images_are_inconclusive_however_bad_they_are():
    found = honest(adaptive=100, unbounded=0)
    few = np.arange(COUNT) < 10
    runs = tuple(replace(one, attacked=one.attacked & few, standing=one.standing & few) for one in found.runs)
    assert judge_evidence(replace(found, clean_correct=few, runs=runs)).label == "inconclusive"


def test_nothing_left_standing_is_a_figure_to_trust():
    assert judge_evidence(honest(**{role.replace("-", "_"): 100 for role in ROLES})).label == "trustworthy"
