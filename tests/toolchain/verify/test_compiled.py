"""Compiled C as a witness: right bits under each compiler here, wrong weights found, missing compilers named."""

import numpy as np
import pytest
import verified
from program_nets import Net

from ohmfold.toolchain import program as p
from ohmfold.toolchain.targets.c99 import compilers
from ohmfold.toolchain.verify import Witness, make_inputs, verify, witnesses_of
from ohmfold.toolchain.verify.compiled import CompiledWitness, Library

HERE = compilers.available_compilers()
NATIVE = next((one for one in HERE if one.native), None)
NO_COMPILER = "no C compiler for this machine's processor: install gcc or clang"


@pytest.fixture(scope="module")
def pow2():
    return verified.artifact("pow2")


@pytest.fixture(scope="module")
def inputs(pow2):
    return make_inputs(pow2.program, 16, verified.real_images())


def test_every_known_compiler_is_a_witness_and_the_native_ones_at_every_level(pow2):
    names = [one.name for one in witnesses_of(pow2) if one.group == "c99"]
    assert len(set(names)) == len(names)
    for compiler in compilers.COMPILERS:
        assert any(name.startswith(f"c99, {compiler.name} ") for name in names)
    for level in ("-O0", "-O1", "-O2", "-O3", "-O3 -march=native"):
        assert {f"c99, gcc {level}", f"c99, clang {level}"} <= set(names)


@pytest.mark.skipif(NATIVE is None, reason=NO_COMPILER)
def test_compiled_code_has_every_bit_with_and_without_floating_point(pow2, inputs):
    witnesses = [
        CompiledWitness(Library(pow2, integer_only=only), NATIVE, pace="fast") for only in (False, True)
    ]
    report = verify(pow2, inputs, witnesses)
    assert report.equal
    assert [row.images for row in report.rows] == [16, 16]
    assert report.rows[0].floats == 16 * 5
    assert report.rows[1].floats == 0
    assert "no floating point" in report.rows[1].witness


@pytest.mark.skipif(NATIVE is None, reason=NO_COMPILER)
@pytest.mark.parametrize("layer", [0, 2])
def test_one_wrong_weight_in_the_library_is_found_where_it_is(pow2, inputs, layer):
    wrong, place = verified.with_one_wrong_weight(pow2, layer)
    report = verify(pow2, inputs, [CompiledWitness(Library(wrong), NATIVE, pace="fast")])
    (row,) = report.rows
    assert row.differing > 0
    assert row.first.tensor in {place.output, place.accumulator if isinstance(place, p.Dense) else None}


@pytest.mark.slow
@pytest.mark.skipif(
    not any(not one.native for one in HERE), reason="no compiler for another processor is here"
)
def test_emulated_processors_have_every_bit_on_the_first_images(pow2, inputs):
    foreign = [one for one in HERE if not one.native]
    report = verify(
        pow2, inputs, [CompiledWitness(Library(pow2), compiler) for compiler in foreign], slow_images=10
    )
    assert [row.fault for row in report.rows] == [""] * len(foreign)
    assert {row.images for row in report.rows} == {10}


@pytest.mark.skipif(NATIVE is None, reason=NO_COMPILER)
def test_what_was_compiled_is_removed_in_the_end_even_of_a_failed_run(pow2, inputs, monkeypatch):
    witness = CompiledWitness(Library(pow2), NATIVE, pace="fast")
    witness.run(inputs.images[:1])
    folder = witness._program._folder
    assert folder.is_dir()

    class Stops(Witness):
        group = name = "stops"

        def run(self, images):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(pow2, inputs, [witness, Stops()])
    assert not folder.exists()
    witness.close()  # nothing is left to close


def test_a_missing_compiler_is_skipped_with_the_packages_that_bring_it(pow2, inputs):
    absent = compilers.Compiler("nonesuch", "nonesuch-gcc", packages=("gcc-nonesuch",))
    known = (*compilers.COMPILERS, absent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compilers, "COMPILERS", known)
        reason = CompiledWitness(Library(pow2), absent).unavailable()
    assert reason == "nonesuch-gcc not found; install gcc-nonesuch"


def test_a_float_input_or_a_layer_without_a_c_form_is_skipped_with_the_reason():
    net = Net(np.random.default_rng(0), (1, 2, 2))
    net.tensors["pixels"] = p.TensorSpec("pixels", np.dtype(np.float32), (None, 1, 2, 2))
    acc = net.add(p.SpatialSum, (1, 1, 1), dtype=np.int32, input_zero_point=0)
    program = p.Program((net.tensors["pixels"],), (net.tensors[acc],), tuple(net.layers), net.tensors)
    carrier = type("Carrier", (), {"program": program})()
    assert "takes uint8 pixels" in Library(carrier).refusal
    tail = Net(np.random.default_rng(0), (4,))
    out = tail.add(
        p.Operator,
        (4,),
        dtype=np.float32,
        op_type="Softmax",
        attributes={},
        operands=("pixels",),
        exact=False,
    )
    program = p.Program((tail.tensors["pixels"],), (tail.tensors[out],), tuple(tail.layers), tail.tensors)
    assert Library(type("Carrier", (), {"program": program})()).refusal
