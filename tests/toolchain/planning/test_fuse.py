"""Which layers become one step."""

import numpy as np
import pytest

from ohmfold.toolchain import program as p
from ohmfold.toolchain.planning.fuse import fuse
from ohmfold.toolchain.planning.map_nodes import AddNode, MaxPoolNode, SumNode
from ohmfold.toolchain.planning.nodes import ArrayNode, ConvNode, ReshapeNode

UINT8 = np.dtype(np.uint8)


def spec(name, *shape, dtype=UINT8):
    return p.TensorSpec(name, np.dtype(dtype), (None, *shape))


def conv(multiplier, output="maps"):
    return p.Conv(
        name="conv",
        inputs=("x",),
        outputs=(output,),
        weight=np.ones((4, 2, 3, 3), np.int8),
        bias=None,
        input_zero_point=0,
        strides=(1, 1),
        pads=(1, 1, 1, 1),
        dilations=(1, 1),
        groups=1,
        requantisation=p.Requantisation(np.asarray(multiplier, np.float32), 0),
    )


def pool(**changes):
    settings = {
        "kernel": (2, 2),
        "strides": (2, 2),
        "pads": (0, 0, 0, 0),
        "dilations": (1, 1),
        "ceil_mode": False,
    }
    return p.MaxPool(name="pool", inputs=("maps",), outputs=("pooled",), **{**settings, **changes})


def pooled_net(multiplier=0.1, **changes):
    tensors = {s.name: s for s in (spec("x", 2, 8, 8), spec("maps", 4, 8, 8), spec("pooled", 4, 4, 4))}
    layers = (conv(multiplier), pool(**changes))
    return p.Program((tensors["x"],), (tensors["pooled"],), layers, tensors)


def kinds(program, keep):
    return [type(node) for node in fuse(program, len(program.layers), keep).nodes]


def test_a_convolution_takes_the_pooling_that_follows_it():
    fused = fuse(pooled_net(), 2, {"pooled"})
    (node,) = fused.nodes
    assert isinstance(node, ConvNode)
    assert (node.pool, node.outputs) == ((2, 2), ("pooled",))
    assert fused.forms["pooled"].size == (4, 4, 4)


@pytest.mark.parametrize(
    ("program", "keep"),
    [
        (pooled_net(), {"pooled", "maps"}),
        (pooled_net(-0.1), {"pooled"}),
        (pooled_net(np.reshape([0.1, 0.2, -0.1, 0.1], (4, 1, 1))), {"pooled"}),
        (pooled_net(strides=(1, 1)), {"pooled"}),
        (pooled_net(pads=(1, 1, 1, 1)), {"pooled"}),
        (pooled_net(ceil_mode=True), {"pooled"}),
        (pooled_net(kernel=(3, 3), strides=(3, 3)), {"pooled"}),
    ],
    ids=["wanted", "negative", "one negative", "overlap", "padding", "ceil", "nine"],
)
def test_but_not_where_that_would_change_or_hide_something(program, keep):
    assert kinds(program, keep) == [ConvNode, MaxPoolNode]


def residual(readers):
    tensors = {
        s.name: s for s in (spec("x", 4, 5, 5), spec("y", 4, 5, 5), spec("sum", 4, 5, 5, dtype=np.int32))
    }
    layers = [
        p.Table(name="t", inputs=("x",), outputs=("y",), table=np.arange(256, dtype=np.uint8)),
        p.WeightedSum(
            name="add", inputs=("x", "y"), outputs=("sum",), multipliers=(3, 4), zero_points=(0, 0)
        ),
    ]
    for index in range(readers):
        name = f"out{index}"
        tensors[name] = spec(name, 4, 5, 5)
        layers.append(
            p.Requantise(
                name=name,
                inputs=("sum",),
                outputs=(name,),
                bias=None,
                requantisation=p.Requantisation(np.asarray(0.1, np.float32), 0),
            )
        )
    packing = conv(0.1, "first")
    tensors["first"] = spec("first", 4, 8, 8)
    return p.Program((tensors["x"],), (), tuple(layers), tensors), packing


@pytest.mark.parametrize("readers", [1, 2])
def test_a_sum_takes_its_requantisations(readers):
    program, _ = residual(readers)
    fused = fuse(_packed(program), len(program.layers) + 1, {"out0"})
    assert [type(node) for node in fused.nodes][-1] is AddNode
    assert len(fused.nodes[-1].outputs) == readers


@pytest.mark.parametrize(("readers", "keep"), [(3, {"out0"}), (1, {"out0", "sum"})])
def test_but_keeps_a_sum_that_is_wanted_or_read_often(readers, keep):
    program, _ = residual(readers)
    nodes = fuse(_packed(program), len(program.layers) + 1, keep).nodes
    assert SumNode in [type(node) for node in nodes]
    assert AddNode not in [type(node) for node in nodes]


def _packed(program):
    """The program behind a 1 x 1 convolution, which brings its input into the layout of the kernels."""
    stem = p.Conv(
        name="stem",
        inputs=("pixels",),
        outputs=("x",),
        weight=np.ones((4, 4, 1, 1), np.int8),
        bias=None,
        input_zero_point=0,
        strides=(1, 1),
        pads=(0, 0, 0, 0),
        dilations=(1, 1),
        groups=1,
        requantisation=p.Requantisation(np.asarray(0.1, np.float32), 0),
    )
    pixels = spec("pixels", 4, 5, 5)
    return p.Program((pixels,), (), (stem, *program.layers), {**program.tensors, "pixels": pixels})


def test_what_nothing_brings_into_a_layout_stays_an_array():
    program, _ = residual(1)
    fused = fuse(program, len(program.layers), {"out0"})
    assert {type(node) for node in fused.nodes} == {ArrayNode}
    assert fused.forms == {}


def test_a_flattened_map_is_the_same_map_and_a_turned_one_is_not():
    program, _ = residual(1)
    flat = p.Reshape(name="flat", inputs=("out0",), outputs=("flat",), shape=(0, -1))
    square = p.Reshape(name="square", inputs=("out0",), outputs=("square",), shape=(0, 5, 4, 5))
    tensors = {**program.tensors, "flat": spec("flat", 100), "square": spec("square", 5, 4, 5)}
    whole = p.Program(program.inputs, (), (*program.layers, flat, square), tensors)
    fused = fuse(_packed(whole), len(whole.layers) + 1, {"flat", "square"})
    assert [type(node) for node in fused.nodes][-2:] == [ReshapeNode, ArrayNode]
    assert fused.forms["flat"] == fused.forms["out0"]
