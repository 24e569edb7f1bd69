"""What every attack's images have been through, whatever its algorithm returned."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohmfold.errors import DataError, RecipeError
from ohmfold.toolchain.attacks import (
    Attack,
    AttackResult,
    Found,
    GaussianNoise,
    UniformNoise,
    make_attack,
    worst_case,
)

SHAPE = (1, 3, 3)


class LinearJudge:
    """A linear classifier on codes, which remembers how many images it was asked about."""

    def __init__(self, seed=0):
        self.weight = np.random.default_rng(seed).integers(-5, 6, (9, 3))
        self.asked = 0

    def predict(self, images):
        self.asked += len(images)
        return (images.reshape(len(images), -1).astype(np.int64) @ self.weight).argmax(axis=1)


@dataclass(frozen=True)
class Returns(Attack):
    """Returns what a function makes of the problem, and records the problems."""

    name: ClassVar[str] = "returns"
    needs_gradient: ClassVar[bool] = False
    function: Any = None
    problems: list = field(default_factory=list)

    def parameters(self, _radius):
        return {}

    def run(self, problem):
        self.problems.append(problem)
        return Found(self.function(problem))


def images_and_labels(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *SHAPE), np.uint8), rng.integers(0, 3, count)


def random_answer(kind, seed):
    def answer(problem):
        rng = np.random.default_rng(seed)
        wild = rng.normal(0.5, 2.0, problem.images.shape)
        return wild.astype(kind) if kind is not np.int64 else (wild * 255).astype(np.int64)

    return answer


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from([np.float32, np.float64, np.int64]),
    st.integers(0, 255),
    st.integers(0, 1000),
    st.integers(1, 9),
)
def test_images_are_codes_inside_the_ball_and_judged_as_such(kind, epsilon, seed, batch):
    images, labels = images_and_labels(seed=seed)
    judge = LinearJudge()
    result = Returns(random_answer(kind, seed))(
        None, judge, images, labels, epsilon, seed=0, batch_size=batch
    )
    assert result.adversarial.dtype == np.uint8
    assert np.abs(result.adversarial.astype(int) - images).max() <= epsilon
    assert np.array_equal(result.predictions, judge.predict(result.adversarial))
    assert np.array_equal(result.clean_predictions, judge.predict(images))
    assert np.array_equal(result.success, result.predictions != labels)
    assert result.accuracy == np.mean(result.predictions == labels)
    wrong = result.clean_predictions != labels
    assert wrong.any()
    assert np.array_equal(result.adversarial[wrong], images[wrong])
    assert result.success[wrong].all()


def test_only_images_that_still_stand_are_attacked_in_batches():
    images, labels = images_and_labels(40)
    attack = Returns(lambda problem: problem.images)
    seen = []
    result = attack(
        None,
        LinearJudge(),
        images,
        labels,
        9,
        seed=0,
        batch_size=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    standing = np.flatnonzero(result.clean_predictions == labels)
    assert np.array_equal(np.concatenate([p.images for p in attack.problems]), images[standing])
    assert max(len(p.images) for p in attack.problems) == 4
    assert len({p.seed for p in attack.problems}) == len(attack.problems) > 1
    assert seen[-1] == (len(standing), len(standing))


def test_pixels_are_rounded_to_the_nearest_code():
    images, _ = images_and_labels(6)
    labels = LinearJudge().predict(images)
    shift = np.float32(0.6 / 255)
    up = Returns(lambda problem: problem.images / np.float32(255) + shift)
    down = Returns(lambda problem: problem.images / np.float32(255) + shift / 2)
    expected = np.minimum(images.astype(int) + 1, 255)
    assert np.array_equal(up(None, LinearJudge(), images, labels, 5, seed=0).adversarial, expected)
    assert np.array_equal(down(None, LinearJudge(), images, labels, 5, seed=0).adversarial, images)


def test_radius_zero_leaves_the_images_alone_and_runs_nothing():
    images, labels = images_and_labels()
    for attack in (Returns(random_answer(np.float32, 0)), UniformNoise(), GaussianNoise()):
        result = attack(None, LinearJudge(), images, labels, 0, seed=0)
        assert np.array_equal(result.adversarial, images)
        assert np.array_equal(result.predictions, result.clean_predictions)


def test_only_what_the_caller_says_still_stands_is_attacked():
    images, labels = images_and_labels(20)
    judge = LinearJudge()
    right = judge.predict(images) == labels
    standing = np.arange(20) % 2 == 0
    attack = Returns(lambda problem: 255 - problem.images.astype(np.int64))
    result = attack(None, judge, images, labels, 90, seed=0, standing=standing, source="elsewhere")
    assert np.array_equal(result.attacked, right & standing)
    assert np.array_equal(result.adversarial[~result.attacked], images[~result.attacked])
    assert np.array_equal(result.predictions[~result.attacked], result.clean_predictions[~result.attacked])
    assert not np.array_equal(result.adversarial[result.attacked], images[result.attacked])
    assert result.source == "elsewhere"
    with pytest.raises(DataError, match=r"standing: found int64\(20,\); expected bool\(20,\)"):
        attack(None, judge, images, labels, 3, seed=0, standing=standing.astype(np.int64))


def test_an_earlier_image_is_taken_where_the_last_one_fails_and_it_does_not():
    images, _ = images_and_labels(12)
    judge = LinearJudge()
    labels = judge.predict(images)
    other = 255 - images
    fooled = judge.predict(other) != labels
    assert fooled.any()
    assert not fooled.all()

    @dataclass(frozen=True)
    class Keeps(Returns):
        def run(self, problem):
            return Found(problem.images, earlier=255 - problem.images)

    result = Keeps()(None, judge, images, labels, 255, seed=0, batch_size=5)
    assert np.array_equal(result.kept_earlier, fooled)
    assert np.array_equal(result.success, fooled)
    assert np.array_equal(result.adversarial[fooled], other[fooled])


def test_what_batches_record_is_joined():
    images, _ = images_and_labels(7)
    judge = LinearJudge()
    labels = judge.predict(images)
    labels[2] += 1
    wrong = judge.predict(images) != labels

    @dataclass(frozen=True)
    class Records(Returns):
        def run(self, problem):
            count = len(problem.images)
            rows = np.arange(1, count + 1, dtype=np.float32)
            return Found(
                problem.images,
                margins=np.repeat(rows[:, None], count, axis=1),
                queries=np.full(count, count),
            )

    result = Records()(None, judge, images, labels, 3, seed=0, batch_size=4)
    assert result.queries.tolist() == [4, 4, 0, 4, 4, 2, 2]
    # A batch with fewer iterates stays where it ended; what was not attacked has none.
    assert result.margins[:, 0].tolist() == [1, 2, 3, 4]
    assert result.margins[:, 6].tolist() == [1, 2, 2, 2]
    assert np.isnan(result.margins[:, wrong]).all()
    assert result.source == "queries"


GOOD = {"images": images_and_labels()[0], "labels": images_and_labels()[1], "radius": 3, "seed": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": GOOD["images"].astype(np.float32)}, "images: found float32"),
        ({"images": GOOD["images"][:0], "labels": GOOD["labels"][:0]}, "non-empty"),
        ({"images": GOOD["images"].tolist()}, "images: found list"),
        ({"labels": GOOD["labels"][:3]}, "expected 20 integers"),
        ({"labels": GOOD["labels"].astype(float)}, "labels: found float64"),
        ({"labels": GOOD["labels"] - 1}, "found -1"),
        ({"radius": 0.3}, "radius: found 0.3"),
        ({"radius": -1}, "radius: found -1"),
        ({"radius": 256}, "radius: found 256"),
        ({"radius": True}, "radius: found True"),
        ({"radius": float("nan")}, "radius: found nan"),
        ({"seed": -1}, "seed: found -1"),
        ({"batch_size": 0}, "batch_size: found 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {**GOOD, **change}
    with pytest.raises(DataError, match=message):
        UniformNoise()(None, LinearJudge(), **arguments)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda p: np.full(p.images.shape, np.nan, np.float32), "not finite"),
        (lambda p: p.images[:1, :, :2], "returned shape"),
    ],
)
def test_what_is_no_image_is_refused(answer, message):
    with pytest.raises(DataError, match=message):
        Returns(answer)(None, LinearJudge(), **GOOD)


def test_a_judge_that_predicts_no_labels_is_refused():
    class Scores:
        def predict(self, images):
            return np.zeros((len(images), 3))

    with pytest.raises(DataError, match=r"the judge predicted float64\(20, 3\)"):
        UniformNoise()(None, Scores(), **GOOD)


def test_noise_repeats_with_its_seed_and_only_then():
    for attack in (UniformNoise(), GaussianNoise()):
        first, second, other = (
            attack(None, LinearJudge(), **{**GOOD, "radius": 40, "seed": seed}).adversarial
            for seed in (7, 7, 8)
        )
        assert np.array_equal(first, second)
        assert not np.array_equal(first, other)


def noise_of(attack, epsilon):
    images = np.full((2222, *SHAPE), 128, np.uint8)
    labels = LinearJudge().predict(images)
    result = attack(None, LinearJudge(), images, labels, epsilon, seed=3)
    return result, result.adversarial.astype(int) - 128


def test_uniform_noise_draws_every_change_of_the_ball_evenly():
    result, noise = noise_of(UniformNoise(), 5)
    values, counts = np.unique(noise, return_counts=True)
    assert values.tolist() == list(range(-5, 6))
    # 19,998 draws of 11 values: 1818 each, give or take 41 (one standard deviation).
    assert np.abs(counts - noise.size / 11).max() < 5 * 41
    assert result.norm == "inf"


def test_gaussian_noise_has_its_standard_deviation_in_codes_and_says_that_it_is_unbounded():
    result, noise = noise_of(GaussianNoise(), 10)
    # The sample's standard deviation has one of its own of 10 / sqrt(2 * 19,998) = 0.05.
    assert abs(noise.std() - 10) < 0.3
    assert np.abs(noise).max() > 10
    assert (result.norm, result.parameters) == ("none", {"std_codes": 10})


def result_of(predictions, *, norm="inf", epsilon=4, labels=(0, 0, 0, 0)):
    images = np.zeros((4, *SHAPE), np.uint8)
    clean = np.array([0, 0, 0, 1])
    return AttackResult(
        name="made-up",
        norm=norm,
        radius=epsilon,
        seed=0,
        parameters={},
        original=images,
        adversarial=images,
        labels=np.array(labels),
        clean_predictions=clean,
        predictions=np.array(predictions),
        source="none",
        attacked=np.ones(4, bool),
        kept_earlier=np.zeros(4, bool),
    )


class TestWorstCase:
    def test_takes_the_worst_attack_for_each_image(self):
        first, second = result_of([1, 0, 0, 1]), result_of([0, 1, 0, 1])
        assert first.accuracy == second.accuracy == 0.5
        assert worst_case([first, second]).tolist() == [False, False, True, False]

    def test_leaves_out_what_left_the_ball(self):
        assert worst_case([result_of([1, 1, 1, 1], norm="none")]).tolist() == [True, True, True, False]

    def test_refuses_results_of_different_problems(self):
        for other in (result_of([0] * 4, epsilon=5), result_of([0] * 4, labels=(0, 0, 1, 0))):
            with pytest.raises(DataError, match="different images or at different radii"):
                worst_case([result_of([0] * 4), other])
        with pytest.raises(DataError, match="at least one"):
            worst_case([])


class TestCatalogue:
    def test_makes_attacks_by_name_with_their_settings(self):
        attack = make_attack("pgd", steps=7, step_codes=1.5)
        assert (attack.name, attack.steps, attack.step_codes) == ("pgd", 7, 1.5)

    @pytest.mark.parametrize(
        ("name", "settings", "message"),
        [
            ("deepfool", {}, "unknown attack 'deepfool'"),
            ("fgsm", {"steps": 3}, "fgsm: unknown setting 'steps'"),
            ("pgd", {"stpes": 3}, "it has norm, steps, step_codes"),
            ("pgd", {"steps": 0}, "steps is 0"),
            ("bim", {"steps": 2.0}, "bim: steps is 2.0"),
            ("pgd", {"norm": "none"}, "pgd: norm is 'none'; expected 'inf' or '2'"),
            ("uniform-noise", {"norm": "2"}, "norm is '2'; expected 'inf'"),
            ("pgd", {"step_codes": -1.0}, "step_codes is -1.0"),
            ("pgd", {"step_codes": float("nan")}, "step_codes is nan"),
        ],
    )
    def test_names_what_is_unknown_or_out_of_range(self, name, settings, message):
        with pytest.raises(RecipeError, match=message):
            make_attack(name, **settings)


def test_importing_the_attacks_imports_no_torch():
    code = (
        "import sys, ohmfold.toolchain.attacks; "
        "sys.exit(bool({'torch', 'cleverhans', 'pyautoattack'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
