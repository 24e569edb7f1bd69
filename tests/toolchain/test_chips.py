"""A study of chips: a chip is its seed, a killed study goes on, and the figures are those of NumPy."""

from __future__ import annotations

import csv
import json
from threading import Lock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_artifacts import SIDE, tiny_artifact, tiny_data

from ohmfold.errors import DataError, HardwareError, OhmfoldError, OutputError
from ohmfold.models.image_data import Dataset
from ohmfold.toolchain import chips
from ohmfold.toolchain.chip_folder import FinishedChips, check_study_folder, write_study
from ohmfold.toolchain.chips import LAST_SEED, Chip, ChipStudy, study
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.hardware import load_hardware, parse_sweep

ARTIFACT = tiny_artifact()
DATA = tiny_data(ARTIFACT)
FLAWED = load_hardware("ideal").with_changes(
    {
        "cell.fraction_bits": 6,
        "cell.programming.kind": "absolute",
        "cell.programming.sigma": 1.5,
        "read.noise": 1.0,
    }
)
CALIBRATED = FLAWED.with_changes({"adc.bits": 4, "adc.range": "calibrated"})
SWEEP = parse_sweep("cell.programming.sigma=0,0.5,3")


def lines(folder):
    return (folder / "chips.jsonl").read_bytes()


def correct(profile, seed, **options):
    """Count what a chip gets right of all the images at once."""
    emulator = Emulator(ARTIFACT, hardware=profile, seed=seed, **options)
    return int((emulator.predict(DATA.images) == DATA.labels).sum())


@pytest.fixture
def runs(monkeypatch):
    """The seeds of the chips that are made."""
    made, lock = [], Lock()

    class Counted(Emulator):
        def __init__(self, *arguments, **options):
            if options.get("hardware") is not None:
                with lock:
                    made.append(options["seed"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(chips, "Emulator", Counted)
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study that nothing interrupted, and its lines."""
    folder = tmp_path_factory.mktemp("whole")
    return study(ARTIFACT, FLAWED, DATA, count=4, sweep=SWEEP, finished=FinishedChips(folder)), lines(folder)


def test_a_chip_is_the_emulators_of_its_seed_on_all_images_at_once():
    found = study(ARTIFACT, FLAWED, DATA, count=6, seed=11)
    expected = [Chip(seed=seed, correct=correct(FLAWED, seed)) for seed in range(11, 17)]
    (point,) = found.points
    assert point.chips == tuple(expected)
    assert len({chip.correct for chip in expected}) > 2
    assert found.exact_correct == len(DATA)


def test_images_have_the_read_noise_of_their_place_whatever_the_batches(monkeypatch):
    whole = study(ARTIFACT, FLAWED, DATA, count=3)
    monkeypatch.setattr(chips, "_BATCH_SIZE", 7)
    assert study(ARTIFACT, FLAWED, DATA, count=3) == whole


def test_a_study_of_more_chips_holds_those_of_a_smaller_one():
    few = study(ARTIFACT, FLAWED, DATA, count=3, seed=2).points[0].chips
    assert study(ARTIFACT, FLAWED, DATA, count=6).points[0].chips[2:5] == few


class Backwards:
    """Runs jobs in this process, the last one first."""

    def run(self, bench, jobs, tell=None):
        for place in reversed(range(len(jobs))):
            found = bench.run(jobs[place], lambda share, place=place: tell(place, share))
            yield place, found


def test_the_order_in_which_chips_end_changes_nothing(whole, tmp_path):
    found = study(
        ARTIFACT, FLAWED, DATA, count=4, sweep=SWEEP, crew=Backwards(), finished=FinishedChips(tmp_path)
    )
    assert (found, lines(tmp_path)) == whole


def test_a_sweep_is_the_studies_of_its_profiles(whole):
    found, _ = whole
    assert (found.field, [point.value for point in found.points]) == (
        "cell.programming.sigma",
        [0.0, 0.5, 3.0],
    )
    for value, point in zip(SWEEP.values, found.points, strict=True):
        profile = FLAWED.with_changes({SWEEP.field: value})
        (alone,) = study(ARTIFACT, profile, DATA, count=4).points
        assert point == alone.model_copy(update={"value": value})
        assert point.profile_sha256 == profile.sha256
    assert found.points[0].mean > found.points[2].mean


@settings(max_examples=12)
@given(cut=st.integers(0, 10_000))
def test_a_file_cut_anywhere_is_completed_to_the_same_file_and_study(cut, whole, tmp_path_factory):
    expected, text = whole
    folder = tmp_path_factory.mktemp("cut")
    kept = text[: cut % len(text)]
    (folder / "chips.jsonl").write_bytes(kept)
    found = study(ARTIFACT, FLAWED, DATA, count=4, sweep=SWEEP, finished=FinishedChips(folder))
    assert (found, lines(folder)) == (expected, text)


@pytest.mark.parametrize("cut", [0, -1, -40])
def test_only_chips_without_a_whole_line_are_run_again(cut, whole, tmp_path, runs):
    expected, text = whole
    kept = b"".join(text.splitlines(keepends=True)[:7])
    (tmp_path / "chips.jsonl").write_bytes(kept[:cut] if cut else kept)
    found = study(ARTIFACT, FLAWED, DATA, count=4, sweep=SWEEP, finished=FinishedChips(tmp_path))
    assert runs == ([3, 0, 1, 2, 3] if cut == 0 else [2, 3, 0, 1, 2, 3])
    assert (found, lines(tmp_path)) == (expected, text)
    runs.clear()
    assert study(ARTIFACT, FLAWED, DATA, count=4, sweep=SWEEP, finished=FinishedChips(tmp_path)) == expected
    assert runs == []


def test_an_interrupted_study_keeps_what_was_finished_and_goes_on(whole, tmp_path):
    expected, text = whole

    def interrupt(words, share):
        if words.startswith("5 of"):
            raise KeyboardInterrupt

    arguments = {"count": 4, "sweep": SWEEP}
    with pytest.raises(KeyboardInterrupt):
        study(ARTIFACT, FLAWED, DATA, **arguments, finished=FinishedChips(tmp_path), progress=interrupt)
    kept = lines(tmp_path)
    assert text.startswith(kept)
    assert kept.count(b"\n") == 4
    assert study(ARTIFACT, FLAWED, DATA, **arguments, finished=FinishedChips(tmp_path)) == expected
    assert lines(tmp_path) == text


def test_other_models_images_profiles_and_calibrations_share_no_chips(tmp_path, runs):
    other, fewer = tiny_artifact(seed=3), DATA.take(np.arange(30))
    relabelled = Dataset("tiny", DATA.images, (DATA.labels + 1) % 5)
    seen, unseen = tiny_data(ARTIFACT, 20, seed=8), tiny_data(ARTIFACT, 20, seed=9)
    variants = [
        (ARTIFACT, FLAWED, DATA, None),
        (other, FLAWED, DATA, None),
        (ARTIFACT, FLAWED, fewer, None),
        (ARTIFACT, FLAWED, relabelled, None),
        (ARTIFACT, FLAWED.with_changes({"read.noise": 2.0}), DATA, None),
        (ARTIFACT, CALIBRATED, DATA, seen),
        (ARTIFACT, CALIBRATED, DATA, unseen),
    ]
    for artifact, profile, data, calibration in variants:
        runs.clear()
        study(artifact, profile, data, count=2, calibration=calibration, finished=FinishedChips(tmp_path))
        assert runs == [0, 1]
    runs.clear()
    for artifact, profile, data, calibration in variants:
        study(artifact, profile, data, count=2, calibration=calibration, finished=FinishedChips(tmp_path))
    # Calibration images are of no account where nothing is calibrated.
    study(ARTIFACT, FLAWED, DATA, count=2, calibration=seen, finished=FinishedChips(tmp_path))
    assert runs == []


def test_converters_are_calibrated_on_the_calibration_images():
    seen = tiny_data(ARTIFACT, 20, seed=8)
    (point,) = study(ARTIFACT, CALIBRATED, DATA, count=3, calibration=seen).points
    for chip in point.chips:
        assert chip.correct == correct(CALIBRATED, chip.seed, calibration=seen.images)
    with pytest.raises(HardwareError, match="need calibration images"):
        study(ARTIFACT, CALIBRATED, DATA, count=1)


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=30), seed=st.integers(0, 1000))
def test_figures_are_numpys(counts, seed):
    point = chips._point(None, "", [Chip(seed=seed + i, correct=c) for i, c in enumerate(counts)], 40)
    accuracy = np.array(counts) / 40
    # Float comparisons: NumPy adds rounded shares, the study rounds once.
    assert point.mean == pytest.approx(accuracy.mean(), abs=1e-12)
    for share, value in point.quantiles.items():
        assert value == pytest.approx(np.quantile(accuracy, float(share)), abs=1e-12)
    if len(counts) == 1:
        assert point.standard_deviation is None
    else:
        assert point.standard_deviation == pytest.approx(accuracy.std(ddof=1), abs=1e-9)
    assert point.worst == Chip(seed=seed + int(np.argmin(counts)), correct=min(counts))
    assert point.best == Chip(seed=seed + int(np.argmax(counts)), correct=max(counts))


def test_progress_tells_chips_done_and_the_share_of_what_is_left(whole, tmp_path):
    _, text = whole
    (tmp_path / "chips.jsonl").write_bytes(b"".join(text.splitlines(keepends=True)[:6]))
    told = []
    study(
        ARTIFACT, FLAWED, DATA, count=4, sweep=SWEEP, finished=FinishedChips(tmp_path),
        progress=lambda words, share: told.append((words, share)),
    )  # fmt: skip
    assert told[0] == ("6 of 12 chips", 0.0)
    assert told[-1] == ("12 of 12 chips", 1.0)
    assert [share for _, share in told] == sorted(share for _, share in told)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"count": 0}, "at least one"),
        ({"seed": -1}, "seeds from 0"),
        ({"seed": LAST_SEED, "count": 2}, "seeds from 0"),
        ({"sweep": parse_sweep("adc.bits=4,40")}, r"adc\.bits: expected at most 16, found 40"),
        ({"sweep": parse_sweep("array.columns=2,1")}, "at least 2"),
    ],
)
def test_senseless_numbers_are_refused_before_a_chip_is_made(arguments, words, tmp_path, runs):
    with pytest.raises(OhmfoldError, match=words):
        study(ARTIFACT, FLAWED, DATA, **{"count": 1, **arguments}, finished=FinishedChips(tmp_path / "new"))
    assert runs == []
    assert not (tmp_path / "new").exists()


def test_the_last_seed_is_one():
    (point,) = study(ARTIFACT, FLAWED, DATA, count=1, seed=LAST_SEED).points
    assert point.worst.seed == LAST_SEED


def test_images_of_another_size_are_refused():
    wrong = Dataset("wrong", np.zeros((3, 1, SIDE + 1, SIDE), np.uint8), np.zeros(3, np.int64))
    with pytest.raises(DataError, match="input"):
        study(ARTIFACT, FLAWED, wrong, count=1)


@pytest.mark.parametrize("bad", ['{"seed": 0}', "[]", "not JSON", "", "over"])
def test_a_line_that_is_no_chip_is_refused_by_number(bad, whole, tmp_path):
    first = whole[1].splitlines()[0].decode()
    if bad == "over":
        bad = json.dumps(json.loads(first) | {"correct": 41})
    (tmp_path / "chips.jsonl").write_text(f"{first}\n{bad}\n{first}\n")
    with pytest.raises(DataError, match=r"chips\.jsonl, line 2: "):
        FinishedChips(tmp_path)


def test_files_of_a_study_say_the_same(whole, tmp_path):
    found, _ = whole
    names = write_study(found, tmp_path)
    assert set(names) == {path.name for path in tmp_path.iterdir()}
    assert ChipStudy.model_validate_json((tmp_path / "chips.json").read_bytes()) == found
    with (tmp_path / "chips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [
        ("cell.programming.sigma", float(point.value), chip.seed, 40, chip.correct, chip.correct / 40)
        for point in found.points
        for chip in point.chips
    ]
    assert [
        (r["field"], float(r["value"]), int(r["seed"]), int(r["images"]), int(r["correct"]), float(r["accuracy"]))
        for r in rows
    ] == expected  # fmt: skip
    assert "sweep.svg" in names


def test_a_study_without_a_sweep_removes_the_chart_of_a_former_one(whole, tmp_path):
    write_study(whole[0], tmp_path)
    plain = study(ARTIFACT, FLAWED, DATA, count=2)
    assert set(write_study(plain, tmp_path)) == {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "sweep.svg").exists()
    assert (tmp_path / "chips.csv").read_text().splitlines()[1].startswith(",,0,40,")


def test_a_folder_is_refused_unless_new_empty_or_a_studys(tmp_path):
    check_study_folder(tmp_path / "new")
    check_study_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(OutputError, match=r"no chips\.jsonl"):
        check_study_folder(tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        check_study_folder(tmp_path / "thesis.tex")
    with pytest.raises(OutputError, match="is not a folder"):
        check_study_folder(tmp_path / "gone" / "new")
    (tmp_path / "chips.jsonl").write_text("")
    check_study_folder(tmp_path)


def test_a_chip_that_cannot_be_written_down_ends_the_study(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"chips\.jsonl"):
        study(ARTIFACT, FLAWED, DATA, count=2, finished=FinishedChips(tmp_path / "file"))
