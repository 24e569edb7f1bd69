"""Maps in guarded memory: random bytes before, after and in the padding, of which none may change."""

import numpy as np
from hypothesis import strategies as st

from ohmfold.kernels.layout import MapLayout

GUARD = 67  # bytes on either side; odd, so that a map is not aligned

# What the codes of a map may be.
KINDS = ("random", "extremes", "equal", "lowest", "highest")


def codes(rng, shape, kind="random"):
    """uint8 codes of one of `KINDS`."""
    if kind == "extremes":
        return rng.choice(np.array([0, 255], np.uint8), shape)
    if kind == "random":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    value = {"equal": int(rng.integers(256)), "lowest": 0, "highest": 255}[kind]
    return np.full(shape, value, np.uint8)


@st.composite
def sizes(draw):
    """Channels, height and width: long rows of few channels as well as many channels."""
    channels = draw(st.integers(1, 70))
    longest = 40 if channels < 8 else 9
    return channels, draw(st.integers(1, longest)), draw(st.integers(1, longest))


@st.composite
def layouts(draw, size):
    """A layout of a size, with any padding; often with none."""
    sides = draw(st.one_of(st.just((0,) * 4), st.tuples(*(st.integers(0, 3) for _ in range(4)))))
    return MapLayout(*size, *sides, fill=draw(st.integers(0, 255)))


class Buffer:
    """Random memory that holds a map of some images.

    Attributes:
        memory: All bytes.
        array: Those from image 0 on.
        before: A copy of all bytes.
    """

    def __init__(self, rng, layout, images, kind="random"):
        self.layout, self.images = layout, images
        self.memory = rng.integers(0, 256, 2 * GUARD + images * layout.image_bytes, dtype=np.uint8)
        self.array = self.memory[GUARD:]
        self.view()[...] = codes(rng, self.view().shape, kind)
        self.before = self.memory.copy()

    def view(self, memory=None):
        """The map as `(N, H, W, C)` without its padding."""
        form = self.layout
        memory = self.memory if memory is None else memory
        rows, columns = form.top + form.height + form.bottom, form.left + form.width + form.right
        used = memory[GUARD : GUARD + self.images * form.image_bytes]
        padded = used.reshape(self.images, rows, columns, form.channels)
        return padded[:, form.top : form.top + form.height, form.left : form.left + form.width]

    def codes(self):
        """A copy of the map's codes, int64."""
        return self.view().astype(np.int64)

    def holds(self, wanted):
        """Whether the map is `wanted` and every other byte what it was."""
        expected = self.before.copy()
        self.view(expected)[...] = wanted
        return np.array_equal(self.memory, expected)

    def untouched(self):
        """Whether no byte changed."""
        return np.array_equal(self.memory, self.before)


class Flat:
    """Guarded memory for a flat array of any type, without padding."""

    def __init__(self, rng, size, dtype):
        guard = 16
        self.memory = rng.integers(-100, 100, size + 2 * guard).astype(dtype)
        self.array = self.memory[guard:]
        self.before = self.memory.copy()
        self.inside = slice(guard, guard + size)

    def holds(self, wanted):
        """Whether the array is `wanted` and every other element what it was."""
        expected = self.before.copy()
        expected[self.inside] = np.asarray(wanted).reshape(-1)
        return np.array_equal(self.memory, expected)
