"""Programs that no crossbar runs are refused with the reason."""

import numpy as np
import pytest

from ohmfold.errors import HardwareError
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import Dense, Program, TensorSpec, Transpose

UINT8 = np.dtype(np.uint8)


def dense(source):
    return Dense(
        name="fc",
        inputs=(source,),
        outputs=("y",),
        weight=np.ones((4, 3), np.int8),
        bias=None,
        input_zero_point=0,
        requantisation=None,
    )


def program(batch, *layers):
    shapes = {"x": (batch, 4), "t": (4, batch), "y": (batch, 3)}
    tensors = {
        name: TensorSpec(name, np.dtype(np.int32) if name == "y" else UINT8, shape)
        for name, shape in shapes.items()
    }
    return Program((tensors["x"],), (tensors["y"],), layers, tensors)


def test_a_fixed_batch_is_named():
    with pytest.raises(HardwareError, match="batches of 2 alone"):
        Emulator(program(2, dense("x")), hardware="ideal")


def test_a_layer_behind_one_that_mixes_samples_is_named():
    turn = Transpose(name="turn", inputs=("x",), outputs=("t",), permutation=(1, 0))
    with pytest.raises(HardwareError, match="'fc' follows one that mixes samples"):
        Emulator(program(None, turn, dense("t")), hardware="ideal")
