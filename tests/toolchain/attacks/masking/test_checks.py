"""Each check on evidence made by hand: when it fires, when it does not, and when it says nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohmfold.errors import DataError
from ohmfold.toolchain.attacks.masking import CHECKS, Evidence, Gradients, ProbeRun, Repeats
from ohmfold.toolchain.attacks.masking.comparisons import (
    WHITE_BOX,
    adaptive_beats_white_box,
    black_box_beats_white_box,
    more_effort_gains,
    noise_beats_gradient,
    not_monotone_in_radius,
    parent_beats_white_box,
    single_step_beats_iterative,
    unbounded_attack_fails,
)
from ohmfold.toolchain.attacks.masking.evidence import ROLES
from ohmfold.toolchain.attacks.masking.optimiser import (
    earlier_iterate_is_better,
    gradients_vanish,
    loss_not_converged,
    outputs_are_probabilities,
    randomness,
)

COUNT = 100


def flags(*ranges, count=COUNT):
    """Bool `(count,)`, true in the ranges given as (start, stop)."""
    found = np.zeros(count, np.bool_)
    for start, stop in ranges:
        found[start:stop] = True
    return found


def run(role, fallen, count=COUNT, attacked=None, **changes):
    """A run after which the images of the range `fallen` have fallen."""
    attacked = np.ones(count, np.bool_) if attacked is None else attacked
    values = {"name": role, "radius": 10, "settings": {}, "kept_earlier": np.zeros(count, np.bool_)}
    standing = attacked & ~flags(fallen, count=count)
    return ProbeRun(role=role, attacked=attacked, standing=standing, **(values | changes))


def evidence(*runs, count=COUNT, **changes):
    return Evidence(np.ones(count, np.bool_), "inf", 10, runs, **changes)


NONE = (0, 0)

ORDERS = [(single_step_beats_iterative, "single-step"), (noise_beats_gradient, "noise")]
GAINS = [
    (black_box_beats_white_box, "black-box"),
    (adaptive_beats_white_box, "adaptive"),
    (parent_beats_white_box, "parent"),
]


@pytest.mark.parametrize(("check", "role"), ORDERS)
@pytest.mark.parametrize(
    ("weaker", "stronger", "outcome"),
    [
        ((0, 30), (0, 30), "clear"),
        ((0, 34), (0, 30), "clear"),
        ((0, 60), NONE, "masked"),
        ((0, 12), NONE, "masked"),
        ((0, 6), NONE, "suspicious"),  # p = 0.016
        # Many fall to the weaker attack alone, but more to the stronger one alone.
        ((0, 30), (20, 70), "suspicious"),
        ((0, 20), (0, 70), "clear"),
    ],
)
def test_a_weaker_attack_must_not_be_the_better_one(check, role, weaker, stronger, outcome):
    found = check(evidence(run(role, weaker), run("iterative", stronger)))
    assert found.outcome == outcome
    alone = flags(weaker) & ~flags(stronger)
    assert found.effect == alone.sum() / COUNT


def test_noise_counts_whatever_the_draw():
    draws = [run("noise", (start, start + 4)) for start in range(0, 40, 4)]
    found = noise_beats_gradient(evidence(*draws, run("iterative", NONE)))
    assert (found.outcome, found.effect) == ("masked", 0.4)


@pytest.mark.parametrize(("check", "role"), GAINS)
@pytest.mark.parametrize(
    ("white", "other", "outcome", "effect"),
    [
        ((0, 50), (0, 50), "clear", 0.0),
        ((0, 50), (46, 54), "clear", 0.04),
        ((0, 50), (50, 56), "suspicious", 0.06),
        ((0, 50), (50, 61), "masked", 0.11),
        # On the whole it is the worse attack, but not for each image.
        ((0, 50), (45, 70), "masked", 0.2),
        ((0, 100), (0, 100), "clear", 0.0),
    ],
)
def test_what_falls_to_another_attack_alone_is_counted_image_by_image(
    check, role, white, other, outcome, effect
):
    found = check(evidence(run("iterative", white), run(role, other)))
    assert (found.outcome, found.effect) == (outcome, effect)


def test_the_white_box_is_all_of_its_attacks_together():
    runs = [
        run("iterative", (0, 50)),
        run("restart", (50, 60)),
        run("doubled-steps", (60, 65)),
        run("other-descent", (65, 70)),
    ]
    found = adaptive_beats_white_box(evidence(*runs, run("adaptive", (50, 71))))
    assert (found.outcome, found.effect) == ("clear", 0.01)
    assert "70" not in found.text
    assert "of 100, 30 withstand" in found.text


@pytest.mark.parametrize("role", ["doubled-steps", "restart"])
@pytest.mark.parametrize(
    ("more", "outcome"), [((50, 55), "clear"), ((50, 56), "suspicious"), ((50, 90), "suspicious")]
)
def test_what_more_effort_finds_says_that_the_attack_is_weak_and_no_more(role, more, outcome):
    assert more_effort_gains(evidence(run("iterative", (0, 50)), run(role, more))).outcome == outcome


def test_more_of_the_images_stand_at_a_larger_radius():
    near, far = run("iterative", (0, 60)), run("ladder", (0, 40), radius=20)
    found = not_monotone_in_radius(evidence(near, far))
    assert (found.outcome, found.effect) == ("masked", 0.2)
    assert "40 at 10, 60 at 20" in found.text
    assert not_monotone_in_radius(evidence(near, replace(far, radius=5))).outcome == "clear"
    # Others stand, as many as before.
    other = run("ladder", (20, 80), radius=20)
    assert not_monotone_in_radius(evidence(near, other)).outcome == "suspicious"
    assert not_monotone_in_radius(evidence(near)).outcome == "not enough data"


@pytest.mark.parametrize(
    ("fallen", "outcome"),
    [((0, 100), "clear"), ((4, 100), "clear"), ((6, 100), "suspicious"), (NONE, "masked")],
)
def test_an_attack_without_bounds_reaches_every_image(fallen, outcome):
    assert unbounded_attack_fails(evidence(run("unbounded", fallen, radius=255))).outcome == outcome


def gradients(seen, zero=0.0, finite=True, where="where the attack ended"):
    return Gradients(where, flags(seen), np.full(COUNT, zero), np.full(COUNT, finite))


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "clear"),
        ({"zero": 0.5}, "clear"),
        ({"zero": 0.98}, "clear"),
        ({"zero": 0.99}, "masked"),
        ({"zero": 1.0}, "masked"),
        ({"finite": False}, "masked"),
    ],
)
def test_standing_images_without_a_gradient_count(changes, outcome):
    found = gradients_vanish(
        evidence(run("iterative", (0, 80)), gradients=(gradients((80, 100), **changes),))
    )
    assert found.outcome == outcome
    assert found.effect == (0.2 if outcome == "masked" else 0.0)


def test_a_vanished_gradient_of_images_that_fall_hides_nothing():
    seen = gradients((0, 100), zero=1.0)
    assert gradients_vanish(evidence(run("iterative", (0, 100)), gradients=(seen,))).outcome == "clear"
    # Nor does one at the clean image, where the attack found its way.
    clean = gradients((0, 100), zero=1.0, where="at clean images")
    both = evidence(run("iterative", (0, 50)), gradients=(clean, gradients((50, 100))))
    assert gradients_vanish(both).outcome == "clear"


def falling_margins(steps, last):
    """Margins from 10 down to 1, the last quarter of the way being `last`."""
    early = np.linspace(10, 1 + last, 3 * steps // 4 + 1)
    late = np.linspace(1 + last, 1, steps + 1 - 3 * steps // 4)[1:]
    return np.tile(np.concatenate([early, late])[:, None], (1, COUNT)).astype(np.float32)


@pytest.mark.parametrize(
    ("last", "fallen", "outcome"),
    [
        (0.5, NONE, "clear"),
        (1.5, NONE, "suspicious"),
        (1.5, (0, 96), "clear"),  # four images alone still stand
        (0.0, NONE, "clear"),
    ],
)
def test_a_margin_that_still_falls_to_zero_has_not_converged(last, fallen, outcome):
    margins = falling_margins(20, last)
    found = loss_not_converged(evidence(run("iterative", fallen, margins=margins, settings={"steps": 20})))
    assert found.outcome == outcome
    if outcome == "suspicious":
        assert "iterative with 20 steps leaves 100 of 100" in found.text


def test_what_an_earlier_iterate_found_counts_where_the_attack_was_run():
    for kept, outcome in (((0, 4), "clear"), ((0, 20), "suspicious")):
        found = earlier_iterate_is_better(evidence(run("iterative", (0, 50), kept_earlier=flags(kept))))
        assert found.outcome == outcome


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({}, "clear"),
        ({"judge": (0, 1)}, "suspicious"),
        ({"source": (0, 1)}, "suspicious"),
        ({"order": (0, 1)}, "suspicious"),
    ],
)
def test_any_answer_that_changes_is_randomness(changed, outcome):
    parts = {name: flags(changed.get(name, NONE)) for name in ("judge", "order", "source")}
    found = randomness(evidence(repeats=Repeats(2, **parts)))
    assert (found.outcome, found.effect) == (outcome, 0.01 if changed else 0.0)


def test_read_noise_of_a_known_seed_may_differ_by_place_but_must_repeat():
    seeded = {"noise_seed": 7, "source": flags(NONE)}
    by_place = Repeats(2, judge=flags(NONE), order=flags((0, 50)), **seeded)
    found = randomness(evidence(repeats=by_place))
    assert found.outcome == "clear"
    assert "seed 7" in found.text
    other = Repeats(2, judge=flags((0, 1)), order=flags(NONE), **seeded)
    assert randomness(evidence(repeats=other)).outcome == "suspicious"


def test_probabilities_are_named_where_all_outputs_are_such():
    assert outputs_are_probabilities(evidence(probabilities=flags((0, 100)))).outcome == "suspicious"
    assert outputs_are_probabilities(evidence(probabilities=flags((0, 99)))).outcome == "clear"


@pytest.mark.parametrize("check", CHECKS)
def test_without_evidence_a_check_says_nothing(check):
    found = check(evidence())
    assert found.outcome == "not enough data"
    assert found.text


MEASURED_ON_EACH_IMAGE = (randomness, outputs_are_probabilities)


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in MEASURED_ON_EACH_IMAGE])
def test_on_few_images_a_check_says_nothing_however_bad_they_are(check):
    def made(count):
        whole = np.ones(count, np.bool_)
        # The other white-box attacks find a fifth, everything else all, and the iterative one nothing.
        runs = [run(role, (0, count // 5 if role in WHITE_BOX else count), count=count) for role in ROLES]
        margins = falling_margins(20, 5.0)[:, :count]
        runs[ROLES.index("iterative")] = run(
            "iterative", NONE, count=count, margins=margins, kept_earlier=whole
        )
        runs[ROLES.index("ladder")] = run("ladder", (0, count), count=count, radius=5)
        runs[ROLES.index("unbounded")] = run("unbounded", NONE, count=count, radius=255)
        blind = Gradients("where it ended", whole, np.ones(count), whole)
        return evidence(*runs, count=count, gradients=(blind,))

    assert check(made(34)).outcome == "not enough data"
    assert check(made(100)).outcome in ("masked", "suspicious")


@st.composite
def drawn_evidence(draw):
    count = draw(st.integers(1, 120))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    right = rng.random(count) < draw(st.floats(0, 1))
    runs = []
    for role in draw(st.lists(st.sampled_from(ROLES), max_size=14)):
        attacked = right & (rng.random(count) < draw(st.floats(0, 1)))
        margins = rng.normal(size=(draw(st.integers(1, 12)), count)).astype(np.float32)
        margins[:, ~attacked] = np.nan
        standing, kept = (attacked & (rng.random(count) < 0.5) for _ in range(2))
        radius, recorded = draw(st.integers(1, 255)), draw(st.sampled_from([None, margins]))
        runs.append(ProbeRun(role, role, radius, {}, attacked, standing, kept, recorded))
    seen = [
        Gradients("somewhere", right, rng.random(count).round(), rng.random(count) < 0.5)
        for _ in range(draw(st.integers(0, 2)))
    ]
    asked = Repeats(2, *(rng.random(count) < 0.02 for _ in range(3)), draw(st.sampled_from([None, 3])))
    repeats, probabilities = draw(st.sampled_from([None, asked])), draw(st.sampled_from([None, right]))
    return Evidence(right, "inf", 8, tuple(runs), tuple(seen), repeats, probabilities)


@given(drawn_evidence())
def test_every_check_takes_any_evidence(found):
    for check in CHECKS:
        finding = check(found)
        assert finding.outcome in ("clear", "suspicious", "masked", "not enough data")
        assert finding.effect is None or 0 <= finding.effect <= 1
        assert finding.text
        assert finding.source
        if finding.outcome in ("clear", "suspicious", "masked"):
            assert finding.effect is not None
            assert len(found.clean_correct) >= finding.needed


def test_every_check_cites_its_source_and_has_a_name_of_its_own():
    findings = [check(evidence()) for check in CHECKS]
    assert len({finding.name for finding in findings}) == len(CHECKS) == 13
    for check, finding in zip(CHECKS, findings, strict=True):
        assert "Source: " in check.__doc__
        assert "20" in finding.source


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Evidence(np.ones(3), "inf", 8), "clean_correct: found float64"),
        (lambda: Evidence(np.zeros(0, np.bool_), "inf", 8), "N at least 1"),
        (lambda: evidence(run("iterative", NONE, count=99)), "attacked of iterative"),
        (lambda: evidence(run("twice", NONE)), "unknown role 'twice'"),
        (lambda: replace(evidence(run("iterative", NONE)), clean_correct=flags((0, 5))), "right before it"),
        (lambda: evidence(probabilities=flags(NONE, count=7)), "probabilities: found shape"),
    ],
)
def test_evidence_that_does_not_fit_together_is_refused(made, message):
    with pytest.raises(DataError, match=message):
        made()
