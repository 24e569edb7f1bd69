"""Generated C programs against the emulator, and compilers that may be missing."""

import numpy as np
import pytest

from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.targets.c99 import C99Library, generate
from ohmfold.toolchain.targets.c99.harness import find_compiler, missing_compilers, run_c


def compiler(name):
    """The compiler of that name; the test is skipped where it is missing."""
    reason = missing_compilers().get(name)
    if reason is not None:
        pytest.skip(reason)
    return find_compiler(name)


def bits(array):
    """Floats by their bits."""
    return array.view(np.int32) if array.dtype == np.float32 else array


def assert_same_bits(source, images, name="gcc", optimisation="-O1", options=None):
    """Every tensor that the C program computes is the emulator's; returns their names and the library."""
    found = compiler(name)
    library = source if isinstance(source, C99Library) else generate(source, options, measure=False)
    got = run_c(library, images, found, optimisation)
    wanted = Emulator(library.program).trace(images)
    assert library.program.logits in got or not library.logits
    for tensor, array in got.items():
        assert array.dtype == wanted[tensor].dtype, tensor
        assert array.shape == wanted[tensor].shape, tensor
        assert np.array_equal(bits(array), bits(wanted[tensor])), (name, tensor)
    return got, library
