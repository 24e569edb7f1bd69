"""The twin has the reference's bits in every tensor of random programs, for every kind of layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from program_nets import UINT8, Net, images_for, pixels_of, same_bits

from ohmfold.toolchain import twin_layers
from ohmfold.toolchain.emulator import Emulator
from ohmfold.toolchain.program import (
    Concat,
    Conv,
    Dense,
    MaxPool,
    Pad,
    Requantisation,
    Requantise,
    Reshape,
    Scale,
    SpatialSum,
    Split,
    Table,
    Transpose,
    WeightedSum,
)
from ohmfold.toolchain.reference import run_reference
from ohmfold.toolchain.twin import Twin


class DrawnNet(Net):
    """A net whose layers are drawn at random."""

    def requantisation(self, reach, shape, dtype=None):
        dtype = np.dtype(dtype or self.rng.choice([np.uint8, np.int8]))
        limits = np.iinfo(dtype)
        spread = self.rng.uniform(100, 2000, shape) / max(reach, 1) * self.rng.choice([1, 1, 1, -1], shape)
        zero_point = int(self.rng.choice([limits.min, 0, limits.min + 128, limits.max]))
        return Requantisation(np.asarray(spread, np.float32), zero_point, dtype)


def convolve(net, data, *, requantise=True):
    channels, space = net.shape[0], net.shape[1:]
    groups = data.draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    outputs = groups * data.draw(st.integers(1, 2))
    kernel = [data.draw(st.integers(1, min(3, n))) for n in space]
    dilations = [
        data.draw(st.integers(1, 2)) if (k - 1) * 2 < n else 1 for k, n in zip(kernel, space, strict=True)
    ]
    strides = [data.draw(st.integers(1, 2)) for _ in space]
    pads = [data.draw(st.integers(0, 2)) for _ in range(2 * len(space))]
    weight = net.rng.integers(-7, 8, (outputs, channels // groups, *kernel)).astype(np.int8)
    bias = net.rng.integers(-500, 500, outputs).astype(np.int32) if data.draw(st.booleans()) else None
    size = [
        (n + pads[i] + pads[i + len(space)] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i, n in enumerate(space)
    ]
    scale_shape = data.draw(st.sampled_from([(), (outputs, *[1] * len(space))]))
    requantisation = net.requantisation(7 * 255 * weight[0].size, scale_shape) if requantise else None
    net.add(
        Conv,
        (outputs, *size),
        dtype=requantisation.dtype if requantisation else np.int32,
        zero_point=requantisation.zero_point if requantisation else 0,
        weight=weight,
        bias=bias,
        input_zero_point=net.zero_point,
        strides=tuple(strides),
        pads=tuple(pads),
        dilations=tuple(dilations),
        groups=groups,
        requantisation=requantisation,
    )


def convolve_integer(net, data):
    convolve(net, data, requantise=False)
    requantise(net, 50_000)


def requantise(net, reach):
    shape = (net.shape[0], *[1] * (len(net.shape) - 1))
    bias = net.rng.integers(-1000, 1000, shape).astype(np.int32)
    r = net.requantisation(reach, shape)
    net.add(Requantise, net.shape, dtype=r.dtype, zero_point=r.zero_point, bias=bias, requantisation=r)


def pool(net, data):
    space = net.shape[1:]
    kernel = [data.draw(st.integers(1, min(3, n))) for n in space]
    strides = [data.draw(st.integers(1, 3)) for _ in space]
    pads = [data.draw(st.integers(0, k - 1)) for k in kernel * 2]
    ceil = data.draw(st.booleans())
    size = []
    for i, n in enumerate(space):
        padded = n + pads[i] + pads[i + len(space)]
        steps = (padded - kernel[i]) / strides[i]
        windows = int(np.ceil(steps) if ceil else np.floor(steps)) + 1
        size.append(windows - (ceil and (windows - 1) * strides[i] >= n + pads[i]))
    ones = (1,) * len(space)
    net.add(
        MaxPool,
        (net.shape[0], *size),
        kernel=tuple(kernel),
        strides=tuple(strides),
        pads=tuple(pads),
        dilations=ones,
        ceil_mode=ceil,
    )


def look_up(net, data):
    if net.dtype == UINT8:
        net.add(Table, net.shape, table=net.rng.integers(0, 256, 256).astype(np.uint8))


def pad(net, data):
    axes = len(net.shape)
    pads = [0, *(data.draw(st.integers(0, 1)) for _ in range(axes)), 0, *([1] * axes)]
    shape = [n + pads[1 + i] + pads[2 + axes + i] for i, n in enumerate(net.shape)]
    net.add(Pad, shape, pads=tuple(pads), value=net.zero_point)


def split_and_join(net, data):
    if net.shape[0] < 2:
        return
    sizes = (1, net.shape[0] - 1)
    space = net.shape[1:]
    names = tuple(net.new(net.dtype, (s, *space)) for s in sizes)
    net.layers.append(Split(name="split", inputs=(net.name,), outputs=names, axis=1, sizes=sizes))
    joined = (sizes[1] + sizes[0] + sizes[1], *space)
    net.add(Concat, joined, inputs=(names[1], names[0], names[1]), axis=1)


def turn(net, data):
    order = data.draw(st.permutations(range(1, len(net.shape) + 1)))
    net.add(Transpose, [net.shape[i - 1] for i in order], permutation=(0, *order))


def add_skip(net, data):
    first, z = net.name, net.zero_point
    multipliers = tuple(int(m) for m in net.rng.integers(-(2**15) + 1, 2**15, 2))
    if net.dtype == UINT8:
        other = net.add(Table, net.shape, table=net.rng.integers(0, 256, 256).astype(np.uint8))
    else:
        other = first
    net.add(
        WeightedSum,
        net.shape,
        dtype=np.int32,
        inputs=(first, other),
        multipliers=multipliers,
        zero_points=(z, z),
    )
    requantise(net, 2**15 * 255)


STEPS = (convolve, convolve_integer, pool, look_up, pad, split_and_join, turn, add_skip)


def head(net, data):
    """Spatial sum or flattening, then two dense layers, the first with a named accumulator."""
    if data.draw(st.booleans()):
        net.add(
            SpatialSum,
            (net.shape[0], *[1] * (len(net.shape) - 1)),
            dtype=np.int32,
            input_zero_point=net.zero_point,
        )
        requantise(net, 10_000)
    size = int(np.prod(net.shape))
    net.add(Reshape, (size,), shape=data.draw(st.sampled_from([(0, -1), (-1, size)])))
    r = net.requantisation(7 * 255 * size, (5,))
    accumulator = net.new(np.int32, (5,))
    net.add(
        Dense,
        (5,),
        dtype=r.dtype,
        weight=net.rng.integers(-7, 8, (size, 5)).astype(np.int8),
        bias=net.rng.integers(-99, 99, 5).astype(np.int32),
        input_zero_point=net.zero_point,
        accumulator=accumulator,
        requantisation=r,
        zero_point=r.zero_point,
    )
    codes = net.add(
        Dense,
        (3,),
        dtype=np.int32,
        weight=net.rng.integers(-3, 4, (5, 3)).astype(np.int8),
        bias=None,
        input_zero_point=net.zero_point,
        requantisation=None,
    )
    logits = net.add(Scale, (3,), dtype=np.float32, multiplier=np.float32([0.1, 0.03, -0.7]))
    return net.program(logits, codes)


@st.composite
def programs(draw, first=None):
    """A chain of random layers on 1-D or 2-D maps, from uint8 images to logits, that begins with `first`."""
    data = draw(st.data())
    axes = data.draw(st.sampled_from([1, 2, 2]))
    shape = tuple(data.draw(st.integers(3, 7)) for _ in range(1 + axes))
    net = DrawnNet(np.random.default_rng(data.draw(st.integers(0, 2**32))), shape)
    for step in ([first] if first else []) + data.draw(
        st.lists(st.sampled_from(STEPS), min_size=1, max_size=3)
    ):
        step(net, data)
        if np.prod(net.shape) > 4000:
            break
    return head(net, data)


@pytest.mark.parametrize("step", STEPS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([1, 7]))
def test_every_tensor_equals_the_reference(step, data, batch):
    program = data.draw(programs(step))
    images = images_for(program, batch)
    expected = run_reference(program, {"pixels": images})
    twin = Twin(program)
    trace = twin.trace(pixels_of(images))
    assert set(trace) == set(expected)
    for name, tensor in trace.items():
        assert np.array_equal(tensor.numpy().astype(np.float64), expected[name].astype(np.float64)), name
    logits = twin(pixels_of(images))
    assert same_bits(logits, expected[program.logits])
    assert same_bits(logits, Emulator(program)(images))


@settings(max_examples=25, deadline=None)
@given(programs())
def test_an_empty_batch_has_tensors_of_the_programs_shapes(program):
    pixels = pixels_of(images_for(program, 0)).requires_grad_()
    trace = Twin(program).trace(pixels)
    for name, tensor in trace.items():
        assert tuple(tensor.shape) == (0, *program.tensors[name].shape[1:])
    trace[program.logits].sum().backward()
    assert pixels.grad.shape == pixels.shape


@given(
    low=st.sampled_from([-128, -3, 0]),
    high=st.sampled_from([0, 5, 255]),
    zero_point=st.sampled_from([0, 128]),
    multiplier=st.sampled_from([1.0, -0.5, 0.003, 1e-7]),
    seed=st.integers(0, 2**32 - 1),
)
def test_requantisation_passes_the_gradient_inside_the_clamp_and_at_its_ends(
    low, high, zero_point, multiplier, seed
):
    rng = np.random.default_rng(seed)
    scale = np.float32(multiplier)
    ends = np.rint(np.array([low, high, 0]) / multiplier)
    drawn = rng.integers(-(2**23), 2**23, 40)
    accumulators = np.concatenate([ends, ends - 1, ends + 1, drawn, rng.integers(-600, 600, 40)]).astype(
        np.float32
    )
    x = torch.tensor(accumulators, requires_grad=True)
    codes, _ = twin_layers._Requantise.apply(x, torch.tensor(scale), low, high, zero_point)
    upstream = torch.tensor(rng.normal(size=len(accumulators)).astype(np.float32))
    (found,) = torch.autograd.grad(codes, x, upstream)
    product = accumulators * scale
    assert np.array_equal(codes.detach().numpy(), np.rint(np.clip(product, low, high)) + zero_point)
    inside = (product >= low) & (product <= high)
    assert np.array_equal(found.numpy(), np.where(inside, upstream.numpy() * scale, 0))
