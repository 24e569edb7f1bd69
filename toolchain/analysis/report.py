"""What quantisation and an attack do to a network, layer by layer: Eq. 1, Eq. 2, and a folder of figures.

| file | what it holds |
|---|---|
| `analysis.json` | all figures |
| `layers.csv` | a line for every layer |
| `terms.svg` | Eq. 1: the lengths of the three terms, relative to the signal |
| `lipschitz.svg` | Eq. 2: the norms of the weight error |
| `weights/NN-LAYER.svg` | the histogram of a layer's weights, against its levels |
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...errors import OutputError
from ..artifact import write_atomically
from .error_terms import ErrorTerms, error_terms
from .lipschitz import Lipschitz, lipschitz, product

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .attacked_images import AttackedImages
    from .quantised_layers import LayerNetwork, QuantisedLayer

    Progress = Callable[[str, float], None]

__all__ = ["TERMS", "Analysis", "LayerAnalysis", "analyse", "check_analysis_folder", "write_analysis"]

RECORD = "analysis.json"
TABLE = "layers.csv"
TERMS_CHART = "terms.svg"
LIPSCHITZ_CHART = "lipschitz.svg"
WEIGHTS = "weights"
TERMS = ("attack", "quantisation", "cross", "observed")
"""The terms of Eq. 1, and their sum as observed; fields of `ErrorTerms`."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 60


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer's figures.

    Attributes:
        name: As the artifact calls it.
        kind: `conv` or `dense`.
        shape: Of the weights.
        options: Width, levels and step, in words.
        mapping: The mu-law map of the weights, in words, or None.
        input_shape: Of one sample at the layer's input.
        steps: The smallest and the largest step.
        codes: Every code that the layer may have.
        counts: How many weights have which.
        terms: Eq. 1.
        lipschitz: Eq. 2.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    options: str
    mapping: str | None
    input_shape: tuple[int, ...]
    steps: tuple[float, float]
    codes: tuple[int, ...]
    counts: tuple[int, ...]
    terms: ErrorTerms
    lipschitz: Lipschitz


@dataclass(frozen=True)
class Analysis:
    """A network's figures.

    Attributes:
        layers: In order.
        product: The products of the layers' Lipschitz constants.
        attack: How the images were attacked (`AttackedImages.description`).
    """

    layers: tuple[LayerAnalysis, ...]
    product: Lipschitz
    attack: dict[str, Any]

    @property
    def rounding(self) -> float:
        """By how much the terms of Eq. 1 missed the observed difference, at worst (`ErrorTerms.rounding`)."""
        return max(layer.terms.rounding for layer in self.layers)

    def document(self) -> dict[str, Any]:
        """All figures as JSON values; lengths relative to the signal come with each layer's terms."""
        found = asdict(self)
        for row, layer in zip(found["layers"], self.layers, strict=True):
            row["terms"]["relative"] = {name: layer.terms.relative(name) for name in TERMS}
        # JSON has no infinity, and a product over many layers can overflow.
        found["product"] = {
            name: value if math.isfinite(value) else None for name, value in found["product"].items()
        }
        return found | {"rounding": self.rounding}


def analyse(network: LayerNetwork, images: AttackedImages, progress: Progress | None = None) -> Analysis:
    """Measure Eq. 1 and Eq. 2 at every layer.

    Args:
        network: The float model's layers.
        images: Clean and attacked.
        progress: Told what is done and the share of it all.

    Raises:
        DataError: The images do not fit.
        ModelError: onnxruntime cannot run the model.
    """

    def tell(step: str, share: float) -> None:
        if progress is not None:
            progress(step, share)

    terms = error_terms(
        network, images.clean, images.attacked, lambda share: tell("terms of Eq. 1", share / 2)
    )
    rows = []
    for position, (layer, found) in enumerate(zip(network.layers, terms, strict=True)):
        tell(f"norms of {layer.name}", 0.5 + position / len(terms) / 2)
        rows.append(_row(layer, found))
    return Analysis(tuple(rows), product([row.lipschitz for row in rows]), images.description())


def _row(layer: QuantisedLayer, terms: ErrorTerms) -> LayerAnalysis:
    step = layer.quantised.step
    counts = (layer.quantised.codes.reshape(1, -1) == layer.levels.reshape(-1, 1)).sum(axis=1)
    return LayerAnalysis(
        name=layer.name,
        kind=layer.operator.kind,
        shape=layer.real.shape,
        options=layer.options,
        mapping=layer.mapping,
        input_shape=layer.operator.input_shape,
        steps=(float(step.min()), float(step.max())),
        codes=tuple(layer.levels.tolist()),
        counts=tuple(counts.tolist()),
        terms=terms,
        lipschitz=lipschitz(layer),
    )


def check_analysis_folder(out: Path) -> None:
    """Refuse, before any work is done, a folder that cannot be or must not become that of an analysis.

    Raises:
        OutputError: It is a file, lies where no folder can be made, or holds something else than an analysis.
    """
    parent = out.absolute().parent
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out} is a file, expected a folder to write to")
    if not out.exists() and not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise OutputError(f"cannot make the folder {out}: {parent} is not a folder that can be written to")
    if out.is_dir() and not os.access(out, os.W_OK):
        raise OutputError(f"cannot write to the folder {out}")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise OutputError(
            f"{out} is not empty and holds no {RECORD} of a former analysis; choose another folder"
        )


def write_analysis(
    analysis: Analysis, network: LayerNetwork, folder: Path, about: dict[str, Any]
) -> tuple[str, ...]:
    """Write an analysis into a folder, each file whole or not at all, `analysis.json` last.

    Args:
        analysis: Of `network`.
        network: Its layers, for the histograms.
        folder: Made where it does not exist; histograms of a former analysis are removed.
        about: What else the JSON says: files and hashes.

    Returns:
        The names of the files.

    Raises:
        OutputError: A file cannot be written.
    """
    from ..report.analysis_charts import lipschitz_chart, terms_chart, weight_histogram

    files = {
        TABLE: _csv(analysis),
        TERMS_CHART: terms_chart(analysis),
        LIPSCHITZ_CHART: lipschitz_chart(analysis),
    }
    for position, layer in enumerate(network.layers, start=1):
        name = _UNSAFE.sub("-", layer.name)[:_LONGEST_NAME]
        files[f"{WEIGHTS}/{position:02d}-{name}.svg"] = weight_histogram(layer)
    files[RECORD] = json.dumps(about | analysis.document(), indent=2, allow_nan=False) + "\n"
    try:
        (folder / WEIGHTS).mkdir(parents=True, exist_ok=True)
        for former in (folder / WEIGHTS).glob("*.svg"):
            former.unlink()
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None
    for name, text in files.items():
        write_atomically(folder / name, text.encode())
    return tuple(files)


def _csv(analysis: Analysis) -> str:
    """A line for every layer; what is relative to a signal of 0 is empty."""
    lengths = list(asdict(analysis.layers[0].terms))
    norms = list(asdict(analysis.product))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["layer", "kind", "shape", "options", "mapping", *lengths]
        + [f"{name}_relative" for name in TERMS]
        + [f"error_{name}" for name in norms]
    )
    for layer in analysis.layers:
        relative = [layer.terms.relative(name) for name in TERMS]
        rows.writerow(
            [
                layer.name,
                layer.kind,
                "x".join(map(str, layer.shape)),
                layer.options,
                layer.mapping or "",
                *asdict(layer.terms).values(),
                *("" if share is None else share for share in relative),
                *asdict(layer.lipschitz).values(),
            ]
        )
    return text.getvalue()
