"""The reader on graphs that Hypothesis draws: convolutions, mixtures of pattern nodes, spoilt models."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_models import Z, bias, build, codes, f32, read, steps, weights
from onnx import numpy_helper

from ohmfold.errors import OhmfoldError
from ohmfold.toolchain.comparison import compare
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.witness import LEVELS, OnnxRuntime


def verify(model, levels=LEVELS, **inputs):
    """Slow reference and emulator equal onnxruntime: every tensor at the first level, the outputs at each."""
    program = read(model)
    tensors = run_reference(program, inputs)
    data = model.SerializeToString()
    written = {name for node in model.graph.node for name in node.output}
    traced = {name: value for name, value in tensors.items() if name in written}
    found = compare(traced, OnnxRuntime(data, levels[0], expose=traced).run(inputs))
    assert found.equal, str(found)
    for level in levels:
        found = compare(OnnxRuntime(data, level).run(inputs), tensors)
        assert found.equal, f"{level}: {found}"
    outputs = {spec.name: tensors[spec.name] for spec in program.outputs}
    assert compare(outputs, Emulator(program, threads=1).run(inputs)).equal


@st.composite
def convolutions(draw):
    axes = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 3))
    channels, filters = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    per_axis = st.lists(st.integers(1, 3), min_size=axes, max_size=axes)
    kernel, strides, dilations = draw(per_axis), draw(per_axis), draw(per_axis)
    pads = draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes))
    spatial = [draw(st.integers(7, 9)) for _ in range(axes)]
    per_channel = draw(st.booleans())
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    unsigned = draw(st.booleans())
    weight = rng.integers(-60, 61, (filters, channels // groups, *kernel))
    dims = ",".join(map(str, spatial))
    outputs = ",".join("HW"[:axes])
    attributes = f"group={groups}, strides={strides}, dilations={dilations}, pads={pads}"
    model = build(
        f"(uint8[N,{channels},{dims}] x) => (uint8[N,{filters},{outputs}] y)",
        f"y = QLinearConv<{attributes}>(x, xs, xz, w, ws, wz, ys, yz, b)",
        xs=f32(rng.uniform(0.01, 1)), xz=np.uint8(draw(st.integers(0, 255))),
        w=(weight + 128).astype(np.uint8) if unsigned else weight.astype(np.int8),
        ws=f32(rng.uniform(0.001, 0.01, filters if per_channel else None)),
        wz=np.uint8(128) if unsigned else np.int8(0),
        ys=f32(rng.uniform(0.1, 1)), yz=np.uint8(draw(st.integers(0, 255))),
        b=rng.integers(-5000, 5000, filters).astype(np.int32),
    )  # fmt: skip
    return model, rng.integers(0, 256, (draw(st.integers(1, 3)), channels, *spatial)).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_any_convolution_over_one_or_two_axes_has_onnxruntimes_bits(case):
    model, x = case
    verify(model, x=x)


# Any mixture of them.


class Drawing:
    """A random graph of the nodes that patterns consist of, in any order, read any number of times."""

    def __init__(self, draw):
        self.draw = draw
        self.nodes = []
        self.constants = dict(Z)
        # Names by type, with the largest magnitude that an int32 value can have.
        self.codes, self.integers, self.floats = ["x", "v"], {}, []

    def constant(self, value):
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def emit(self, expression):
        name = f"t{len(self.nodes)}"
        self.nodes.append(f"{name} = {expression}")
        return name

    def shape(self):
        return self.draw(st.sampled_from([(), (1,), (3, 1), (1, 3, 1), (4,), (1, 4)]))

    def cast(self):
        self.integers[self.emit(f"Cast<to=6>({self.draw(st.sampled_from(self.codes))})")] = 255

    def change(self):
        name = self.draw(st.sampled_from(sorted(self.integers)))
        op, limit = self.draw(st.sampled_from([("Sub", 300), ("Mul", 9), ("Add", 5000)]))
        value = np.full(self.shape(), self.draw(st.integers(-limit, limit)), np.int32)
        operands = [name, self.constant(value)]
        if op != "Sub":
            operands = self.draw(st.permutations(operands))
        bound = self.integers[name] * limit if op == "Mul" else self.integers[name] + limit
        if bound < 2**24:
            self.integers[self.emit(f"{op}({', '.join(operands)})")] = bound

    def join(self):
        first, second = (self.draw(st.sampled_from(sorted(self.integers))) for _ in range(2))
        bound = self.integers[first] + self.integers[second]
        if bound < 2**24:
            self.integers[self.emit(f"Add({first}, {second})")] = bound

    def product(self):
        zero, name = self.draw(st.sampled_from(["z", "z7", "z128"])), self.draw(st.sampled_from(self.codes))
        weight = self.constant(weights(4, 4, seed=self.draw(st.integers(0, 99))))
        self.integers[self.emit(f"MatMulInteger({name}, {weight}, {zero})")] = 4 * 255 * 60

    def real(self):
        self.floats.append(self.emit(f"Cast<to=1>({self.draw(st.sampled_from(sorted(self.integers)))})"))

    def scale(self):
        factor = self.constant(steps(*self.shape(), seed=self.draw(st.integers(0, 99)), around=0.05))
        operands = self.draw(st.permutations([self.draw(st.sampled_from(self.floats)), factor]))
        self.floats.append(self.emit(f"Mul({', '.join(operands)})"))

    def quantise(self):
        zero = self.draw(st.sampled_from(["z", "z7", "z128"]))
        self.codes.append(
            self.emit(f"QuantizeLinear({self.draw(st.sampled_from(self.floats))}, one, {zero})")
        )

    def step(self):
        steps_now = [self.cast, self.product]
        steps_now += [self.change, self.change, self.join, self.real] if self.integers else []
        steps_now += [self.scale, self.quantise] if self.floats else []
        self.draw(st.sampled_from(steps_now))()


@st.composite
def mixtures(draw):
    drawing = Drawing(draw)
    for _ in range(draw(st.integers(4, 16))):
        drawing.step()
    typed = dict.fromkeys(drawing.codes[2:], "uint8")
    typed |= dict.fromkeys(drawing.integers, "int32") | dict.fromkeys(drawing.floats, "float")
    last = drawing.nodes[-1].split(" ")[0]
    chosen = {last, *draw(st.lists(st.sampled_from(sorted(typed)), max_size=2))}
    outputs = ", ".join(f"{typed[name]}[N,3,4] {name}" for name in sorted(chosen))
    body = "  ".join(drawing.nodes)
    return build(f"(uint8[N,3,4] x, uint8[N,3,4] v) => ({outputs})", body, **drawing.constants)


@settings(max_examples=150, deadline=None)
@given(mixtures())
def test_any_mixture_of_the_nodes_of_patterns_has_onnxruntimes_bits(model):
    verify(model, ("disabled", "all"), x=codes(2, 3, 4), v=codes(2, 3, 4, seed=5))


# What if one thing is wrong?


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_graph_with_any_one_attribute_or_constant_spoilt_is_refused_or_has_onnxruntimes_bits(data):
    model = build(
        "(uint8[N,2,6,6] x) => (uint8[N,3] y)",
        "c = QLinearConv<pads=[1,1,1,1], strides=[2,2], group=1>(x, xs, z7, w, ws, wz, ys, z128, b)"
        " p = MaxPool<kernel_shape=[3,3]>(c)  l = Reshape(p, shape)  d = MatMulInteger(l, v, z7, z128)"
        " s = Add(d, b)  f = Cast<to=1>(s)  g = Mul(f, m)  y = QuantizeLinear<axis=1>(g, one, z)",
        xs=f32(0.3), w=weights(3, 2, 3, 3), ws=steps(3), wz=np.zeros(3, np.int8), ys=f32(7), b=bias(3),
        shape=np.array([0, 3]), v=codes(3, 3), m=steps(3), **Z,
    )  # fmt: skip
    if data.draw(st.booleans()):
        target = data.draw(st.sampled_from(list(model.graph.initializer)))
        dtype = data.draw(st.sampled_from([np.uint8, np.int8, np.int32, np.float32, np.float16, np.int64]))
        shape = data.draw(st.lists(st.integers(0, 3), max_size=4))
        target.CopyFrom(numpy_helper.from_array(np.ones(shape, dtype), target.name))
    else:
        node = data.draw(st.sampled_from([node for node in model.graph.node if node.attribute]))
        attribute = data.draw(st.sampled_from(list(node.attribute)))
        value = data.draw(
            st.one_of(st.integers(-3, 40), st.lists(st.integers(-3, 5), min_size=1, max_size=4))
        )
        attribute.CopyFrom(onnx.helper.make_attribute(attribute.name, value))
    try:
        program = read(model)
    except OhmfoldError:
        return
    x = codes(2, 2, 6, 6)
    try:
        expected = OnnxRuntime(model.SerializeToString()).run({"x": x})
    except OhmfoldError:
        return  # onnxruntime is stricter about this model than the reader
    found = compare(expected, run_reference(program, {"x": x}))
    assert found.equal, str(found)
