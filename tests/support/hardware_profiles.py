"""Hardware profiles drawn from the whole space of valid ones."""

from hypothesis import strategies as st

from ohmfold.toolchain.hardware import Hardware

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12)
TITLES = TEXT.filter(bool)
KINDS = ["relative", "absolute", "lognormal"]


def _floats(low, high, **bounds):
    return st.floats(low, high, allow_nan=False, **bounds)


@st.composite
def adcs(draw, signed, fraction_bits):
    """Draw the fields of a converter."""
    least = 2 if signed else 1
    bits = draw(st.none() | st.integers(least, 16))
    kind = draw(st.sampled_from(["full", "fixed", "calibrated"]))
    adc = {"bits": bits, "range": kind}
    unit = 2.0**-fraction_bits
    if kind == "calibrated":
        return adc | draw(st.just({}) | st.fixed_dictionaries({"percentile": _floats(50, 100)}))
    if kind == "full":
        return adc | {"step": draw(st.none() | st.integers(1, 2**20).map(lambda units: units * unit))}
    codes = draw(st.integers(2, 2 ** (bits or 8)))
    lowest = draw(st.integers(-codes, codes))
    step = draw(st.integers(1, 2**16))
    adc |= {"low": lowest * step * unit, "high": (lowest + codes - 1) * step * unit}
    return adc | draw(st.just({}) | st.just({"step": step * unit}))


@st.composite
def cells(draw, fraction_bits):
    """Draw the fields of a cell, ideal and flawed ones."""
    on_rate = draw(st.just(0.0) | _floats(0, 1))
    times = sorted(draw(st.tuples(_floats(1e-9, 1e12), _floats(1e-9, 1e12))))
    return {
        "fraction_bits": fraction_bits,
        "on_off_ratio": draw(st.none() | _floats(1, 1e12, exclude_min=True)),
        "programming": draw(
            st.just({})
            | st.fixed_dictionaries({"kind": st.sampled_from(KINDS), "sigma": st.just(0.05) | _floats(0, 16)})
        ),
        "stuck": {"on_rate": on_rate, "off_rate": draw(st.just(0.0) | _floats(0, 1 - on_rate))},
        "drift": {
            "reference_time_s": times[0],
            "time_s": times[1],
            "exponent": draw(st.just(0.0) | _floats(0, 10)),
        },
    }


@st.composite
def wires(draw):
    """Draw the fields of the lines, with and without resistance."""
    row, column = draw(st.tuples(*[st.just(0.0) | _floats(0, 1e3)] * 2))
    on_ohm = _floats(1e3, 1e7)
    return {
        "row_ohm": row,
        "column_ohm": column,
        "on_ohm": draw(on_ohm if row or column else st.none() | on_ohm),
    }


def _sourced(*names):
    figure = st.none() | _floats(0, 1e12)
    return st.fixed_dictionaries({"source": TITLES} | dict.fromkeys(names, figure)) | st.just({})


@st.composite
def hardwares(draw, *, largest_tile=4096):
    """Draw a `Hardware`: any mapping, converter, cell, wires and noise.

    Args:
        largest_tile: Most rows and most columns of a tile.
    """
    mapping = draw(st.sampled_from(["differential", "offset"]))
    fraction_bits = draw(st.integers(0, 10))
    return Hardware(
        name=draw(TITLES),
        description=draw(TEXT),
        source=draw(TITLES),
        array={
            "rows": draw(st.integers(1, largest_tile)),
            "columns": draw(st.integers(2 if mapping == "differential" else 1, largest_tile)),
            "mapping": mapping,
            "cell_bits": draw(st.integers(1, 4)),
        },
        dac={"bits": draw(st.integers(1, 8))},
        adc=draw(adcs(mapping == "differential", fraction_bits)),
        cell=draw(st.just({"fraction_bits": fraction_bits}) | cells(fraction_bits)),
        wires=draw(st.just({}) | wires()),
        read=draw(
            st.just({})
            | st.fixed_dictionaries(dict.fromkeys(("noise", "noise_relative"), st.just(0.0) | _floats(0, 16)))
        ),
        energy=draw(_sourced("adc_pj", "dac_pj", "cell_fj", "digital_pj")),
        area=draw(_sourced("adc_um2", "cell_um2", "dac_um2")),
    )
