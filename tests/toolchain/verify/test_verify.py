"""A wrong bit in any witness is found and located; what did not run is said; nothing is compared with itself."""

import dataclasses
import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import verified
from program_nets import Net

from ohmfold.errors import DataError, ExactnessError, MissingDependencyError
from ohmfold.kernels.isa import available
from ohmfold.toolchain import program as p
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.twin import Twin
from ohmfold.toolchain.verify import (
    SharedTwin,
    VerifyReport,
    Witness,
    choose,
    given_inputs,
    make_inputs,
    require_some,
    to_junit,
    verify,
    witnesses_of,
    words,
)
from ohmfold.toolchain.verify.witnesses import EmulatorWitness, TwinWitness, comparable


@pytest.fixture(scope="module")
def pow2():
    return verified.artifact("pow2")


@pytest.fixture(scope="module")
def inputs(pow2):
    return make_inputs(pow2.program, 40, verified.real_images(), twin=SharedTwin(pow2.program))


def in_python(artifact):
    """The witnesses that need no compiler."""
    return [one for one in witnesses_of(artifact) if one.group != "c99"]


class Told(Witness):
    """A witness that says what it is told to."""

    group = name = "told"

    def __init__(self, tensors=None, *, reason=None, error=None, late=None, shows=None):
        self.tensors, self.reason, self.error, self.late, self.shows = tensors, reason, error, late, shows

    def unavailable(self):
        if self.error is not None:
            raise self.error
        return self.reason

    def run(self, images):
        if self.late is not None:
            raise self.late
        return self.tensors(images)

    def must_show(self, names):
        return names if self.shows is None else self.shows


def test_every_witness_of_a_power_of_two_artifact_runs_and_has_every_bit(pow2, inputs):
    report = verify(pow2, inputs, in_python(pow2))
    assert report.skipped == ()
    assert [row.fault for row in report.rows] == [""] * len(report.rows)
    assert report.equal
    groups = {row.group for row in report.rows}
    assert groups == {"emulator", "onnxruntime", "onnx reference evaluator", "twin", "packed", "qdq", "qonnx"}
    codes = {name for name in comparable(pow2.program) if pow2.program.tensors.get(name)}
    for row in report.rows:
        assert row.images == (10 if row.group == "onnx reference evaluator" else 40)
        assert row.tensors == 1 or row.tensors >= len(codes) - 2
        assert row.integers or row.tensors == 1


@pytest.mark.parametrize("layer", [0, 1])
def test_one_wrong_weight_is_found_by_every_witness_and_located_where_it_is(pow2, inputs, layer):
    wrong, place = verified.with_one_wrong_weight(pow2, layer)
    report = verify(pow2, inputs, in_python(wrong))
    assert {row.group for row in report.rows} == {one.group for one in in_python(pow2)}
    assert not report.equal
    written = {place.output, getattr(place, "accumulator", None)}
    after = {pow2.program.logits}
    for row in report.rows:
        assert not row.equal, row
        assert row.differing > 0
        assert row.first.tensor in (after if row.tensors == 1 else written), row
        assert inputs.kinds[row.first.image] == row.first.kind
        # The place and both values are those of the right and of the wrong program.
        image = inputs.images[row.first.image : row.first.image + 1]
        right, got = (
            Emulator(one.program)
            .trace(image, [row.first.tensor])[row.first.tensor][(0, *row.first.index)]
            .item()
            for one in (pow2, wrong)
        )
        assert (row.first.expected, row.first.found) == (repr(right), repr(got))


def test_with_float_scales_the_forms_with_reals_are_skipped_with_their_reason(inputs):
    artifact = verified.artifact("float")
    report = verify(artifact, inputs, in_python(artifact))
    assert report.equal
    assert {skip.group for skip in report.skipped} == {"qdq", "qonnx"}
    assert all("power-of-two artifacts only" in skip.reason for skip in report.skipped)
    (line,) = words.skipped_lines(report)
    assert line.startswith("qdq; qonnx: ")


def test_what_the_emulator_is_expected_to_say_is_not_counted_as_its_agreement(pow2, inputs):
    witnesses = [EmulatorWitness(pow2.program, isa, fused=False) for isa in available()]
    report = verify(pow2, inputs, witnesses, reference_images=12)
    assert report.reference_images == 12
    assert [row.images for row in report.rows] == [12] + [40] * (len(witnesses) - 1)
    assert "on the first 12 images" in report.yardstick
    assert "on the other 28" in report.yardstick
    everything = verify(pow2, inputs, witnesses, reference_images=1000)
    assert [row.images for row in everything.rows] == [40] * len(witnesses)
    assert everything.yardstick == "int64 NumPy reference on all 40 images"


def test_what_is_expected_beyond_the_reference_is_itself_compared_with_it_whoever_was_asked(pow2, inputs):
    emulator = Emulator(pow2)
    report = verify(pow2, inputs, [Told(emulator.trace)], reference_images=5)
    assert [(row.group, row.images) for row in report.rows] == [("emulator", 5), ("told", 40)]
    everything = verify(pow2, inputs, [Told(emulator.trace)])
    assert [row.group for row in everything.rows] == ["told"]


def test_a_fault_of_the_emulator_itself_is_found_on_the_first_images(pow2, inputs):
    wrong, place = verified.with_one_wrong_weight(pow2, 0)
    report = verify(pow2, inputs, [EmulatorWitness(wrong.program, available()[0], fused=False)])
    assert report.rows[0].first.tensor == place.output


def test_one_bit_of_one_logit_is_a_difference(pow2, inputs):
    emulator, logits = Emulator(pow2), pow2.program.logits

    def flipped(images):
        trace = emulator.trace(images)
        if np.array_equal(images[-1], inputs.images[20]):
            trace[logits].view(np.uint32)[-1, 2] ^= 1
        return trace

    images = dataclasses.replace(inputs, images=inputs.images[:21], kinds=inputs.kinds[:21])
    report = verify(pow2, images, [Told(flipped)])
    (row,) = report.rows
    assert (row.differing, row.first.tensor, row.first.image, row.first.index) == (1, logits, 20, (2,))
    assert f"{logits}[2] of image 20 ({inputs.kinds[20]})" in row.fault


def test_a_tensor_that_is_not_shown_or_of_another_type_is_a_fault(pow2, inputs):
    emulator, names = Emulator(pow2), comparable(pow2.program)
    report = verify(pow2, inputs, [Told(lambda images: emulator.trace(images, names[1:]))])
    assert report.rows[0].missing == (names[0],)
    assert "1 tensors missing" in report.rows[0].fault
    assert not report.equal
    wide = lambda images: {n: a.astype(np.int64) for n, a in emulator.trace(images, names[:1]).items()}  # noqa: E731
    (row,) = verify(pow2, inputs, [Told(wide, shows=names[:1])]).rows
    assert row.differing == row.integers
    assert (row.first.index, row.first.image) == (None, None)
    assert "int64" in row.first.found


def test_a_witness_that_shows_nothing_proves_nothing(pow2, inputs):
    report = verify(pow2, inputs, [Told(lambda images: {}, shows=())])
    assert not report.equal
    assert report.rows[0].fault == "nothing was compared"


def test_a_witness_that_breaks_is_an_error_and_the_others_go_on(pow2, inputs):
    witnesses = [
        Told(error=ExactnessError("its self-test fails")),
        Told(late=DataError("it ran\n  out of paper")),
        EmulatorWitness(pow2.program, "portable", fused=True),
    ]
    report = verify(pow2, inputs, witnesses)
    assert [row.error for row in report.rows] == ["its self-test fails", "it ran out of paper", None]
    assert [row.equal for row in report.rows] == [False, False, True]
    assert not report.equal
    assert "could not run: it ran out of paper" in words.text(report)


def test_the_twins_floats_count_as_integers_only_where_they_are_some(pow2, inputs):
    twin = Twin(pow2.program)
    honest = TwinWitness(pow2.program, lambda: twin)
    assert verify(pow2, inputs, [honest]).equal
    name = next(iter(pow2.program.weighted_layers())).output

    class Adrift:
        stages = twin.stages

        def trace(self, pixels):
            return {**twin.trace(pixels), name: twin.trace(pixels)[name] + 0.25}

    (row,) = verify(pow2, inputs, [TwinWitness(pow2.program, Adrift)]).rows
    assert row.first.tensor == name
    assert "float32" in row.first.found


def test_a_program_of_a_fixed_batch_runs_batch_by_batch():
    net = Net(np.random.default_rng(0), (1, 2, 2))
    net.tensors["pixels"] = p.TensorSpec("pixels", np.dtype(np.uint8), (4, 1, 2, 2))
    acc = net.add(p.SpatialSum, (1, 1, 1), dtype=np.int32, input_zero_point=0)
    program = p.Program((net.tensors["pixels"],), (net.tensors[acc],), tuple(net.layers), net.tensors)
    artifact = type("Carrier", (), {"program": program, "sha256": "0" * 64})()
    sizes = []

    def count(images):
        sizes.append(len(images))
        return {acc: images.sum(axis=(2, 3), keepdims=True, dtype=np.int32)}

    report = verify(artifact, make_inputs(program, 10), [Told(count)], reference_images=3)
    assert report.equal
    assert sizes == [4, 4, 4]
    assert report.reference_images == 4


@pytest.mark.parametrize("numbers", [{"reference_images": 0}, {"slow_images": 0}])
def test_numbers_of_images_below_one_are_refused(pow2, inputs, numbers):
    with pytest.raises(DataError, match="at least 1 of each"):
        verify(pow2, inputs, in_python(pow2), **numbers)


def test_nobody_to_ask_is_an_error_that_says_why(pow2, inputs):
    with pytest.raises(MissingDependencyError, match="told: no such compiler"):
        verify(pow2, inputs, [Told(reason="no such compiler")])


def test_witnesses_are_chosen_by_name_and_group_in_their_own_order(pow2):
    every = witnesses_of(pow2)
    assert choose(every, ["all"]) == every
    assert len({one.name for one in every}) == len(every)
    chosen = choose(every, ["twin", "emulator, portable", "onnxruntime"])
    assert [one.group for one in chosen] == ["emulator", *["onnxruntime"] * 10, "twin"]
    with pytest.raises(DataError, match="no witness 'twine', the nearest is 'twin'"):
        choose(every, ["twine"])


def test_a_witness_that_was_asked_for_by_name_has_to_run(pow2, inputs):
    report = verify(
        pow2, inputs, [EmulatorWitness(pow2.program, "portable", fused=True), Told(reason="no gcc")]
    )
    require_some(report, ["all"])
    require_some(report, ["emulator"])
    with pytest.raises(MissingDependencyError, match="'told' could run: no gcc"):
        require_some(report, ["emulator", "told"])


def test_the_report_survives_json_and_junit(pow2, inputs):
    wrong, _ = verified.with_one_wrong_weight(pow2, 0)
    witnesses = [
        EmulatorWitness(pow2.program, "portable", fused=False),
        EmulatorWitness(wrong.program, "portable", fused=True),
        Told(reason="no \x00 compiler <&>"),
        Told(late=DataError("broken")),
    ]
    report = verify(pow2, inputs, witnesses, file="a.onnx")
    assert VerifyReport.model_validate_json(report.model_dump_json()) == report
    assert json.loads(report.model_dump_json())["bounds"][0]["end"] in ("greatest", "least")
    suite = ET.fromstring(to_junit(report)).find("testsuite")  # noqa: S314 - our own
    counts = [suite.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert counts == ["4", "1", "1", "1"]
    by_tag = {child.tag: child.get("message") for case in suite.iter("testcase") for child in case}
    assert pow2.program.logits in by_tag["failure"]
    assert by_tag["skipped"] == "no ? compiler <&>"
    assert by_tag["error"] == "could not run: broken"
    facts = {entry.get("name"): entry.get("value") for entry in suite.iter("property")}
    assert facts["sha256"] == pow2.sha256


def test_the_words_say_what_was_searched_and_found(pow2, inputs):
    report = verify(pow2, inputs, [EmulatorWitness(pow2.program, "portable", fused=False)])
    text = "\n".join(words.searched(report))
    assert "layers that requantise can tie" in text
    assert "accumulator bounds: 100% of the proved ends" in text
    assert words.verdict(report).startswith("every bit is equal: 1 witnesses")
    own = verify(pow2, given_inputs(pow2.program, verified.real_images()), [Told(lambda x: {}, shows=())])
    assert words.searched(own) == []
    assert words.verdict(own).startswith("NOT equal")
