"""The charts of a campaign show its figures, and nothing where there is nothing to show."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
from campaigns import plan, suite, target

from ohmfold.toolchain.attacks.campaign import run_campaign
from ohmfold.toolchain.report.attack_charts import accuracy_chart, gallery_chart
from ohmfold.toolchain.report.pictures import chosen_examples, shown_difference

ATTACKS = suite({"attack": "uniform-noise"}, {"attack": "pgd", "settings": {"steps": 3}})


def campaign(ladder=()):
    goal = target(20)
    return run_campaign(goal, plan(goal, ATTACKS, ladder=ladder))


def label(text):
    return ET.fromstring(text).attrib["aria-label"]  # noqa: S314 - our own


def test_accuracy_is_drawn_against_the_radius_for_each_attack():
    found = campaign(ladder=(4, 30))
    spoken = label(accuracy_chart(found.result))
    for row in found.result.attacks:
        assert f"{100 * row.left.accuracy:.1f} % at {row.radius:g}" in spoken
    assert "worst case of each image" in spoken
    assert accuracy_chart(found.result) == accuracy_chart(found.result)


def test_one_radius_is_no_chart():
    assert accuracy_chart(campaign().result) is None


def test_the_gallery_shows_images_that_were_turned():
    found = campaign()
    turned = [key for key, result in found.keyed if len(chosen_examples(result))]
    assert turned
    text = gallery_chart(found.keyed)
    assert all(f"{key}: " in label(text) for key in turned)
    assert text.count("<image") == sum(
        3 * len(chosen_examples(result)[:8]) for key, result in found.keyed if key in turned
    )


def test_where_nothing_was_turned_there_is_no_gallery():
    goal = target(6)
    assert (
        gallery_chart(run_campaign(goal, plan(goal, suite({"attack": "fgsm"}), radius=1)).keyed[:0]) is None
    )


def test_differences_are_magnified_to_the_largest():
    original = np.full((2, 1, 1, 3), 100, np.uint8)
    adversarial = original.copy()
    adversarial[0, 0, 0] = [105, 100, 90]
    pictures, largest = shown_difference(adversarial, original)
    assert largest == 10
    assert pictures[0, 0, 0].tolist() == [192, 128, 1]
    assert shown_difference(original, original)[1] == 0
