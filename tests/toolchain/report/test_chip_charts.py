"""Charts of studies of chips: SVG files that stand alone, say in words what they show, and never differ."""

import re
from xml.etree import ElementTree as ET

import pytest

from ohmfold.toolchain.chips import Chip, ChipStudy, _point
from ohmfold.toolchain.hardware import load_hardware
from ohmfold.toolchain.report.chip_charts import _places, distribution_chart, sweep_chart

SVG = "{http://www.w3.org/2000/svg}"
IMAGES = 200


def studied(values=(None,), field=None, counts=(180, 190, 190, 199), name="reram-128", exact=198):
    hardware = load_hardware("reram-128").with_changes({"name": name})
    return ChipStudy(
        ohmfold="0",
        artifact_sha256="0" * 64,
        data={"name": "digits", "images": IMAGES, "sha256": "0" * 64},
        calibration_sha256=None,
        hardware=hardware.name,
        profile_sha256=hardware.sha256,
        profile_toml=hardware.to_toml(),
        seed=3,
        count=len(counts),
        field=field,
        exact_correct=exact,
        points=tuple(
            _point(value, "", [Chip(seed=3 + i, correct=c) for i, c in enumerate(counts)], IMAGES)
            for value in values
        ),
    )


SWEPT = studied((4, 5, 6, None), "adc.bits")


def parsed(svg):
    return ET.fromstring(svg)  # noqa: S314 - our own text


def texts(svg):
    return ["".join(element.itertext()) for element in parsed(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    "svg", [distribution_chart(studied()), distribution_chart(SWEPT), sweep_chart(SWEPT)]
)
def test_a_chart_stands_alone_and_says_what_it_shows(svg):
    root = parsed(svg)
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    assert root.get("width")
    assert root.get("height")
    assert "mean 94.88 %" in root.get("aria-label")
    assert root[0].tag == f"{SVG}rect"  # paper: a dark viewer shows dark ink otherwise
    assert "var(" not in svg
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", svg)
    assert not re.search(r"https?://(?!www\.w3\.org)", svg)
    assert "exact integers" in texts(svg)


def test_the_same_study_gives_the_same_bytes():
    assert distribution_chart(SWEPT) == distribution_chart(SWEPT)
    assert sweep_chart(SWEPT) == sweep_chart(SWEPT)


def test_a_distribution_names_its_chips_and_the_worst_of_them():
    svg = distribution_chart(studied())
    assert "4 chips of reram-128" in texts(svg)
    assert "worst 90.00 % (seed 3)" in parsed(svg).get("aria-label")
    assert "1 chip of reram-128" in texts(distribution_chart(studied(counts=(150,))))


def test_a_distribution_of_a_sweep_has_a_row_for_each_value():
    shown = texts(distribution_chart(SWEPT))
    assert [text for text in shown if text.startswith("adc.bits = ")] == [
        "adc.bits = 4",
        "adc.bits = 5",
        "adc.bits = 6",
        "adc.bits = none",
    ]


def test_a_sweep_has_its_field_and_values_below():
    shown = texts(sweep_chart(SWEPT))
    assert {"adc.bits", "4", "5", "6", "none", "all chips", "half of the chips", "mean of the chips"} <= set(
        shown
    )


@pytest.mark.parametrize(
    ("values", "places", "logarithmic"),
    [
        ((4, 5, 6), [4, 5, 6], False),
        ((0.0, 0.05, 0.1), [0, 0.05, 0.1], False),
        ((2.0, 10.0, 1000.0), [2, 10, 1000], True),
        ((0.0, 10.0, 1000.0), [0, 10, 1000], False),
        ((8, 4, 6), [0, 1, 2], False),
        ((4, None), [0, 1], False),
        (("offset", "differential"), [0, 1], False),
        ((7,), [7], False),
    ],
)
def test_numbers_lie_where_they_are_and_others_in_a_row(values, places, logarithmic):
    assert _places(values) == (places, logarithmic)
    assert parsed(sweep_chart(studied(values, "adc.bits")))


@pytest.mark.parametrize("counts", [(0,), (IMAGES,), (0, IMAGES), (IMAGES,) * 60, tuple(range(IMAGES))])
@pytest.mark.parametrize("exact", [0, IMAGES])
def test_every_chip_is_under_a_bar_whatever_the_accuracies(counts, exact, monkeypatch):
    from matplotlib.axes import Axes

    drawn = []
    bar = Axes.bar

    def spy(self, x, height, width, **options):
        drawn.append((self, list(zip(x, height, strict=True)), width))
        return bar(self, x, height, width, **options)

    monkeypatch.setattr(Axes, "bar", spy)
    distribution_chart(studied(counts=counts, exact=exact))
    ((axes, bars, width),) = drawn
    assert sum(height for _, height in bars) == len(counts)
    low, high = axes.get_xlim()
    assert all(low <= x - width / 2 and x + width / 2 <= high for x, _ in bars)
    assert low < 100 * exact / IMAGES < high
    for accuracy in {100 * count / IMAGES for count in counts}:
        assert any(abs(accuracy - x) <= width / 2 / 0.9 for x, _ in bars)


def test_a_name_that_looks_like_markup_stays_text():
    svg = distribution_chart(studied(name='a<b>&"c"'))
    assert '4 chips of a<b>&"c"' in texts(svg)
    assert '4 chips of a<b>&"c"' in parsed(svg).get("aria-label")
