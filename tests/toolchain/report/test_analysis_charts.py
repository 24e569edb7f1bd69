import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from ohmfold.toolchain.analysis.attacked_images import AttackedImages
from ohmfold.toolchain.analysis.quantised_layers import quantised_layers
from ohmfold.toolchain.analysis.report import analyse
from ohmfold.toolchain.recipe import Recipe
from ohmfold.toolchain.report.analysis_charts import lipschitz_chart, terms_chart, weight_histogram

from ...support.analysed import SHAPE, small_network, some_images


def parsed(svg):
    return ET.fromstring(svg)  # noqa: S314 - our own text


def texts(svg):
    return {"".join(one.itertext()).strip() for one in parsed(svg).iter() if one.tag.endswith("text")}


def analysis(change):
    images = some_images(3)
    pairs = AttackedImages(images, (images + change).astype(np.uint8), "shift", "inf", 1, "none", 0)
    return analyse(quantised_layers(small_network(), Recipe(), SHAPE), pairs)


@pytest.mark.parametrize("draw", [terms_chart, lipschitz_chart])
def test_every_layer_has_a_row_and_ticks_are_plain_words(draw):
    svg = draw(analysis(np.uint8(1)))
    assert {"first", "second", "last"} <= texts(svg)
    assert "mathdefault" not in svg


def test_terms_of_zero_are_left_out_of_a_logarithmic_axis():
    svg = terms_chart(analysis(np.uint8(0)))
    assert "attack 0 %" in parsed(svg).get("aria-label")
    assert {"attack, |W dx|", "quantisation, |dW x|"} <= texts(svg)


@pytest.mark.parametrize(
    ("recipe", "words", "lines"),
    [
        (Recipe(), "weight (dashed: the 7 levels)", 7),
        (Recipe(granularity="channel"), "weight, in steps of its channel (dashed: the 7 levels)", 7),
        (Recipe(weight_bits=1), "weight (dashed: the 2 levels)", 2),
        (Recipe(weight_bits=8), "weight (dashed: the 255 levels)", 0),
    ],
)
def test_a_histogram_marks_every_level(recipe, words, lines):
    layer = quantised_layers(small_network(), recipe, SHAPE).layers[1]
    svg = weight_histogram(layer)
    assert words in texts(svg)
    dashed = re.findall(r"stroke-dasharray: [\d.]+", svg)
    assert len(dashed) == lines
